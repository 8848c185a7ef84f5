"""What all durable queues together may hold: what gives way, who is told, and that the sum is the sum."""

from __future__ import annotations

from typing import Any

import pytest

from edge_broker.wire import const
from edge_broker.wire.packets import Ack, Connack, Publish
from tests.pump.pump import Pump, TestClient


def away(pump: Pump, client_id: str, topic_filter: str) -> None:
    pump.client(client_id, clean=False, expiry=600).subscribed(topic_filter, 1).vanish()
    pump.commit()


def back(pump: Pump, client_id: str) -> TestClient:
    client = TestClient(pump)
    client.connect(client_id, clean=False, expiry=600)
    pump.commit()
    client.take(Connack)
    return client


def publish(pump: Pump, topic: str, first: int, last: int, size: int = 0) -> list[int]:
    """Messages at QoS 1, each committed; the reason codes of their acknowledgements."""
    client = pump.client("p")
    for number in range(first, last + 1):
        client.publish(topic, b"%d" % number + bytes(size), 1, packet_id=number)
        pump.commit()
    codes = [client.take(Ack).reason_code for _ in range(first, last + 1)]
    client.disconnect()
    return codes


def check_sum(pump: Pump) -> None:
    totals = pump.router.totals
    assert totals is not None
    assert totals.messages == sum(queue.depth for queue in totals.queues.values())
    assert totals.size_bytes == sum(queue.packet_bytes for queue in totals.queues.values())


@pytest.mark.parametrize("limits", [{"max_store_messages": 10}, {"max_store_bytes": 10_200}])
def test_the_oldest_of_the_longest_queue_gives_way(limits: dict[str, Any]) -> None:
    pump = Pump(**limits)
    away(pump, "short", "s")
    away(pump, "long", "l")
    assert publish(pump, "s", 1, 3, 1000) + publish(pump, "l", 1, 9, 1000) == [0] * 12
    check_sum(pump)
    assert (pump.session("short").queue.depth, pump.session("long").queue.depth) == (3, 7)
    assert pump.session("long").queue.drops == {"store_limit": 2}
    assert pump.dropped == {"store_limit": 2}
    publish(pump, "s", 4, 4, 1000)
    assert (pump.session("short").queue.depth, pump.session("long").queue.depth) == (4, 6)
    assert [payload[:1] for payload in back(pump, "long").take_payloads()] == [
        b"4",
        b"5",
        b"6",
        b"7",
        b"8",
        b"9",
    ]


def test_what_was_sent_does_not_give_way() -> None:
    pump = Pump(max_store_messages=3)
    reader = pump.client("long", clean=False, expiry=600).subscribed("l", 1)
    publish(pump, "l", 1, 3)
    away(pump, "short", "s")
    assert publish(pump, "s", 1, 2) == [0, 0]
    assert pump.session("short").queue.drops == {"store_limit": 2}
    assert len(reader.inbox) == 3
    for number in range(1, 4):
        reader.ack(const.PUBACK, number)
    pump.commit()
    publish(pump, "s", 3, 3)
    assert back(pump, "short").take_payloads() == [b"3"]
    check_sum(pump)


def test_drop_newest_is_for_the_whole_too() -> None:
    pump = Pump(max_store_messages=2, when_queue_full="drop_newest")
    away(pump, "a", "a")
    away(pump, "b", "b")
    assert publish(pump, "a", 1, 2) + publish(pump, "b", 3, 3) == [0, 0, 0]
    assert back(pump, "a").take_payloads() == [b"1", b"2"]
    assert pump.session("b").queue.drops == {"store_limit": 1}


@pytest.mark.parametrize("limits", [{"max_store_messages": 3}, {"max_store_bytes": 3_200}])
def test_rejected_it_goes_to_nobody_and_the_publisher_is_told(limits: dict[str, Any]) -> None:
    pump = Pump(when_queue_full="reject", **limits)
    away(pump, "a", "a")
    away(pump, "b", "b")
    live = pump.client("live").subscribed("#")
    assert publish(pump, "a", 1, 3, 1000) == [0, 0, 0]
    assert publish(pump, "b", 4, 4, 1000) == [const.QUOTA_EXCEEDED], "a queue that is empty itself"
    assert publish(pump, "c", 5, 5, 1000) == [0], "which nobody has to keep"
    assert [payload[:1] for payload in live.take_payloads()] == [b"1", b"2", b"3", b"5"]
    assert pump.dropped == {"quota_exceeded": 1}
    pump.crash()
    assert pump.router.totals is not None
    assert pump.router.totals.messages == 3
    if "max_store_messages" in limits:
        assert publish(pump, "b", 4, 4, 1000) == [const.QUOTA_EXCEEDED], "after a restart too"


