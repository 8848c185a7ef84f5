"""`[dead_letters]`: what becomes of messages that their recipients will not get."""

from __future__ import annotations

from typing import Annotated

from msgspec import Meta

from edge_broker.config.section import DAY_SECONDS, GIBIBYTE, Section


class DeadLettersConfig(Section, frozen=True):
    """Messages that expired in a queue, gave way at a limit, killed their subscriber or were refused upstream."""

    enabled: Annotated[
        bool,
        Meta(description="Keep them, for `edge-broker dead-letters` and for whoever subscribes to them."),
    ] = False
    max_messages: Annotated[
        int, Meta(ge=0, le=10_000_000, description="So many are kept, the latest; 0 is no limit.")
    ] = 10_000
    max_bytes: Annotated[
        int,
        Meta(ge=0, le=1024 * GIBIBYTE, description="Bytes of their packets; 0 is no limit but the disk's."),
    ] = 16 << 20
    max_age_seconds: Annotated[
        int,
        Meta(ge=0, le=3650 * DAY_SECONDS, description="For so long they are kept; 0 is however long."),
    ] = 30 * DAY_SECONDS
