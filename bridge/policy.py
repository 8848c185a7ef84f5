"""When the bridge tries again, where, and in which version of MQTT. Pure: time and chance come in from outside.

- Pauses grow exponentially up to a cap, with full jitter: five hundred gateways that lost one upstream must not come back
  in one instant. Several URLs are tried in turn without a pause between them; the pause follows each full round.
- A connection that stood for a while, or carried something before it was lost, starts the count of failures anew.
- MQTT 5 is tried first. Where it is refused, or a connection that stood was closed without a CONNACK or left without
  one, 3.1.1 is tried at once, and remembered for that URL where it works: for an hour, since upstreams are renewed.
  Silence alone does not lead away from a version 5 that has worked there before.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Final, Literal, NamedTuple

from bridge.config import Upstream
from edge_broker.wire import const

_REMEMBER_OLD_VERSION_SECONDS: Final = 3600.0
_STABLE_SECONDS: Final = 10.0
_PINNED: Final = {"5": const.MQTT_5, "3.1.1": const.MQTT_3_1_1}

Sign = Literal["unreachable", "silent", "version", "refused"]
"""How an attempt failed: no connection; one that was closed or left without a CONNACK; the version, or else we, refused."""


class Attempt(NamedTuple):
    """What to do next: wait, then connect to `upstream` in `version`."""

    upstream: Upstream
    version: int
    delay_seconds: float


class Policy:
    """The memory from one attempt to the next. `random` gives a number from 0 up to 1."""

    def __init__(
        self,
        upstreams: Sequence[Upstream],
        version: Literal["auto", "5", "3.1.1"],
        backoff_initial_seconds: float,
        backoff_max_seconds: float,
        random: Callable[[], float],
    ) -> None:
        self._upstreams = upstreams
        self._pinned = _PINNED.get(version)
        self._initial = backoff_initial_seconds
        self._maximum = backoff_max_seconds
        self._random = random
        self._at = 0
        self._failed_in_round = 0
        self._failures = 0
        self._delay = 0.0
        self._trying_old_version = False
        self._works: dict[Upstream, tuple[int, float]] = {}  # version, since when we know

    def next_attempt(self, now: float) -> Attempt:
        """What to try next."""
        upstream = self._upstreams[self._at]
        return Attempt(upstream, self._version_for(upstream, now), self._delay)

    def _version_for(self, upstream: Upstream, now: float) -> int:
        if self._pinned is not None:
            return self._pinned
        if self._trying_old_version:
            return const.MQTT_3_1_1
        version, since = self._works.get(upstream, (const.MQTT_5, now))
        if version != const.MQTT_5 and now - since > _REMEMBER_OLD_VERSION_SECONDS:
            return const.MQTT_5
        return version

    def on_online(self, attempt: Attempt, now: float) -> None:
        """`attempt` got its CONNACK."""
        known = self._works.get(attempt.upstream)
        if known is None or known[0] != attempt.version or self._trying_old_version:
            self._works[attempt.upstream] = (attempt.version, now)
        self._trying_old_version = False
        self._failed_in_round = 0

    def on_failed(self, attempt: Attempt, sign: Sign) -> bool:
        """`attempt` did not get that far. True where it may have been the version, and the other one comes next."""
        if self._pinned is None and sign in ("silent", "version"):
            works = self._works.get(attempt.upstream)
            if attempt.version == const.MQTT_5:
                if sign == "version" or works is None or works[0] != const.MQTT_5:
                    self._trying_old_version = True
                    self._delay = 0.0
                    return True
            else:
                self._works.pop(attempt.upstream, None)
        self._go_to_next()
        return False

    def on_lost(self, lasted_seconds: float, progressed: bool, sent_away: bool) -> None:
        """A connection that had its CONNACK ended after `lasted_seconds`.

        `progressed`: something was acknowledged on it. `sent_away`: the upstream ended it on purpose.
        """
        if lasted_seconds >= _STABLE_SECONDS or (progressed and not sent_away):
            self._failures = 0
        if sent_away:
            self._at = (self._at + 1) % len(self._upstreams)
        self._failed_in_round = 0
        self._back_off()

    def _go_to_next(self) -> None:
        self._trying_old_version = False
        self._at = (self._at + 1) % len(self._upstreams)
        self._failed_in_round += 1
        if self._failed_in_round < len(self._upstreams):
            self._delay = 0.0
        else:
            self._failed_in_round = 0
            self._back_off()

    def _back_off(self) -> None:
        longest = min(self._maximum, self._initial * 2.0 ** min(self._failures, 32))
        self._delay = self._random() * longest
        self._failures += 1
