"""What carries a bridge's messages up: made at its start from what the rules want and what the store kept.

A bridge whose rules have one priority is one queue and one forwarder. Another priority makes lanes of it, for good: the
queue of a priority that no rule has any more is kept, and drains.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import TYPE_CHECKING, NamedTuple

from bridge.config import BridgeConfig
from bridge.forwarder import Forwarder
from bridge.lane import Lane
from bridge.lane_record import LaneRecord, has_lost_one, lanes_wanted, read_record
from bridge.lanes import Lanes
from bridge.mapping import OutMapping
from bridge.marking import find_lane
from bridge.priorities import NORMAL, store_name
from edge_broker.core.queue import Queue

if TYPE_CHECKING:
    from edge_broker.core.ops import Snapshot
    from edge_broker.core.pending import Pending
    from edge_broker.core.router import Router


class WayUp(NamedTuple):
    """`queues`, `forwarders` and `names`, which stand in origins, by priority. `uplink`: what the connection sees.

    `is_new`: the store knew nothing of this bridge. `is_fresh`: of a queue it did not, so what the upstream remembers of
    its identifiers means nothing.
    """

    queues: dict[int, Queue]
    forwarders: dict[int, Forwarder]
    names: dict[int, str]
    uplink: Forwarder | Lanes
    is_new: bool
    is_fresh: bool


def make_way_up(
    config: BridgeConfig,
    mapping: OutMapping,
    router: Router,
    snapshot: Snapshot,
    random: Callable[[], float],
    on_given_up: Callable[[str, str], None],
) -> WayUp:
    """Take over the queues that the store has, make the others, and somebody who sends what is in them."""
    name, pending = config.name, router.pending
    record = read_record(name, snapshot)
    is_new = name not in snapshot.outboxes
    is_fresh = is_new or has_lost_one(name, record, snapshot)
    others = lanes_wanted(name, mapping.priorities, snapshot)
    queues: dict[int, Queue] = {}
    names: dict[int, str] = {}
    for priority in (NORMAL, *sorted(others)):
        stored_as = store_name(name, priority)
        queue = queues[priority] = router.outbox_queue(snapshot, stored_as)
        queue.max_age_seconds = config.max_queue_age_seconds
        names[priority] = find_lane(stored_as, queue.queue_id, snapshot, pending, random)
    if not others:
        forwarder = Forwarder(
            queues[NORMAL],
            mapping,
            router,
            config.window,
            config.puback_timeout_seconds,
            on_given_up,
            config.pacing,
        )
        return WayUp(queues, {NORMAL: forwarder}, names, forwarder, is_new, is_fresh)
    part = names[NORMAL].removeprefix(f"{name}-")
    keep_word = partial(_keep_word, queues[NORMAL], name, LaneRecord(part, others), pending)
    is_shared = record.made is not None
    if is_shared and record.made != others:
        keep_word(_nothing_more)
    lanes = {
        priority: Lane(priority, queue, mapping, router, config, on_given_up)
        for priority, queue in queues.items()
    }
    uplink = Lanes(tuple(lanes.values()), config.window, None if is_shared else keep_word)
    return WayUp(queues, {**lanes}, names, uplink, is_new, is_fresh)


def _keep_word(
    queue: Queue, name: str, record: LaneRecord, pending: Pending, done: Callable[[], None]
) -> None:
    """Have the store say `record` of the bridge `name`, then call `done`."""
    pending.batch.outboxes.append((queue.queue_id, f"{name}/{record}"))
    pending.after_commit(done)


def _nothing_more() -> None:
    """Nobody waits for it."""
