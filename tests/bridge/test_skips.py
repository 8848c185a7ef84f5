"""Numbers that policy let go are announced: whatever did not come is no gap, and nothing that came is called skipped."""

import logging

import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from bridge.config import BridgeConfig
from bridge.skips import queue_name, skipped_topic
from edge_broker.core.quota import DROP_NEWEST, KEEP_LATEST, Quota
from edge_broker.errors import ConfigError
from edge_broker.wire import const
from edge_broker.wire.encoder import encode_ack
from edge_broker.wire.packets import SubscriptionRequest
from tests.bridge.gateway_in_memory import LANE, SKIPPED, Gateway
from tests.bridge.memory import rule

RULES = [rule("state/#", keep_latest=True), rule("live/#", max_age_seconds=60.0), rule("#")]


def fill(gateway: Gateway) -> None:
    """Eight messages, of which five are not to be sent any more when the upstream is back."""
    gateway.publish("log", b"1")
    for payload in (b"2", b"3", b"4"):
        gateway.publish("state/a", payload)
    for payload in (b"5", b"6"):
        gateway.publish("live/a", payload)
    gateway.publish("log", b"7", expiry=10)
    gateway.publish("log", b"8")


@pytest.mark.parametrize("announces", [True, False])
def test_what_was_let_go_is_missing_unless_it_is_announced(announces: bool) -> None:
    gateway = Gateway(RULES, announces=announces)
    fill(gateway)
    gateway.commit()
    gateway.pass_time(61.0)
    gateway.commit()
    gateway.connect()
    gateway.run()
    assert gateway.missing() == ([] if announces else [(2, 4), (5, 8)])
    assert gateway.announced == ({2, 3, 5, 6, 7} if announces else set())
    assert gateway.acknowledged == {1, 4, 8}
    if gateway.skips is not None:
        assert (gateway.skips.announced, gateway.skips.waiting, gateway.skips.refused) == (5, 0, 0)


def test_a_crash_before_the_announcement_leaves_no_gap() -> None:
    """The messages are gone from the disk; so the announcement has to be there."""
    gateway = Gateway(RULES)
    fill(gateway)
    gateway.commit()
    gateway.publish("state/a", b"9")
    gateway.commit()
    gateway.boot()
    assert gateway.queue.acknowledged == {2, 3, 4}, "else the crash brought them back"
    gateway.connect()
    gateway.run()
    assert gateway.missing() == []
    assert gateway.announced == {2, 3, 4}


def test_what_never_touched_the_disk_is_announced_after_a_crash_too() -> None:
    """Superseded before its commit was due: its number was used, and later ones are on the disk."""
    gateway = Gateway(RULES)
    for _ in range(5):
        gateway.publish("state/a")
    gateway.commit()
    assert list(gateway.disk.messages[1]) == [5]
    gateway.publish("log")
    gateway.boot()
    gateway.connect()
    gateway.publish("log")
    gateway.run()
    assert gateway.announced == {1, 2, 3, 4}
    assert (gateway.missing(), gateway.acknowledged) == ([], {5, 6})


def test_announced_and_let_go_are_not_left_for_different_commits() -> None:
    """A batch that only a delay makes due leaves out queues whose messages are all young; this one must not be."""
    gateway = Gateway(RULES)
    gateway.publish("state/a")
    gateway.commit()
    gateway.pass_time(1.0)
    gateway.publish("state/a")
    sealed = gateway.pending.seal(waiting_since=0.0)
    assert {write.queue_id for write in sealed.batch.queues} == {1, 2}


def test_what_the_upstream_refuses_for_good_is_announced() -> None:
    gateway = Gateway([rule("#")])
    gateway.connect()
    for number in range(3):
        gateway.publish("a", b"%d" % number)
    first, second, third = gateway.sent()
    gateway.reach(first)
    gateway.answer(first)
    gateway.answer(second, const.NOT_AUTHORIZED)
    gateway.reach(third)
    gateway.answer(third)
    assert gateway.missing() == [(2, 3)]
    gateway.run()
    assert gateway.missing() == []
    assert gateway.announced == {2}


def test_what_a_full_queue_drops_is_announced() -> None:
    gateway = Gateway([rule("#")], quota=Quota(max_messages=3))
    gateway.publish("a")
    gateway.connect()
    gateway.run()
    gateway.disconnect()
    for _ in range(10):
        gateway.publish("a")
        gateway.commit()
    gateway.connect()
    gateway.run()
    assert gateway.missing() == []
    assert gateway.announced == set(range(2, 9))


