"""Lanes in memory: what is urgent goes first, a topic keeps its order, the window and the pace are shared."""

from __future__ import annotations

import pytest

from bridge.packet_ids import SHARERS
from bridge.policy_config import PacingConfig
from bridge.priorities import HIGH, LOW, NORMAL
from edge_broker.core.message import Message
from edge_broker.core.quota import DROP_NEWEST, DROP_OLDEST, KEEP_LATEST, REJECT, Quota
from edge_broker.wire import const
from tests.bridge.memory import Bridged, rule


def rules(qos: int = 1) -> list[object]:
    return [rule("a/#", qos, priority="high"), rule("z/#", qos, priority="low"), rule("#", qos)]


def bridged(qos: int = 1, **more: object) -> Bridged:
    return Bridged(rules(qos), **more)  # type: ignore[arg-type]


def payloads(messages: list[Message]) -> list[str]:
    return [message.payload.decode() for message in messages]


def publish(to: Bridged, topic: str, first: int, last: int, qos: int = 1) -> None:
    for number in range(first, last + 1):
        to.publish(topic, f"{topic}{number}".encode(), qos)


def drain(of: Bridged, messages: int | None = None) -> list[str]:
    """What goes up until nothing more does, or so many did: acknowledged in the order in which it went."""
    arrived: list[str] = []
    while messages is None or len(arrived) < messages:
        sent = of.sent_messages()
        if not sent:
            return arrived
        arrived += payloads(sent)
        of.acknowledge(*(message.packet_id for message in sent))
    return arrived


# ---- order


def test_what_is_urgent_goes_first_and_each_topic_in_its_order() -> None:
    one = bridged(window=100)
    for topic in ("z", "n", "a"):
        publish(one, topic, 1, 5)
    one.connect()
    assert drain(one) == [
        *("a1", "a2", "a3", "a4", "a5", "n1", "n2", "n3", "n4"),
        *("z1", "n5", "z2", "z3", "z4", "z5"),
    ]
    assert (one.forwarder.depth, one.forwarder.acknowledged, one.forwarder.in_flight) == (0, 15, 0)


def test_an_alarm_overtakes_a_backlog_and_what_is_low_is_behind_it() -> None:
    one = bridged(window=10)
    publish(one, "z", 1, 50)
    publish(one, "n", 1, 500)
    one.connect()
    drain(one, 100)
    publish(one, "a", 1, 3)
    assert payloads(one.sent_messages())[:3] == ["a1", "a2", "a3"]
    assert one.queues[NORMAL].depth > 350


def test_nothing_waits_for_ever_behind_what_is_more_urgent() -> None:
    one = bridged(window=4)
    publish(one, "z", 1, 40)
    publish(one, "n", 1, 200)
    one.connect()
    arrived: list[str] = []
    number = 0
    while len(arrived) < 1480:  # alarms without end
        number += 20
        publish(one, "a", number - 19, number)
        arrived += drain(one, 10)
    assert sum(name[0] == "z" for name in arrived) == pytest.approx(1480 / 37, abs=2)
    assert sum(name[0] == "n" for name in arrived) == pytest.approx(1480 / 37 * 4, abs=8)
    for topic in "anz":
        own = [name for name in arrived if name[0] == topic]
        assert own == sorted(own, key=lambda name: int(name[1:]))


def test_after_a_cut_each_lane_goes_again_from_its_oldest_on() -> None:
    one = bridged(window=100)
    for topic in ("z", "n", "a"):
        publish(one, topic, 1, 3)
    one.connect()
    first = one.sent_messages()
    ids = {message.payload: message.packet_id for message in first}
    one.acknowledge(ids[b"a1"], ids[b"n2"])
    one.commit()
    one.disconnect()
    one.connect()
    one.sent()
    one.answer_reads()
    again = one.sent_messages()
    assert sorted(payloads(again)) == ["a2", "a3", "n1", "n3", "z1", "z2", "z3"]
    for lane in "anz":
        own = [name for name in payloads(again) if name[0] == lane]
        assert own == sorted(own)
    assert all(ids[message.payload] == message.packet_id for message in again)
    assert all(message.dup for message in again)
    assert one.forwarders[HIGH].resent + one.forwarders[NORMAL].resent + one.forwarders[LOW].resent == 7


# ---- identifiers


@pytest.mark.parametrize("qos", [1, 2])
def test_an_answer_goes_to_the_lane_whose_message_it_is_for(qos: int) -> None:
    one = bridged(qos, window=100)
    one.connect()
    for topic in ("z", "n", "a"):
        publish(one, topic, 1, 2)
    one.commit()
    sent = one.sent_messages()
    ids = {message.payload.decode(): message.packet_id for message in sent}
    assert len(set(ids.values())) == 6
    assert ids["n1"] == 1  # and every third from there
    assert (ids["n2"], ids["a1"] % SHARERS, ids["z1"] % SHARERS) == (4, 2, 0)
    if qos == 1:
        one.acknowledge(ids["a2"], ids["z1"])
    else:
        one.acknowledge(ids["a2"], ids["z1"], kind=const.PUBREC)
        one.commit()
        assert one.sent_acks() == [(const.PUBREL, ids["a2"], 0), (const.PUBREL, ids["z1"], 0)]
        one.acknowledge(ids["a2"], ids["z1"], kind=const.PUBCOMP)
    assert [one.queues[priority].depth for priority in (HIGH, NORMAL, LOW)] == [1, 2, 1]


