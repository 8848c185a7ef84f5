"""MQTT 5.0, chapters 1 and 2: strings, integers, reserved flags, packet identifiers, the property length.

Each kind of string is broken where it stands in a packet of its own, so that no check is taken for another.
"""

from __future__ import annotations

import struct
from collections.abc import Callable
from typing import Any

import pytest

from tests.conformance.codec import (
    V5,
    Connack,
    Connect,
    Publish,
    Suback,
    Subscribe,
    Unsuback,
    Unsubscribe,
    Will,
    encode,
    frame,
)
from tests.conformance.harness import RunningBroker
from tests.conformance.normative import normative
from tests.conformance.properties import text, varint
from tests.conformance.wire import fresh

MALFORMED = 0x81
BAD_UTF8 = (
    b"\xff",
    b"a\xc3",  # cut off
    b"\xc0\xaf",  # overlong
    b"\xed\xa0\x80",  # U+D800
    b"\xed\xbf\xbf",  # U+DFFF
    b"\xf4\x90\x80\x80",  # beyond U+10FFFF
)

CONNECT_STRINGS: dict[str, Callable[[bytes], Connect]] = {
    "client identifier": Connect,
    "will topic": lambda bad: Connect("c", will=Will(bad, b"")),
    "user name": lambda bad: Connect("c", username=bad),
    "user property name": lambda bad: Connect("c", properties={"user_property": [(bad, "x")]}),
    "user property value": lambda bad: Connect("c", properties={"user_property": [("x", bad)]}),
    "authentication method": lambda bad: Connect("c", properties={"authentication_method": bad}),
    "will content type": lambda bad: Connect("c", will=Will("t", b"", properties={"content_type": bad})),
    "will response topic": lambda bad: Connect("c", will=Will("t", b"", properties={"response_topic": bad})),
    "will user property": lambda bad: Connect(
        "c", will=Will("t", b"", properties={"user_property": [("x", bad)]})
    ),
}
LATER_STRINGS: dict[str, Callable[[bytes], Any]] = {
    "topic": Publish,
    "response topic": lambda bad: Publish("t", properties={"response_topic": bad}),
    "content type": lambda bad: Publish("t", properties={"content_type": bad}),
    "user property name": lambda bad: Publish("t", properties={"user_property": [(bad, "x")]}),
    "user property value": lambda bad: Publish("t", properties={"user_property": [("x", bad)]}),
    "topic filter": lambda bad: Subscribe(1, ((bad, 0),)),
    "subscribe user property": lambda bad: Subscribe(1, (("t", 0),), {"user_property": [("x", bad)]}),
    "topic filter given up": lambda bad: Unsubscribe(1, (bad,)),
    "disconnect reason string": lambda bad: frame(0xE0, b"\0" + varint(3 + len(bad)) + b"\x1f" + text(bad)),
    "puback reason string": lambda bad: frame(0x40, b"\0\x01\0" + varint(3 + len(bad)) + b"\x1f" + text(bad)),
}


@normative("MQTT-1.5.4-1", "MQTT-3.1.3-4", "MQTT-3.1.3-11", "MQTT-3.1.3-12", "MQTT-1.5.7-1", "MQTT-3.1.4-1")
@pytest.mark.parametrize("where", CONNECT_STRINGS)
def test_a_string_of_connect_that_is_not_utf8_is_refused(broker: RunningBroker, where: str) -> None:
    for bad in BAD_UTF8:
        answers = broker.wire(V5).send(CONNECT_STRINGS[where](bad)).drain()
        assert all(isinstance(answer, Connack) and answer.code == MALFORMED for answer in answers)


@normative("MQTT-1.5.4-2", "MQTT-1.5.7-1", "MQTT-4.7.3-2")
@pytest.mark.parametrize("where", CONNECT_STRINGS)
def test_a_nul_in_a_string_of_connect_is_refused(broker: RunningBroker, where: str) -> None:
    for bad in (b"\0", b"a\0b"):
        answers = broker.wire(V5).send(CONNECT_STRINGS[where](bad)).drain()
        assert all(isinstance(answer, Connack) and answer.code == MALFORMED for answer in answers)


@normative(
    "MQTT-1.5.4-1",
    "MQTT-1.5.7-1",
    "MQTT-3.3.2-1",
    "MQTT-3.3.2-13",
    "MQTT-3.3.2-19",
    "MQTT-3.8.3-1",
    "MQTT-3.10.3-1",
    "MQTT-4.13.1-1",
)
@pytest.mark.parametrize("where", LATER_STRINGS)
def test_a_string_that_is_not_utf8_ends_the_connection(broker: RunningBroker, where: str) -> None:
    for bad in BAD_UTF8:
        broker.client(version=V5).send(LATER_STRINGS[where](bad)).expect_closed(MALFORMED)


