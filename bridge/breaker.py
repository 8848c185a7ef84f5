"""A circuit breaker: after many failures in a row nothing is tried for a while, and then one single try decides.

Closed, everything is tried as the pauses allow. Open, nothing is, for a time of which up to half is left to chance, so that
gateways whose breakers opened together do not come back together. After that it is half-open: one try. Where that fails it
is open again, where it succeeds closed. Pure: `now` is any clock that only goes forward.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Literal

BreakerState = Literal["closed", "open", "half-open"]


class Breaker:
    """`threshold` failures in a row open it for `open_seconds`; 0 failures: it never opens. `random`: from 0 up to 1.

    `opened`: how often it did.
    """

    def __init__(self, threshold: int, open_seconds: float, random: Callable[[], float]) -> None:
        self.opened = 0
        self._threshold = threshold
        self._open_seconds = open_seconds
        self._random = random
        self._failures = 0
        self._open_until: float | None = None  # None while closed

    def state(self, now: float) -> BreakerState:
        """What may be tried now: everything, nothing, or one single thing."""
        if self._open_until is None:
            return "closed"
        return "open" if now < self._open_until else "half-open"

    def wait_seconds(self, now: float) -> float:
        """Until something may be tried."""
        return 0.0 if self._open_until is None else max(0.0, self._open_until - now)

    def on_failure(self, now: float) -> None:
        """What was tried failed."""
        self._failures += 1
        if self._threshold and self._failures >= self._threshold:
            self.opened += 1
            self._open_until = now + self._open_seconds * (0.5 + 0.5 * self._random())

    def on_connected(self) -> None:
        """It succeeded, for now: a connection that does not last is a failure all the same."""
        self._open_until = None

    def on_success(self) -> None:
        """It has proved to last: failures are counted from none."""
        self._failures = 0
        self._open_until = None
