"""The broker from one turn of the event loop to the next.

Once per turn in which something happened, `_tick` tells the journal what is pending, asks the store for the pages that
queues and new subscribers want, and flushes every connection that has output: one write each. What a commit releases goes
out over a few turns, since twenty acknowledgements are twenty writes, and who has a message meanwhile is not to wait for
all of them. A fault of ours ends the one connection that met it, and the log hears why each connection ended, though
not more than a card can bear.
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections import deque
from collections.abc import Callable, Iterable
from typing import Final

from edge_broker.core.connection import Connection
from edge_broker.core.output import Output
from edge_broker.core.router import Router
from edge_broker.reading import Reading
from edge_broker.store import Journal

log: Final = logging.getLogger("edge_broker.broker")

_MOST_STRANGERS_LOGGED: Final = 5
"""Connections refused before they named themselves, per second: the log may be on an SD card."""

_FEWEST_RELEASED: Final = 2
_TURNS_OF_RELEASE: Final = 10
"""A commit's answers go to so many connections a turn at least, and to all of them within so many turns."""
_MOST_SPREAD: Final = 64
"""With more, much is going on: spread out, they would make the next commits smaller and more (15 % of the speed with 200
publishers of which each waits for its answer), and they go out at once."""


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
        self._unreleased: list[Output] = []  # what the turn wrote before a commit was settled in it
        self._released: deque[Output] = deque()  # who has output that a commit released
        self._released_a_turn = 0  # of them; 0 while nobody has

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
            self._flush(dirty)

    def _flush(self, connections: Iterable[Output]) -> None:
        for connection in connections:
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

    # ---- around the settling of a batch

    def _before_settle(self) -> None:
        router = self.router
        router.now = time.monotonic()
        self._unreleased, router.dirty = router.dirty, []

    def _after_settle(self) -> None:
        """Have what the commit released go out; what was written before it leaves as it would have."""
        router = self.router
        released = router.dirty
        router.dirty, self._unreleased = self._unreleased, []
        if len(released) > _MOST_SPREAD:
            router.dirty += released
        elif released:
            self._spread(released)
        router.on_settled()
        self._tick()

    def _spread(self, connections: list[Output]) -> None:
        """Flush them over the next few turns."""
        released = self._released
        released += connections
        is_releasing = self._released_a_turn > 0
        self._released_a_turn = max(_FEWEST_RELEASED, -(-len(released) // _TURNS_OF_RELEASE))
        if not is_releasing:
            self._loop.call_soon(self._release)

    def _release(self) -> None:
        """One turn's share of the output that commits released, the oldest first."""
        released = self._released
        share = [released.popleft() for _ in range(min(self._released_a_turn, len(released)))]
        if released:
            self._loop.call_soon(self._release)
        else:
            self._released_a_turn = 0
        self._flush(share)

    # ---- what has an end

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
