"""Times on disk: how the monotonic clock's seconds become a number that keeps its meaning, and what it means later.

A machine without a clock of its own learns late what time it is. So a time is written as a *stamp*: milliseconds on a
*timeline*, whose number stands in the bits above them. Each run has a timeline, and stamps with one fixed offset to the
monotonic clock, whatever the wall clock does meanwhile; what its stamps are off by, once that is known, is one number
per timeline beside them (`deltas`), and no stamp is written twice. Timeline 0 is plain wall time.

Immutable, and pure: `clock` decides, this translates.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final

TIMELINE_BITS: Final = 44
"""Milliseconds below it: 557 years. 19 bits of a signed 64-bit number are left for the timelines."""
MAX_TIMELINE: Final = (1 << 63 - TIMELINE_BITS) - 1
_MILLISECONDS: Final = (1 << TIMELINE_BITS) - 1


class Times:
    """The translation of one moment of a run, both ways; times in seconds of the monotonic clock.

    `offset`: of this run's stamps to the monotonic clock. `timeline`: its number; `base` is that in its place. `since`:
    what came before it is older than this timeline, and is written as wall time. `counted`: by how many seconds the wall
    clock proved to be ahead of `offset` while nobody ran; older times lie so much further back. `deltas`: what the stamps
    of other timelines are off by, in milliseconds, by number. `joined`: number and delta of an earlier timeline that is
    read as one with this: whatever is learned of the one holds for the other.
    """

    __slots__ = ("_deltas", "_joined", "_older_offset", "base", "offset", "since", "timeline")

    def __init__(
        self,
        offset: float,
        *,
        timeline: int = 0,
        since: float = float("-inf"),
        counted: float = 0.0,
        deltas: Mapping[int, int] | None = None,
        joined: tuple[int, int] | None = None,
    ) -> None:
        self.offset = offset
        self.timeline = timeline
        self.base = timeline << TIMELINE_BITS
        self.since = since
        self._older_offset = offset + counted
        self._deltas = dict(deltas or {})
        self._joined = joined

    def stamp(self, seconds: float) -> int:
        """What is written for `seconds`. `segment` does the first half by itself, for speed."""
        if seconds >= self.since:
            return int((seconds + self.offset) * 1000) + self.base
        return max(0, int((seconds + self._older_offset) * 1000))

    def rule(self, timeline: int) -> tuple[int, float]:
        """(milliseconds, seconds) to take off a stamp of `timeline` and off its seconds, in this order."""
        if timeline == self.timeline:
            return self.base, self.offset
        if self._joined is not None and timeline == self._joined[0]:
            return (timeline << TIMELINE_BITS) - self._joined[1], self.offset
        return (timeline << TIMELINE_BITS) - self._deltas.get(timeline, 0), self._older_offset

    def read(self, stamp: int) -> float:
        """The seconds that `stamp` stands for."""
        milliseconds, offset = self.rule(stamp >> TIMELINE_BITS)
        return (stamp - milliseconds) / 1000 - offset


def wall_times(deltas: Mapping[int, int]) -> Times:
    """A translation whose seconds are the wall clock's, as far as it is known by now: for whoever looks from outside."""
    return Times(0.0, deltas=deltas)
