"""Giving disk space back after a backlog has drained, a little at a time.

Free pages are normally kept: the next messages go there. Only where most of the file is free is it worth moving the few
pages in use to the front and cutting off the rest: each page cut off then costs a fraction of a page written.
"""

from __future__ import annotations

import sqlite3
from typing import Final

_LEAST_FREE_PAGES: Final = 1_024
_FREE_OF_ALL: Final = 0.75
_PAGES_PER_STEP: Final = 256
"""Well below SQLite's page cache: pages that are cut off are dirty for a moment, and written if they do not fit there."""


def give_back(connection: sqlite3.Connection) -> bool:
    """Shorten the database by one small step if that pays; whether there is more to do."""
    if not _pays(connection):
        return False
    # A script: its statements are stepped to their end without coming back to Python for each page.
    connection.executescript(f"PRAGMA incremental_vacuum({_PAGES_PER_STEP})")
    if _pays(connection):
        return True
    connection.execute("PRAGMA wal_checkpoint(PASSIVE)").fetchone()  # it is this that makes the file shorter
    return False


def _pays(connection: sqlite3.Connection) -> bool:
    free = connection.execute("PRAGMA freelist_count").fetchone()[0]
    return bool(
        free >= _LEAST_FREE_PAGES
        and free >= _FREE_OF_ALL * connection.execute("PRAGMA page_count").fetchone()[0]
    )
