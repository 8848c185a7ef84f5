"""A clock for brokers in this process that can be set ahead: whoever in them asks for the time asks here.

All running brokers share it. It only goes forward while one of them runs, as a clock does.
"""

from __future__ import annotations

import sys
import time
from functools import partial
from typing import Any, Final

import pytest

import edge_broker.broker
import edge_broker.store.journal


class Clock:
    """The `time` module, its two clocks ahead by `ahead_seconds`."""

    def __init__(self) -> None:
        self.ahead_seconds = 0.0
        self._users = 0
        self._patch = pytest.MonkeyPatch()

    def monotonic(self) -> float:
        return time.monotonic() + self.ahead_seconds

    def time(self) -> float:
        return time.time() + self.ahead_seconds

    def __getattr__(self, name: str) -> Any:
        return getattr(time, name)

    def take(self) -> None:
        """A broker is about to start: it has this clock for its `time` until everybody has called `leave`."""
        self._users += 1
        if self._users > 1:
            return
        for name, module in list(sys.modules.items()):
            if name.startswith("edge_broker.") and getattr(module, "time", None) is time:
                self._patch.setattr(module, "time", self)
        journal = partial(edge_broker.store.journal.Journal, clock=self.monotonic)
        self._patch.setattr(edge_broker.broker, "Journal", journal)

    def leave(self) -> None:
        """That broker has stopped."""
        self._users -= 1
        if not self._users:
            self._patch.undo()


CLOCK: Final = Clock()
