"""What an ACL says to one principal's questions, and which rule it was: for the broker, for the log, for `acl explain`.

Each question is decided in one place, so that what is explained is what is done. A subscription is compared as a whole:
every topic of its filter must be allowed and none denied, exactly (``containment``); or, where wide subscriptions are
filtered, some topic of it. What is delivered is decided by topic: it must be one that may be subscribed to and received.

What is asked about a topic is worked out once and remembered, up to a limit.
"""

from __future__ import annotations

import logging
from collections.abc import Sequence
from typing import Final, NamedTuple, TypeVar

from edge_broker.core.ports import NEVER, Principal
from edge_broker.security.acl import Acl, Rule, rules_for
from edge_broker.security.containment import is_inside, overlap
from edge_broker.wire.topics import TopicCache, match

log: Final = logging.getLogger("edge_broker.security.acl")

_Key = TypeVar("_Key")
_Answer = TypeVar("_Answer")
_MAX_REMEMBERED: Final = 1_000
_MOST_FILTERS_LOGGED: Final = 5


class Decision(NamedTuple):
    """The highest QoS that is allowed, `NEVER` where nothing is; and why."""

    qos: int
    reason: str


class AclPermissions:
    """What `principal` may do by `acl`: a ``Permissions`` for the core."""

    __slots__ = ("_acl", "_delivered", "_published", "_rules", "principal", "roles")

    def __init__(self, acl: Acl, principal: Principal) -> None:
        self.principal = principal
        self.roles = acl.roles_of(principal)
        self._acl = acl
        rules: dict[tuple[str, str], tuple[Rule, ...]] = {}
        for rule in rules_for(acl, principal):
            key = (rule.effect, rule.action)
            rules[key] = (*rules.get(key, ()), rule)
        self._rules = rules
        self._delivered: dict[tuple[str, bool], int] = {}
        self._published: dict[str, tuple[int, bool]] = {}

    # ---- what the core asks

    def publish_right(self, topic: str) -> tuple[int, bool]:
        """The highest QoS that may be published to `topic`, `NEVER` if none; and whether it may be retained there."""
        right = self._published.get(topic)
        if right is None:
            decision, retained = self.decide_publish(topic), self.decide_publish(topic, retain=True)
            self._tell("publish to", topic, decision)
            self._tell("publish a retained message to", topic, retained)
            right = (decision.qos, retained.qos != NEVER)
            _remember(self._published, topic, topic, right)
        return right

    def granted_qos(self, topic_filter: str, shared: bool) -> int:
        """The highest QoS of a subscription to `topic_filter` (without `$share`); `NEVER` where it is refused."""
        decision = self.decide_subscribe(topic_filter, shared)
        self._tell("subscribe to", topic_filter, decision)
        return decision.qos

    def delivered_qos(self, topic: str, shared: bool) -> int:
        """The highest QoS at which a message of `topic` is delivered; `NEVER` where it is not."""
        key = (topic, shared)
        qos = self._delivered.get(key)
        if qos is None:
            decision = self.decide_receive(topic, shared)
            self._tell("receive", topic, decision)
            qos = decision.qos
            _remember(self._delivered, topic, key, qos)
        return qos

    def _tell(self, verb: str, topic: str, decision: Decision) -> None:
        if log.isEnabledFor(logging.DEBUG):
            log.debug("%s", explanation(self.principal, verb, topic, decision))

    # ---- decisions

    def decide_publish(self, topic: str, retain: bool = False) -> Decision:
        """About a PUBLISH, at the highest QoS that it may have; with `retain`, about one that is retained."""
        decision = self._decide("publish", topic)
        if not retain or decision.qos == NEVER:
            return decision
        retained = self._decide("retain", topic)
        return Decision(decision.qos if retained.qos != NEVER else NEVER, retained.reason)

    def decide_receive(self, topic: str, shared: bool = False) -> Decision:
        """About deliveries of `topic`; with `shared`, of those by a shared subscription."""
        decision = self._decide("subscribe", topic)
        for action in ("receive", "share") if shared else ("receive",):
            if decision.qos == NEVER:
                break
            further = self._decide(action, topic)
            decision = Decision(decision.qos if further.qos != NEVER else NEVER, further.reason)
        return decision

    def decide_subscribe(self, topic_filter: str, shared: bool = False) -> Decision:
        """About a SUBSCRIBE to `topic_filter` (without `$share`); with `shared`, about a shared one."""
        decide = self._decide_in_part if self._acl.filters_wide else self._decide_as_a_whole
        decision = decide("subscribe", topic_filter)
        if not shared or decision.qos == NEVER:
            return decision
        sharing = decide("share", topic_filter)
        return Decision(decision.qos if sharing.qos != NEVER else NEVER, sharing.reason)

    def _decide(self, action: str, topic: str) -> Decision:
        """By the one topic."""
        for rule in self._rules.get(("deny", action), ()):
            if any(match(topic_filter, topic) for topic_filter in rule.filters):
                return Decision(NEVER, str(rule))
        best: Rule | None = None
        for rule in self._rules.get(("allow", action), ()):
            is_better = best is None or rule.max_qos > best.max_qos
            if is_better and any(match(topic_filter, topic) for topic_filter in rule.filters):
                best = rule
        return self._nothing_allows(action) if best is None else Decision(best.max_qos, str(best))

    def _decide_as_a_whole(self, action: str, wanted: str) -> Decision:
        """By all topics that `wanted` matches: none may be denied, each must be allowed."""
        for rule in self._rules.get(("deny", action), ()):
            if any(overlap(topic_filter, wanted) for topic_filter in rule.filters):
                return Decision(NEVER, f"{rule}, overlaps it")
        allowing = self._rules.get(("allow", action), ())
        for qos in sorted({rule.max_qos for rule in allowing}, reverse=True):
            rules = [rule for rule in allowing if rule.max_qos >= qos]
            if is_inside(wanted, _filters_of(rules)):
                return Decision(qos, _who_allows(rules, wanted))
        if any(overlap(topic_filter, wanted) for topic_filter in _filters_of(allowing)):
            return Decision(NEVER, f"it is wider than {' and '.join(map(repr, _filters_of(allowing)))}")
        return self._nothing_allows(action)

    def _decide_in_part(self, action: str, wanted: str) -> Decision:
        """By any topic that `wanted` matches: not all may be denied, some must be allowed."""
        denying = self._rules.get(("deny", action), ())
        if is_inside(wanted, _filters_of(denying)):
            rules = [rule for rule in denying if any(overlap(one, wanted) for one in rule.filters)]
            return Decision(NEVER, " and ".join(map(str, rules)))
        overlapping = [
            rule
            for rule in self._rules.get(("allow", action), ())
            if any(overlap(one, wanted) for one in rule.filters)
        ]
        if not overlapping:
            return self._nothing_allows(action)
        best = max(overlapping, key=lambda rule: rule.max_qos)
        return Decision(best.max_qos, f"{best}; delivered is what is allowed of it")

    def _nothing_allows(self, action: str) -> Decision:
        """No rule decides: nothing is allowed that none allows."""
        if not self.roles:
            return Decision(NEVER, "it has no role")
        rules = [rule for rule in self._rules.get(("allow", action), ()) if not rule.filters]
        unusable = f" ({'; '.join(map(str, rules))})" if rules else ""
        roles = f"{'role' if len(self.roles) == 1 else 'roles'} {', '.join(self.roles)}"
        return Decision(NEVER, f"no allow.{action} of {roles} matches{unusable}")


