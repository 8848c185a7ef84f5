"""The ingester's memory on disk: what was seen, how far the output is, what waits for the target, what was rejected.

Everything that a batch changes is in one transaction, synced, before the cluster hears that it is safe. Each function
here runs in the database's thread, within the transaction of whoever calls it.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Iterable, Iterator
from functools import partial
from pathlib import Path
from typing import Final, NamedTuple, TypeVar

import msgspec

from bridge.windows import LaneKey, Stretch, Windows
from edge_broker.errors import StoreError
from edge_broker.store.connection import ThreadedConnection

FILE_NAME: Final = "ingest.db"
_FORMAT: Final = 1
_SCHEMA: Final = """
CREATE TABLE IF NOT EXISTS facts (name TEXT PRIMARY KEY, value BLOB NOT NULL) WITHOUT ROWID;
CREATE TABLE IF NOT EXISTS seen (
    kind INTEGER NOT NULL, gateway TEXT NOT NULL, lane TEXT NOT NULL, epoch INTEGER NOT NULL,
    stretches BLOB NOT NULL, heard_at REAL NOT NULL, PRIMARY KEY (kind, gateway, lane, epoch)) WITHOUT ROWID;
CREATE TABLE IF NOT EXISTS outbox (
    number INTEGER PRIMARY KEY, step INTEGER NOT NULL, retain INTEGER NOT NULL, topic TEXT NOT NULL,
    properties BLOB NOT NULL, payload BLOB NOT NULL);
CREATE TABLE IF NOT EXISTS rejected (
    number INTEGER PRIMARY KEY, at REAL NOT NULL, topic TEXT NOT NULL, reason TEXT NOT NULL, payload BLOB NOT NULL);
