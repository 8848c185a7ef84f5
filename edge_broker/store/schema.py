"""The database file: its tables, how a new one is made, how one is opened, and how to tell whose it is.

A new database is built beside its place and moved there when it is whole and synced, so a file that is there and not
readable is damage, never a birth that was interrupted. `auto_vacuum` and the page size must be set before the first
table exists. The tables are always made in this order: their root pages are then the same in every store, which is what
lets `recovery` read a file whose first page is gone.
"""

from __future__ import annotations

import os
import sqlite3
from pathlib import Path
from typing import Final

from edge_broker.errors import StoreError

DATABASE_NAME: Final = "broker.db"
APPLICATION_ID: Final = 0x65644252  # "edBR"
SCHEMA_VERSION: Final = 2
"""2: times are stamps on timelines (`times`), those of version 1, plain wall time, on timeline 0; segments say which
numbers are in memory only; messages may be encrypted."""
_OLDEST_VERSION: Final = 1
PAGE_BYTES: Final = 4096
CHECKPOINT_BYTES: Final = 4 << 20
"""The write-ahead log goes into the database when it is this large: so often is a page written twice at most."""

TABLES: Final = (
    # The run's number, identifiers that were given out, and what `clock` keeps.
    "CREATE TABLE meta (name TEXT PRIMARY KEY, value INTEGER NOT NULL, crc INTEGER NOT NULL) WITHOUT ROWID",
    """CREATE TABLE session (session_id INTEGER PRIMARY KEY, client_id TEXT NOT NULL, identity TEXT NOT NULL,
       expiry_interval INTEGER NOT NULL, disconnected_ms INTEGER, will_delay INTEGER NOT NULL, will BLOB,
       crc INTEGER NOT NULL)""",
    """CREATE TABLE subscription (session_id INTEGER NOT NULL, topic_filter TEXT NOT NULL, qos INTEGER NOT NULL,
       no_local INTEGER NOT NULL, retain_as_published INTEGER NOT NULL, subscription_id INTEGER NOT NULL,
       crc INTEGER NOT NULL, PRIMARY KEY (session_id, topic_filter)) WITHOUT ROWID""",
    # QoS 2 packet ids received whose PUBREL has not come.
    """CREATE TABLE inbound (session_id INTEGER NOT NULL, packet_id INTEGER NOT NULL, crc INTEGER NOT NULL,
       PRIMARY KEY (session_id, packet_id)) WITHOUT ROWID""",
    "CREATE TABLE outbox (queue_id INTEGER PRIMARY KEY, name TEXT NOT NULL, crc INTEGER NOT NULL)",
    # What of a queue is acknowledged. Written when that changes, not when messages are appended.
    """CREATE TABLE queue (queue_id INTEGER PRIMARY KEY, head INTEGER NOT NULL, marks BLOB NOT NULL,
       crc INTEGER NOT NULL)""",
    # Messages; ids rise in the order of commits, so the rows of one commit share their pages, whatever their queues.
    """CREATE TABLE segment (id INTEGER PRIMARY KEY, queue_id INTEGER NOT NULL, first_number INTEGER NOT NULL,
       last_number INTEGER NOT NULL, count INTEGER NOT NULL, crc INTEGER NOT NULL, body BLOB NOT NULL)""",
    # Covering, so that a segment's place is known even where its row cannot be read.
    "CREATE UNIQUE INDEX segment_place ON segment (queue_id, first_number, last_number)",
    "CREATE TABLE retained (topic TEXT PRIMARY KEY, crc INTEGER NOT NULL, body BLOB NOT NULL) WITHOUT ROWID",
    # Segments whose checksum was wrong when they were read, for whoever wants to look.
    """CREATE TABLE damaged (id INTEGER PRIMARY KEY, queue_id INTEGER, first_number INTEGER, last_number INTEGER,
       count INTEGER, crc INTEGER, body BLOB)""",
)
_TABLE_NAMES: Final = frozenset(
    ("meta", "session", "subscription", "inbound", "outbox", "queue", "segment", "retained", "damaged")
)


class DamagedStore(sqlite3.DatabaseError):
    """The database opens, but is not as we made it. Counts as SQLITE_CORRUPT."""

    sqlite_errorcode = sqlite3.SQLITE_CORRUPT
    sqlite_errorname = "SQLITE_CORRUPT"


def side_files(path: Path) -> tuple[Path, Path]:
    """The write-ahead log and its index beside the database at `path`."""
    return path.with_name(path.name + "-wal"), path.with_name(path.name + "-shm")


