"""MQTT 5.0, chapter 4.13: malformed packets and protocol errors end the connection that they came on, and nothing else."""

from __future__ import annotations

import random
from typing import Any

import pytest

from tests.conformance.codec import (
    V5,
    Connack,
    Connect,
    Disconnect,
    Pingreq,
    Publish,
    Subscribe,
    Will,
    encode,
    frame,
)
from tests.conformance.harness import RunningBroker
from tests.conformance.normative import normative
from tests.conformance.properties import text

MALFORMED, PROTOCOL_ERROR = 0x81, 0x82

WRONG: dict[str, tuple[bytes, set[int]]] = {
    "packet type 0": (b"\x00\x00", {MALFORMED}),
    "a server's CONNACK": (b"\x20\x03\x00\x00\x00", {PROTOCOL_ERROR}),
    "a server's SUBACK": (b"\x90\x04\x00\x01\x00\x00", {PROTOCOL_ERROR}),
    "a server's UNSUBACK": (b"\xb0\x04\x00\x01\x00\x00", {PROTOCOL_ERROR}),
    "a server's PINGRESP": (b"\xd0\x00", {PROTOCOL_ERROR}),
    "remaining length of five bytes": (b"\x30\x80\x80\x80\x80\x01", {MALFORMED}),
    "PUBACK with a code that it does not have": (b"\x40\x03\x00\x01\x01", {MALFORMED, PROTOCOL_ERROR}),
    "PUBREC with a code that it does not have": (b"\x50\x03\x00\x01\x92", {MALFORMED, PROTOCOL_ERROR}),
    "PUBREL with a code that it does not have": (b"\x62\x03\x00\x01\x80", {MALFORMED, PROTOCOL_ERROR}),
    "PUBCOMP with a code that it does not have": (b"\x70\x03\x00\x01\x10", {MALFORMED, PROTOCOL_ERROR}),
    "a property that does not exist": (frame(0x30, text("t") + b"\x02\x7f\x00"), {MALFORMED, PROTOCOL_ERROR}),
    "a property of another packet": (frame(0xE0, b"\x00\x03\x21\x00\x01"), {MALFORMED, PROTOCOL_ERROR}),
    "a property twice": (frame(0x30, text("t") + b"\x04\x01\x00\x01\x00"), {PROTOCOL_ERROR, MALFORMED}),
    "properties longer than the packet": (frame(0x30, text("t") + b"\x7f"), {MALFORMED}),
    "a property cut off by its block": (frame(0x30, text("t") + b"\x02\x02\x00\x00\x00\x01"), {MALFORMED}),
}


@normative("MQTT-4.13.1-1", "MQTT-4.13.2-1", "MQTT-3.14.4-2", "MQTT-3.14.2-1")
@pytest.mark.parametrize("what", WRONG)
def test_what_is_wrong_ends_the_connection_with_its_code(
    broker: RunningBroker, topic: str, what: str
) -> None:
    packet, codes = WRONG[what]
    watcher = broker.client(version=V5)
    watcher.subscribe((topic, 0))
    wire = broker.client(version=V5, will=Will(topic, b"gone"))
    wire.send(packet, Publish(topic, b"too late"), Pingreq())
    (disconnect,) = wire.drain()
    assert isinstance(disconnect, Disconnect)
    assert disconnect.code in codes
    watcher.expect_message(topic, b"gone")
    watcher.expect_nothing()


@normative("MQTT-4.13.1-1", "MQTT-4.13.2-1", "MQTT-3.14.0-1")
@pytest.mark.parametrize("what", WRONG)
def test_before_connect_it_ends_without_a_word(broker: RunningBroker, what: str) -> None:
    broker.wire(V5).send(WRONG[what][0], Connect("late")).expect_end()


@normative("MQTT-4.13.1-1", "MQTT-4.1.0-1")
@pytest.mark.parametrize("what", WRONG)
def test_its_session_is_kept(broker: RunningBroker, topic: str, what: str) -> None:
    properties = {"session_expiry_interval": 100}
    wire = broker.client(version=V5, properties=properties)
    wire.subscribe((topic, 1))
    wire.send(WRONG[what][0]).expect_closed()
    broker.client(version=V5).publish(topic, b"x", 1)
    again = broker.wire(V5)
    assert again.connect(wire.client_id, clean=False, properties=properties).session_present
    again.expect_message(topic, b"x", 1)


@normative("MQTT-4.13.1-1", "MQTT-4.1.0-1")
def test_all_others_go_on(broker: RunningBroker, topic: str) -> None:
    wire, publisher = broker.client(version=V5), broker.client(version=V5)
    wire.subscribe((topic, 1))
    for number, (packet, _) in enumerate(WRONG.values()):
        bad = broker.client(version=V5).send(packet)
        publisher.publish(topic, b"%d" % number, 1)
        wire.expect_message(topic, b"%d" % number, 1)
        bad.expect_closed()


@normative("MQTT-4.13.2-1")
def test_a_code_below_0x80_in_connack_does_not_close(broker: RunningBroker) -> None:
    wire = broker.wire(V5)
    assert wire.connect().code == 0
    for _ in range(3):
        wire.expect_nothing()


@normative("MQTT-4.13.1-1", "MQTT-3.14.2-1")
def test_whatever_comes_the_answer_is_mqtt(broker: RunningBroker) -> None:
    """Sound packets with a few bytes changed: taken or refused, answered in form, and never the end of the broker."""
    source = random.Random(5)
    packets: list[Any] = [
        Publish(
            "a/b", b"payload", 1, packet_id=7, properties={"content_type": "x", "user_property": [("a", "b")]}
        ),
        Publish("a/b", b"payload", 2, True, packet_id=8, properties={"message_expiry_interval": 5}),
        Subscribe(9, (("a/+", 1), ("$share/g/a/#", 2)), {"subscription_identifier": 300}),
        Disconnect(4, {"session_expiry_interval": 0, "reason_string": "x"}),
        b"\x62\x02\x00\x08",
        b"\x40\x04\x00\x01\x10\x00",
    ]
    for _ in range(300):
        data = bytearray(
            b"".join(p if isinstance(p, bytes) else encode(p, V5) for p in source.sample(packets, 2))
        )
        for _ in range(source.randint(1, 3)):
            data[source.randrange(len(data))] = source.randrange(256)
        wire = broker.client(version=V5).send(bytes(data))
        wire.finish()
        answers = wire.drain()
        assert not any(isinstance(answer, Connack) for answer in answers)
        assert not any(isinstance(answer, Disconnect) for answer in answers[:-1])
    broker.client(version=V5).ping()
