"""How a store is opened: on a good disk, a full one, one that is mounted read-only, and after damage.

All of it but `_take_snapshot` runs in the threads of the two connections.

- A database that is ours and whole is opened as it is; one of an older schema becomes one of this.
- What cannot be opened is looked at once more on a connection of its own, and is set aside only where damage is sure.
- The number of a run is on the disk before anything of that run is, and so is the space for it to end well.
- After an error the connection is made anew, and everything that the log shows is brought into the database and synced.

It writes no batch and reads no message of a queue; what is lost is told, never left out silently.
"""

from __future__ import annotations

import logging
import os
import sqlite3
import time
from collections.abc import Callable
from pathlib import Path
from typing import Final

from edge_broker.core.ops import Snapshot
from edge_broker.store.clock import kept_deltas
from edge_broker.store.clock_keeper import ClockKeeper
from edge_broker.store.connection import ThreadedConnection
from edge_broker.store.faults import READ_ERRORS, NoRoom, ReadOnly, calls_for_recovery, is_io_error
from edge_broker.store.lock import DirectoryLock
from edge_broker.store.readback import SurelyDamaged, open_again
from edge_broker.store.recovery import RecoveryReport, finish_interrupted, recover, tell
from edge_broker.store.reserve import Reserve
from edge_broker.store.schema import (
    DATABASE_NAME,
    SCHEMA_VERSION,
    DamagedStore,
    check,
    connect,
    create,
    migrate,
    side_files,
)
from edge_broker.store.segment import TopicNames
from edge_broker.store.snapshot import SnapshotLoader
from edge_broker.store.times import wall_times
from edge_broker.store.vault import Vault
from edge_broker.store.write_ahead_log import LogState, empty_log, examine, keep_log
from edge_broker.store.writer import Writer

_log: Final = logging.getLogger(__name__)

_MAX_EPOCH: Final = 0xFFFFFFFF