def connect(path: Path, *, read_only: bool = False, unwritable: bool = False) -> sqlite3.Connection:
    """A connection as the store uses it. The file must exist.

    `unwritable`: not even the side files can be, and nobody else has the database open, as on a disk that is mounted
    read-only. SQLite then keeps the index of the write-ahead log in memory, or reads the database alone if there is no log.
    """
    options = "mode=ro" if read_only else "mode=rw"
    if unwritable:
        options += "&vfs=unix-none" if _has_log(path) else "&immutable=1"
    connection = sqlite3.connect(
        f"{path.absolute().as_uri()}?{options}",
        uri=True,
        isolation_level=None,
        check_same_thread=False,
        timeout=5.0,
    )
    connection.text_factory = lenient_text
    try:
        if unwritable:
            connection.execute("PRAGMA locking_mode=EXCLUSIVE")
        if not read_only:
            connection.execute("PRAGMA journal_mode=WAL")
        connection.execute("PRAGMA synchronous=FULL")
        # What was deleted may stay readable in free pages: overwriting it would double what a drained queue writes.
        connection.execute("PRAGMA secure_delete=OFF")
        connection.execute("PRAGMA temp_store=MEMORY")
        connection.execute(f"PRAGMA wal_autocheckpoint={CHECKPOINT_BYTES // PAGE_BYTES}")
        connection.execute(f"PRAGMA journal_size_limit={CHECKPOINT_BYTES}")
        if read_only:
            connection.execute("PRAGMA query_only=ON")
    except BaseException:
        connection.close()
        raise
    return connection


def _has_log(path: Path) -> bool:
    log = side_files(path)[0]
    return log.exists() and log.stat().st_size > 0


def lenient_text(raw: bytes) -> str:
    """Text as it is stored; a row whose text is damaged shall fail its checksum, not the whole query."""
    return raw.decode("utf-8", "surrogateescape")


def create(path: Path) -> None:
    """Make a new, empty database at `path`, where there is none."""
    birthplace = path.with_name(path.name + ".new")
    build_empty(birthplace).close()
    move_into_place(birthplace, path)


def build_empty(path: Path) -> sqlite3.Connection:
    """An empty database at `path`, in place of what is there, without a write-ahead log and not synced yet."""
    path.unlink(missing_ok=True)
    os.close(os.open(path, os.O_CREAT | os.O_EXCL | os.O_WRONLY, 0o600))
    connection = sqlite3.connect(path, isolation_level=None, check_same_thread=False)
    try:
        connection.execute(f"PRAGMA page_size={PAGE_BYTES}")
        connection.execute("PRAGMA auto_vacuum=INCREMENTAL")
        connection.execute("PRAGMA journal_mode=OFF")
        connection.execute("PRAGMA synchronous=OFF")
        connection.execute("BEGIN")
        connection.execute(f"PRAGMA application_id={APPLICATION_ID}")
        connection.execute(f"PRAGMA user_version={SCHEMA_VERSION}")
        for statement in TABLES:
            connection.execute(statement)
        connection.execute("COMMIT")
    except BaseException:
        connection.close()
        raise
    return connection


def move_into_place(source: Path, target: Path) -> None:
    """Sync the file `source` and rename it to `target`, both in one directory, so that it survives a power cut."""
    sync(source)
    os.replace(source, target)
    sync(target.parent)


def sync(path: Path) -> None:
    """Have the file or directory at `path` on the disk."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def write_private(path: Path, content: bytes) -> None:
    """A new file at `path`, or an old one's content replaced, readable for its owner only whatever the umask."""
    descriptor = os.open(path, os.O_CREAT | os.O_TRUNC | os.O_WRONLY, 0o600)
    with os.fdopen(descriptor, "wb") as file:
        os.fchmod(descriptor, 0o600)
        file.write(content)


def check(connection: sqlite3.Connection, path: Path) -> None:
    """Refuse what is not ours to touch with `StoreError`; what is ours but broken with `DamagedStore`."""
    application_id = connection.execute("PRAGMA application_id").fetchone()[0]
    version = connection.execute("PRAGMA user_version").fetchone()[0]
    tables = {row[0] for row in connection.execute("SELECT name FROM sqlite_schema WHERE type = 'table'")}
    if application_id != APPLICATION_ID:
        if not _TABLE_NAMES & tables:
            raise StoreError(
                "open",
                f"{path} is another program's database",
                "choose another data_dir, or move the file away",
            )
        raise DamagedStore("the application id is not ours")
    if version > SCHEMA_VERSION:
        raise StoreError(
            "open",
            f"{path} was written by a newer edge-broker (schema {version}, this one knows {SCHEMA_VERSION})",
            "install the newer version again, or choose another data_dir",
        )
    if version < _OLDEST_VERSION or not tables >= _TABLE_NAMES:
        raise DamagedStore("tables are missing")


def migrate(connection: sqlite3.Connection) -> int | None:
    """Bring a database that `check` let pass to this version, in one transaction; the version it had, None if this one.

    From 1 to 2 no row changes: what is there keeps its meaning, and an older broker, to which new rows would seem damaged,
    or mean dates far in the future, is kept from them.
    """
    version: int = connection.execute("PRAGMA user_version").fetchone()[0]
    if version == SCHEMA_VERSION:
        return None
    connection.execute("BEGIN IMMEDIATE")
    try:
        connection.execute(f"PRAGMA user_version={SCHEMA_VERSION}")
        connection.execute("COMMIT")
    except BaseException:
        if connection.in_transaction:
            connection.rollback()
        raise
    return version
