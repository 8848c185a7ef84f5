"""What a bridge is made of at its start: the queues that its rules want, those that the store has, and the store's word."""

from __future__ import annotations

from collections.abc import Sequence

import pytest

from bridge.config import BridgeConfig, RuleConfig
from bridge.forwarder import Forwarder
from bridge.lane_record import LaneRecord, read_record
from bridge.lanes import Lanes
from bridge.mapping import OutMapping
from bridge.packet_ids import SHARE, OwnPacketIds, SharedPacketIds
from bridge.priorities import HIGH, LOW, NORMAL
from bridge.way_up import WayUp, make_way_up
from edge_broker.core.pending import Pending
from edge_broker.core.router import Router
from edge_broker.core.settings import Settings
from edge_broker.wire.topics import TopicCache
from tests.bridge.memory import rule
from tests.pump.model_store import ModelStore

PLAIN = (rule("#"),)
URGENT = (rule("a/#", priority="high"), rule("#"))
ALL = (rule("z/#", priority="low"), *URGENT)


class Runs:
    """One data directory, and runs of a broker on it."""

    def __init__(self) -> None:
        self.store = ModelStore()

    def start(self, rules: Sequence[RuleConfig], name: str = "up") -> WayUp:
        snapshot = self.store.snapshot()
        self.pending = Pending(snapshot.epoch, 1000)
        router = Router(
            Settings(),
            self.pending,
            None,  # type: ignore[arg-type]
            str,
            TopicCache(),
            next_queue_id=snapshot.next_queue_id,
        )
        config = BridgeConfig(urls=("mqtt://h",), name=name, max_queue_age_seconds=60)
        dice = iter((0.1, 0.2, 0.3))
        return make_way_up(config, OutMapping(rules), router, snapshot, lambda: next(dice), lambda *_: None)

    def commit(self) -> None:
        sealed = self.pending.seal()
        self.store.apply(sealed.batch)
        sealed.settle()


def test_a_bridge_with_one_priority_is_one_queue_as_it_always_was() -> None:
    runs = Runs()
    way = runs.start(PLAIN)
    runs.commit()
    assert isinstance(way.uplink, Forwarder)
    assert isinstance(way.uplink.packet_ids, OwnPacketIds)
    assert (set(way.queues), set(runs.store.outboxes)) == ({NORMAL}, {"up"})
    assert "/" not in runs.store.lanes["up"]
    assert (way.is_new, way.is_fresh) == (True, True)
    assert not runs.start(PLAIN).is_fresh


def test_a_rule_of_another_priority_makes_its_queue_and_no_other() -> None:
    runs = Runs()
    way = runs.start(URGENT)
    runs.commit()
    assert isinstance(way.uplink, Lanes)
    assert set(runs.store.outboxes) == {"up", "up!high"}
    assert len(set(way.names.values())) == 2
    assert way.names[HIGH].startswith("up!high-")
    assert all(queue.max_age_seconds == 60 for queue in way.queues.values())
    again = runs.start(URGENT)
    assert again.names == way.names
    assert not again.is_fresh


def test_at_qos_0_a_priority_makes_no_queue() -> None:
    assert set(Runs().start((rule("a/#", 0, priority="high"), rule("#"))).queues) == {NORMAL}


def test_a_priority_that_no_rule_has_any_more_keeps_its_queue() -> None:
    runs = Runs()
    runs.start(ALL)
    runs.commit()
    way = runs.start(PLAIN)
    assert set(way.queues) == {HIGH, NORMAL, LOW}
    assert isinstance(way.uplink, Lanes)


def test_that_identifiers_are_shared_is_the_stores_word() -> None:
    runs = Runs()
    runs.start(PLAIN)
    runs.commit()
    way = runs.start(URGENT)
    assert isinstance(way.uplink, Lanes)
    assert not way.uplink.shares_identifiers
    assert way.uplink._keep_word is not None
    shared: list[str] = []
    way.uplink._keep_word(lambda: shared.append("done"))
    assert not shared
    runs.commit()
    assert shared
    part = runs.store.lanes["up"].partition("/")[0]
    assert runs.store.lanes["up"] == f"{part}/high"
    again = runs.start(URGENT)
    assert isinstance(again.uplink, Lanes)
    assert again.uplink.shares_identifiers
    assert all(isinstance(lane.packet_ids, SharedPacketIds) for lane in again.forwarders.values())
    assert all(queue.span == SHARE for queue in again.queues.values())
    assert again.names[NORMAL] == f"up-{part}"


def test_a_lane_that_comes_later_is_in_the_stores_word_too() -> None:
    runs = Runs()
    _share(runs, URGENT)
    runs.start(ALL)
    runs.commit()
    assert runs.store.lanes["up"].endswith("/high+low")
    assert not runs.start(PLAIN).is_fresh
    runs.commit()
    assert runs.store.lanes["up"].endswith("/high+low")


@pytest.mark.parametrize("lost", ["up", "up!high"])
def test_where_a_queue_was_lost_the_upstreams_memory_means_nothing(lost: str) -> None:
    runs = Runs()
    _share(runs, ALL)
    del runs.store.outboxes[lost]
    del runs.store.lanes[lost]
    way = runs.start(ALL)
    assert way.is_fresh
    assert way.is_new == (lost == "up")


def _share(runs: Runs, rules: Sequence[RuleConfig]) -> None:
    uplink = runs.start(rules).uplink
    assert isinstance(uplink, Lanes)
    assert uplink._keep_word is not None
    uplink._keep_word(lambda: None)
    runs.commit()


def test_bridges_have_lanes_of_their_own() -> None:
    runs = Runs()
    for name in ("up", "other"):
        runs.start(URGENT, name)
        runs.commit()
    assert set(runs.store.outboxes) == {"up", "up!high", "other", "other!high"}
    assert len(set(runs.store.outboxes.values())) == 4


@pytest.mark.parametrize(
    ("text", "record"),
    [
        ("", LaneRecord("", None)),
        ("1a2b", LaneRecord("1a2b", None)),
        ("1a2b/high", LaneRecord("1a2b", frozenset({HIGH}))),
        ("1a2b/high+low", LaneRecord("1a2b", frozenset({HIGH, LOW}))),
    ],
)
def test_what_the_store_says_reads_as_it_was_written(text: str, record: LaneRecord) -> None:
    snapshot = ModelStore().snapshot()
    snapshot.lanes["up"] = text
    assert read_record("up", snapshot) == record
    assert str(record) == text
