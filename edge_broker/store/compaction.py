"""Writing a store anew without its free pages: for when a backlog of gigabytes has drained and the disk is needed now.

A running broker gives space back by itself, a little at a time; this does it at once, and puts each table's pages in
order. It needs the directory for itself, under the lock that keeps two brokers apart. The new file is built beside the
old one under the name that `recovery` throws away at a start, synced, and renamed into place: a crash leaves the old
database or the new one, whole.
"""

from __future__ import annotations

import os
import sqlite3
from collections.abc import Callable, Iterator
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from edge_broker.errors import StoreError
from edge_broker.store import rows
from edge_broker.store.faults import READ_ERRORS, Damaged, explain
from edge_broker.store.lock import DirectoryLock
from edge_broker.store.schema import DATABASE_NAME, build_empty, check, move_into_place, side_files
from edge_broker.store.times import Times
from edge_broker.store.vault import KEY_NAME, Vault
from edge_broker.wire.topics import TopicCache

_SLACK_BYTES: Final = 1 << 20
_SEALED: Final = ("meta", "session", "segment", "retained")
"""The tables in which something is encrypted, and the one that says with which keys."""
_STEPS_BETWEEN_LOOKS: Final = 20_000


@dataclass(frozen=True, slots=True)
class Compaction:
    """What it came to, in bytes of the database with its write-ahead log."""

    before_bytes: int
    after_bytes: int


def compact(
    directory: Path, progress: Callable[[float], None] = lambda _: None, vault: Vault | None = None
) -> Compaction:
    """Rewrite the store in `directory`. `progress` is called with the share that is done, 0 to 1.

    Where `vault` has keys, everything is encrypted anew with the one that it writes with, or plain if it has none;
    without keys what is encrypted stays so.

    `StoreError` if a broker or anything else has it open, it is damaged, a key is missing, or the disk has no room for a
    second copy of what is in use; the store is as it was then.
    """
    path = directory / DATABASE_NAME
    if not path.exists():
        raise StoreError("compact", f"there is no store in {directory}", "name the broker's data_dir")
    try:
        lock = DirectoryLock(directory, "edge-broker store compact")
        try:
            return _rewrite(path, progress, vault or Vault())
        finally:
            lock.release()
    except StoreError as error:
        raise StoreError("compact", error.problem, error.hint) from error
    except (*READ_ERRORS, OSError) as error:
        raise explain("compact", error) from error


def _rewrite(path: Path, progress: Callable[[float], None], vault: Vault) -> Compaction:
    before = sum(file.stat().st_size for file in (path, side_files(path)[0]) if file.exists())
    target = path.with_name(f"{path.name}.salvaging")
    try:
        with closing(_open_alone(path)) as connection:
            needed = _needed_bytes(connection)
            _check_room(path.parent, needed)
            build_empty(target).close()
            _make_like(target, path)
            _report(connection, target, needed, progress)
            _copy(connection, target, vault)
        for side_file in side_files(path):  # what is left of them is of the old file, and empty
            side_file.unlink(missing_ok=True)
        move_into_place(target, path)
    except BaseException:
        target.unlink(missing_ok=True)
        raise
    progress(1.0)
    return Compaction(before, path.stat().st_size)


def _open_alone(path: Path) -> sqlite3.Connection:
    """A connection that nobody else can have beside it, to a database that is whole and has no write-ahead log any more."""
    connection = sqlite3.connect(
        f"{path.absolute().as_uri()}?mode=rw", uri=True, isolation_level=None, timeout=1.0
    )
    try:
        connection.execute("PRAGMA locking_mode=EXCLUSIVE")
        connection.execute("PRAGMA synchronous=FULL")
        check(connection, path)
        # This brings the log into the database and takes it away, and fails where anybody else is connected.
        connection.execute("PRAGMA journal_mode=DELETE")
        problem = connection.execute("PRAGMA quick_check(1)").fetchone()[0]
        if problem != "ok":
            raise StoreError(
                "compact",
                f"the store is damaged: {problem}",
                "start the broker, which saves what is readable",
            )
    except BaseException:
        connection.close()
        raise
    return connection


