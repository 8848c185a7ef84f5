"""The group commit: when what waits is written, one batch after another, and what happens when the disk says no.

A batch gathers until somebody has waited for the commit delay, or until there is enough of it, or somebody waits for more
than a message's acknowledgement. For a message that all its recipients acknowledged meanwhile nobody waits: while they
are quicker than the delay, nothing is written at all. What is acknowledged of messages on the disk gathers for longer:
lost in a crash it means a message twice, and the disk is spared.

One commit is in progress at a time; the next batch gathers meanwhile and follows at once if it is due by then, so a slow
disk makes batches larger, not a queue of commits.

When a commit fails nothing is settled, so nothing is acknowledged; the same batch is tried again until it is on the
disk, and `healthy` and `problem` say so meanwhile. Batches are never reordered, merged or given up while the journal is
open. Only where the disk is full do acknowledgements overtake: those of messages that are on the disk are committed by
themselves, because they are what makes room again.

It runs on the event loop's thread, and creates one task for a run of commits, none per message.
"""

from __future__ import annotations

import asyncio
import logging
import random
import time
from bisect import bisect_left
from collections import deque
from collections.abc import Callable, Iterable
from itertools import takewhile
from typing import Final, Protocol

from edge_broker.core.ops import Batch, QueueWrite
from edge_broker.errors import StoreError

_log: Final = logging.getLogger(__name__)

COMMIT_SECONDS_BOUNDS: Final = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0)
"""Upper bounds of `Journal.commit_seconds_buckets`, which has one more for what took longer."""

_FIRST_RETRY_SECONDS: Final = 0.1
_LAST_RETRY_SECONDS: Final = 5.0
_NO_NUMBER: Final = 1 << 62


class SealedBatch(Protocol):
    """One batch on its way to the disk."""

    @property
    def batch(self) -> Batch:
        """What to write."""

    def settle(self) -> None:
        """It is on the disk: release what waited for it."""


class PendingOperations(Protocol):
    """What waits for the next commit: `core.pending.Pending`."""

    @property
    def empty(self) -> bool:
        """Whether there is nothing to commit and nobody to answer."""

    @property
    def urgent(self) -> bool:
        """Whether somebody waits for a commit without delay."""

    @property
    def leisurely(self) -> bool:
        """Whether nobody waits for a commit."""

    @property
    def waiting(self) -> int:
        """Messages whose acknowledgement waits."""

    @property
    def bytes(self) -> int:
        """Their size."""

    def oldest_at(self) -> float | None:
        """When the message came that has waited longest, by the clock; None where something else than messages waits."""

    def seal(self, waiting_since: float | None = None) -> SealedBatch:
        """Hand over everything up to now, and start afresh; of messages only what waits since then, if that is said."""


class CommitsBatches(Protocol):
    """Where batches are written: `Store`."""

    @property
    def full(self) -> bool:
        """Whether commits fail for want of space, but for those of acknowledgements alone."""

    async def commit(self, batch: Batch) -> None:
        """Return when `batch` is on the disk, or raise `StoreError`."""


def _nothing() -> None:
    """Nothing is to be done before a batch is settled."""


