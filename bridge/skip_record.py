"""Which numbers of a lane were let go here and not announced yet: kept in a durable queue of entries, each a few ranges.

What it keeps true:

- An entry is on the disk in the same commit as the end of the numbers in it, or a commit before. So a crash leaves no gap
  that is never explained: numbers that it took with it are given out again, and a message that it brought back comes,
  although its number is in an entry.
- Memory is bounded: numbers of the last moment, merged into ranges. So is the disk: while nobody takes entries, they are
  read back now and then and merged, from the oldest on, so that a month of dropping in order is a few ranges.

It sends nothing: `bridge.skips` takes what is here.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from typing import TYPE_CHECKING, Final

import msgspec

from bridge.windows import Stretch, Stretches
from edge_broker.core.message import Message, build_message
from edge_broker.core.ops import Lookup, Page
from edge_broker.core.queue import Queue

if TYPE_CHECKING:
    from edge_broker.core.pending import Pending
    from edge_broker.core.router import Router
    from edge_broker.core.stored_queue import Owner

ENTRY_RANGES: Final = 500
"""Of one entry at most: some 10 KB."""
_FEWEST_ENTRIES: Final = 100
"""Fewer are not worth being merged."""
_MOST_MERGED: Final = 20_000
"""Ranges in memory while entries are merged, about; what lies beyond is merged another time."""
_PAGE: Final = 1_000
_ENTRY_TOPIC: Final = "skipped"
"""For whoever looks into the store; what it is called upstream is settled when it is announced."""


class Announcement(msgspec.Struct):
    """As it is kept, and crosses the line; both ends of a range are included. `epoch`: the run that let them go."""

    lane: str
    epoch: int
    ranges: list[Stretch]


class SkipRecord:
    """What `messages` lets go, in entries of `queue`, which is for nothing else; None as long as there never was any, and
    made by `make_queue` then. `lane`: what `messages` is called upstream. `gathered`: numbers that are not in it yet.
    `owner`: who takes the entries, between `attach` and `detach`.
    """

    def __init__(
        self,
        messages: Queue,
        queue: Queue | None,
        make_queue: Callable[[], Queue],
        router: Router,
        lane: str,
    ) -> None:
        self.queue = queue
        self.owner: Owner | None = None
        self.gathered = Stretches()
        self._make_queue = make_queue
        self._is_attached = False
        self._messages = messages
        self._router = router
        self._lane = lane
        self._merge_at = _FEWEST_ENTRIES
        self._merged: Stretches | None = None  # while entries are read back
        self._merged_to = self._merge_to = 0  # the first number that was not read yet, and where that ends
        messages.on_skipped = self.add
        router.pending.before_seal.append(self._keep)

    @property
    def _pending(self) -> Pending:
        return self._router.pending

    @property
    def waiting(self) -> int:
        """Entries that nobody has taken for good, and what is to be one."""
        return (0 if self.queue is None else self.queue.depth) + (len(self.gathered) > 0)

    def attach(self) -> None:
        """The owner takes entries from now on, from the oldest on."""
        self._is_attached = True
        if self.queue is not None:
            self.queue.owner = self.owner
            self.queue.rewind()

    def detach(self) -> None:
        """The owner takes no more; what it did not complete stays."""
        self._is_attached = False
        if self.queue is not None:
            self.queue.suspend()

    def complete(self, number: int) -> None:
        """The entry of that number, which was taken, is done with."""
        if self.queue is not None:
            self.queue.complete(number)

    def add(self, number: int) -> None:
        """`number` will not come."""
        self.gathered.add(number, number + 1)
        if len(self.gathered) >= ENTRY_RANGES:
            self.write()

    def write(self) -> None:
        """Have what was gathered in the queue."""
        if len(self.gathered):
            queue = self._open_queue()
            self._append(queue, self.gathered)
            self.gathered = Stretches()
            if queue.depth >= self._merge_at and not queue.online and self._merged is None:
                self._begin_to_merge(queue)

    def _keep(self) -> None:
        """A batch is about to be sealed: what it says of the messages may rest on what was gathered."""
        messages = self._messages
        if len(self.gathered) and (messages.touched or messages.unwritten):
            self.write()

    def _open_queue(self) -> Queue:
        queue = self.queue
        if queue is None:
            queue = self.queue = self._make_queue()
            if self._is_attached:
                self.attach()
        return queue

    def _append(self, queue: Queue, stretches: Iterable[Stretch]) -> None:
        pending = self._pending
        payload = encode(self._lane, pending.epoch, [(start, end - 1) for start, end in stretches])
        entry = build_message(_ENTRY_TOPIC, payload, qos=1)
        entry.received_at = self._router.now
        queue.append(entry)
        pending.touch(queue)  # else a batch could leave it for the next one, as too young

    # ---- merging

    def _begin_to_merge(self, queue: Queue) -> None:
        """Read all that is on the disk, from the oldest on."""
        if queue.head < queue.committed:
            self._merged = Stretches()
            self._merged_to, self._merge_to = queue.head, queue.committed
            self._read_on(queue)

    def _read_on(self, queue: Queue) -> None:
        self._pending.lookups.append(Lookup(queue.queue_id, self._merged_to, self._take, _PAGE))

    def _take(self, page: Page | None) -> None:
        """The store's answer; None where it could not read: another time, then."""
        merged, queue = self._merged, self.queue
        if merged is None or page is None or queue is None or queue.online:
            self._merged = None
            return
        for number, entry in page.messages:
            if number < self._merge_to:
                for start, end in stretches_of(entry):
                    merged.add(start, end)
        is_all = not self._merged_to < page.end < self._merge_to
        self._merged_to = self._merge_to if is_all else page.end
        if is_all or len(merged) >= _MOST_MERGED:
            self._merged = None
            self._replace(queue, merged)
        else:
            self._read_on(queue)

    def _replace(self, queue: Queue, merged: Stretches) -> None:
        """`merged` takes the place of what was read."""
        for number in range(queue.head, self._merged_to):
            if not queue.acknowledged or number not in queue.acknowledged:
                queue.take_away(number)
        for part in in_parts(merged, ENTRY_RANGES):
            self._append(queue, part)
        self._merge_at = max(_FEWEST_ENTRIES, 2 * queue.depth)


def encode(lane: str, epoch: int, ranges: list[Stretch]) -> bytes:
    """`ranges`, their ends included, as an announcement has them."""
    return msgspec.json.encode(Announcement(lane, epoch, ranges))


def stretches_of(entry: Message) -> list[Stretch]:
    """What is in an entry; nothing where the store gave back something else."""
    try:
        ranges = msgspec.json.decode(entry.payload, type=Announcement).ranges
    except msgspec.DecodeError:
        return []
    return [(first, last + 1) for first, last in ranges]


def in_parts(stretches: Iterable[Stretch], most: int) -> Iterator[list[Stretch]]:
    """`stretches`, so many at a time."""
    part: list[Stretch] = []
    for stretch in stretches:
        part.append(stretch)
        if len(part) == most:
            yield part
            part = []
    if part:
        yield part
