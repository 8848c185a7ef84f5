"""What a bridge gives up becomes a dead letter, with the reason and the rule; and can go up again."""

from __future__ import annotations

import pytest

from bridge.priorities import HIGH, NORMAL
from edge_broker.core.dead_letters import DeadLetters
from edge_broker.core.message import Message
from edge_broker.core.settings import Settings
from edge_broker.wire import const
from tests.bridge.memory import Bridged, rule


def with_dead_letters(*rules: object) -> Bridged:
    return Bridged(rules, settings=Settings(dead_letters=True))  # type: ignore[arg-type]


def letters(bridged: Bridged) -> dict[int, Message]:
    dead = dead_letters(bridged)
    return {} if dead.queue is None else dead.queue.messages


def dead_letters(bridged: Bridged) -> DeadLetters:
    assert bridged.router.dead_letters is not None
    return bridged.router.dead_letters


def test_what_the_upstream_refuses_for_good() -> None:
    bridged = with_dead_letters(rule("s/#", remote="up/"))
    bridged.connect()
    bridged.publish("s/1", b"bad", properties={const.CONTENT_TYPE: "text"})
    bridged.sent()
    bridged.acknowledge(1, reason_code=const.NOT_AUTHORIZED)
    (letter,) = letters(bridged).values()
    assert (letter.topic, letter.payload, letter.qos) == ("s/1", b"bad", 1)
    assert letter.properties == {
        const.CONTENT_TYPE: "text",
        const.USER_PROPERTY: [
            ("dead-letter-reason", "upstream_refused:not_authorized"),
            ("dead-letter-for", "bridge:cloud"),
            ("dead-letter-waited-seconds", "0"),
            ("dead-letter-rule", "s/#"),
        ],
    }
    assert (bridged.queue.depth, dead_letters(bridged).buried) == (0, {"upstream_refused:not_authorized": 1})


def test_what_expired_while_the_upstream_was_away() -> None:
    bridged = with_dead_letters(rule("#"))
    bridged.publish("t", b"late", expiry=5)
    bridged.router.now += 10
    bridged.connect()
    assert bridged.sent_messages() == []
    (letter,) = letters(bridged).values()
    assert ("dead-letter-reason", "expired") in letter.properties[const.USER_PROPERTY]


def test_it_goes_up_again_as_it_was() -> None:
    bridged = with_dead_letters(rule("s/#", remote="up/"))
    bridged.connect()
    bridged.publish("s/1", b"bad")
    bridged.sent()
    bridged.acknowledge(1, reason_code=const.NOT_AUTHORIZED)
    ((number, letter),) = letters(bridged).items()
    assert dead_letters(bridged).deliver_again(number, letter) == ""
    (again,) = bridged.sent_messages()
    assert (again.topic, again.payload, again.properties) == ("up/s/1", b"bad", {})
    assert letters(bridged) == {}


def test_without_dead_letters_it_is_counted_only() -> None:
    bridged = Bridged([rule("#")])
    bridged.connect()
    bridged.publish("t", b"bad")
    bridged.sent()
    bridged.acknowledge(1, reason_code=const.NOT_AUTHORIZED)
    assert bridged.router.dead_letters is None
    assert bridged.forwarder.refused == {"not_authorized": 1}


def test_what_was_too_old_or_beyond_the_month_is_a_dead_letter_and_what_was_superseded_is_none() -> None:
    bridged = with_dead_letters(
        rule("live/#", max_age_seconds=60.0), rule("state/#", keep_latest=True), rule("#")
    )
    bridged.publish("state/a", b"1")
    bridged.publish("state/a", b"2")
    bridged.publish("live/a", b"old")
    bridged.router.now += 61.0
    bridged.connect()
    assert [message.payload for message in bridged.sent_messages()] == [b"2"]
    bridged.forwarder.withholds = "all"
    bridged.publish("log/a", b"3")
    assert bridged.sent_messages() == []
    assert dead_letters(bridged).buried == {"too_old": 1, "allowance": 1}
    assert bridged.outbox.dropped == {"superseded": 1, "too_old": 1, "allowance": 1}


@pytest.mark.parametrize("topic", ["a/1", "t"])
def test_it_goes_up_again_by_the_priority_of_its_rule(topic: str) -> None:
    bridged = with_dead_letters(rule("a/#", priority="high"), rule("#"))
    bridged.publish(topic, b"late", expiry=5)
    bridged.router.now += 10
    bridged.connect()
    bridged.sent()
    ((number, letter),) = letters(bridged).items()
    assert dead_letters(bridged).deliver_again(number, letter) == ""
    (again,) = bridged.sent_messages()
    assert (again.topic, again.payload) == (topic, b"late")
    assert bridged.queues[HIGH if topic == "a/1" else NORMAL].depth == 1
    assert dead_letters(bridged).depth == 0
