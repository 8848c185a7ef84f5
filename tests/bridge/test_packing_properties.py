"""Whatever happens to a line with envelopes: nothing is done with before it was acknowledged, and after ingest each
message is there exactly once.

The upstream is a machine's: it takes what is sent, acknowledges in any order, refuses, vanishes; the lease comes and goes.
What it took goes through the ingester's own windows at once, whether it then says so or not.
"""

from __future__ import annotations

from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

from bridge.envelope import EnvelopeReader
from bridge.windows import LaneKey, Windows
from edge_broker.core.message import Message
from edge_broker.wire import const
from edge_broker.wire.packets import Ack
from tests.bridge.memory import rule as out_rule
from tests.bridge.packed import TOPIC, Packed, contents

_KEY = LaneKey("gw", "cloud-1")
_POISON = b"poison"


class Line(RuleBasedStateMachine):
    """One bridge and one upstream. `version`: 5, or 3.1.1 where an ingester is said to listen."""

    @initialize(version=st.sampled_from([const.MQTT_5, const.MQTT_3_1_1]), window=st.integers(1, 5))
    def begin(self, version: int, window: int) -> None:
        self.version = version
        old = version < const.MQTT_5
        self.line = Packed(
            [
                out_rule("u/#", envelope=False, ingested=old),
                out_rule("q2/#", 2, ingested=old),
                out_rule("#", ingested=old),
            ],
            window=window,
            max_messages=4,
            max_bytes=1024,
            delay_ms=500,
        )
        self.is_online = False
        self.window = window
        self.published: dict[bytes, int] = {}
        self.ingested: list[bytes] = []
        self.windows = Windows()
        self.unanswered: dict[int, Message] = {}  # by packet identifier, on this connection
        self.received: set[int] = set()  # upstream, at QoS 2: PUBREL is to come
        self.acknowledged: set[int] = set()  # numbers
        self.reader = EnvelopeReader()

    # ---- here

    @rule(
        topic=st.sampled_from(["u/1", "q2/1", "q2/2", "t/1", "t/2"]),
        size=st.sampled_from([0, 0, 0, 300, 1500]),
    )
    def publish(self, topic: str, size: int) -> None:
        self._publish(topic, b"%d." % len(self.published) + b"x" * size)

    @precondition(lambda self: self.version == const.MQTT_5)
    @rule()
    def publish_poison(self) -> None:
        self._publish("t/1", b"%d.%b" % (len(self.published), _POISON))

    def _publish(self, topic: str, payload: bytes) -> None:
        self.line.publish(topic, payload)
        self.published[payload] = self.line.queue.next_number - 1
        self._send()

    @rule()
    def commit(self) -> None:
        self.line.commit()
        self._send()

    @rule()
    def read(self) -> None:
        self.line.answer_reads()
        self._send()

    @rule(seconds=st.sampled_from([0.2, 1.0, 40.0]))
    def wait(self, seconds: float) -> None:
        self.line.later(seconds)
        self._send()

    # ---- the lease

    @precondition(lambda self: self.is_online)
    @rule(seconds=st.sampled_from([1, 30, 3600]))
    def announce(self, seconds: int) -> None:
        self.line.announce(seconds)
        self._send()

    @precondition(lambda self: self.is_online)
    @rule()
    def withdraw(self) -> None:
        self.line.withdraw()
        self._send()

    # ---- the connection

    @precondition(lambda self: not self.is_online)
    @rule(present=st.booleans())
    def connect(self, present: bool) -> None:
        if not present:
            self.received.clear()
        assert self.line.lease is not None
        self.line.lease.forget()
        self.line.connect(self.version, present)
        self.is_online = True
        self._send()

    @precondition(lambda self: self.is_online)
    @rule()
    def cut(self) -> None:
        self.line.disconnect()
        self.unanswered.clear()
        self.is_online = False

    def _send(self) -> None:
        """What leaves now arrives."""
        if not self.is_online:
            return
        for packet in self.line.sent():
            if isinstance(packet, Message):
                self._arrive(packet)
            elif isinstance(packet, Ack) and packet.packet_type == const.PUBREL:
                self.received.discard(packet.packet_id)
                self._done(packet.packet_id)
                self.line.acknowledge(packet.packet_id, kind=const.PUBCOMP)

    def _arrive(self, message: Message) -> None:
        assert message.packet_id not in self.unanswered, "two packets with one identifier"
        self.unanswered[message.packet_id] = message
        if message.qos == 2:
            if message.packet_id in self.received:
                return  # it is here already
            self.received.add(message.packet_id)
        if self._refuses(message):
            return
        for (epoch, number), payload in contents(message):
            if self.windows.take(_KEY, epoch, number):
                self.ingested.append(payload)

    def _refuses(self, message: Message) -> bool:
        return any(payload.endswith(_POISON) for _, payload in contents(message))

    @precondition(lambda self: self.unanswered)
    @rule(chance=st.randoms(use_true_random=False))
    def answer(self, chance: object) -> None:
        self._answer(chance.choice(sorted(self.unanswered)))  # type: ignore[attr-defined]

    def _answer(self, packet_id: int) -> None:
        message = self.unanswered.pop(packet_id)
        kind = const.PUBACK if message.qos == 1 else const.PUBREC
        if self._refuses(message):
            self.received.discard(packet_id)
            if message.topic != TOPIC:
                self._done(packet_id)
            self.line.acknowledge(packet_id, reason_code=const.PAYLOAD_FORMAT_INVALID, kind=kind)
        else:
            # PUBREC too: the upstream has it, and where it then forgets our session nothing is left to be done.
            self.acknowledged |= {number for (_, number), _ in contents(message)}
            self.line.acknowledge(packet_id, kind=kind)
        self._send()

    def _done(self, packet_id: int) -> None:
        number = self.line.queue.number_of(packet_id)
        if number:
            self.acknowledged.add(number)

    # ---- what holds

    @invariant()
    def nothing_is_done_with_before_it_was_acknowledged(self) -> None:
        queue = self.line.queue
        done = [number for number in self.published.values() if self._is_done(number)]
        assert set(done) <= self.acknowledged
        assert queue.depth == len(self.published) - len(done)

    def _is_done(self, number: int) -> bool:
        queue = self.line.queue
        return number < queue.head or number in (queue.acknowledged or ())

    @invariant()
    def the_window_is_kept(self) -> None:
        if self.is_online:
            assert len(self.unanswered) <= self.window
            assert self.line.forwarder.packets_in_flight <= self.window

    @invariant()
    def nothing_comes_twice(self) -> None:
        assert len(self.ingested) == len(set(self.ingested))

    def teardown(self) -> None:
        """A calm end: everything arrives."""
        if not hasattr(self, "line"):
            return
        if not self.is_online:
            self.connect(present=True)
        for _ in range(20 * len(self.published) + 20):
            if not self.line.queue.depth:
                break
            self.line.commit()
            self.line.answer_reads()
            self.line.later(1.0)
            self._send()
            for packet_id in sorted(self.unanswered):
                if packet_id in self.unanswered:
                    self._answer(packet_id)
            self.line.commit()
            self._send()
        assert not self.line.queue.depth
        self.nothing_is_done_with_before_it_was_acknowledged()
        wanted = [payload for payload in self.published if not payload.endswith(_POISON)]
        assert sorted(self.ingested) == sorted(wanted)


TestLine = Line.TestCase
TestLine.settings = settings(max_examples=60, stateful_step_count=40, deadline=None)
