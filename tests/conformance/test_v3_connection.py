"""MQTT 3.1.1: ping, the end, errors, and the stream under it all (sections 3.12, 3.14, 4.8, 7)."""

from __future__ import annotations

import pytest

from tests.conformance.codec import (
    V311,
    Connack,
    Connect,
    Packet,
    Pingreq,
    Pingresp,
    Puback,
    Pubcomp,
    Publish,
    Pubrec,
    Pubrel,
    Suback,
    Subscribe,
    encode,
    frame,
)
from tests.conformance.conftest import StartBroker
from tests.conformance.harness import RunningBroker
from tests.conformance.normative import normative
from tests.conformance.wire import fresh


@normative("MQTT-3.12.4-1")
def test_every_ping_is_answered(broker: RunningBroker) -> None:
    wire = broker.client()
    wire.send(Pingreq()).expect(b"\xd0\x00")
    wire.send(*[Pingreq()] * 10)
    for _ in range(10):
        wire.expect(Pingresp())
    wire.expect_nothing()


VIOLATIONS = {
    "CONNACK": b"\x20\x02\x00\x00",
    "SUBACK": b"\x90\x03\x00\x01\x00",
    "UNSUBACK": b"\xb0\x02\x00\x01",
    "PINGRESP": b"\xd0\x00",
    "type 0": b"\x00\x00",
    "type 15": b"\xf0\x00",
    "PINGREQ with a body": b"\xc0\x01\x00",
    "DISCONNECT with a body": b"\xe0\x01\x00",
    "PUBACK of 1 byte": b"\x40\x01\x00",
    "PUBACK of 3 bytes": b"\x40\x03\x00\x01\x00",
    "PUBREL of 3 bytes": b"\x62\x03\x00\x01\x00",
    "remaining length of 5 bytes": b"\x30\xff\xff\xff\xff\x01",
}


@normative("MQTT-4.8.0-1")
@pytest.mark.parametrize("name", VIOLATIONS)
def test_a_violation_closes_its_connection_alone(broker: RunningBroker, name: str, topic: str) -> None:
    other = broker.client()
    other.subscribe((topic, 1))
    wire = broker.client()
    wire.send(VIOLATIONS[name], Publish(topic, b"behind it"))
    wire.expect_closed()
    other.expect_nothing()
    broker.client().publish(topic, b"still here", qos=1)
    other.expect_message(topic, b"still here", qos=1)


@normative("MQTT-4.8.0-1")
def test_what_came_before_a_violation_counts(broker: RunningBroker, topic: str) -> None:
    watcher, wire = broker.client(), broker.client()
    watcher.subscribe((topic, 1))
    wire.send(Publish(topic, b"before", qos=1, packet_id=1), VIOLATIONS["SUBACK"])
    watcher.expect_message(topic, b"before", qos=1)
    assert wire.drain() in ([], [Puback(1)])


@normative("MQTT-4.8.0-2")
def test_a_packet_that_is_too_much_closes_its_connection_alone(start_broker: StartBroker, topic: str) -> None:
    """A packet beyond the limit on packets: what comes nearest to the specification's full buffer."""
    broker = start_broker(limits={"max_packet_bytes": 1000})
    other = broker.client()
    other.subscribe((topic, 0))
    wire = broker.client()
    wire.send(Publish(topic, b"x" * 1001))
    wire.expect_closed()
    other.expect_nothing()
    broker.client().publish(topic, b"x" * 900)
    other.expect(Publish(topic, b"x" * 900))


CONVERSATION: list[tuple[Packet, Packet]] = [
    (Subscribe(1, (("own/filter", 0),)), Suback(1, (0,))),
    (Publish("nobody/there", b"x" * 300, qos=1, packet_id=2), Puback(2)),
    (Publish("nobody/there", b"x", qos=2, packet_id=3), Pubrec(3)),
    (Pubrel(3), Pubcomp(3)),
    (Pingreq(), Pingresp()),
]


@normative("MQTT-7.1.1-1")
@pytest.mark.parametrize("size", [1, 2, 3, 7, 100_000])
def test_bytes_may_come_in_pieces_of_any_size(broker: RunningBroker, size: int) -> None:
    wire = broker.wire()
    stream = encode(Connect(fresh("client-")), V311) + b"".join(
        encode(sent, V311) for sent, _ in CONVERSATION
    )
    for at in range(0, len(stream), size):
        wire.send(stream[at : at + size])
    wire.expect(Connack())
    for _, answer in CONVERSATION:
        wire.expect(answer)


@normative("MQTT-7.1.1-1")
def test_the_stream_is_ordered_and_loses_nothing(broker: RunningBroker, topic: str) -> None:
    """Two megabytes there and back, of packets of all sizes."""
    wire, publisher = broker.client(), broker.client()
    wire.subscribe((topic, 1))
    for packet_id in range(1, 101):
        payload = bytes((packet_id,)) * (packet_id**3 % 40_000)
        publisher.publish(topic, payload, qos=1)
        wire.expect_message(topic, payload, qos=1)


@normative("MQTT-7.0.0-2")
def test_nothing_but_the_specification_is_needed(broker: RunningBroker, topic: str) -> None:
    """The least that a client may send: no user, no keep alive, an identifier of one character."""
    wire = broker.wire()
    wire.send(frame(0x10, b"\0\4MQTT\4\2\0\0\0\1z")).expect(b"\x20\x02\x00\x00")
    wire.subscribe((topic, 2))
    for qos in (0, 1, 2):
        broker.client().publish(topic, b"x", qos)
        wire.expect_message(topic, b"x", qos)
    wire.send(b"\xe0\x00").expect_end()


@normative("MQTT-7.0.0-1")
def test_a_bridge_is_a_client_that_conforms(start_broker: StartBroker) -> None:
    """The upstream is a broker that the other tests have shown to end the connection of whoever does not conform."""
    upstream = start_broker()
    watcher = upstream.client()
    watcher.subscribe(("#", 2))
    bridge = f"""
[[bridges]]
name = "up"
urls = ["mqtt://127.0.0.1:{upstream.port}"]
version = "3.1.1"
out = [{{ filter = "#", qos = 1 }}]
"""
    broker = start_broker(toml=bridge)
    publisher = broker.client()
    for qos in (0, 1, 2):
        publisher.publish("sensors/a", b"%d" % qos, qos)
    for qos in (0, 1, 2):
        watcher.expect_message("sensors/a", b"%d" % qos, 1)
    watcher.expect_nothing()
