"""Messages that expire while their recipient is away leave the store by themselves, a little at a time."""

from __future__ import annotations

import math
from typing import Any

import pytest

from edge_broker.core import upkeep
from edge_broker.wire import const
from edge_broker.wire.packets import Connack
from tests.pump.pump import Pump, TestClient


def away(pump: Pump, client_id: str = "s") -> None:
    pump.client(client_id, clean=False, expiry=const.NEVER_EXPIRES).subscribed("#", 2).vanish()
    pump.commit()


def back(pump: Pump) -> TestClient:
    client = TestClient(pump)
    client.connect("s", clean=False, expiry=const.NEVER_EXPIRES)
    pump.commit()
    client.take(Connack)
    return client


def publish(pump: Pump, first: int, last: int, life: int | None, qos: int = 1) -> None:
    client = pump.client("p")
    properties = {} if life is None else {const.MESSAGE_EXPIRY_INTERVAL: life}
    for number in range(first, last + 1):
        client.publish("t", b"%d" % number, qos, packet_id=number, properties=properties)
    pump.commit()
    client.disconnect()


def on_disk(pump: Pump, client_id: str = "s") -> int:
    return len(pump.store.queues[pump.session(client_id).queue.queue_id].messages)


def small(**limits: Any) -> Pump:
    return Pump(page_messages=10, **limits)


@pytest.mark.parametrize("is_restarted", [False, True])
@pytest.mark.parametrize("qos", [1, 2])
def test_rows_go_and_are_counted_without_anybody_coming(qos: int, is_restarted: bool) -> None:
    pump = small()
    away(pump)
    publish(pump, 1, 100, 60, qos)
    publish(pump, 101, 120, 90, qos)
    if is_restarted:
        pump.crash()
    pump.wait(30)
    pump.commit()
    assert on_disk(pump) == 120
    pump.wait(31)
    pump.commit()
    queue = pump.session("s").queue
    assert (queue.depth, queue.expired, on_disk(pump)) == (20, 100, 20)
    assert len(queue.messages) == 0, "nothing stays in memory"
    pump.wait(30)
    pump.commit()
    assert (queue.depth, queue.expired, on_disk(pump)) == (0, 120, 0)
    publish(pump, 121, 122, 60, qos)
    assert back(pump).take_payloads() == [b"121", b"122"]


def test_the_store_is_asked_for_a_page_at_a_time_and_only_when_something_is_due() -> None:
    pump = small()
    away(pump)
    publish(pump, 1, 100, 60)
    pump.wait(1)
    assert [lookup.max_messages for lookup in pump.pending.lookups] == [1], "the first look is a glance"
    pump.answer_reads()
    for _ in range(50):
        pump.wait(1)
        assert pump.pending.lookups == []
    pump.wait(15)
    pages = 0
    while pump.pending.lookups:
        assert len(pump.pending.lookups) == 1
        pages += 1
        pump.answer_reads()
    assert pages == 10


def test_no_more_pages_than_it_may_read_in_a_second(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(upkeep, "_PAGES", 3)
    pump = small()
    away(pump)
    publish(pump, 1, 100, 60)
    pump.wait(1)
    pump.commit()
    pump.wait(100)
    pump.commit()
    assert pump.session("s").queue.expired == 30
    pump.wait(1)
    pump.commit()
    assert pump.session("s").queue.expired == 60


def test_the_queues_take_turns(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(upkeep, "_PAGES", 4)
    pump = small()
    away(pump)
    away(pump, "t")
    publish(pump, 1, 100, 60)
    pump.wait(1)
    pump.commit()
    pump.wait(100)
    pump.commit()
    assert [pump.session(name).queue.expired for name in "st"] == [20, 20]


def test_one_that_does_not_expire_holds_those_behind_it() -> None:
    pump = small()
    away(pump)
    publish(pump, 1, 5, 60)
    publish(pump, 6, 6, None)
    publish(pump, 7, 9, 60)
    pump.wait(100)
    pump.commit()
    queue = pump.session("s").queue
    assert (queue.depth, queue.expired, queue.look_at) == (4, 5, math.inf)
    pump.wait(100)
    assert pump.pending.lookups == [], "and is not looked at again"
    assert back(pump).take_payloads() == [b"6"]
    assert queue.expired == 8


def test_a_queues_age_counts_too() -> None:
    pump = small(max_queue_age_seconds=60)
    away(pump)
    publish(pump, 1, 30, None)
    pump.wait(61)
    pump.commit()
    assert (pump.session("s").queue.expired, on_disk(pump)) == (30, 0)


def test_what_may_have_been_sent_at_qos_2_does_not_expire() -> None:
    pump = small()
    reader = pump.client("s", clean=False, expiry=const.NEVER_EXPIRES).subscribed("#", 2)
    publish(pump, 1, 3, 60, 2)
    assert len(reader.inbox) == 3
    reader.vanish()
    pump.commit()
    pump.crash()
    pump.wait(100)
    pump.commit()
    assert (pump.session("s").queue.depth, pump.session("s").queue.expired) == (3, 0)


def test_who_comes_back_meanwhile_is_sent_to_as_ever() -> None:
    pump = small()
    away(pump)
    publish(pump, 1, 20, 60)
    publish(pump, 21, 25, None)
    pump.wait(100)
    (lookup,) = pump.pending.lookups
    pump.pending.lookups.clear()
    client = back(pump)
    lookup.take(pump.store.read_page(lookup.queue_id, lookup.from_number, 10))
    assert client.take_and_ack() == [b"%d" % number for number in range(21, 26)]
    pump.commit()
    assert (pump.session("s").queue.expired, on_disk(pump)) == (20, 0)


def test_a_session_that_ends_meanwhile_and_a_store_that_cannot_read() -> None:
    pump = small()
    away(pump)
    away(pump, "t")
    publish(pump, 1, 20, 60)
    pump.wait(100)
    (lookup,) = pump.pending.lookups
    pump.pending.lookups.clear()
    lookup.take(None)
    pump.router.end_session(pump.session("s"))
    pump.wait(1)
    pump.commit()
    pump.wait(1)
    pump.commit()
    assert (pump.session("t").queue.expired, on_disk(pump, "t")) == (20, 0)


def test_what_is_damaged_is_lost_and_stops_nothing() -> None:
    pump = small()
    away(pump)
    publish(pump, 1, 20, 60)
    for number in (1, 15, 20):
        del pump.store.queues[pump.session("s").queue.queue_id].messages[number]
    pump.wait(100)
    pump.commit()
    queue = pump.session("s").queue
    assert (queue.depth, queue.expired, queue.lost) == (0, 17, 3)


def test_dead_letters_are_made_of_them_and_grow_old_themselves() -> None:
    pump = small(dead_letters=True, max_dead_letter_age_seconds=1_000)
    away(pump)
    publish(pump, 1, 20, 60)
    pump.wait(100)
    pump.commit()
    dead = pump.router.dead_letters
    assert dead is not None
    assert (dead.depth, dead.buried) == (20, {"expired": 20})
    pump.wait(1_001)
    pump.commit()
    assert (dead.depth, dead.dropped) == (0, 20)


def test_a_backlog_that_went_is_not_looked_for_when_the_client_is_back() -> None:
    pump = small()
    away(pump)
    publish(pump, 1, 50, 60)
    pump.wait(100)
    pump.commit()
    client = back(pump)
    publish(pump, 51, 52, None)
    assert client.take_and_ack() == [b"51", b"52"]
    queue = pump.session("s").queue
    assert (queue.lost, queue.gap_from < queue.gap_to) == (0, False)
