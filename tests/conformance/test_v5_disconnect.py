"""MQTT 5.0, chapters 3.12 to 3.14: PINGREQ, and DISCONNECT both ways."""

from __future__ import annotations

import threading
from typing import Any

import pytest

from tests.conformance.codec import (
    V5,
    Connack,
    Connect,
    Disconnect,
    Pingreq,
    Pingresp,
    Publish,
    Subscribe,
    Will,
    frame,
)
from tests.conformance.conftest import StartBroker
from tests.conformance.harness import RunningBroker
from tests.conformance.normative import normative
from tests.conformance.wire import fresh

MALFORMED, PROTOCOL_ERROR = 0x81, 0x82
USE_ANOTHER_SERVER, SERVER_SHUTTING_DOWN, SESSION_TAKEN_OVER = 0x9C, 0x8B, 0x8E
EXPIRY = {"session_expiry_interval": 10_000}
BY_A_SERVER = {
    0x00, 0x80, 0x81, 0x82, 0x83, 0x87, 0x89, 0x8B, 0x8D, 0x8E, 0x8F, 0x90, 0x93, 0x94, 0x95, 0x96, 0x97, 0x98, 0x99,
    0x9A, 0x9B, 0x9C, 0x9D, 0x9E, 0x9F, 0xA0, 0xA1, 0xA2,
}  # fmt: skip

PROVOKE: dict[str, Any] = {
    "second CONNECT": Connect("again"),
    "malformed": b"\x00\x00",
    "unknown alias": Publish("", b"x", properties={"topic_alias": 3}),
    "alias out of range": Publish("t", b"x", properties={"topic_alias": 60_000}),
    "wildcard in a topic": Publish("#", b"x"),
    "empty SUBSCRIBE": Subscribe(1, ()),
    "a server's packet": b"\xd0\x00",
    "too large": b"\x30\xff\xff\xff\x7f",
    "AUTH without a method": b"\xf0\x02\x19\x00",
}


# ---- PINGREQ


@normative("MQTT-3.12.4-1")
def test_every_ping_is_answered(broker: RunningBroker) -> None:
    wire = broker.client(version=V5).send(*[Pingreq()] * 100)
    for _ in range(100):
        wire.expect(b"\xd0\x00")
    wire.expect_nothing()


@normative("MQTT-3.12.4-1", "MQTT-4.13.1-1")
def test_a_ping_with_a_body_is_malformed(broker: RunningBroker) -> None:
    broker.client(version=V5).send(b"\xc0\x01\x00").expect_closed(MALFORMED)


# ---- the server's DISCONNECT


@normative("MQTT-3.14.2-1", "MQTT-3.14.2-2", "MQTT-3.14.4-1", "MQTT-3.14.4-2", "MQTT-4.13.2-1")
@pytest.mark.parametrize("cause", PROVOKE)
def test_after_disconnect_there_is_only_the_end(broker: RunningBroker, topic: str, cause: str) -> None:
    """The codec refuses a session expiry interval in it; what is sent behind the mistake has no effect."""
    watcher = broker.client(version=V5)
    watcher.subscribe((topic, 0))
    wire = broker.client(version=V5, properties=EXPIRY)
    wire.subscribe((topic, 0))
    wire.send(PROVOKE[cause], Publish(topic, b"too late"), Pingreq(), Pingreq())
    (disconnect,) = wire.drain()
    assert isinstance(disconnect, Disconnect)
    assert disconnect.code in BY_A_SERVER
    watcher.expect_nothing()


@normative("MQTT-3.14.0-1", "MQTT-3.2.0-1")
def test_no_disconnect_before_an_accepted_connect(broker: RunningBroker) -> None:
    for packet in (
        b"\x00\x00",
        Pingreq(),
        Publish("t", b"x"),
        Connect("c", flags=0x03),
        Connect("c", properties={"receive_maximum": 0}),
        Connect("c", properties={"authentication_method": "nobody's"}),
        Connect("c", will=Will("#", b"")),
        Connect("c", protocol_level=9),
    ):
        wire = broker.wire(V5).send(packet)
        try:
            first = wire.take_frame()[0]
        except AssertionError:
            continue
        assert first == 0x20
        wire.expect_end()


@normative("MQTT-3.14.0-1")
def test_two_connects_at_once_are_no_disconnect_before_connack(broker: RunningBroker) -> None:
    """Both for one client identifier, on two connections; whoever loses was accepted before or gets no DISCONNECT."""
    for _ in range(20):
        client_id = fresh("c")
        wires = [broker.wire(V5) for _ in range(2)]
        threads = [
            threading.Thread(target=wire.send, args=(Connect(client_id, properties=EXPIRY),))
            for wire in wires
        ]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        broker.wait_until_in(client_id)
        for wire in wires:
            wire.finish()
        answers = [wire.drain() for wire in wires]
        for packets in answers:
            assert not packets or isinstance(packets[0], Connack)
        assert any(packets and packets[0].code == 0 for packets in answers)


@normative("MQTT-3.14.2-1", "MQTT-3.14.4-2")
@pytest.mark.parametrize("reference", ["", "gateway-2.local:1883"])
def test_a_broker_that_stops_says_so(start_broker: StartBroker, topic: str, reference: str) -> None:
    broker = start_broker(protocol={"server_reference": reference})
    watcher = broker.client(version=V5, clean=False, properties=EXPIRY)
    watcher.subscribe((topic, 1))
    thread = threading.Thread(target=broker.stop)
    thread.start()
    disconnect: Any = watcher.expect(Disconnect)
    watcher.expect_end()
    thread.join()
    if reference:
        assert (disconnect.code, disconnect.properties["server_reference"]) == (USE_ANOTHER_SERVER, reference)
    else:
        assert disconnect.code == SERVER_SHUTTING_DOWN
        assert "server_reference" not in disconnect.properties


