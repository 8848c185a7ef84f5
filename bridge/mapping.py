"""What a bridge's rules say about topics: what to subscribe to on either side, and what a topic is called on the other.

Of several rules that match a topic the first one written counts, so a message crosses once, whatever overlaps; what a rule
excepts goes on to the next. Answers are remembered, up to a limit. A rule `sensors/#` with the prefix `site/` also carries
the parent, `site/sensors`, as the filter does. Pure: no message is touched here.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final, NamedTuple

from bridge.priorities import HIGH, NAMES, NORMAL
from bridge.rules import RuleConfig
from bridge.shapes import Shape, shape_of
from bridge.share import Share
from bridge.templates import GATEWAY, Crossing, backward_table, forward_table
from edge_broker.wire.topics import match

_MAX_REMEMBERED: Final = 10_000


class Route(NamedTuple):
    """One rule in one direction. `exceptions`: filters of what it leaves to others. `rule`: as it is configured."""

    crossing: Crossing
    exceptions: tuple[str, ...]
    shape: Shape | None
    rule: RuleConfig

    @property
    def qos(self) -> int:
        """At which its messages cross, or at most."""
        return self.rule.qos

    def takes(self, topic: str) -> bool:
        """Whether this rule carries `topic`."""
        if not self.crossing.takes(topic):
            return False
        return not any(match(topic_filter, topic) for topic_filter in self.exceptions)


def route_up(rule: RuleConfig, gateway: str) -> Route:
    """`rule` from here to the upstream."""
    source, pieces = rule.up()
    crossing = Crossing(source, pieces, gateway, after=forward_table(rule.characters))
    return _route(rule, crossing, gateway)


def route_down(rule: RuleConfig, gateway: str) -> Route:
    """`rule` from the upstream to here. Behind prefixes the upstream has the characters that stand for others."""
    source, pieces = rule.down()
    if rule.from_ is None:
        named = source.topic_filter.replace(GATEWAY, gateway).translate(forward_table(rule.characters))
        source = source._replace(topic_filter=named)
    return _route(rule, Crossing(source, pieces, gateway, before=backward_table(rule.characters)), gateway)


def _route(rule: RuleConfig, crossing: Crossing, gateway: str) -> Route:
    exceptions = tuple(topic_filter.replace(GATEWAY, gateway) for topic_filter in rule.except_)
    return Route(crossing, exceptions, shape_of(rule), rule)


class RemoteTopic:
    """Where a local topic goes. `encoded`: the remote topic behind its two-byte length, as a PUBLISH has it.

    `rule`: the local filter of the rule that says so. `shape`: what the rule makes of messages, None for nothing.
    `trace_rate`: the part of them that are followed, None for what holds for all rules. `max_age_seconds`, `keep_latest`:
    what the rule says of messages that wait; `may_be_skipped`: whether these say anything. `priority`: see
    `bridge.priorities`. `elsewhere`: it goes to the canary. `in_envelopes`: whether they may go together with others;
    `is_ingested`: whether an ingester listens there.
    """

    __slots__ = (
        "elsewhere",
        "encoded",
        "in_envelopes",
        "is_ingested",
        "keep_latest",
        "max_age_seconds",
        "may_be_skipped",
        "priority",
        "qos",
        "rule",
        "shape",
        "topic",
        "trace_rate",
    )

    def __init__(self, topic: str, qos: int, rule: str = "", shape: Shape | None = None) -> None:
        raw = topic.encode()
        self.topic = topic
        self.qos = qos
        self.max_age_seconds = 0.0
        self.keep_latest = self.may_be_skipped = self.elsewhere = False
        self.priority = NORMAL
        self.in_envelopes = True
        self.is_ingested = False
        self.rule = rule
        self.shape = shape
        self.trace_rate: float | None = None
        self.encoded = len(raw).to_bytes(2, "big") + raw

    def obey(self, rule: RuleConfig) -> None:
        """Take over what `rule` says of messages that wait, of those that are followed, and of envelopes."""
        self.trace_rate = rule.trace_rate
        self.max_age_seconds = rule.max_age_seconds
        self.keep_latest = rule.keep_latest
        self.may_be_skipped = rule.keep_latest or rule.max_age_seconds > 0
        self.priority = NAMES.index(rule.priority)
        self.in_envelopes = rule.envelope
        self.is_ingested = rule.ingested

    @property
    def is_urgent(self) -> bool:
        """Whether it goes before all others, and when the month's bytes are spent."""
        return self.priority == HIGH


