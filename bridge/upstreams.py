"""The upstreams of one bridge: how they rank, how well each answers, and which to try in which order.

- A lower priority number comes first. Among those of one priority chance decides, by weight; those of weight 0 come after
  the others, in the order written.
- Answers are timed by kind (CONNACK, PUBACK, PINGRESP), each kind as a moving average that follows about the last five.
- An upstream that failed several times in a row, or whose answers take many times as long as another one's of the same
  kind, is ejected: left alone for a while, longer each time. Where all fail, none is left out: that tells nothing of them.

Pure: time and chance are parameters. Health is kept by upstream, so what DNS takes away and brings back is remembered.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Final, Literal, NamedTuple

from bridge.places import Upstream
from bridge.policy_config import FailoverConfig

_FOLLOW: Final = 0.2
_MOST_EJECTIONS_COUNTED: Final = 10
_ENOUGH_ANSWERS: Final = 5

Kind = Literal["connack", "puback", "pingresp"]


class Member(NamedTuple):
    """One upstream and how it ranks. The faults are for drills."""

    upstream: Upstream
    priority: int = 0
    weight: int = 0
    fault_delay_seconds: float = 0.0
    fault_abort_share: float = 0.0


class Health:
    """What is known of one upstream. `seconds`: how long its answers take, by kind. `failures`: in a row."""

    __slots__ = ("answers", "ejected_until", "ejections", "failures", "seconds")

    def __init__(self) -> None:
        self.seconds: dict[Kind, float] = {}
        self.answers: dict[Kind, int] = {}
        self.failures = self.ejections = 0
        self.ejected_until = 0.0

    def time(self, kind: Kind, seconds: float) -> None:
        """An answer came after `seconds`."""
        before = self.seconds.get(kind, seconds)
        self.seconds[kind] = before + _FOLLOW * (seconds - before)
        self.answers[kind] = self.answers.get(kind, 0) + 1


class Upstreams:
    """`members`: all of them, with what to try when. `random` gives a number from 0 up to 1."""

    def __init__(
        self, members: Sequence[Member], config: FailoverConfig, random: Callable[[], float]
    ) -> None:
        self.members: Sequence[Member] = members
        self._config = config
        self._random = random
        self._health: dict[Upstream, Health] = {}

    def health(self, upstream: Upstream) -> Health:
        """What is known of `upstream`."""
        found = self._health.get(upstream)
        if found is None:
            found = self._health[upstream] = Health()
        return found

    def member(self, upstream: Upstream) -> Member | None:
        """How `upstream` ranks; None where it is no member any more."""
        return next((member for member in self.members if member.upstream == upstream), None)

    def replace(self, members: Sequence[Member]) -> None:
        """DNS has other ones now. What is known of those that are gone for a while counts when they are back."""
        self.members = members
        if len(self._health) > 4 * len(members) + 64:
            self._health = {member.upstream: self.health(member.upstream) for member in members}

    # ---- the order

    def order(
        self, now: float, first: Upstream | None = None, last: Upstream | None = None
    ) -> list[Upstream]:
        """Whom to try in one round: each once, `first` before all and `last` after all, whatever they rank."""
        tried = [member.upstream for member in self._drawn(self._not_left_alone(now))]
        if first is not None and self.member(first):
            tried = [first, *(upstream for upstream in tried if upstream != first)]
        if last in tried:
            tried = [*(upstream for upstream in tried if upstream != last), last]
        return tried

    def is_ejected(self, upstream: Upstream, now: float) -> bool:
        """Whether `upstream` is left alone now."""
        health = self._health.get(upstream)
        return health is not None and now < health.ejected_until

    def _not_left_alone(self, now: float) -> list[Member]:
        """Those that are not ejected; all of them, where none of those works either."""
        stay = [member for member in self.members if not self.is_ejected(member.upstream, now)]
        threshold = self._config.eject_after_failures
        if any(not threshold or self.health(member.upstream).failures < threshold for member in stay):
            return stay
        return list(self.members)

    def _drawn(self, members: list[Member]) -> list[Member]:
        """`members` by priority, and within one by chance."""
        drawn: list[Member] = []
        for priority in sorted({member.priority for member in members}):
            equals = [member for member in members if member.priority == priority]
            weighty = [member for member in equals if member.weight]
            while weighty:
                at = self._random() * sum(member.weight for member in weighty)
                for chosen in weighty:
                    at -= chosen.weight
                    if at < 0:
                        break
                drawn.append(chosen)
                weighty.remove(chosen)
            drawn += [member for member in equals if not member.weight]
        return drawn

    # ---- what happened

    def on_failed(self, upstream: Upstream, now: float) -> bool:
        """`upstream` was tried, or used, and failed. True where it is ejected for that."""
        health = self.health(upstream)
        health.failures += 1
        threshold = self._config.eject_after_failures
        if not threshold or health.failures < threshold or now < health.ejected_until:
            return False
        return self._eject(upstream, now)

    def on_lasting(self, upstream: Upstream) -> None:
        """A connection to it has lasted, or carried something: its failures are forgiven."""
        health = self.health(upstream)
        health.failures = health.ejections = 0

    def eject_if_slow(self, upstream: Upstream, now: float) -> bool:
        """Eject `upstream` where it is slow; True if it is left alone from now on."""
        if not self.is_slow(upstream, now) or not self._eject(upstream, now):
            return False
        health = self.health(upstream)
        health.seconds.clear()  # when its time is over, it is judged by what it does then
        health.answers.clear()
        return True

    def is_slow(self, upstream: Upstream, now: float) -> bool:
        """Whether answers of some kind take many times as long as at the quickest of the others that could be used."""
        config = self._config
        if not config.eject_slow_factor:
            return False
        health = self.health(upstream)
        others = [
            self.health(member.upstream)
            for member in self.members
            if member.upstream != upstream and not self.is_ejected(member.upstream, now)
        ]
        for kind, seconds in health.seconds.items():
            theirs = [other.seconds[kind] for other in others if kind in other.seconds and not other.failures]
            if (
                theirs
                and health.answers[kind] >= (1 if kind == "connack" else _ENOUGH_ANSWERS)
                and seconds > config.eject_slow_ms / 1000
                and seconds > min(theirs) * config.eject_slow_factor
            ):
                return True
        return False

    def _eject(self, upstream: Upstream, now: float) -> bool:
        """Leave `upstream` alone, unless nobody else is left."""
        others = [m for m in self.members if m.upstream != upstream and not self.is_ejected(m.upstream, now)]
        if not others:
            return False
        health = self.health(upstream)
        health.ejections = min(health.ejections + 1, _MOST_EJECTIONS_COUNTED)
        health.ejected_until = now + self._config.eject_seconds * health.ejections
        return True
