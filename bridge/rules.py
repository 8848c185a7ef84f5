"""One rule of a bridge, as it is configured: which topics cross, what they are called there, what becomes of the messages.

A rule names its topics by `filter`, which both sides see behind a prefix of their own, as in mosquitto's bridges; or by
two templates, `from` the side where a message comes from, `to` the other (see `bridge.templates`). Every other key is
off by default, and costs nothing then.
"""

from __future__ import annotations

from typing import Annotated, Final, Literal

import msgspec
from msgspec import Meta

from bridge.templates import GATEWAY, Source, check_filter, parse_source, parse_target, same_filter
from edge_broker.config.section import DAY_SECONDS, Section
from edge_broker.errors import ConfigError, MqttError
from edge_broker.wire.topics import SHARE_PREFIX, check_topic_filter

LATE_AFTER_SECONDS: Final = 60.0


class RuleConfig(Section, frozen=True):
    """Which topics cross, and what they are called on the other side."""

    filter: Annotated[
        str | None,
        Meta(
            description="The topics that cross, without their prefixes. This, or `from` and `to`.",
            examples=['"sensors/#"'],
        ),
    ] = None
    local_prefix: Annotated[
        str, Meta(description="What stands before the filter here; `{gateway}` is this gateway's name.")
    ] = ""
    remote_prefix: Annotated[str, Meta(description="What stands before the filter upstream, likewise.")] = ""
    from_: Annotated[
        str | None,
        Meta(
            description="The topics that cross as they are called where they come from (`out`: here, `in`: upstream). "
            "`+room` captures a level, `#rest` the rest.",
            examples=['"site/+room/+sensor"'],
        ),
    ] = msgspec.field(default=None, name="from")
    to: Annotated[
        str | None,
        Meta(
            description="What they are called on the other side: `{room}` is what `+room` captured.",
            examples=['"plants/7/{room}/{sensor}"'],
        ),
    ] = None
    except_: Annotated[
        tuple[Annotated[str, Meta(examples=['"site/+/debug/#"'])], ...],
        Meta(
            description="Filters of topics that this rule leaves to the rules after it, as they are called where they "
            "come from."
        ),
    ] = msgspec.field(default=(), name="except")
    qos: Annotated[
        int,
        Meta(
            ge=0,
            le=2,
            description="`out`: the QoS at which a message goes up, whatever its sender used, so that what cheap sensors "
            "publish at QoS 0 is kept too; 0 is live only. `in`: at most this.",
        ),
    ] = 1
    characters: Annotated[
        dict[str, str],
        Meta(
            description="Characters that the upstream cannot have in topics, and what stands for them there. `in`: put "
            "back where only one character becomes that.",
            examples=['{ "." = "_" }'],
            extra={"default": "none"},
        ),
    ] = msgspec.field(default_factory=dict)
    retain: Annotated[
        Literal["keep", "clear"],
        Meta(description="`clear`: what is retained on the one side is an ordinary message on the other."),
    ] = "keep"
    expiry_seconds: Annotated[
        int,
        Meta(
            ge=0,
            le=4_294_967_295,
            description="Messages expire at latest this long after they came, wherever they are then; 0 is never.",
        ),
    ] = 0
    payload: Annotated[
        Literal["keep", "json_to_cbor", "cbor_to_json"],
        Meta(description="How the payload is written anew on its way."),
    ] = "keep"
    unreadable: Annotated[
        Literal["keep", "drop"],
        Meta(
            description="What becomes of a message whose payload cannot be written anew: it goes as it is, or is dropped "
            "and counted (`not_transformed`)."
        ),
    ] = "keep"
    trace_rate: Annotated[
        float | None,
        Meta(
            description="`out`: the part of messages without a `traceparent` that get one, 0 to 1.",
            extra={"default": "tracing.sample_rate"},
        ),
    ] = None
    max_age_seconds: Annotated[
        float,
        Meta(
            ge=0,
            le=3650 * DAY_SECONDS,
            description="`out`: a message that has waited for longer is not sent any more, but counted (`too_old`); 0 is "
            "however long.",
        ),
    ] = 0.0
    keep_latest: Annotated[
        bool,
        Meta(
            description="`out`: of what waits, only the latest message of each topic is sent; the others are counted "
            "(`superseded`).",
        ),
    ] = False
    envelope: Annotated[
        bool,
        Meta(
            description="`out`: with `envelopes.enabled`, whether its messages share packets with others. `false`: each "
            "goes plain and at once."
        ),
    ] = True
    ingested: Annotated[
        bool,
        Meta(
            description="`out`: an ingester listens there. Towards MQTT 3.1.1 each message goes in an envelope then, by "
            "itself if need be, with its origin and its properties."
        ),
    ] = False
    priority: Annotated[
        Literal["high", "normal", "low"],
        Meta(
            description="`out`: of what waits, `high` goes before `normal`, `low` behind it; each is a queue of its own. "
            "What is `high` waits neither for the drain's pace nor for others in an envelope, and goes on when the month's "
            "bytes are spent, see `pacing`."
        ),
    ] = "normal"

    when_late: Annotated[
        Literal["mark", "drop", "pass"],
        Meta(
            description="`in`: what becomes of a message that waited upstream while the bridge was away: it gets the user "
            "property `edge-late`, or is dropped and counted (`late`), or comes as any other."
        ),
    ] = "mark"
    late_after_seconds: Annotated[
        float,
        Meta(
            ge=0,
            le=3650 * DAY_SECONDS,
            description="`in`: only after an absence from that upstream of at least so long is what waited there late.",
        ),
    ] = LATE_AFTER_SECONDS

    def __post_init__(self) -> None:
        if self.from_ is not None or self.to is not None:
            self._check_templates()
        else:
            self._check_prefixes()
        for topic_filter in self.except_:
            check_filter(topic_filter, "except")
        self._check_characters()
        if self.trace_rate is not None and not 0 <= self.trace_rate <= 1:
            raise ConfigError("trace_rate", f"{self.trace_rate:g} is out of range", "a number from 0 to 1")

    def _check_templates(self) -> None:
        others = {
            "filter": self.filter,
            "local_prefix": self.local_prefix,
            "remote_prefix": self.remote_prefix,
        }
        for key, value in others.items():
            if value:
                raise ConfigError(
                    key, "does not go together with from and to", "write the whole topics in from and to"
                )
        if self.from_ is None:
            raise ConfigError("from", "is missing, and to needs it", 'for instance from = "site/+room/#rest"')
        if self.to is None:
            raise ConfigError("to", "is missing, and from needs it", 'for instance to = "plants/7/{room}"')
        parse_target(self.to, parse_source(self.from_, "from"), "to")

    def _check_prefixes(self) -> None:
        if self.filter is None:
            raise ConfigError("filter", "is missing", 'write filter = "sensors/#", or from and to')
        for key, prefix in (("local_prefix", self.local_prefix), ("remote_prefix", self.remote_prefix)):
            if "+" in prefix or "#" in prefix or "\0" in prefix:
                raise ConfigError(key, "may not have wildcards", "wildcards belong in filter")
            if prefix.startswith(SHARE_PREFIX):
                raise ConfigError(key, "may not be a shared subscription", "leave $share/… out")
        if self.filter.startswith(SHARE_PREFIX):
            raise ConfigError("filter", "may not be a shared subscription", "leave $share/… out")
        for side, prefix in (("here", self.local_prefix), ("upstream", self.remote_prefix)):
            whole = prefix + self.filter
            try:
                check_topic_filter(whole)
            except MqttError as error:
                hint = "end the prefix with /" if "whole" in error.detail and whole != self.filter else ""
                raise ConfigError(
                    "filter", f"{whole!r} ({side}) is no filter: {error.detail}", hint
                ) from None

    def _check_characters(self) -> None:
        for character, other in self.characters.items():
            if len(character) != 1 or character in "/+#\0":
                raise ConfigError(
                    "characters", f"{character!r} is not one character of a topic level", '{ "." = "_" }'
                )
            if any(sign in "/+#\0" for sign in other) or other in self.characters:
                raise ConfigError(
                    "characters",
                    f"{character!r} may not become {other!r}",
                    "something without /, + and #, that is not replaced itself",
                )

    # ---- the two directions

    def up(self) -> tuple[Source, tuple[str | int, ...]]:
        """The topics here, and what they become upstream."""
        if self.from_ is None or self.to is None:
            return same_filter(self.local_prefix, self.remote_prefix, self.filter or "")
        source = parse_source(self.from_, "from")
        return source, parse_target(self.to, source, "to")

    def down(self) -> tuple[Source, tuple[str | int, ...]]:
        """The topics upstream, and what they become here."""
        if self.from_ is None or self.to is None:
            return same_filter(self.remote_prefix, self.local_prefix, self.filter or "")
        return self.up()

    @property
    def sides_up(self) -> tuple[str, str]:
        """What matches here, and what becomes of it upstream, as somebody would write it."""
        if self.from_ is None or self.to is None:
            return self.local_prefix + (self.filter or ""), self.remote_prefix + (self.filter or "")
        return self.from_, self.to

    @property
    def sides_down(self) -> tuple[str, str]:
        """What matches upstream, and what becomes of it here."""
        return self.sides_up if self.from_ is not None else (self.sides_up[1], self.sides_up[0])

    @property
    def names_gateway(self) -> bool:
        """Whether `{gateway}` is in it."""
        texts = (self.local_prefix, self.remote_prefix, self.from_, self.to, *self.except_)
        return any(text is not None and GATEWAY in text for text in texts)
