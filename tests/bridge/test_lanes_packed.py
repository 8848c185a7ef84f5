"""Lanes whose messages go in envelopes, and whose numbers are announced where they will not come, in memory."""

from __future__ import annotations

import pytest

from bridge.config import BridgeConfig
from bridge.ingest.unpacking import read_skipped
from bridge.priorities import HIGH, LOW, NORMAL
from bridge.skips import announce_skips
from edge_broker.core.message import Message
from edge_broker.core.ops import Snapshot
from edge_broker.core.quota import DROP_OLDEST, Quota
from edge_broker.wire import const
from edge_broker.wire.encoder import encode_suback
from edge_broker.wire.packets import SubscriptionRequest
from tests.bridge.memory import rule
from tests.bridge.packed import LANES, TOPIC, Packed, opened

SKIPPED = "edge/gw/skipped"
PLACES = {NORMAL: 1, HIGH: 2, LOW: 3}
"""The packet identifier of each lane's first message."""


def packed(qos: int = 1, **more: object) -> Packed:
    """`n/2` goes at QoS 2 in any case, `a/plain` never in an envelope."""
    rules = [
        rule("a/plain", qos, priority="high", envelope=False),
        rule("a/#", qos, priority="high"),
        rule("z/#", qos, priority="low"),
        rule("n/2", 2),
        rule("#", qos),
    ]
    return Packed(rules, **more)  # type: ignore[arg-type]


def announcing(**more: object) -> Packed:
    """One that announces what will not come."""
    one = packed(**more)  # type: ignore[arg-type]
    config = BridgeConfig(urls=("mqtt://h",), gateway="gw")
    nothing = Snapshot(1, [], [], {}, {}, [], [], 1)
    for priority, forwarder in one.forwarders.items():
        announce_skips(config, forwarder, one.router, nothing, LANES[priority])
    return one


def publish(to: Packed, *topics: str) -> None:
    for topic in topics:
        to.publish(topic, topic.encode())


def read(messages: list[Message]) -> list[tuple[str, list[int]]]:
    """Each packet: the lane of an envelope, or the topic, and the numbers in it."""
    found = []
    for message in messages:
        if message.topic == TOPIC:
            envelope = opened(message)
            found.append((envelope.lane, [one.sequence for one in envelope.messages]))
        else:
            found.append((message.topic, []))
    return found


def sent(by: Packed) -> list[tuple[str, list[int]]]:
    return read(by.sent_messages())


# ---- envelopes


def test_each_lane_has_envelopes_of_its_own_and_an_answer_is_for_one_of_them() -> None:
    one = packed()
    one.connect_with_lease()
    publish(one, "z/1", "n/1", "z/2", "n/3")
    assert sent(one) == []
    assert one.forwarder.in_flight == 0
    one.later(1.0)
    messages = one.sent_messages()
    assert read(messages) == [(LANES[NORMAL], [1, 2]), (LANES[LOW], [1, 2])]
    assert [message.packet_id for message in messages] == [PLACES[NORMAL], PLACES[LOW]]
    one.acknowledge(PLACES[LOW])
    assert {priority: queue.depth for priority, queue in one.queues.items()} == {NORMAL: 2, HIGH: 0, LOW: 0}
    one.acknowledge(PLACES[NORMAL])
    assert (one.forwarder.depth, one.forwarder.acknowledged) == (0, 4)


def test_what_is_urgent_waits_for_no_others() -> None:
    one = packed()
    one.connect_with_lease()
    publish(one, "n/1", "a/1")
    assert sent(one) == [(LANES[HIGH], [1])]
    publish(one, "a/1", "a/2", "n/3")
    assert sent(one) == [(LANES[HIGH], [2, 3])], "what is there together goes together"
    publish(one, "a/plain")
    assert sent(one) == [("a/plain", [])]
    one.later(1.0)
    assert sent(one) == [(LANES[NORMAL], [1, 2])]


def test_it_is_packets_that_the_window_counts_and_one_is_kept_for_what_is_urgent() -> None:
    one = packed(window=4, max_messages=10)
    one.connect_with_lease()
    publish(one, *["n/1"] * 200)
    messages = one.sent_messages()
    assert [numbers[0] for _, numbers in read(messages)] == [1, 11, 21]
    assert (one.forwarder.in_flight, one.forwarder.depth) == (30, 200)
    publish(one, *["a/1"] * 3)
    assert sent(one) == [(LANES[HIGH], [1, 2, 3])]
    publish(one, "a/1")
    assert sent(one) == []
    one.acknowledge(messages[0].packet_id)
    assert sent(one) == [(LANES[HIGH], [4])]
    one.acknowledge(messages[1].packet_id)
    assert [numbers[0] for _, numbers in sent(one)] == [31], "no place is kept for what has one"


