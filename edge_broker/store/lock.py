"""One at a time in a data directory: a lock on a file beside the database, held as long as the store is open.

The kernel drops the lock when its holder ends, however it ends; what stands in the file, the holder's process id and what
it is, is for people only.
"""

from __future__ import annotations

import contextlib
import errno
import fcntl
import os
import time
from pathlib import Path
from typing import Final, NamedTuple

from edge_broker.errors import StoreError
from edge_broker.store.schema import DATABASE_NAME, sync

LOCK_NAME: Final = "edge-broker.lock"
BROKER: Final = "a broker"
_TEXT_BYTES: Final = 64
_TRIES: Final = 10
_PAUSE_SECONDS: Final = 0.01


class Holder(NamedTuple):
    """Who has a lock. `process`: its id, as text, or "unknown"; `what`: what it is."""

    process: str
    what: str = BROKER

    def __str__(self) -> str:
        return f"{self.what} (process {self.process})"


class DirectoryLock:
    """The lock on `directory`, taken at once; `StoreError` that says who has it if somebody has.

    `what`: who takes it, in a word or two. `OSError` where the directory cannot be written, unless it is `unwritable`
    and known to be: then it is enough that the file is there.
    """

    def __init__(self, directory: Path, what: str = BROKER, *, unwritable: bool = False) -> None:
        self.unwritable = unwritable
        flags = os.O_RDONLY if unwritable else os.O_CREAT | os.O_RDWR
        self._descriptor = os.open(directory / LOCK_NAME, flags, 0o600)
        try:
            self._take(directory)
        except (OSError, StoreError):
            os.close(self._descriptor)
            raise
        with contextlib.suppress(OSError):  # a full disk is no reason not to start: the lock holds without it
            text = f"{os.getpid()} {what}".encode()[:_TEXT_BYTES]
            os.pwrite(self._descriptor, text.ljust(_TEXT_BYTES) + b"\n", 0)

    def _take(self, directory: Path) -> None:
        for attempt in range(_TRIES):
            if attempt:
                time.sleep(_PAUSE_SECONDS)  # whoever only looks, as `holder_of` does, has it for microseconds
            with contextlib.suppress(BlockingIOError):
                fcntl.flock(self._descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
                return
        holder = _written_in(self._descriptor)
        if holder.what == BROKER:
            raise StoreError(
                "open",
                f"another broker uses {directory} (process {holder.process})",
                "stop it first, or choose another data_dir",
            )
        raise StoreError(
            "open",
            f"{holder.what} works on {directory} (process {holder.process})",
            "wait until it is done, or stop it",
        )

    def release(self) -> None:
        """Let the next one have it. The file stays: removing it would race with whoever opens it just now."""
        os.close(self._descriptor)


def take_directory(directory: Path) -> DirectoryLock:
    """The directory, made if need be and readable for nobody else, and a broker's lock on it; `StoreError`.

    Where there is a store on a disk that is mounted read-only, the lock is `unwritable`.
    """
    try:
        if not directory.exists():
            directory.mkdir(parents=True, mode=0o700)
            sync(directory.parent)
        return DirectoryLock(directory)
    except OSError as error:
        if error.errno == errno.EROFS and (directory / DATABASE_NAME).exists():
            with contextlib.suppress(OSError):
                return DirectoryLock(directory, unwritable=True)
        raise StoreError(
            "open",
            f"cannot use {directory}: {error.strerror or error}",
            "data_dir must be a directory that the broker's user may write",
        ) from error


def holder_of(directory: Path) -> Holder | None:
    """Whoever has the lock on `directory`, None if nobody has; `OSError` if that cannot be seen."""
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


def _written_in(descriptor: int) -> Holder:
    process, _, what = os.pread(descriptor, _TEXT_BYTES, 0).decode("utf-8", "replace").strip().partition(" ")
    return Holder(process or "unknown", what or BROKER)
