"""Who a bridge is to the messages that cross it: makes, at its start, what writes their origin and looks at their hops.

The lane has a random part, which the store keeps with the outbox's name: an outbox that is new counts from 1 again, and may
not look like the one that was lost. What is committed of it is committed with that part or after it; what was sent before
went with a message that the crash lost too.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, NamedTuple

from bridge.config import BridgeConfig
from bridge.hops import HopLimit, bridge_name
from bridge.origin import OriginWriter
from bridge.stamps import Stamp

if TYPE_CHECKING:
    from edge_broker.core.ops import Snapshot
    from edge_broker.core.pending import Pending


class Marks(NamedTuple):
    """`up` goes to the forwarder, `down` to the downlink, `limit` to both ends; None where nothing is to be done."""

    up: Stamp | None
    down: Stamp | None
    limit: HopLimit | None


def find_lane(
    name: str, queue_id: int, snapshot: Snapshot, pending: Pending, random: Callable[[], float]
) -> str:
    """The lane of the outbox `name`; one that has none yet gets it, on the disk with the next commit."""
    part = snapshot.lanes.get(name)
    if part is None:
        part = f"{int(random() * (1 << 32)):08x}"
        pending.batch.outboxes.append((queue_id, f"{name}/{part}"))
        pending.urgent = True
    return f"{name}-{part}"


def make_marks(config: BridgeConfig, lane: str, epoch: int) -> Marks:
    """What is configured to be marked. `epoch`: this run's."""
    writer = OriginWriter(config.gateway, lane) if config.origin else None
    limit = HopLimit(bridge_name(config.gateway, lane), config.max_hops) if config.max_hops else None
    stamp = None if writer is None and limit is None else Stamp(writer, limit, epoch)
    return Marks(stamp, None if limit is None else stamp, limit)
