"""What time it is, where nobody may know: which clock a run goes by, and what it learns when the right time comes.

A Raspberry Pi has no clock of its own. It boots in 1970, or with the time of its last shutdown, and the clock steps when
the network comes. What this keeps true:

- Within a run only the monotonic clock counts. No step of the wall clock, in either direction, brings a deadline nearer
  or moves it away.
- A run that starts with a clock older than the newest time in the store goes on from that newest time, as if it had not
  been away: the downtime counts as zero. It is *unsynced* until the clock is ahead of that.
- When the clock comes right, what the run stamped is corrected by one number, on disk by a row of `meta`; and the time that
  nobody ran is counted, once, for everything from before.
- A clock years ahead of the store is not believed, because it would expire everything, nor one that was set back; unless
  the kernel says that it is synchronised. A clock from before this software is never believed.
- A step ahead in a run that seemed to have the right time moves what this run stamps; what is older only when the kernel
  confirms it.

Pure: the two clocks are given, rows to keep come out.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Final

from edge_broker.store.times import MAX_TIMELINE, Times

NOT_BEFORE: Final = 1_767_225_600.0
"""2026-01-01: this software is younger than that, so every right clock is."""
STEP_SECONDS: Final = 1.0
"""What two clocks may differ by without anybody having set one."""
_YEAR_SECONDS: Final = 365.25 * 86_400
MOST_AHEAD_SECONDS: Final = 5 * _YEAR_SECONDS
"""A gateway may lie in a drawer for so long. What is further ahead of the store is a fault until it is confirmed."""
MOST_AHEAD_OF_NOTHING_SECONDS: Final = 30 * _YEAR_SECONDS
"""The same for a store that has no time in it yet."""
SMALL_STEP_SECONDS: Final = 60.0
"""A step back by so little is somebody's correction, and followed; a clock that is wrong is wrong by more."""
NEWEST_EVERY_SECONDS: Final = 60.0
"""How old the newest time on disk may be at a commit that happens anyway: so much of a run may not count after a crash."""
_APART_SECONDS: Final = 0.001
"""Between the newest time and a run that goes on from it: so that rounding makes nothing older a part of the run."""
_STARTS_KEPT: Final = 256
_DELTAS_KEPT: Final = 4096

_START: Final = "timeline_start:"
_DELTA: Final = "timeline_delta:"
_TIMELINE: Final = "timeline"
_UNSYNCED: Final = "clock_unsynced"
_NEWEST: Final = "newest_ms"


@dataclass(frozen=True, slots=True)
class Correction:
    """Times in memory before `before` are to lie `seconds` further back: so long nobody ran, as is known now."""

    before: float
    seconds: float


