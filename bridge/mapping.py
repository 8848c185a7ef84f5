"""What a bridge's rules say about topics: what to subscribe to on either side, and what a topic is called on the other.

Of several rules that match a topic the first one written counts, so a message crosses once, whatever overlaps. Answers
are remembered, up to a limit. A rule `sensors/#` with the prefix `site/` also carries the parent, `site/sensors`, as the
filter does. Pure: no message is touched here.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

from bridge.config import RuleConfig
from edge_broker.wire.topics import MAX_TOPIC_BYTES, match

_MAX_REMEMBERED: Final = 10_000


class RemoteTopic:
    """Where a local topic goes. `encoded`: the remote topic behind its two-byte length, as a PUBLISH has it.

    `max_age_seconds`, `keep_latest`, `is_urgent`: what its rule says of messages that wait; `may_be_skipped`: whether the
    first two say anything. `rule`: the local filter of the rule that says so.
    """

    __slots__ = (
        "encoded",
        "is_urgent",
        "keep_latest",
        "max_age_seconds",
        "may_be_skipped",
        "qos",
        "rule",
        "topic",
    )

    def __init__(self, topic: str, qos: int, rule: str = "") -> None:
        raw = topic.encode()
        self.topic = topic
        self.qos = qos
        self.max_age_seconds = 0.0
        self.keep_latest = self.is_urgent = self.may_be_skipped = False
        self.rule = rule
        self.encoded = len(raw).to_bytes(2, "big") + raw

    def obey(self, rule: RuleConfig) -> None:
        """Take over what `rule` says of messages that wait."""
        self.max_age_seconds = rule.max_age_seconds
        self.keep_latest = rule.keep_latest
        self.may_be_skipped = rule.keep_latest or rule.max_age_seconds > 0
        self.is_urgent = rule.priority == "high"


class OutMapping:
    """From here to the upstream. `known` is read directly where speed counts; `find` fills it."""

    def __init__(self, rules: Sequence[RuleConfig]) -> None:
        self._rules = rules
        self.known: dict[str, RemoteTopic | None] = {}

    @property
    def local_filters(self) -> list[str]:
        """What to subscribe to here, each once."""
        return list(dict.fromkeys(rule.local_filter for rule in self._rules))

    @property
    def highest_qos(self) -> int:
        """Of all rules; -1 without any."""
        return max((rule.qos for rule in self._rules), default=-1)

    def find(self, topic: str) -> RemoteTopic | None:
        """Where `topic` goes; None where no rule has a name for it upstream."""
        known = self.known
        if topic in known:
            return known[topic]
        found = None
        for rule in self._rules:
            if match(rule.local_filter, topic):
                name = swap_prefix(topic, rule.local_prefix, rule.remote_prefix)
                if name is not None:
                    found = RemoteTopic(name, rule.qos, rule.local_filter)
                    found.obey(rule)
                break
        if len(known) >= _MAX_REMEMBERED:
            known.clear()
        known[topic] = found
        return found


class InMapping:
    """From the upstream to here."""

    def __init__(self, rules: Sequence[RuleConfig]) -> None:
        self._rules = rules
        self._known: dict[str, str | None] = {}

    @property
    def remote_filters(self) -> dict[str, int]:
        """What to subscribe to upstream, with the QoS; where two rules have one filter, the higher."""
        filters: dict[str, int] = {}
        for rule in self._rules:
            filters[rule.remote_filter] = max(rule.qos, filters.get(rule.remote_filter, 0))
        return filters

    def find(self, topic: str) -> str | None:
        """What the upstream's `topic` is called here; None where no rule has a name for it."""
        known = self._known
        if topic in known:
            return known[topic]
        found = None
        for rule in self._rules:
            if match(rule.remote_filter, topic):
                found = swap_prefix(topic, rule.remote_prefix, rule.local_prefix)
                break
        if len(known) >= _MAX_REMEMBERED:
            known.clear()
        known[topic] = found
        return found


def swap_prefix(topic: str, prefix: str, other: str) -> str | None:
    """`topic` with `other` in the place of `prefix`; None where that is no topic name.

    The parent that `prefix/#` matches too, `prefix` without its slash, becomes `other` without its slash.
    """
    if topic.startswith(prefix):
        swapped = other + topic[len(prefix) :]
    elif topic + "/" == prefix:
        swapped = other.removesuffix("/")
    else:
        return None
    if not swapped or len(swapped.encode()) > MAX_TOPIC_BYTES:
        return None
    return swapped


def may_echo(out_rules: Sequence[RuleConfig], in_rules: Sequence[RuleConfig]) -> bool:
    """Whether something that goes up may match what is subscribed to upstream, and so come down again."""
    return any(overlap(up.remote_filter, down.remote_filter) for up in out_rules for down in in_rules)


def overlap(one: str, other: str) -> bool:
    """Whether a topic exists that both filters match."""
    if "$" in (one[:1], other[:1]) and one[:1] != other[:1]:
        return False  # a wildcard does not match a first level that begins with $ [MQTT-4.7.2-1]
    mine, theirs = one.split("/"), other.split("/")
    for here, there in zip(mine, theirs, strict=False):
        if "#" in (here, there):
            return True
        if here != there and "+" not in (here, there):
            return False
    if len(mine) == len(theirs):
        return True
    shorter, longer = sorted((mine, theirs), key=len)
    return shorter[-1] == "#" or longer[len(shorter) :] == ["#"]
