"""What has been seen of each gateway's lanes: which messages are new, which come again, which never came.

A lane's messages are numbered without gaps, so what was seen of it is a few stretches of numbers, however many they are.
Two epochs of a lane may use a number each: a message that was sent and not kept before a crash leaves its number to
another. So a message is known by lane, epoch and number, and a number is missing only where no epoch of its lane has it.

Memory is bounded per lane: of very many stretches or epochs the oldest are forgotten, and only the numbers remembered, so
that they do not look missing. Gateways send in order, so nothing of those comes any more; if it did, it would be taken
for new, since a message twice is better than one lost. Pure: no clock, no disk.
"""

from __future__ import annotations

from bisect import bisect_left, bisect_right
from collections.abc import Iterable, Iterator
from typing import Final, NamedTuple

_MAX_STRETCHES: Final = 1_000
_MAX_EPOCHS: Final = 64

Stretch = tuple[int, int]
"""Numbers from the first up to, and without, the second."""


class Stretches:
    """A set of whole numbers, kept as stretches in rising order that do not touch."""

    __slots__ = ("_ends", "_starts")

    def __init__(self, stretches: Iterable[Stretch] = ()) -> None:
        self._starts: list[int] = []
        self._ends: list[int] = []
        for start, end in stretches:
            self.add(start, end)

    def __len__(self) -> int:
        return len(self._starts)

    def __iter__(self) -> Iterator[Stretch]:
        return zip(self._starts, self._ends, strict=True)

    def __contains__(self, number: int) -> bool:
        at = bisect_right(self._starts, number) - 1
        return at >= 0 and number < self._ends[at]

    def add(self, start: int, end: int) -> None:
        """Add the numbers from `start` up to `end`; whatever touches them becomes one stretch with them."""
        if start >= end:
            return
        starts, ends = self._starts, self._ends
        if ends and start == ends[-1]:  # what nearly every message is
            ends[-1] = end
            return
        first = bisect_left(ends, start)
        last = bisect_right(starts, end)
        if first < last:
            start = min(start, starts[first])
            end = max(end, ends[last - 1])
        starts[first:last] = [start]
        ends[first:last] = [end]

    def holes(self) -> Iterator[Stretch]:
        """The stretches between the first number and the last one that are not in it."""
        return zip(self._ends[:-1], self._starts[1:], strict=True)

    def take_first(self) -> Stretch:
        """Take the lowest stretch out; there is one."""
        return self._starts.pop(0), self._ends.pop(0)


class LaneKey(NamedTuple):
    """A lane of a gateway."""

    gateway: str
    lane: str


class Lane:
    """One lane: what was seen of it in each epoch that still counts, and in `past` the numbers of everything else that
    came or will not come: seen in epochs that are over, and skipped by the gateway."""

    __slots__ = ("epochs", "past")

    def __init__(self) -> None:
        self.epochs: dict[int, Stretches] = {}
        self.past = Stretches()

    def take(self, epoch: int, number: int) -> bool:
        """Whether this message is new; it is not from then on."""
        seen = self.epochs.get(epoch)
        if seen is None:
            seen = self.epochs[epoch] = Stretches()
            self._forget_oldest_epochs()
        elif number in seen:
            return False
        seen.add(number, number + 1)
        if len(seen) > _MAX_STRETCHES:
            self._add_past(*seen.take_first())
        return True

    def skip(self, start: int, end: int) -> None:
        """The gateway says that it will not send these numbers: policy dropped them."""
        self._add_past(start, end)

    def gaps(self) -> list[Stretch]:
        """The numbers between the first and the last one known that came in no epoch and were not announced as skipped."""
        everything = Stretches(self.past)
        for seen in self.epochs.values():
            for start, end in seen:
                everything.add(start, end)
        return list(everything.holes())

    def _add_past(self, start: int, end: int) -> None:
        self.past.add(start, end)
        if len(self.past) > _MAX_STRETCHES:
            self.past.take_first()

    def _forget_oldest_epochs(self) -> None:
        while len(self.epochs) > _MAX_EPOCHS:
            for start, end in self.epochs.pop(min(self.epochs)):
                self._add_past(start, end)


class Windows:
    """All lanes. `duplicates`, `taken`: messages since the start. `changed`: lanes to be written with the next commit."""

    def __init__(self) -> None:
        self.lanes: dict[LaneKey, Lane] = {}
        self.changed: set[LaneKey] = set()
        self.taken = self.duplicates = 0

    def take(self, key: LaneKey, epoch: int, number: int) -> bool:
        """Whether this message is new; counts it either way."""
        lane = self.lanes.get(key)
        if lane is None:
            lane = self.lanes[key] = Lane()
        if not lane.take(epoch, number):
            self.duplicates += 1
            return False
        self.taken += 1
        self.changed.add(key)
        return True

    def skip(self, key: LaneKey, start: int, end: int) -> None:
        """Numbers that will not come."""
        self.lanes.setdefault(key, Lane()).skip(start, end)
        self.changed.add(key)
