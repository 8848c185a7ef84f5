"""Keeps a store's clock: looks at the system's clocks, tells the log, and has on the disk what must be there.

What `clock` decides goes with the next commit where that is soon enough. What a step of the clock changed is written at
once, alone: it happens seldom. The newest time is too, once an hour without a commit and at the end; a write an hour is
nothing to a card, and without it an idle run that ends in a power cut would count as none.
"""

from __future__ import annotations

import asyncio
import logging
import sqlite3
import time
from collections.abc import Awaitable, Callable, Mapping
from typing import Final

from edge_broker.store.clock import Correction, StoreClock
from edge_broker.store.faults import explain
from edge_broker.store.writer import MetaChanges, write_meta

_log: Final = logging.getLogger(__name__)

_NEWEST_ALONE_SECONDS: Final = 3600.0
_RETRY_SECONDS: Final = 10.0

RunsInThread = Callable[[Callable[[sqlite3.Connection], None]], Awaitable[None]]
"""`ThreadedConnection.run` of the connection that writes."""


class ClockKeeper:
    """One run's. First `begin`, in the store's thread; then `start`; `look` once a second; `close`.

    `wall_offset`: wall time minus monotonic time as of now, in seconds. `monotonic`: the clock of everything in memory.
    `confirmed`: whether somebody who knows says that the wall clock is right.
    """

    def __init__(
        self, wall_offset: Callable[[], float], monotonic: Callable[[], float], confirmed: Callable[[], bool]
    ) -> None:
        self._wall_offset = wall_offset
        self.monotonic = monotonic
        self._confirmed = confirmed
        self._run: RunsInThread | None = None
        self._task: asyncio.Task[None] | None = None
        self._tried_at = float("-inf")
        self.clock: StoreClock

    def begin(self, kept: Mapping[str, int], newest: float | None) -> StoreClock:
        """Decide what time it is. `kept`: the numbers in `meta`; `newest`: the newest time found elsewhere."""
        now = self.monotonic()
        self.clock = StoreClock(kept, newest, now + self._wall_offset(), now, self._confirmed)
        return self.clock

    def write(self, connection: sqlite3.Connection, beside: MetaChanges) -> None:
        """At the start: have what the clock knows on the disk, and `beside` with it."""
        now = self.monotonic()
        changes = self.clock.changes(now, alone=True)
        _write(connection, {**beside, **changes})
        self.clock.written(changes, now)

    def start(self, run: RunsInThread) -> None:
        """From now on, writes go through `run`."""
        self._run = run
        if self.clock.unsynced:
            started = time.gmtime(self.clock.wall(self.monotonic()))
            _log.warning(
                "the clock is not right: until it is, the time before this start counts as none, and %s is now",
                time.strftime("%Y-%m-%d %H:%M:%S UTC", started),
            )

    def look(self) -> Correction | None:
        """Compare the clocks; what comes back is to be applied to the times in memory, once."""
        clock, now = self.clock, self.monotonic()
        was_unsynced, corrections, before = clock.unsynced, clock.corrections, clock.wall(now)
        correction = clock.look(now + self._wall_offset(), now)
        if abs(clock.wall(now) - before) > 0 and clock.corrections > corrections:
            ahead = clock.wall(now) - before
            _log.warning("the clock was set by %+.1f s; what is stored is corrected by as much", ahead)
        if correction is not None:
            _log.warning(
                "%.1f s before the start count as passed, now that the clock is right", correction.seconds
            )
        if clock.unsynced and not was_unsynced:
            _log.warning("the clock was set to a time that cannot be right; nothing here goes by it")
        elif was_unsynced and not clock.unsynced:
            _log.info("the clock is right again")
        if clock.is_due or clock.newest_written_before(now - _NEWEST_ALONE_SECONDS):
            self._write_soon(now)
        return correction

    async def close(self) -> None:
        """Have the newest time on the disk, if that can be."""
        if self._task is not None:
            await asyncio.wait([self._task])
        if self._run is not None:
            await self._write_alone()

    def _write_soon(self, now: float) -> None:
        is_running = self._task is not None and not self._task.done()
        if self._run is not None and not is_running and now - self._tried_at >= _RETRY_SECONDS:
            self._tried_at = now
            self._task = asyncio.get_running_loop().create_task(self._write_alone(), name="store clock")

    async def _write_alone(self) -> None:
        assert self._run is not None
        now = self.monotonic()
        changes = self.clock.changes(now, alone=True)
        try:
            await self._run(lambda connection: _write(connection, changes))
        except Exception as error:  # noqa: BLE001  it goes with the next commit, or is tried again
            _log.warning("what is known of the clock could not be written: %s", explain("commit", error))
        else:
            self.clock.written(changes, now)


def _write(connection: sqlite3.Connection, meta: MetaChanges) -> None:
    """`write_meta` in a transaction of its own."""
    connection.execute("BEGIN IMMEDIATE")
    try:
        write_meta(connection, meta)
        connection.execute("COMMIT")
    except BaseException:
        if connection.in_transaction:
            connection.rollback()
        raise
