"""A bounded queue in which everybody has a line of their own, and the lines take turns.

Whoever puts in the most waits the longest: the lines are served round robin, and where the queue is full, the newest of
the longest line gives way to somebody with a shorter one.
"""

from __future__ import annotations

from collections import OrderedDict, deque
from typing import Generic, TypeVar

T = TypeVar("T")


class FairQueue(Generic[T]):
    """At most `limit` items."""

    def __init__(self, limit: int) -> None:
        self._limit = limit
        self._lines: OrderedDict[str, deque[T]] = OrderedDict()  # the next to be served first; none is empty
        self._length = 0

    def __len__(self) -> int:
        return self._length

    def put(self, owner: str, item: T) -> T | None:
        """Add `item` to the line of `owner`; returns what found no room: None, `item`, or another in its place."""
        displaced: T | None = None
        if self._length >= self._limit:
            longest = max(self._lines, key=lambda key: len(self._lines[key]))
            own = self._lines.get(owner)
            if (0 if own is None else len(own)) + 1 >= len(self._lines[longest]):
                return item
            displaced = self._lines[longest].pop()
            self._length -= 1
        self._lines.setdefault(owner, deque()).append(item)
        self._length += 1
        return displaced

    def take(self) -> T | None:
        """The first of the line whose turn it is; None where nothing waits."""
        if not self._length:
            return None
        owner, line = next(iter(self._lines.items()))
        item = line.popleft()
        self._length -= 1
        if line:
            self._lines.move_to_end(owner)
        else:
            del self._lines[owner]
        return item
