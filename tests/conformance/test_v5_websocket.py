"""MQTT 5.0, chapter 6: MQTT over WebSocket."""

from __future__ import annotations

from typing import Any

import pytest

from tests.conformance.codec import (
    V5,
    Connack,
    Connect,
    Pingreq,
    Pingresp,
    Puback,
    Publish,
    Subscribe,
    encode,
)
from tests.conformance.conftest import StartBroker
from tests.conformance.harness import RunningBroker
from tests.conformance.normative import normative
from tests.conformance.websocket import BINARY, CONTINUATION, TEXT, WebSocketWire
from tests.conformance.wire import fresh


@pytest.fixture
def ws_broker(start_broker: StartBroker) -> RunningBroker:
    """A broker with a WebSocket listener, and a plain one behind it."""
    return start_broker(listeners=[{"bind": "127.0.0.1:0", "transport": "ws"}, {"bind": "127.0.0.1:0"}])


def connected(broker: RunningBroker, **fields: Any) -> WebSocketWire:
    wire = broker.websocket(V5)
    wire.connect(**fields)
    return wire


@normative("MQTT-6.0.0-3", "MQTT-6.0.0-4")
@pytest.mark.parametrize("offers", ["mqtt", "chat, mqtt", "mqtt, chat", "mqttv3.1, mqtt"])
def test_the_subprotocol_is_mqtt(ws_broker: RunningBroker, offers: str) -> None:
    wire = WebSocketWire(ws_broker.port, V5, offers=offers)
    assert wire.subprotocol == "mqtt" or (wire.subprotocol in offers.split(", ") and offers != "mqtt")
    wire.connect()
    wire.close()


@normative("MQTT-6.0.0-4")
def test_a_subprotocol_that_was_not_offered_is_not_chosen(ws_broker: RunningBroker) -> None:
    for offers in ("chat", ""):
        try:
            wire = WebSocketWire(ws_broker.port, V5, offers=offers)
        except AssertionError:
            continue  # the handshake was refused, which is as good
        assert wire.subprotocol is None
        wire.close()


@normative("MQTT-6.0.0-1")
def test_what_the_broker_sends_is_binary(ws_broker: RunningBroker, topic: str) -> None:
    wire = connected(ws_broker)
    wire.subscribe((topic, 2))
    publisher = ws_broker.wire(V5, listener=1)
    publisher.connect()
    for size in (0, 1, 125, 126, 70_000, 500_000):
        for qos in (0, 1, 2):
            publisher.publish(topic, bytes(size), qos)
            wire.expect_message(topic, bytes(size), qos)
    assert wire.opcodes[0] == BINARY
    assert set(wire.opcodes) <= {BINARY, CONTINUATION}


@normative("MQTT-6.0.0-1")
@pytest.mark.parametrize("before_connect", [False, True])
def test_anything_but_binary_ends_the_connection(
    ws_broker: RunningBroker, topic: str, before_connect: bool
) -> None:
    watcher = connected(ws_broker)
    watcher.subscribe((topic, 0))
    wire = ws_broker.websocket(V5) if before_connect else connected(ws_broker)
    packet: Any = Connect(fresh("c")) if before_connect else Publish(topic, b"as text")
    wire.send_frame(TEXT, encode(packet, V5))
    assert not any(isinstance(answer, Connack) for answer in wire.drain())
    watcher.expect_nothing()


@normative("MQTT-6.0.0-2")
def test_packets_and_frames_need_not_be_aligned(ws_broker: RunningBroker, topic: str) -> None:
    packets: list[Any] = [
        Connect(fresh("c")),
        Subscribe(1, ((topic, 0),)),
        Publish(topic, b"one", 1, packet_id=2),
        Publish(topic, b"two", 1, packet_id=3),
        Pingreq(),
    ]
    stream = b"".join(encode(packet, V5) for packet in packets)
    for size in (1, 3, 7, len(stream)):
        wire = ws_broker.websocket(V5)
        for at in range(0, len(stream), size):
            wire.send_frame(BINARY, stream[at : at + size])
        got = [wire.take()]
        while not isinstance(got[-1], Pingresp):
            got.append(wire.take())
        assert isinstance(got[0], Connack)
        assert [packet.packet_id for packet in got if isinstance(packet, Puback)] == [2, 3]
        assert [packet.payload for packet in got if isinstance(packet, Publish)] == [b"one", b"two"]


@normative("MQTT-6.0.0-2", "MQTT-6.0.0-1")
def test_a_message_of_many_frames(ws_broker: RunningBroker, topic: str) -> None:
    wire = connected(ws_broker)
    wire.subscribe((topic, 0))
    data = encode(Publish(topic, b"in pieces"), V5) + encode(Pingreq(), V5)
    wire.send_frame(BINARY, data[:3], final=False)
    wire.send_frame(CONTINUATION, b"", final=False)
    wire.send_frame(CONTINUATION, data[3:10], final=False)
    wire.send_frame(CONTINUATION, data[10:])
    got = [wire.take(), wire.take()]
    assert Pingresp() in got
    assert Publish(topic, b"in pieces") in got


@normative("MQTT-6.0.0-2", "MQTT-3.14.4-2")
def test_a_connection_that_fails_ends_the_websocket(ws_broker: RunningBroker) -> None:
    connected(ws_broker).send(b"\x00\x00").expect_closed(0x81)
    connected(ws_broker).disconnect()
