"""MQTT 3.1, "MQIsdp" level 3, as far as it differs from 3.1.1. It has no numbered statements; mosquitto is the model."""

from __future__ import annotations

import pytest

from tests.conformance.codec import V31, V311, Connack, Connect, Publish, Subscribe, Will, frame
from tests.conformance.harness import RunningBroker
from tests.conformance.wire import fresh


def test_connect_and_connack(broker: RunningBroker) -> None:
    wire = broker.wire(V31)
    wire.send(frame(0x10, b"\0\6MQIsdp\3\2\0\x3c\0\3old")).expect(b"\x20\x02\x00\x00")
    wire.ping()
    wire.disconnect()


@pytest.mark.parametrize("level", [0, 1, 2, 4, 5, 6])
def test_another_level_under_the_old_name_is_refused(broker: RunningBroker, level: int) -> None:
    wire = broker.wire(V31)
    wire.send(Connect(fresh("client-"), protocol_level=level))
    wire.expect_refused(1)


def test_the_old_level_under_the_new_name_is_refused(broker: RunningBroker) -> None:
    wire = broker.wire(V311)
    wire.send(Connect(fresh("client-"), protocol_level=3))
    wire.expect_refused(1)


@pytest.mark.parametrize("length", [1, 23, 24, 1000])
def test_client_identifiers_of_any_length(broker: RunningBroker, length: int) -> None:
    """3.1 allows 1 to 23 characters; devices came to use longer ones, and mosquitto takes them."""
    wire = broker.wire(V31)
    assert wire.connect("i" * length) == Connack()
    wire.ping()


@pytest.mark.parametrize("clean", [False, True])
def test_an_empty_client_identifier(broker: RunningBroker, clean: bool) -> None:
    """Not one of 1 to 23 characters: refused in 3.1, whatever the session is to be."""
    wire = broker.wire(V31)
    wire.send(Connect("", clean=clean))
    wire.expect_refused(2)


def test_connack_of_a_session_that_was_there(broker: RunningBroker, topic: str) -> None:
    """3.1 has no session present flag: its byte is reserved. The session is there all the same."""
    wire = broker.client(version=V31, clean=False)
    wire.subscribe((topic, 1))
    wire.disconnect()
    broker.client().publish(topic, b"waiting", qos=1)
    again = broker.wire(V31)
    again.send(Connect(wire.client_id, clean=False)).expect(b"\x20\x02\x00\x00")
    again.expect_message(topic, b"waiting", qos=1)


@pytest.mark.parametrize("qos", [0, 1, 2])
def test_between_the_versions(broker: RunningBroker, topic: str, qos: int) -> None:
    old, new = broker.client(version=V31), broker.client(version=V311)
    for wire in (old, new):
        wire.subscribe((topic, 2))
    broker.client(version=V31).publish(topic, b"from 3.1", qos)
    broker.client(version=V311).publish(topic, b"from 3.1.1", qos)
    for wire in (old, new):
        wire.expect_message(topic, b"from 3.1", qos)
        wire.expect_message(topic, b"from 3.1.1", qos)


def test_retained_messages_and_wills(broker: RunningBroker, topic: str) -> None:
    wire = broker.client(version=V31, will=Will(topic, b"gone", qos=1, retain=True))
    broker.vanish(wire)
    later = broker.client(version=V31)
    later.subscribe((topic, 2))
    later.expect_message(topic, b"gone", qos=1, retain=True)
    broker.client(version=V31).publish(topic, b"", retain=True)
    later.expect(Publish(topic, b""))
    newest = broker.client(version=V31)
    newest.subscribe((topic, 2))
    newest.expect_nothing()


def test_dup_in_subscribe_and_pubrel(broker: RunningBroker, topic: str) -> None:
    """3.1 lets a client set DUP when it sends SUBSCRIBE, UNSUBSCRIBE or PUBREL again."""
    wire = broker.client(version=V31)
    wire.send(frame(0x8A, b"\0\1\0\1a\1")).expect(b"\x90\x03\x00\x01\x01")
    wire.send(Publish(topic, b"x", qos=2, packet_id=2)).expect(b"\x50\x02\x00\x02")
    wire.send(frame(0x6A, b"\0\2")).expect(b"\x70\x02\x00\x02")
    wire.send(frame(0xAA, b"\0\3\0\1a")).expect(b"\xb0\x02\x00\x03")


def test_a_refused_subscription(broker: RunningBroker) -> None:
    """3.1 has no 0x80, so the connection closes or the answer is 3.1.1's; never is it granted."""
    wire = broker.client(version=V31)
    wire.send(Subscribe(1, (("a#", 1),)), b"\xe0\x00")
    assert [packet for packet in wire.drain() if getattr(packet, "codes", None) != (0x80,)] == []
