"""Lanes with envelopes and announcements, and an ingester behind them: each message is there once, and none is missing.

The machine of `test_lanes_machine`, whose upstream gives what comes to an ingester's windows. The lease comes and goes, the
clock runs, messages grow too old or give way to others, and with poison the upstream refuses some for good.
"""

from __future__ import annotations

import random
from typing import Any

import pytest
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import initialize, invariant, precondition, rule

from bridge.config import BridgeConfig, RuleConfig
from bridge.envelope import Enclosed, EnvelopeReader
from bridge.envelopes_config import EnvelopesConfig
from bridge.enveloping import make_lease_watch, pack_lanes
from bridge.ingest.lease import LeaseWriter
from bridge.ingest.unpacking import new_messages, read_plain, read_skipped
from bridge.mapping import InMapping
from bridge.marking import make_marks
from bridge.priorities import NORMAL
from bridge.skips import announce_skips
from bridge.windows import LaneKey, Windows
from edge_broker.core.message import Message
from edge_broker.core.quota import Quota
from edge_broker.wire import const
from edge_broker.wire.encoder import encode_ack, encode_suback
from edge_broker.wire.packets import Packet, Subscribe, SubscriptionRequest
from tests.bridge.test_lanes_machine import LanesMachine, Upstream

ENVELOPES, SKIPPED = "edge/gw/envelopes", "edge/gw/skipped"


def _rules(letter: str, priority: Any) -> list[RuleConfig]:
    """Of QoS 1 and 2, one that goes plain, one with an age."""
    settings = {"priority": priority, "ingested": True}
    return [
        RuleConfig(filter=f"{letter}1", **settings),
        RuleConfig(filter=f"{letter}2", qos=2, **settings),
        RuleConfig(filter=f"{letter}3", envelope=False, **settings),
        RuleConfig(filter=f"{letter}4", max_age_seconds=20, **settings),
    ]


NORMAL_ONLY = _rules("n", "normal")
WITH_HIGH = [*_rules("a", "high"), *NORMAL_ONLY]
ALL = [*_rules("z", "low"), *WITH_HIGH]


class Ingested(Upstream):
    """An upstream with an ingester beside it. `has_poison`: it refuses some messages for good, and envelopes with them."""

    def __init__(self, version: int, has_poison: bool) -> None:
        super().__init__()
        self.version = version
        self.has_poison = has_poison
        self.windows = Windows()
        self.reader = EnvelopeReader()
        self.is_busy = False

    def take(self, message: Message) -> bytes:
        reason_code = const.QUOTA_EXCEEDED if self.is_busy else 0
        if not reason_code and self._is_poisoned(message) and message.packet_id not in self.received:
            reason_code = const.PAYLOAD_FORMAT_INVALID
        if reason_code:
            kind = const.PUBACK if message.qos == 1 else const.PUBREC
            return encode_ack(self.version, kind, message.packet_id, reason_code)
        return super().take(message)

    def _is_poisoned(self, message: Message) -> bool:
        if not self.has_poison or message.topic == SKIPPED:
            return False
        found = [message.payload]
        if message.topic == ENVELOPES:
            found = [one.payload for one in self.reader.open(message.payload).messages]
        return any(is_poison(int(payload)) for payload in found)

    def _keep(self, message: Message) -> None:
        if message.topic == ENVELOPES:
            for one in new_messages(self.windows, self.reader.open(message.payload)):
                self._note(one)
        elif message.topic == SKIPPED:
            skipped = read_skipped(message.payload)
            assert skipped is not None
            for first, last in skipped.ranges:
                self.windows.skip(LaneKey("gw", skipped.lane), first, last + 1)
        else:
            origin, one = read_plain(message)
            assert origin is not None, "plain, and nobody knows which it is"
            if self.windows.take(LaneKey(origin.gateway, origin.lane), origin.epoch, origin.sequence):
                self._note(one)

    def _note(self, one: Enclosed) -> None:
        self.arrived.setdefault(one.topic, []).append(int(one.payload))


def is_poison(number: int) -> bool:
    return number % 11 == 5


