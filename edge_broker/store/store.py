"""The broker's durable state in one SQLite database: opened, written in batches, read in pages, closed.

Two connections, each in a thread of its own: one writes, one reads. A reader sees committed rows only, and in WAL mode
neither waits for the other. What the store promises:

- `commit` returns when the whole batch is on the disk and synced; if it raises, nothing of the batch counts.
- A connection that saw an error of the disk is not trusted again: it is made anew, and everything that the log shows
  is brought into the database and synced before the next commit builds on it.
- Damage in the database's structure, whenever it is found, leads to recovery and not to a broker that stands still.
- A disk that refuses to read is not damage: nothing is set aside for it, the caller tries again.

How it is opened is in `opening`, its first floor. It decides nothing about when to commit (`journal`) and keeps no messages
in memory.
"""

from __future__ import annotations

import asyncio
import logging
import select
import sqlite3
import time
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from typing import Final, TypeVar

from edge_broker.core.message import Message
from edge_broker.core.ops import Batch, Page, Snapshot
from edge_broker.errors import StoreError
from edge_broker.store.clock import Correction, StoreClock
from edge_broker.store.faults import READ_ERRORS, NoRoom, explain, is_damage
from edge_broker.store.kernel_clock import kernel_says_synced
from edge_broker.store.lock import DirectoryLock, take_directory
from edge_broker.store.opening import Opening, stamp
from edge_broker.store.pages import PageReader
from edge_broker.store.reading_trouble import ReadingTrouble
from edge_broker.store.recovery import recover
from edge_broker.store.reserve import RESERVE_BYTES
from edge_broker.store.retained import read_retained
from edge_broker.store.schema import PAGE_BYTES, side_files
from edge_broker.store.segment import TopicNames
from edge_broker.store.space import give_back
from edge_broker.store.times import Times
from edge_broker.store.vault import Vault
from edge_broker.store.writer import MetaChanges, needs_room

_log: Final = logging.getLogger(__name__)

T = TypeVar("T")

_TIDY_SECONDS: Final = 1.0
_REBUILD_SECONDS: Final = 600.0
"""Recovery while running happens at most this often: on a disk that damages everything it would not help."""
_SMALL_BATCH: Final = 128  # messages
_COURTESY_SECONDS: Final = 50e-6
"""The kernel gives a core to a thread that wakes up. Where no other core is free, the event loop would stand still in the
middle of its turn until the commit waits for the disk; so a small one lets it end that turn first."""


