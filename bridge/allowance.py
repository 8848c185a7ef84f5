"""How many bytes a month has left. Pure: the wall clock's seconds come in, what has to be kept on disk goes out.

- A month begins on the same day each month, 0:00 UTC, and counts by its name, so it begins once: a clock that goes back, or
  that stands at 1970 until it has been set, gives nobody a second month.
- What is kept on disk runs ahead of what was used by up to a hundredth of the month. So it is written some hundred times a
  month, and after a crash more is counted than was used, never less. A stop in due form writes the exact figure.
"""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import Final, NamedTuple

_SMALLEST_BLOCK_BYTES: Final = 65_536


class Kept(NamedTuple):
    """What is on disk: `month` as in ``2026-11``, by the day it began."""

    month: str
    used_bytes: int


def month_of(wall: float, starts_on: int) -> str:
    """The month that `wall`, in Unix seconds, is in, where months begin on the day `starts_on`."""
    day = datetime.fromtimestamp(max(wall, 0.0), UTC)
    if day.day < starts_on:
        day = day.replace(day=1) - timedelta(days=1)
    return f"{day.year:04}-{day.month:02}"


class Allowance:
    """`limit_bytes` for each month. `kept`: what the disk has, None where it has nothing."""

    def __init__(self, limit_bytes: int, starts_on: int, kept: Kept | None) -> None:
        self.limit_bytes = limit_bytes
        self._starts_on = starts_on
        self._block = max(limit_bytes // 100, _SMALLEST_BLOCK_BYTES)
        self._kept = kept or Kept("", 0)
        self._month, self.used_bytes = self._kept

    def add(self, size_bytes: int, wall: float) -> None:
        """So many bytes went over the line."""
        month = month_of(wall, self._starts_on)
        if month > self._month:
            self._month = month
            self.used_bytes = 0
        self.used_bytes += size_bytes

    @property
    def is_spent(self) -> bool:
        """Whether nothing is left of the month."""
        return self.used_bytes >= self.limit_bytes

    def to_keep(self) -> Kept | None:
        """What should be written now, None while what is on disk will do. To be called with each `add`."""
        if self._month == self._kept.month and self.used_bytes + self._block // 2 <= self._kept.used_bytes:
            return None
        return Kept(self._month, self.used_bytes + self._block)

    def exactly(self) -> Kept:
        """What should be written at the end."""
        return Kept(self._month, self.used_bytes)

    def on_kept(self, kept: Kept) -> None:
        """`kept` is on disk."""
        self._kept = kept