class Journal:
    """Decides when `pending` is committed to `store`. `before_settle` and `after_settle` are called around the settling
    of each batch.

    Counters: `commit_seconds_buckets` (not cumulative; bounds in `COMMIT_SECONDS_BOUNDS`), `commit_seconds_sum`,
    `batches`, `retries`. `healthy` is False, and `problem` says why, from a failed commit to the next that succeeds.
    """

    def __init__(
        self,
        store: CommitsBatches,
        pending: PendingOperations,
        *,
        commit_delay_seconds: float,
        leisurely_delay_seconds: float = 0.0,
        early_messages: int,
        early_bytes: int,
        after_settle: Callable[[], None],
        before_settle: Callable[[], None] = _nothing,
        clock: Callable[[], float] = time.monotonic,
        jitter: Callable[[], float] = random.random,
    ) -> None:
        self._store = store
        self._pending = pending
        self.commit_delay_seconds = commit_delay_seconds  # may be changed at any time
        self._leisurely_delay_seconds = max(commit_delay_seconds, leisurely_delay_seconds)
        self._early_messages = early_messages
        self._early_bytes = early_bytes
        self._before_settle = before_settle
        self._after_settle = after_settle
        self._clock = clock
        self._jitter = jitter
        self._loop = asyncio.get_running_loop()
        self._timer: asyncio.TimerHandle | None = None
        self._timer_is_leisurely = False
        self._task: asyncio.Task[None] | None = None
        # When the batch that gathers got its first operation.
        self._first_at: float | None = None
        self._held: deque[SealedBatch] = deque()  # sealed for their acknowledgements while the disk was full
        self._flushing = False
        self._closing = asyncio.Event()
        self.healthy = True
        self.problem = ""
        self.batches = 0
        self.retries = 0
        self.commit_seconds_bounds = COMMIT_SECONDS_BOUNDS
        self.commit_seconds_buckets = [0] * (len(COMMIT_SECONDS_BOUNDS) + 1)
        self.commit_seconds_sum = 0.0

    def poke(self) -> None:
        """Something is pending: see whether it is to be committed now or when. Called once per tick of the loop."""
        if self._first_at is None:
            self._first_at = self._clock()
        if self._task is not None:
            return
        pending = self._pending
        if self._is_due_early():
            self._start()
        elif self._timer is None or (self._timer_is_leisurely and not pending.leisurely):
            self._start_timer(
                self._leisurely_delay_seconds if pending.leisurely else self.commit_delay_seconds
            )

    async def flush(self) -> None:
        """Commit everything that is pending, without delay. Waits as long as the disk refuses: bound it from outside."""
        self._flushing = True
        try:
            while not self._closing.is_set() and (self._task is not None or not self._pending.empty):
                self._start()
                if self._task is not None:
                    await asyncio.wait([self._task])
        finally:
            self._flushing = False

    async def close(self) -> None:
        """Stop after the commit in progress. What was not committed is not settled; `flush` before to have it kept."""
        self._closing.set()
        self._stop_timer()
        if self._task is not None:
            await asyncio.wait([self._task])

    def _start(self) -> None:
        """Commit now, unless a commit is in progress already."""
        self._stop_timer()
        if self._task is None and not self._closing.is_set() and not self._pending.empty:
            self._task = self._loop.create_task(self._run(), name="journal")

    def _start_timer(self, seconds: float) -> None:
        self._stop_timer()
        self._timer_is_leisurely = self._pending.leisurely
        self._timer = self._loop.call_later(seconds, self._on_timer)

    def _on_timer(self) -> None:
        """Commit, if there is still somebody who has waited long enough."""
        self._timer = None
        seconds = self._seconds_to_wait()
        if self._pending.empty:
            self._first_at = None
        elif seconds > 0:
            self._start_timer(seconds)
        else:
            self._start()

    def _stop_timer(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None

    async def _run(self) -> None:
        """Commit batches as long as one is due when the one before it is done."""
        try:
            while not self._closing.is_set():
                self._first_at = None
                sealed = self._held.popleft() if self._held else self._seal()
                if not await self._commit(sealed.batch):
                    return
                self._settle(sealed)
                if not self._held and (self._pending.empty or self._seconds_to_wait() > 0):
                    break
        finally:
            self._task = None
        if not self._pending.empty and not self._closing.is_set():
            self._start_timer(self._seconds_to_wait())

    def _seal(self) -> SealedBatch:
        """The next batch: all of it, unless it is only due because something in it has waited long enough."""
        if self._flushing or self._is_due_early():
            return self._pending.seal()
        return self._pending.seal(self._clock() - self.commit_delay_seconds)

    def _is_due_early(self) -> bool:
        pending = self._pending
        return pending.urgent or pending.waiting >= self._early_messages or pending.bytes >= self._early_bytes

    def _seconds_to_wait(self) -> float:
        """How long the batch that gathers may still wait."""
        pending = self._pending
        if self._flushing or self._is_due_early():
            return 0.0
        now = self._clock()
        if self._first_at is None:
            self._first_at = now
        oldest_at = pending.oldest_at()
        if pending.leisurely:
            return max(0.0, self._first_at + self._leisurely_delay_seconds - now)
        return max(
            0.0, (self._first_at if oldest_at is None else oldest_at) + self.commit_delay_seconds - now
        )

    async def _commit(self, batch: Batch) -> bool:
        """Try until `batch` is on the disk; False if the journal was closed before."""
        retry_seconds = _FIRST_RETRY_SECONDS
        while True:
            started = self._clock()
            try:
                await self._store.commit(batch)
            except StoreError as error:
                self._note_failure(error)
                if self._store.full:
                    await self._make_room(batch)
            else:
                self._note_success(self._clock() - started)
                return True
            if await self._closed_within(retry_seconds * (0.5 + self._jitter() / 2)):
                return False
            self.retries += 1
            retry_seconds = min(retry_seconds * 2, _LAST_RETRY_SECONDS)

    async def _make_room(self, batch: Batch) -> None:
        """Commit the acknowledgements that wait behind `batch`; they free the space that it needs."""
        if not self._pending.empty:
            self._held.append(self._pending.seal())
        waiting = [batch, *(sealed.batch for sealed in self._held)]
        overtaking = acknowledgements(waiting)
        try:
            await self._store.commit(overtaking)
        except StoreError as error:
            _log.debug("acknowledgements could not make room either: %s", error)
        else:
            carry_over(overtaking, waiting)

    async def _closed_within(self, seconds: float) -> bool:
        try:
            await asyncio.wait_for(self._closing.wait(), seconds)
        except TimeoutError:
            return False
        return True

    def _settle(self, sealed: SealedBatch) -> None:
        for step in (self._before_settle, sealed.settle, self._after_settle):
            try:
                step()
            except Exception:  # noqa: BLE001  a fault with one of those who waited, not of the store
                _log.exception("not all that waited for a commit could be released; the others were")

    def _note_failure(self, error: StoreError) -> None:
        if self.healthy:
            _log.error("nothing is acknowledged until the store accepts data again: %s", error)
        self.healthy = False
        self.problem = str(error)

    def _note_success(self, seconds: float) -> None:
        if not self.healthy:
            _log.warning("the store accepts data again; what waited is written")
        self.healthy = True
        self.problem = ""
        self.batches += 1
        self.commit_seconds_sum += seconds
        self.commit_seconds_buckets[bisect_left(COMMIT_SECONDS_BOUNDS, seconds)] += 1


def acknowledgements(batches: Iterable[Batch]) -> Batch:
    """The acknowledgements in batches that are not written yet, in their order, as far as they are of stored messages.

    What is acknowledged of messages in the batches themselves stays out: on the disk it would look like messages lost. So
    does what a queue says from where on its messages have moved into others, which are not on the disk either.
    """
    moved: set[int] = set()
    latest: dict[int, QueueWrite] = {}
    unwritten: dict[int, int] = {}
    for batch in batches:
        for write in batch.queues:
            if write.moved:
                moved.add(write.queue_id)
            if write.queue_id not in moved:
                latest[write.queue_id] = write
            if write.messages:
                unwritten.setdefault(write.queue_id, write.messages[0][0])
    queues = []
    for queue_id, write in latest.items():
        end = unwritten.get(queue_id, _NO_NUMBER)
        queues.append(
            QueueWrite(
                queue_id,
                [],
                min(write.head, end),
                [number for number in write.acknowledged if number < end],
                [number for number in write.released if number < end],
                min(write.sent, end),
            )
        )
    return Batch(queues=queues)


def carry_over(overtaking: Batch, batches: Iterable[Batch]) -> None:
    """Have `batches` say again what `acknowledgements` of them has committed: else they would take it back."""
    writes: dict[int, list[QueueWrite]] = {}
    for batch in batches:
        for write in batch.queues:
            writes.setdefault(write.queue_id, []).append(write)
    for done in overtaking.queues:
        end = next((write.messages[0][0] for write in writes[done.queue_id] if write.messages), _NO_NUMBER)
        for write in takewhile(lambda write: not write.moved, writes[done.queue_id]):
            write.head = max(write.head, done.head)
            write.acknowledged = done.acknowledged + [n for n in write.acknowledged if n >= end]
            write.sent = max(write.sent, done.sent)
            write.released = done.released + [n for n in write.released if n >= end]
