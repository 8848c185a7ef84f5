"""An event loop whose clock moves only when nothing else can happen: delays of seconds take no time, and are exact."""

from __future__ import annotations

import asyncio
import selectors
from collections.abc import Awaitable, Callable
from typing import Any


class _Selector(selectors.DefaultSelector):
    """Never waits: moves the clock of its loop instead."""

    loop: FakeTimeLoop

    def select(self, timeout: float | None = None) -> list[Any]:
        ready = super().select(0)
        if not ready:
            assert timeout is not None, "the test waits for something that never happens"
            self.loop.now += max(0.0, timeout)
        return ready


class FakeTimeLoop(asyncio.SelectorEventLoop):
    """`now` is its clock, in seconds."""

    def __init__(self) -> None:
        self.now = 1000.0
        selector = _Selector()
        selector.loop = self
        super().__init__(selector)

    def time(self) -> float:
        return self.now


def run_in_fake_time(main: Callable[[], Awaitable[None]]) -> None:
    """Run `main` to its end on a loop of its own."""
    loop = FakeTimeLoop()
    try:
        loop.run_until_complete(main())
    finally:
        loop.close()
