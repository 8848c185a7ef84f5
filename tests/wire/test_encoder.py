"""What the encoder does beyond writing fields down: one reason code in each version's words, and the shortest form."""

from __future__ import annotations

import pytest

from edge_broker.wire import const
from edge_broker.wire.encoder import (
    encode_ack,
    encode_auth,
    encode_connack,
    encode_disconnect,
    encode_publish,
    encode_suback,
    encode_unsuback,
)
from tests.golden.notation import bytes_of


@pytest.mark.parametrize(
    ("reason_code", "return_code"),
    [
        (const.SUCCESS, 0),
        (const.UNSUPPORTED_PROTOCOL_VERSION, 1),
        (const.CLIENT_IDENTIFIER_NOT_VALID, 2),
        (const.SERVER_UNAVAILABLE, 3),
        (const.SERVER_BUSY, 3),
        (const.QUOTA_EXCEEDED, 3),
        (const.BAD_USER_NAME_OR_PASSWORD, 4),
        (const.NOT_AUTHORIZED, 5),
        (const.BANNED, 5),
        (const.BAD_AUTHENTICATION_METHOD, 5),
    ],
)
def test_a_refusal_in_the_words_of_each_version(reason_code: int, return_code: int) -> None:
    for version in (3, 4):
        assert encode_connack(version, False, reason_code) == bytes((0x20, 2, 0, return_code))
    assert encode_connack(5, False, reason_code) == bytes((0x20, 3, 0, reason_code, 0))


def test_session_present_is_unknown_to_mqtt_3_1() -> None:
    """There the byte is reserved."""
    assert encode_connack(3, True, 0) == b"\x20\x02\x00\x00"
    assert encode_connack(4, True, 0) == b"\x20\x02\x01\x00"


def test_every_refusal_of_a_filter_is_0x80_before_mqtt_5() -> None:
    codes = [0, 1, 2, const.NOT_AUTHORIZED, const.TOPIC_FILTER_INVALID, const.UNSPECIFIED_ERROR]
    assert encode_suback(4, 10, codes) == bytes_of("90 08 00 0a 00 01 02 80 80 80")


def test_what_older_versions_have_no_place_for_is_left_out() -> None:
    properties = {const.REASON_STRING: "why"}
    assert encode_ack(4, const.PUBACK, 7, const.QUOTA_EXCEEDED, properties) == bytes_of("40 02 00 07")
    assert encode_unsuback(4, 10, [0x11], properties) == bytes_of("b0 02 00 0a")
    assert encode_disconnect(4, const.QUOTA_EXCEEDED, properties) == bytes_of("e0 00")
    assert encode_suback(4, 10, [0], properties) == bytes_of("90 03 00 0a 00")
    assert encode_publish(4, "t", b"hi", property_block=b"\x02\x01\x01") == bytes_of("30 05 00 01 't' 'hi'")


@pytest.mark.parametrize(
    ("reason_code", "properties", "written"),
    [
        (0x00, {}, "40 02 00 07"),
        (0x10, {}, "40 03 00 07 10"),
        (0x00, {const.REASON_STRING: ""}, "40 07 00 07 00 03 1f 00 00"),
    ],
)
def test_an_acknowledgement_is_as_short_as_it_may_be(
    reason_code: int, properties: dict[int, str], written: str
) -> None:
    assert encode_ack(5, const.PUBACK, 7, reason_code, properties) == bytes_of(written)


def test_disconnect_and_auth_are_as_short_as_they_may_be() -> None:
    assert encode_disconnect(5) == encode_disconnect(4) == bytes_of("e0 00")
    assert encode_disconnect(5, 0x8E) == bytes_of("e0 01 8e")
    assert encode_disconnect(5, 0, {const.SESSION_EXPIRY_INTERVAL: 1}) == bytes_of(
        "e0 07 00 05 11 00 00 00 01"
    )
    assert encode_auth(0) == bytes_of("f0 00")
    assert encode_auth(0x18) == bytes_of("f0 02 18 00")


def test_a_packet_id_counts_at_qos_above_0_only() -> None:
    assert encode_publish(4, "t", b"", 0, packet_id=9) == bytes_of("30 03 00 01 't'")
    assert encode_publish(4, "t", b"", 2, True, True, 9) == bytes_of("3d 05 00 01 't' 00 09")
