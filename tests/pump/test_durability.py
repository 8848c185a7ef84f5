"""Topics whose messages are kept in memory only: nobody waits for the disk, and the disk never hears of them."""

from __future__ import annotations

from edge_broker.wire import const
from edge_broker.wire.packets import Ack
from tests.pump.pump import Pump, TestClient

MEMORY = (("debug/#", True),)


def away(pump: Pump, topic_filter: str = "#", qos: int = 1) -> TestClient:
    """A subscriber with a session that is kept, gone."""
    client = pump.client("s", clean=False, expiry=600).subscribed(topic_filter, qos)
    client.vanish()
    pump.commit()
    return client


def back(pump: Pump) -> TestClient:
    client = TestClient(pump)
    client.connect("s", clean=False, expiry=600)
    pump.commit()
    client.inbox.pop(0)
    return client


def test_they_are_acknowledged_at_once_and_wait_in_memory() -> None:
    pump = Pump(durabilities=MEMORY)
    away(pump)
    publisher = pump.client("p")
    for number in range(1, 4):
        publisher.publish("debug/x", b"%d" % number, 1, packet_id=number)
        assert publisher.take(Ack).packet_id == number
    assert pump.pending.empty
    assert back(pump).take_payloads() == [b"1", b"2", b"3"]
    assert pump.store.messages_written == 0


def test_among_others_they_keep_their_place() -> None:
    pump = Pump(durabilities=MEMORY)
    away(pump)
    publisher = pump.client("p")
    for number in range(1, 7):
        publisher.publish("debug/x" if number % 2 else "kept", b"%d" % number, 1, packet_id=number)
    pump.commit()
    assert pump.store.messages_written == 3
    client = back(pump)
    assert client.take_payloads() == [b"1", b"2", b"3", b"4", b"5", b"6"]
    for number in range(1, 7):
        client.ack(const.PUBACK, number)
    pump.commit()
    assert pump.session("s").queue.depth == 0
    assert not pump.session("s").queue.volatile


def test_a_restart_loses_them_and_nothing_else() -> None:
    pump = Pump(durabilities=MEMORY)
    away(pump)
    publisher = pump.client("p")
    for number in range(1, 7):
        publisher.publish("debug/x" if number % 2 else "kept", b"%d" % number, 1, packet_id=number)
    pump.commit()
    pump.crash()
    client = back(pump)
    assert client.take_payloads() == [b"2", b"4", b"6"]
    assert pump.session("s").queue.lost == 3, "1, 3 and 5, which nobody else had"


def test_at_qos_2_they_come_once() -> None:
    pump = Pump(durabilities=MEMORY)
    away(pump, qos=2)
    publisher = pump.client("p")
    publisher.publish("debug/x", b"1", 2, packet_id=1)
    assert publisher.take(Ack).packet_type == const.PUBREC
    client = back(pump)
    assert client.take_payloads() == [b"1"]
    client.ack(const.PUBREC, 1)
    pump.commit()
    assert client.take(Ack).packet_type == const.PUBREL
    client.ack(const.PUBCOMP, 1)
    pump.commit()
    assert pump.session("s").queue.depth == 0


def test_a_retained_one_is_not_stored_and_replaces_one_that_was() -> None:
    pump = Pump()
    pump.client("p").publish("debug/x", b"old", 1, retain=True)
    pump.commit()
    pump.settings.durabilities = MEMORY
    pump.crash()
    pump.client("p").publish("debug/x", b"new", 1, retain=True)
    pump.commit()
    assert pump.client("c").subscribed("debug/#").take_payloads() == [b"new"]
    assert pump.store.retained == {}


def test_memory_is_bounded() -> None:
    pump = Pump(durabilities=MEMORY, max_queue_bytes_in_memory=5_000)
    away(pump)
    publisher = pump.client("p")
    for number in range(1, 101):
        publisher.publish("debug/x", bytes(500), 1, packet_id=number)
    depth = pump.session("s").queue.depth
    assert 0 < depth < 15
    assert pump.dropped == {"queue_full": 100 - depth}
