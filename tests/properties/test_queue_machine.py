"""A durable queue against a model, in every order of events: nothing acknowledged is lost, skipped or sent twice.

The machine appends, seals, commits, settles, reads pages, connects, disconnects, acknowledges in any order, lets time
pass, damages the store and crashes. Messages are dropped, and freed when they have expired while nobody is there; each of
them is buried, and a crash before that brings it back. After each step the model checks what was sent; at the end all is
drained.
"""

from __future__ import annotations

import random
from collections import deque
from collections.abc import Callable
from types import SimpleNamespace

import pytest
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

from edge_broker.core.burying import Burials
from edge_broker.core.counters import Counters
from edge_broker.core.message import Message, build_message
from edge_broker.core.ops import Lookup, Page
from edge_broker.core.pending import Pending, Sealed
from edge_broker.core.queue import LARGE_FRAME_BYTES, Queue
from edge_broker.core.quota import Quota
from edge_broker.core.session import Session
from edge_broker.core.settings import Settings
from edge_broker.core.upkeep import Upkeep
from tests.pump.model_store import ModelStore

QUEUE_ID = 7
OVERHEAD_BYTES = 500
SIZES = st.sampled_from((0, 10, 300, LARGE_FRAME_BYTES + 100))


CAN: dict[str, Callable[[QueueMachine], bool]] = {
    "seal": lambda m: len(m.sealed) < 3 and not m.pending.empty,
    "commit": lambda m: m.applied < len(m.sealed),
    "settle": lambda m: m.applied > 0,
    "read": lambda m: bool(m.pending.reads),
    "answer_read": lambda m: bool(m.pages),
    "look_up": lambda m: bool(m.pending.lookups),
    "answer_lookup": lambda m: bool(m.found),
    "drop": lambda m: any(m.queue.may_drop(n) for n in range(m.queue.head, m.queue.next_number)),
    "connect": lambda m: m.client is None and m.connecting is None,
    "disconnect": lambda m: m.client is not None,
    "reconnect": lambda m: m.client is not None,
    "acknowledge": lambda m: m.client is not None and bool(m.client.published),
    "complete": lambda m: m.client is not None and bool(m.client.released),
    "acknowledge_all": lambda m: m.client is not None,
    "set_writable": lambda m: m.client is not None,
    "damage": lambda m: QUEUE_ID in m.store.queues and bool(m.store.queues[QUEUE_ID].waiting),
}
"""When each step is possible; a step that is not here always is."""


class Graveyard:
    """Where dead letters come, in place of `DeadLetters`; it remembers them through crashes."""

    def __init__(self) -> None:
        self.payloads: set[bytes] = set()
        self.unburied = 0

    def bury(self, message: Message, reason: str, recipient: str, rule: str) -> None:
        self.payloads.add(message.payload)

    def burials_of(self, queue: Queue, recipient: str) -> Burials:
        return Burials(self, queue, recipient)  # type: ignore[arg-type]


class Subscriber:
    """The client's end of one connection: notes what it gets, and asks the model whether that may be."""

    end = None

    def __init__(self, machine: QueueMachine, send_window: int) -> None:
        self.machine = machine
        self.send_window = send_window
        self.writable = True
        self.cursor = 0  # the highest number that came on this connection
        self.published: dict[int, int] = {}  # waiting for our PUBACK or PUBREC: number to QoS
        self.released: set[int] = set()  # waiting for our PUBCOMP
        self.received: set[int] = set()  # PUBREC sent, PUBREL not here yet

    def send_publish(self, message: Message, number: int, dup: bool = False) -> None:
        self.machine.check_publish(self, message, number, dup)
        self.published[number] = message.qos
        self.cursor = number

    def send_pubrel(self, number: int) -> None:
        self.machine.check_pubrel(self, number)
        self.received.discard(number)
        self.released.add(number)
        self.cursor = max(self.cursor, number)

    @property
    def in_flight(self) -> int:
        return len(self.published) + len(self.released) + len(self.received)


