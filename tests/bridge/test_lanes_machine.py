"""Lanes against an upstream that remembers, in every order of events: nothing is lost, QoS 2 comes once, topics keep order.

The machine publishes, commits, connects, cuts, acknowledges, crashes and changes the configuration: priorities appear while
messages are under way. The upstream keeps its session, as MQTT has it: it knows which identifiers of QoS 2
it was given, and takes a second message under one of them for the first. At the end all is drained.
"""

from __future__ import annotations

import random
from collections import deque
from collections.abc import Sequence

import pytest
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

from bridge.config import BridgeConfig, RuleConfig
from bridge.mapping import OutMapping
from bridge.outbox import Outbox
from bridge.priorities import NORMAL
from bridge.way_up import make_way_up
from edge_broker.core.client import Client
from edge_broker.core.message import Message, build_message
from edge_broker.core.ops import Page
from edge_broker.core.pending import Pending, Sealed
from edge_broker.core.quota import Quota
from edge_broker.core.router import Router
from edge_broker.core.settings import Settings
from edge_broker.wire import const
from edge_broker.wire.decoder import Decoder
from edge_broker.wire.encoder import encode_ack, encode_connack
from edge_broker.wire.packets import Ack, Connect, Packet
from edge_broker.wire.topics import TopicCache
from tests.pump.model_store import ModelStore

NORMAL_ONLY = (RuleConfig(filter="n1"), RuleConfig(filter="n2", qos=2))
WITH_HIGH = (
    RuleConfig(filter="a1", priority="high"),
    RuleConfig(filter="a2", qos=2, priority="high"),
    *NORMAL_ONLY,
)
WITH_LOW = (
    RuleConfig(filter="z1", priority="low"),
    RuleConfig(filter="z2", qos=2, priority="low"),
    *NORMAL_ONLY,
)
CONFIGURATIONS = (NORMAL_ONLY, WITH_HIGH, (*WITH_LOW, *WITH_HIGH))
"""Each may follow itself or one before it: a topic's rule has one priority for ever, so its order is promised."""


class Upstream:
    """What outlives connections: its session of ours, and what it was given."""

    def __init__(self) -> None:
        self.received: set[int] = set()  # identifiers of QoS 2 whose PUBREL has not come
        self.arrived: dict[str, list[int]] = {}
        self.has_session = False

    def take(self, message: Message) -> bytes:
        """A PUBLISH came; the answer to it."""
        if message.qos == 1:
            self._keep(message)
            return encode_ack(const.MQTT_5, const.PUBACK, message.packet_id, 0)
        if message.packet_id not in self.received:
            self.received.add(message.packet_id)
            self._keep(message)
        return encode_ack(const.MQTT_5, const.PUBREC, message.packet_id, 0)

    def release(self, packet_id: int) -> bytes:
        self.received.discard(packet_id)
        return encode_ack(const.MQTT_5, const.PUBCOMP, packet_id, 0)

    def _keep(self, message: Message) -> None:
        self.arrived.setdefault(message.topic, []).append(int(message.payload))