def test_what_gathers_takes_no_place_in_the_window() -> None:
    one = packed(window=2, max_messages=3)
    one.connect_with_lease()
    publish(one, "n/1", "n/1")
    assert sent(one) == []
    publish(one, *["z/1"] * 3)
    assert sent(one) == [(LANES[LOW], [1, 2, 3])]
    one.later(1.0)
    assert sent(one) == [], "there is no room"
    assert one.forwarder.pause_seconds == 0, "an acknowledgement is what it waits for"
    one.acknowledge(PLACES[LOW])
    assert sent(one) == [(LANES[NORMAL], [1, 2])]


def test_lanes_take_turns_by_packets() -> None:
    one = packed(window=1000, max_messages=2)
    publish(one, *["z/1"] * 100, *["n/1"] * 100, *["a/1"] * 200)
    one.connect_with_lease()
    lanes = [lane for lane, _ in sent(one)]
    assert len(lanes) == 200
    first = lanes[:74]
    assert {lane: first.count(lane) for lane in LANES.values()} == {
        LANES[HIGH]: 64,
        LANES[NORMAL]: 8,
        LANES[LOW]: 2,
    }


def test_one_turn_takes_no_more_messages_than_its_budget() -> None:
    one = packed(window=1000, max_messages=500)
    publish(one, *["z/1"] * 3000, *["n/1"] * 3000)
    one.connect_with_lease()
    assert one.forwarder.send_due()
    taken = sum(queue.cursor - 1 for queue in one.queues.values())
    assert 2000 <= taken < 4000


def test_the_pause_is_until_the_first_of_the_lanes_has_waited() -> None:
    one = packed(delay_ms=1000)
    one.connect_with_lease()
    publish(one, "z/1")
    one.sent()
    one.later(0.4)
    publish(one, "n/1")
    one.sent()
    assert one.forwarder.pause_seconds == pytest.approx(0.6)
    one.later(0.6)
    assert sent(one) == [(LANES[LOW], [1])]
    assert one.forwarder.pause_seconds == pytest.approx(0.4)
    one.later(0.4)
    assert sent(one) == [(LANES[NORMAL], [1])]
    assert one.forwarder.pause_seconds == 0


def test_all_wait_for_the_lease_and_then_go_plain() -> None:
    one = packed()
    assert one.lease is not None
    one.lease.forget()
    one.connect()
    publish(one, "z/1", "n/1", "a/1")
    assert sent(one) == []
    assert one.forwarder.pause_seconds == pytest.approx(1.0)
    one.later(1.0)
    assert [topic for topic, _ in sent(one)] == ["a/1", "n/1", "z/1"]


def test_when_the_lease_ends_what_gathered_in_any_lane_goes_plain() -> None:
    one = packed()
    one.connect_with_lease()
    publish(one, "z/1", "n/1", "z/2", "n/1")
    assert sent(one) == []
    one.withdraw()
    assert sorted(topic for topic, _ in sent(one)) == ["n/1", "n/1", "z/1", "z/2"]


def test_closing_sends_what_gathers_and_keeps_the_window() -> None:
    one = packed(window=2)
    one.connect_with_lease()
    publish(one, "z/1", "n/1", "a/plain")
    assert sent(one) == [("a/plain", [])]
    publish(one, "a/plain", "n/1")
    one.forwarder.close_window()
    assert sent(one) == [(LANES[NORMAL], [1])], "there is room for one of the two that gather"
    one.acknowledge(PLACES[NORMAL], PLACES[HIGH])
    assert sent(one) == [], "nothing new"


def test_an_upstream_that_takes_no_envelopes_takes_none_of_any_lane() -> None:
    one = packed(max_messages=2)
    one.connect_with_lease()
    publish(one, "z/1", "z/1", "n/1", "n/1")
    first, second = one.sent_messages()
    publish(one, "n/3", "z/3", "a/3")
    one.acknowledge(first.packet_id, second.packet_id, reason_code=const.NOT_AUTHORIZED)
    assert sorted(topic for topic, _ in sent(one)) == ["a/3", "n/1", "n/1", "n/3", "z/1", "z/1", "z/3"]
    assert one.refusals == ["not authorized"], "said once"


# ---- identifiers that were one queue's own


def half_way() -> Packed:
    """A bridge of one queue until now, connected to an upstream that has a message of it half-way at QoS 2."""
    one = announcing(shares_identifiers=False, delay_ms=60_000)
    one.publish("n/2", b"", 2)
    one.commit()
    one.queue.sent_before = one.packing.plain_below = one.queue.next_number  # as after a restart
    one.connect_with_lease()
    one.sent()
    one.answer_reads()
    return one


