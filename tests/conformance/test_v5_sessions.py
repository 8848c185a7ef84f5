"""MQTT 5.0, chapters 4.1, 4.2, 4.5 and 4.6: sessions, their life, what is kept in them, and the order of messages."""

from __future__ import annotations

import threading
from collections import defaultdict
from typing import Any

import pytest

from tests.conformance.codec import V5, V311, Connect, Puback, Pubcomp, Publish, Pubrec, Pubrel, encode
from tests.conformance.conftest import StartBroker
from tests.conformance.harness import RunningBroker
from tests.conformance.normative import normative
from tests.conformance.wire import Wire, fresh

EXPIRY = {"session_expiry_interval": 1000}


def present(broker: RunningBroker, client_id: Any, **fields: Any) -> bool:
    """Whether the broker has a session of that client; asking makes it go on."""
    wire = broker.wire(V5)
    return wire.connect(client_id, clean=False, **fields).session_present


# ---- clean start and expiry


@normative("MQTT-3.1.2-4", "MQTT-3.1.4-4", "MQTT-3.2.2-2")
def test_clean_start_throws_everything_away(start_broker: StartBroker, topic: str) -> None:
    broker = start_broker()
    wire = broker.client("c", V5, properties=EXPIRY)
    wire.subscribe((topic, 2))
    publisher = broker.client(version=V5)
    for qos in (1, 2):
        publisher.publish(topic, b"waiting", qos)
    wire.send(Publish("t", b"x", 2, packet_id=9))
    broker.vanish(wire)
    again = broker.wire(V5)
    assert not again.connect("c", clean=True, properties=EXPIRY).session_present
    again.expect_nothing()
    assert again.unsubscribe(topic).codes == (0x11,)
    assert again.send(Pubrel(9)).expect(Pubcomp).code == 0x92
    broker.restart()
    assert present(broker, "c", properties=EXPIRY)


@normative("MQTT-3.1.2-5", "MQTT-3.1.2-23", "MQTT-4.5.0-1", "MQTT-3.1.3-2")
@pytest.mark.parametrize("restart", [False, True])
def test_a_session_goes_on_where_it_left(start_broker: StartBroker, topic: str, restart: bool) -> None:
    broker = start_broker()
    wire = broker.client("c", V5, properties=EXPIRY)
    wire.subscribe((f"{topic}/+", 2))
    publisher = broker.client(version=V5)
    publisher.publish(f"{topic}/1", b"unacknowledged", 1)
    publisher.publish(f"{topic}/2", b"released", 2)
    unacknowledged, released = wire.expect(Publish).packet_id, wire.expect(Publish).packet_id
    wire.send(Pubrec(released)).expect(Pubrel)
    wire.send(Publish("t", b"received", 2, packet_id=9)).expect(Pubrec)
    broker.vanish(wire)
    publisher.publish(f"{topic}/3", b"while away", 1)
    if restart:
        broker.restart()
    wire = broker.wire(V5)
    assert wire.connect("c", clean=False, properties=EXPIRY).session_present
    got: list[Any] = [wire.take() for _ in range(3)]
    assert Publish(f"{topic}/1", b"unacknowledged", 1, dup=True, packet_id=unacknowledged) in got
    assert Pubrel(released) in got
    assert sum(isinstance(packet, Publish) and packet.payload == b"while away" for packet in got) == 1
    wire.send(Pubrel(9)).expect(Pubcomp(9))
    broker.client(version=V5).publish(f"{topic}/4", b"new", 0)
    wire.expect_message(f"{topic}/4", b"new")


@normative("MQTT-3.1.2-6", "MQTT-3.2.2-3")
def test_without_a_session_a_new_one_begins(broker: RunningBroker, topic: str) -> None:
    client_id = fresh("c")
    wire = broker.wire(V5)
    assert not wire.connect(client_id, clean=False, properties=EXPIRY).session_present
    wire.subscribe((topic, 1))
    wire.disconnect()
    assert present(broker, client_id)


@normative("MQTT-3.1.2-23", "MQTT-4.1.0-2")
@pytest.mark.parametrize("properties", [{}, {"session_expiry_interval": 0}])
@pytest.mark.parametrize("clean", [True, False])
def test_without_an_expiry_the_session_ends_with_its_connection(
    broker: RunningBroker, topic: str, properties: dict[str, int], clean: bool
) -> None:
    for goodbye in ("disconnect", "reset"):
        wire = broker.client(version=V5, clean=clean, properties=properties)
        wire.subscribe((topic, 1))
        wire.disconnect() if goodbye == "disconnect" else broker.vanish(wire)
        broker.client(version=V5).publish(topic, b"x", 1)
        again = broker.wire(V5)
        assert not again.connect(wire.client_id, clean=False).session_present
        again.expect_nothing()


