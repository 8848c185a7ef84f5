"""What the store says of a bridge's lanes, behind the name of the queue that every bridge has: `NAME/PART/high+low`.

`PART` is the random part of its lane's name (`bridge.marking`). What follows stands there as soon as identifiers are shared
among lanes: which there are. One of these that the store does not have any more was lost, and
what the upstream remembers of its identifiers means nothing.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import TYPE_CHECKING, NamedTuple

from bridge.priorities import HIGH, LOW, NAMES, store_name

if TYPE_CHECKING:
    from edge_broker.core.ops import Snapshot


class LaneRecord(NamedTuple):
    """`made`: the lanes beside `normal` that have been made; None while identifiers are not shared."""

    part: str
    made: frozenset[int] | None

    def __str__(self) -> str:
        if self.made is None:
            return self.part
        return f"{self.part}/{'+'.join(NAMES[priority] for priority in sorted(self.made))}"


def read_record(bridge: str, snapshot: Snapshot) -> LaneRecord:
    """What the store has; nothing, for a bridge that is new."""
    part, separator, names = snapshot.lanes.get(bridge, "").partition("/")
    if not separator:
        return LaneRecord(part, None)
    return LaneRecord(part, frozenset(NAMES.index(name) for name in names.split("+") if name in NAMES))


def lanes_wanted(bridge: str, priorities: Iterable[int], snapshot: Snapshot) -> frozenset[int]:
    """The lanes that a bridge has beside `normal`: those of its rules, and those in which something may wait."""
    stored = {priority for priority in (HIGH, LOW) if store_name(bridge, priority) in snapshot.outboxes}
    return frozenset({*priorities} & {HIGH, LOW} | stored)


def has_lost_one(bridge: str, record: LaneRecord, snapshot: Snapshot) -> bool:
    """Whether a lane was there that the store has lost."""
    return any(store_name(bridge, priority) not in snapshot.outboxes for priority in record.made or ())
