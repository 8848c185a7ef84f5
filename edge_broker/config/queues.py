"""How much may wait in a durable queue: the same keys for sessions and for each bridge."""

from __future__ import annotations

from typing import Annotated, Literal

from msgspec import Meta

from edge_broker.config.section import DAY_SECONDS, GIBIBYTE, Section


class QueueLimits(Section, frozen=True):
    """What bounds each durable queue, and what gives way when it is full."""

    max_queue_messages: Annotated[
        int,
        Meta(
            ge=0, le=1_000_000_000, description="Messages that may wait in each durable queue; 0 is no limit."
        ),
    ] = 0
    max_queue_bytes: Annotated[
        int,
        Meta(ge=0, le=1024 * GIBIBYTE, description="Bytes of their packets; 0 is no limit but the disk's."),
    ] = 0
    max_queue_age_seconds: Annotated[
        int,
        Meta(
            ge=0,
            le=3650 * DAY_SECONDS,
            description="Messages that have waited for longer are not sent any more; 0 is however long.",
        ),
    ] = 0
    when_queue_full: Annotated[
        Literal["drop_oldest", "drop_newest", "keep_latest", "reject"],
        Meta(
            description="`drop_oldest`, `drop_newest`; `keep_latest` drops the oldest of the same topic; `reject`: nobody "
            "gets the message, and its publisher is told (MQTT 5: 0x97, quota exceeded) or made to wait (3.1.1). What "
            "was dropped is counted.",
        ),
    ] = "drop_oldest"
