"""Dead letters: what a durable queue let go without its recipient, with its reason, through commits and crashes."""

from __future__ import annotations

from typing import Any

import pytest

from edge_broker.core.dead_letters import QUEUE_NAME
from edge_broker.core.message import Message
from edge_broker.core.queue import Queue
from edge_broker.wire import const
from edge_broker.wire.packets import Ack, Connack, Publish
from tests.pump.pump import Pump, TestClient


def with_dead_letters(**limits: Any) -> Pump:
    return Pump(dead_letters=True, **limits)


def away(pump: Pump, topic_filter: str = "#") -> None:
    """A durable subscriber that is not there."""
    pump.client("s", clean=False, expiry=600).subscribed(topic_filter, 1).vanish()
    pump.commit()


def back(pump: Pump) -> TestClient:
    client = TestClient(pump)
    client.connect("s", clean=False, expiry=600)
    pump.commit()
    client.take(Connack)
    return client


def letters(pump: Pump) -> list[Message]:
    """Those on disk, oldest first."""
    stored = pump.store.queues.get(pump.store.outboxes.get(QUEUE_NAME, 0))
    return [] if stored is None else [stored.messages[number] for number in sorted(stored.waiting)]


def notes(letter: Message) -> dict[str, str]:
    return dict(letter.properties[const.USER_PROPERTY])


def dead_queue(pump: Pump) -> Queue:
    assert pump.router.dead_letters is not None
    assert pump.router.dead_letters.queue is not None
    return pump.router.dead_letters.queue


def test_a_broker_that_keeps_none_makes_none(pump: Pump) -> None:
    away(pump)
    pump.client("p").publish("t", b"1", 1, properties={const.MESSAGE_EXPIRY_INTERVAL: 5})
    pump.commit()
    pump.wait(10)
    assert back(pump).inbox == []
    assert pump.store.outboxes == {}


def test_what_expired_has_its_reason_and_survives_a_crash() -> None:
    pump = with_dead_letters()
    away(pump)
    properties = {const.MESSAGE_EXPIRY_INTERVAL: 5, const.USER_PROPERTY: [("mine", "1")]}
    pump.client("p").publish("t/1", b"21.5", 1, properties=properties)
    pump.commit()
    pump.now += 10
    assert back(pump).inbox == []
    pump.commit()
    (letter,) = letters(pump)
    assert (letter.topic, letter.payload, letter.qos, letter.expires_at) == ("t/1", b"21.5", 1, None)
    assert notes(letter) == {
        "mine": "1",
        "dead-letter-reason": "expired",
        "dead-letter-for": "session:s",
        "dead-letter-waited-seconds": "10",
    }
    assert letter.received_at == pump.now, "dated by its death"
    pump.crash()
    assert dead_queue(pump).depth == 1


@pytest.mark.parametrize("is_committed", [False, True])
@pytest.mark.parametrize("when_full", ["drop_oldest", "drop_newest", "keep_latest"])
def test_what_gives_way_at_a_limit(when_full: str, is_committed: bool) -> None:
    pump = with_dead_letters(max_queue_messages=2, when_queue_full=when_full)
    away(pump)
    client = pump.client("p")
    for number in range(1, 6):
        client.publish("t", b"%d" % number, 1, packet_id=number)
        if is_committed:
            pump.commit()
    pump.commit()
    assert [client.take(Ack).reason_code for _ in range(5)] == [0] * 5
    kept = back(pump).take_payloads()
    assert len(kept) == 2
    dead = [letter.payload for letter in letters(pump)]
    assert sorted(kept + dead) == [b"1", b"2", b"3", b"4", b"5"], "each in one place"
    assert {notes(letter)["dead-letter-reason"] for letter in letters(pump)} == {"queue_full"}
    assert pump.router.dead_letters is not None
    assert (pump.router.dead_letters.buried, pump.router.dead_letters.unburied) == ({"queue_full": 3}, 0)
    assert pump.dropped == {"queue_full": 3}
    session_queue = pump.store.queues[pump.session("s").queue.queue_id]
    assert len(session_queue.waiting) == 2, "the rows of the dead are gone from where they were"


def test_a_crash_before_the_letter_is_written_loses_neither() -> None:
    pump = with_dead_letters(max_queue_messages=2)
    away(pump)
    for number in range(1, 4):
        pump.client("p").publish("t", b"%d" % number, 1)
        if number < 3:
            pump.commit()
    pump.seal()  # the third drops the first, whose row is not read yet
    pump.store.apply(pump.sealed[0].batch)
    assert pump.pending.lookups
    pump.crash()
    assert letters(pump) == []
    assert back(pump).take_payloads() == [b"1", b"2", b"3"], "it is back where it was"


def test_a_row_that_is_gone_from_the_disk_is_counted() -> None:
    pump = with_dead_letters(max_queue_messages=2)
    away(pump)
    for number in range(1, 3):
        pump.client("p").publish("t", b"%d" % number, 1)
        pump.commit()
    del pump.store.queues[pump.session("s").queue.queue_id].messages[1]
    pump.client("p").publish("t", b"3", 1)
    pump.commit()
    assert letters(pump) == []
    assert pump.router.dead_letters is not None
    assert pump.router.dead_letters.unburied == 1
    assert back(pump).take_payloads() == [b"2", b"3"]


def test_its_publisher_is_answered_when_the_letter_is_on_disk() -> None:
    pump = with_dead_letters(max_queue_messages=1)
    away(pump)
    client = pump.client("p")
    client.publish("t", b"1", 1, packet_id=1)
    client.publish("t", b"2", 1, packet_id=2)
    assert not client.inbox, "the first was dropped before it was written anywhere"
    pump.commit()
    assert [client.take_ack(const.PUBACK) for _ in range(2)] == [1, 2]
    assert [letter.payload for letter in letters(pump)] == [b"1"]