class LocalTopic(NamedTuple):
    """What the upstream's topic is called here, and what the rule makes of messages; and of those that come late."""

    topic: str
    shape: Shape | None
    when_late: str
    late_after_seconds: float


class OutMapping:
    """From here to the upstream. `known` is read directly where speed counts; `find` fills it.

    `excepted`: those of them that every rule which matches excepts. `gateway`: what `{gateway}` stands for. `share`: the
    topics that go to the canary, None while there is none; call `forget` when it changes.
    """

    def __init__(self, rules: Sequence[RuleConfig], gateway: str = "") -> None:
        self._routes = [route_up(rule, gateway) for rule in rules]
        self.known: dict[str, RemoteTopic | None] = {}
        self.excepted: set[str] = set()
        self.share: Share | None = None

    def forget(self) -> None:
        """Find all answers anew."""
        self.known.clear()
        self.excepted.clear()

    @property
    def local_filters(self) -> list[str]:
        """What to subscribe to here, each once."""
        return list(dict.fromkeys(route.crossing.source_filter for route in self._routes))

    @property
    def traces(self) -> bool:
        """Whether a rule asks for messages to be followed."""
        return any(route.rule.trace_rate for route in self._routes)

    @property
    def priorities(self) -> set[int]:
        """Those that a rule gives to messages which may wait."""
        return {NAMES.index(route.rule.priority) for route in self._routes if route.qos}

    @property
    def is_ingested(self) -> bool:
        """Whether a rule says that an ingester listens."""
        return any(route.rule.ingested for route in self._routes)

    @property
    def remote_filters(self) -> list[str]:
        """What covers all that goes up, by its names upstream."""
        return [route.crossing.target_filter for route in self._routes]

    @property
    def highest_qos(self) -> int:
        """Of all rules; -1 without any."""
        return max((route.qos for route in self._routes), default=-1)

    def find(self, topic: str) -> RemoteTopic | None:
        """Where `topic` goes; None where no rule has a name for it upstream."""
        known = self.known
        if topic in known:
            return known[topic]
        if len(known) >= _MAX_REMEMBERED:
            self.forget()
        route = next((route for route in self._routes if route.takes(topic)), None)
        found = None
        if route is None:
            self.excepted.add(topic)
        else:
            name = route.crossing.cross(topic)
            if name is not None:
                found = RemoteTopic(name, route.qos, route.crossing.source_filter, route.shape)
                found.obey(route.rule)
                found.elsewhere = self.share is not None and self.share.takes(topic)
        known[topic] = found
        return found


class InMapping:
    """From the upstream to here."""

    def __init__(self, rules: Sequence[RuleConfig], gateway: str = "") -> None:
        self._routes = [route_down(rule, gateway) for rule in rules]
        self._known: dict[str, LocalTopic | None] = {}

    @property
    def remote_filters(self) -> dict[str, int]:
        """What to subscribe to upstream, with the QoS; where two rules have one filter, the higher."""
        filters: dict[str, int] = {}
        for route in self._routes:
            topic_filter = route.crossing.source_filter
            filters[topic_filter] = max(route.qos, filters.get(topic_filter, 0))
        return filters

    def marks_after(self, absent_seconds: float | None) -> bool:
        """Whether a rule wants something done with what waited upstream for so long; None: for an unknown time."""
        return any(
            route.rule.when_late != "pass"
            and (absent_seconds is None or absent_seconds >= route.rule.late_after_seconds)
            for route in self._routes
        )

    def find(self, topic: str) -> LocalTopic | None:
        """What the upstream's `topic` is called here; None where no rule has a name for it."""
        known = self._known
        if topic in known:
            return known[topic]
        route = next((route for route in self._routes if route.takes(topic)), None)
        name = None if route is None else route.crossing.cross(topic)
        if len(known) >= _MAX_REMEMBERED:
            known.clear()
        found = None
        if route is not None and name is not None:
            rule = route.rule
            found = LocalTopic(name, route.shape, rule.when_late, rule.late_after_seconds)
        known[topic] = found
        return found

    def excepts(self, topic: str) -> bool:
        """Whether a rule would carry `topic` but for an exception: nobody misses it."""
        return any(match(route.crossing.source_filter, topic) for route in self._routes if route.exceptions)


def may_echo(out: OutMapping, in_: InMapping) -> bool:
    """Whether something that goes up may match what is subscribed to upstream, and so come down again."""
    return any(overlap(up, down) for up in out.remote_filters for down in in_.remote_filters)


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
