"""Disk space kept back for the moment when there is none left.

A backlog that filled the disk can only shrink if the acknowledgements of what was sent can still be written: they free
pages inside the database, but need a little room in its write-ahead log first. That room is an empty file beside the
database, which is given up when the disk is full and taken again when there is space. Allocating it writes no data.
"""

from __future__ import annotations

import os
import sqlite3
from pathlib import Path
from typing import Final

from edge_broker.store.faults import primary_code

RESERVE_NAME: Final = "broker.reserve"
RESERVE_BYTES: Final = 16 << 20
"""Enough for a write-ahead log that could not be emptied, and for the pages of the database that it brings."""

_NEXT_TO_NOTHING_BYTES: Final = 256 << 10


class Reserve:
    """The file in `directory`. `held`: it is there; `given_up`: it was needed, and could not be taken again yet."""

    def __init__(self, directory: Path) -> None:
        self._path = directory / RESERVE_NAME
        self.held = self._path.exists()
        self.given_up = False

    def ran_out(self, error: BaseException) -> bool:
        """Whether `error` came because the disk is full. SQLite calls it an I/O error where it was its shared memory."""
        if primary_code(error) == sqlite3.SQLITE_IOERR:
            return self._free_bytes() < _NEXT_TO_NOTHING_BYTES
        return primary_code(error) == sqlite3.SQLITE_FULL

    def _free_bytes(self) -> int:
        disk = os.statvfs(self._path.parent)
        return disk.f_bavail * disk.f_frsize

    def take(self) -> bool:
        """Allocate the file, unless that would leave less than it takes; whether it is held now."""
        if self.held:
            return True
        try:
            if self._free_bytes() < 2 * RESERVE_BYTES:
                return False
            descriptor = os.open(self._path, os.O_CREAT | os.O_WRONLY, 0o600)
            try:
                os.posix_fallocate(descriptor, 0, RESERVE_BYTES)
            finally:
                os.close(descriptor)
        except OSError:  # no space after all: not having it is a state, not a fault
            self._path.unlink(missing_ok=True)
            return False
        self.held = True
        self.given_up = False
        return True

    def give_up(self) -> bool:
        """Free its space for whoever needs it now; whether there was any."""
        had, self.held = self.held, False
        self.given_up = True
        self._path.unlink(missing_ok=True)
        return had
