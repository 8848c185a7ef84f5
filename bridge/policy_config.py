"""What can be configured of a bridge's policy: its upstreams in full, failover, pacing."""

from __future__ import annotations

from typing import Annotated, Literal

from msgspec import Meta

from edge_broker.config.section import Section


class UpstreamConfig(Section, frozen=True):
    """One of several upstreams, in full. The two `fault_` keys are for drills: leave them out otherwise."""

    url: Annotated[
        str,
        Meta(description="As in `urls`.", examples=['"mqtts://broker.example.com:8883"']),
    ]
    priority: Annotated[
        int,
        Meta(
            ge=0,
            le=65_535,
            description="The lowest counts as long as one of it answers. Of what `mqtts+srv` finds, this is added to the "
            "priority that the record has.",
        ),
    ] = 0
    weight: Annotated[
        int,
        Meta(
            ge=0,
            le=65_535,
            description="Among those of one priority, the share of gateways that go there first. Those with 0 come after "
            "the others, in the order written. SRV records bring their own.",
        ),
    ] = 1
    fault_delay_ms: Annotated[
        int, Meta(ge=0, le=60_000, description="Drill: whatever is sent there leaves so much later.")
    ] = 0
    fault_abort_percent: Annotated[
        float,
        Meta(ge=0, le=100, description="Drill: so many of the connections there fail, as if it were down."),
    ] = 0.0


class FailoverConfig(Section, frozen=True):
    """When an upstream is left for another one, and when the bridge returns. Counts with several upstreams only."""

    min_dwell_seconds: Annotated[
        float,
        Meta(
            ge=0,
            le=86_400,
            description="A connection that works is not left by choice before it has stood for so long.",
        ),
    ] = 60.0
    return_after_seconds: Annotated[
        float,
        Meta(
            ge=0,
            le=7 * 86_400,
            description="Return to an upstream of a better priority once it has answered all test connections for so "
            "long, or up to half of it more; twice as long after each return that did not last, up to 8 times. 0 is never.",
        ),
    ] = 300.0
    probe_interval_seconds: Annotated[
        float,
        Meta(
            ge=0.1,
            le=86_400,
            description="While connected elsewhere, how often a better upstream gets a test connection: TLS, CONNECT, "
            "CONNACK and away, as CLIENT_ID-probe.",
        ),
    ] = 30.0
    eject_after_failures: Annotated[
        int,
        Meta(
            ge=0,
            le=1_000,
            description="An upstream that failed so often in a row is left alone for a while, unless all do; 0 is never.",
        ),
    ] = 3
    eject_slow_factor: Annotated[
        float,
        Meta(
            ge=0,
            le=1_000,
            description="Likewise one whose answers take so many times as long as those of the quickest other one; 0 is "
            "never.",
        ),
    ] = 5.0
    eject_slow_ms: Annotated[
        int, Meta(ge=0, le=3_600_000, description="Answers quicker than this are never called slow.")
    ] = 500
    eject_seconds: Annotated[
        float,
        Meta(
            ge=0.1,
            le=86_400,
            description="For so long it is left alone, longer by as much each time, up to 10 times.",
        ),
    ] = 60.0


class PacingConfig(Section, frozen=True):
    """How fast messages go up, and how many bytes a month may take. Without any of it: as fast as the line takes them."""

    messages_per_second: Annotated[
        float, Meta(ge=0, le=1_000_000, description="Messages that come while connected; 0 is no limit.")
    ] = 0.0
    bytes_per_second: Annotated[
        float, Meta(ge=0, le=1e9, description="Bytes of their packets; 0 is no limit.")
    ] = 0.0
    drain_messages_per_second: Annotated[
        float,
        Meta(
            ge=0,
            le=1_000_000,
            description="Messages that were waiting when the connection stood; 0 is no limit.",
        ),
    ] = 0.0
    drain_bytes_per_second: Annotated[
        float, Meta(ge=0, le=1e9, description="Bytes of their packets; 0 is no limit.")
    ] = 0.0
    burst_seconds: Annotated[
        float,
        Meta(
            ge=0.01,
            le=3_600,
            description="What was not used of a rate for so long may go out in one burst.",
        ),
    ] = 1.0
    monthly_bytes: Annotated[
        int,
        Meta(
            ge=0,
            le=1 << 50,
            description="What a month may take on the socket, both directions, TLS included; 0 is no limit.",
        ),
    ] = 0
    month_starts_on: Annotated[
        int, Meta(ge=1, le=28, description="The day on which the month begins, UTC.")
    ] = 1
    when_month_is_spent: Annotated[
        Literal["stop", "drop", "only_priority"],
        Meta(
            description="`stop`: disconnect and keep everything for the next month. `drop`: stay connected, for commands, "
            'and drop what would go up. `only_priority`: send what goes by rules with `priority = "high"`, drop the '
            "rest. What is dropped is counted (`allowance`).",
        ),
    ] = "stop"