@normative("MQTT-4.1.0-2", "MQTT-3.1.2-23")
@pytest.mark.parametrize("restart", [False, True])
def test_a_session_ends_when_its_expiry_has_passed(
    start_broker: StartBroker, topic: str, restart: bool
) -> None:
    broker = start_broker()
    wire = broker.client("c", V5, properties={"session_expiry_interval": 100})
    wire.subscribe((topic, 1))
    broker.vanish(wire)
    broker.client(version=V5).publish(topic, b"x", 1)
    broker.pass_time(60)
    if restart:
        broker.restart()
    broker.pass_time(50)
    again = broker.wire(V5)
    assert not again.connect("c", clean=False, properties=EXPIRY).session_present
    again.expect_nothing()
    assert again.unsubscribe(topic).codes == (0x11,)


@normative("MQTT-3.1.2-23", "MQTT-4.1.0-2")
def test_the_expiry_begins_anew_with_each_connection(start_broker: StartBroker) -> None:
    broker = start_broker()
    for _ in range(4):
        broker.client("c", V5, clean=False, properties={"session_expiry_interval": 100}).disconnect()
        broker.pass_time(60)
    assert present(broker, "c")


@normative("MQTT-3.1.2-23")
def test_a_session_that_never_expires(start_broker: StartBroker) -> None:
    broker = start_broker(sessions={"max_expiry_seconds": 0xFFFF_FFFF})
    broker.client("c", V5, properties={"session_expiry_interval": 0xFFFF_FFFF}).disconnect()
    broker.pass_time(10 * 365 * 86_400)
    assert present(broker, "c")


@normative("MQTT-4.1.0-1")
def test_a_session_does_not_expire_while_connected(start_broker: StartBroker, topic: str) -> None:
    broker = start_broker()
    wire = broker.client("c", V5, properties={"session_expiry_interval": 10})
    wire.subscribe((topic, 1))
    publisher = broker.client(version=V5)
    publisher.publish(topic, b"unacknowledged", 1)
    packet_id = wire.expect(Publish).packet_id
    for _ in range(3):
        broker.pass_time(100)
        wire.expect_nothing()
    publisher.publish(topic, b"still subscribed", 1)
    wire.expect_message(topic, b"still subscribed", 1)
    broker.vanish(wire)
    wire = broker.wire(V5)
    assert wire.connect("c", clean=False).session_present
    wire.expect(Publish(topic, b"unacknowledged", 1, dup=True, packet_id=packet_id))


@normative("MQTT-3.1.2-5", "MQTT-3.1.2-23")
def test_a_session_of_3_1_1_goes_on_in_5_and_back(start_broker: StartBroker, topic: str) -> None:
    broker = start_broker()
    wire = broker.client("c", V311, clean=False)
    wire.subscribe((topic, 1))
    wire.disconnect()
    broker.client(version=V5).publish(topic, b"1", 1, properties={"content_type": "a"})
    wire = broker.wire(V5)
    assert wire.connect("c", clean=False, properties=EXPIRY).session_present
    assert wire.expect_message(topic, b"1", 1).properties == {"content_type": "a"}
    wire.disconnect()
    broker.client(version=V5).publish(topic, b"2", 1)
    wire = broker.wire(V311)
    assert wire.connect("c", clean=False).session_present
    wire.expect_message(topic, b"2", 1)


# ---- what goes into it


@normative("MQTT-4.5.0-1")
@pytest.mark.parametrize("qos", [1, 2])
def test_a_message_goes_into_every_matching_session(start_broker: StartBroker, topic: str, qos: int) -> None:
    broker = start_broker()
    filters = {"exact": f"{topic}/a", "plus": f"{topic}/+", "hash": f"{topic}/#", "other": f"{topic}/b"}
    for client_id, topic_filter in filters.items():
        wire = broker.client(client_id, V5, properties=EXPIRY)
        wire.subscribe((topic_filter, 2))
        wire.disconnect()
    broker.client(version=V5).publish(f"{topic}/a", b"x", qos)
    broker.restart()
    for client_id in filters:
        wire = broker.client(client_id, V5, clean=False, properties=EXPIRY)
        if client_id != "other":
            wire.expect_message(f"{topic}/a", b"x", qos)
        wire.expect_nothing()


@normative("MQTT-4.5.0-1", "MQTT-4.1.0-1")
def test_more_than_any_window_is_kept(start_broker: StartBroker, topic: str) -> None:
    broker = start_broker(sessions={"send_window": 10, "window_bytes": 4096})
    wire = broker.client("c", V5, properties=EXPIRY)
    wire.subscribe((topic, 1))
    wire.disconnect()
    publisher, count = broker.client(version=V5), 500
    for number in range(count):
        publisher.send(Publish(topic, b"%d" % number + bytes(200), 1, packet_id=number + 1))
    for number in range(count):
        publisher.expect(Puback(number + 1))
    broker.restart()
    wire = broker.client("c", V5, clean=False, properties=EXPIRY)
    for number in range(count):
        wire.expect_message(topic, b"%d" % number + bytes(200), 1)
    wire.expect_nothing()


