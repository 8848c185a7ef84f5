"""`[audit]`: whether there is an audit log, and what it may take of the disk."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

from msgspec import Meta

from edge_broker.config.section import GIBIBYTE, Section


class AuditConfig(Section, frozen=True):
    """Who came, who was refused, what was denied, what was changed: a file of JSON lines. See [Security](security.md)."""

    file: Annotated[
        Path | None,
        Meta(
            description="The file, in a folder that the broker may write to; without it there is no audit log. Some 300 "
            "bytes for each client that comes, and as many when it goes; nothing per message.",
            examples=['"/var/lib/edge-broker/audit.log"'],
        ),
    ] = None
    max_bytes: Annotated[
        int,
        Meta(
            ge=65_536,
            le=GIBIBYTE,
            description="A file that is full is moved aside, to `FILE.1`, and so on.",
        ),
    ] = 4_194_304
    files: Annotated[
        int,
        Meta(ge=1, le=1_000, description="So many are kept, the one that is written among them."),
    ] = 5
