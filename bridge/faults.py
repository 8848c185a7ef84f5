"""A fault on purpose, for drills: everything that is sent to an upstream leaves later by a fixed time, in order.

So its answers come late, as over a bad line, and one can watch ejection and failover at work.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Callable


class PutOff:
    """Calls what it is called with `seconds` later, each once, in the order in which they came."""

    def __init__(self, seconds: float) -> None:
        self._seconds = seconds
        self._loop = asyncio.get_running_loop()
        self._waiting: deque[Callable[[], object]] = deque()

    def __call__(self, action: Callable[[], object]) -> None:
        self._waiting.append(action)
        self._loop.call_later(self._seconds, self._do_next)  # timers of one moment may fire in any order

    def _do_next(self) -> None:
        self._waiting.popleft()()
