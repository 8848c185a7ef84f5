"""The spool's SQLite file: opened, claimed, checked and brought to the current schema.

Invariants: one owner at a time, enforced by a lock on a file beside it that dies with its process; WAL with
synchronous=FULL, so that what was committed survives kill -9 and a power cut; a file that is damaged is set aside under
another name, never deleted, and a new one begun (a sensor that does not start loses more than a damaged file holds).

It holds nothing of the queue's logic: see spool.py. It does not repair, and it does not follow a spool to another
device's name: sequence numbers belong to one device.
"""

import fcntl
import logging
import os
import secrets
import sqlite3
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from devices.errors import SpoolError, SpoolInUseError

_log = logging.getLogger("devices.spool")

_APPLICATION_ID: Final = 0x44535031  # "DSP1", what `file` and a look at the header show
_SCHEMA_VERSION: Final = 1
_BUSY_TIMEOUT_MS: Final = 5000  # somebody may look into the file with the sqlite3 tool
_WAL_LIMIT_BYTES: Final = 4 << 20

_SCHEMA: Final = (
    "CREATE TABLE meta (name TEXT PRIMARY KEY, value NOT NULL) WITHOUT ROWID",
    "CREATE TABLE readings (sequence INTEGER PRIMARY KEY, topic TEXT NOT NULL, payload BLOB NOT NULL,"
    " content_type TEXT NOT NULL, qos INTEGER NOT NULL)",
    "CREATE TABLE rejected (sequence INTEGER PRIMARY KEY, topic TEXT NOT NULL, payload BLOB NOT NULL,"
    " content_type TEXT NOT NULL, qos INTEGER NOT NULL, reason TEXT NOT NULL)",
)


@dataclass
class SpoolFile:
    """An open spool. `lock` is None for a spool in memory."""

    connection: sqlite3.Connection
    spool_id: str
    lock: int | None

    def close(self) -> None:
        """Close the file and give up the claim to it."""
        self.connection.close()
        if self.lock is not None:
            os.close(self.lock)
            self.lock = None


def open_spool_file(path: Path | None, device: str) -> SpoolFile:
    """Open or create the spool of `device`; without a path it lives in memory and dies with the process."""
    if path is None:
        connection = _connect(":memory:")
        return SpoolFile(connection, _prepare(connection, device, "the spool in memory"), None)
    lock = _claim(path)
    try:
        connection, spool_id = _open_or_set_aside(path, device)
    except BaseException:
        os.close(lock)
        raise
    return SpoolFile(connection, spool_id, lock)


def _claim(path: Path) -> int:
    lock_path = path.with_name(path.name + "-lock")
    try:
        lock = os.open(lock_path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    except OSError as error:
        raise SpoolError(
            f"the spool {path} cannot be opened: {error.strerror}; is its directory there?"
        ) from error
    try:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError as error:
        os.close(lock)
        raise SpoolInUseError(
            f"the spool {path} is open in another program; every device needs a spool of its own"
        ) from error
    return lock


def _open_or_set_aside(path: Path, device: str) -> tuple[sqlite3.Connection, str]:
    try:
        return _open(path, device)
    except sqlite3.OperationalError as error:  # no damage: permissions, a full disk, an I/O error
        raise SpoolError(f"the spool {path} cannot be opened: {error}") from error
    except sqlite3.DatabaseError as error:
        aside = _set_aside(path)
        _log.error("the spool %s is damaged (%s); set aside as %s, a new one begins", path, error, aside)
        return _open(path, device)


def _open(path: Path, device: str) -> tuple[sqlite3.Connection, str]:
    if not path.exists():
        _create_private(path)
    connection = _connect(str(path))
    try:
        return connection, _prepare(connection, device, f"the spool {path}")
    except BaseException:
        connection.close()
        raise


def _create_private(path: Path) -> None:
    """Make the file readable for its owner alone, and its name safe against a power cut."""
    os.close(os.open(path, os.O_CREAT | os.O_RDWR | os.O_CLOEXEC, 0o600))
    directory = os.open(path.parent, os.O_RDONLY | os.O_CLOEXEC)
    try:
        os.fsync(directory)
    finally:
        os.close(directory)


def _connect(name: str) -> sqlite3.Connection:
    # The spool's own lock serializes the threads; transactions are begun and ended by hand.
    connection = sqlite3.connect(name, check_same_thread=False, isolation_level=None)
    connection.execute(f"PRAGMA busy_timeout={_BUSY_TIMEOUT_MS}")
    return connection


def _prepare(connection: sqlite3.Connection, device: str, what: str) -> str:
    """Set the pragmas, create or check the schema, and return the spool's id."""
    connection.execute("PRAGMA journal_mode=WAL")
    connection.execute("PRAGMA synchronous=FULL")
    connection.execute(f"PRAGMA journal_size_limit={_WAL_LIMIT_BYTES}")
    version = connection.execute("PRAGMA user_version").fetchone()[0]
    tables = connection.execute("SELECT count(*) FROM sqlite_schema").fetchone()[0]
    if version == 0 and tables == 0:
        _create_schema(connection, device)
    _check_identity(connection, device, what)
    # Touch the ends of both tables: damage there should show now, not at the first reading.
    connection.execute("SELECT min(sequence), max(sequence), count(*) FROM readings").fetchone()
    connection.execute("SELECT max(sequence) FROM rejected").fetchone()
    return str(read_meta(connection, "spool_id"))


def read_meta(connection: sqlite3.Connection, name: str) -> str | int:
    """A value of the `meta` table; sqlite3.DatabaseError where it is missing, for then the file is damaged."""
    row = connection.execute("SELECT value FROM meta WHERE name = ?", (name,)).fetchone()
    if row is None:
        raise sqlite3.DatabaseError(f"the meta table lacks {name}")
    value: str | int = row[0]
    return value


def _create_schema(connection: sqlite3.Connection, device: str) -> None:
    connection.execute("BEGIN IMMEDIATE")
    try:
        for statement in _SCHEMA:
            connection.execute(statement)
        connection.executemany(
            "INSERT INTO meta (name, value) VALUES (?, ?)",
            [
                ("device", device),
                ("spool_id", secrets.token_hex(4)),
                ("last_sequence", 0),
                ("dropped", 0),
                ("rejected", 0),
            ],
        )
        connection.execute(f"PRAGMA application_id={_APPLICATION_ID}")
        connection.execute(f"PRAGMA user_version={_SCHEMA_VERSION}")
        connection.execute("COMMIT")
    except BaseException:
        if connection.in_transaction:
            connection.execute("ROLLBACK")
        raise


def _check_identity(connection: sqlite3.Connection, device: str, what: str) -> None:
    application = connection.execute("PRAGMA application_id").fetchone()[0]
    version = connection.execute("PRAGMA user_version").fetchone()[0]
    if application != _APPLICATION_ID:
        raise SpoolError(
            f"{what} is not a device's spool but another program's SQLite file; choose another path"
        )
    if version != _SCHEMA_VERSION:
        raise SpoolError(
            f"{what} was made by a newer version of this program (schema {version}); update this one"
        )
    owner = read_meta(connection, "device")
    if owner != device:
        raise SpoolError(
            f"{what} belongs to the device {owner!r}, not to {device!r}; every device needs its own"
        )


def _set_aside(path: Path) -> Path:
    number = 1
    while (aside := path.with_name(f"{path.name}.damaged-{number}")).exists():
        number += 1
    for suffix in ("", "-wal", "-shm"):
        part = path.with_name(path.name + suffix)
        if part.exists():
            part.rename(path.with_name(f"{aside.name}{suffix}"))
    return aside
