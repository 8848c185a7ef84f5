"""How fast messages go up: token buckets for messages and bytes, a pair for what comes now and a pair for what waited.

A bucket fills at its rate up to its burst. What costs more than the burst goes when the bucket is full, and leaves it owing
the rest, so the rate holds for messages of any size. Pure: `now` is any clock that only goes forward.
"""

from __future__ import annotations

from typing import Final

from bridge.policy_config import PacingConfig

_ROUNDING: Final = 1e-6
"""Of a token: what rates times seconds may fall short of what was waited for."""


class Bucket:
    """`rate` tokens a second, `burst` at most; a rate of 0 is no limit. It begins full."""

    __slots__ = ("_at", "_burst", "_rate", "_tokens")

    def __init__(self, rate: float, burst: float) -> None:
        self._rate = rate
        self._burst = max(burst, 1.0)
        self._tokens = self._burst
        self._at: float | None = None

    def _fill(self, now: float) -> None:
        if self._at is not None and now > self._at:
            self._tokens = min(self._burst, self._tokens + (now - self._at) * self._rate)
        if self._at is None or now > self._at:
            self._at = now

    def wait_seconds(self, cost: float, now: float) -> float:
        """Until `cost` may be taken; 0 is now."""
        if not self._rate:
            return 0.0
        self._fill(now)
        missing = min(cost, self._burst) - self._tokens
        return missing / self._rate if missing > _ROUNDING else 0.0

    def take(self, cost: float, now: float) -> None:
        """Use `cost`, allowed or not; what is missing is owed."""
        if self._rate:
            self._fill(now)
            self._tokens -= cost


class Pace:
    """A bucket for messages and one for their bytes. `is_limited`: whether there is a limit at all."""

    __slots__ = ("_bytes", "_bytes_per_second", "_messages", "_messages_per_second", "is_limited")

    def __init__(self, messages_per_second: float, bytes_per_second: float, burst_seconds: float) -> None:
        self._messages_per_second = messages_per_second
        self._bytes_per_second = bytes_per_second
        self.is_limited = messages_per_second > 0 or bytes_per_second > 0
        self._messages = Bucket(messages_per_second, messages_per_second * burst_seconds)
        self._bytes = Bucket(bytes_per_second, bytes_per_second * burst_seconds)

    def wait_seconds(self, size_bytes: int, now: float) -> float:
        """Until a message of that size may go; 0 is now."""
        return max(self._messages.wait_seconds(1, now), self._bytes.wait_seconds(size_bytes, now))

    def seconds_for(self, messages: int, size_bytes: float) -> float:
        """How long so much takes at this pace; 0 where it has no limit."""
        return max(
            messages / self._messages_per_second if self._messages_per_second else 0.0,
            size_bytes / self._bytes_per_second if self._bytes_per_second else 0.0,
        )

    def take_bytes(self, size_bytes: int, now: float) -> None:
        """So many bytes go, with messages that were counted before."""
        self._bytes.take(size_bytes, now)

    def take(self, size_bytes: int, now: float) -> None:
        """A message of that size goes."""
        self._messages.take(1, now)
        self._bytes.take(size_bytes, now)


def live_pace(config: PacingConfig) -> Pace:
    """For messages that come while the bridge is connected."""
    return Pace(config.messages_per_second, config.bytes_per_second, config.burst_seconds)


def drain_pace(config: PacingConfig) -> Pace:
    """For messages that waited when it connected."""
    return Pace(config.drain_messages_per_second, config.drain_bytes_per_second, config.burst_seconds)
