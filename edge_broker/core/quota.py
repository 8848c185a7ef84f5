"""How much one durable queue may hold, and what gives way when it is full.

- `drop_oldest`: the oldest message that was not sent yet makes room; readings of now are worth more than those of then.
- `drop_newest`: what comes is not taken; the beginning of a story is worth more than its end.
- `keep_latest`: the oldest message of the same topic makes room, or where there is none, the oldest of all.
- `reject`: nobody gets the message, and its publisher is told (``Router.full``).

A message that is larger than the whole queue may be is not taken, and nothing gives way to it. What all queues together may
hold comes on top (``totals``). Whatever is dropped is counted, in the queue and by reason. What was sent and not
acknowledged is never dropped: it is the recipient's to answer.
"""

from __future__ import annotations

from collections import deque
from typing import TYPE_CHECKING, Final, Protocol

from edge_broker.core.message import Message
from edge_broker.core.shedding import QUEUE_FULL, STORE_LIMIT

if TYPE_CHECKING:
    from edge_broker.core.pending import Pending
    from edge_broker.core.totals import Totals

DROP_OLDEST: Final = "drop_oldest"
DROP_NEWEST: Final = "drop_newest"
KEEP_LATEST: Final = "keep_latest"
REJECT: Final = "reject"


class Holder(Protocol):
    """What a quota is of: one queue, or several together as one of them has it."""

    @property
    def depth(self) -> int:
        """Messages in it."""

    @property
    def packet_bytes(self) -> int:
        """Their packets."""

    @property
    def pending(self) -> Pending | None:
        """None where it is in memory only."""

    def may_drop(self, number: int) -> bool:
        """Whether `number` waits and was not sent."""

    def drop(self, number: int) -> bool:
        """Drop `number`; False if it may not be."""

    def drop_oldest(self) -> bool:
        """Drop the oldest that may be; False if there is none."""


class Quota:
    """What every queue of one kind may hold: messages and bytes of their packets; 0 is no limit.

    `totals`: what all queues together may hold, None without such a limit. `largest_bytes`: no packet is larger.
    `is_limited`: whether there is a limit at all.
    """

    __slots__ = ("_largest_bytes", "_max_bytes", "_max_messages", "_totals", "is_limited", "when_full")

    def __init__(
        self,
        max_messages: int = 0,
        max_bytes: int = 0,
        when_full: str = DROP_OLDEST,
        totals: Totals | None = None,
        largest_bytes: int = 0,
    ) -> None:
        self._max_messages = max_messages
        self._max_bytes = max_bytes
        self._totals = totals
        self._largest_bytes = largest_bytes
        self.when_full = when_full
        self.is_limited = max_messages > 0 or max_bytes > 0 or totals is not None

    def _is_full(self, queue: Holder, size_bytes: int) -> bool:
        """Whether a packet of that size is more than `queue` by itself may hold."""
        return (self._max_messages > 0 and queue.depth >= self._max_messages) or (
            self._max_bytes > 0 and queue.packet_bytes + size_bytes > self._max_bytes
        )

    def rejects(self, queue: Holder, size_bytes: int) -> bool:
        """Whether a packet of that size is to be refused to its publisher, since `queue` has no room for it."""
        if self.when_full != REJECT or queue.pending is None:
            return False
        return self._is_full(queue, size_bytes) or (
            self._totals is not None and not self._totals.has_room(size_bytes)
        )

    def may_reject(self, queue: Holder, messages: int = 0, size_bytes: int = 0) -> bool:
        """Whether, with so many more in it, `queue` has no room for each packet that may come: worth a look then."""
        if self.when_full != REJECT or queue.pending is None:
            return False
        return (self._max_messages > 0 and queue.depth + messages >= self._max_messages) or (
            self._max_bytes > 0 and queue.packet_bytes + size_bytes + self._largest_bytes > self._max_bytes
        )

    def make_room(self, queue: Holder, message: Message, by_topic: Numbers | None) -> str:
        """Have what gives way to `message` dropped; why it may not be appended all the same, empty if it may.

        `by_topic` for `keep_latest`.
        """
        size = len(message.frame)
        if 0 < self._max_bytes < size:
            return QUEUE_FULL  # however much gives way
        while self._is_full(queue, size):
            if self.when_full in (DROP_NEWEST, REJECT):
                return QUEUE_FULL
            number = by_topic.take_oldest(queue, message.topic) if by_topic is not None else 0
            if not (queue.drop(number) if number else queue.drop_oldest()):
                return QUEUE_FULL
        totals = self._totals
        if totals is None or totals.has_room(size):
            return ""
        if self.when_full in (DROP_NEWEST, REJECT) or not totals.make_room(size):
            return STORE_LIMIT
        return ""


class Numbers:
    """The numbers in a queue by topic, for `keep_latest`. Numbers from before a restart are not in it."""

    __slots__ = ("_by_topic",)

    def __init__(self) -> None:
        self._by_topic: dict[str, deque[int]] = {}

    def add(self, topic: str, number: int) -> None:
        """`number` was appended, with a message of `topic`."""
        self._by_topic.setdefault(topic, deque()).append(number)

    def take_oldest(self, queue: Holder, topic: str) -> int:
        """The oldest number of `topic` that may be dropped, 0 where there is none; forgets it and those before."""
        numbers = self._by_topic.get(topic)
        while numbers:
            number = numbers.popleft()
            if queue.may_drop(number):
                return number
        self._by_topic.pop(topic, None)
        return 0
