"""What `edge-broker store verify` says of a store between a fault and the next start."""

from __future__ import annotations

from pathlib import Path

from edge_broker.errors import StoreError
from edge_broker.store import DATABASE_NAME
from edge_broker.store.verification import verify


def problems_in(data_dir: Path) -> list[str]:
    """Everything that is wrong; nothing where the fault came before there was a store."""
    if not (data_dir / DATABASE_NAME).exists():
        return []
    try:
        found = verify(data_dir)
    except StoreError as error:
        return [str(error)]
    return [] if found.sound else list(found.lines())