def test_what_gathers_while_lanes_wait_leaves_before_they_share() -> None:
    one = half_way()
    publish(one, "n/1", "z/1", "a/1")
    messages = one.sent_messages()
    assert [(message.topic, message.packet_id) for message in messages] == [("n/2", 1)]
    one.acknowledge(1, kind=const.PUBREC)
    one.commit()
    one.acknowledge(1, kind=const.PUBCOMP)
    assert sent(one) == [(LANES[NORMAL], [2])], "nobody else may send before it is out"
    one.acknowledge(2)
    assert sent(one) == []
    one.commit()
    assert sent(one) == [(LANES[HIGH], [1])]
    assert one.forwarder.shares_identifiers


def test_lanes_do_not_share_while_a_subscription_is_unanswered() -> None:
    one = packed(shares_identifiers=False)
    one.connect_with_lease()
    one.client.subscribe(one.forwarder.free_packet_id, [SubscriptionRequest("c", 1)], one.router.now)
    publish(one, "a/1")
    one.commit()
    assert sent(one) == []
    one.commit()
    assert not one.forwarder.shares_identifiers, "the identifier could be a lane's then"
    one.receive(encode_suback(const.MQTT_5, one.forwarder.free_packet_id, [1]))
    assert sent(one) == [(LANES[HIGH], [1])]


def test_identifiers_for_subscriptions_are_nobodys() -> None:
    one = packed()
    one.connect_with_lease()
    publish(one, *["z/1", "n/1", "a/1"] * 20)
    one.later(1.0)
    ids = [message.packet_id for message in one.sent_messages()]
    ids += [forwarder.free_packet_id for forwarder in one.forwarders.values()]
    ids.append(one.forwarder.spare_packet_id)
    assert len(set(ids)) == len(ids)


# ---- what will not come


def announced(messages: list[Message]) -> dict[str, tuple[int, list[tuple[int, int]]]]:
    """The packet identifier and the ranges of each announcement, by lane."""
    found = {}
    for message in messages:
        skipped = read_skipped(message.payload)
        assert message.topic == SKIPPED
        assert skipped is not None
        found[skipped.lane] = (message.packet_id, skipped.ranges)
    return found


def test_each_lane_announces_its_own_numbers() -> None:
    one = announcing()
    one.connect_with_lease()
    for forwarder in one.forwarders.values():
        forwarder.withholds = "all"
    publish(one, "z/1", "z/1", "n/1", "a/1", "a/1", "a/1")
    assert sent(one) == []
    one.forwarder.is_overdue(one.router.now, False)
    told = announced(one.sent_messages())
    assert {lane: ranges for lane, (_, ranges) in told.items()} == {
        LANES[HIGH]: [(1, 3)],
        LANES[NORMAL]: [(1, 1)],
        LANES[LOW]: [(1, 2)],
    }
    assert len({packet_id for packet_id, _ in told.values()}) == 3
    one.acknowledge(told[LANES[LOW]][0])
    skips = {priority: forwarder.skips for priority, forwarder in one.forwarders.items()}
    assert {priority: one.announced for priority, one in skips.items() if one is not None} == {
        NORMAL: 0,
        HIGH: 0,
        LOW: 2,
    }
    one.acknowledge(told[LANES[HIGH]][0], told[LANES[NORMAL]][0])
    assert [one.waiting for one in skips.values() if one is not None] == [0, 0, 0]


def test_what_gives_way_is_announced_for_its_lane() -> None:
    one = announcing(quota=Quota(3, 0, DROP_OLDEST))
    publish(one, "z/1", "z/1", "n/1", "a/1", "a/1")
    one.connect_with_lease()
    one.forwarder.is_overdue(one.router.now, False)
    told = [message for message in one.sent_messages() if message.topic == SKIPPED]
    assert {lane: ranges for lane, (_, ranges) in announced(told).items()} == {LANES[LOW]: [(1, 2)]}


def test_nothing_is_announced_before_lanes_share_identifiers() -> None:
    one = half_way()
    one.forwarders[HIGH].queue.tell_skipped(7)
    one.forwarder.is_overdue(one.router.now, False)
    assert [message.topic for message in one.sent_messages()] == ["n/2"]
    one.acknowledge(1, kind=const.PUBREC)
    one.commit()
    one.acknowledge(1, kind=const.PUBCOMP)
    one.sent()
    one.commit()
    one.sent()
    assert one.forwarder.shares_identifiers
    one.forwarder.is_overdue(one.router.now, False)
    assert announced(one.sent_messages())[LANES[HIGH]][1] == [(7, 7)]
