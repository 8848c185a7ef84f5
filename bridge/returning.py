"""When to go back to an upstream of better priority: after it has shown for long enough that it works.

While the bridge is connected elsewhere, each upstream that ranks better gets a short test connection now and then, under a
client id of its own so that it disturbs no session: TLS, CONNECT, CONNACK, DISCONNECT. Time alone would tell nothing of it,
and an open port little: behind a sidecar every port is open. Once all tests have succeeded for `return_after_seconds`, and
it does not answer many times as slowly as where we are, it is the candidate. Up to half as long again is left to chance, so
that a fleet does not return in one second. A return that does not last makes the next one take twice as long, up to 8
times. Pure: somebody else makes the connections.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Final

from bridge.places import Upstream
from bridge.policy_config import FailoverConfig
from bridge.upstreams import Member, Upstreams

_MOST_PATIENCE: Final = 8


class _Test:
    """How the tests of one upstream went."""

    __slots__ = ("due_at", "good_at", "good_since", "patience", "returned_at", "returning")

    def __init__(self) -> None:
        self.due_at = -math.inf
        self.good_since: float | None = None
        self.good_at = 0.0  # when it will have worked for long enough
        self.patience = 1
        self.returning = False
        self.returned_at: float | None = None


class Returning:
    """The tests of all upstreams that rank better than the one in use."""

    def __init__(self, upstreams: Upstreams, config: FailoverConfig, random: Callable[[], float]) -> None:
        self._upstreams = upstreams
        self._config = config
        self._random = random
        self._tests: dict[Upstream, _Test] = {}

    def _test(self, upstream: Upstream) -> _Test:
        found = self._tests.get(upstream)
        if found is None:
            found = self._tests[upstream] = _Test()
        return found

    def _better(self, here: Upstream) -> list[Member]:
        """Those that rank better than `here`, the best first."""
        mine = self._upstreams.member(here)
        if mine is None or not self._config.return_after_seconds:
            return []
        better = [member for member in self._upstreams.members if member.priority < mine.priority]
        return sorted(better, key=lambda member: member.priority)

    def due(self, here: Upstream, now: float) -> Upstream | None:
        """Who is to be tested now, while connected to `here`. The next one is due an interval later."""
        for member in self._better(here):
            test = self._test(member.upstream)
            if now >= test.due_at and not self._upstreams.is_ejected(member.upstream, now):
                test.due_at = now + self._config.probe_interval_seconds
                return member.upstream
        return None

    def on_tested(self, upstream: Upstream, seconds: float | None, now: float) -> None:
        """The test of `upstream` brought CONNACK after `seconds`; None: it failed."""
        test = self._test(upstream)
        if seconds is None:
            test.good_since = None
            return
        self._upstreams.health(upstream).time("connack", seconds)
        if test.good_since is None:
            test.good_since = now
            patience = test.patience * (1.0 + 0.5 * self._random())
            test.good_at = now + self._config.return_after_seconds * patience

    def candidate(self, here: Upstream, now: float) -> Upstream | None:
        """The best upstream that ranks better than `here` and has worked for long enough."""
        for member in self._better(here):
            test = self._test(member.upstream)
            if (
                test.good_since is not None
                and now >= test.good_at
                and not self._upstreams.is_ejected(member.upstream, now)
                and not self._upstreams.is_slow(member.upstream, now)
            ):
                return member.upstream
        return None

    def on_return(self, upstream: Upstream) -> None:
        """The bridge goes back to `upstream` now."""
        self._test(upstream).returning = True

    def on_online(self, upstream: Upstream, now: float) -> None:
        """The bridge is connected to `upstream`; whatever ranks better is tested from the next interval on."""
        test = self._test(upstream)
        if test.returning:
            test.returning = False
            test.returned_at = now
        interval = self._config.probe_interval_seconds
        for member in self._better(upstream):
            better = self._test(member.upstream)
            if better.due_at + interval <= now:
                better.due_at = now + interval
            if better.returning:  # and we are not there: it did not work after all
                better.returning = False
                self._lose_patience(better)

    def on_lost(self, upstream: Upstream, now: float) -> None:
        """The connection to `upstream` is gone."""
        test = self._test(upstream)
        if test.returned_at is None:
            return
        if now - test.returned_at >= self._config.return_after_seconds:
            test.patience = 1
        else:
            self._lose_patience(test)
        test.returned_at = test.good_since = None

    def _lose_patience(self, test: _Test) -> None:
        test.patience = min(2 * test.patience, _MOST_PATIENCE)
        test.good_since = None