def test_what_was_not_taken_has_no_number_to_announce() -> None:
    gateway = Gateway([rule("#")], quota=Quota(max_messages=3, when_full=DROP_NEWEST))
    for _ in range(10):
        gateway.publish("a")
    gateway.connect()
    gateway.run()
    assert (gateway.announced, gateway.acknowledged) == (set(), {1, 2, 3})


def test_numbers_are_gathered_for_a_second_and_for_longer_when_bytes_are_dear() -> None:
    gateway = Gateway([rule("#")])
    gateway.connect()
    gateway.pass_time(2.0)

    def announced_within(seconds: int) -> int:
        gateway.announcements = 0
        for _ in range(seconds):
            gateway.publish("a", expiry=1)
            gateway.queue.expire(
                gateway.queue.next_number - 1, gateway.queue.messages[gateway.queue.next_number - 1]
            )
            gateway.pass_time(1.0)
            for message in gateway.sent():
                gateway.answer(message)
        return gateway.announcements

    assert announced_within(120) > 60
    gateway.forwarder.withholds = "all"
    announced_within(1)
    assert announced_within(120) == 2


def test_without_anything_let_go_nothing_is_written_or_sent() -> None:
    gateway = Gateway(RULES)
    gateway.publish("log")
    gateway.commit()
    gateway.connect()
    gateway.run()
    assert gateway.announcements == 0
    assert gateway.skips is not None
    assert (gateway.record.queue, gateway.skips.waiting) == (None, 0)


# ---- the line


def test_one_is_on_its_way_at_a_time_under_an_identifier_of_its_own() -> None:
    gateway = Gateway(RULES)
    fill(gateway)
    gateway.connect()
    messages = gateway.sent()
    gateway.pass_time(1.0)
    (announcement,) = gateway.sent()
    assert announcement.topic == "edge/gw%2F1/skipped"
    assert announcement.packet_id not in {message.packet_id for message in messages}
    assert (announcement.qos, announcement.retain) == (1, False)
    gateway.publish("state/b")
    gateway.publish("state/b")
    gateway.pass_time(5.0)
    assert [message.topic for message in gateway.sent()] == ["state/b"], (
        "another announcement before the answer"
    )


def test_an_announcement_that_was_not_acknowledged_goes_again() -> None:
    gateway = Gateway(RULES)
    fill(gateway)
    gateway.connect()
    gateway.sent()
    gateway.pass_time(1.0)
    (first,) = gateway.sent()
    gateway.disconnect()
    gateway.commit()
    gateway.connect()
    gateway.run()
    assert msgspec.json.decode(first.payload)["ranges"] == [[2, 3]]
    assert gateway.announced == {2, 3}


def test_one_that_is_not_answered_ends_the_connection() -> None:
    gateway = Gateway(RULES)
    fill(gateway)
    gateway.connect()
    for message in gateway.sent():
        gateway.answer(message)
    gateway.pass_time(1.0)
    assert len(gateway.sent()) == 1
    gateway.now = gateway.router.now = gateway.now + 29.0
    assert not gateway.forwarder.is_overdue(gateway.now, False)
    assert not gateway.forwarder.is_overdue(gateway.now + 40.0, True), "still on its way out"
    assert not gateway.forwarder.is_overdue(gateway.now + 69.0, False)
    assert gateway.forwarder.is_overdue(gateway.now + 71.0, False)


def test_a_refused_one_is_counted_and_said_once(caplog: pytest.LogCaptureFixture) -> None:
    gateway = Gateway(RULES)
    gateway.connect()
    with caplog.at_level(logging.ERROR):
        for _ in range(2):
            fill(gateway)
            for message in gateway.sent():
                gateway.answer(message)
            gateway.pass_time(2.0)
            (announcement,) = gateway.sent()
            gateway.answer(announcement, const.NOT_AUTHORIZED)
    assert gateway.skips is not None
    assert (gateway.skips.refused, gateway.skips.announced, gateway.skips.waiting) == (4, 0, 0)
    (record,) = caplog.records
    assert "skipped_topic" in record.message


def test_one_that_the_upstream_has_no_room_for_goes_later() -> None:
    gateway = Gateway(RULES)
    fill(gateway)
    gateway.connect()
    for message in gateway.sent():
        gateway.answer(message)
    gateway.pass_time(1.0)
    (announcement,) = gateway.sent()
    gateway.answer(announcement, const.QUOTA_EXCEEDED)
    gateway.pass_time(30.0)
    assert gateway.sent() == []
    gateway.pass_time(31.0)
    (again,) = gateway.sent()
    assert again.payload == announcement.payload


