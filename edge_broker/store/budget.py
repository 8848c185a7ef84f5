"""A daily budget for writes: when a day's writes run ahead of it, messages wait longer for others to share a write.

The day begins when the budget does, and again every 24 hours; what may be written by now is the budget's share of the
time that has passed, and an hour's share ahead. Nothing is dropped for it and no acknowledgement leaves early: it only
widens the commit delay, up to a maximum.
"""

from __future__ import annotations

from typing import Final

_DAY_SECONDS: Final = 86_400.0
_AHEAD_SECONDS: Final = 3_600.0
"""A start, or a busy hour, may write that much before its time."""


class WriteBudget:
    """`bytes_per_day` to be written; delays in seconds. `written_bytes` and `now` are what the caller has counted."""

    def __init__(
        self,
        bytes_per_day: int,
        delay_seconds: float,
        max_delay_seconds: float,
        now: float,
        written_bytes: int,
    ) -> None:
        self._bytes_per_day = bytes_per_day
        self._delay_seconds = delay_seconds
        self._max_delay_seconds = max(delay_seconds, max_delay_seconds)
        self._begin(now, written_bytes)

    def _begin(self, now: float, written_bytes: int) -> None:
        self._began_at = now
        self._written_before = written_bytes

    def commit_delay(self, now: float, written_bytes: int) -> float:
        """How long a message may wait for its commit now: wider in proportion to how far the day's writes are ahead."""
        if now - self._began_at >= _DAY_SECONDS:
            self._begin(now, written_bytes)
        share = (now - self._began_at + _AHEAD_SECONDS) / _DAY_SECONDS
        ahead = (written_bytes - self._written_before) / (self._bytes_per_day * share)
        return min(self._max_delay_seconds, self._delay_seconds * max(1.0, ahead**2))
