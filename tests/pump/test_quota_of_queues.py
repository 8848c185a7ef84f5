"""A durable queue that is full: what gives way, who is told, and that everything is counted."""

from __future__ import annotations

import pytest

from edge_broker.wire import const
from edge_broker.wire.packets import Ack
from tests.pump.pump import Pump, TestClient


def away(pump: Pump) -> None:
    pump.client("s", clean=False, expiry=600).subscribed("#", 1).vanish()
    pump.commit()


def back(pump: Pump) -> TestClient:
    client = TestClient(pump)
    client.connect("s", clean=False, expiry=600)
    pump.commit()
    client.inbox.pop(0)
    return client


def publish(pump: Pump, *topics: str, version: int = const.MQTT_5) -> TestClient:
    """Messages at QoS 1 with their own number as payload."""
    client = pump.client("p", version=version)
    for number, topic in enumerate(topics, 1):
        client.publish(topic, b"%d" % number, 1, packet_id=number)
    return client


@pytest.mark.parametrize("is_committed", [False, True])
@pytest.mark.parametrize(
    ("when_full", "left"),
    [
        ("drop_oldest", [b"3", b"4", b"5"]),
        ("drop_newest", [b"1", b"2", b"3"]),
        ("keep_latest", [b"1", b"4", b"5"]),
    ],
)
def test_what_gives_way(when_full: str, left: list[bytes], is_committed: bool) -> None:
    pump = Pump(max_queue_messages=3, when_queue_full=when_full)
    away(pump)
    client = pump.client("p")
    for number, topic in enumerate(("a", "b", "b", "b", "b"), 1):
        client.publish(topic, b"%d" % number, 1, packet_id=number)
        if is_committed:
            pump.commit()
    pump.commit()
    assert [client.take(Ack).reason_code for _ in range(5)] == [0] * 5
    queue = pump.session("s").queue
    assert (queue.depth, queue.dropped) == (3, 2)
    assert pump.dropped == {"queue_full": 2}
    assert back(pump).take_payloads() == left


def test_bytes_and_what_a_restart_finds() -> None:
    pump = Pump(max_queue_bytes=3_000)
    away(pump)
    client = pump.client("p")
    for number in range(1, 11):
        client.publish("t", b"%04d" % number + bytes(900), 1, packet_id=number)
        pump.commit()
    queue = pump.session("s").queue
    assert queue.depth == 3
    assert queue.packet_bytes == sum(len(message.frame) for message in pump.store.queues[1].messages.values())
    pump.crash()
    assert pump.session("s").queue.depth == 3
    assert [payload[:4] for payload in back(pump).take_payloads()] == [b"0008", b"0009", b"0010"]


def test_what_was_sent_is_never_dropped() -> None:
    pump = Pump(max_queue_messages=3)
    client = pump.client("s", clean=False, expiry=600, properties={const.RECEIVE_MAXIMUM: 2}).subscribed(
        "#", 1
    )
    publish(pump, *"abcdef")
    pump.commit()
    assert client.take_payloads() == [b"1", b"2"]
    for packet_id in (1, 2):
        client.ack(const.PUBACK, packet_id)
    pump.commit()
    assert client.take_payloads() == [b"6"]
    assert pump.dropped == {"queue_full": 3}


def test_age() -> None:
    pump = Pump(max_queue_age_seconds=60)
    away(pump)
    publish(pump, "a")
    pump.commit()
    pump.wait(59)
    publish(pump, "b").vanish()
    pump.commit()
    pump.wait(2)
    assert back(pump).take_payloads() == [b"1"]
    assert pump.session("s").queue.expired == 1


def test_rejected_it_goes_to_nobody_and_the_publisher_is_told() -> None:
    pump = Pump(max_queue_messages=2, when_queue_full="reject")
    away(pump)
    live = pump.client("live").subscribed("#")
    client = publish(pump, "a", "b", "c")
    pump.commit()
    assert [client.take(Ack).reason_code for _ in range(3)] == [0, 0, const.QUOTA_EXCEEDED], "in order"
    assert live.take_payloads() == [b"1", b"2"]
    assert pump.dropped == {"quota_exceeded": 1}
    subscriber = back(pump)
    assert subscriber.take_payloads() == [b"1", b"2"]
    subscriber.ack(const.PUBACK, 1)
    client.publish("d", b"4", 1, packet_id=4)
    pump.commit()
    assert client.take(Ack).reason_code == const.SUCCESS
    assert live.take_payloads() == [b"4"]


def test_who_cannot_be_told_waits_for_room() -> None:
    pump = Pump(max_queue_messages=1, when_queue_full="reject", hold_seconds=30)
    away(pump)
    live = pump.client("live").subscribed("#")
    client = publish(pump, "a", "b", "c", version=const.MQTT_3_1_1)
    pump.commit()
    assert client.take(Ack).packet_id == 1
    assert live.take_payloads() == [b"1"]
    pump.wait(10)
    assert not client.inbox
    subscriber = back(pump)
    for packet_id in (1, 2, 3):
        subscriber.ack(const.PUBACK, packet_id)
        pump.wait(1)
        pump.commit()
    assert live.take_payloads() == [b"2", b"3"]
    assert [client.take(Ack).packet_id for _ in range(2)] == [2, 3]
    assert not client.closed


def test_or_is_let_go_after_a_while_and_sends_it_anew() -> None:
    pump = Pump(max_queue_messages=1, when_queue_full="reject", hold_seconds=30)
    away(pump)
    client = publish(pump, "a", "b", version=const.MQTT_3_1_1)
    pump.commit()
    pump.wait(29)
    assert not client.closed
    pump.wait(2)
    assert client.closed
    assert pump.session("s").queue.depth == 1
    assert pump.refused == {"quota_exceeded": 1}
