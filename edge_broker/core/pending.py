"""What waits for the next commit, gathered as it happens and sealed into one `Batch`.

Everything here is in the order of events of one thread. `seal` hands over what there is and starts afresh; the sealed
batch is settled once it is on disk: messages become safe, replies leave, deferred deliveries happen. If the commit
fails the same sealed batch is tried again, so nothing is settled out of order.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from typing import TYPE_CHECKING, TypeVar

from edge_broker.core.message import Message
from edge_broker.core.ops import Batch, Lookup, SessionRecord, SubscriptionRecord

if TYPE_CHECKING:
    from edge_broker.core.retained_pages import RetainedPages
    from edge_broker.core.stored_queue import StoredQueue
    from edge_broker.core.totals import Totals

_Item = TypeVar("_Item")


class Pending:
    """The storage operations since the last `seal`.

    `waiting`: messages that publishers wait for; `bytes`: their size. `urgent`: somebody waits for more than a message's
    acknowledgement (a CONNACK, a step of QoS 2), so the commit delay does not apply. `leisurely`: nobody waits at all.
    `reads`: queues that want a page; `lookups`: pages for others than the queues' recipients; `retained_reads`: those who
    want retained messages. `on_retained` is told what of these is on disk, by topic. `before_seal`: who adds to a
    batch when it is sealed, and not before.
    """

    __slots__ = (
        "acknowledged_queues",
        "batch",
        "before_seal",
        "bytes",
        "callbacks",
        "dirty_queues",
        "elided",
        "epoch",
        "inbound",
        "lookups",
        "on_retained",
        "reads",
        "removals",
        "retained",
        "retained_reads",
        "safes",
        "sequence",
        "session_records",
        "subscriptions",
        "totals",
        "uncommitted_bytes",
        "urgent",
        "waiting",
        "window_bytes",
    )

    def __init__(self, epoch: int, window_bytes: int) -> None:
        self.epoch = epoch
        self.sequence = 0
        self.window_bytes = window_bytes
        self.elided = 0
        self.reads: list[StoredQueue] = []
        self.lookups: list[Lookup] = []
        self.retained_reads: list[RetainedPages] = []
        self.on_retained: Callable[[Mapping[str, Message | None]], None] = _tell_nobody
        self.uncommitted_bytes = 0  # of messages that are not on disk yet, sealed batches included
        self.totals: Totals | None = None  # what is counted of all durable queues
        self.before_seal: list[Callable[[], None]] = []
        self.removals = 0  # sessions whose end is not on disk yet, sealed batches included
        self._clear()

    def _clear(self) -> None:
        self.batch = Batch()
        self.dirty_queues: list[StoredQueue] = []  # with new messages
        self.acknowledged_queues: list[StoredQueue] = []  # of whose messages on disk some were acknowledged
        self.session_records: dict[int, SessionRecord] = {}
        self.subscriptions: dict[tuple[int, str], SubscriptionRecord | None] = {}
        self.retained: dict[str, Message | None] = {}
        self.inbound: dict[tuple[int, int], bool] = {}
        self.safes: list[Message] = []
        self.callbacks: list[Callable[[], None]] = []
        self.waiting = 0
        self.bytes = 0
        self.urgent = False

    @property
    def empty(self) -> bool:
        """Whether there is nothing to commit and nobody to answer."""
        return self._is_leisurely_at_most and not self.acknowledged_queues

    @property
    def leisurely(self) -> bool:
        """Whether all that waits are acknowledgements: lost in a crash, they mean a message twice, which QoS 1 allows."""
        return self._is_leisurely_at_most and bool(self.acknowledged_queues)

    @property
    def _is_leisurely_at_most(self) -> bool:
        return not (
            self.dirty_queues
            or self.urgent
            or self.callbacks
            or self.session_records
            or self.subscriptions
            or self.retained
            or self.inbound
            or self.safes
            or self.batch.removed_sessions
            or self.batch.outboxes
        )

    # ---- queues

    def oldest_at(self) -> float | None:
        """When the message came that has waited longest; None where something else than messages waits.

        Forgets the queues whose messages were all acknowledged meanwhile: `leisurely` or `empty` may hold afterwards.
        """
        oldest = None
        dirty = self.dirty_queues
        self.dirty_queues = []
        for queue in dirty:
            if not queue.unwritten:
                queue.dirty = False
                continue
            self.dirty_queues.append(queue)
            received_at = next(iter(queue.unwritten.values())).received_at
            if oldest is None or received_at < oldest:
                oldest = received_at
        if self.safes or self.session_records or self.subscriptions or self.retained or self.inbound:
            return None
        return oldest

    def append(self, queue: StoredQueue, message: Message) -> None:
        """A durable queue took `message`: it is unsafe until that is committed, or acknowledged by the recipient."""
        origin = message.source or message
        origin.unsafe += 1
        if not origin.sequence:
            self.sequence += 1
            origin.sequence = self.sequence
            origin.epoch = self.epoch
        size = len(message.frame)
        self.waiting += 1
        self.bytes += size
        self.uncommitted_bytes += size
        if not queue.dirty:
            queue.dirty = True
            self.dirty_queues.append(queue)

    def elide(self, message: Message) -> None:
        """The recipient acknowledged `message` before it was written: it never will be."""
        self.elided += 1
        self.waiting -= 1
        self.bytes -= len(message.frame)
        self.uncommitted_bytes -= len(message.frame)
        settle(message)

    def abandon(self, messages: Iterable[Message]) -> None:
        """The queue that these unwritten messages were for ends: they are safe when that is on disk, not before."""
        self.safes.extend(messages)

    def touch(self, queue: StoredQueue) -> None:
        """Something of `queue` was acknowledged that is on disk, or on its way there."""
        if not queue.touched:
            queue.touched = True
            self.acknowledged_queues.append(queue)

    # ---- everything else

    def retain(self, message: Message) -> None:
        """`message` becomes its topic's retained message; an empty payload removes it."""
        self.retained.pop(message.topic, None)  # in the order in which they were set last
        self.retained[message.topic] = message if message.payload_at < len(message.frame) else None
        if message.qos:
            self.hold(message)

    def forget_retained(self, topic: str) -> None:
        """The retained message of `topic` is gone (expired)."""
        self.retained[topic] = None

    def hold(self, message: Message) -> None:
        """`message` is not safe before the coming commit."""
        size = len(message.frame)
        message.unsafe += 1
        self.waiting += 1
        self.bytes += size
        self.uncommitted_bytes += size
        self.safes.append(message)

    def receive_id(self, session_id: int, packet_id: int) -> None:
        """A QoS 2 PUBLISH with `packet_id` was received by a durable session."""
        self.inbound[session_id, packet_id] = True
        self.urgent = True

    def release_id(self, session_id: int, packet_id: int) -> None:
        """Its PUBREL has come."""
        self.inbound[session_id, packet_id] = False
        self.urgent = True

    def save_session(self, record: SessionRecord) -> None:
        """A durable session is new or changed."""
        self.session_records[record.session_id] = record

    def remove_session(self, session_id: int) -> None:
        """A durable session ended, with its subscriptions, identifiers and queue."""
        self.removals += 1
        self.batch.removed_sessions.append(session_id)
        self.session_records.pop(session_id, None)
        for key in [key for key in self.subscriptions if key[0] == session_id]:
            del self.subscriptions[key]
        for pair in [pair for pair in self.inbound if pair[0] == session_id]:
            del self.inbound[pair]

    def save_subscription(self, record: SubscriptionRecord) -> None:
        """A durable session subscribed."""
        self.subscriptions[record.session_id, record.topic_filter] = record

    def remove_subscription(self, session_id: int, topic_filter: str) -> None:
        """A durable session unsubscribed."""
        self.subscriptions[session_id, topic_filter] = None

    def after_commit(self, callback: Callable[[], None]) -> None:
        """Call `callback` when everything up to now is on disk, without waiting out the commit delay."""
        self.callbacks.append(callback)
        self.urgent = True

    # ---- the journal's side

    def seal(self, waiting_since: float | None = None) -> Sealed:
        """Hand over everything since the last seal, as one batch.

        With `waiting_since`, queues whose messages all came after that stay for a later batch, unless somebody waits for
        more than messages: their recipients are there and may be about to acknowledge, and then nothing is to be written.
        """
        for add in self.before_seal:
            add()
        young = [] if waiting_since is None else self._take_young(waiting_since)
        batch = self.batch
        batch.sessions = list(self.session_records.values())
        for (session_id, topic_filter), record in self.subscriptions.items():
            if record is None:
                batch.removed_subscriptions.append((session_id, topic_filter))
            else:
                batch.subscriptions.append(record)
        batch.retained = self.retained
        batch.inbound = self.inbound
        queues = self.dirty_queues + [queue for queue in self.acknowledged_queues if not queue.dirty]
        removed = set(batch.removed_sessions)
        # What was appended and acknowledged since the last commit leaves nothing to write: the disk never hears of it.
        writes = [queue.seal() for queue in queues if queue.queue_id not in removed]
        batch.queues = [write for write in writes if write is not None]
        sealed = Sealed(self, batch, queues, self.safes, self.callbacks, self.bytes)
        self._clear()
        self._put_back(young)
        return sealed

    def _take_young(self, waiting_since: float) -> list[StoredQueue]:
        """Take out the queues of whose messages none came before."""
        queues = self.dirty_queues
        if self.urgent or self.callbacks or self.safes:
            return []
        if any(queue.moved for queue in queues) or any(queue.moved for queue in self.acknowledged_queues):
            return []  # what left one queue for another is in the same batch
        young = [queue for queue in queues if not queue.touched and _is_young(queue, waiting_since)]
        if young:
            taken = set(young)
            self.dirty_queues = [queue for queue in queues if queue not in taken]
            for queue in young:
                self._count(queue, -1)
        return young

    def _put_back(self, young: list[StoredQueue]) -> None:
        self.dirty_queues += young
        for queue in young:
            self._count(queue, 1)

    def _count(self, queue: StoredQueue, times: int) -> None:
        self.waiting += times * len(queue.unwritten)
        self.bytes += times * sum(len(message.frame) for message in queue.unwritten.values())


