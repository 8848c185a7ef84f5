"""What has been seen of each gateway's lanes: which messages are new, which come again, which never came.

A lane's messages are numbered without gaps, so what was seen of it is a few stretches of numbers, however many they are.
Two epochs of a lane may use a number each: a message that was sent and not kept before a crash leaves its number to
another. So a message is known by lane, epoch and number, and a number is missing only where no epoch of its lane has it.

Memory is bounded. Of very many stretches or epochs of a lane the oldest are forgotten, and only the numbers remembered, so
that they do not look missing. Gateways send in order, so nothing of those comes any more; if it did, it would be taken
for new, since a message twice is better than one lost. Of very many lanes a gateway loses its own that was silent longest;
a gateway too many is not followed at all, and is told apart as such. Pure: no clock, no disk.
"""

from __future__ import annotations

from bisect import bisect_left, bisect_right
from collections.abc import Iterable, Iterator
from typing import Final, NamedTuple

_MAX_EPOCHS: Final = 64
_MOST_STRETCHES: Final = 1_000
_FEWEST_STRETCHES: Final = 8
_SHARED_STRETCHES: Final = 50_000
"""Of one lane at most, of one lane in any case, and what all lanes share when they are many."""

PAST: Final = -1
"""Stands for the numbers of no epoch, where epochs are told apart."""

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

    def add_new(self, start: int, end: int) -> list[Stretch]:
        """Add the numbers from `start` up to `end`, and tell which of them were not there, as stretches."""
        ends = self._ends
        if ends and start == ends[-1] and start < end:
            ends[-1] = end
            return [(start, end)]
        new: list[Stretch] = []
        at = start
        for place in range(bisect_right(ends, start), len(ends)):
            known = self._starts[place]
            if known >= end:
                break
            if known > at:
                new.append((at, known))
            at = max(at, ends[place])
        if at < end:
            new.append((at, end))
        if new:
            self.add(start, end)
        return new

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
    came or will not come: seen in epochs that are over, and skipped by the gateway.

    `heard_at`: when something of it came last, in whatever its owner counts. `changed`: epochs whose numbers are not
    written yet, `PAST` for those of none.
    """

    __slots__ = ("changed", "epochs", "heard_at", "past", "stretches")

    def __init__(self) -> None:
        self.epochs: dict[int, Stretches] = {}
        self.past = Stretches()
        self.heard_at = 0.0
        self.stretches = 0  # in all epochs together
        self.changed: list[int] = []  # a list: there are very many lanes, and rarely two of these

    def restore(self, epoch: int, stretches: Iterable[Stretch]) -> None:
        """Put back what was written of `epoch`."""
        seen = Stretches(stretches)
        if epoch == PAST:
            self.past = seen
        else:
            self.epochs[epoch] = seen
            self.stretches += len(seen)

    def written(self, epoch: int) -> list[Stretch] | None:
        """What is to be written of `epoch`; None where it is forgotten."""
        seen = self.past if epoch == PAST else self.epochs.get(epoch)
        return None if seen is None else list(seen)

    def take(self, epoch: int, start: int, end: int, most_stretches: int = _MOST_STRETCHES) -> list[Stretch]:
        """Which of the messages from `start` up to `end` are new; they are not from then on."""
        seen = self.epochs.get(epoch)
        if seen is None:
            seen = self.epochs[epoch] = Stretches()
        before = len(seen)
        new = seen.add_new(start, end)
        if new:
            self._mark(epoch)
            self.stretches += len(seen) - before
            self._forget_oldest_epochs()
            while self.stretches > most_stretches:
                self._forget_first(most_stretches)
        return new

    def skip(self, start: int, end: int, most_stretches: int = _MOST_STRETCHES) -> None:
        """The gateway says that it will not send these numbers: policy dropped them."""
        self._add_past(start, end, most_stretches)

    def gaps(self) -> list[Stretch]:
        """The numbers between the first and the last one known that came in no epoch and were not announced as skipped."""
        if len(self.epochs) == 1 and not len(self.past):
            return list(next(iter(self.epochs.values())).holes())
        everything = Stretches(self.past)
        for seen in self.epochs.values():
            for start, end in seen:
                everything.add(start, end)
        return list(everything.holes())

    def _mark(self, epoch: int) -> None:
        if epoch not in self.changed:
            self.changed.append(epoch)

    def _add_past(self, start: int, end: int, most_stretches: int) -> None:
        self.past.add(start, end)
        self._mark(PAST)
        while len(self.past) > most_stretches:
            self.past.take_first()

    def _forget_first(self, most_stretches: int) -> None:
        """The lowest stretch of the oldest epoch."""
        epoch = min(self.epochs)
        seen = self.epochs[epoch]
        if len(seen) > 1 or len(self.epochs) == 1:
            self._add_past(*seen.take_first(), most_stretches)
            self.stretches -= 1
        else:
            self._forget_epoch(epoch, most_stretches)
        self._mark(epoch)

    def _forget_oldest_epochs(self) -> None:
        while len(self.epochs) > _MAX_EPOCHS:
            self._forget_epoch(min(self.epochs), _MOST_STRETCHES)

    def _forget_epoch(self, epoch: int, most_stretches: int) -> None:
        seen = self.epochs.pop(epoch)
        self.stretches -= len(seen)
        self._mark(epoch)
        for start, end in seen:
            self._add_past(start, end, most_stretches)


class Windows:
    """All lanes. `duplicates`, `taken`: messages since the start; `untracked`: those of gateways that are too many.
    `forgotten`: lanes given up for others of their gateway. `changed`: lanes to be written with the next commit; where one
    is not among `lanes` any more, it is forgotten."""

    def __init__(self, max_gateways: int = 5_000, max_lanes_per_gateway: int = 8) -> None:
        self.lanes: dict[LaneKey, Lane] = {}
        self.changed: set[LaneKey] = set()
        self.now = 0.0
        self.taken = self.duplicates = self.untracked = self.forgotten = 0
        self._max_gateways = max_gateways
        self._max_lanes = max_lanes_per_gateway
        self._by_gateway: dict[str, list[LaneKey]] = {}

    @property
    def gateways(self) -> int:
        """How many are followed."""
        return len(self._by_gateway)

    def take(self, key: LaneKey, epoch: int, number: int) -> bool:
        """Whether this message is new; counts it either way."""
        return bool(self.take_run(key, epoch, number, number + 1))

    def take_run(self, key: LaneKey, epoch: int, start: int, end: int) -> list[Stretch]:
        """Which of the messages from `start` up to `end` are new; counts them all."""
        lane = self.lanes.get(key) or self._begin(key)
        if lane is None:
            self.untracked += end - start
            return [(start, end)]
        new = lane.take(epoch, start, end, self._most_stretches())
        fresh = sum(stop - first for first, stop in new)
        self.taken += fresh
        self.duplicates += end - start - fresh
        lane.heard_at = self.now
        if new:
            self.changed.add(key)
        return new

    def skip(self, key: LaneKey, start: int, end: int) -> None:
        """Numbers that will not come."""
        lane = self.lanes.get(key) or self._begin(key)
        if lane is not None:
            lane.skip(start, end, self._most_stretches())
            lane.heard_at = self.now
            self.changed.add(key)

    def restore(self, key: LaneKey, epoch: int, stretches: Iterable[Stretch], heard_at: float) -> None:
        """Put back what was written, whatever the limits are now."""
        lane = self.lanes.get(key)
        if lane is None:
            lane = self.lanes[key] = Lane()
            self._by_gateway.setdefault(key.gateway, []).append(key)
        lane.restore(epoch, stretches)
        lane.heard_at = max(lane.heard_at, heard_at)

    def _most_stretches(self) -> int:
        return max(_FEWEST_STRETCHES, min(_MOST_STRETCHES, _SHARED_STRETCHES // (len(self.lanes) or 1)))

    def _begin(self, key: LaneKey) -> Lane | None:
        """A lane not heard of before; None where its gateway is one too many."""
        mine = self._by_gateway.get(key.gateway)
        if mine is None:
            if len(self._by_gateway) >= self._max_gateways:
                return None
            mine = self._by_gateway[key.gateway] = []
        if len(mine) >= self._max_lanes:
            silent = min(mine, key=lambda one: self.lanes[one].heard_at)
            mine.remove(silent)
            del self.lanes[silent]
            self.changed.add(silent)
            self.forgotten += 1
        mine.append(key)
        lane = self.lanes[key] = Lane()
        lane.changed.append(PAST)
        return lane