def test_an_upstream_that_ends_connections_over_it_is_not_told_any_more(
    caplog: pytest.LogCaptureFixture,
) -> None:
    gateway = Gateway(RULES)
    fill(gateway)
    for _ in range(3):
        gateway.connect()
        for message in gateway.sent():
            gateway.answer(message)
        gateway.pass_time(1.0)
        assert [message.topic for message in gateway.sent()] == ["edge/gw%2F1/skipped"]
        gateway.disconnect()
    assert gateway.skips is not None
    assert gateway.skips.is_muted
    assert "skipped_topic" in caplog.text
    gateway.connect()
    gateway.run()
    assert (gateway.announced, gateway.skips.waiting > 0) == (set(), True)
    gateway.commit()
    gateway.disconnect()
    gateway.boot()
    gateway.connect()
    gateway.run()
    assert gateway.announced == {2, 3}, "it is kept, and tried again after a restart"


def test_a_subscription_is_waited_for_since_it_may_have_the_identifier() -> None:
    gateway = Gateway(RULES)
    fill(gateway)
    gateway.connect()
    assert gateway.client is not None
    gateway.client.subscribe(gateway.forwarder.free_packet_id, [SubscriptionRequest("a", 1)], gateway.now)
    assert len(gateway.sent()) == 6
    gateway.pass_time(2.0)
    assert gateway.sent() == []
    packet_id = gateway.forwarder.free_packet_id
    gateway.client._expected.clear()
    gateway.pass_time(1.0)
    (announcement,) = gateway.sent()
    assert announcement.packet_id == packet_id


def test_3_1_1_is_told_too() -> None:
    """What it carries in envelopes has numbers."""
    gateway = Gateway(RULES)
    fill(gateway)
    gateway.connect(const.MQTT_3_1_1)
    gateway.sent()
    gateway.pass_time(1.0)
    (announcement,) = gateway.sent()
    assert msgspec.json.decode(announcement.payload) == {"lane": "cloud-1", "epoch": 1, "ranges": [[2, 3]]}


@pytest.mark.parametrize("limit", [0, 400, 90])
def test_many_ranges_go_in_parts_that_the_upstream_takes(limit: int) -> None:
    gateway = Gateway([rule("state/#", keep_latest=True), rule("#")])
    for number in range(900):
        gateway.publish(f"state/{number}")
        gateway.publish("log")
    for number in range(900):
        gateway.publish(f"state/{number}")
    gateway.commit()
    gateway.connect(properties={const.MAXIMUM_PACKET_SIZE: limit} if limit else None)
    gateway.run()
    assert gateway.missing() == []
    assert gateway.announced == set(range(1, 1800, 2))


def test_one_that_is_too_large_even_in_parts_is_given_up() -> None:
    gateway = Gateway(RULES)
    fill(gateway)
    gateway.commit()
    gateway.connect(properties={const.MAXIMUM_PACKET_SIZE: 60})
    gateway.run()
    assert gateway.skips is not None
    assert (gateway.skips.refused, gateway.skips.waiting) == (2, 0)


def test_an_acknowledgement_of_nothing_changes_nothing() -> None:
    gateway = Gateway(RULES)
    fill(gateway)
    gateway.connect()
    gateway.sent()
    gateway.pass_time(1.0)
    (announcement,) = gateway.sent()
    assert gateway.client is not None
    gateway.client.receive(
        encode_ack(5, const.PUBACK, announcement.packet_id - 1000 & 0xFFFF, 0), gateway.now
    )
    assert gateway.skips is not None
    assert gateway.skips.announced == 0


# ---- a long outage


def test_a_long_outage_is_few_entries_and_few_ranges() -> None:
    gateway = Gateway([rule("#")], quota=Quota(max_messages=50))
    for _ in range(5_000):
        gateway.publish("a")
        gateway.commit()
    assert gateway.skipped_queue.depth <= 200
    assert len(gateway.disk.messages[SKIPPED]) <= 200
    assert len(gateway.skipped_queue.acknowledged or ()) <= 200
    gateway.connect()
    gateway.run()
    assert gateway.announced == set(range(1, 4951))
    assert gateway.announcements <= 3
    assert gateway.missing() == []


