"""One broker per data directory: a lock on a file beside the database, held as long as the store is open.

The kernel drops the lock when its holder ends, however it ends; the process id in the file is for people only.
"""

from __future__ import annotations

import contextlib
import fcntl
import os
from pathlib import Path
from typing import Final

from edge_broker.errors import StoreError

LOCK_NAME: Final = "edge-broker.lock"


class DirectoryLock:
    """The lock on `directory`, taken at once; `StoreError` with the holder's process id if somebody has it.

    `OSError` where the directory cannot be written.
    """

    def __init__(self, directory: Path) -> None:
        self._descriptor = os.open(directory / LOCK_NAME, os.O_CREAT | os.O_RDWR, 0o600)
        try:
            fcntl.flock(self._descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            holder = os.pread(self._descriptor, 32, 0).decode("ascii", "replace").strip() or "unknown"
            os.close(self._descriptor)
            raise StoreError(
                "open",
                f"another broker uses {directory} (process {holder})",
                "stop it first, or choose another data_dir",
            ) from None
        except OSError:
            os.close(self._descriptor)
            raise
        with contextlib.suppress(OSError):  # a full disk is no reason not to start: the lock holds without it
            os.pwrite(self._descriptor, b"%-20d\n" % os.getpid(), 0)

    def release(self) -> None:
        """Let the next one have it. The file stays: removing it would race with whoever opens it just now."""
        os.close(self._descriptor)
