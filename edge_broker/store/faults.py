"""What SQLite's and the system's errors mean for the store: how to say it, and what has to follow.

`explain` puts an error into the operator's words. `is_damage`: the file's content seems wrong, which only recovery mends;
SQLite says so also where the disk refused to give it, which `readback` tells apart. `is_io_error`: the disk refused.
`leaves_doubt`: what SQLite believes about its files may not hold any more, so the connection is made anew before it is
trusted again.
"""

from __future__ import annotations

import sqlite3
from typing import Final

from edge_broker.errors import StoreError

_ADVICE: Final = {
    sqlite3.SQLITE_FULL: (
        "the disk is full",
        "free some space on the disk of data_dir; what waits is written as soon as there is room",
    ),
    sqlite3.SQLITE_IOERR: (
        "the disk reported an error",
        "look at the kernel's log (dmesg); an SD card that does this is usually worn out",
    ),
    sqlite3.SQLITE_READONLY: (
        "the store cannot be written",
        "data_dir must be writable for the broker's user and not mounted read-only",
    ),
    sqlite3.SQLITE_CANTOPEN: (
        "the store's file cannot be opened",
        "data_dir and the files in it must belong to the broker's user",
    ),
    sqlite3.SQLITE_PERM: (
        "no permission to open the store's file",
        "data_dir and the files in it must belong to the broker's user",
    ),
    sqlite3.SQLITE_BUSY: (
        "another process holds the store",
        "end whatever else has the database open: a backup, an sqlite3 shell",
    ),
    sqlite3.SQLITE_CORRUPT: (
        "the database is damaged",
        "what is readable is saved by itself; the log says what was lost",
    ),
    sqlite3.SQLITE_NOTADB: (
        "the file is not a database",
        "what is readable is saved by itself; the log says what was lost",
    ),
}


_NOT_THE_FILE: Final = (
    sqlite3.SQLITE_FULL,
    sqlite3.SQLITE_READONLY,
    sqlite3.SQLITE_CANTOPEN,
    sqlite3.SQLITE_PERM,
    sqlite3.SQLITE_BUSY,
    sqlite3.SQLITE_LOCKED,
    sqlite3.SQLITE_NOMEM,
)


READ_ERRORS: Final = (sqlite3.Error, UnicodeDecodeError)
"""What reading a database raises. The second is SQLite's own message, where it quotes damaged text."""


class Damaged(Exception):
    """Bytes that were read back are not what was written: a checksum is wrong, or they make no sense."""


class NoRoom(sqlite3.OperationalError):
    """The disk is full: what is left is kept for acknowledgements. Counts as SQLITE_FULL."""

    sqlite_errorcode = sqlite3.SQLITE_FULL
    sqlite_errorname = "SQLITE_FULL"


class ReadOnly(sqlite3.OperationalError):
    """The file system of the store is mounted read-only. Counts as SQLITE_READONLY."""

    sqlite_errorcode = sqlite3.SQLITE_READONLY
    sqlite_errorname = "SQLITE_READONLY"


def primary_code(error: BaseException) -> int:
    """SQLite's primary result code of `error`, or 0 where it is none of SQLite's."""
    code = getattr(error, "sqlite_errorcode", None)
    return code & 0xFF if isinstance(code, int) else 0


def explain(operation: str, error: BaseException) -> StoreError:
    """The `StoreError` that says what `error` means at `operation`."""
    if isinstance(error, StoreError):
        return error
    problem, hint = _ADVICE.get(primary_code(error), ("", ""))
    if not problem:
        return StoreError(operation, f"{type(error).__name__}: {error}")
    name = getattr(error, "sqlite_errorname", "")
    return StoreError(operation, f"{problem} ({name}: {error})", hint)


def is_io_error(error: BaseException) -> bool:
    """Whether the disk refused to read or write. A file that ends too early is no such thing, but damage."""
    code = getattr(error, "sqlite_errorcode", None)
    return primary_code(error) == sqlite3.SQLITE_IOERR and code != sqlite3.SQLITE_IOERR_SHORT_READ


def is_damage(error: BaseException) -> bool:
    """Whether the content of the file is wrong, or the disk refused it in a way that SQLite does not tell from that."""
    if is_io_error(error):
        return False
    if isinstance(error, UnicodeDecodeError):
        return True
    if getattr(error, "sqlite_errorcode", None) == sqlite3.SQLITE_IOERR_SHORT_READ:
        return True
    return primary_code(error) in (sqlite3.SQLITE_CORRUPT, sqlite3.SQLITE_NOTADB)


def calls_for_recovery(error: BaseException) -> bool:
    """Whether a database that fails like this when it is opened is to be replaced by what can be saved of it.

    Not where the file may be fine and only cannot be used now: no room, no permission, locked, no memory, a disk that
    refuses.
    """
    if is_io_error(error):
        return False
    return is_damage(error) or primary_code(error) not in (0, *_NOT_THE_FILE)


def leaves_doubt(error: BaseException) -> bool:
    """Whether the connection must be made anew before its next use."""
    return isinstance(error, READ_ERRORS) and primary_code(error) not in (
        sqlite3.SQLITE_FULL,
        sqlite3.SQLITE_BUSY,
        sqlite3.SQLITE_CONSTRAINT,
    )