def test_a_message_that_kills_its_subscriber_three_times() -> None:
    pump = with_dead_letters()
    away(pump)
    client = pump.client("p")
    for payload in (b"poison", b"food"):
        client.publish("t", payload, 1)
        pump.commit()
    for _ in range(3):
        subscriber = back(pump)
        assert subscriber.take(Publish).payload == b"poison"
        subscriber.vanish()
        pump.commit()
    (letter,) = letters(pump)
    assert (letter.payload, notes(letter)["dead-letter-reason"]) == (b"poison", "killed_subscriber")
    assert pump.dropped == {"killed_subscriber": 1}
    assert back(pump).take_payloads() == [b"food"]


@pytest.mark.parametrize("ending", ["goodbye", "taken over", "acknowledged"])
def test_endings_that_are_no_deaths(ending: str) -> None:
    pump = with_dead_letters()
    away(pump)
    for number in range(1, 7):
        pump.client("p").publish("t", b"%d" % number, 1)
    pump.commit()
    subscriber = back(pump)
    for _ in range(5):
        first = subscriber.take(Publish)
        if ending == "goodbye":
            subscriber.disconnect()
        elif ending == "acknowledged":  # it gets further each time
            subscriber.ack(const.PUBACK, first.packet_id)
            subscriber.vanish()
        pump.commit()
        subscriber = back(pump)
    assert letters(pump) == []


def test_they_are_bounded_and_make_no_dead_letters_themselves() -> None:
    pump = with_dead_letters(max_queue_messages=1, max_dead_letters=3)
    away(pump)
    for number in range(1, 11):
        pump.client("p").publish("t", b"%d" % number, 1)
        pump.commit()
    assert [letter.payload for letter in letters(pump)] == [b"7", b"8", b"9"]
    assert pump.router.dead_letters is not None
    assert (pump.router.dead_letters.depth, pump.router.dead_letters.dropped) == (3, 6)


def test_one_that_is_larger_than_all_may_be() -> None:
    pump = with_dead_letters(max_queue_messages=1, max_dead_letter_bytes=1_000)
    away(pump)
    for payload in (b"small", bytes(2_000), b"last"):
        pump.client("p").publish("t", payload, 1)
        pump.commit()
    assert [letter.payload for letter in letters(pump)] == [b"small"]
    assert pump.router.dead_letters is not None
    assert pump.router.dead_letters.unburied == 1


def test_whoever_subscribes_hears_of_them() -> None:
    pump = with_dead_letters(max_queue_messages=1)
    away(pump, "t/#")
    pump.client("watcher", clean=False, expiry=600).subscribed("$dead-letters/#", 1).vanish()
    for number in range(1, 4):
        pump.client("p").publish("t/1", b"%d" % number, 1)
        pump.commit()
    watcher = TestClient(pump)
    watcher.connect("watcher", clean=False, expiry=600)
    pump.commit()
    watcher.take(Connack)
    heard = watcher.take(Publish)
    assert (heard.topic, heard.payload) == ("$dead-letters/t/1", b"2"), "the watcher's own queue is as full"
    assert ("dead-letter-reason", "queue_full") in heard.properties[const.USER_PROPERTY]
    assert [letter.payload for letter in letters(pump)] == [b"1", b"2"], "and no dead letter of a dead letter"


def test_no_client_writes_there() -> None:
    pump = with_dead_letters()
    watcher = pump.client("watcher").subscribed("$dead-letters/#")
    client = pump.client("p")
    client.publish("$dead-letters/t", b"lies", 1)
    assert client.take(Ack).reason_code == const.NOT_AUTHORIZED
    assert watcher.inbox == []


def test_again_to_whom_it_was_for_and_to_nobody_else() -> None:
    pump = with_dead_letters(max_queue_messages=1)
    away(pump, "t")
    other = pump.client("other").subscribed("t", 1)
    properties = {const.USER_PROPERTY: [("mine", "1")], const.MESSAGE_EXPIRY_INTERVAL: 50}
    for number in range(1, 3):
        pump.client("p").publish("t", b"%d" % number, 1, properties=properties)
        pump.commit()
    assert other.take_and_ack() == [b"1", b"2"]
    dead = pump.router.dead_letters
    assert dead is not None
    (letter,) = letters(pump)
    subscriber = back(pump)
    assert subscriber.take_and_ack() == [b"2"]
    assert dead.deliver_again(1, letter) == ""
    pump.commit()
    again = subscriber.take(Publish)
    assert (again.payload, again.properties) == (b"1", {const.USER_PROPERTY: [("mine", "1")]})
    assert other.inbox == []
    assert letters(pump) == []
    assert dead.deliver_again(1, letter) == "it is not there any more"


def test_again_where_that_cannot_be() -> None:
    pump = with_dead_letters(max_queue_messages=1, when_queue_full="drop_newest")
    away(pump, "t")
    for number in range(1, 3):
        pump.client("p").publish("t", b"%d" % number, 1)
        pump.commit()
    dead = pump.router.dead_letters
    assert dead is not None
    (letter,) = letters(pump)
    assert dead.deliver_again(1, letter) == "the queue of session:s does not take it"
    pump.router.end_session(pump.session("s"))
    pump.commit()
    assert dead.deliver_again(1, letter) == "session:s is not there any more"
    assert len(letters(pump)) == 1, "trying makes no dead letter"
    assert dead.forget(1)
    assert not dead.forget(1)
    pump.commit()
    assert letters(pump) == []
