"""What every output has in common: it takes runs of messages, makes them safe, and can go back to what was committed."""

from __future__ import annotations

import sqlite3
from typing import Protocol

from bridge.envelope import Envelope


class Sink(Protocol):
    """An output. All calls come in the database's thread: `recover` first, then for each batch and within its transaction
    `write` for each run, `sync`, `commit`; after any of them failed, `recover` again.
    """

    already_there: int
    """Messages since the last `recover` that the output had already."""

    def recover(self, connection: sqlite3.Connection) -> None:
        """Go back to what was committed last, also after a crash."""

    def write(self, connection: sqlite3.Connection, run: Envelope, received_at: float) -> None:
        """Take new messages of one origin; without one, gateway and lane are empty. `received_at`: Unix time."""

    def sync(self) -> None:
        """Have everything that was written outlive a power cut, or hold it ready for `commit`."""

    def commit(self, connection: sqlite3.Connection) -> None:
        """Note in the database how far it is."""

    def close(self) -> None:
        """Let go."""
