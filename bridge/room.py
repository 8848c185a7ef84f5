"""What the lanes of one bridge hold together, as its quota sees it: one sum, and an order in which they give way.

Where the oldest is dropped, that of the least lane goes first: `low`, then `normal`, then `high`; and never of a lane above
the one that the room is for.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING

from bridge.priorities import EXPENDABLE
from edge_broker.core.queue import Queue

if TYPE_CHECKING:
    from edge_broker.core.pending import Pending


class LaneRoom:
    """As `core.quota.Holder`: the `queues` by priority, as that of `priority` has them."""

    __slots__ = ("_all", "_before", "_own")

    def __init__(self, queues: Mapping[int, Queue], priority: int) -> None:
        self._all = tuple(queues.values())
        self._own = queues[priority]
        order = EXPENDABLE[: EXPENDABLE.index(priority) + 1]
        self._before = tuple(queues[one] for one in order if one in queues)

    @property
    def depth(self) -> int:
        """Messages in all of them."""
        return sum(queue.depth for queue in self._all)

    @property
    def packet_bytes(self) -> int:
        """Their packets."""
        return sum(queue.packet_bytes for queue in self._all)

    @property
    def pending(self) -> Pending | None:
        """None where they are in memory only."""
        return self._own.pending

    def may_drop(self, number: int) -> bool:
        """Whether `number`, of its own queue, waits and was not sent."""
        return self._own.may_drop(number)

    def drop(self, number: int) -> bool:
        """Drop `number` of its own queue; False if it may not be."""
        return self._own.drop(number)

    def drop_oldest(self) -> bool:
        """Drop the oldest that may be, of the least lane that has one; False if none has."""
        return any(queue.drop_oldest() for queue in self._before)
