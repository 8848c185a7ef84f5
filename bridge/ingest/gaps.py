"""Which lanes miss numbers, and when that is worth a line in the log: once when it lasts, once when it is over.

Messages overtake each other on their way, so a gap is told only when it has been there for a while. Many lanes that miss
something at once, after an outage say, are told in one line. Pure: time comes in.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Final, NamedTuple

from bridge.ingest.worker import LaneGaps
from bridge.windows import LaneKey, Stretch

_LINES_AT_ONCE: Final = 10


class _Open(NamedTuple):
    """A lane that misses something: what, since when, and whether that was told."""

    gaps: LaneGaps
    since: float
    told: bool


class GapWatch:
    """All lanes that miss something. `after_seconds`: how long before that is told."""

    def __init__(self, after_seconds: float) -> None:
        self._after_seconds = after_seconds
        self._open: dict[LaneKey, _Open] = {}
        self._filled: list[LaneKey] = []
        self.missing = 0

    def __len__(self) -> int:
        return len(self._open)

    def items(self) -> Sequence[tuple[LaneKey, LaneGaps]]:
        """The lanes that miss something, by name."""
        return [(key, self._open[key].gaps) for key in sorted(self._open)]

    def begin(self, gaps: Mapping[LaneKey, LaneGaps], now: float) -> None:
        """What is missing at the start; one line tells of all of it."""
        self._open = {key: _Open(found, now, True) for key, found in gaps.items() if found.missing}
        self._filled.clear()
        self.missing = sum(one.gaps.missing for one in self._open.values())

    def update(self, gaps: Mapping[LaneKey, LaneGaps], now: float) -> None:
        """What is missing of some lanes now."""
        for key, found in gaps.items():
            known = self._open.get(key)
            self.missing += found.missing - (0 if known is None else known.gaps.missing)
            if found.missing:
                self._open[key] = _Open(found, now, False) if known is None else known._replace(gaps=found)
            elif known is not None:
                del self._open[key]
                if known.told:
                    self._filled.append(key)

    def due(self, now: float) -> list[str]:
        """What is to be logged now."""
        begun = [
            key for key, one in self._open.items() if not one.told and now - one.since >= self._after_seconds
        ]
        lines: list[str] = []
        for key in begun:
            one = self._open[key]
            self._open[key] = one._replace(told=True)
            if len(lines) < _LINES_AT_ONCE:
                lines.append(f"{_name(key)}: {describe(one.gaps)} missing")
        if len(begun) > _LINES_AT_ONCE:
            lines.append(f"and {len(begun) - _LINES_AT_ONCE} more lanes miss messages")
        filled, self._filled = self._filled, []
        lines += [f"{_name(key)}: nothing is missing any more" for key in filled[:_LINES_AT_ONCE]]
        if len(filled) > _LINES_AT_ONCE:
            lines.append(f"and {len(filled) - _LINES_AT_ONCE} more lanes miss nothing any more")
        return lines


def describe(gaps: LaneGaps) -> str:
    """How many messages, and which of them first."""
    count = "1 message is" if gaps.missing == 1 else f"{gaps.missing} messages are"
    shown = ", ".join(_stretch(one) for one in gaps.stretches[:5])
    more = ", …" if len(gaps.stretches) > 5 else ""
    return f"{shown}{more}: {count}"


def _stretch(stretch: Stretch) -> str:
    start, end = stretch
    return str(start) if end == start + 1 else f"{start}-{end - 1}"


def _name(key: LaneKey) -> str:
    return f"gateway {key.gateway!r}, lane {key.lane!r}"