@normative("MQTT-3.14.2-1", "MQTT-3.1.4-3")
def test_who_is_taken_over_is_told(broker: RunningBroker) -> None:
    wire = broker.client(version=V5)
    broker.client(wire.client_id, V5)
    assert isinstance(disconnect := wire.take(), Disconnect)
    assert disconnect.code == SESSION_TAKEN_OVER
    wire.expect_end()


# ---- the client's DISCONNECT


@normative("MQTT-3.14.1-1", "MQTT-2.1.3-1", "MQTT-4.13.1-1")
def test_the_flags_of_disconnect_are_checked(broker: RunningBroker, topic: str) -> None:
    watcher = broker.client(version=V5)
    watcher.subscribe((topic, 0))
    for flags in range(1, 16):
        wire = broker.client(version=V5, will=Will(topic, b"gone"))
        wire.send(bytes((0xE0 | flags, 0))).expect_closed(MALFORMED)
        watcher.expect_message(topic, b"gone")


@normative("MQTT-3.14.4-2", "MQTT-3.14.4-1", "MQTT-4.13.2-1")
@pytest.mark.parametrize("code", [0x00, 0x04, 0x80, 0x81, 0x82, 0x83, 0x99])
def test_the_broker_closes_without_another_word(broker: RunningBroker, topic: str, code: int) -> None:
    wire = broker.client(version=V5)
    wire.subscribe((topic, 0))
    packet = Disconnect(code, {"reason_string": "because", "user_property": [("a", "b"), ("a", "c")]})
    wire.send(packet, Publish(topic, b"too late"), Pingreq()).expect_end()


@normative("MQTT-3.14.4-3", "MQTT-3.14.2-1")
@pytest.mark.parametrize("body", [b"", b"\x00", b"\x00\x00"], ids=["short", "code", "whole"])
def test_every_form_of_a_normal_disconnect_discards_the_will(
    broker: RunningBroker, topic: str, body: bytes
) -> None:
    watcher = broker.client(version=V5)
    watcher.subscribe((topic, 0))
    wire = broker.client(version=V5, will=Will(topic, b"gone"))
    wire.send(frame(0xE0, body)).expect_end()
    watcher.expect_nothing()


@normative("MQTT-3.14.2-1", "MQTT-4.13.1-1")
@pytest.mark.parametrize("code", [0x01, 0x03, 0x05, 0x18, 0x7F, 0xFF])
def test_a_code_that_does_not_exist_is_no_normal_disconnect(
    broker: RunningBroker, topic: str, code: int
) -> None:
    watcher = broker.client(version=V5)
    watcher.subscribe((topic, 0))
    wire = broker.client(version=V5, will=Will(topic, b"gone"))
    wire.send(Disconnect(code)).expect_closed()
    watcher.expect_message(topic, b"gone")


@normative("MQTT-4.13.1-1")
@pytest.mark.parametrize(
    "body",
    [
        b"\x00\x05",
        b"\x00\x00\x00",
        b"\x00\x02\x01\x00",
        b"\x00\x05\x11\x00\x00",
        b"\x00\x0a\x11\0\0\0\1\x11\0\0\0\1",
    ],
    ids=lambda body: body.hex(),
)
def test_a_disconnect_out_of_form_does_not_discard_the_will(
    broker: RunningBroker, topic: str, body: bytes
) -> None:
    watcher = broker.client(version=V5)
    watcher.subscribe((topic, 0))
    wire = broker.client(version=V5, will=Will(topic, b"gone"), properties=EXPIRY)
    wire.send(frame(0xE0, body)).expect_closed()
    watcher.expect_message(topic, b"gone")


@normative("MQTT-4.13.1-1")
def test_a_session_expiry_cannot_begin_with_disconnect(broker: RunningBroker, topic: str) -> None:
    """[3.14.2.2.2]: what was 0 in CONNECT stays 0."""
    for properties in ({}, {"session_expiry_interval": 0}):
        wire = broker.client(version=V5, properties=properties)
        wire.send(Disconnect(0, {"session_expiry_interval": 100})).expect_closed(PROTOCOL_ERROR)
        assert not broker.wire(V5).connect(wire.client_id, clean=False).session_present


@normative("MQTT-3.1.2-23", "MQTT-4.1.0-2")
def test_a_session_expiry_can_be_changed_by_disconnect(start_broker: StartBroker) -> None:
    broker = start_broker()
    for before, after, passed, present in (
        (100, 10, 11, False),
        (10, 100, 50, True),
        (100, 0, 0, False),
        (100, 0xFFFF_FFFF, 1_000_000, True),
    ):
        client_id = fresh("c")
        wire = broker.client(client_id, V5, properties={"session_expiry_interval": before})
        wire.disconnect(session_expiry_interval=after)
        if passed:
            broker.pass_time(passed)
        assert broker.wire(V5).connect(client_id, clean=False).session_present is present


@normative("MQTT-3.14.4-1", "MQTT-3.12.4-1")
def test_what_came_before_disconnect_is_done(broker: RunningBroker, topic: str) -> None:
    watcher = broker.client(version=V5)
    watcher.subscribe((topic, 0))
    wire = broker.client(version=V5)
    wire.send(Publish(topic, b"last words"), Pingreq(), Disconnect())
    assert [type(packet) for packet in wire.drain()] in ([Pingresp], [])
    watcher.expect_message(topic, b"last words")