def test_an_answer_for_nobody_harms_nobody() -> None:
    one = Bridged([rule("a/#", priority="high"), rule("#")])
    one.connect()
    publish(one, "n", 1, 1)
    one.sent()
    one.acknowledge(3, 6, 65_535, 2)  # the lane `low`, which is not there; one that has sent nothing
    one.acknowledge(3, kind=const.PUBCOMP)
    assert one.forwarder.depth == 1
    one.acknowledge(3, kind=const.PUBREC)
    assert one.sent_acks() == [(const.PUBREL, 3, const.PACKET_IDENTIFIER_NOT_FOUND)]


# ---- the window


def test_all_lanes_together_send_no_more_than_the_upstream_takes() -> None:
    one = bridged(window=500)
    for topic in ("z", "n", "a"):
        publish(one, topic, 1, 50)
    one.connect(properties={const.RECEIVE_MAXIMUM: 10})
    assert len(one.sent_messages()) == 10
    assert one.forwarder.in_flight == 10


def test_a_window_full_of_a_backlog_has_a_place_for_what_is_urgent() -> None:
    one = bridged(window=40)
    publish(one, "n", 1, 100)
    one.connect()
    assert len(one.sent_messages()) == 36
    publish(one, "a", 1, 10)
    assert payloads(one.sent_messages()) == ["a1", "a2", "a3", "a4"]
    one.acknowledge(1)  # of `normal`: the next place is for what is urgent too
    assert payloads(one.sent_messages()) == ["a5"]


@pytest.mark.parametrize(("window", "backlog"), [(1, 1), (2, 1), (3, 2), (19, 18)])
def test_the_smallest_windows(window: int, backlog: int) -> None:
    one = bridged(window=window)
    publish(one, "n", 1, 100)
    one.connect()
    sent = one.sent_messages()
    assert len(sent) == backlog
    publish(one, "a", 1, 10)
    sent += one.sent_messages()
    assert len(sent) == window
    one.acknowledge(*(message.packet_id for message in sent))
    assert len(drain(one)) == 110 - window


def test_without_urgent_rules_nothing_is_kept_free() -> None:
    one = Bridged([rule("z/#", priority="low"), rule("#")], window=10)
    publish(one, "n", 1, 100)
    one.connect()
    assert len(one.sent_messages()) == 10


def test_nothing_new_goes_once_the_window_is_closed() -> None:
    one = bridged(window=10)
    publish(one, "a", 1, 20)
    one.connect()
    one.sent()
    one.forwarder.close_window()
    one.acknowledge(2, 5)
    assert one.sent() == []
    assert (one.forwarder.in_flight, one.forwarder.depth) == (8, 18)


def test_a_turn_has_a_budget() -> None:
    one = bridged(window=2000)
    for topic in ("n", "a"):
        publish(one, topic, 1, 700)
    one.connect()
    assert one.forwarder.send_due()
    assert one.forwarder.in_flight == 500
    big = bridged(window=2000)
    big.connect()
    for _ in range(40):
        for topic in ("n", "a"):
            big.publish(topic, bytes(20_000))
    assert big.forwarder.send_due()
    assert big.forwarder.in_flight < 60


# ---- the pace


def test_what_is_urgent_does_not_wait_for_the_pace_of_the_drain() -> None:
    one = bridged(window=1000, pacing=PacingConfig(drain_messages_per_second=10))
    for topic in ("z", "n", "a"):
        publish(one, topic, 1, 100)
    one.connect()
    sent = payloads(one.sent_messages())
    assert sum(name[0] == "a" for name in sent) == 100
    assert len(sent) == 110
    assert one.forwarder.pause_seconds == pytest.approx(0.1)
    assert one.forwarder.drain_seconds == pytest.approx(20.0)  # none is acknowledged
    one.router.now += 1
    assert len(payloads(one.sent_messages())) == 10


def test_the_lanes_share_the_pace_of_what_comes() -> None:
    one = bridged(window=1000, pacing=PacingConfig(messages_per_second=10))
    one.connect()
    for topic in ("z", "n", "a"):
        publish(one, topic, 1, 20)
    assert payloads(one.sent_messages()) == [*(f"a{number}" for number in range(1, 9)), "n1", "a9"]
    one.router.now += 1
    assert len(one.sent_messages()) == 10
    assert one.forwarder.pause_seconds == pytest.approx(0.1)