class Store(Opening):
    """An open store. Make it with `Store.open`; use it from one event loop; `close` it.

    Counters, plain ints unless seconds: `commits`, `commit_errors`, `last_commit_seconds`, `total_commit_seconds`,
    `messages_written`, `segments_written`, `segment_bytes_written`, `pages_read`, `corrupt_segments`.
    `full`: nothing can be added for want of space; a batch of acknowledgements alone is still taken then, and makes some.
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
        super().__init__(directory, lock, topics, wall_offset, monotonic, clock_confirmed, vault)
        self._pages = PageReader(topics, vault)
        self._no_reads = asyncio.Lock()
        self._trouble = ReadingTrouble(self._path)
        self._tidy_timer: asyncio.TimerHandle | None = None
        self._tidy_task: asyncio.Task[None] | None = None
        self._rebuilt_at = -_REBUILD_SECONDS
        self._closed = False
        self.full = False
        self.commits = self.commit_errors = 0
        self.last_commit_seconds = self.total_commit_seconds = 0.0

    @classmethod
    async def open(
        cls,
        directory: Path,
        *,
        topics: TopicNames,
        wall_offset: Callable[[], float],
        monotonic: Callable[[], float] = time.monotonic,
        clock_confirmed: Callable[[], bool] = kernel_says_synced,
        vault: Vault | None = None,
    ) -> tuple[Store, Snapshot]:
        """The store in `directory`, which is made if need be, and what it holds. This run's epoch is on the disk.

        `wall_offset` gives wall time minus monotonic time in seconds, as of now; `clock_confirmed` says whether somebody
        who knows holds the wall clock to be right; `vault` has the keys if messages are encrypted. Raises `StoreError` if
        another broker has the directory, if it cannot be used, if its database is not ours or newer than we are, or if a
        key is missing; damage is no reason.
        """
        lock = take_directory(directory)
        store = cls(directory, lock, topics, wall_offset, monotonic, clock_confirmed, vault or Vault())
        try:
            await store._writing.start()
            await store._reading.start()
        except (*READ_ERRORS, OSError, StoreError) as error:
            await store.close()
            raise explain("open", error) from error
        except BaseException:
            await store.close()
            raise
        if store.unwritable:
            store._writing.doubt()  # whatever is to be written tries to become able to first
        return store, store._take_snapshot()

    @property
    def clock(self) -> StoreClock:
        """What time it is, and how far that is known."""
        return self._keeper.clock

    def look_at_clock(self) -> Correction | None:
        """Compare the clocks, about once a second; what comes back is to be applied to the times in memory, once."""
        return self._keeper.look()

    # ---- counters of the parts

    @property
    def messages_written(self) -> int:
        """Messages in segments that were committed."""
        return self._writer.messages_written

    @property
    def segments_written(self) -> int:
        """Segments that were committed."""
        return self._writer.segments_written

    @property
    def segment_bytes_written(self) -> int:
        """Bytes in their bodies."""
        return self._writer.segment_bytes_written

    @property
    def pages_read(self) -> int:
        """Answers to `read_page`."""
        return self._pages.pages_read

    @property
    def corrupt_segments(self) -> int:
        """Segments whose checksum was wrong when they were read."""
        return self._pages.corrupt_segments

    @property
    def log_frames_dropped(self) -> int:
        """Frames of a damaged write-ahead log that SQLite dropped at the start."""
        return self.log_state.dropped_frames

    @property
    def read_problem(self) -> str:
        """Why the last read failed; empty where it did not."""
        return self._trouble.problem

    @property
    def read_retry_seconds(self) -> float:
        """How long whoever could not read should wait before the next try."""
        return self._trouble.retry_seconds

    @property
    def file_bytes(self) -> int:
        """The size of the database and its write-ahead log, as they are on the disk now."""
        files = (self._path, side_files(self._path)[0])
        return sum(file.stat().st_size for file in files if file.exists())

    # ---- work

    async def commit(self, batch: Batch) -> None:
        """Have `batch` on the disk. `StoreError` if it is not; the same batch may be given again then."""
        started = time.perf_counter()
        clock = self.clock
        times, now = clock.times, self._keeper.monotonic()
        meta = clock.changes(now)
        try:
            has_written = await self._write(batch, times, meta)
        except Exception as error:
            self.commit_errors += 1
            if self._reserve.ran_out(error):
                self.full = True
                raise explain("commit", NoRoom(str(error))) from error
            if not isinstance(error, sqlite3.Error | OSError):
                _log.exception("a batch could not be written")
            raise explain("commit", error) from error
        if has_written:
            clock.written(meta, now)
        self.last_commit_seconds = time.perf_counter() - started
        self.total_commit_seconds += self.last_commit_seconds
        self.commits += 1
        self.full = self.full and not needs_room(batch)
        self._tidy_later()

    async def _write(self, batch: Batch, times: Times, meta: MetaChanges) -> bool:
        """Have `batch` written; where that meets damage in the database, recover it and raise all the same."""

        def apply(connection: sqlite3.Connection) -> bool:
            return self._apply(connection, batch, times, meta)

        try:
            return await self._writing.run(apply)
        except Exception as error:
            if not is_damage(error):
                raise
            await self._trouble.check_disk(error)
        try:
            return await self._writing.run(apply)
        except Exception as error:
            if is_damage(error):
                await self._trouble.check_disk(error)
                await self._rebuild(error)
            raise

    def _apply(self, connection: sqlite3.Connection, batch: Batch, times: Times, meta: MetaChanges) -> bool:
        """Write `batch`, and `meta` with it; where the disk is full, only what makes room."""
        if sum(len(write.messages) for write in batch.queues) < _SMALL_BATCH:
            select.select((), (), (), _COURTESY_SECONDS)  # time.sleep hangs where a library fakes the time
        if self._reserve.given_up and needs_room(batch) and not self._reserve.take():
            free = connection.execute("PRAGMA freelist_count").fetchone()[0]
            if free * PAGE_BYTES < RESERVE_BYTES:
                raise NoRoom("the last of the space is kept for acknowledgements")
        try:
            return self._writer.apply(connection, batch, times, meta)
        except sqlite3.Error as error:
            if self._reserve.ran_out(error):
                self._reserve.give_up()
            raise

    async def read_page(self, queue_id: int, from_number: int, max_messages: int, max_bytes: int) -> Page:
        """The committed messages of a queue from `from_number` on: one whole segment, and more within the limits.

        Empty, with `end` = `from_number`, where nothing is stored from there on. Raises `StoreError`.
        """
        read = partial(
            self._pages.read,
            queue_id=queue_id,
            from_number=from_number,
            max_messages=max_messages,
            max_bytes=max_bytes,
        )
        page = await self._read_by_clock(lambda times, connection: read(connection, times=times))
        self._hand_over_damage()
        return page

    async def read_retained(self, topics: Sequence[str]) -> dict[str, Message]:
        """The committed retained messages of `topics`, a few hundred at most, by topic. Raises `StoreError`.

        What is not there is left out, and so is what is damaged, which the log hears of.
        """
        messages, damaged = await self._read_by_clock(
            lambda times, connection: read_retained(connection, topics, self._topics, times, self._vault)
        )
        for topic in damaged:
            _log.error("the retained message of %a is damaged and lost", topic)
        return messages

    async def _read_by_clock(self, read: Callable[[Times, sqlite3.Connection], T]) -> T:
        """What `read` returns by the clock as it is when that comes: what is in memory by then was corrected."""
        while True:
            times = self.clock.times
            found = await self._read(partial(read, times))
            if times is self.clock.times:
                return found

    async def _read(self, read: Callable[[sqlite3.Connection], T]) -> T:
        """What `read` returns; where it meets damage in the database, what it returns after recovery. `StoreError`."""
        try:
            return await self._read_or_recover(read)
        except Exception as error:
            told = explain("read", error)
            self._trouble.begin(str(told), lambda: self._read(read))
            raise told from error

    async def _read_or_recover(self, read: Callable[[sqlite3.Connection], T]) -> T:
        try:
            return await self._read_once(read)
        except Exception as error:
            if not is_damage(error):
                raise
            await self._trouble.check_disk(error)
        try:  # on a new connection: it may have been one bad moment
            return await self._read_once(read)
        except Exception as error:
            if not is_damage(error):
                raise
            await self._trouble.check_disk(error)
            if not await self._rebuild(error):
                raise
        return await self._read_once(read)

    async def _read_once(self, read: Callable[[sqlite3.Connection], T]) -> T:
        async with self._no_reads:
            return await self._reading.run(read)

    def _hand_over_damage(self) -> None:
        """Tell the log and the writer of segments that the reader had to pass over."""
        while self._pages.damaged:
            place = self._pages.damaged.pop()
            _log.error(
                "queue %d: messages %d to %d are damaged and lost",
                place.queue_id,
                place.first_number,
                place.last_number,
            )
            self._writer.damaged.append(place)

    async def close(self) -> None:
        """End what runs, close both connections and let the directory go. Uncommitted batches are the caller's."""
        if self._closed:
            return
        self._closed = True
        if self._tidy_timer is not None:
            self._tidy_timer.cancel()
        if self._tidy_task is not None:
            await asyncio.wait([self._tidy_task])
        await self._keeper.close()
        await self._trouble.close()
        try:
            await self._reading.close()
        finally:
            try:
                await self._writing.close()  # the last one brings the write-ahead log into the database
            finally:
                self._lock.release()

    # ---- damage and space

    async def _rebuild(self, error: BaseException) -> bool:
        """Recover the database while running; whether that was done. `StoreError` if it could not be."""
        now = time.monotonic()
        if now - self._rebuilt_at < _REBUILD_SECONDS:
            return False
        self._rebuilt_at = now
        _log.error("the store is damaged and is being recovered: %s", error)
        try:
            async with self._no_reads:
                await self._reading.release(lambda: None)
                self.recovery = await self._writing.release(
                    lambda: recover(self._path, str(error), stamp(), or_empty=False)
                )
        except Exception as failure:
            raise explain("recover", failure) from failure
        self.clock.write_again()
        self._trouble.end()
        self._log_recovery()
        return True

    def _tidy_later(self) -> None:
        if self._tidy_timer is None and not self._closed:
            self._tidy_timer = asyncio.get_running_loop().call_later(_TIDY_SECONDS, self._start_to_tidy)

    def _start_to_tidy(self) -> None:
        self._tidy_task = asyncio.get_running_loop().create_task(self._tidy())

    async def _tidy(self) -> None:
        """Give space back to the disk; once a second while there is some."""
        more = False
        try:
            more = await self._writing.run(give_back)
        except sqlite3.Error as error:
            _log.warning("%s", explain("give space back", error))
        self._tidy_timer = None
        if more:
            self._tidy_later()