class LanesMachine(RuleBasedStateMachine):
    """`safe`: by topic, what was on disk at some time; `serial` counts what is published. `now`: what time it is."""

    configurations: Sequence[Sequence[RuleConfig]] = CONFIGURATIONS
    version = const.MQTT_5
    now = 1000.0
    quota = Quota()

    @initialize(window=st.sampled_from((1, 2, 5, 40)))
    def start(self, window: int) -> None:
        self.window = window
        self.disk = ModelStore()
        self.upstream = Upstream()
        self.serial = 0
        self.safe: dict[str, set[int]] = {}
        self.configuration = 0
        self._begin()

    def _begin(self) -> None:
        """A run of the broker, with what the disk has."""
        rules = self.configurations[self.configuration]
        self.topics = [str(one.filter) for one in rules]
        snapshot = self.snapshot = self.disk.snapshot()
        self.pending = Pending(snapshot.epoch, 600)
        self.router = Router(
            Settings(),
            self.pending,
            None,  # type: ignore[arg-type]
            str,
            TopicCache(),
            next_queue_id=snapshot.next_queue_id,
        )
        self.router.now = self.now
        mapping = OutMapping(rules)
        config = BridgeConfig(urls=("mqtt://h",), name="up", gateway="gw", window=self.window)
        self.way = make_way_up(config, mapping, self.router, snapshot, lambda: 0.5, self.on_given_up)
        outbox = Outbox("up", self.way.queues[NORMAL], mapping, self.router, self.quota, self.way.queues)
        outbox.sender = self.way.uplink
        outbox.subscribe()
        self.outbox = outbox
        self.sealed: deque[Sealed] = deque()
        self.client: Client | None = None
        self.answers: deque[bytes] = deque()
        self.on_the_way: dict[int, str] = {}

    # ---- here

    @rule(data=st.data(), count=st.integers(1, 8))
    def publish(self, data: st.DataObject, count: int) -> None:
        self.publish_of(data.draw(st.sampled_from(self.topics)), count)

    def publish_of(self, topic: str, count: int) -> None:
        for _ in range(count):
            self.serial += 1
            message = build_message(topic, b"%d" % self.serial, qos=1)
            message.received_at = self.router.now
            self.router.publish(message, None)
            message.publisher = self
            if not message.unsafe:
                self.on_safe(message)

    def on_safe(self, message: Message) -> None:
        self.safe.setdefault(message.topic, set()).add(int(message.payload))

    @rule()
    def commit(self) -> None:
        sealed = self.pending.seal()
        self.disk.apply(sealed.batch)
        sealed.settle()

    @rule()
    def read(self) -> None:
        reads, self.pending.reads = self.pending.reads, []
        for queue in reads:
            assert queue.reading is not None
            page = self.disk.read_page(queue.queue_id, queue.reading[0], 7)
            queue.take_page(Page(queue.queue_id, page.messages, page.end))

    @rule(more=st.sampled_from((0, 0, 1)))
    def crash_and_change(self, more: int) -> None:
        self.client = None
        self.configuration = min(self.configuration + more, len(self.configurations) - 1)
        self._begin()

    # ---- the line

    @precondition(lambda self: self.client is None)
    @rule(forgets=st.sampled_from((False, False, False, True)))
    def connect(self, forgets: bool) -> None:
        if forgets and not self.upstream.received and not self._may_be_half_way():
            self.upstream.has_session = False
        request = Connect(self.version, "c", False, 60)
        client = self.client = Client(self, request, self.router.topics, lambda: None)
        client.start(self.router.now)
        client.take_output(self.router.now)
        self.receive(encode_connack(self.version, self.upstream.has_session, 0, {}))
        self.upstream.has_session = True
        self.answers.clear()
        self.on_the_way.clear()
        self.way.uplink.attach(client, lambda: None, self.on_retreat)

    def _may_be_half_way(self) -> bool:
        return any(queue.released for queue in self.way.queues.values())

    @precondition(lambda self: self.client is not None)
    @rule()
    def cut(self) -> None:
        assert self.client is not None
        self.client.on_lost("cut")
        self.client = None
        self.way.uplink.detach()

    @precondition(lambda self: self.client is not None)
    @rule()
    def send(self) -> None:
        client = self.client
        assert client is not None
        self.way.uplink.send_due()
        decoder = Decoder(TopicCache(), 1 << 20, version=self.version, publish_type=Message)
        decoder.feed(client.take_output(self.router.now))
        while (packet := decoder.next_packet()) is not None:
            self.arrive(packet)

    def arrive(self, packet: Packet) -> None:
        """The upstream gets it."""
        if isinstance(packet, Message):
            self.take_identifier(packet.packet_id, packet.topic)
            self.answers.append(self.upstream.take(packet))
        elif isinstance(packet, Ack) and packet.packet_type == const.PUBREL:
            self.answers.append(self.upstream.release(packet.packet_id))

    def take_identifier(self, packet_id: int, what: str) -> None:
        assert packet_id not in self.on_the_way, "an identifier that is in use"
        self.on_the_way[packet_id] = what

    @precondition(lambda self: self.client is not None and len(self.answers) > 0)
    @rule(count=st.integers(1, 10))
    def answer(self, count: int) -> None:
        for _ in range(min(count, len(self.answers))):
            if self.client is not None:  # an answer may end the connection
                self.receive(self.answers.popleft())

    @rule(turns=st.integers(1, 4), answers=st.integers(0, 30))
    def carry(self, turns: int, answers: int) -> None:
        """As things go most of the time."""
        for _ in range(turns):
            if self.client is None:
                self.connect(False)
            self.commit()
            self.read()
            self.send()
            if self.answers and answers:
                self.answer(answers)

    def receive(self, packet: bytes) -> None:
        assert self.client is not None
        self.client.receive(packet, self.router.now)

    # ---- the client's events

    def on_connected(self, session_present: bool) -> None: ...

    def on_closed(self, reason_code: int, detail: str) -> None: ...

    def on_puback(self, packet_id: int, reason_code: int) -> None:
        self.on_the_way.pop(packet_id, None)
        self.way.uplink.on_puback(packet_id, reason_code)

    def on_pubrec(self, packet_id: int, reason_code: int) -> None:
        self.way.uplink.on_pubrec(packet_id, reason_code)

    def on_pubcomp(self, packet_id: int, reason_code: int) -> None:
        self.on_the_way.pop(packet_id, None)
        self.way.uplink.on_pubcomp(packet_id)

    def on_given_up(self, reason: str, topic: str) -> None:
        raise AssertionError((reason, topic))

    def on_retreat(self, reason_code: int) -> None:
        raise AssertionError(reason_code)

    # ---- what has to be true

    @invariant()
    def no_more_are_on_the_way_than_the_window_allows(self) -> None:
        assert self.way.uplink.in_flight <= self.window

    @invariant()
    def each_topic_keeps_its_order_and_qos_2_comes_once(self) -> None:
        for topic, arrived in self.upstream.arrived.items():
            first = list(dict.fromkeys(arrived))
            assert first == sorted(first), topic
            if topic.endswith("2"):
                assert first == arrived, "twice"

    def teardown(self) -> None:
        if not hasattr(self, "way"):
            return
        if self.client is not None:
            self.cut()
        self.crash_and_change(1)
        self.connect(False)
        for _ in range(400):
            self.commit()
            self.read()
            self.send()
            self.answer(100) if self.answers else None
            if not self.way.uplink.depth:
                break
        assert self.way.uplink.depth == 0, "it does not drain"
        self.each_topic_keeps_its_order_and_qos_2_comes_once()
        for topic, numbers in self.safe.items():
            assert numbers <= set(self.upstream.arrived.get(topic, ())), f"lost of {topic}"


