"""What to do about a store that cannot be read: tell once, wait longer each time, notice when it is over.

A disk that refuses to read (see `readback`) is waited for. Those who want pages try again by themselves, after
`retry_seconds`; but whoever met the trouble may have gone since, so what failed first is tried again here as well. Only
when that succeeds the trouble is over: other reads may well succeed beside it. Health shows `problem` until then.

Where the disk refuses the same few pages for ten minutes and gives all others, those pages are lost, and waiting would
keep what lies behind them from its recipients for ever: it counts as damage then.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import time
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Final

from edge_broker.errors import StoreError
from edge_broker.store.readback import Refused, read_back

_log: Final = logging.getLogger(__name__)

_FIRST_RETRY_SECONDS: Final = 1.0
_LAST_RETRY_SECONDS: Final = 30.0
_LOST_SECONDS: Final = 600.0


class ReadingTrouble:
    """The state of reading the database at `path`. `problem`: why the last read failed, empty where it did not."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._refused: Refused | None = None
        self._since = 0.0
        self._probe: asyncio.Task[None] | None = None
        self.problem = ""

    @property
    def retry_seconds(self) -> float:
        """How long whoever could not read should wait before the next try: longer, the longer it lasts."""
        if not self.problem:
            return _FIRST_RETRY_SECONDS
        return min(_LAST_RETRY_SECONDS, max(_FIRST_RETRY_SECONDS, time.monotonic() - self._since))

    async def check_disk(self, error: BaseException) -> None:
        """Raise `Unreadable` if `error`, which looks like damage, is the disk's that refuses to read for now.

        Where it refused the last time it is asked first: a store of gigabytes is not read whole for each try.
        """
        found = await asyncio.to_thread(read_back, self._path, self._refused, 1)
        self._refused = found.refused[0] if found.refused else None
        if found.refused and not await self._is_lost():
            raise found.error() from error

    async def _is_lost(self) -> bool:
        """Whether what is refused has been for so long, and is so little, that it will not come back."""
        if not self.problem or time.monotonic() - self._since < _LOST_SECONDS:
            return False
        found = await asyncio.to_thread(read_back, self._path)
        if not found.refused or found.hopeless:
            return False
        _log.error("%d pages of the store cannot be read for minutes: they are given up", len(found.refused))
        return True

    def begin(self, problem: str, again: Callable[[], Awaitable[object]]) -> None:
        """Reading failed because of `problem`; `again` tries it once more, and raises `StoreError` where it fails."""
        if not self.problem:
            self._since = time.monotonic()
            _log.error("what is on disk only is not delivered until the store can be read again: %s", problem)
        self.problem = problem
        if self._probe is None:
            self._probe = asyncio.get_running_loop().create_task(self._try(again), name="store-probe")

    def end(self) -> None:
        """What failed works again, or there is another database in its place."""
        if self.problem:
            _log.warning("the store can be read again")
            self.problem = ""

    async def close(self) -> None:
        """Try no further."""
        if self._probe is not None:
            self._probe.cancel()
            await asyncio.wait([self._probe])

    async def _try(self, again: Callable[[], Awaitable[object]]) -> None:
        while self.problem:
            await asyncio.sleep(self.retry_seconds)
            with contextlib.suppress(StoreError):  # it is told already
                await again()
                self.end()
        self._probe = None
