"""The ordered backlog of one recipient: every QoS > 0 message for it, numbered without gaps, until it is acknowledged.

A session's deliveries and a bridge's outbox are both a `Queue`. What it keeps true:

- The packet identifier of a message follows from its number, so that it is the same after a reconnect and after a
  restart [MQTT-4.4.0-1] without being stored; numbers in flight never span more than there are identifiers.
- Of a durable queue each number from `head` on is acknowledged, or uncommitted in memory, or on disk. What is on disk
  only is the one stretch from `gap_from` to `gap_to`; it is read back in pages when the sender comes near.
- A message acknowledged before its batch is sealed is never written, and is safe for its publisher at once.
- What was received at QoS 2, or goes out at it, is not sent before it is committed.
- What is volatile stays in memory for as long as it is not acknowledged, and has a number like all others; the store
  only hears, with the next message that it keeps, that the number is none of its own. After a restart it counts as lost.

It sends nothing itself: `next_to_send` tells what is due, the owner sends it.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Final, Protocol

from edge_broker.core.message import Message
from edge_broker.core.ops import Page, QueueState, QueueWrite
from edge_broker.wire.const import MAX_PACKET_ID

if TYPE_CHECKING:
    from edge_broker.core.burying import Burials
    from edge_broker.core.followed import Watch
    from edge_broker.core.pending import Pending

_MESSAGE_OVERHEAD_BYTES: Final = 500
"""What a message object costs beside its frame, roughly; counted so that limits in bytes mean memory."""

_TYPICAL_PACKET_BYTES: Final = 200
"""What is assumed of messages on disk from before a restart: to look at them all would make the start slow."""

_MARKED_AT_ONCE: Final = 64
"""Messages at QoS 2 that expire need a commit before they are sent; one serves for so many."""

QUEUE_FULL: Final = "queue_full"
STORE_LIMIT: Final = "store_limit"
"""Why something was dropped: this queue held too much, or all of them together did."""

LARGE_FRAME_BYTES: Final = 4096
"""Frames up to this are bounded well enough by the window's count; the bytes of larger ones in flight are counted."""


class Owner(Protocol):
    """Whoever sends what is in a queue."""

    def pump(self) -> None:
        """More may be due now: a page has come, or a commit."""