def _remember(memory: dict[_Key, _Answer], topic: str, key: _Key, answer: _Answer) -> None:
    """No more than some, and none that are long: no client fills the memory with its questions."""
    if len(topic) <= TopicCache.LONGEST_BYTES:
        if len(memory) >= _MAX_REMEMBERED:
            memory.clear()
        memory[key] = answer


def _filters_of(rules: Sequence[Rule]) -> list[str]:
    return [topic_filter for rule in rules for topic_filter in rule.filters]


def _who_allows(rules: Sequence[Rule], wanted: str) -> str:
    """The rule that `wanted` lies inside, or those which it lies inside together."""
    for rule in rules:
        if is_inside(wanted, rule.filters):
            return str(rule)
    return " and ".join(str(rule) for rule in rules if any(overlap(one, wanted) for one in rule.filters))


def explanation(principal: Principal, verb: str, topic: str, decision: Decision) -> str:
    """One decision as a sentence."""
    who = (
        f"client {principal.client_id!r} as {principal.identity!r}"
        if principal.client_id
        else repr(principal.identity)
    )
    if decision.qos == NEVER:
        return f"{who} may not {verb} {topic!r}: {decision.reason}"
    return f"{who} may {verb} {topic!r} at QoS {decision.qos} at most: {decision.reason}"


class AclAuthorizer:
    """An ``Authorizer`` for the core, by one reading of an ACL."""

    def __init__(self, acl: Acl) -> None:
        self.acl = acl

    def permissions_of(self, principal: Principal) -> AclPermissions | None:
        """What `principal` may do; None, which is everything, for a bridge that the ACL does not name."""
        if principal.bridge and principal.bridge not in self.acl.bridges:
            return None
        return AclPermissions(self.acl, principal)

    def on_removed(self, principal: Principal, topic_filters: list[str]) -> None:
        """Say so, once for all of them."""
        shown = ", ".join(map(repr, topic_filters[:_MOST_FILTERS_LOGGED]))
        more = len(topic_filters) - _MOST_FILTERS_LOGGED
        log.warning(
            "client %r as %r may not have %d of its subscriptions any more, they were removed: %s%s",
            principal.client_id,
            principal.identity,
            len(topic_filters),
            shown,
            f" and {more} more" if more > 0 else "",
        )