@normative("MQTT-1.5.4-2", "MQTT-4.7.3-2")
@pytest.mark.parametrize("where", LATER_STRINGS)
def test_a_nul_in_a_string_ends_the_connection(broker: RunningBroker, where: str) -> None:
    for bad in (b"\0", b"a\0b"):
        broker.client(version=V5).send(LATER_STRINGS[where](bad)).expect_closed(MALFORMED)


@normative("MQTT-1.5.4-3", "MQTT-4.7.3-4")
def test_a_byte_order_mark_is_part_of_the_string(broker: RunningBroker, topic: str) -> None:
    with_mark = "\ufeff" + topic
    one, other = broker.client(version=V5), broker.client(version=V5)
    one.subscribe((with_mark, 0))
    other.subscribe((topic, 0))
    properties = {"content_type": "\ufefftext", "user_property": [("\ufeffname", "in\ufeffside\ufeff")]}
    broker.client(version=V5).publish(with_mark, b"\xef\xbb\xbfpayload", properties=properties)
    one.expect(Publish(with_mark, b"\xef\xbb\xbfpayload", properties=properties))
    other.expect_nothing()


@normative("MQTT-1.5.4-1")
def test_every_plane_of_unicode_passes(broker: RunningBroker, topic: str) -> None:
    odd = f"{topic}/\U0001f321/\U0010ffff/퟿/\ue000/￾/é"
    wire = broker.client(version=V5)
    wire.subscribe((odd, 0))
    broker.client(version=V5).publish(odd, b"x")
    wire.expect(Publish(odd, b"x"))


# ---- variable byte integers


@normative("MQTT-1.5.5-1", "MQTT-4.13.1-1")
@pytest.mark.parametrize(
    "overlong",
    [
        b"\xc0\x80\x00",
        b"\xe0\x80\x00",
        frame(0x30, text("t") + b"\x80\x00"),
        frame(0x82, b"\0\x01\x80\x00" + text("t") + b"\0"),
        frame(0x82, b"\0\x01\x03\x0b\x81\x00" + text("t") + b"\0"),
        frame(0xE0, b"\0\x80\x80\x00"),
    ],
    ids=[
        "remaining length",
        "of disconnect",
        "property length",
        "of subscribe",
        "identifier",
        "of disconnect again",
    ],
)
def test_an_integer_longer_than_it_must_be_is_malformed(broker: RunningBroker, overlong: bytes) -> None:
    broker.client(version=V5).send(overlong).expect_closed(MALFORMED)


@normative("MQTT-1.5.5-1")
@pytest.mark.parametrize("size", [0, 100, 120, 127, 128, 16_370, 16_383, 16_384, 200_000])
def test_lengths_go_out_as_short_as_can_be(broker: RunningBroker, topic: str, size: int) -> None:
    wire = broker.client(version=V5)
    wire.subscribe((topic, 1))
    properties = {"user_property": [("n", "v" * (size % 60_000))]}  # the property length too
    publisher = broker.client(version=V5)
    for qos in (0, 1):
        publisher.publish(topic, bytes(size), qos, properties=properties)
        message: Publish = wire.expect(Publish)  # the codec refuses a length that is too long
        assert (len(message.payload), message.properties) == (size, properties)
        if qos:
            wire.acknowledge(message)


@normative("MQTT-1.5.5-1")
def test_a_remaining_length_of_five_bytes_is_malformed(broker: RunningBroker) -> None:
    broker.client(version=V5).send(b"\x30\xff\xff\xff\xff\x01").expect_closed(MALFORMED)


# ---- the fixed header


@normative("MQTT-2.1.3-1", "MQTT-4.13.1-1")
@pytest.mark.parametrize(
    "packet",
    [
        b"\xc1\x00",
        b"\xc8\x00",
        b"\x41\x02\x00\x01",
        b"\x52\x02\x00\x01",
        b"\x60\x02\x00\x01",
        b"\x71\x02\x00\x01",
        b"\xe2\x00",
        b"\xf1\x00",
        b"\x00\x00",
        b"\x0f\x00",
    ],
    ids=lambda packet: packet.hex(),
)
def test_reserved_flags_are_checked(broker: RunningBroker, packet: bytes) -> None:
    broker.client(version=V5).send(packet).expect_closed(MALFORMED)


@normative("MQTT-2.1.3-1", "MQTT-3.1.4-1")
def test_reserved_flags_of_connect_are_checked(broker: RunningBroker) -> None:
    connect = encode(Connect(fresh("c")), V5)
    for flags in (1, 2, 4, 8, 15):
        answers = broker.wire(V5).send(bytes((0x10 | flags,)) + connect[1:]).drain()
        assert all(isinstance(answer, Connack) and answer.code == MALFORMED for answer in answers)


# ---- packet identifiers


@normative("MQTT-2.2.1-2", "MQTT-4.3.1-1")
def test_qos_0_is_delivered_without_a_packet_identifier(broker: RunningBroker, topic: str) -> None:
    wire = broker.client(version=V5)
    wire.subscribe((topic, 2))
    publisher = broker.client(version=V5)
    publisher.publish(topic, b"\0\x07rest")
    wire.expect(bytes(frame(0x30, text(topic) + b"\0" + b"\0\x07rest")))


