"""One broker per data directory: a lock on a file beside the database, held as long as the store is open.

The kernel drops the lock when its holder ends, however it ends; the process id in the file is for people only.
"""

from __future__ import annotations

import contextlib
import fcntl
import os
import time
from pathlib import Path
from typing import Final

from edge_broker.errors import StoreError

LOCK_NAME: Final = "edge-broker.lock"
_TRIES: Final = 10
_PAUSE_SECONDS: Final = 0.01


class DirectoryLock:
    """The lock on `directory`, taken at once; `StoreError` with the holder's process id if somebody has it.

    `OSError` where the directory cannot be written.
    """

    def __init__(self, directory: Path) -> None:
        self._descriptor = os.open(directory / LOCK_NAME, os.O_CREAT | os.O_RDWR, 0o600)
        try:
            self._take(directory)
        except (OSError, StoreError):
            os.close(self._descriptor)
            raise
        with contextlib.suppress(OSError):  # a full disk is no reason not to start: the lock holds without it
            os.pwrite(self._descriptor, b"%-20d\n" % os.getpid(), 0)

    def _take(self, directory: Path) -> None:
        for attempt in range(_TRIES):
            if attempt:
                time.sleep(_PAUSE_SECONDS)  # whoever only looks, as `holder_of` does, has it for microseconds
            with contextlib.suppress(BlockingIOError):
                fcntl.flock(self._descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
                return
        raise StoreError(
            "open",
            f"another broker uses {directory} (process {_written_in(self._descriptor)})",
            "stop it first, or choose another data_dir",
        )

    def release(self) -> None:
        """Let the next one have it. The file stays: removing it would race with whoever opens it just now."""
        os.close(self._descriptor)


def holder_of(directory: Path) -> str | None:
    """The process id of whoever has the lock on `directory`, None if nobody has; `OSError` if that cannot be seen."""
    try:
        descriptor = os.open(directory / LOCK_NAME, os.O_RDONLY)
    except FileNotFoundError:
        return None
    try:
        fcntl.flock(descriptor, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except BlockingIOError:
        return _written_in(descriptor)
    finally:
        os.close(descriptor)
    return None


def _written_in(descriptor: int) -> str:
    return os.pread(descriptor, 32, 0).decode("ascii", "replace").strip() or "unknown"
