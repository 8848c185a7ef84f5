"""How long to wait before the next attempt to connect: longer each time, and never in step with others.

After a broker's restart 500 devices must not come back in the same instant, again and again: every delay is drawn
at random from the upper half of an interval that doubles up to a limit.
"""

import random


class Backoff:
    """Jittered exponential delays between `first_seconds` and `longest_seconds`."""

    def __init__(
        self, first_seconds: float, longest_seconds: float, chance: random.Random | None = None
    ) -> None:
        if not 0 < first_seconds <= longest_seconds:
            raise ValueError("the first delay must be above 0 and no longer than the longest")
        self._first_seconds = first_seconds
        self._longest_seconds = longest_seconds
        self._chance = chance or random.Random()  # noqa: S311 - spreads reconnects, nothing to guess
        self._next_seconds = first_seconds

    def next_delay_seconds(self) -> float:
        """The delay before the coming attempt, between half of the current interval and all of it."""
        interval = self._next_seconds
        self._next_seconds = min(interval * 2, self._longest_seconds)
        return interval * self._chance.uniform(0.5, 1.0)

    def reset(self) -> None:
        """Begin again with the first delay: the connection proved to be of use."""
        self._next_seconds = self._first_seconds
