"""How much waits in each queue and since when, under a bounded number of names.

Every queue of a bridge has its own name, so have the sessions that most waits for; all others are one. How long the oldest
message of a queue has waited is in memory, or else in the store: that is read, a few queues per look, and remembered as
long as the message stays the oldest. So looking is cheap however many queues there are, and a queue that stands still,
the one whose age matters, is known after a few looks. A store that hangs delays a look by a second and no more.
"""

from __future__ import annotations

import asyncio
import hashlib
import heapq
import logging
import time
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Final

from edge_broker.core.queue import Queue
from edge_broker.core.session import Session
from edge_broker.errors import StoreError
from edge_broker.ops.observed import Observed, ObservedStore, queue_names

log: Final = logging.getLogger("edge_broker.ops")

NAMED_SESSIONS: Final = 10
READS_PER_LOOK: Final = 20
_PATIENCE_SECONDS: Final = 1.0
_PAGE_BYTES: Final = 4096
_LONGEST_NAME: Final = 100


@dataclass(frozen=True, slots=True)
class Backlog:
    """What waits in one queue, or in several of one name. `oldest_age_seconds`: None where it is not known.

    `dropped`: messages that it let go since the start without its recipient, whatever the reason.
    """

    name: str
    messages: int
    oldest_age_seconds: float | None
    dropped: int = 0


class BacklogView:
    """Looks at the queues of one broker. `close` it before the store is closed."""

    def __init__(self, observed: Observed) -> None:
        self._observed = observed
        self._received_at: dict[int, tuple[int, float]] = {}
        """Of messages in the store, by queue id: the number of the oldest, and when it came."""
        self._corrections = 0
        self._reading: asyncio.Task[None] | None = None
        self._logged = ""

    async def look(self) -> list[Backlog]:
        """All queues: the bridges', those of the sessions that most waits for, and `other`."""
        sessions = [session for session in self._observed.router.sessions.values() if session.queue.depth]
        named = heapq.nsmallest(NAMED_SESSIONS, sessions, key=_deepest_first)
        bridged = {
            name: queue for bridge in self._observed.bridges for name, queue in queue_names(bridge).items()
        }
        first = [*bridged.values(), *(session.queue for session in named)]
        await self._learn(first, [session.queue for session in sessions])
        now = time.monotonic()
        found = [self._backlog(name, [queue], now) for name, queue in bridged.items()]
        found += [self._backlog(_session_name(session.client_id), [session.queue], now) for session in named]
        chosen = set(named)
        everybody = self._observed.router.sessions.values()
        others = [session.queue for session in everybody if session not in chosen]
        found.append(self._backlog("other", others, now))
        return found

    async def close(self) -> None:
        """Stop reading."""
        if self._reading is not None:
            self._reading.cancel()
            await asyncio.wait((self._reading,))

    def _backlog(self, name: str, queues: Iterable[Queue], now: float) -> Backlog:
        messages = dropped = 0
        oldest: float | None = None
        for queue in queues:
            messages += queue.depth
            dropped += queue.dropped + queue.expired + queue.lost
            received_at = self._oldest_received_at(queue)
            if received_at is not None and (oldest is None or received_at < oldest):
                oldest = received_at
        return Backlog(name, messages, _age(messages, oldest, now), dropped)

    def _oldest_received_at(self, queue: Queue) -> float | None:
        """When the oldest message of `queue` came; None where there is none, or it is not known yet."""
        number = _oldest(queue)
        if number is None:
            return None
        message = queue.messages.get(number)
        if message is not None:
            return message.received_at
        known = self._received_at.get(queue.queue_id)
        return known[1] if known is not None and known[0] == number else None

    # ---- what is in the store only

    async def _learn(self, first: list[Queue], queues: list[Queue]) -> None:
        """Have the store read for what is not known, those in `first` before the others, and wait a moment for it."""
        if self._corrections != self._observed.clock.corrections:  # what was read may be older than it seemed
            self._corrections = self._observed.clock.corrections
            self._received_at.clear()
        self._forget_all_but(first + queues)
        if self._reading is None or self._reading.done():
            unknown: dict[int, int] = {}
            for queue in first + queues:
                number = _oldest(queue)
                if (
                    number is not None
                    and self._oldest_received_at(queue) is None
                    and queue.pending is not None
                ):
                    unknown[queue.queue_id] = number
                    if len(unknown) == READS_PER_LOOK:
                        break
            if not unknown:
                return
            self._reading = asyncio.create_task(self._read(unknown), name="ages of queues")
        await asyncio.wait((self._reading,), timeout=_PATIENCE_SECONDS)

    async def _read(self, oldest: dict[int, int]) -> None:
        store: ObservedStore = self._observed.store
        for queue_id, number in oldest.items():
            try:
                page = await store.read_page(queue_id, number, 1, _PAGE_BYTES)
            except StoreError as error:
                if str(error) != self._logged:  # it is tried again with every look
                    self._logged = str(error)
                    log.warning("metrics lack the age of a queue's oldest message: %s", error)
                return
            if page.messages:
                self._received_at[queue_id] = (number, page.messages[0][1].received_at)

    def _forget_all_but(self, queues: list[Queue]) -> None:
        kept = {queue.queue_id for queue in queues}
        self._received_at = {key: value for key, value in self._received_at.items() if key in kept}


def _deepest_first(session: Session) -> tuple[int, str]:
    return -session.queue.depth, session.client_id


def _oldest(queue: Queue) -> int | None:
    """The number of the oldest message that its recipient does not have."""
    released, acknowledged = queue.released, queue.acknowledged
    number = queue.head
    while number < queue.next_number:
        if not (released and number in released) and not (acknowledged and number in acknowledged):
            return number
        number += 1
    return None


def _age(messages: int, oldest_at: float | None, now: float) -> float | None:
    if not messages:
        return 0.0
    return None if oldest_at is None else max(0.0, now - oldest_at)


def _session_name(client_id: str) -> str:
    """`client_id` as a label; a very long one is cut, and stays different from others that begin the same way."""
    if len(client_id) > _LONGEST_NAME:
        digest = hashlib.sha256(client_id.encode("utf-8", "surrogatepass")).hexdigest()[:8]
        client_id = f"{client_id[:_LONGEST_NAME]}~{digest}"
    return f"session:{client_id}"
