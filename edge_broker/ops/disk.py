"""What this process had written to disk, as the kernel counts it: page by page, and also what SQLite wrote twice."""

from __future__ import annotations

import time
from pathlib import Path
from typing import Final

_PROCESS_IO: Final = Path("/proc/self/io")


def written_bytes() -> int | None:
    """Bytes that this process caused to be written to disk, as the kernel counts; None where it does not."""
    try:
        lines = _PROCESS_IO.read_text().splitlines()
    except OSError:
        return None
    for line in lines:
        name, _, value = line.partition(":")
        if name == "write_bytes":
            return int(value)
    return None


def card_years(endurance_bytes: float, written: int, seconds: float) -> float | None:
    """How long a card lasts that takes `written` bytes in `seconds`; None where its endurance is not known."""
    if not endurance_bytes or seconds <= 0:
        return None
    return endurance_bytes / (max(written, 1) / seconds) / (365.25 * 86_400)


class WrittenToday:
    """What was written since midnight, or since the start. `note` is to be called about once a second."""

    def __init__(self, wall_seconds: float) -> None:
        self._day = _day(wall_seconds)
        self._before = 0

    def note(self, wall_seconds: float) -> None:
        """If another day has begun, begin to count anew."""
        day = _day(wall_seconds)
        if day != self._day:
            self._day = day
            self._before = written_bytes() or 0

    def bytes(self) -> int | None:
        """So many by now; None where the kernel does not tell."""
        written = written_bytes()
        return None if written is None else written - self._before


def _day(wall_seconds: float) -> tuple[int, int]:
    local = time.localtime(wall_seconds)
    return local.tm_year, local.tm_yday