class QueueMachine(RuleBasedStateMachine):
    """`payloads`, `acknowledged`, `released` are what should be true of the queue by its numbers."""

    @initialize(window_bytes=st.sampled_from((0, 1500, 6000)), window=st.sampled_from((1, 3, 50)))
    def start(self, window_bytes: int, window: int) -> None:
        self.store = ModelStore()
        self.window_bytes = window_bytes
        self.window = window
        self.now = 100.0
        self.serial = 0
        self.payloads: dict[int, bytes] = {}
        self.qos_2: set[int] = set()  # numbers of messages received at QoS 2
        self.expires: dict[int, float] = {}
        self.acknowledged: set[int] = set()
        self.released: set[int] = set()
        self.damaged: set[int] = set()
        self.dropped: set[int] = set()
        self.graveyard = Graveyard()
        self.ever_sent: set[int] = set()
        self.sent_at_qos_2: set[int] = set()
        self.maybe_sent_at_qos_2_below = 0  # after a crash, as far as the store knows
        self.maybe_sent_below = 0  # a crash forgets what was sent: up to here DUP may be set either way
        self.safe: set[int] = set()
        self.waiting: dict[Message, int] = {}  # whose publisher is not acknowledged yet, and their numbers
        self.expired = self.lost = 0
        self._begin(Queue(QUEUE_ID, Pending(1, window_bytes)))

    def _begin(self, queue: Queue) -> None:
        """A run of the broker, with `queue` as it was made or restored."""
        assert queue.pending is not None
        self.pending = queue.pending
        limits = Settings(send_window_bytes=3 * LARGE_FRAME_BYTES)
        self.router = SimpleNamespace(
            settings=limits,
            now=self.now,
            counters=Counters(),
            quota=Quota(),
            full={},
            dead_letters=self.graveyard,
        )
        self.queue = queue
        self.session = Session(self.router, "client", "anonymous", 60, queue)
        self.client: Subscriber | None = None
        self.connecting: object = None
        self.sealed: deque[Sealed] = deque()  # the first `applied` of them are on disk
        self.applied = 0
        self.pages: list[Page | None] = []
        self.found: list[tuple[Lookup, Page | None]] = []
        self.upkeep = Upkeep(self.router, self.pending)

    # ---- what a publisher and the journal do

    @rule(
        qos=st.sampled_from((1, 1, 2)),
        granted=st.sampled_from((1, 2)),
        size=SIZES,
        life=st.none() | st.just(5.0),
    )
    def publish(self, qos: int, granted: int, size: int, life: float | None) -> None:
        self.serial += 1
        payload = b"%d:" % self.serial + b"x" * size
        number = self.queue.next_number
        assert number not in self.payloads
        message = build_message("t", payload, qos=qos)
        message.received_at = self.now
        message.expires_at = None if life is None else self.now + life
        self.payloads[number] = payload
        if qos == 2:
            self.qos_2.add(number)
        if life is not None:
            self.expires[number] = self.now + life
        self.session.deliver(message.variant(min(qos, granted), False))
        if message.unsafe:
            message.publisher = self
            self.waiting[message] = number
        else:
            self.on_number_safe(number)

    @rule(count=st.integers(3, 30))
    def publish_many(self, count: int) -> None:
        for _ in range(count):
            self.publish(1, 1, 300, None)

    def on_safe(self, message: Message) -> None:
        message.publisher = None
        self.on_number_safe(self.waiting.pop(message))

    def on_number_safe(self, number: int) -> None:
        """A publisher is acknowledged: the message is on disk, or its recipient has it."""
        self.safe.add(number)
        assert self._is_stored(number) or self._is_done_with(number)

    def _is_buried(self, number: int) -> bool:
        """Whether there is a dead letter of `number`, unless the disk lost it."""
        return number in self.damaged or self.payloads[number] in self.graveyard.payloads

    def _is_stored(self, number: int) -> bool:
        stored = self.store.queues.get(QUEUE_ID)
        return stored is not None and (number in stored.messages or number <= stored.highest)

    def _is_done_with(self, number: int) -> bool:
        """Acknowledged, or expired on its way out."""
        return number in self.acknowledged or self._is_expired(number)

    def _is_expired(self, number: int) -> bool:
        return self.expires.get(number, self.now + 1) <= self.now

    @precondition(CAN["seal"])
    @rule(patience=st.sampled_from((None, None, 0.0, 3.0)))
    def seal(self, patience: float | None = None) -> None:
        """All of it, or only if something has waited for `patience` seconds."""
        self.sealed.append(self.pending.seal(None if patience is None else self.now - patience))

    @precondition(CAN["commit"])
    @rule()
    def commit(self) -> None:
        self.store.apply(self.sealed[self.applied].batch)
        self.applied += 1

    @precondition(CAN["settle"])
    @rule()
    def settle(self) -> None:
        self.applied -= 1
        self.sealed.popleft().settle()

    @rule()
    def commit_everything(self) -> None:
        if not self.pending.empty:
            self.seal()
        while self.sealed:
            if not self.applied:
                self.commit()
            self.settle()

    @precondition(CAN["read"])
    @rule(size=st.sampled_from((1, 4, 1000)), fails=st.sampled_from((False, False, False, True)))
    def read(self, size: int, fails: bool) -> None:
        """The store reads now; the answer comes later."""
        queue = self.pending.reads.pop()
        assert queue is self.queue
        assert queue.reading is not None
        self.pages.append(None if fails else self.store.read_page(QUEUE_ID, queue.reading[0], size))

    @precondition(CAN["answer_read"])
    @rule()
    def answer_read(self) -> None:
        page = self.pages.pop(0)
        self.queue.take_page(page)
        if page is None:
            self.session.pump()  # as the broker does a little later

    @rule()
    def sweep(self) -> None:
        """Once a second: what has expired is freed, if nobody is there."""
        self.upkeep.begin()
        self.upkeep.visit(self.queue, self.now)

    @precondition(CAN["look_up"])
    @rule(size=st.sampled_from((1, 4, 1000)), fails=st.sampled_from((False, False, False, True)))
    def look_up(self, size: int, fails: bool) -> None:
        """The store reads for others than the client; the answer comes later."""
        lookup = self.pending.lookups.pop(0)
        page = None if fails else self.store.read_page(QUEUE_ID, lookup.from_number, size)
        self.found.append((lookup, page))

    @precondition(CAN["answer_lookup"])
    @rule()
    def answer_lookup(self) -> None:
        lookup, page = self.found.pop(0)
        lookup.take(page)

    @precondition(CAN["drop"])
    @rule(choice=st.integers(0, 1000))
    def drop(self, choice: int) -> None:
        """A message gives way to others; 0 is the oldest."""
        numbers = [n for n in range(self.queue.head, self.queue.next_number) if self.queue.may_drop(n)]
        number = numbers[choice % len(numbers)]
        self.acknowledged.add(number)
        self.dropped.add(number)
        assert self.queue.drop(number)
        assert not self.queue.drop(number)

    # ---- what the client does

    @precondition(CAN["connect"])
    @rule()
    def connect(self) -> None:
        """Deliveries begin when the CONNECT is committed, as for any durable session."""
        attempt = self.connecting = object()
        self.pending.after_commit(lambda: self._attach(attempt))

    def _attach(self, attempt: object) -> None:
        if attempt is self.connecting:
            self.connecting = None
            self.client = Subscriber(self, self.window)
            self.session.attach(self.client)
            self.session.pump()

    @precondition(CAN["disconnect"])
    @rule()
    def disconnect(self) -> None:
        self.client = None
        self.session.detach(self.now)

    @precondition(CAN["reconnect"])
    @rule()
    def reconnect(self) -> None:
        self.disconnect()
        self.connect()

    @precondition(CAN["acknowledge"])
    @rule(choice=st.integers(0, 1000))
    def acknowledge(self, choice: int) -> None:
        """PUBACK or PUBREC for something in flight; 0 is the oldest."""
        assert self.client is not None
        numbers = sorted(self.client.published)
        number = numbers[choice % len(numbers)]
        qos = self.client.published.pop(number)
        assert self.queue.number_of((number - 1) % 65535 + 1) == number
        if qos == 2 and number % 5:  # the others are refused
            self.client.received.add(number)
            self.released.add(number)
            assert self.queue.release(number)
            client = self.client
            self.pending.after_commit(lambda: client is self.client and client.send_pubrel(number))
        else:
            self._finish(number)

    @precondition(CAN["complete"])
    @rule(choice=st.integers(0, 1000))
    def complete(self, choice: int) -> None:
        """PUBCOMP for one of those whose PUBREL is here."""
        assert self.client is not None
        numbers = sorted(self.client.released)
        number = numbers[choice % len(numbers)]
        self.client.released.remove(number)
        self.released.remove(number)
        self._finish(number)

    def _finish(self, number: int) -> None:
        self.acknowledged.add(number)
        assert self.queue.complete(number)
        assert not self.queue.complete(number)
        if self.queue.cursor < self.queue.next_number:
            self.session.pump()

    @precondition(CAN["acknowledge_all"])
    @rule()
    def acknowledge_all(self) -> None:
        for _ in range(len(self.client.published) if self.client else 0):
            if self.client is not None and self.client.published:
                self.acknowledge(0)

    @precondition(CAN["set_writable"])
    @rule(writable=st.booleans())
    def set_writable(self, writable: bool) -> None:
        assert self.client is not None
        self.client.writable = writable
        if writable:
            self.session.pump()

    # ---- what befalls all of them

    @rule()
    def let_time_pass(self) -> None:
        self.now += 3.0
        self.router.now = self.now

    @precondition(CAN["damage"])
    @rule(choice=st.integers(0, 1000))
    def damage(self, choice: int) -> None:
        """One message on disk cannot be read any more."""
        stored = self.store.queues[QUEUE_ID]
        number = sorted(stored.waiting)[choice % len(stored.waiting)]
        del stored.messages[number]
        self.damaged.add(number)

    @rule()
    def crash(self) -> None:
        """Memory is gone; what was committed is what the next run finds."""
        state = self.store.snapshot().queues.get(QUEUE_ID)
        stored = self.store.queues.get(QUEUE_ID)
        remaining = stored.waiting | set(stored.released) if stored else set()
        for number in self.safe:
            assert number in remaining or self._is_done_with(number) or number in self.damaged
        highest = stored.highest if stored else 0
        for number in self.dropped:
            assert number in remaining or number > highest or self._is_buried(number)
        self.dropped.clear()
        self.maybe_sent_below = highest + 1
        self.payloads = {n: payload for n, payload in self.payloads.items() if n <= highest}
        self.qos_2 = {n for n in self.qos_2 if n <= highest}
        self.expires = {n: at for n, at in self.expires.items() if n <= highest}
        self.safe = {n for n in self.safe if n <= highest}
        self.ever_sent = {n for n in self.ever_sent if n <= highest}
        self.sent_at_qos_2 = {n for n in self.sent_at_qos_2 if n <= highest}
        self.maybe_sent_at_qos_2_below = state.sent if state else 0
        self.released = set(stored.released) if stored else set()
        self.acknowledged = {n for n in self.payloads if n not in remaining and n not in self.damaged}
        if stored:
            self.acknowledged |= {n for n in self.damaged if n < stored.head or n in stored.acknowledged}
        self.waiting.clear()
        self.expired = self.lost = 0
        pending = Pending(self.store.epoch, self.window_bytes)
        self._begin(Queue(QUEUE_ID, pending) if state is None else Queue.restore(state, pending))

    # ---- what is checked

    def check_publish(self, client: Subscriber, message: Message, number: int, dup: bool) -> None:
        """`message` goes out as `number`: the next one due, what it should be, and allowed to leave."""
        assert client.writable
        assert client.in_flight < self.window
        self._check_order(client, number)
        assert message.payload == self.payloads[number]
        if self._is_expired(number):  # what was sent at QoS 2 does not expire any more [MQTT-4.3.3-7]
            assert message.qos == 2
            assert number in self.sent_at_qos_2 or number < self.maybe_sent_at_qos_2_below
        assert number not in self.acknowledged
        assert number not in self.released
        if number in self.qos_2:
            assert self._is_stored(number), "received at QoS 2 and sent before its commit"
        if number in self.ever_sent:
            assert dup, "sent again without DUP"
        elif number >= self.maybe_sent_below:
            assert not dup, "DUP at the first time"
        self.ever_sent.add(number)
        if message.qos == 2:
            self.sent_at_qos_2.add(number)

    def check_pubrel(self, client: Subscriber, number: int) -> None:
        assert number in self.released
        if number not in client.received:
            self._check_order(client, number)
        assert number in self.store.queues[QUEUE_ID].released, "PUBREL before the commit of PUBREC"

    def _check_order(self, client: Subscriber, number: int) -> None:
        assert number > client.cursor, "out of order, or twice"
        for between in range(client.cursor + 1, number):
            self._check_passed_over(between)

    def _check_passed_over(self, number: int) -> None:
        """The sender went past `number` without sending it: rightly so?"""
        if number in self.acknowledged:
            return
        assert number in self.payloads
        assert number not in self.released
        if self._is_expired(number):
            assert number not in self.sent_at_qos_2 or number in self.damaged
            assert self._is_buried(number)
            self.expired += number not in self.damaged
        else:
            assert number in self.damaged, f"number {number} was skipped"
        self.acknowledged.add(number)

    @invariant()
    def memory_is_counted(self) -> None:
        if not hasattr(self, "queue"):
            return
        queue = self.queue
        assert (queue.released or set()) == self.released
        assert queue.acknowledged is None or min(queue.acknowledged, default=queue.head + 1) > queue.head
        assert not any(number in self.acknowledged for number in queue.messages)
        assert queue.bytes_in_memory == sum(len(m.frame) + OVERHEAD_BYTES for m in queue.messages.values())
        if self.client is None:
            assert all(number >= queue.committed for number in queue.messages), "offline, yet kept in memory"
            return
        assert queue.in_flight == self.client.in_flight
        assert queue.large_in_flight_bytes == sum(
            len(queue.messages[number].frame)
            for number in self.client.published
            if len(queue.messages[number].frame) > LARGE_FRAME_BYTES
        )

    def teardown(self) -> None:
        if hasattr(self, "queue"):
            self.drain()

    def drain(self) -> None:
        """Everything that is still owed arrives, and nothing remains."""
        if self.client is None:
            self.connect()
            while self.client is None:
                self.commit_everything()
        self.set_writable(True)
        for _ in range(3 * self.queue.next_number + 50):
            self.commit_everything()
            if self.pending.reads:
                self.read(1000, False)
            if self.pages:
                self.answer_read()
            if self.pending.lookups:
                self.look_up(1000, False)
            if self.found:
                self.answer_lookup()
            self.acknowledge_all()
            while self.client.released:
                self.complete(0)
            self.memory_is_counted()
            is_looking = bool(self.pending.lookups or self.found)
            if self.queue.depth == 0 and self.pending.empty and not is_looking:
                break
        for number in range(self.client.cursor + 1, self.queue.next_number):
            self._check_passed_over(number)
        queue = self.queue
        assert queue.depth == 0
        assert set(self.payloads) == self.acknowledged & set(self.payloads)
        assert not queue.messages
        assert queue.in_flight == 0
        assert queue.head == queue.next_number
        assert (self.pending.uncommitted_bytes, self.pending.bytes, self.pending.waiting) == (0, 0, 0)
        assert not self.waiting, "a publisher waits for ever"
        assert all(self._is_buried(number) for number in self.dropped)
        stored = self.store.queues.get(QUEUE_ID)
        assert stored is None or not stored.messages


