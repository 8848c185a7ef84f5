"""The broker from one turn of the event loop to the next.

Once per turn in which something happened, `_tick` tells the journal what is pending, asks the store for the pages that
queues and new subscribers want, and flushes every connection that has output: one write each. A fault of ours ends the one
connection that met it, and the log hears why each connection ended, though not more than a card can bear.
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Callable
from typing import Final

from edge_broker.core.connection import Connection
from edge_broker.core.output import Output
from edge_broker.core.router import Router
from edge_broker.reading import Reading
from edge_broker.store import Journal

log: Final = logging.getLogger("edge_broker.broker")

_MOST_STRANGERS_LOGGED: Final = 5
"""Connections refused before they named themselves, per second: the log may be on an SD card."""


class Turns:
    """The broker's first floor: what connections and listeners need of it."""

    router: Router
    journal: Journal
    reading: Reading
    _loop: asyncio.AbstractEventLoop

    def __init__(self, max_connections: int) -> None:
        self.connections: set[Connection] = set()
        self.max_connections = max_connections
        self.tick_requested = False
        self._strangers_logged = 0

    def request_tick(self) -> None:
        """Have `_tick` run at the end of this turn, and the core know the time of the turn."""
        if not self.tick_requested:
            self.tick_requested = True
            self.router.now = time.monotonic()
            self._loop.call_soon(self._tick)

    def _tick(self) -> None:
        self.tick_requested = False
        router = self.router
        pending = router.pending
        if not pending.empty:
            self.journal.poke()
        if pending.reads or pending.lookups or pending.retained_reads:
            self.reading.start()
        dirty = router.dirty
        if dirty:
            router.dirty = []
            for connection in dirty:
                try:
                    connection.flush()
                except Exception:
                    self._break(connection)
                if connection.closing:
                    self._log_end(connection)

    def _call_later(self, seconds: float, callback: Callable[[], None]) -> None:
        """Have `callback` called in `seconds`, in a turn whose output is flushed."""

        def call() -> None:
            self.request_tick()
            callback()

        self._loop.call_later(seconds, call)

    def _read_clock(self) -> None:
        self.router.now = time.monotonic()

    def _on_settled(self) -> None:
        self.router.on_settled()
        self._tick()  # the acknowledgements have waited long enough

    def _break(self, connection: Output) -> None:
        """Called from an except block: a fault of ours ends the one connection that met it."""
        log.exception(
            "internal error on the connection of %s (%s)", connection.client_id or "?", connection.address
        )
        self.router.counters.refuse("internal_error")
        connection.on_lost("internal error")

    def _log_end(self, connection: Output) -> None:
        assert connection.end is not None
        connection.closing = False
        reason_code, detail = connection.end
        level = logging.DEBUG if reason_code < 0x80 else logging.INFO
        if level == logging.INFO and not connection.client_id:  # anybody can have us write these
            self._strangers_logged += 1
            if self._strangers_logged > _MOST_STRANGERS_LOGGED:
                return
        log.log(level, "%s from %s: %s", connection.client_id or "a client", connection.address, detail)

    def _count_strangers_anew(self) -> None:
        """Another second has begun."""
        if self._strangers_logged > _MOST_STRANGERS_LOGGED:
            log.info("%d more like these in this second", self._strangers_logged - _MOST_STRANGERS_LOGGED)
        self._strangers_logged = 0