def test_one_larger_than_all_may_be_takes_nothing_with_it() -> None:
    pump = Pump(max_store_bytes=5_000)
    away(pump, "a", "a")
    assert publish(pump, "a", 1, 2, 1000) + publish(pump, "a", 3, 3, 6_000) == [0, 0, 0]
    assert pump.session("a").queue.depth == 2
    assert pump.dropped == {"store_limit": 1}


def test_dead_letters_go_first_and_none_is_made_of_what_gives_way() -> None:
    pump = Pump(max_store_messages=4, max_queue_messages=2, dead_letters=True)
    away(pump, "a", "a")
    publish(pump, "a", 1, 4)
    dead = pump.router.dead_letters
    assert dead is not None
    assert (dead.depth, pump.session("a").queue.depth) == (2, 2)
    away(pump, "b", "b")
    publish(pump, "b", 5, 6)
    assert (dead.depth, pump.session("a").queue.depth, pump.session("b").queue.depth) == (0, 2, 2)
    away(pump, "c", "c")
    publish(pump, "c", 7, 7)
    assert dead.depth == 0
    assert pump.session("a").queue.depth + pump.session("b").queue.depth == 3
    check_sum(pump)


def test_delayed_messages_count_and_do_not_give_way() -> None:
    pump = Pump(max_store_messages=2)
    away(pump, "a", "a")
    assert publish(pump, "$delayed/60/a", 1, 3) == [0, 0, const.QUOTA_EXCEEDED]
    publish(pump, "a", 4, 4)
    assert pump.session("a").queue.drops == {"store_limit": 1}
    check_sum(pump)


def test_the_sum_through_everything_that_befalls_a_queue() -> None:
    pump = Pump(max_store_messages=1_000, max_queue_messages=20, window_bytes=2_000, page_messages=5)
    away(pump, "a", "a")
    publish(pump, "a", 1, 30, 200)
    check_sum(pump)
    reader = back(pump, "a")
    reader.take_and_ack()
    pump.commit()
    check_sum(pump)
    publish(pump, "a", 31, 40)
    reader.take(Publish)
    reader.vanish()
    pump.commit()
    check_sum(pump)
    pump.crash()
    check_sum(pump)
    back(pump, "a").take_and_ack()
    pump.commit()
    check_sum(pump)
    publish(pump, "a", 41, 45)
    pump.router.end_session(pump.session("a"))
    pump.commit()
    check_sum(pump)
    assert pump.router.totals is not None
    assert (pump.router.totals.messages, pump.router.totals.size_bytes) == (0, 0)


@pytest.mark.parametrize("size", [10, 1_000])
def test_a_queue_that_rejects_by_bytes_tells_the_publisher(size: int) -> None:
    pump = Pump(max_queue_bytes=2_500, when_queue_full="reject")
    away(pump, "a", "#")
    assert publish(pump, "a", 1, 3, 1000) == [0, 0, const.QUOTA_EXCEEDED]
    assert publish(pump, "a", 4, 4, size) == [0 if size == 10 else const.QUOTA_EXCEEDED]
    assert set(pump.dropped) == {"quota_exceeded"}


def test_a_full_queue_rejects_after_a_restart_too() -> None:
    pump = Pump(max_queue_messages=2, when_queue_full="reject")
    away(pump, "a", "#")
    publish(pump, "a", 1, 2)
    pump.crash()
    assert publish(pump, "a", 3, 3) == [const.QUOTA_EXCEEDED]
    assert pump.dropped == {"quota_exceeded": 1}


def test_one_larger_than_its_queue_may_be_takes_nothing_with_it() -> None:
    pump = Pump(max_queue_bytes=2_500)
    away(pump, "a", "#")
    publish(pump, "a", 1, 2, 1000)
    publish(pump, "a", 3, 3, 3000)
    assert (pump.session("a").queue.depth, pump.dropped) == (2, {"queue_full": 1})