class Queue:
    """One recipient's backlog. `pending` None makes it a queue in memory only, which ends with its owner.

    `cursor` is the next number to send; `in_flight` counts those below it that are not acknowledged yet.
    `bytes_in_memory` is what limits look at: of a durable queue everything held, of another what waits to be sent.
    `large_in_flight_bytes` counts the frames in flight that are longer than `LARGE_FRAME_BYTES`.
    `moved`: since the last commit messages of it were appended elsewhere, and may not go before that is on disk.
    `drops`: what was dropped, by reason; `on_dropped(reason)` is called for each. `burials`: makes dead letters of
    it, None where none are kept.
    """

    __slots__ = (
        "acknowledged",
        "burials",
        "bytes_in_memory",
        "committed",
        "cursor",
        "dirty",
        "drop_from",
        "dropped",
        "drops",
        "expired",
        "gap_from",
        "gap_to",
        "head",
        "in_flight",
        "large_in_flight_bytes",
        "look_at",
        "looked_head",
        "lost",
        "max_age_seconds",
        "messages",
        "moved",
        "next_number",
        "on_dropped",
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
        "watch",
    )

    def __init__(self, queue_id: int, pending: Pending | None) -> None:
        self.queue_id = queue_id
        self.pending = pending
        self.head = self.cursor = self.next_number = self.committed = 1
        self.gap_from = self.gap_to = 1
        self.sent_before = 1  # numbers below it may have been sent already: they go with DUP
        self.surely_sent_before = 1  # as far as the store knows, where that was before a restart
        self.sent_mark = self.sent_marked = 0  # how far what expires may be sent at QoS 2; and that on disk
        self.in_flight = self.large_in_flight_bytes = 0
        self.messages: dict[int, Message] = {}
        self.bytes_in_memory = 0
        self.packet_bytes = 0  # of a durable queue: in memory and on disk
        self.max_age_seconds = 0  # messages that have waited longer are passed over; 0 = however long
        self.drop_from = 1  # none below it is left to be dropped
        self.unwritten: dict[int, Message] = {}
        self.acknowledged: set[int] | None = None  # above head; most queues never need the two sets
        self.volatile: set[int] | None = None  # in memory and never on disk
        self.untold: list[tuple[int, int]] | None = None  # stretches of those that the store has not heard of
        self.released: set[int] | None = None  # PUBREC has come, PUBCOMP has not
        self.dirty = self.touched = self.moved = False
        self.reading: tuple[int, int] | None = None  # the stretch that was asked for
        self.online = False
        self.watch: Watch | None = None  # while a trace runs
        self.owner: Owner | None = None
        self.dropped = self.expired = self.lost = 0
        self.drops: dict[str, int] | None = None
        self.on_dropped: Callable[[str], None] | None = None
        self.burials: Burials | None = None
        self.look_at = (
            0.0  # while the recipient is away: when the head is next looked at, if it is still the same
        )
        self.looked_head = 0

    @classmethod
    def restore(cls, state: QueueState, pending: Pending) -> Queue:
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

    # ---- appending

    def append(self, message: Message) -> int:
        """Take `message` as the last one; returns its number. A durable queue makes it unsafe until committed.

        One that is volatile it keeps in memory only, however long its recipient is away.
        """
        number = self.next_number
        self.next_number = number + 1
        self.messages[number] = message
        size = len(message.frame)
        self.bytes_in_memory += size + _MESSAGE_OVERHEAD_BYTES
        pending = self.pending
        if pending is None:
            return number
        self.packet_bytes = (
            size if number == self.head else self.packet_bytes + size
        )  # empty: whatever was assumed
        if message.volatile:
            self._keep_volatile(number)
        else:
            self.unwritten[number] = message
            pending.append(self, message)
        return number

    def _keep_volatile(self, number: int) -> None:
        if self.volatile is None or self.untold is None:
            self.volatile, self.untold = set(), []
        self.volatile.add(number)
        untold = self.untold
        if untold and untold[-1][1] < self.head:  # all of them are acknowledged: nobody will miss them
            untold.clear()
        if untold and untold[-1][1] == number - 1:
            untold[-1] = (untold[-1][0], number)
        else:
            untold.append((number, number))

    # ---- sending

    def next_to_send(self, now: float) -> tuple[int, Message | None] | None:
        """What is to go out now: (number, message), (number, None) for PUBREL, or None when nothing can.

        Moves `cursor` past it. Passes over what has expired; asks for a page where the message is on disk only.
        """
        while self.cursor < self.next_number:
            number = self.cursor
            if number - self.head >= MAX_PACKET_ID:
                return None
            if self.released and number in self.released:
                self.cursor = number + 1
                self.in_flight += 1
                return number, None
            if self.acknowledged and number in self.acknowledged:
                self.cursor = number + 1
                continue
            message = self.messages.get(number)
            if message is None:
                self.want_page()
                return None
            if (
                number >= self.committed
                and self.pending is not None
                and 2 in (message.qos, message.origin.qos)
                and not message.volatile
            ):
                return None
            if message.expires_at is not None and message.qos == 2 and self._must_be_marked(number):
                return None
            self.cursor = number + 1
            self.in_flight += 1
            size = len(message.frame)
            if size > LARGE_FRAME_BYTES:
                self.large_in_flight_bytes += size
            if self.pending is None:
                self.bytes_in_memory -= size + _MESSAGE_OVERHEAD_BYTES
            if self.is_over(number, message, now):
                self.expired += 1
                if self.burials is not None:
                    self.burials.bury(message, "expired")
                self.complete(number)
                continue
            if self.gap_from < self.gap_to and self.gap_from - number < 200:
                self.want_page()
            return number, message
        return None

    def is_over(self, number: int, message: Message, now: float) -> bool:
        """Whether `message` is not to be sent any more; of what was sent at QoS 2 nothing is [MQTT-4.3.3-7]."""
        if message.qos == 2 and number < self.surely_sent_before:
            return False
        if self.max_age_seconds and message.received_at + self.max_age_seconds <= now:
            return True
        return message.expires_at is not None and message.expires_at <= now

    def _must_be_marked(self, number: int) -> bool:
        """Whether it is to be on disk first that `number` may have been sent: it does not expire then [MQTT-4.3.3-7]."""
        if self.pending is None or number < self.sent_marked or (self.volatile and number in self.volatile):
            return False
        if number >= self.sent_mark:
            self.sent_mark = min(self.next_number, number + _MARKED_AT_ONCE)
            self.pending.touch(self)
            self.pending.urgent = True
        return True

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
                self.bytes_in_memory += len(message.frame) + _MESSAGE_OVERHEAD_BYTES
        for number in range(start, end):
            if number not in self.messages and not self._is_done(number):
                self.lost += 1
                self._finish(number)
                if self.pending is not None:
                    self.pending.touch(self)  # rows behind it may go
        self.gap_from = end
        if self.owner is not None:
            self.owner.pump()

    def _is_done(self, number: int) -> bool:
        """Whether the subscriber has `number` already, so that its message is not needed any more."""
        return (
            number < self.head
            or (self.acknowledged is not None and number in self.acknowledged)
            or (self.released is not None and number in self.released)
        )

    # ---- acknowledging

    def number_of(self, packet_id: int) -> int:
        """The number in flight that goes by `packet_id`, or 0."""
        number = self.head + (packet_id - self.head) % MAX_PACKET_ID
        return number if number < self.cursor else 0

    def complete(self, number: int) -> bool:
        """`number` is acknowledged for good (PUBACK, PUBCOMP, expired). False if it was not in flight."""
        message = self.messages.pop(number, None)
        pending = self.pending
        if message is None:
            if not self.released or number not in self.released:
                return False
            self.released.remove(number)
        elif pending is not None or len(message.frame) > LARGE_FRAME_BYTES:
            self._let_go(message)
        self.in_flight -= 1
        if number == self.head and not self.acknowledged:
            self.head = number + 1
        else:
            self._finish(number)
        if pending is not None:
            self._tell_store(pending, number, message)
        return True

    def _tell_store(self, pending: Pending, number: int, message: Message | None) -> None:
        """`number`, which had `message`, is done with: it is never written, or goes with a coming commit."""
        if message is not None and self.unwritten.pop(number, None) is not None:
            pending.elide(message)
        elif self.volatile and number in self.volatile:
            self.volatile.remove(number)
        else:
            pending.touch(self)

    def complete_run(self, packet_id: int, count: int) -> bool:
        """`count` packet identifiers from `packet_id` on are acknowledged for good. False if none was in flight."""
        head = self.head
        first = head + (packet_id - head) % MAX_PACKET_ID
        end = first + count
        if (
            first == head
            and end <= self.cursor
            and self.pending is None
            and not (self.acknowledged or self.released or self.large_in_flight_bytes)
        ):  # the oldest ones, in order, and nothing to be told of them: what most acknowledgements are
            messages = self.messages
            for number in range(first, end):
                del messages[number]
            self.in_flight -= count
            self.head = end
            return True
        done = [self.complete(self.number_of(packet_id + offset)) for offset in range(count)]
        return any(done)

    def release(self, number: int) -> bool:
        """PUBREC came for `number`: its message is no longer needed, PUBREL is. False if it was not in flight."""
        message = self.messages.get(number)
        if message is None or message.qos != 2:
            return self.released is not None and number in self.released
        del self.messages[number]
        self._let_go(message)
        if self.released is None:
            self.released = set()
        self.released.add(number)
        if self.pending is not None:
            self.pending.touch(self)
        return True

    def _let_go(self, message: Message) -> None:
        """A message in flight is not needed any more."""
        size = len(message.frame)
        if size > LARGE_FRAME_BYTES:
            self.large_in_flight_bytes -= size
        if self.pending is not None:
            self.packet_bytes -= size
            self.bytes_in_memory -= size + _MESSAGE_OVERHEAD_BYTES

    # ---- making room

    def may_drop(self, number: int) -> bool:
        """Whether `number` waits here and was not sent: then its recipient will not miss it."""
        first = self.cursor if self.online else max(self.head, self.surely_sent_before)
        return first <= number < self.next_number and not self._is_done(number)

    def drop_oldest(self, reason: str = QUEUE_FULL) -> bool:
        """Drop the oldest message that was not sent; False if there is none."""
        number = max(self.drop_from, self.cursor if self.online else max(self.head, self.surely_sent_before))
        while number < self.next_number and self._is_done(number):
            number += 1
        self.drop_from = number
        return self.drop(number, reason)

    def drop(self, number: int, reason: str = QUEUE_FULL) -> bool:
        """Drop `number`, wherever it is kept; False if it may not be. Its publisher has been answered, or is now."""
        if not self.may_drop(number):
            return False
        if self.burials is not None:
            self.burials.bury_number(number, reason)
        self.take_away(number)
        self.count_drop(reason)
        return True

    def refuse(self, message: Message, reason: str) -> None:
        """Count `message`, which is not taken."""
        if self.burials is not None:
            self.burials.bury(message, reason)
        self.count_drop(reason)

    def count_drop(self, reason: str) -> None:
        """One message that the recipient should have had is gone."""
        self.dropped += 1
        drops = self.drops
        if drops is None:
            drops = self.drops = {}
        drops[reason] = drops.get(reason, 0) + 1
        if self.on_dropped is not None:
            self.on_dropped(reason)

    def expire(self, number: int, message: Message) -> None:
        """`number`, which waits, has expired; `message` is what it was, wherever that was read."""
        self.expired += 1
        if self.burials is not None:
            self.burials.bury(message, "expired")
        self.take_away(number, message)

    def take_away(self, number: int, on_disk: Message | None = None) -> None:
        """`number`, which waits and is not in flight, leaves the queue. `on_disk`: its message, where somebody read it."""
        message = self.messages.pop(number, None)
        if message is not None:
            size = len(message.frame)
            self.packet_bytes -= size
            self.bytes_in_memory -= size + _MESSAGE_OVERHEAD_BYTES
        elif on_disk is not None:
            self.packet_bytes -= min(len(on_disk.frame), self.packet_bytes)
        else:  # nobody knows how large it was
            self.packet_bytes -= self.packet_bytes // self.depth
        self._finish(number)
        if self.pending is not None:
            self._tell_store(self.pending, number, message)

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

    # ---- coming and going of the recipient

    def rewind(self) -> None:
        """The recipient is back: everything not acknowledged is sent again, from the oldest on."""
        self.online = True
        self.gap_from = max(self.gap_from, min(self.head, self.gap_to))
        self.sent_before = max(self.sent_before, self.cursor)
        self.surely_sent_before = max(self.surely_sent_before, self.cursor)
        self.cursor = self.head
        self.in_flight = self.large_in_flight_bytes = 0

    def suspend(self) -> None:
        """The recipient is gone: of a durable queue only what is uncommitted stays in memory."""
        self.online = False
        self.sent_before = max(self.sent_before, self.cursor)
        self.surely_sent_before = max(self.surely_sent_before, self.cursor)
        if self.pending is not None:
            self._forget_from(self.head)

    def _forget_from(self, first: int) -> None:
        """Keep of the committed numbers from `first` on nothing in memory: they are on disk."""
        messages = self.messages
        if len(messages) > len(self.unwritten):
            stays = self.volatile or ()
            for number in [n for n in messages if first <= n < self.committed and n not in stays]:
                self.bytes_in_memory -= len(messages.pop(number).frame) + _MESSAGE_OVERHEAD_BYTES
        if first < self.committed:
            self.gap_from = min(first, self.gap_from) if self.gap_from < self.gap_to else first
            self.gap_to = self.committed

    # ---- the store's side

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
