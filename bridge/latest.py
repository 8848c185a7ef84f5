"""Which message of a topic is the latest, for rules that keep the latest only.

What is superseded is dropped when its successor comes, or at the latest when its turn to be sent has come: a queue would
have to remember each hole in it, so there may be so many and no more. After a restart nothing is known until something new
comes, and what was kept is sent in its order, the latest last. Bounded: of very many topics all are forgotten at once.
"""

from __future__ import annotations

from typing import Final

from edge_broker.core.queue import Queue

SUPERSEDED: Final = "superseded"
"""The reason under which they are counted. Nobody misses them, so they become no dead letters."""

_MOST_TOPICS: Final = 10_000
_MOST_HOLES: Final = 1_000


class Latest:
    """The latest numbers in one queue."""

    def __init__(self, queue: Queue) -> None:
        self._queue = queue
        self._numbers: dict[str, int] = {}

    def note(self, topic: str, number: int) -> None:
        """`number` was appended, with a message of `topic`."""
        numbers = self._numbers
        before = numbers.get(topic)
        if before is None and len(numbers) >= _MOST_TOPICS:
            numbers.clear()
        numbers[topic] = number
        queue = self._queue
        holes = queue.acknowledged
        if before is not None and (holes is None or len(holes) < _MOST_HOLES) and queue.may_drop(before):
            queue.take_away(before)
            queue.tell_skipped(before)
            queue.count_drop(SUPERSEDED)

    def is_superseded(self, topic: str, number: int) -> bool:
        """Whether a later message of `topic` is known."""
        return self._numbers.get(topic, 0) > number
