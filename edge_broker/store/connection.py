"""SQLite in a thread of its own, one function per call: the one place that knows how aiosqlite works inside.

aiosqlite's public methods cost the event loop an await per statement; here one call runs a whole function there, with
all the statements of a commit or a page. The thread is a daemon: a store that was never closed, or could not be opened,
does not keep the interpreter from ending. After an error that leaves doubt the SQLite connection is made anew before
the next function gets it.
"""

from __future__ import annotations

import asyncio
import sqlite3
from collections.abc import Callable
from typing import Any, TypeVar

import aiosqlite

from edge_broker.store.faults import READ_ERRORS, leaves_doubt

T = TypeVar("T")


class ThreadedConnection(aiosqlite.Connection):
    """A SQLite connection and the thread that alone uses it.

    `connect` makes the first connection, `reconnect` every later one; both run in the thread and may raise.
    """

    def __init__(
        self,
        name: str,
        connect: Callable[[], sqlite3.Connection],
        reconnect: Callable[[], sqlite3.Connection],
    ) -> None:
        super().__init__(connect, iter_chunk_size=1)
        self._reconnect = reconnect
        self._doubtful = False
        self._thread.name = name
        self._thread.daemon = True

    async def start(self) -> None:
        """Start the thread and make the first connection; where that fails, the thread has ended."""
        try:
            await self
        except BaseException:
            await asyncio.to_thread(self._thread.join)
            raise

    async def run(self, function: Callable[[sqlite3.Connection], T]) -> T:
        """What `function` returns or raises, called in the thread with the connection. It runs to its end even if the
        caller is cancelled."""
        result: T = await self._execute(_Call(self, function))  # type: ignore[no-untyped-call]
        return result

    def doubt(self) -> None:
        """Have the next function get a new connection."""
        self._doubtful = True

    async def release(self, meanwhile: Callable[[], T]) -> T:
        """Close the connection and call `meanwhile` in the thread; the next function gets a new connection."""

        def replace(connection: sqlite3.Connection) -> T:
            self._doubtful = True
            connection.close()
            return meanwhile()

        return await self.run(replace)

    def call(self, function: Callable[[sqlite3.Connection], T]) -> T:
        """In the thread: run `function`, on a new connection where the old one is in doubt."""
        if self._doubtful:
            if self._connection is not None:
                self._connection.close()
            self._connection = self._reconnect()
            self._doubtful = False
        try:
            return function(self._conn)
        except READ_ERRORS as error:
            self._doubtful = self._doubtful or leaves_doubt(error)
            raise


class _Call:
    """A function on its way to the thread. Its only job is to have a `repr` without what it carries: aiosqlite logs it."""

    __slots__ = ("_connection", "_function")

    def __init__(self, connection: ThreadedConnection, function: Callable[[sqlite3.Connection], Any]) -> None:
        self._connection = connection
        self._function = function

    def __call__(self) -> Any:
        return self._connection.call(self._function)