def _is_young(queue: StoredQueue, waiting_since: float) -> bool:
    """Whether there are unwritten messages, and the oldest came after `waiting_since`."""
    for message in queue.unwritten.values():
        return message.received_at > waiting_since
    return False


class Sealed:
    """One batch on its way to the disk, and what happens when it is there."""

    __slots__ = ("_bytes", "_callbacks", "_ends", "_pending", "_queues", "_safes", "batch")

    def __init__(
        self,
        pending: Pending,
        batch: Batch,
        queues: list[StoredQueue],
        safes: list[Message],
        callbacks: list[Callable[[], None]],
        size_bytes: int,
    ) -> None:
        self.batch = batch
        self._pending = pending
        self._queues = queues
        self._ends = [(queue.next_number, queue.sent_mark) for queue in queues]
        self._safes = safes
        self._callbacks = callbacks
        self._bytes = size_bytes

    def settle(self) -> None:
        """The batch is on disk: release everything that waited for it, in the order in which it came.

        A fault of ours with one of those who waited holds up none of the others: all faults are raised at the end,
        together, as an `ExceptionGroup`.
        """
        pending = self._pending
        pending.uncommitted_bytes -= self._bytes
        pending.removals -= len(self.batch.removed_sessions)
        faults: list[Exception] = []
        _for_each(self._safes, settle, faults)
        for write in self.batch.queues:
            for _, message in write.messages:  # what most of a batch is
                try:
                    settle(message)
                except Exception as fault:  # noqa: BLE001  raised again below
                    faults.append(fault)
        _for_each(zip(self._queues, self._ends, strict=True), self._tell_queue, faults)
        if self.batch.retained:
            _for_each((self.batch.retained,), pending.on_retained, faults)
        _for_each(self._callbacks, _call, faults)
        if faults:
            raise ExceptionGroup("while releasing what waited for a commit", faults)

    def _tell_queue(self, queue_and_end: tuple[StoredQueue, tuple[int, int]]) -> None:
        queue, (numbers_below, sent_mark) = queue_and_end
        queue.on_committed(numbers_below, self._pending.window_bytes, sent_mark)


def _for_each(items: Iterable[_Item], act: Callable[[_Item], None], faults: list[Exception]) -> None:
    """Call `act` with each of `items`; what it raises for one is collected, and the next has its turn."""
    for item in items:
        try:
            act(item)
        except Exception as fault:  # noqa: BLE001  raised again by whoever collects
            faults.append(fault)


def _tell_nobody(_: Mapping[str, Message | None]) -> None:
    """Nobody keeps retained messages."""


def _call(callback: Callable[[], None]) -> None:
    callback()


def settle(message: Message) -> None:
    """One durable recipient less that does not have `message` safe; the last one releases its acknowledgement."""
    origin = message.source or message
    origin.unsafe -= 1
    if not origin.unsafe and origin.publisher is not None:
        origin.publisher.on_safe(origin)
