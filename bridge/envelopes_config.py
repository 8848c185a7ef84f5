"""What can be configured of a bridge's envelopes."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

from msgspec import Meta

from edge_broker.config.section import Section
from edge_broker.errors import ConfigError, MqttError
from edge_broker.wire.topics import check_topic_name

MOST_BYTES = (1 << 20) - 4096
"""What an ingester takes by default, with room for names and whatever compression cannot make smaller."""


class EnvelopesConfig(Section, frozen=True):
    """Many messages in one packet, towards an upstream beside which an ingester runs."""

    enabled: Annotated[
        bool, Meta(description="Send messages in envelopes while an ingester announces itself upstream.")
    ] = False
    max_messages: Annotated[
        int,
        Meta(ge=1, le=20_000, description="Messages in an envelope at most; the ingester's limit is 20,000."),
    ] = 1_000
    max_bytes: Annotated[
        int,
        Meta(
            ge=1_024,
            le=MOST_BYTES,
            description="Bytes in it at most, before compression; a message larger than that goes by itself.",
        ),
    ] = 256 << 10
    delay_ms: Annotated[
        int,
        Meta(
            ge=0,
            le=60_000,
            description="How long the first message in it waits for others. 0: for those of the same moment only, as with "
            '`priority = "high"` in any case.',
        ),
    ] = 1_000
    level: Annotated[
        int,
        Meta(
            ge=1,
            le=19,
            description="zstd's: higher is smaller and slower. 9 saves some 10 % for twice the time.",
        ),
    ] = 3
    dictionary: Annotated[
        Path | None,
        Meta(
            description="A dictionary of zstd, trained on messages like these. The ingester must have it too: without it "
            "there, nothing goes in envelopes."
        ),
    ] = None
    lease_topic: Annotated[
        str, Meta(description="Where the ingester announces itself, as its `lease.topic`.")
    ] = "edge/ingest/lease"
    topic_prefix: Annotated[
        str,
        Meta(
            description="Envelopes go to PREFIX/GATEWAY/envelopes, as the ingester's `topics.envelopes` has it."
        ),
    ] = "edge"

    def __post_init__(self) -> None:
        for key, topic in (("lease_topic", self.lease_topic), ("topic_prefix", self.topic_prefix)):
            try:
                check_topic_name(topic)
            except MqttError as error:
                raise ConfigError(
                    key, f"{topic!r} is no topic: {error.detail}", 'for instance "edge"'
                ) from None