def test_entries_from_before_a_restart_are_merged_too() -> None:
    gateway = Gateway([rule("#")], quota=Quota(max_messages=5))
    for _ in range(10):
        for _ in range(70):
            gateway.publish("a")
            gateway.commit()
        gateway.boot()
    assert gateway.skipped_queue.depth <= 200
    gateway.connect()
    gateway.run()
    assert (gateway.missing(), gateway.announced) == ([], set(range(1, 696)))


def test_more_ranges_than_are_merged_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    """Every second message gives way, so that no range touches another: what is left is as much as it has to be."""
    monkeypatch.setattr("bridge.skip_record._MOST_MERGED", 1_000)
    gateway = Gateway([rule("#")], quota=Quota(max_messages=6_000, when_full=KEEP_LATEST))
    for number in range(6_000):
        gateway.publish(f"{number}")
    gateway.commit()
    for number in range(0, 6_000, 2):
        gateway.publish(f"{number}")
        if number % 10 == 0:
            gateway.commit()
    gateway.commit()
    assert gateway.skips is not None
    assert gateway.skips.waiting <= 300
    assert len(gateway.skipped_queue.acknowledged or ()) <= 10
    gateway.connect()
    gateway.run()
    assert gateway.missing() == []
    assert gateway.announced == set(range(1, 6_000, 2))


def test_a_store_that_cannot_read_its_entries_is_asked_another_time() -> None:
    gateway = Gateway([rule("#")], quota=Quota(max_messages=5))
    for _ in range(105):
        gateway.publish("a")
        sealed = gateway.pending.seal()
        for write in sealed.batch.queues:
            gateway.disk.write(write)
        sealed.settle()
    (lookup,) = gateway.pending.lookups
    gateway.pending.lookups = []
    lookup.take(None)
    gateway.publish("a")
    gateway.commit()
    assert gateway.skipped_queue.depth < 10


# ---- names


def test_a_gateways_name_is_one_level_of_the_topic() -> None:
    assert skipped_topic("edge/{gateway}/skipped", "a/b+#%") == "edge/a%2Fb%2B%23%25/skipped"
    assert skipped_topic("edge/{gateway}/skipped", "pi.7") == "edge/pi%2E7/skipped", "NATS takes no full stop"


def test_no_bridge_is_called_like_the_queue() -> None:
    with pytest.raises(ConfigError):
        BridgeConfig(urls=("mqtt://localhost",), name=queue_name("cloud-1a2b3c4d"))


# ---- whatever happens

STEPS = st.lists(
    st.sampled_from(
        [
            "state/a",
            "state/b",
            "live/a",
            "log",
            "log",
            "short",
            "commit",
            "connect",
            "run",
            "send",
            "cut",
            "crash",
            "time",
        ]
    ),
    max_size=60,
)


def follow(gateway: Gateway, steps: list[str]) -> bool:
    """Take `steps`; whether one of them was a crash."""
    for step in steps:
        match step:
            case "commit":
                gateway.commit()
            case "connect" if gateway.client is None:
                gateway.connect()
            case "run" if gateway.client is not None:
                gateway.run()
            case "send" if gateway.client is not None:
                for message in gateway.sent()[:2]:
                    gateway.reach(message)
                    gateway.answer(message)
                gateway.disconnect()  # the others are lost
            case "cut":
                for message in gateway.sent():
                    gateway.reach(message)  # and its acknowledgement is lost
                gateway.disconnect()
            case "crash":
                gateway.disconnect()
                gateway.boot()
            case "time":
                gateway.pass_time(45.0)
            case "short":
                gateway.publish("log", expiry=10)
            case "connect" | "run" | "send":
                pass
            case topic:
                gateway.publish(topic)
    return "crash" in steps


@settings(max_examples=300, deadline=None)
@given(STEPS)
def test_whatever_came_or_was_announced_is_all_there_is(steps: list[str]) -> None:
    gateway = Gateway(RULES, quota=Quota(max_messages=8))
    gateway.publish("first")
    gateway.connect()
    gateway.run()
    crashed = follow(gateway, steps)
    gateway.commit()
    if gateway.client is None:
        gateway.connect()
    gateway.run()
    highest = max([0, *(end for epoch in gateway.ingester.lanes[LANE].epochs.values() for _, end in epoch)])
    gateway.publish("last")
    while (
        gateway.queue.next_number <= highest
    ):  # a crash took numbers back: what used them was never on the disk
        gateway.publish("last")
    gateway.run()
    last = gateway.queue.next_number - 1
    assert gateway.missing() == []
    assert gateway.acknowledged | gateway.announced >= set(range(1, last + 1))
    if not crashed:
        assert not gateway.acknowledged & gateway.announced