LanesMachine.TestCase.settings = settings(
    max_examples=60, stateful_step_count=40, deadline=None, suppress_health_check=list(HealthCheck)
)
test_lanes_keep_their_promises = LanesMachine.TestCase


@pytest.mark.parametrize("seed", range(40))
def test_lanes_keep_their_promises_on_long_walks(seed: int) -> None:
    """What Hypothesis rarely comes to: much under way when the broker dies, and dies again."""
    dice = random.Random(seed)
    machine = LanesMachine()
    machine.start(dice.choice((1, 3, 40)))
    for step in range(120):
        what = dice.choices(("publish", "carry", "send", "answer", "cut", "crash"), (40, 30, 20, 20, 5, 5))[0]
        if what == "publish":
            machine.publish_of(dice.choice(machine.topics), dice.randint(1, 8))
        elif what == "carry":
            machine.carry(dice.randint(1, 3), dice.choice((0, 0, 3, 30)))
        elif what == "crash":
            machine.crash_and_change(1 if step > 40 and dice.random() < 0.3 else 0)
        elif machine.client is not None and (what != "answer" or machine.answers):
            getattr(machine, what)(*([dice.randint(1, 10)] if what == "answer" else []))
        machine.each_topic_keeps_its_order_and_qos_2_comes_once()
        machine.no_more_are_on_the_way_than_the_window_allows()
    machine.teardown()
