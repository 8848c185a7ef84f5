"""Expired messages leave the queues of those who are away, by themselves, and give their space back.

Only the head of a queue is looked at: messages from the oldest on are freed as long as they have expired. The first that
has not says when to look again; one that never does, holds those behind it until it is sent, however short-lived they are.
Messages of one kind live equally long, and then that is all of them.

What is on disk is read a page at a time, one queue after the other, and no more than `_PAGES` between two sweeps, so a
backlog of any size is never in memory. A queue whose head stays what it was is not read again before something there has
expired: looking costs a comparison a second.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import TYPE_CHECKING, Final

from edge_broker.core.ops import Lookup, Page
from edge_broker.core.queue import Queue

if TYPE_CHECKING:
    from edge_broker.core.message import Message
    from edge_broker.core.pending import Pending
    from edge_broker.core.router import Router

_PAGES: Final = 20
"""Read from one sweep to the next, which come about once a second."""
_PAGE: Final = 1_000
_GLANCE: Final = 1
"""Messages asked for where something has expired, and where that is only to be seen: after a start, of all queues."""


class Upkeep:
    """Frees what has expired. `visit` each queue that nobody takes from, between `begin` and the next one."""

    def __init__(self, router: Router, pending: Pending) -> None:
        self._router = router
        self._pending = pending
        self._queue: Queue | None = None  # whose page is being read
        self._asked = (0, 0)  # its first number, and how much of the queue was committed then
        self._waiting: dict[Queue, int] = {}  # with how many messages they ask for
        self._pages = 0

    def begin(self) -> None:
        """Another second has begun."""
        self._pages = _PAGES
        self._ask()

    def visit(self, queue: Queue, now: float) -> None:
        """Free what has expired at the head of `queue`, if it is time to look."""
        if queue.online or queue.head == queue.next_number:
            return
        is_due = queue.head == queue.looked_head
        if (not is_due or queue.look_at <= now) and queue not in self._waiting:
            self._look(queue, {}, queue.head, now, _PAGE if is_due else _GLANCE)

    def forget(self, queue: Queue) -> None:
        """`queue` has ended."""
        self._waiting.pop(queue, None)
        if self._queue is queue:
            self._queue = None

    def _look(
        self, queue: Queue, page: Mapping[int, Message], page_end: int, now: float, max_messages: int
    ) -> None:
        """Free from the head on; where the store has to be asked, ask it for so many messages."""
        look_at = free_expired(queue, page, page_end, now)
        if look_at is None:
            if queue is not self._queue:
                self._waiting[queue] = max_messages
                self._ask()
        else:
            queue.look_at, queue.looked_head = look_at, queue.head

    def _ask(self) -> None:
        if self._queue is None and self._waiting and self._pages > 0:
            queue = self._queue = next(iter(self._waiting))
            max_messages = self._waiting.pop(queue)
            self._pages -= 1
            self._asked = (queue.head, queue.committed)
            self._pending.lookups.append(Lookup(queue.queue_id, queue.head, self._take, max_messages))

    def _take(self, page: Page | None) -> None:
        """The store's answer, which may be about a queue that has ended, or whose recipient is back."""
        queue, self._queue = self._queue, None
        if queue is not None and page is not None and page.queue_id == queue.queue_id and not queue.online:
            first, committed = self._asked
            end = page.end if page.end > first else committed  # nothing is stored from there on
            self._look(queue, dict(page.messages), end, self._router.now, _PAGE)
        self._ask()


def free_expired(queue: Queue, page: Mapping[int, Message], page_end: int, now: float) -> float | None:
    """Free the expired messages at the head of `queue`, counted as such; when to look again, infinity for not before its
    head is another. None where the next one is on disk and not in `page`, which holds what is stored below `page_end`.
    """
    while queue.head < queue.next_number:
        number = queue.head
        if queue.released and number in queue.released:
            return math.inf
        message = queue.messages.get(number) or page.get(number)
        if message is None:
            if number >= page_end:
                return None
            queue.lost += 1  # it should be there
            queue.take_away(number)
            continue
        if not queue.is_over(number, message, now):
            return _over_at(queue, number, message)
        queue.expire(number, message)
    return math.inf


def _over_at(queue: Queue, number: int, message: Message) -> float:
    """When `message` will have expired."""
    if message.qos == 2 and number < queue.surely_sent_before:
        return math.inf
    times = [] if message.expires_at is None else [message.expires_at]
    if queue.max_age_seconds:
        times.append(message.received_at + queue.max_age_seconds)
    return min(times, default=math.inf)
