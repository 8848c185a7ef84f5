"""How much one durable queue may hold, and what gives way when it is full.

- `drop_oldest`: the oldest message that was not sent yet makes room; readings of now are worth more than those of then.
- `drop_newest`: what comes is not taken; the beginning of a story is worth more than its end.
- `keep_latest`: the oldest message of the same topic makes room, or where there is none, the oldest of all.
- `reject`: nobody gets the message, and its publisher is told (``Router.full``).

Whatever is dropped is counted, in the queue and by reason. What was sent and not acknowledged is never dropped: it is
the recipient's to answer.
"""

from __future__ import annotations

from collections import deque
from typing import Final

from edge_broker.core.message import Message
from edge_broker.core.queue import Queue

DROP_OLDEST: Final = "drop_oldest"
DROP_NEWEST: Final = "drop_newest"
KEEP_LATEST: Final = "keep_latest"
REJECT: Final = "reject"


class Quota:
    """What every queue of one kind may hold: messages and bytes of their packets; 0 is no limit.

    `is_limited`: whether there is a limit at all.
    """

    __slots__ = ("_max_bytes", "_max_messages", "is_limited", "when_full")

    def __init__(self, max_messages: int = 0, max_bytes: int = 0, when_full: str = DROP_OLDEST) -> None:
        self._max_messages = max_messages
        self._max_bytes = max_bytes
        self.when_full = when_full
        self.is_limited = max_messages > 0 or max_bytes > 0

    def is_full(self, queue: Queue, size_bytes: int = 1) -> bool:
        """Whether a packet of that size is more than `queue` may hold."""
        return (self._max_messages > 0 and queue.depth >= self._max_messages) or (
            self._max_bytes > 0 and queue.packet_bytes + size_bytes > self._max_bytes
        )

    def is_full_behind(self, queue: Queue, size_bytes: int) -> bool:
        """Whether there is no room for another one like it, once a packet of that size is in `queue`."""
        return (self._max_messages > 0 and queue.depth + 1 >= self._max_messages) or (
            self._max_bytes > 0 and queue.packet_bytes + 2 * size_bytes > self._max_bytes
        )

    def make_room(self, queue: Queue, message: Message, by_topic: Numbers | None) -> bool:
        """Whether `message` may be appended to `queue`; drops what gives way to it. `by_topic` for `keep_latest`."""
        size = len(message.frame)
        while self.is_full(queue, size):
            if self.when_full in (DROP_NEWEST, REJECT):
                return False
            number = by_topic.take_oldest(queue, message.topic) if by_topic is not None else 0
            if not (queue.drop(number) if number else queue.drop_oldest()):
                return False
        return True


class Numbers:
    """The numbers in a queue by topic, for `keep_latest`. Numbers from before a restart are not in it."""

    __slots__ = ("_by_topic",)

    def __init__(self) -> None:
        self._by_topic: dict[str, deque[int]] = {}

    def add(self, topic: str, number: int) -> None:
        """`number` was appended, with a message of `topic`."""
        self._by_topic.setdefault(topic, deque()).append(number)

    def take_oldest(self, queue: Queue, topic: str) -> int:
        """The oldest number of `topic` that may be dropped, 0 where there is none; forgets it and those before."""
        numbers = self._by_topic.get(topic)
        while numbers:
            number = numbers.popleft()
            if queue.may_drop(number):
                return number
        self._by_topic.pop(topic, None)
        return 0
