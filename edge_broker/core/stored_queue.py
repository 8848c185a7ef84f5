"""Where the messages of a queue are: uncommitted in memory, on disk, or both; and how they get from one to the other.

- Of a durable queue each number from `head` on is acknowledged, or uncommitted in memory, or on disk. What is on disk
  only is the one stretch from `gap_from` to `gap_to`; it is read back in pages when the sender comes near.
- What the next commit writes is told by `seal`, once; until `on_committed` its numbers stay in memory.
- What is volatile stays in memory for as long as it is not acknowledged, and has a number like all others; the store
  only hears, with the next message that it keeps, that the number is none of its own. After a restart it counts as lost.
- A number that should be there and is not is counted as lost and passed over: no damage stops a queue.

It appends, sends and drops nothing: that is what the floors above do (`shedding`, `queue`).
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final, Protocol, Self

from edge_broker.core.message import Message
from edge_broker.core.ops import Page, QueueState, QueueWrite

if TYPE_CHECKING:
    from edge_broker.core.burying import Burials
    from edge_broker.core.pending import Pending

MESSAGE_OVERHEAD_BYTES: Final = 500
"""What a message object costs beside its frame, roughly; counted so that limits in bytes mean memory."""

_TYPICAL_PACKET_BYTES: Final = 200
"""What is assumed of messages on disk from before a restart: to look at them all would make the start slow."""


class Owner(Protocol):
    """Whoever sends what is in a queue."""

    def pump(self) -> None:
        """More may be due now: a page has come, or a commit."""


class StoredQueue:
    """A queue's first floor. `pending` None makes it a queue in memory only, which ends with its owner.

    `cursor` is the next number to send. `bytes_in_memory` is what limits look at: of a durable queue everything held, of
    another what waits to be sent. `moved`: since the last commit messages of it were appended elsewhere, and may not go
    before that is on disk. `burials`: makes dead letters of what is dropped, None where none are kept.
    """

    __slots__ = (
        "acknowledged",
        "burials",
        "bytes_in_memory",
        "committed",
        "cursor",
        "dirty",
        "gap_from",
        "gap_to",
        "head",
        "lost",
        "messages",
        "moved",
        "next_number",
        "online",
        "owner",
        "packet_bytes",
        "pending",
        "queue_id",
        "reading",
        "released",
        "sent_before",
        "sent_mark",
        "sent_marked",
        "surely_sent_before",
        "touched",
        "untold",
        "unwritten",
        "volatile",
    )

    def __init__(self, queue_id: int, pending: Pending | None) -> None:
        self.queue_id = queue_id
        self.pending = pending
        self.head = self.cursor = self.next_number = self.committed = 1
        self.gap_from = self.gap_to = 1
        self.sent_before = 1  # numbers below it may have been sent already: they go with DUP
        self.surely_sent_before = 1  # as far as the store knows, where that was before a restart
        self.sent_mark = self.sent_marked = 0  # how far what expires may be sent at QoS 2; and that on disk
        self.messages: dict[int, Message] = {}
        self.bytes_in_memory = 0
        self.packet_bytes = 0  # of a durable queue: in memory and on disk
        self.unwritten: dict[int, Message] = {}
        self.acknowledged: set[int] | None = None  # above head; most queues never need the two sets
        self.released: set[int] | None = None  # PUBREC has come, PUBCOMP has not
        self.volatile: set[int] | None = None  # in memory and never on disk
        self.untold: list[tuple[int, int]] | None = None  # stretches of those that the store has not heard of
        self.dirty = self.touched = self.moved = False
        self.reading: tuple[int, int] | None = None  # the stretch that was asked for
        self.lost = 0
        self.online = False
        self.owner: Owner | None = None
        self.burials: Burials | None = None

    @classmethod
    def restore(cls, state: QueueState, pending: Pending) -> Self:
        """The queue as the store has it; everything in it is on disk, and all of it may have been sent before.

        Acknowledgements that were not committed moved the window on, so nothing tells how far it had come.
        """
        queue = cls(state.queue_id, pending)
        queue.head = queue.cursor = queue.gap_from = state.head
        marked = max([0, *state.acknowledged, *state.released])  # a number marked is taken, written or not
        queue.next_number = max(state.next_number, state.head, marked + 1)
        queue.packet_bytes = state.stored * _TYPICAL_PACKET_BYTES
        queue.committed = queue.gap_to = queue.sent_before = queue.next_number
        queue.sent_mark = queue.sent_marked = queue.surely_sent_before = state.sent
        queue.acknowledged = set(state.acknowledged) or None
        queue.released = set(state.released) or None
        return queue

    @property
    def depth(self) -> int:
        """Messages not acknowledged yet."""
        done = len(self.acknowledged) if self.acknowledged else 0
        return self.next_number - self.head - done

    # ---- numbers that are done with

    def _is_done(self, number: int) -> bool:
        """Whether the subscriber has `number` already, so that its message is not needed any more."""
        return (
            number < self.head
            or (self.acknowledged is not None and number in self.acknowledged)
            or (self.released is not None and number in self.released)
        )

    def _finish(self, number: int) -> None:
        """Count `number` as acknowledged and move `head` over all that are."""
        done = self.acknowledged
        if number != self.head:
            if done is None:
                done = self.acknowledged = set()
            done.add(number)
            return
        number += 1
        if done:
            while number in done:
                done.remove(number)
                number += 1
        self.head = number
        if self.cursor < number:  # lost before it was sent
            self.cursor = number

    def _tell_store(self, pending: Pending, number: int, message: Message | None) -> None:
        """`number`, which had `message`, is done with: it is never written, or goes with a coming commit."""
        if message is not None and self.unwritten.pop(number, None) is not None:
            pending.elide(message)
        elif self.volatile and number in self.volatile:
            self.volatile.remove(number)
        else:
            pending.touch(self)

    # ---- pages

    def want_page(self) -> None:
        """Ask for the stretch that is on disk only, unless that is under way."""
        if self.pending is not None and self.reading is None and self.gap_from < self.gap_to:
            self.reading = (self.gap_from, self.gap_to)
            self.pending.reads.append(self)

    def take_page(self, page: Page | None) -> None:
        """The answer to `want_page`: fills the gap from its front; None where the read failed.

        Numbers that should be there and are not are lost: counted, and passed over.
        """
        asked, self.reading = self.reading, None
        if page is None or asked is None or not self.online:
            return  # whoever is to have it asks again
        if asked[0] != self.gap_from:
            # The recipient has gone and come back meanwhile: it needs another stretch.
            if self.owner is not None:
                self.owner.pump()
            return
        start, end = asked[0], min(page.end, asked[1])
        if end <= start:  # the store has nothing of what it was given
            end = asked[1]
        for number, message in page.messages:
            if start <= number < end and not self._is_done(number):
                self.messages[number] = message
                self.bytes_in_memory += len(message.frame) + MESSAGE_OVERHEAD_BYTES
        for number in range(start, end):
            if number not in self.messages and not self._is_done(number):
                self.lost += 1
                self._finish(number)
                if self.pending is not None:
                    self.pending.touch(self)  # rows behind it may go
        self.gap_from = end
        if self.owner is not None:
            self.owner.pump()

    def _forget_from(self, first: int) -> None:
        """Keep of the committed numbers from `first` on nothing in memory: they are on disk."""
        messages = self.messages
        if len(messages) > len(self.unwritten):
            stays = self.volatile or ()
            for number in [n for n in messages if first <= n < self.committed and n not in stays]:
                self.bytes_in_memory -= len(messages.pop(number).frame) + MESSAGE_OVERHEAD_BYTES
        if first < self.committed:
            self.gap_from = min(first, self.gap_from) if self.gap_from < self.gap_to else first
            self.gap_to = self.committed

    # ---- commits

    def seal(self) -> QueueWrite | None:
        """What the next commit writes of this queue, or None. The numbers in it stay uncommitted until `on_committed`."""
        is_changed = bool(self.unwritten) or self.touched
        self.dirty = self.touched = False
        if not is_changed:
            return None
        write = QueueWrite(
            self.queue_id,
            list(self.unwritten.items()),
            self.head,
            sorted(self.acknowledged) if self.acknowledged else [],
            sorted(self.released) if self.released else [],
            self.sent_mark,
            self.moved,
        )
        self.moved = False
        if self.untold and write.messages:
            end = write.messages[-1][0]
            write.volatile = [stretch for stretch in self.untold if stretch[0] < end]
            del self.untold[: len(write.volatile)]
        self.unwritten.clear()
        if self.burials is not None:
            self.burials.hold_back(write)
        return write

    def on_committed(self, numbers_below: int, window_bytes: int, sent_mark: int = 0) -> None:
        """Everything below `numbers_below` is on disk; what the recipient does not need soon leaves the memory."""
        before, self.committed = self.committed, numbers_below
        self.sent_marked = max(self.sent_marked, sent_mark)
        if not self.online:
            self._forget_from(self.head)
        elif self.gap_from < self.gap_to or self.bytes_in_memory > window_bytes:
            self._forget_from(max(self.cursor, before))
        if self.online and self.cursor < self.next_number and self.owner is not None:
            self.owner.pump()

    def discard(self) -> None:
        """The queue ends here: nobody waits for what is in it any more."""
        if self.pending is not None:
            self.pending.abandon(self.unwritten.values())
            self.unwritten.clear()
        if self.burials is not None:
            self.burials.end()
        self.messages.clear()
        self.volatile = self.untold = None
        self.bytes_in_memory = 0
        self.online = False
