"""The ordered backlog of one recipient: every QoS > 0 message for it, numbered without gaps, until it is acknowledged.

A session's deliveries and a bridge's outbox are both a `Queue`. What it keeps true:

- The packet identifier of a message follows from its number, so that it is the same after a reconnect and after a
  restart [MQTT-4.4.0-1] without being stored; numbers in flight never span more than there are identifiers.
- A message acknowledged before its batch is sealed is never written, and is safe for its publisher at once.
- What was received at QoS 2, or goes out at it, is not sent before it is committed.

Where the messages are is `stored_queue`'s, what goes without its recipient `shedding`'s: floors of one object, as with a
connection. It sends nothing itself: `next_to_send` tells what is due, the owner sends it.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from edge_broker.core.message import Message
from edge_broker.core.shedding import SheddingQueue
from edge_broker.core.stored_queue import MESSAGE_OVERHEAD_BYTES
from edge_broker.wire.const import MAX_PACKET_ID

if TYPE_CHECKING:
    from edge_broker.core.followed import Watch
    from edge_broker.core.pending import Pending

_MARKED_AT_ONCE: Final = 64
"""Messages at QoS 2 that expire need a commit before they are sent; one serves for so many."""

LARGE_FRAME_BYTES: Final = 4096
"""Frames up to this are bounded well enough by the window's count; the bytes of larger ones in flight are counted."""


class Queue(SheddingQueue):
    """One recipient's backlog.

    `in_flight` counts the numbers below `cursor` that are not acknowledged yet; `large_in_flight_bytes` the frames in
    flight that are longer than `LARGE_FRAME_BYTES`. `max_age_seconds`: messages that have waited longer are passed over.
    `span`: numbers in flight are fewer; less than there are packet identifiers where several queues share those.
    """

    __slots__ = (
        "in_flight",
        "large_in_flight_bytes",
        "look_at",
        "looked_head",
        "max_age_seconds",
        "span",
        "watch",
    )

    def __init__(self, queue_id: int, pending: Pending | None) -> None:
        super().__init__(queue_id, pending)
        self.in_flight = self.large_in_flight_bytes = 0
        self.max_age_seconds = 0  # however long
        self.span = MAX_PACKET_ID
        self.watch: Watch | None = None  # while a trace runs
        self.look_at = (
            0.0  # while the recipient is away: when to look at the head, if it is still `looked_head`
        )
        self.looked_head = 0

    # ---- appending

    def append(self, message: Message) -> int:
        """Take `message` as the last one; returns its number. A durable queue makes it unsafe until committed.

        One that is volatile it keeps in memory only, however long its recipient is away.
        """
        number = self.next_number
        self.next_number = number + 1
        self.messages[number] = message
        size = len(message.frame)
        self.bytes_in_memory += size + MESSAGE_OVERHEAD_BYTES
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
            if number - self.head >= self.span:
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
                self.bytes_in_memory -= size + MESSAGE_OVERHEAD_BYTES
            if self.is_over(number, message, now):
                self.expired += 1
                if self.burials is not None:
                    self.burials.bury(message, "expired")
                self.complete(number)
                self.tell_skipped(number)
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

    def complete_run(self, packet_id: int, count: int) -> bool:
        """`count` packet identifiers from `packet_id` on are acknowledged for good. False if none was in flight."""
        head = self.head
        end = head + count
        if (
            self.pending is None
            and (packet_id - head) % MAX_PACKET_ID == 0
            and end <= self.cursor
            and not (self.acknowledged or self.released or self.large_in_flight_bytes)
        ):  # the oldest ones, in order, and nothing to be told of them: what most acknowledgements are
            messages = self.messages
            if count == 1:
                del messages[head]
            else:
                for number in range(head, end):
                    del messages[number]
            self.in_flight -= count
            self.head = end
            return True
        done = [self.complete(self.number_of(packet_id + offset)) for offset in range(count)]
        return any(done)

    def complete_range(self, first: int, count: int) -> int:
        """`count` numbers from `first` on are acknowledged for good; how many of them were in flight."""
        end = first + count
        pending = self.pending
        if (
            first != self.head
            or end > self.cursor
            or pending is None
            or self.acknowledged
            or self.released
            or self.unwritten
            or self.volatile
            or self.large_in_flight_bytes
        ):
            return sum(map(self.complete, range(first, end)))
        take = self.messages.pop  # the oldest ones, in order, and on disk: what a backlog is
        size_bytes = sum([len(take(number).frame) for number in range(first, end)])
        self.packet_bytes -= size_bytes
        self.bytes_in_memory -= size_bytes + MESSAGE_OVERHEAD_BYTES * count
        self.in_flight -= count
        self.head = end
        pending.touch(self)
        return count

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
            self.bytes_in_memory -= size + MESSAGE_OVERHEAD_BYTES

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