class IngestedLanes(LanesMachine):
    """`gives_way`: the queues hold little."""

    configurations = (NORMAL_ONLY, WITH_HIGH, ALL)
    upstream: Ingested

    @initialize(
        window=st.sampled_from((1, 2, 5, 40)),
        version=st.sampled_from((const.MQTT_5, const.MQTT_5, const.MQTT_3_1_1)),
        enabled=st.sampled_from((True, True, True, False)),
        has_poison=st.booleans(),
        gives_way=st.booleans(),
    )
    def start(  # type: ignore[override]
        self, window: int, version: int, enabled: bool, has_poison: bool, gives_way: bool
    ) -> None:
        self.version = version
        self.envelopes = EnvelopesConfig(enabled=enabled, max_messages=4, max_bytes=1024, delay_ms=500)
        self.has_poison = has_poison and version >= const.MQTT_5
        self.quota = Quota(15) if gives_way else Quota()
        self.gives_way = gives_way
        if gives_way:  # of QoS 2 what was sent before a crash too: then its identifier stays behind upstream
            self.configurations = (ALL,)
        self.now = 1000.0
        super().start(window)

    def _begin(self) -> None:
        if not hasattr(self, "upstream") or not isinstance(self.upstream, Ingested):
            self.upstream = Ingested(self.version, self.has_poison)
        super()._begin()
        way = self.way
        config = BridgeConfig(urls=("mqtt://h",), name="up", gateway="gw", envelopes=self.envelopes)
        self.watch = make_lease_watch(config, InMapping(()))
        others = [priority for priority in way.names if priority != NORMAL]
        epoch = self.pending.epoch
        marks = make_marks(config, way.names[NORMAL], epoch, [way.names[one] for one in others])
        stamps = {NORMAL: marks.up, **dict(zip(others, marks.others, strict=True))}
        for priority, forwarder in way.forwarders.items():
            forwarder.stamp = stamps[priority]
            forwarder.latest = self.outbox.latest[priority]
            announce_skips(config, forwarder, self.router, self.snapshot, way.names[priority])
        pack_lanes(config, way, epoch, self.watch, _never)

    # ---- the clock, and the lease

    @rule(seconds=st.sampled_from((0.2, 1.0, 1.0, 15.0)))
    def wait(self, seconds: float) -> None:
        self.now = self.router.now = self.now + seconds
        if self.client is not None and self.way.uplink.is_overdue(self.now, False):
            self.cut()

    @precondition(lambda self: self.client is not None and self.watch is not None)
    @rule(seconds=st.sampled_from((1, 3600, 3600)))
    def announce(self, seconds: int) -> None:
        self._hear(LeaseWriter("t", "in", seconds, ()).announcement(const.MQTT_3_1_1, 0.0))

    @precondition(lambda self: self.client is not None and self.watch is not None)
    @rule()
    def withdraw(self) -> None:
        self._hear(b"")

    def _hear(self, payload: bytes) -> None:
        assert self.watch is not None
        self.watch.lease.on_announcement(payload, False, None, self.now, 0.0)

    @precondition(lambda self: self.client is not None and self.version >= const.MQTT_5)
    @rule()
    def be_busy(self) -> None:
        """The upstream takes what comes from now on another time."""
        self.upstream.is_busy = True

    @precondition(lambda self: self.client is not None)
    @rule()
    def leave(self) -> None:
        """As a stop does it: what gathers goes, if there is room."""
        self.way.uplink.close_window()
        self.no_more_are_on_the_way_than_the_window_allows()
        self.send()
        self.cut()

    # ---- the line

    @precondition(lambda self: self.client is None)
    @rule(forgets=st.sampled_from((False, False, False, True)))
    def connect(self, forgets: bool) -> None:
        self.upstream.is_busy = False
        super().connect(forgets)
        client, uplink = self.client, self.way.uplink
        assert client is not None
        if self.watch is not None:
            self.watch.attach(client, uplink.spare_packet_id, self.now)
        client.subscribe(uplink.free_packet_id, [SubscriptionRequest("c/#", 1)], self.now)

    def arrive(self, packet: Packet) -> None:
        if isinstance(packet, Subscribe):
            self.take_identifier(packet.packet_id, "SUBSCRIBE")
            self.answers.append(encode_suback(self.version, packet.packet_id, [0]))
        else:
            super().arrive(packet)

    @rule()
    def read(self) -> None:
        super().read()
        lookups, self.pending.lookups = self.pending.lookups, []
        for lookup in lookups:
            lookup.take(self.disk.read_page(lookup.queue_id, lookup.from_number, 7))

    def on_suback(self, packet_id: int, reason_codes: list[int]) -> None:
        del self.on_the_way[packet_id]
        if self.watch is not None:
            self.watch.on_suback(packet_id, reason_codes)

    def on_pubrec(self, packet_id: int, reason_code: int) -> None:
        if reason_code >= 0x80:
            del self.on_the_way[packet_id]
        super().on_pubrec(packet_id, reason_code)

    def on_given_up(self, reason: str, topic: str) -> None:
        assert self.has_poison, (reason, topic)

    def on_retreat(self, reason_code: int) -> None:
        assert reason_code == const.QUOTA_EXCEEDED
        self.cut()

    # ---- what has to be true

    @invariant()
    def no_more_are_on_the_way_than_the_window_allows(self) -> None:
        packets = sum(one.packets_in_flight for one in self.way.forwarders.values())
        assert self.client is None or packets <= self.window

    @invariant()
    def each_topic_keeps_its_order_and_qos_2_comes_once(self) -> None:
        """All of them once.

        What an envelope falls apart for comes behind what was sent before that was known. And a crash brings back what had
        given way, or grown too old, and was not committed as such; later ones may have been sent by then.
        """
        may_come_late = self.has_poison or self.gives_way
        for topic, arrived in self.upstream.arrived.items():
            assert len(set(arrived)) == len(arrived), f"{topic}: twice"
            assert may_come_late or topic[1] == "4" or arrived == sorted(arrived), f"{topic}: out of order"

    def teardown(self) -> None:
        if not hasattr(self, "way"):
            return
        if self.client is not None:
            self.cut()
        self.crash_and_change(1)
        self._overtake_what_went_with_a_crash()
        self.connect(False)
        for turn in range(600):
            self.commit()
            self.read()
            self.send()
            self.answer(100) if self.answers else None
            self.wait(1.0 if turn > 400 else 0.1)
            if self.client is None:
                self.connect(False)
            if not self.way.uplink.depth and not self._announcing():
                break
        assert self.way.uplink.depth == 0, "it does not drain"
        assert not self._announcing(), "it does not announce"
        self.each_topic_keeps_its_order_and_qos_2_comes_once()
        self._check_that_nothing_is_missing()

    def _announcing(self) -> int:
        return sum(one.skips.waiting for one in self.way.forwarders.values() if one.skips is not None)

    def _overtake_what_went_with_a_crash(self) -> None:
        """Numbers that were never on the disk are given out again; until then they look missing."""
        lanes = self.upstream.windows.lanes
        self.quota = Quota()
        self._begin()
        for priority, queue in self.way.queues.items():
            lane = lanes.get(LaneKey("gw", self.way.names[priority]))
            known = (
                0
                if lane is None
                else max(end for seen in (*lane.epochs.values(), lane.past) for _, end in seen)
            )
            self.publish_of("naz"[priority] + "1", max(1, known - queue.next_number + 1))

    def _check_that_nothing_is_missing(self) -> None:
        for key, lane in self.upstream.windows.lanes.items():
            assert lane.gaps() == [], key
        assert {key.lane for key in self.upstream.windows.lanes} <= {*self.way.names.values()}
        if self.gives_way:
            return
        for topic, numbers in self.safe.items():
            if topic[1] != "4":
                wanted = {number for number in numbers if not (self.has_poison and is_poison(number))}
                assert wanted <= set(self.upstream.arrived.get(topic, ())), f"lost of {topic}"


