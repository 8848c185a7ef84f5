"""A message in the forms that its recipients get."""

from __future__ import annotations

import pytest

from edge_broker.core.message import Message, build_message
from edge_broker.wire import const
from edge_broker.wire.decoder import Decoder
from edge_broker.wire.encoder import encode_publish
from edge_broker.wire.packets import Publish
from edge_broker.wire.properties import encode_properties
from edge_broker.wire.topics import TopicCache

V3, V5 = const.MQTT_3_1_1, const.MQTT_5
BLOCK = encode_properties({const.CONTENT_TYPE: "text", const.USER_PROPERTY: [("a", "b")]})


def arrived(version: int, payload: bytes = b"payload", qos: int = 1, block: bytes = b"\0") -> Message:
    """As a connection decodes it."""
    decoder = Decoder(TopicCache(), 1 << 20, version=version, publish_type=Message)
    decoder.feed(encode_publish(version, "a/b", payload, qos, packet_id=9, property_block=block))
    message = decoder.next_packet()
    assert isinstance(message, Message)
    return message


def read(frame: bytes, version: int) -> Publish:
    decoder = Decoder(TopicCache(), 1 << 20, version=version, from_server=True)
    decoder.feed(frame)
    packet = decoder.next_packet()
    assert isinstance(packet, Publish)
    assert decoder.buffered_bytes == 0
    return packet


def delivered(message: Message, version: int, now: float = 0.0) -> Publish:
    """What a subscriber of `version` gets at QoS > 0, under packet identifier 513."""
    head, tail = message.parts_for(version, now)
    return read(head + b"\2\1" + tail, version)


@pytest.mark.parametrize("came", [V3, V5])
@pytest.mark.parametrize("goes", [V3, V5])
@pytest.mark.parametrize("size", [0, 10, 122, 123, 130, 16_380, 100_000])
def test_payload_and_topic_are_the_same_in_every_version(came: int, goes: int, size: int) -> None:
    message = arrived(came, b"x" * size)
    publish = delivered(message, goes)
    assert (publish.topic, publish.payload, publish.packet_id, publish.qos) == ("a/b", b"x" * size, 513, 1)
    quiet = arrived(came, b"x" * size, qos=0)
    publish = read(quiet.frame_for(goes, 0.0), goes)
    assert (publish.topic, publish.payload, publish.qos) == ("a/b", b"x" * size, 0)


@pytest.mark.parametrize("goes", [V3, V5])
def test_properties_go_where_there_are_properties(goes: int) -> None:
    publish = delivered(arrived(V5, block=BLOCK), goes)
    assert publish.property_block == (BLOCK if goes == V5 else b"\0")
    assert publish.payload == b"payload"


def test_the_same_bytes_leave_as_came() -> None:
    for version in (V3, V5):
        message = arrived(version, qos=0)
        assert message.frame_for(version, 0.0) is message.frame


def test_parts_are_made_once_per_version() -> None:
    message = arrived(V5)
    for version in (V3, V5):
        assert message.parts_for(version, 0.0) is message.parts_for(version, 5.0)


def test_what_is_left_of_its_time_is_told_anew_each_time() -> None:
    message = arrived(V5, block=BLOCK)
    message.expires_at = 100.0
    assert [delivered(message, V5, now).expiry_interval for now in (0.0, 40.5, 99.9, 100.0, 200.0)] == [
        100,
        60,
        1,
        0,
        0,
    ]
    assert delivered(message, V5, 0.0).properties == delivered(arrived(V5, block=BLOCK), V5).properties
    assert delivered(message, V3, 40.0).expiry_interval is None


# ---- variants


def test_a_variant_is_made_once_for_all_who_get_it() -> None:
    message = arrived(V5)
    assert message.variant(0, False) is message.variant(0, False)
    assert message.variant(1, False) is message
    assert message.variant(1, False, (3,)) is not message.variant(1, False, (4,))


@pytest.mark.parametrize("version", [V3, V5])
@pytest.mark.parametrize("qos", [0, 1, 2])
@pytest.mark.parametrize("retain", [False, True])
def test_a_variant_differs_in_what_was_asked_for(version: int, qos: int, retain: bool) -> None:
    message = arrived(version, qos=2)
    variant = message.variant(qos, retain)
    publish = delivered(variant, version) if qos else read(variant.frame_for(version, 0.0), version)
    assert (publish.qos, publish.retain, publish.payload) == (qos, retain, b"payload")
    assert variant.origin is message


def test_subscription_identifiers_stand_beside_the_other_properties() -> None:
    variant = arrived(V5, block=BLOCK).variant(1, False, (3, 200_000))
    publish = delivered(variant, V5)
    assert publish.subscription_ids == (3, 200_000)
    assert publish.property_block == BLOCK
    assert delivered(arrived(V3).variant(1, False, (3,)), V5).subscription_ids == (3,)


def test_a_variant_of_a_variant_leads_to_the_first() -> None:
    message = arrived(V5, qos=2)
    message.expires_at, message.received_at = 9.0, 3.0
    again = message.variant(1, True).copy(0, False)
    assert again.origin is message
    assert (again.expires_at, again.received_at) == (9.0, 3.0)


@pytest.mark.parametrize("version", [V3, V5])
@pytest.mark.parametrize("qos", [0, 1, 2])
def test_a_message_of_our_own_is_like_one_that_came(version: int, qos: int) -> None:
    message = build_message("a/b", b"payload", qos=qos, retain=True, version=version)
    publish = delivered(message, version) if qos else read(message.frame, version)
    assert (publish.topic, publish.payload, publish.qos, publish.retain) == ("a/b", b"payload", qos, True)
    assert message.payload == b"payload"
    assert message.property_block == b"\0"
