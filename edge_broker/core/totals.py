"""How much all durable queues together may hold, and what gives way when that is reached.

Every change of a queue is counted here at once, so the sum is exact but for the bytes of messages from before a restart,
which are assumed (`Queue.packet_bytes`). What happens at the limit is what the queue that is to get the message says of
its own limit: where it drops the oldest (or keeps the latest), the oldest dead letter gives way, and where there is none,
the oldest message of the queue that holds most; where it drops the newest or rejects, that holds for all of them together.
What gives way for the whole makes no dead letter: it would take the same room.

A broker without such a limit has plain queues, and none of this costs it anything.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import TYPE_CHECKING, Final

from edge_broker.core.message import Message
from edge_broker.core.queue import Queue
from edge_broker.core.shedding import STORE_LIMIT

if TYPE_CHECKING:
    from edge_broker.core.ops import Page, QueueState
    from edge_broker.core.pending import Pending

_MOST_AT_ONCE: Final = 1_000
"""Messages that one queue gives way with before it is looked again which one holds most."""


class Totals:
    """`messages`, `size_bytes`: of all queues in `queues`, by id. `dropped`: messages that gave way. 0 is no limit.

    `expendable` gives way before all others.
    """

    may_reject: Final = True
    """As a recipient that is full has it: the router looks at each message."""

    def __init__(self, max_messages: int, max_bytes: int) -> None:
        self._max_messages = max_messages
        self._max_bytes = max_bytes
        self.messages = self.size_bytes = 0
        self.dropped = 0
        self.queues: dict[int, CountedQueue] = {}
        self.expendable: Queue | None = None
        self._longest: CountedQueue | None = None
        self._left = 0  # messages that it may give way with before another look

    def has_room(self, size_bytes: int) -> bool:
        """Whether a packet of that size may come."""
        return not (
            0 < self._max_messages <= self.messages or 0 < self._max_bytes < self.size_bytes + size_bytes
        )

    def make_room(self, size_bytes: int) -> bool:
        """Have older messages give way to a packet of that size; False where that does not help."""
        if 0 < self._max_bytes < size_bytes:
            return False
        while not self.has_room(size_bytes):
            if not self._drop_one():
                return False
            self.dropped += 1
        return True

    def _drop_one(self) -> bool:
        if self.expendable is not None and self.expendable.drop_oldest(STORE_LIMIT):
            return True
        if self._left and self._longest is not None and self._longest.drop_oldest(STORE_LIMIT):
            self._left -= 1
            return True
        for queue in self._longest_first():
            if queue.drop_oldest(STORE_LIMIT):
                self._longest = queue
                self._left = min(_MOST_AT_ONCE, queue.depth // 100)
                return True
        return False

    def _longest_first(self) -> Iterable[CountedQueue]:
        by_messages = 0 < self._max_messages <= self.messages
        return sorted(
            self.queues.values(),
            key=lambda queue: queue.depth if by_messages else queue.packet_bytes,
            reverse=True,
        )

    def forget(self, queue: CountedQueue) -> None:
        """`queue` has ended, and holds nothing any more."""
        self.queues.pop(queue.queue_id, None)
        if self._longest is queue:
            self._longest = None


class CountedQueue(Queue):
    """A durable queue whose content is counted in `pending.totals`."""

    __slots__ = ("_counted_bytes", "_counted_messages", "_has_ended", "_totals")

    def __init__(self, queue_id: int, pending: Pending) -> None:
        super().__init__(queue_id, pending)
        assert pending.totals is not None
        self._totals = pending.totals
        self._counted_messages = self._counted_bytes = 0
        self._has_ended = False
        self._totals.queues[queue_id] = self

    @classmethod
    def restore(cls, state: QueueState, pending: Pending) -> CountedQueue:
        """As `Queue.restore`."""
        queue = super().restore(state, pending)
        assert isinstance(queue, CountedQueue)
        queue._count()
        return queue

    def _count(self) -> None:
        """Tell the totals what has changed since the last time."""
        messages, size_bytes = (0, 0) if self._has_ended else (self.depth, self.packet_bytes)
        totals = self._totals
        totals.messages += messages - self._counted_messages
        totals.size_bytes += size_bytes - self._counted_bytes
        self._counted_messages, self._counted_bytes = messages, size_bytes

    def append(self, message: Message) -> int:
        number = super().append(message)
        self._count()
        return number

    def complete(self, number: int) -> bool:
        is_done = super().complete(number)
        self._count()
        return is_done

    def complete_range(self, first: int, count: int) -> int:
        done = super().complete_range(first, count)
        self._count()
        return done

    def release(self, number: int) -> bool:
        is_released = super().release(number)
        self._count()
        return is_released

    def take_away(self, number: int, on_disk: Message | None = None) -> None:
        super().take_away(number, on_disk)
        self._count()

    def take_page(self, page: Page | None) -> None:
        super().take_page(page)
        self._count()

    def discard(self) -> None:
        super().discard()
        self._has_ended = True
        self._count()
        self._totals.forget(self)
