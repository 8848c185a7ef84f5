"""What this process had written to disk, as the kernel counts it: page by page, and also what SQLite wrote twice."""

from __future__ import annotations

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
