"""The durable queues of a broker: those of sessions, and the outboxes that are no session's.

Each has an identifier that no queue in the store has had before. Where all of them together are limited, each is of a kind
that is counted, and whatever would take their quota has the sum in it. Nothing is routed here and nothing is dropped.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from edge_broker.core.queue import Queue
from edge_broker.core.quota import Quota
from edge_broker.core.totals import CountedQueue, Totals

if TYPE_CHECKING:
    from edge_broker.core.ops import Snapshot
    from edge_broker.core.pending import Pending
    from edge_broker.core.settings import Settings


class DurableQueues:
    """The router's first floor. `totals`: the sum of all durable queues, None where that is not limited."""

    __slots__ = ("__dict__", "_next_queue_id", "_outboxes", "pending", "quota", "settings", "totals")

    def __init__(self, settings: Settings, pending: Pending, next_queue_id: int) -> None:
        self.settings = settings
        self.pending = pending
        self._next_queue_id = next_queue_id
        self._outboxes: list[Queue] = []  # durable queues that are no session's
        self.totals: Totals | None = None
        if settings.max_store_messages or settings.max_store_bytes:
            self.totals = pending.totals = Totals(settings.max_store_messages, settings.max_store_bytes)
        self.quota = self.make_quota(
            settings.max_queue_messages, settings.max_queue_bytes, settings.when_queue_full
        )

    def make_quota(self, max_messages: int, max_bytes: int, when_full: str) -> Quota:
        """The limits of one kind of durable queues; 0 is none but that of all queues together."""
        return Quota(max_messages, max_bytes, when_full, self.totals, self.settings.max_packet_bytes)

    def new_queue_id(self) -> int:
        """An identifier that no queue in the store has had."""
        self._next_queue_id += 1
        return self._next_queue_id - 1

    def _new_queue(self) -> Queue:
        kind = Queue if self.totals is None else CountedQueue
        return kind(self.new_queue_id(), self.pending)

    def new_outbox(self, name: str) -> Queue:
        """A durable queue that is no session's, of which the store does not know yet."""
        queue = self._new_queue()
        self.pending.batch.outboxes.append((queue.queue_id, name))
        self._outboxes.append(queue)
        return queue

    def outbox_queue(self, snapshot: Snapshot, name: str) -> Queue:
        """The durable queue of the bridge `name`: the one in the store, or a new one."""
        queue_id = snapshot.outboxes.get(name)
        if queue_id is None:
            return self.new_outbox(name)
        queue = self.restore_queue(snapshot, queue_id)
        self._outboxes.append(queue)
        return queue

    def restore_queue(self, snapshot: Snapshot, queue_id: int) -> Queue:
        """The queue as the store has it, or an empty one where nothing of it was ever written."""
        state = snapshot.queues.get(queue_id)
        kind = Queue if self.totals is None else CountedQueue
        return kind(queue_id, self.pending) if state is None else kind.restore(state, self.pending)
