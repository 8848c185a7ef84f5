"""The control: the broker as it is, but its SQLite does not sync. `python -m tests.torture.unsynced run --config FILE`.

It acknowledges what a power cut takes away. An accountant that reports no loss of such a broker would see none of ours
either. There is no configuration key for this.
"""

from __future__ import annotations

import sqlite3
from pathlib import Path

from edge_broker.cli import main
from edge_broker.store import opening, schema


def connect_unsynced(path: Path, *, read_only: bool = False, unwritable: bool = False) -> sqlite3.Connection:
    """A connection as the store uses it, but for the one thing that counts."""
    connection = schema.connect(path, read_only=read_only, unwritable=unwritable)
    connection.execute("PRAGMA synchronous=OFF")
    return connection


if __name__ == "__main__":
    assert opening.connect is schema.connect, "the store connects elsewhere now"
    opening.connect = connect_unsynced
    main()