# ---- order


@normative("MQTT-4.6.0-5", "MQTT-4.6.0-6")
@pytest.mark.parametrize("qos", [0, 1, 2])
@pytest.mark.parametrize("durable", [False, True])
def test_each_publishers_messages_arrive_in_order(
    broker: RunningBroker, topic: str, qos: int, durable: bool
) -> None:
    wire = broker.client(version=V5, properties=EXPIRY if durable else {})
    wire.subscribe((f"{topic}/#", qos))
    publishers, count = 3, 60
    threads = [
        threading.Thread(target=_publish, args=(broker.client(version=V5), topic, number, qos, count))
        for number in range(publishers)
    ]
    for thread in threads:
        thread.start()
    got: dict[bytes, list[int]] = defaultdict(list)
    for _ in range(publishers * count):
        packet = wire.take()
        while isinstance(packet, Pubrel):
            wire.send(Pubcomp(packet.packet_id))
            packet = wire.take()
        assert isinstance(packet, Publish)
        if packet.qos == 1:
            wire.send(Puback(packet.packet_id or 0))
        elif packet.qos == 2:
            wire.send(Pubrec(packet.packet_id or 0))
        publisher, number = packet.payload.split()
        got[publisher].append(int(number))
    for thread in threads:
        thread.join()
    assert got == {b"%d" % number: list(range(count)) for number in range(publishers)}


def _publish(wire: Wire, topic: str, name: int, qos: int, count: int) -> None:
    for number in range(count):
        wire.publish(f"{topic}/{number % 3}", b"%d %d" % (name, number), qos)


@normative("MQTT-4.6.0-5", "MQTT-4.6.0-6", "MQTT-4.4.0-1")
@pytest.mark.parametrize("restart", [False, True])
def test_order_holds_over_a_reconnect(start_broker: StartBroker, topic: str, restart: bool) -> None:
    broker = start_broker()
    wire = broker.client("c", V5, properties=EXPIRY | {"receive_maximum": 5})
    wire.subscribe((topic, 1))
    publisher = broker.client(version=V5)
    for number in range(12):
        publisher.publish(topic, b"%d" % number, 1)
    sent = [wire.expect(Publish) for _ in range(5)]
    wire.send(Puback(sent[0].packet_id or 0), Puback(sent[2].packet_id or 0))
    wire.expect(Publish)
    wire.expect(Publish)
    broker.vanish(wire)
    for number in range(12, 15):
        publisher.publish(topic, b"%d" % number, 1)
    if restart:
        broker.restart()
    wire = broker.client("c", V5, clean=False, properties=EXPIRY | {"receive_maximum": 100})
    got = [int(wire.expect(Publish).payload) for _ in range(13)]
    assert got == [1, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14]


# ---- the transport


@normative("MQTT-4.2.0-1")
def test_a_stream_may_be_cut_anywhere(broker: RunningBroker, topic: str) -> None:
    watcher = broker.client(version=V5)
    watcher.subscribe((topic, 1))
    wire = broker.wire(V5)
    publish = Publish(topic, bytes(range(256)) * 2, 1, packet_id=1, properties={"content_type": "x"})
    stream = encode(Connect(fresh("c")), V5) + encode(publish, V5) + b"\xc0\x00"
    for byte in stream:
        wire.send(bytes((byte,)))
    wire.take()
    wire.expect(Puback(1))
    wire.expect(b"\xd0\x00")
    watcher.expect_message(topic, publish.payload, 1)


@normative("MQTT-4.2.0-1")
def test_many_packets_in_one_piece(broker: RunningBroker, topic: str) -> None:
    watcher = broker.client(version=V5)
    watcher.subscribe((topic, 1))
    packets = [Publish(topic, b"%d" % number * number, 1, packet_id=number) for number in range(1, 400)]
    wire = broker.client(version=V5).send(*packets)
    for packet in packets:
        wire.expect(Puback(packet.packet_id or 0))
    for packet in packets:
        watcher.expect_message(topic, packet.payload, 1)


@normative("MQTT-4.2.0-1")
def test_a_large_message_arrives_whole(broker: RunningBroker, topic: str) -> None:
    watcher = broker.client(version=V5)
    watcher.subscribe((topic, 2))
    payload = bytes(number * 7 % 256 for number in range(1_000_000))
    publisher = broker.client(version=V5)
    for qos in (0, 1, 2):
        publisher.publish(topic, payload, qos)
        watcher.expect_message(topic, payload, qos)
