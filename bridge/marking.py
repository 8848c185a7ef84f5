"""Who a bridge is to the messages that cross it: makes, at its start, what writes their origin and looks at their hops.

The lane has a random part, which the store keeps with the outbox's name: an outbox that is new counts from 1 again, and may
not look like the one that was lost. What is committed of it is committed with that part or after it; what was sent before
went with a message that the crash lost too.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, NamedTuple

from bridge.config import BridgeConfig
from bridge.hops import HopLimit, bridge_name
from bridge.origin import OriginWriter
from bridge.stamps import Stamp

if TYPE_CHECKING:
    from edge_broker.core.ops import Snapshot
    from edge_broker.core.pending import Pending


class Marks(NamedTuple):
    """`up` goes to the forwarder, `down` to the downlink, `limit` to both ends; None where nothing is to be done.

    `others`: as `up`, for the forwarders of other lanes.
    """

    up: Stamp | None
    down: Stamp | None
    limit: HopLimit | None
    others: tuple[Stamp | None, ...] = ()


def find_lane(
    name: str, queue_id: int, snapshot: Snapshot, pending: Pending, random: Callable[[], float]
) -> str:
    """The lane of the outbox `name`; one that has none yet gets it, on the disk with the next commit."""
    part = snapshot.lanes.get(name, "").partition("/")[0]  # behind it: `bridge.lane_record`
    if not part:
        part = f"{int(random() * (1 << 32)):08x}"
        pending.batch.outboxes.append((queue_id, f"{name}/{part}"))
        pending.urgent = True
    return f"{name}-{part}"


def make_marks(config: BridgeConfig, lane: str, epoch: int, others: Sequence[str] = ()) -> Marks:
    """What is configured to be marked. `epoch`: this run's; `others`: lanes of the same bridge beside `lane`."""
    limit = None
    if config.max_hops:
        names = [bridge_name(config.gateway, one) for one in (lane, *others)]
        limit = HopLimit(names[0], config.max_hops, names[1:])
    if not config.origin and limit is None:
        return Marks(None, None, None, (None,) * len(others))
    up, *more = [
        Stamp(OriginWriter(config.gateway, one) if config.origin else None, limit, epoch)
        for one in (lane, *others)
    ]
    return Marks(up, None if limit is None else up, limit, tuple(more))
