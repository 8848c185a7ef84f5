"""MQTT 3.1.1 over WebSocket (section 6)."""

from __future__ import annotations

import pytest

from tests.conformance.codec import (
    V311,
    Connack,
    Connect,
    Pingreq,
    Pingresp,
    Puback,
    Publish,
    Suback,
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
    """A broker with a WebSocket listener."""
    return start_broker(listeners=[{"bind": "127.0.0.1:0", "transport": "ws"}])


def connected(broker: RunningBroker) -> WebSocketWire:
    """A client through a WebSocket."""
    wire = broker.websocket()
    wire.connect()
    return wire


@normative("MQTT-6.0.0-4")
@pytest.mark.parametrize("offers", ["mqtt", "chat, mqtt", "mqtt, chat"])
def test_the_subprotocol_is_mqtt(ws_broker: RunningBroker, offers: str) -> None:
    wire = WebSocketWire(ws_broker.port, offers=offers)
    assert wire.subprotocol == "mqtt"
    wire.connect()
    wire.close()


@normative("MQTT-6.0.0-1")
def test_the_broker_sends_binary_frames(ws_broker: RunningBroker, topic: str) -> None:
    wire = connected(ws_broker)
    wire.subscribe((topic, 2))
    for qos in (0, 1, 2):
        connected(ws_broker).publish(topic, b"x" * 100_000, qos)
        wire.expect_message(topic, b"x" * 100_000, qos)
    assert wire.opcodes[0] == BINARY
    assert set(wire.opcodes) <= {BINARY, CONTINUATION}


@normative("MQTT-6.0.0-1")
def test_a_text_frame_closes(ws_broker: RunningBroker) -> None:
    wire = connected(ws_broker)
    wire.send_frame(TEXT, encode(Pingreq(), V311).replace(b"\xc0", b"0"))
    wire.expect_closed()


@normative("MQTT-6.0.0-1")
def test_a_text_frame_in_place_of_connect_closes(ws_broker: RunningBroker) -> None:
    wire = ws_broker.websocket()
    wire.send_frame(TEXT, b"hello")
    wire.expect_closed()


@normative("MQTT-6.0.0-2")
@pytest.mark.parametrize("size", [1, 3, 50])
@pytest.mark.parametrize("fragments", [False, True], ids=["messages", "fragments"])
def test_packets_and_frames_need_not_end_together(
    ws_broker: RunningBroker, size: int, fragments: bool
) -> None:
    stream = b"".join(
        encode(packet, V311)
        for packet in (
            Connect(fresh("client-")),
            Subscribe(1, (("own", 0),)),
            Publish("own", b"x" * 70),
            Publish("other", b"y", qos=1, packet_id=2),
            Pingreq(),
        )
    )
    wire = ws_broker.websocket()
    chunks = [stream[at : at + size] for at in range(0, len(stream), size)]
    for position, chunk in enumerate(chunks):
        opcode = CONTINUATION if fragments and position else BINARY
        wire.send_frame(opcode, chunk, final=not fragments or position == len(chunks) - 1)
    wire.expect(Connack())
    wire.expect(Suback(1, (0,)))
    wire.expect(Publish("own", b"x" * 70))
    wire.expect(Puback(2))
    wire.expect(Pingresp())


@normative("MQTT-6.0.0-2")
def test_many_packets_in_one_frame(ws_broker: RunningBroker, topic: str) -> None:
    wire = ws_broker.websocket()
    wire.send(
        Connect(fresh("client-")),
        Subscribe(1, ((topic, 0),)),
        *[Publish(topic, b"%d" % n) for n in range(200)],
    )
    wire.expect(Connack())
    wire.expect(Suback(1, (0,)))
    for number in range(200):
        wire.expect(Publish(topic, b"%d" % number))