@normative("MQTT-2.2.1-2")
def test_what_follows_the_topic_of_a_qos_0_publish_is_its_property_length(broker: RunningBroker) -> None:
    """With an identifier in its place, the byte 0 would be taken as no properties and the rest as payload."""
    wire = broker.client(version=V5)
    wire.send(frame(0x30, text("t") + b"\x05"))  # a length of 5 that is not there
    wire.expect_closed(MALFORMED)


@normative("MQTT-2.2.1-4", "MQTT-4.3.2-1", "MQTT-4.3.3-1")
@pytest.mark.parametrize("qos", [1, 2])
def test_the_brokers_identifiers_are_free_ones(broker: RunningBroker, topic: str, qos: int) -> None:
    wire, publisher = broker.client(version=V5), broker.client(version=V5)
    wire.subscribe((topic, qos))
    in_use: dict[int, Publish] = {}
    for turn in range(20):
        for _ in range(5):
            publisher.publish(topic, b"%d" % turn, qos)
            message: Publish = wire.expect(Publish)
            assert message.packet_id
            assert message.packet_id not in in_use
            in_use[message.packet_id] = message
        for packet_id in list(in_use)[1::2][:4]:  # neither in order nor all
            wire.acknowledge(in_use.pop(packet_id))


@normative("MQTT-2.2.1-3", "MQTT-4.13.1-1")
@pytest.mark.parametrize(
    "packet",
    [
        Publish("t", b"", 1, packet_id=0),
        Publish("t", b"", 2, packet_id=0),
        Subscribe(0, (("t", 0),)),
        Unsubscribe(0, ("t",)),
    ],
)
def test_a_packet_identifier_of_0_is_refused(broker: RunningBroker, packet: Any) -> None:
    broker.client(version=V5).send(packet).expect_closed()


@normative("MQTT-2.2.1-5")
@pytest.mark.parametrize("packet_id", [1, 255, 256, 0x1234, 65_535])
def test_acknowledgements_name_the_publish(broker: RunningBroker, topic: str, packet_id: int) -> None:
    wire = broker.client(version=V5)
    wire.subscribe((topic, 0))
    number = struct.pack(">H", packet_id)
    wire.send(Publish(topic, b"1", 1, packet_id=packet_id))
    got = {wire.take_frame()[:4] for _ in range(2)}
    assert any(f[0] == 0x40 and f[2:4] == number for f in got)
    wire.send(Publish(topic, b"2", 2, packet_id=packet_id))
    got = {wire.take_frame()[:4] for _ in range(2)}
    assert any(f[0] == 0x50 and f[2:4] == number for f in got)
    wire.send(b"\x62\x02" + number)
    assert wire.take_frame()[:4] in (b"\x70\x02" + number, b"\x70\x04" + number)


@normative("MQTT-2.2.1-6", "MQTT-3.8.4-2", "MQTT-3.10.4-5")
@pytest.mark.parametrize("packet_id", [1, 256, 65_535])
def test_suback_and_unsuback_name_their_request(broker: RunningBroker, topic: str, packet_id: int) -> None:
    wire = broker.client(version=V5)
    wire.send(Subscribe(packet_id, ((topic, 1),))).expect(Suback(packet_id, (1,)))
    wire.send(Unsubscribe(packet_id, (topic,))).expect(Unsuback(packet_id, (0,)))


# ---- properties


@normative("MQTT-2.2.2-1")
def test_no_properties_are_a_property_length_of_0(broker: RunningBroker, topic: str) -> None:
    """The codec reads a property block wherever MQTT 5 has one; here are the very bytes."""
    wire, publisher = broker.client(version=V5), broker.client(version=V5)
    wire.send(Subscribe(1, ((topic, 1),))).expect(b"\x90\x04\0\x01\0\x01")
    publisher.publish(topic, b"x")
    wire.expect(frame(0x30, text(topic) + b"\0x"))
    publisher.publish(topic, b"x", 1)
    received = wire.take_frame()
    assert received == frame(0x32, text(topic) + received[-4:-2] + b"\0x")
    wire.send(Unsubscribe(2, (topic,))).expect(b"\xb0\x04\0\x02\0\0")


@normative("MQTT-2.2.2-1", "MQTT-3.1.4-1")
def test_a_packet_without_its_property_length_is_malformed(broker: RunningBroker) -> None:
    broker.client(version=V5).send(frame(0x30, text("t"))).expect_closed(MALFORMED)
    broker.client(version=V5).send(frame(0x82, b"\0\x01")).expect_closed(MALFORMED)
    answers = broker.wire(V5).send(frame(0x10, text("MQTT") + b"\x05\x02\0\0")).drain()
    assert all(isinstance(answer, Connack) and answer.code == MALFORMED for answer in answers)