def _never(*what: object) -> None:
    raise AssertionError(what)


IngestedLanes.TestCase.settings = settings(
    max_examples=60, stateful_step_count=40, deadline=None, suppress_health_check=list(HealthCheck)
)
test_lanes_and_an_ingester_keep_their_promises = IngestedLanes.TestCase


@pytest.mark.parametrize("seed", range(40))
def test_lanes_and_an_ingester_keep_their_promises_on_long_walks(seed: int) -> None:
    """What Hypothesis rarely comes to: much under way when the broker dies, and dies again."""
    dice = random.Random(seed)
    machine = IngestedLanes()
    machine.start(
        dice.choice((1, 3, 40)),
        dice.choice((const.MQTT_5, const.MQTT_3_1_1)),
        dice.random() < 0.8,
        dice.random() < 0.3,
        dice.random() < 0.4,
    )
    steps = {
        "publish": 40,
        "carry": 30,
        "send": 20,
        "answer": 20,
        "wait": 15,
        "announce": 6,
        "withdraw": 2,
        "be_busy": 2,
        "leave": 2,
        "cut": 4,
        "crash": 5,
    }
    for step in range(150):
        walk(machine, dice, dice.choices([*steps], [*steps.values()])[0], step)
        machine.each_topic_keeps_its_order_and_qos_2_comes_once()
        machine.no_more_are_on_the_way_than_the_window_allows()
    machine.teardown()


def walk(machine: IngestedLanes, dice: random.Random, what: str, step: int) -> None:
    """One step, where it can be done."""
    if what == "publish":
        machine.publish_of(dice.choice(machine.topics), dice.randint(1, 8))
    elif what == "carry":
        machine.carry(dice.randint(1, 3), dice.choice((0, 0, 3, 30)))
    elif what == "crash":
        machine.crash_and_change(1 if step > 40 and dice.random() < 0.3 else 0)
    elif what == "wait":
        machine.wait(dice.choice((0.2, 1.0, 1.0, 15.0)))
    elif machine.client is None or (what == "answer" and not machine.answers):
        return
    elif what == "answer":
        machine.answer(dice.randint(1, 10))
    elif what == "announce":
        if machine.watch is not None:
            machine.announce(dice.choice((1, 3600)))
    elif what == "withdraw":
        if machine.watch is not None:
            machine.withdraw()
    elif what != "be_busy" or machine.version >= const.MQTT_5:
        getattr(machine, what)()
