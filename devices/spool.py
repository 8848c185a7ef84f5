"""The spool: what a device measured and the broker has not acknowledged yet, in order.

Invariants:
- `append` returns after the commit that holds the readings (with a file: synced to disk).
- A reading leaves only when it is settled: acknowledged by the broker, rejected by it for good (then it moves to the
  table `rejected`), or dropped by the stated policy when the spool is full. Each is counted; `dropped` and `rejected`
  are counted over the spool's life.
- Sequence numbers are gapless over what `append` accepted, never reused, and outlive the process. No committed state
  of the file forgets the last one: it is in the row that has it, or in `meta` from the moment that row goes.
- Settled readings leave the file with the next commit, at no sync of their own. A kill -9 before that commit makes
  them leave the spool twice: duplicates with the same sequence number, never a loss.
- Memory holds a bounded piece of the queue, whatever the backlog.

Threads: any number may append, and those that meet share one commit; one thread alone takes, settles and rewinds.
`_disk` serializes what touches SQLite and is held during a sync; `_state` guards what is in memory and is never held
during I/O, so that settling does not wait for the disk.
"""

import sqlite3
import threading
from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final, Literal

from devices.encoding import EncodedReading
from devices.errors import ReadingError, SpoolError, SpoolFullError
from devices.spool_file import open_spool_file, read_meta
from devices.spool_rows import (
    SpooledReading,
    count_readings,
    drop_oldest,
    insert_readings,
    read_page,
    read_rejected,
    remove_settled,
    write_meta,
)

_AHEAD_READINGS: Final = 256  # kept in memory, so that a device whose broker is there never reads its file
_AHEAD_BYTES: Final = 1 << 20


@dataclass(frozen=True)
class SpoolLimits:
    """How much a spool holds, and what happens then.

    `drop_oldest` makes room by dropping the oldest readings that are not on their way; `refuse` raises
    SpoolFullError to the one who publishes. Both are counted. `max_bytes` counts payloads.
    """

    max_readings: int = 100_000
    max_bytes: int = 64 << 20
    when_full: Literal["drop_oldest", "refuse"] = "drop_oldest"

    def __post_init__(self) -> None:
        if self.max_readings < 1 or self.max_bytes < 1:
            raise ValueError("a spool holds at least one reading and one byte")
        if self.when_full not in ("drop_oldest", "refuse"):
            raise ValueError(f"when_full is 'drop_oldest' or 'refuse', not {self.when_full!r}")


class _Batch:
    """What one caller appends; `sequences` or `error` is set by the thread that commits it."""

    __slots__ = ("error", "readings", "sequences", "size_bytes")

    def __init__(self, readings: Sequence[EncodedReading]) -> None:
        self.readings = readings
        self.size_bytes = sum(len(reading.payload) for reading in readings)
        self.sequences: range | None = None
        self.error: SpoolError | None = None