def test_at_qos_0_a_message_has_a_priority_for_the_allowance_only() -> None:
    one = Bridged([rule("a/#", 0, priority="high"), rule("b/#", priority="low"), rule("#", 0)])
    one.connect()
    for topic in ("a", "n"):
        one.publish(topic, topic.encode())
    assert payloads(one.sent_messages()) == ["a", "n"]
    assert set(one.queues) == {NORMAL, LOW}


# ---- how much may wait


@pytest.mark.parametrize(
    ("when_full", "kept"),
    [
        (DROP_OLDEST, {HIGH: 4, NORMAL: 2, LOW: 0}),
        (DROP_NEWEST, {HIGH: 0, NORMAL: 3, LOW: 3}),
        (REJECT, {HIGH: 0, NORMAL: 3, LOW: 3}),
        (KEEP_LATEST, {HIGH: 4, NORMAL: 2, LOW: 0}),
    ],
)
def test_what_may_wait_is_bounded_for_all_lanes_together(when_full: str, kept: dict[int, int]) -> None:
    one = bridged(quota=Quota(6, 0, when_full))
    for topic, last in (("z", 3), ("n", 3), ("a", 4)):
        for number in range(1, last + 1):
            one.outbox.deliver(_message(one, f"{topic}/{number}"))
    assert {priority: queue.depth for priority, queue in one.queues.items()} == kept
    assert one.outbox.dropped == {"queue_full": 4}


def _message(one: Bridged, topic: str) -> Message:
    from edge_broker.core.message import build_message

    message = build_message(topic, b"x", qos=1)
    message.received_at = one.router.now
    return message


def test_what_is_low_never_pushes_out_what_is_not() -> None:
    one = bridged(quota=Quota(4, 0, DROP_OLDEST))
    publish(one, "a", 1, 2)
    publish(one, "n", 1, 2)
    publish(one, "z", 1, 3)
    assert {priority: queue.depth for priority, queue in one.queues.items()} == {HIGH: 2, NORMAL: 2, LOW: 0}
    publish(one, "n", 3, 4)
    publish(one, "a", 3, 5)
    assert {priority: queue.depth for priority, queue in one.queues.items()} == {HIGH: 4, NORMAL: 0, LOW: 0}
    one.connect()
    assert drain(one) == ["a2", "a3", "a4", "a5"]


def test_bytes_are_bounded_together_too() -> None:
    one = bridged(quota=Quota(0, 5000, DROP_OLDEST))
    for topic in ("z", "n", "a"):
        for _ in range(4):
            one.publish(topic, bytes(1000))
    assert sum(queue.packet_bytes for queue in one.queues.values()) <= 5000
    assert {priority: queue.depth for priority, queue in one.queues.items()} == {HIGH: 4, NORMAL: 0, LOW: 0}


def test_of_one_topic_the_latest_is_kept_in_its_lane() -> None:
    one = bridged(quota=Quota(3, 0, KEEP_LATEST))
    publish(one, "a", 1, 1)
    publish(one, "n", 1, 1)
    publish(one, "z", 1, 3)
    publish(one, "n", 2, 2)
    one.connect()
    assert drain(one) == ["a1", "n2", "z3"]


# ---- a bridge that had one queue


def test_what_may_be_half_way_upstream_is_finished_before_identifiers_are_shared() -> None:
    one = bridged(2, window=10, shares_identifiers=False)
    publish(one, "n", 1, 5)
    one.commit()
    one.queue.sent_before = one.queue.next_number  # as after a restart: all of it may have been sent
    one.connect()
    publish(one, "a", 1, 2)
    publish(one, "n", 6, 7)
    one.commit()
    one.sent()
    one.answer_reads()
    sent = one.sent_messages()
    assert [message.packet_id for message in sent] == [1, 2, 3, 4, 5, 6, 7]  # `normal` alone, in the old way
    for packet_id in range(1, 6):
        one.acknowledge(packet_id, kind=const.PUBREC)
        one.commit()
        one.acknowledge(packet_id, kind=const.PUBCOMP)
    publish(one, "n", 8, 8)
    one.commit()
    assert one.sent_messages() == []  # until nothing is under way
    for packet_id in (6, 7):
        one.acknowledge(packet_id, kind=const.PUBREC)
        one.commit()
        one.acknowledge(packet_id, kind=const.PUBCOMP)
    assert one.sent_messages() == []  # and the store knows
    assert not one.forwarder.shares_identifiers
    one.commit()
    sent = one.sent_messages()
    assert [(message.payload, message.packet_id) for message in sent] == [(b"a1", 2), (b"a2", 5), (b"n8", 22)]


def test_identifiers_are_shared_at_once_where_the_upstream_remembers_nothing() -> None:
    one = bridged(window=10, shares_identifiers=False)
    publish(one, "n", 1, 5)
    one.commit()
    one.queue.sent_before = one.queue.next_number
    publish(one, "a", 1, 1)
    one.connect(present=False)
    assert one.sent() == []
    one.commit()
    assert payloads(one.sent_messages()) == ["a1"]
    one.answer_reads()  # the rest is on disk by now
    assert [message.packet_id for message in one.sent_messages()] == [1, 4, 7, 10, 13]
