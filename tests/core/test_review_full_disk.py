"""What is committed to make room on a full disk is not taken back by the batch that waited for the room."""

from __future__ import annotations

from edge_broker.core.message import build_message
from edge_broker.core.ops import Batch
from edge_broker.core.pending import Pending
from edge_broker.core.queue import Queue
from edge_broker.errors import StoreError
from edge_broker.store.journal import Journal
from edge_broker.store.writer import needs_room
from tests.pump.model_store import ModelStore


class FullStore:
    """A disk without room: it takes acknowledgements alone, until `room` is made. It sees a head that moves back."""

    def __init__(self) -> None:
        self.model = ModelStore()
        self.full = False
        self.room = True
        self.heads: list[int] = []
        self.on_refusal = lambda: None

    async def commit(self, batch: Batch) -> None:
        if not self.room and needs_room(batch):
            self.full = True
            self.on_refusal()
            raise StoreError("commit", "no room", "make some")
        self.model.apply(batch)
        self.heads += [write.head for write in batch.queues]
        self.full = False
        if len(self.heads) > 1:
            self.room = True


async def test_heads_never_move_back() -> None:
    store, pending = FullStore(), Pending(1, 1 << 20)
    journal = Journal(
        store,
        pending,
        commit_delay_seconds=0,
        early_messages=1000,
        early_bytes=1 << 20,
        after_settle=lambda: None,
        jitter=lambda: 0.0,
    )
    queue = Queue(1, pending)
    queue.rewind()
    for number in range(10):
        queue.append(build_message("t", b"%d" % number, qos=1))
    await journal.flush()
    while queue.next_to_send(0.0):
        pass
    assert store.heads == [1]
    store.room = False

    def subscriber_acknowledges() -> None:
        for number in (1, 2, 3, 5, 9):
            queue.complete(number)

    store.on_refusal = subscriber_acknowledges
    queue.complete(7)
    queue.append(build_message("t", b"last", qos=1))
    await journal.flush()
    assert store.heads == sorted(store.heads) == [1, 4, 4, 4]
    kept = store.model.queues[1]
    assert (kept.head, kept.acknowledged, kept.waiting) == (4, [5, 7, 9], {4, 6, 8, 10, 11})
    await journal.close()