class Spool:
    """A durable queue of readings with one consumer."""

    def __init__(self, path: Path | None, device: str, limits: SpoolLimits | None = None) -> None:
        self.path = path
        self.limits = limits or SpoolLimits()
        self._file = open_spool_file(path, device)
        self._db = self._file.connection
        self.spool_id = self._file.spool_id
        self._disk = threading.Lock()
        self._state = threading.Lock()
        self._changed = threading.Condition(self._state)
        self._closed = False
        self._pending: deque[_Batch] = deque()

        self.waiting, self._waiting_bytes, newest = count_readings(self._db)
        self.last_sequence = max(newest, int(read_meta(self._db, "last_sequence")))
        self.dropped = int(read_meta(self._db, "dropped"))
        self.rejected = int(read_meta(self._db, "rejected"))
        self.refused = 0
        self._taken_up_to = 0  # every unsettled reading up to here is in flight
        self._in_flight: dict[int, int] = {}  # sequence to payload bytes
        self._ahead: deque[SpooledReading] = deque()  # those that follow, as far as memory holds them
        self._ahead_bytes = 0
        self._more_on_disk = self.waiting > 0  # others follow behind them
        self._settled: set[int] = set()  # settled, and still in the file
        self._rejections: dict[int, str] = {}  # those of them that move to the table of the rejected

    def append(self, readings: Sequence[EncodedReading]) -> range:
        """Commit the readings and return their sequence numbers.

        ReadingError: one of them is larger than the whole spool. SpoolFullError: no room, by the owner's choice.
        SpoolError: the disk refused. In all three nothing was accepted and no number was used.
        """
        if not readings:
            return range(0)
        for reading in readings:
            if len(reading.payload) > self.limits.max_bytes:
                raise ReadingError(
                    f"a reading of {len(reading.payload)} bytes is larger than the whole spool may be"
                )
        batch = _Batch(readings)
        with self._state:
            self._pending.append(batch)
        with self._disk:
            if batch.sequences is None and batch.error is None:  # else another thread's commit had it
                self._commit()
        if batch.sequences is None:
            raise batch.error or SpoolError("the reading met no commit")
        return batch.sequences

    def wait_until_at_most(self, waiting: int, timeout_seconds: float | None = None) -> bool:
        """Wait until no more than `waiting` readings are unsettled; False when time ran out or the spool closed."""
        with self._changed:
            self._changed.wait_for(lambda: self.waiting <= waiting or self._closed, timeout_seconds)
            return self.waiting <= waiting

    def take(self) -> SpooledReading | None:
        """The next reading in order, now in flight; None when there is none. SpoolError: the disk refused."""
        if not self._ahead:
            if not self._more_on_disk:
                return None
            with self._disk:
                self._read_ahead()
        with self._state:
            if not self._ahead:
                return None
            spooled = self._ahead.popleft()
            self._ahead_bytes -= spooled.size_bytes
            self._taken_up_to = spooled.sequence
            self._in_flight[spooled.sequence] = spooled.size_bytes
            return spooled

    def acknowledge(self, sequence: int) -> bool:
        """The broker has the reading. False when it was no longer in flight: dropped meanwhile."""
        with self._changed:
            size = self._in_flight.pop(sequence, None)
            if size is None:
                return False
            self._settled.add(sequence)
            self._left(1, size)
            return True

    def reject(self, sequence: int, reason: str) -> bool:
        """The broker will never take the reading: it moves to the table `rejected`, with the reason."""
        with self._changed:
            size = self._in_flight.pop(sequence, None)
            if size is None:
                return False
            self._settled.add(sequence)
            self._rejections[sequence] = reason
            self.rejected += 1
            self._left(1, size)
            return True

    def rewind(self) -> None:
        """The connection is gone: what is unsettled will be taken again, from the oldest on."""
        with self._state:
            self._in_flight.clear()
            self._taken_up_to = 0
            self._forget_ahead()

    @property
    def in_flight(self) -> int:
        """How many readings were taken and are not settled."""
        return len(self._in_flight)

    @property
    def settled_in_file(self) -> int:
        """How many settled readings are still in the file, until the next commit."""
        return len(self._settled)

    def commit_settled(self) -> None:
        """Take the settled readings out of the file now. SpoolError: the disk refused; they will go later."""
        with self._disk:
            if self._settled and not self._closed:
                error = self._commit()
                if error is not None:
                    raise error

    def rejected_readings(self) -> list[tuple[SpooledReading, str]]:
        """The newest rejected readings (a thousand are kept), oldest first, each with the reason."""
        self.commit_settled()
        with self._disk:
            return read_rejected(self._db)

    def close(self) -> None:
        """Commit what is settled and close the file. Appending from now on raises SpoolError."""
        with self._disk:
            if self._closed:
                return
            error = self._commit() if self._settled else None
            with self._state:
                self._closed = True
                self._more_on_disk = False
                self._ahead.clear()
                self._changed.notify_all()
            self._file.close()
        if error is not None:
            raise error

    # -- under _state: what is in memory

    def _left(self, readings: int, size_bytes: int) -> None:
        self.waiting -= readings
        self._waiting_bytes -= size_bytes
        self._changed.notify_all()

    def _forget_ahead(self) -> None:
        self._ahead.clear()
        self._ahead_bytes = 0
        self._more_on_disk = True

    def _put_ahead(self, spooled: SpooledReading) -> None:
        """Keep a reading that just arrived in memory, if nothing on disk stands between it and the others there."""
        full = len(self._ahead) >= _AHEAD_READINGS or self._ahead_bytes + spooled.size_bytes > _AHEAD_BYTES
        if self._more_on_disk or (full and self._ahead):
            self._more_on_disk = True
            return
        self._ahead.append(spooled)
        self._ahead_bytes += spooled.size_bytes

    # -- under _disk: what touches SQLite

    def _read_ahead(self) -> None:
        if self._closed or self._ahead:
            return
        try:
            page, more = read_page(self._db, self._taken_up_to, self._settled, _AHEAD_READINGS, _AHEAD_BYTES)
        except sqlite3.Error as error:
            raise SpoolError(f"the spool {self.path} cannot be read: {error}") from error
        with self._state:
            self._ahead.extend(page)
            self._ahead_bytes = sum(spooled.size_bytes for spooled in page)
            self._more_on_disk = more

    def _commit(self) -> SpoolError | None:
        """One transaction: the settled leave, what is pending comes in, and what does not fit is dropped."""
        with self._state:
            batches = self._accept_pending()
            if self._closed:
                return None
            settled = frozenset(self._settled)
            rejections, rejected = dict(self._rejections), self.rejected
            arrived = _numbered(batches, self.last_sequence + 1)
            excess_readings = self.waiting + len(arrived) - self.limits.max_readings
            excess_bytes = (
                self._waiting_bytes + sum(batch.size_bytes for batch in batches) - self.limits.max_bytes
            )
            if excess_readings > 0 or excess_bytes > 0:
                self._forget_ahead()  # so that nothing can be taken while it is being dropped
        last = self.last_sequence + len(arrived)
        newest_from = self.last_sequence + 1
        try:
            self._db.execute("BEGIN IMMEDIATE")
            remove_settled(self._db, settled, rejections)
            insert_readings(self._db, arrived)
            doomed = drop_oldest(self._db, excess_readings, excess_bytes, self._taken_up_to, newest_from)
            if doomed:
                write_meta(self._db, "dropped", self.dropped + len(doomed))
            if rejections:
                write_meta(self._db, "rejected", rejected)
            if last in settled or last in doomed:
                write_meta(self._db, "last_sequence", last)
            self._db.execute("COMMIT")
        except sqlite3.Error as error:
            return self._not_committed(batches, error)
        self._committed(batches, arrived, settled, doomed)
        return None

    def _accept_pending(self) -> list[_Batch]:
        """Take what is pending and turn away, where the owner chose so, what the spool has no room for."""
        accepted: list[_Batch] = []
        readings, size = self.waiting, self._waiting_bytes
        while self._pending:
            batch = self._pending.popleft()
            too_many = readings + len(batch.readings) > self.limits.max_readings
            too_large = size + batch.size_bytes > self.limits.max_bytes
            if self._closed:
                batch.error = SpoolError("the spool is closed: the reading came after the device's close()")
            elif self.limits.when_full == "refuse" and (too_many or too_large):
                self.refused += len(batch.readings)
                batch.error = SpoolFullError(
                    f"the spool is full: {self.waiting} readings of {self._waiting_bytes} bytes wait for the broker"
                )
            else:
                readings += len(batch.readings)
                size += batch.size_bytes
                accepted.append(batch)
        return accepted

    def _committed(
        self,
        batches: list[_Batch],
        arrived: list[SpooledReading],
        settled: frozenset[int],
        doomed: dict[int, int],
    ) -> None:
        with self._changed:
            self._settled.difference_update(settled)
            for sequence in settled:
                self._rejections.pop(sequence, None)
            self.waiting += len(arrived)
            self._waiting_bytes += sum(batch.size_bytes for batch in batches)
            for spooled in arrived:
                if spooled.sequence not in doomed:
                    self._put_ahead(spooled)
            for sequence, size in doomed.items():
                self._in_flight.pop(sequence, None)
                if sequence not in self._settled:  # else its acknowledgement overtook the drop
                    self._left(1, size)
            self.dropped += len(doomed)
            next_sequence = self.last_sequence + 1
            for batch in batches:
                batch.sequences = range(next_sequence, next_sequence + len(batch.readings))
                next_sequence = batch.sequences.stop
            self.last_sequence = next_sequence - 1

    def _not_committed(self, batches: list[_Batch], error: sqlite3.Error) -> SpoolError:
        if self._db.in_transaction:
            self._db.execute("ROLLBACK")
        for batch in batches:
            batch.error = SpoolError(f"the spool {self.path} took no reading: {error}")
        return SpoolError(f"the spool {self.path} could not be written: {error}")


def _numbered(batches: list[_Batch], first: int) -> list[SpooledReading]:
    readings = [reading for batch in batches for reading in batch.readings]
    return [SpooledReading(sequence, reading) for sequence, reading in enumerate(readings, first)]
