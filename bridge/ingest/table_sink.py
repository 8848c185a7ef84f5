"""Output into a table of a SQLite database of its own, by the key (gateway, lane, epoch, sequence).

The table's commit comes before the one of what was seen, so a crash between the two makes the messages come again; the
key then tells that they are there. So even with a lost `ingest.db` no message that has an origin is in it twice.
"""

from __future__ import annotations

import sqlite3
from pathlib import Path
from typing import Final

from bridge.envelope import Envelope

_SCHEMA: Final = """
CREATE TABLE IF NOT EXISTS messages (
    id INTEGER PRIMARY KEY, gateway TEXT, lane TEXT, epoch INTEGER, sequence INTEGER, received_at REAL NOT NULL,
    topic TEXT NOT NULL, qos INTEGER NOT NULL, retain INTEGER NOT NULL, properties BLOB NOT NULL, payload BLOB NOT NULL);
CREATE UNIQUE INDEX IF NOT EXISTS messages_by_origin ON messages (gateway, lane, epoch, sequence);
"""
_INSERT: Final = (
    "INSERT OR IGNORE INTO messages (gateway, lane, epoch, sequence, received_at, topic, qos, retain, properties, payload) "
    "VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?)"
)


class TableSink:
    """The table `messages` in the database at `path`. Messages without an origin have NULL in the key's columns."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._table: sqlite3.Connection | None = None
        self.already_there = 0

    def recover(self, connection: sqlite3.Connection) -> None:
        """Open it anew: what was not committed is not in it."""
        self.close()
        self._path.parent.mkdir(parents=True, exist_ok=True)
        table = sqlite3.connect(self._path, isolation_level=None, check_same_thread=False, timeout=10.0)
        self._table = table
        table.execute("PRAGMA journal_mode = WAL")
        table.execute("PRAGMA synchronous = FULL")
        table.executescript(_SCHEMA)
        self.already_there = 0

    def write(self, connection: sqlite3.Connection, run: Envelope, received_at: float) -> None:
        """Insert the messages of `run` that are not there."""
        table = self._opened()
        if not table.in_transaction:
            table.execute("BEGIN IMMEDIATE")
        has_origin = run.epoch >= 0
        key = (run.gateway, run.lane, run.epoch) if has_origin else (None, None, None)
        rows = [
            (
                *key,
                message.sequence if has_origin else None,
                received_at,
                message.topic,
                message.qos,
                message.retain,
                message.property_block,
                message.payload,
            )
            for message in run.messages
        ]
        self.already_there += len(rows) - table.executemany(_INSERT, rows).rowcount

    def sync(self) -> None:
        """Commit, synced."""
        if self._opened().in_transaction:
            self._opened().execute("COMMIT")

    def commit(self, connection: sqlite3.Connection) -> None:
        """Nothing: the table remembers by itself."""

    def close(self) -> None:
        """Close the database."""
        if self._table is not None:
            self._table.close()
            self._table = None

    def _opened(self) -> sqlite3.Connection:
        assert self._table is not None
        return self._table
