"""When the bridge connects, where, in which version of MQTT, and when it leaves. Pure: time and chance come from outside.

- Pauses grow exponentially up to a cap, with full jitter: five hundred gateways that lost one upstream must not come back
  in one instant. Several upstreams are tried without a pause between them; the pause follows each full round. Beside it
  there are a budget of attempts per minute and a circuit breaker (`bridge.breaker`); the longest of the three waits counts.
- Whom to try in which order is `bridge.upstreams`' to say. What worked last comes first after a loss, so that a cut line
  is no failover; what sent us away comes last.
- A connection that stood for a while, or carried something before it was lost, starts the count of failures anew.
- A connection that works is left by choice only after `min_dwell_seconds`: where it is slow and another is not, or for an
  upstream of better priority that has answered test connections for long enough (`bridge.returning`).
- MQTT 5 is tried first. Where it is refused, or a connection that stood was closed without a CONNACK or left without
  one, 3.1.1 is tried at once, and remembered for that upstream where it works: for an hour, since upstreams are renewed.
  Silence alone does not lead away from a version 5 that has worked there before.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Final, Literal, NamedTuple

from bridge.breaker import Breaker
from bridge.config import BridgeConfig
from bridge.pacing import Bucket
from bridge.places import Upstream
from bridge.returning import Returning
from bridge.upstreams import Kind, Member, Upstreams
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
    """The memory from one attempt to the next. `random` gives a number from 0 up to 1.

    `failovers`: connections made elsewhere than the one before; `ejections`: how often an upstream was left alone.
    """

    def __init__(self, config: BridgeConfig, members: Sequence[Member], random: Callable[[], float]) -> None:
        self.upstreams = Upstreams(members, config.failover, random)
        self.breaker = Breaker(config.breaker_failures, config.breaker_open_seconds, random)
        self.returning = Returning(self.upstreams, config.failover, random)
        self.failovers = self.ejections = 0
        self._config = config
        self._pinned = _PINNED.get(config.version)
        self._random = random
        self._budget = Bucket(config.max_attempts_per_minute / 60, config.max_attempts_per_minute)
        self._round: list[Upstream] = []
        self._last_online: Upstream | None = None
        self._online_since: float | None = None
        self._failures = 0
        self._delay = random() * config.arrival_spread_seconds
        self._trying_old_version = False
        self._works: dict[Upstream, tuple[int, float]] = {}  # version, since when we know

    @property
    def has_upstreams(self) -> bool:
        """Whether there is anything to try: DNS may not have told yet."""
        return bool(self.upstreams.members)

    def next_attempt(self, now: float) -> Attempt:
        """What to try next; `has_upstreams` is true."""
        self._round = [upstream for upstream in self._round if self.upstreams.member(upstream)]
        if not self._round:
            self._round = self.upstreams.order(now)
        upstream = self._round[0]
        return Attempt(upstream, self.version_for(upstream, now), self.wait_seconds(now))

    def wait_seconds(self, now: float) -> float:
        """The pause before the next attempt, whatever it is for."""
        return max(self._delay, self.breaker.wait_seconds(now), self._budget.wait_seconds(1, now))

    def version_for(self, upstream: Upstream, now: float) -> int:
        """The version of MQTT to speak to `upstream`."""
        if self._pinned is not None:
            return self._pinned
        if self._trying_old_version:
            return const.MQTT_3_1_1
        version, since = self._works.get(upstream, (const.MQTT_5, now))
        if version != const.MQTT_5 and now - since > _REMEMBER_OLD_VERSION_SECONDS:
            return const.MQTT_5
        return version

    # ---- what became of it

    def on_online(self, attempt: Attempt, now: float) -> None:
        """`attempt` got its CONNACK."""
        upstream = attempt.upstream
        known = self._works.get(upstream)
        if known is None or known[0] != attempt.version or self._trying_old_version:
            self._works[upstream] = (attempt.version, now)
        self._trying_old_version = False
        self._budget.take(1, now)
        self.breaker.on_connected()
        self.failovers += self._last_online not in (None, upstream)
        self._last_online = upstream
        self._online_since = now
        self.returning.on_online(upstream, now)

    def on_failed(self, attempt: Attempt, sign: Sign, now: float) -> bool:
        """`attempt` did not get that far. True where it may have been the version, and the other one comes next."""
        self._budget.take(1, now)
        if self._pinned is None and sign in ("silent", "version"):
            works = self._works.get(attempt.upstream)
            if attempt.version == const.MQTT_5:
                if sign == "version" or works is None or works[0] != const.MQTT_5:
                    self._trying_old_version = True
                    self._delay = 0.0
                    return True
            else:
                self._works.pop(attempt.upstream, None)
        self._count_failure(attempt.upstream, now)
        self._go_to_next(attempt.upstream)
        return False

    def on_unresolved(self, now: float) -> None:
        """There is nothing to try, as DNS does not tell where the upstreams are."""
        self._budget.take(1, now)
        self.breaker.on_failure(now)
        self._back_off()

    def on_lost(
        self, upstream: Upstream, lasted_seconds: float, progressed: bool, sent_away: bool, now: float
    ) -> None:
        """A connection that had its CONNACK ended after `lasted_seconds`.

        `progressed`: something was acknowledged on it. `sent_away`: the upstream ended it on purpose.
        """
        self._online_since = None
        if lasted_seconds >= _STABLE_SECONDS or (progressed and not sent_away):
            self._failures = 0
            self.breaker.on_success()
            self.upstreams.on_lasting(upstream)
        else:
            self._count_failure(upstream, now)
        self.returning.on_lost(upstream, now)
        if sent_away or self.upstreams.is_ejected(upstream, now):
            self._round = self.upstreams.order(now, last=upstream)
        else:
            self._round = self.upstreams.order(now, first=upstream)
        self._back_off(self._config.arrival_spread_seconds)

    def on_left(self, upstream: Upstream, better: Upstream, now: float) -> None:
        """We left a connection that worked, for `better`; back to `upstream` if that does not work after all."""
        self._online_since = None
        if not self.upstreams.is_ejected(upstream, now):
            self.upstreams.on_lasting(upstream)
            self.returning.on_return(better)
        self._round = self.upstreams.order(now, first=better)
        self._delay = 0.0

    # ---- while connected

    def on_answer(self, upstream: Upstream, kind: Kind, seconds: float) -> None:
        """`upstream` answered after `seconds`."""
        self.upstreams.health(upstream).time(kind, seconds)

    def should_leave_for(self, now: float) -> Upstream | None:
        """Where it would be better to be than where we are connected; None nearly always."""
        here, since = self._last_online, self._online_since
        if here is None or since is None or now - since < self._config.failover.min_dwell_seconds:
            return None
        if self.upstreams.eject_if_slow(here, now):
            self.ejections += 1
            return self.upstreams.order(now)[0]
        return self.returning.candidate(here, now)

    # ---- pauses

    def _count_failure(self, upstream: Upstream, now: float) -> None:
        self.breaker.on_failure(now)
        self.ejections += self.upstreams.on_failed(upstream, now)

    def _go_to_next(self, failed: Upstream) -> None:
        self._trying_old_version = False
        self._round = [upstream for upstream in self._round if upstream != failed]
        if self._round:
            self._delay = 0.0
        else:
            self._back_off()

    def _back_off(self, at_least_up_to: float = 0.0) -> None:
        config = self._config
        longest = min(
            config.backoff_max_seconds, config.backoff_initial_seconds * 2.0 ** min(self._failures, 32)
        )
        self._delay = self._random() * max(longest, at_least_up_to)
        self._failures += 1