"""

T = TypeVar("T")

LANES: Final = 0
SPOOLS: Final = 1
"""The two kinds of what was seen: gateways' lanes, and devices' spools."""


def open_database(directory: Path) -> ThreadedConnection:
    """The database in `directory` and its thread; nothing is opened before its `start`."""
    return ThreadedConnection("ingest", partial(connect, directory), partial(connect, directory))


def connect(directory: Path | None) -> sqlite3.Connection:
    """The database in `directory`, both made where they are not there; without one in memory."""
    if directory is None:
        connection = _connect(":memory:")
    else:
        directory.mkdir(parents=True, exist_ok=True)
        connection = _connect(f"file:{directory / FILE_NAME}?mode=rwc")
    try:
        _prepare(connection)
    except BaseException:
        connection.close()
        raise
    return connection


def open_for_reading(directory: Path) -> sqlite3.Connection:
    """The same beside a running ingester; `sqlite3.OperationalError` where there is none yet."""
    return _connect(f"file:{directory / FILE_NAME}?mode=ro")


def _connect(uri: str) -> sqlite3.Connection:
    return sqlite3.connect(uri, uri=True, isolation_level=None, check_same_thread=False, timeout=10.0)


def _prepare(connection: sqlite3.Connection) -> None:
    connection.execute("PRAGMA journal_mode = WAL")
    connection.execute(
        "PRAGMA synchronous = FULL"
    )  # what was acknowledged to the cluster outlives a power cut
    connection.execute("PRAGMA cache_size = -4096")
    connection.executescript(_SCHEMA)
    found = read_fact(connection, "format", int)
    if found is None:
        with transaction(connection):
            write_fact(connection, "format", _FORMAT)
    elif found != _FORMAT:
        raise StoreError(
            "open", f"{FILE_NAME} has format {found}, this version reads {_FORMAT}", "use the newer version"
        )


class transaction:
    """Everything in its block or nothing."""

    def __init__(self, connection: sqlite3.Connection) -> None:
        self._connection = connection

    def __enter__(self) -> None:
        self._connection.execute("BEGIN IMMEDIATE")

    def __exit__(self, kind: type[BaseException] | None, *_: object) -> None:
        if kind is None:
            self._connection.execute("COMMIT")
        elif self._connection.in_transaction:
            self._connection.execute("ROLLBACK")


# ---- facts: single values by name


def write_fact(connection: sqlite3.Connection, name: str, value: object) -> None:
    """Keep `value`, whatever msgpack can hold."""
    connection.execute("INSERT OR REPLACE INTO facts VALUES (?, ?)", (name, msgspec.msgpack.encode(value)))


def read_fact(connection: sqlite3.Connection, name: str, kind: type[T]) -> T | None:
    """What was kept under `name`, None where nothing was."""
    row = connection.execute("SELECT value FROM facts WHERE name = ?", (name,)).fetchone()
    return None if row is None else msgspec.msgpack.decode(row[0], type=kind)


# ---- what was seen


def write_seen(connection: sqlite3.Connection, kind: int, windows: Windows) -> None:
    """Write the lanes that changed; they stay marked until `settle_seen`."""
    upserts = []
    deletes = []
    for key in windows.changed:
        lane = windows.lanes.get(key)
        if lane is None:
            connection.execute("DELETE FROM seen WHERE kind = ? AND gateway = ? AND lane = ?", (kind, *key))
            continue
        for epoch in lane.changed:
            stretches = lane.written(epoch)
            if stretches is None:
                deletes.append((kind, *key, epoch))
            else:
                upserts.append((kind, *key, epoch, msgspec.msgpack.encode(stretches), lane.heard_at))
    connection.executemany("INSERT OR REPLACE INTO seen VALUES (?, ?, ?, ?, ?, ?)", upserts)
    connection.executemany(
        "DELETE FROM seen WHERE kind = ? AND gateway = ? AND lane = ? AND epoch = ?", deletes
    )


def settle_seen(windows: Windows) -> set[LaneKey]:
    """The lanes that the commit has written, now marked so."""
    changed = windows.changed
    windows.changed = set()
    for key in changed:
        lane = windows.lanes.get(key)
        if lane is not None:
            lane.changed.clear()
    return changed


def read_seen(connection: sqlite3.Connection, kind: int, windows: Windows) -> None:
    """Put into `windows` what was written of `kind`."""
    decode = msgspec.msgpack.Decoder(list[Stretch]).decode
    rows = connection.execute(
        "SELECT gateway, lane, epoch, stretches, heard_at FROM seen WHERE kind = ?", (kind,)
    )
    for gateway, lane, epoch, stretches, heard_at in rows:
        windows.restore(LaneKey(gateway, lane), epoch, decode(stretches), heard_at)


def forget_silent(connection: sqlite3.Connection, silent_since: float) -> int:
    """Forget lanes and spools of which nothing came since then (Unix time); how many rows that were."""
    cursor = connection.execute(
        "DELETE FROM seen WHERE (kind, gateway, lane) IN "
        "(SELECT kind, gateway, lane FROM seen GROUP BY kind, gateway, lane HAVING max(heard_at) < ?)",
        (silent_since,),
    )
    return cursor.rowcount


# ---- what was rejected


class Rejected(NamedTuple):
    """What could not be unpacked, as it came. `at`: Unix time."""

    at: float
    topic: str
    reason: str
    payload: bytes


def write_rejected(
    connection: sqlite3.Connection, rejected: Iterable[Rejected], most: int, most_bytes: int
) -> None:
    """Keep `rejected`, and of all that is kept the latest `most` and of those `most_bytes`."""
    rows = [one for one in rejected if len(one.payload) <= most_bytes]
    connection.executemany("INSERT INTO rejected (at, topic, reason, payload) VALUES (?, ?, ?, ?)", rows)
    connection.execute(
        "DELETE FROM rejected WHERE number <= (SELECT max(number) FROM rejected) - ? OR number <= ifnull((SELECT number "
        "FROM (SELECT number, sum(length(payload)) OVER (ORDER BY number DESC) AS bytes FROM rejected) "
        "WHERE bytes > ? ORDER BY number DESC LIMIT 1), 0)",
        (most, most_bytes),
    )


def read_rejected(connection: sqlite3.Connection) -> Iterator[tuple[int, Rejected]]:
    """What is kept of it, oldest first, each with its number."""
    for number, *rest in connection.execute(
        "SELECT number, at, topic, reason, payload FROM rejected ORDER BY number"
    ):
        yield number, Rejected(*rest)
