"""The store's contract in dicts: what `core.ops` promises, without a disk.

A batch is applied whole or not at all. Pages hold committed messages only. `snapshot` gives what a crash would leave.
Objects are copied on the way in and out, so that nothing in memory passes for something on disk.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field, replace

from edge_broker.core.message import Message
from edge_broker.core.ops import (
    Batch,
    Page,
    QueueState,
    QueueWrite,
    SessionRecord,
    Snapshot,
    SubscriptionRecord,
)


@dataclass
class StoredQueue:
    """One queue on "disk". `top`: the highest number that was ever stored; `highest`: or acknowledged, or released.

    `messages` are all those from `head` on, also what is acknowledged or released: the store need not remove it yet.
    """

    messages: dict[int, Message] = field(default_factory=dict)
    head: int = 1
    acknowledged: list[int] = field(default_factory=list)
    released: list[int] = field(default_factory=list)
    sent: int = 0
    top: int = 0
    highest: int = 0

    @property
    def waiting(self) -> set[int]:
        """Numbers whose messages the subscriber does not have yet."""
        return set(self.messages).difference(self.acknowledged, self.released)


class ModelStore:
    """Everything that was committed."""

    def __init__(self) -> None:
        self.epoch = 1
        self.commits = 0
        self.messages_written = 0
        self.sessions: dict[int, SessionRecord] = {}
        self.subscriptions: dict[tuple[int, str], SubscriptionRecord] = {}
        self.queues: dict[int, StoredQueue] = {}
        self.outboxes: dict[str, int] = {}
        self.lanes: dict[str, str] = {}
        self.retained: dict[str, Message] = {}
        self.inbound: set[tuple[int, int]] = set()
        self.highest_id = 0

    def apply(self, batch: Batch) -> None:
        """Commit `batch`."""
        self.commits += 1
        for session_id in batch.removed_sessions:
            self._remove(session_id)
        for record in batch.sessions:
            twins = [s for s in self.sessions.values() if s.client_id == record.client_id]
            assert all(twin.session_id == record.session_id for twin in twins), "two sessions of one client"
            self.sessions[record.session_id] = replace(record)
            self.highest_id = max(self.highest_id, record.session_id)
        for key in batch.removed_subscriptions:
            self.subscriptions.pop(key, None)
        for saved in batch.subscriptions:
            assert saved.session_id in self.sessions, "a subscription of no session"
            self.subscriptions[saved.session_id, saved.topic_filter] = replace(saved)
        for queue_id, name in batch.outboxes:
            name, _, lane = name.partition("/")
            self.outboxes[name] = queue_id
            if lane:
                self.lanes[name] = lane
            self.highest_id = max(self.highest_id, queue_id)
        for write in batch.queues:
            self._write(write)
        for topic, message in batch.retained.items():
            if message is None:
                self.retained.pop(topic, None)
            else:
                self.retained[topic] = _stored(message)
        for pair, held in batch.inbound.items():
            assert pair[0] in self.sessions or pair[0] in self.outboxes.values(), "an identifier of nobody"
            if held:
                self.inbound.add(pair)
            else:
                self.inbound.discard(pair)

    def _remove(self, session_id: int) -> None:
        self.sessions.pop(session_id, None)
        self.queues.pop(session_id, None)
        self.subscriptions = {key: s for key, s in self.subscriptions.items() if key[0] != session_id}
        self.inbound = {pair for pair in self.inbound if pair[0] != session_id}

    def _write(self, write: QueueWrite) -> None:
        queue = self.queues.setdefault(write.queue_id, StoredQueue())
        numbers = [number for number, _ in write.messages]
        assert numbers == sorted(numbers)
        assert all(number > queue.highest for number in numbers), "a number is given twice"
        assert write.head >= queue.head, "a head that moves back"
        for number, message in write.messages:
            queue.messages[number] = _stored(message)
        self.messages_written += len(numbers)
        queue.head, queue.acknowledged, queue.released = write.head, write.acknowledged, write.released
        queue.sent = write.sent
        queue.top = max([queue.top, *numbers])
        queue.highest = max([queue.highest, write.head - 1, *numbers, *write.acknowledged, *write.released])
        queue.messages = {n: m for n, m in queue.messages.items() if n >= write.head}

    def snapshot(self) -> Snapshot:
        """What the next run finds."""
        self.epoch += 1
        return Snapshot(
            epoch=self.epoch,
            sessions=[replace(record) for record in self.sessions.values()],
            subscriptions=[replace(record) for record in self.subscriptions.values()],
            queues={queue_id: self._state(queue_id, queue) for queue_id, queue in self.queues.items()},
            outboxes=dict(self.outboxes),
            lanes=dict(self.lanes),
            retained=[_stored(message) for message in self.retained.values()],
            inbound=sorted(self.inbound),
            next_queue_id=self.highest_id + 1,
        )

    def _state(self, queue_id: int, queue: StoredQueue) -> QueueState:
        return QueueState(
            queue_id,
            queue.head,
            queue.top + 1,
            list(queue.acknowledged),
            list(queue.released),
            len(queue.waiting),
            queue.sent,
        )

    def read_page(self, queue_id: int, from_number: int, max_messages: int) -> Page:
        """Committed messages from `from_number` on; an empty page that ends there if there are none."""
        queue = self.queues.get(queue_id, StoredQueue())
        numbers = sorted(number for number in queue.messages if number >= from_number)[:max_messages]
        end = numbers[-1] + 1 if numbers else from_number
        return Page(queue_id, [(number, _stored(queue.messages[number])) for number in numbers], end)

    def read_retained(self, topics: Sequence[str]) -> dict[str, Message]:
        """The committed retained messages of `topics`, without those that are not there."""
        return {topic: _stored(self.retained[topic]) for topic in topics if topic in self.retained}


def _stored(message: Message) -> Message:
    """`message` as it comes back: the same bytes, and nothing of what lives in memory only."""
    again = Message(
        message.frame,
        message.version,
        message.topic,
        message.packet_id_at,
        message.payload_at,
        message.qos,
        message.retain,
        0,
    )
    again.epoch, again.sequence = message.origin.epoch, message.origin.sequence
    again.received_at, again.expires_at = message.received_at, message.expires_at
    return again