class StoreClock:
    """The clock of one run over one store.

    `kept`: the numbers in `meta`, by name. `newest`: the newest wall time found in the store itself, in seconds, None for
    none. `wall`, `monotonic`: both clocks at the start. `is_confirmed`: whether somebody who knows says that the wall clock
    is right; asked in doubt only. `times`: the translation as of now; another object after each change. `corrections`
    counts the steps that were followed, and what was counted of the downtime later than that.
    """

    def __init__(
        self,
        kept: Mapping[str, int],
        newest: float | None,
        wall: float,
        monotonic: float,
        is_confirmed: Callable[[], bool],
    ) -> None:
        self._is_confirmed = is_confirmed
        self._deltas = _numbered(kept, _DELTA)
        self._starts = _numbered(kept, _START)
        self._unwritten: dict[str, int | None] = {}
        self._offset = self._since = 0.0
        self._timeline = kept.get(_TIMELINE) or max([0, *self._starts, *self._deltas])
        self._counted = self._uncounted = 0.0
        self._unsynced = bool(kept.get(_UNSYNCED))
        self._doubted = False
        self._knows_nothing = False
        self._joined: tuple[int, int] | None = None
        """An earlier timeline whose end this run could only guess, and its delta then. What is learned holds for both."""
        self._in_question: int | None = None
        """The timeline that claims a later time than this run began with."""
        self._newest_written_at = float("-inf")
        self.corrections = 0
        times = [known for known in (newest, kept[_NEWEST] / 1000 if _NEWEST in kept else None) if known]
        self._begin(max([*times, NOT_BEFORE]), wall, monotonic)
        self.times = self._make_times()

    # ---- at the start

    def _begin(self, newest: float, wall: float, monotonic: float) -> None:
        """Decide which time it is, and on which timeline this run stamps."""
        was_unsynced = self._unsynced and self._timeline in self._starts
        self._knows_nothing = (self._start_of(self._timeline) if was_unsynced else newest) <= (
            NOT_BEFORE + _APART_SECONDS
        )
        if self._is_credible(wall, newest, STEP_SECONDS):
            ahead = wall - newest
            before = self._timeline
            if was_unsynced:
                self._add(before, ahead)  # it ended just now, for all that is known
            if ahead < -STEP_SECONDS:
                self._pull_back(wall, ahead, also=None if was_unsynced else before)
            self._knows_nothing = False
            newest = wall if was_unsynced or ahead < -STEP_SECONDS else newest
            self._open_timeline(max(wall, newest + _APART_SECONDS), monotonic)
            if was_unsynced:
                self._joined = before, self._deltas[before]
                self._since = self._start_of(before) - _APART_SECONDS / 2 - self._offset
            self._set_unsynced(False)
        elif was_unsynced:
            self._in_question = max(
                (number for number in self._starts if number < self._timeline), default=None
            )
            self._counted = self._delta_of(self._timeline)
            self._offset = newest + _APART_SECONDS - self._counted - monotonic
            self._since = self._starts[self._timeline] / 1000 - _APART_SECONDS / 2 - self._offset
        else:
            self._in_question = self._timeline
            # In the middle of a millisecond: a stamp of this very moment is the start, whichever way a float is off.
            self._open_timeline((int(newest * 1000 + 0.1) + 1.5) / 1000, monotonic)
            self._set_unsynced(True)

    def _open_timeline(self, start: float, monotonic: float) -> None:
        number = self._timeline + 1 if self._timeline < MAX_TIMELINE else 1
        self._timeline = number
        self._keep(_TIMELINE, number)
        if self._deltas.pop(number, None) is not None:
            self._unwritten[f"{_DELTA}{number}"] = None
        self._starts[number] = int(start * 1000 + 0.1)
        self._keep(f"{_START}{number}", self._starts[number])
        self._prune(self._starts, _START, _STARTS_KEPT)
        self._offset, self._since = start - monotonic, monotonic - _APART_SECONDS / 2

    # ---- while it runs

    @property
    def unsynced(self) -> bool:
        """Whether the wall clock is not believed now."""
        return self._unsynced or self._doubted

    def wall(self, monotonic: float) -> float:
        """The wall time of a moment of the monotonic clock, as far as it is known by now."""
        return monotonic + self._offset + self._delta_of(self._timeline)

    def look(self, wall: float, monotonic: float) -> Correction | None:
        """Compare the clocks, about once a second. What comes back is to be applied to what is in memory, once."""
        ours = self.wall(monotonic)
        ahead = wall - ours
        if abs(ahead) <= STEP_SECONDS:
            self._settle(monotonic)
            correction = self._count_confirmed(wall)
            self.corrections += correction is not None
            return correction
        if not self._is_credible(wall, ours, SMALL_STEP_SECONDS):
            self._doubted = True
            return None
        knew_nothing = self._unsynced
        self._add(self._timeline, ahead)
        if self._joined is not None:
            self._add(self._joined[0], ahead)
        self.corrections += 1
        self._settle(monotonic)
        if knew_nothing and ahead > 0:
            return self._count(ahead, self._since)
        self._uncounted += ahead
        return self._count_confirmed(wall)

    def _is_credible(self, wall: float, ours: float, back: float) -> bool:
        """Whether the wall clock is to be followed: not by more than `back` seconds behind `ours`, nor absurdly ahead."""
        if wall < NOT_BEFORE:
            return False
        most = MOST_AHEAD_OF_NOTHING_SECONDS if self._knows_nothing else MOST_AHEAD_SECONDS
        return -back <= wall - ours <= most or self._is_confirmed()

    def _settle(self, monotonic: float) -> None:
        """The clocks agree."""
        self._doubted = self._knows_nothing = False
        if self._unsynced:
            self._set_unsynced(False)
        if self._unwritten:
            self._note_newest(monotonic)

    def _count_confirmed(self, wall: float) -> Correction | None:
        """Count what the clock was off by at the start, when somebody who knows says that it is right now."""
        if not self._uncounted or not self._is_confirmed():
            return None
        ahead, self._uncounted = self._uncounted, 0.0
        before = self._since
        if ahead < 0:
            before = min(before, self._pull_back(wall, ahead, self._in_question))
        return self._count(ahead, before)

    def _count(self, ahead: float, before: float) -> Correction:
        self._counted += ahead
        self.times = self._make_times()
        return Correction(before, ahead)

    def _pull_back(self, wall: float, ahead: float, also: int | None = None) -> float:
        """Correct the timelines of earlier runs that had the same wrong clock: they began in what is the future.

        Returns since when that was, on the monotonic clock.
        """
        first = float("inf")
        of_this_run = {self._timeline} if self._joined is None else {self._timeline, self._joined[0]}
        for number in list(self._starts):
            start = self._start_of(number)
            if number == also or (start > wall and number not in of_this_run):
                first = min(first, start - _APART_SECONDS / 2 - self._offset - self._counted)
                self._add(number, ahead)
        return first

    # ---- what is kept

    def changes(self, monotonic: float, *, alone: bool = False) -> dict[str, int | None]:
        """Rows of `meta` that are to be on disk, None to delete one. With `alone`, the newest time is among them anyway."""
        if alone or self._unwritten or monotonic - self._newest_written_at >= NEWEST_EVERY_SECONDS:
            self._note_newest(monotonic)
        return dict(self._unwritten)

    def written(self, changes: Mapping[str, int | None], monotonic: float) -> None:
        """What `changes` gave is on the disk."""
        for name, value in changes.items():
            if name in self._unwritten and self._unwritten[name] == value:
                del self._unwritten[name]
        if _NEWEST in changes:
            self._newest_written_at = monotonic

    def write_again(self) -> None:
        """The rows on the disk may be lost: have all of them written."""
        for prefix, numbers in ((_START, self._starts), (_DELTA, self._deltas)):
            for number, value in numbers.items():
                self._keep(f"{prefix}{number}", value)
        self._keep(_TIMELINE, self._timeline)
        self._set_unsynced(self._unsynced)

    @property
    def is_due(self) -> bool:
        """Whether something of weight is not on the disk."""
        return any(name != _NEWEST for name in self._unwritten)

    def newest_written_before(self, monotonic: float) -> bool:
        """Whether the newest time on disk is older than the moment `monotonic`."""
        return self._newest_written_at < monotonic

    def _note_newest(self, monotonic: float) -> None:
        self._keep(_NEWEST, round(self.wall(monotonic) * 1000))

    def _keep(self, name: str, value: int) -> None:
        self._unwritten[name] = value

    def _set_unsynced(self, unsynced: bool) -> None:
        self._unsynced = unsynced
        self._keep(_UNSYNCED, int(unsynced))

    def _add(self, number: int, seconds: float) -> None:
        """What the stamps of a timeline are off by has grown."""
        self._deltas[number] = self._deltas.get(number, 0) + round(seconds * 1000)
        self._keep(f"{_DELTA}{number}", self._deltas[number])
        self._prune(self._deltas, _DELTA, _DELTAS_KEPT)
        self.times = self._make_times()

    def _prune(self, numbers: dict[int, int], prefix: str, most: int) -> None:
        """Forget those written longest ago, where there are too many."""
        while len(numbers) > most:
            oldest = next(iter(numbers))
            del numbers[oldest]
            self._unwritten[f"{prefix}{oldest}"] = None

    def _delta_of(self, number: int) -> float:
        return self._deltas.get(number, 0) / 1000

    def _start_of(self, number: int) -> float:
        """When a timeline began, in wall seconds as known by now."""
        return self._starts[number] / 1000 + self._delta_of(number)

    def _make_times(self) -> Times:
        return Times(
            self._offset,
            timeline=self._timeline,
            since=self._since,
            counted=self._counted,
            deltas=self._deltas,
            joined=self._joined,
        )


def kept_deltas(kept: Mapping[str, int]) -> dict[int, int]:
    """What the stamps of each timeline are off by, in milliseconds, out of the numbers in `meta`."""
    return _numbered(kept, _DELTA)


def _numbered(kept: Mapping[str, int], prefix: str) -> dict[int, int]:
    """The rows whose names begin with `prefix`, by the number behind it, in rising order."""
    found = {name.removeprefix(prefix): value for name, value in kept.items() if name.startswith(prefix)}
    return dict(sorted((int(number), value) for number, value in found.items() if number.isdecimal()))
