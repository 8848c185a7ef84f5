"""Is the damage in the bytes, or could they only not be read? A database and its log are read whole, past SQLite.

SQLite says "malformed" of a page that the disk refused to give (EIO, ENXIO) as it does of one that makes no sense. Only
the second is damage: a good file must not be set aside because a cable, a card reader or a driver had a bad moment. So
before recovery is believed to be needed, the files are read once more, from the disk and not from memory, and what failed
is tried again on a new connection.

At a start there is one case more: places that the disk refuses each time, in a file that can be read elsewhere, are bad
sectors. Their bytes are gone, and the broker saves the others and starts.
"""

from __future__ import annotations

import contextlib
import os
import sqlite3
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Final, TypeVar

from edge_broker.store.faults import READ_ERRORS, calls_for_recovery, is_io_error
from edge_broker.store.schema import PAGE_BYTES, side_files

T = TypeVar("T")

_CHUNK_BYTES: Final = 256 << 10
_MOST_REFUSED: Final = 256
"""Places looked at further: a disk that refuses more is broken as a whole, and each may take it seconds."""
_PAUSES_SECONDS: Final = (0.0, 0.5, 2.0)

Refused = tuple[Path, int]
"""A page that could not be read: its file, and where in it."""


class Unreadable(sqlite3.OperationalError):
    """The disk refuses to give bytes of the store. Counts as SQLITE_IOERR_READ."""

    sqlite_errorcode = sqlite3.SQLITE_IOERR_READ
    sqlite_errorname = "SQLITE_IOERR_READ"


class SurelyDamaged(Exception):
    """Every byte could be read, or cannot be any more, and the database is not one: recovery is needed."""


@dataclass(frozen=True, slots=True)
class ReadBack:
    """What reading the files showed. `refused`: pages, at most 256; `why`: what the system said of the first."""

    refused: tuple[Refused, ...] = ()
    why: str = ""

    @property
    def hopeless(self) -> bool:
        """So much is refused that the disk, and not a part of the file, is what is broken."""
        return len(self.refused) >= _MOST_REFUSED or any(place == 0 for _, place in self.refused[1:])

    def error(self) -> Unreadable:
        """As what it is to be told."""
        file, place = self.refused[0]
        return Unreadable(f"{file.name} cannot be read at byte {place}: {self.why}")


def read_back(path: Path, first: Refused | None = None, most: int = _MOST_REFUSED) -> ReadBack:
    """Read the database at `path` and its write-ahead log from the disk, and say where that was refused.

    Ends with the `most`th refusal. `first` is looked at before everything else.
    """
    refused: list[Refused] = []
    why = ""
    order = [first[0]] if first is not None else []
    for file in (*order, path, side_files(path)[0]):
        start = first[1] if first is not None and order else 0
        end = start + PAGE_BYTES if order else None
        order = []
        for place, error in _refusals(file, start, end):
            why = why or str(error.strerror or error)
            refused.append((file, place))
            if len(refused) >= most:
                return ReadBack(tuple(refused), why)
    return ReadBack(tuple(refused), why)


def _refusals(file: Path, start: int, end: int | None) -> Iterator[tuple[int, OSError]]:
    """The pages of `file` from byte `start` on that cannot be read, and why; nothing of a file that is not there."""
    try:
        descriptor = os.open(file, os.O_RDONLY)
    except (FileNotFoundError, PermissionError):  # whoever opens it says so better
        return
    except OSError as error:
        yield start, error
        return
    try:
        size = os.fstat(descriptor).st_size if end is None else end
        with contextlib.suppress(OSError):  # not every file system can; then some comes from memory
            os.posix_fadvise(descriptor, 0, 0, os.POSIX_FADV_DONTNEED)
        for chunk in range(start, size, _CHUNK_BYTES):
            try:
                os.pread(descriptor, min(_CHUNK_BYTES, size - chunk), chunk)
            except OSError:
                yield from _refused_pages(descriptor, chunk, min(chunk + _CHUNK_BYTES, size))
    finally:
        os.close(descriptor)


def _refused_pages(descriptor: int, start: int, end: int) -> Iterator[tuple[int, OSError]]:
    for place in range(start, end, PAGE_BYTES):
        try:
            os.pread(descriptor, PAGE_BYTES, place)
        except OSError as error:
            yield place, error


def open_again(
    path: Path,
    error: BaseException,
    attempt: Callable[[], T],
    pause: Callable[[float], None] = time.sleep,
) -> T:
    """What `attempt`, which opens the database at `path` and failed with `error`, returns when it is tried again.

    Raises `SurelyDamaged` where recovery is needed, `Unreadable` or another `sqlite3.Error` where the disk does not do
    what it should.
    """
    found = [read_back(path)]
    for seconds in _PAUSES_SECONDS:
        pause(seconds)
        try:
            return attempt()
        except READ_ERRORS as again:
            if not calls_for_recovery(again) and not is_io_error(again):
                raise
            error = again
        found.append(read_back(path))
        if not found[-1].refused and not found[-2].refused and not is_io_error(error):
            raise SurelyDamaged(str(error))
    last = found[-1]
    if not last.refused:
        raise error
    if last.hopeless or any(one.refused != last.refused for one in found):
        raise last.error()
    raise SurelyDamaged(str(last.error()))
