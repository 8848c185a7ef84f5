"""What a queue lets go without its recipient: dropped to make room, expired, not taken at all.

- Only what waits is let go. What was sent and not acknowledged is the recipient's to answer, and stays.
- Whatever goes is counted with its reason, and made a dead letter where those are kept.

When that is to happen and to which message is decided elsewhere: by `quota`, `totals` and `upkeep`.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Final

from edge_broker.core.message import Message
from edge_broker.core.stored_queue import MESSAGE_OVERHEAD_BYTES, StoredQueue

if TYPE_CHECKING:
    from edge_broker.core.pending import Pending

QUEUE_FULL: Final = "queue_full"
STORE_LIMIT: Final = "store_limit"
"""Why something was dropped: this queue held too much, or all of them together did."""


class SheddingQueue(StoredQueue):
    """A queue's second floor. `drops`: what was dropped, by reason; `on_dropped(reason)` is called for each.

    `on_skipped(number)` is called for each number that was a message's and is let go without its recipient.
    """

    __slots__ = ("drop_from", "dropped", "drops", "expired", "on_dropped", "on_skipped")

    def __init__(self, queue_id: int, pending: Pending | None) -> None:
        super().__init__(queue_id, pending)
        self.drop_from = 1  # none below it is left to be dropped
        self.dropped = self.expired = 0
        self.drops: dict[str, int] | None = None
        self.on_dropped: Callable[[str], None] | None = None
        self.on_skipped: Callable[[int], None] | None = None

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
        self.tell_skipped(number)
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
        self.tell_skipped(number)

    def tell_skipped(self, number: int) -> None:
        """`number` is gone, and nobody will get what it was: on purpose, so it is not missing."""
        if self.on_skipped is not None:
            self.on_skipped(number)

    def take_away(self, number: int, on_disk: Message | None = None) -> None:
        """`number`, which waits and is not in flight, leaves the queue. `on_disk`: its message, where somebody read it."""
        message = self.messages.pop(number, None)
        if message is not None:
            size = len(message.frame)
            self.packet_bytes -= size
            self.bytes_in_memory -= size + MESSAGE_OVERHEAD_BYTES
        elif on_disk is not None:
            self.packet_bytes -= min(len(on_disk.frame), self.packet_bytes)
        else:  # nobody knows how large it was
            self.packet_bytes -= self.packet_bytes // self.depth
        self._finish(number)
        if self.pending is not None:
            self._tell_store(self.pending, number, message)
