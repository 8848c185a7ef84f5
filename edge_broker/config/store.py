"""`[store]`: what is written to disk, when, how much of it, and whether it is encrypted there."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Literal

from msgspec import Meta

from edge_broker.config.section import GIBIBYTE, Section


class DurabilityConfig(Section, frozen=True):
    """Messages of some topics are kept otherwise than the others."""

    filter: Annotated[str, Meta(description="The topic filter.", examples=['"debug/#"'])]
    durability: Annotated[
        Literal["disk", "memory"], Meta(description="How messages of topics that it matches are kept.")
    ] = "memory"


class StoreConfig(Section, frozen=True):
    """When what was received is written to disk. Nothing is acknowledged before it is."""

    durability: Annotated[
        Literal["disk", "memory"],
        Meta(
            description="`disk`: messages for sessions that outlive their connections, and for bridges, are acknowledged "
            "when they are on disk. `memory`: they stay in memory and are acknowledged at once; a restart loses them.",
        ),
    ] = "disk"
    topics: Annotated[
        tuple[DurabilityConfig, ...],
        Meta(description="Other durabilities for some topics; the first filter that matches counts."),
    ] = ()

    max_messages: Annotated[
        int,
        Meta(
            ge=0,
            le=1_000_000_000,
            description="Messages that may wait in all durable queues together, bridges' and dead letters among them; 0 is "
            "no limit. At the limit `when_queue_full` of the queue that is to get a message decides: the oldest dead "
            "letter, then the oldest message of the queue that holds most gives way; or the new one is not taken.",
        ),
    ] = 0
    max_bytes: Annotated[
        int,
        Meta(ge=0, le=1024 * GIBIBYTE, description="Bytes of their packets, likewise; 0 is no limit."),
    ] = 0
    commit_delay_ms: Annotated[
        int,
        Meta(
            ge=0,
            le=10_000,
            description="How long a message may wait for others to share its write to disk. More spares an SD card and "
            "delays acknowledgements.",
        ),
    ] = 20
    removal_delay_ms: Annotated[
        int,
        Meta(
            ge=0,
            le=600_000,
            description="How long the removal of delivered messages may wait for a commit that is due anyway. Nobody waits "
            "for it; what a crash takes with it is delivered a second time.",
        ),
    ] = 1_000
    write_budget_bytes_per_day: Annotated[
        int,
        Meta(
            ge=0,
            le=1_000_000 * GIBIBYTE,
            description="When a day's writes run ahead of this, `commit_delay_ms` widens, up to `max_commit_delay_ms`; 0 "
            "is no budget.",
        ),
    ] = 0
    max_commit_delay_ms: Annotated[
        int, Meta(ge=0, le=600_000, description="As far as the budget may widen the commit delay.")
    ] = 5_000
    card_endurance_terabytes: Annotated[
        float,
        Meta(
            ge=0,
            le=1_000_000,
            description="What the card's maker says can be written to it (TBW): the metrics then tell how long it lasts. 0 "
            "is not known.",
        ),
    ] = 0.0
    early_commit_messages: Annotated[
        int,
        Meta(ge=1, le=1_000_000, description="This many waiting messages are written without further delay."),
    ] = 64
    early_commit_bytes: Annotated[
        int,
        Meta(ge=1_024, le=GIBIBYTE, description="This many waiting bytes are written without further delay."),
    ] = 65_536
    encryption_key_file: Annotated[
        Path | None,
        Meta(
            description="Messages are encrypted on disk with the key in this file, which is outside of `data_dir`: "
            "`edge-broker store new-key FILE` makes one.",
        ),
    ] = None
    encryption_key_credential: Annotated[
        str,
        Meta(description="The same with the key in the systemd credential of this name (`LoadCredential=`)."),
    ] = ""
    old_encryption_key_files: Annotated[
        tuple[Path, ...],
        Meta(
            description="Keys that what is on disk may still be encrypted with; with these alone, new messages are "
            "written plainly.",
        ),
    ] = ()