QueueMachine.TestCase.settings = settings(
    max_examples=100,
    stateful_step_count=60,
    deadline=None,
    suppress_health_check=[HealthCheck.too_slow, HealthCheck.filter_too_much, HealthCheck.data_too_large],
)
TestQueueMachine = QueueMachine.TestCase


@pytest.mark.parametrize("seed", range(60))
def test_long_walks(seed: int) -> None:
    """The same machine for hundreds of steps at a time: deep backlogs, which Hypothesis's short runs do not reach.

    Each walk has its own temper: how often clients leave, how slow the disk and the reader are, whether it crashes.
    """
    dice = random.Random(seed)
    machine = QueueMachine()
    machine.start(dice.choice((0, 1500, 6000)), dice.choice((1, 3, 12, 300)))
    weights = {
        "publish": dice.choice((3.0, 8.0)),
        "publish_many": 1.0,
        "seal": 3.0,
        "commit": dice.choice((1.0, 4.0)),
        "settle": dice.choice((1.0, 4.0)),
        "commit_everything": dice.choice((0.0, 3.0)),
        "read": dice.choice((0.3, 3.0)),
        "answer_read": dice.choice((0.3, 3.0)),
        "sweep": dice.choice((0.0, 1.0)),
        "look_up": dice.choice((0.3, 3.0)),
        "answer_lookup": dice.choice((0.3, 3.0)),
        "drop": dice.choice((0.0, 0.0, 0.5)),
        "connect": 4.0,
        "disconnect": dice.choice((0.0, 0.3)),
        "reconnect": dice.choice((0.0, 1.0)),
        "acknowledge": dice.choice((2.0, 12.0)),
        "complete": dice.choice((0.5, 3.0)),
        "acknowledge_all": dice.choice((0.0, 1.0)),
        "set_writable": 0.5,
        "let_time_pass": 0.3,
        "damage": dice.choice((0.0, 0.3)),
        "crash": dice.choice((0.0, 0.6)),
    }
    qos = dice.choice(((1,), (1, 1, 2), (2,)))
    latest_ack = dice.choice((0, 1000))  # in order, or in any
    arguments: dict[str, Callable[[], tuple[object, ...]]] = {
        "publish": lambda: (
            dice.choice(qos),
            dice.choice((1, 2, 2)),
            dice.choice((0, 300, LARGE_FRAME_BYTES + 100)),
            dice.choice((None, None, None, 5.0)),
        ),
        "publish_many": lambda: (dice.randint(3, 30),),
        "read": lambda: (dice.choice((1, 4, 1000)), dice.random() < 0.2),
        "look_up": lambda: (dice.choice((1, 4, 1000)), dice.random() < 0.2),
        "drop": lambda: (dice.choice((0, dice.randrange(1000))),),
        "acknowledge": lambda: (dice.randint(0, latest_ack),),
        "complete": lambda: (dice.randrange(1000),),
        "set_writable": lambda: (dice.random() < 0.7,),
        "damage": lambda: (dice.randrange(1000),),
    }
    for _ in range(6):
        for name in dice.choices(list(weights), list(weights.values()), k=150):
            if CAN.get(name, lambda _: True)(machine):
                getattr(machine, name)(*arguments.get(name, tuple)())
                machine.memory_is_counted()
        ending = dice.choice(("crash", "disconnect", "disconnect", ""))
        if ending and CAN.get(ending, lambda _: True)(machine):
            getattr(machine, ending)()
        machine.drain()
