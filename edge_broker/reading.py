"""Pages of queues and of retained messages: read from the store for whoever asked, while everything else goes on.

Where the store cannot read, nobody is told that something is lost: whoever asked asks again a little later.
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Callable
from typing import TYPE_CHECKING, Final

from edge_broker.core.ops import Lookup
from edge_broker.core.router import Router
from edge_broker.core.stored_queue import StoredQueue
from edge_broker.errors import StoreError
from edge_broker.store import Store

if TYPE_CHECKING:
    from edge_broker.core.retained_pages import RetainedPages

log: Final = logging.getLogger("edge_broker.broker")

_PAGE_MESSAGES: Final = 1000


class Reading:
    """The reads of one broker. `under_way`: the tasks of now; `errors`: reads that failed."""

    def __init__(self, router: Router, store: Store, request_tick: Callable[[], None]) -> None:
        self._router = router
        self._store = store
        self._request_tick = request_tick
        self.under_way: set[asyncio.Task[None]] = set()
        self.errors = 0

    def cancel(self) -> None:
        """Answer nobody any more."""
        for read in self.under_way:
            read.cancel()

    def start(self) -> None:
        """Begin what queues and new subscribers want by now."""
        pending = self._router.pending
        queues, pending.reads = pending.reads, []
        lookups, pending.lookups = pending.lookups, []
        deliveries, pending.retained_reads = pending.retained_reads, []
        for read in [
            *map(self._read_queue, queues),
            *map(self._look_up, lookups),
            *map(self._read_retained, deliveries),
        ]:
            task = asyncio.get_running_loop().create_task(read)
            self.under_way.add(task)
            task.add_done_callback(self.under_way.discard)

    async def _read_queue(self, queue: StoredQueue) -> None:
        """Answer one `want_page`; where the store cannot, the queue asks again a little later."""
        if queue.reading is None:
            return
        try:
            page = await self._store.read_page(
                queue.queue_id, queue.reading[0], _PAGE_MESSAGES, self._router.pending.window_bytes
            )
        except StoreError as error:
            self.errors += 1
            log.debug("a queue could not be read, it is tried again: %s", error)  # the store has told it
            queue.take_page(None)
            await asyncio.sleep(self._store.read_retry_seconds)
            page = None
            if queue.owner is not None:
                queue.owner.pump()
        else:
            self._router.now = time.monotonic()
            queue.take_page(page)
        self._request_tick()

    async def _look_up(self, lookup: Lookup) -> None:
        """Answer one `Lookup`; where the store cannot, a little later."""
        page = None
        try:
            page = await self._store.read_page(
                lookup.queue_id,
                lookup.from_number,
                lookup.max_messages,
                self._router.pending.window_bytes,
            )
        except StoreError as error:
            self.errors += 1
            log.debug("a queue could not be read, it is tried again: %s", error)  # the store has told it
            await asyncio.sleep(self._store.read_retry_seconds)
        self._router.now = time.monotonic()
        lookup.take(page)
        self._request_tick()

    async def _read_retained(self, pages: RetainedPages) -> None:
        """Answer those who want retained messages; where the store cannot, they ask again a little later."""
        topics = pages.wanted
        if not topics:
            return
        try:
            messages = await self._store.read_retained(topics)
        except StoreError as error:
            self.errors += 1
            log.debug("retained messages could not be read, it is tried again: %s", error)
            await asyncio.sleep(self._store.read_retry_seconds)
            pages.take(None)
        else:
            self._router.now = time.monotonic()
            pages.take(messages)
        self._request_tick()