def _needed_bytes(connection: sqlite3.Connection) -> int:
    pages, free, size = (
        connection.execute(f"PRAGMA {name}").fetchone()[0]
        for name in ("page_count", "freelist_count", "page_size")
    )
    return int((pages - free) * size)


def _check_room(directory: Path, needed_bytes: int) -> None:
    disk = os.statvfs(directory)
    free = disk.f_bavail * disk.f_frsize
    if free < needed_bytes + _SLACK_BYTES:
        raise StoreError(
            "compact",
            f"the disk has {free / 1e6:.1f} MB free, and a second copy takes {needed_bytes / 1e6:.1f} MB",
            "free some space on the disk of data_dir",
        )


def _make_like(target: Path, path: Path) -> None:
    """Permissions and owner of the old file: root may run this for the broker's user."""
    status = path.stat()
    os.chmod(target, status.st_mode & 0o777)
    if (status.st_uid, status.st_gid) != (os.geteuid(), os.getegid()):
        os.chown(target, status.st_uid, status.st_gid)


def _copy(connection: sqlite3.Connection, target: Path, vault: Vault) -> None:
    """All rows into the empty store at `target`, which nobody needs before it is whole and synced.

    Not by VACUUM: that puts the index behind the tables, and `recovery` counts on every store's roots being in one place.
    """
    connection.execute("ATTACH ? AS fresh", (str(target),))
    connection.execute("PRAGMA fresh.journal_mode=OFF")
    connection.execute("PRAGMA fresh.synchronous=OFF")
    tables = connection.execute(
        "SELECT name FROM fresh.sqlite_schema WHERE type = 'table' ORDER BY rowid"
    ).fetchall()
    connection.execute("BEGIN")
    for (table,) in tables:
        if vault.has_keys and table in _SEALED:
            _copy_sealed_anew(connection, table, vault)
        else:
            connection.execute(f"INSERT INTO fresh.{table} SELECT * FROM main.{table}")
    connection.execute("COMMIT")
    connection.execute("DETACH fresh")


def _copy_sealed_anew(connection: sqlite3.Connection, table: str, vault: Vault) -> None:
    """Each row opened with the key that it was sealed with, and sealed with the one for what is written."""
    found = connection.execute(f"SELECT * FROM main.{table}")
    if table == "meta":
        copies: Iterator[rows.Row] = (row for row in found if not row[0].startswith(KEY_NAME))
    elif table == "segment":
        copies = ((row[0], *vault.seal_segments([vault.open_segment(row[1:])])[0]) for row in found)
    elif table == "retained":
        copies = (_retained_anew(row, vault) for row in found)
    else:
        copies = (vault.seal_session(vault.open_session(row)) for row in found)
    for row in copies:
        connection.execute(f"INSERT OR REPLACE INTO fresh.{table} VALUES ({','.join('?' * len(row))})", row)
    if table == "meta":
        added = [rows.sealed(name, value) for name, value in vault.new_meta({}).items()]
        connection.executemany(f"INSERT INTO fresh.{table} VALUES (?, ?, ?)", added)


def _retained_anew(row: rows.Row, vault: Vault) -> rows.Row:
    """Likewise; its topic stands in the message, where it is not the row's key."""
    opened = vault.open_retained(row)
    try:
        topic = rows.retained_message(opened, TopicCache(), Times(0.0)).topic
    except Damaged:
        return row  # as it is: whoever reads it tells of it
    return vault.seal_retained((topic, rows.checksum(topic, opened[2]), opened[2]))


def _report(
    connection: sqlite3.Connection, target: Path, needed_bytes: int, progress: Callable[[float], None]
) -> None:
    """Have SQLite look now and then how far the new file has grown."""

    def look() -> int:
        progress(min(1.0, target.stat().st_size / max(1, needed_bytes)))
        return 0

    connection.set_progress_handler(look, _STEPS_BETWEEN_LOOKS)
