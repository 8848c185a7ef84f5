"""Slow checks of passwords, off the event loop's thread: two at a time, in the background of everything else.

The threads have a lower priority than the broker's own where the system lets them, so that a thousand clients that come
back together delay no client that is connected. What waits is bounded, and served address by address in turns. Every
method is called on the event loop's thread, and so is whoever asked.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import os
import sys
import threading
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, field
from typing import Final

from edge_broker.security.fair_queue import FairQueue
from edge_broker.security.hashing import Argon2Hash

log: Final = logging.getLogger("edge_broker.security")

_THREADS: Final = 2
_NICENESS: Final = 10
_MOST_NICENESS: Final = 19
_STRETCH: Final = 50
"""How many that need no work are settled in one turn of the event loop."""


@dataclass(slots=True)
class Check:
    """A password to be checked against `kept`. `decoy`: there is no such name, and the answer is no in any case.

    `is_settled` is asked when its turn comes: whether it needs no check any more, and has been answered. `on_checked` is
    told whether the password is right, or None: the check itself failed, which says nothing of the password.
    `on_no_room`: too many wait, and it is not among them.
    """

    owner: str
    password: bytes = field(repr=False)
    kept: Argon2Hash
    decoy: bool
    is_settled: Callable[[], bool]
    on_checked: Callable[[Check, bool | None], None]
    on_no_room: Callable[[], None]


class Verifications:
    """At most `limit` wait. `done`: checks made; `failed`: of these, what failed by itself; `turned_away`: no room."""

    def __init__(self, limit: int) -> None:
        self.done = self.failed = self.turned_away = 0
        self._problem = ""
        self._queue: FairQueue[Check] = FairQueue(limit)
        self._running = 0
        self._draining = False
        self._closed = False
        self._executor: ThreadPoolExecutor | None = None  # with the first check

    @property
    def waiting(self) -> int:
        """Checks asked for and not begun."""
        return len(self._queue)

    def put(self, check: Check) -> None:
        """Have it done when its turn comes; where too many wait, it or another one is told so at once."""
        displaced = self._queue.put(check.owner, check)
        if displaced is not None:
            self.turned_away += 1
            displaced.on_no_room()
        self._drain()

    def close(self) -> None:
        """Begin nothing more; what runs is waited for, which takes no longer than one check."""
        self._closed = True
        if self._executor is not None:
            self._executor.shutdown(wait=True, cancel_futures=True)

    def _drain(self) -> None:
        for _ in range(_STRETCH):
            if self._running >= _THREADS or self._closed:
                return
            check = self._queue.take()
            if check is None:
                return
            if not check.is_settled():
                self._begin(check)
        if not self._draining:
            self._draining = True
            asyncio.get_running_loop().call_soon(self._drain_on)

    def _drain_on(self) -> None:
        self._draining = False
        self._drain()

    def _begin(self, check: Check) -> None:
        if self._executor is None:
            self._executor = ThreadPoolExecutor(_THREADS, "passwords", _lower_priority)
        self._running += 1
        loop = asyncio.get_running_loop()

        def on_done(future: Future[bool]) -> None:
            with contextlib.suppress(RuntimeError):  # the event loop has ended meanwhile
                loop.call_soon_threadsafe(self._on_done, check, future)

        self._executor.submit(check.kept.is_of, check.password).add_done_callback(on_done)

    def _on_done(self, check: Check, future: Future[bool]) -> None:
        self._running -= 1
        self.done += 1
        if self._closed or future.cancelled():
            return
        error = future.exception()
        self._note(error)
        check.on_checked(check, None if error is not None else future.result() and not check.decoy)
        self._drain()  # what was learned may spare the next one its check

    def _note(self, error: BaseException | None) -> None:
        """One line in the log when checks begin to fail, for want of memory perhaps, and one when they work again."""
        problem = "" if error is None else f"{type(error).__name__}: {error}"
        self.failed += error is not None
        if problem and not self._problem:
            log.error("passwords cannot be checked, so their clients are told to come back: %s", problem)
        elif self._problem and not problem:
            log.info("passwords can be checked again")
        self._problem = problem


def _lower_priority() -> None:
    """Of the thread that it runs in; Linux alone has priorities of threads."""
    if sys.platform == "linux":
        with contextlib.suppress(OSError):  # then it is as important as the rest
            thread = threading.get_native_id()
            niceness = os.getpriority(os.PRIO_PROCESS, thread) + _NICENESS
            os.setpriority(os.PRIO_PROCESS, thread, min(niceness, _MOST_NICENESS))