class Opening:
    """The store's first floor: its files, its two connections, and what this run began with.

    `recovery`: the report of the last recovery in this run, None if there was none. `log_state`: the write-ahead log that
    the start found. `unwritable`: the disk is mounted read-only; what is on it can be read, and no commit succeeds before
    that changes.
    """

    def __init__(
        self,
        directory: Path,
        lock: DirectoryLock,
        topics: TopicNames,
        wall_offset: Callable[[], float],
        monotonic: Callable[[], float],
        clock_confirmed: Callable[[], bool],
        vault: Vault,
    ) -> None:
        self._vault = vault
        self._path = directory / DATABASE_NAME
        self._lock = lock
        self._topics = topics
        self._keeper = ClockKeeper(wall_offset, monotonic, clock_confirmed)
        self._reserve = Reserve(directory)
        self._writer = Writer(vault)
        self._loader: SnapshotLoader | None = None
        self._snapshot: Snapshot | None = None
        self._run_meta: dict[str, int] = {}
        self._writing = ThreadedConnection("store-writer", self._open_database, self._reopen_to_write)
        self._reading = ThreadedConnection("store-reader", self._open_to_read, self._open_to_read)
        self.unwritable = lock.unwritable
        self.recovery: RecoveryReport | None = None
        self.log_state = LogState()

    def _open_database(self) -> sqlite3.Connection:
        """The writing connection to a database that is ours and whole, and this run's snapshot."""
        if self.unwritable:
            return self._open_unwritable()
        finish_interrupted(self._path, stamp())
        if not self._path.exists() and not side_files(self._path)[0].exists():
            create(self._path)
        self.log_state = examine(self._path)
        if self.log_state.lost_commits:
            keep_log(self._path, self.log_state, stamp())
        try:
            return self._open_and_load()
        except READ_ERRORS as error:
            if not self._reserve.ran_out(error):
                return self._open_in_spite_of(error)
            if not self._reserve.give_up():
                raise NoRoom(str(error)) from error
        return self._open_and_load()

    def _open_in_spite_of(self, error: BaseException) -> sqlite3.Connection:
        """The database that could not be opened, once more; or what could be saved of it, where it is damaged."""
        if not calls_for_recovery(error) and not is_io_error(error):
            raise error
        _log.warning("the store cannot be opened, it is looked at once more: %s", error)
        try:
            return open_again(self._path, error, self._open_and_load)
        except SurelyDamaged as damage:
            self.recovery = recover(self._path, str(damage), stamp(), or_empty=True)
        return self._open_and_load()

    def _open_unwritable(self) -> sqlite3.Connection:
        """A connection that only reads, on a disk that is mounted read-only: commits fail until that changes."""
        connection = connect(self._path, read_only=True, unwritable=True)
        try:
            check(connection, self._path)
            self._begin_run(connection)
        except BaseException:
            connection.close()
            raise
        _log.error("%s is on a disk that is mounted read-only: nothing can be kept", self._path)
        return connection

    def _open_and_load(self) -> sqlite3.Connection:
        if not self._path.exists() or self._path.stat().st_size == 0:
            raise DamagedStore("the database file is missing or empty")
        connection = connect(self._path)
        try:
            check(connection, self._path)
            if self.log_state.tail_frames:
                empty_log(connection)
            before = migrate(connection)
            if before is not None:
                _log.info("the store was of schema %d and is of %d now", before, SCHEMA_VERSION)
            self._begin_run(connection)
        except BaseException:
            connection.close()
            raise
        return connection

    def _begin_run(self, connection: sqlite3.Connection) -> None:
        """Load the snapshot and commit the number of this run.

        The first run of a database is numbered by the wall clock's seconds: should all be lost, the messages of the
        next life are not taken for those of this one.
        """
        loader = SnapshotLoader(connection, self._topics, self._vault)
        meta = loader.meta()
        self._vault.check(meta)
        clock = self._keeper.begin(meta, loader.newest(wall_times(kept_deltas(meta))))
        epoch = meta.get("epoch", int(clock.wall(self._keeper.monotonic())) - 1) + 1
        epoch = max(1, min(epoch, _MAX_EPOCH))
        snapshot = loader.load(epoch, meta.get("next_queue_id", 1), clock.times)
        self._run_meta = {"epoch": epoch, **self._vault.new_meta(meta)}
        self._writer.ids_below = snapshot.next_queue_id
        if not self.unwritable:
            self._write_run(connection)
        self._loader, self._snapshot = loader, snapshot

    def _write_run(self, connection: sqlite3.Connection) -> None:
        """Have on the disk that this run has begun, and the space for it to end well."""
        self._keeper.write(connection, self._run_meta)
        self._reserve.take()

    def _reopen_to_write(self) -> sqlite3.Connection:
        """A new connection after an error: what the log shows may not be on the disk, so it is brought there first."""
        if self.unwritable:
            if not os.access(self._path.parent, os.W_OK):
                raise ReadOnly(f"{self._path.parent} is mounted read-only")
            self._reading.doubt()  # it counts on nobody writing
        connection = connect(self._path)
        try:
            busy = connection.execute("PRAGMA wal_checkpoint(TRUNCATE)").fetchone()[0]
            if busy:
                raise sqlite3.OperationalError("the write-ahead log is in use")
            if self.unwritable:
                migrate(connection)
                self._write_run(connection)
                self.unwritable = False
        except BaseException:
            connection.close()
            raise
        self._writer.forget()
        return connection

    def _open_to_read(self) -> sqlite3.Connection:
        return connect(self._path, read_only=True, unwritable=self.unwritable)

    # ---- for whoever opened it

    def _take_snapshot(self) -> Snapshot:
        """What was loaded when the database was opened; the log hears of what is missing in it."""
        loader, snapshot = self._loader, self._snapshot
        assert loader is not None
        assert snapshot is not None
        self._loader = self._snapshot = None
        self._log_recovery()
        self._keeper.start(self._writing.run)
        for table, key in loader.damaged:
            _log.error("the store's row %s of table %s is damaged and left out", key, table)
        for queue_id in loader.ownerless:
            _log.error("queue %s holds messages, but whose it was is lost", queue_id)
        return snapshot

    def _log_recovery(self) -> None:
        """Say what recovery did: in the log, and beside the damaged file for whoever asks later."""
        if self.recovery is None:
            for line in self.log_state.lines():
                _log.log(logging.ERROR if self.log_state.lost_commits else logging.WARNING, "%s", line)
            return
        tell(self.recovery, self.log_state.lines())


def stamp() -> str:
    """Now, as it stands in the names of files that are set aside."""
    return time.strftime("%Y%m%d-%H%M%S", time.gmtime())
