"""What is not sent any more when its turn has come: too old, superseded, or beyond the month's allowance."""

import pytest

from bridge.latest import Latest
from bridge.priorities import NORMAL
from bridge.rules import RuleConfig
from tests.bridge.memory import Bridged, rule


def payloads(bridged: Bridged) -> list[bytes]:
    sent = bridged.sent_messages()
    bridged.acknowledge(*(message.packet_id for message in sent))
    return [message.payload for message in sent]


# ---- age


def test_a_message_older_than_its_rule_allows_is_counted_and_not_sent() -> None:
    bridged = Bridged([rule("live/#", max_age_seconds=60.0), rule("#")])
    bridged.publish("live/a", b"old")
    bridged.publish("log/a", b"kept")
    bridged.router.now += 59.0
    bridged.publish("live/a", b"young")
    bridged.router.now += 1.0
    bridged.connect()
    assert payloads(bridged) == [b"kept", b"young"]
    assert bridged.outbox.dropped == {"too_old": 1}
    assert (bridged.queue.depth, bridged.forwarder.acknowledged) == (0, 2)


def test_a_rule_with_templates_has_an_age_too() -> None:
    bridged = Bridged([RuleConfig(from_="site/+room", to="plant/{room}", max_age_seconds=60.0)])
    bridged.publish("site/kitchen", b"old")
    bridged.router.now += 60.0
    bridged.publish("site/kitchen", b"young")
    bridged.connect()
    (message,) = bridged.sent_messages()
    assert (message.topic, message.payload) == ("plant/kitchen", b"young")
    assert bridged.outbox.dropped == {"too_old": 1}


def test_of_what_is_written_anew_only_the_latest_is_sent() -> None:
    bridged = Bridged([rule("#", keep_latest=True, payload="json_to_cbor")])
    for n in range(3):
        bridged.publish("a", b'{"n":%d}' % n)
    bridged.connect()
    assert payloads(bridged) == [b"\xa1an\x02"]
    assert bridged.outbox.dropped == {"superseded": 2}


def test_the_age_counts_on_disk_too() -> None:
    bridged = Bridged([rule("#", max_age_seconds=60.0)])
    for n in range(3):
        bridged.publish("a", b"%d" % n)
    bridged.commit()
    bridged.router.now += 61.0
    bridged.publish("a", b"new")
    bridged.commit()
    bridged.connect()
    bridged.sent()
    bridged.answer_reads()
    assert payloads(bridged) == [b"new"]
    bridged.commit()
    assert (bridged.outbox.dropped, bridged.queue.depth) == ({"too_old": 3}, 0)


def test_at_qos_2_what_may_have_been_sent_is_sent_to_its_end() -> None:
    """Its identifier is in use upstream: another message under it would be taken for a repetition."""
    bridged = Bridged([rule("#", 2, max_age_seconds=60.0)])
    bridged.connect()
    bridged.publish("a", b"sent")
    bridged.commit()
    assert len(bridged.sent_messages()) == 1
    bridged.disconnect()
    bridged.publish("a", b"not sent")
    bridged.commit()
    bridged.router.now += 100.0
    bridged.connect()
    bridged.sent()
    bridged.answer_reads()
    assert [message.payload for message in bridged.sent_messages()] == [b"sent"]
    assert bridged.outbox.dropped == {"too_old": 1}


# ---- the latest of each topic


def test_only_the_latest_of_each_topic_is_sent() -> None:
    bridged = Bridged([rule("state/#", keep_latest=True), rule("#")])
    for n in range(3):
        bridged.publish("state/a", b"a%d" % n)
        bridged.publish("state/b", b"b%d" % n)
        bridged.publish("log", b"%d" % n)
    bridged.connect()
    assert payloads(bridged) == [b"0", b"1", b"a2", b"b2", b"2"]
    assert bridged.outbox.dropped == {"superseded": 4}
    assert (bridged.queue.depth, bridged.queue.head) == (0, bridged.queue.next_number)


def test_what_is_under_way_is_not_superseded() -> None:
    bridged = Bridged([rule("#", keep_latest=True)])
    bridged.connect()
    bridged.publish("a", b"1")
    assert len(bridged.sent_messages()) == 1
    bridged.publish("a", b"2")
    assert payloads(bridged) == [b"2"]
    bridged.disconnect()
    bridged.connect()
    assert payloads(bridged) == [], "a successor is there already"
    assert bridged.outbox.dropped == {"superseded": 1}


def test_a_superseded_message_is_never_written() -> None:
    bridged = Bridged([rule("#", keep_latest=True)])
    for n in range(100):
        bridged.publish("a", b"%d" % n)
    bridged.commit()
    (write,) = bridged.last_batch.queues
    assert [message.payload for _, message in write.messages] == [b"99"]


def test_holes_are_bounded_and_the_rest_is_skipped_when_its_turn_comes() -> None:
    bridged = Bridged([rule("#", keep_latest=True)], window=100)
    bridged.publish("rare", b"first")
    for n in range(5000):
        bridged.publish("busy", b"%d" % n)
    assert len(bridged.queue.acknowledged or ()) <= 1000
    bridged.connect()
    assert payloads(bridged) == [b"first", b"4999"]
    assert bridged.outbox.dropped == {"superseded": 4999}
    assert bridged.queue.depth == 0


def test_after_a_restart_a_new_message_supersedes_what_was_kept() -> None:
    bridged = Bridged([rule("#", keep_latest=True)])
    bridged.publish("a", b"kept")
    bridged.commit()
    bridged.outbox.latest[NORMAL] = bridged.forwarder.latest = Latest(bridged.queue)
    bridged.publish("a", b"new")
    bridged.commit()
    bridged.connect()
    bridged.sent()
    bridged.answer_reads()
    assert payloads(bridged) == [b"new"]


def test_very_many_topics_take_bounded_memory() -> None:
    bridged = Bridged([rule("#", keep_latest=True)])
    latest = bridged.outbox.latest[NORMAL]
    for n in range(25_000):
        latest.note(f"t{n}", 10**9)
    assert len(latest._numbers) <= 10_000


# ---- the month's allowance


@pytest.mark.parametrize(
    ("withholds", "sent"), [("all", []), ("not urgent", [b"alarm"]), ("", [b"alarm", b"reading"])]
)
def test_what_is_withheld_is_dropped_and_counted(withholds: str, sent: list[bytes]) -> None:
    bridged = Bridged([rule("alarms/#", priority="high"), rule("#")])
    for forwarder in bridged.forwarders.values():
        forwarder.withholds = withholds  # type: ignore[assignment]
    bridged.connect()
    bridged.publish("alarms/a", b"alarm")
    bridged.publish("a", b"reading")
    assert payloads(bridged) == sent
    assert bridged.outbox.dropped == ({"allowance": 2 - len(sent)} if len(sent) < 2 else {})
    assert bridged.forwarder.depth == 0


def test_at_qos_0_too() -> None:
    bridged = Bridged([rule("alarms/#", 0, priority="high"), rule("#", 0)])
    bridged.forwarder.withholds = "not urgent"
    bridged.connect()
    bridged.publish("alarms/a", b"alarm")
    bridged.publish("a", b"reading")
    assert payloads(bridged) == [b"alarm"]
    assert bridged.outbox.dropped == {"allowance": 1}
