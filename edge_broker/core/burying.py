"""From one queue to the dead letters: what it drops, also where the message is on disk only.

A message that is dropped is gone from its queue at once. If it is on disk only, its row stays until it was read and its
dead letter is written: `hold_back` states the queue to the store as if these numbers still waited. A crash in between
brings them back into their queue, which drops them again. So a message is in its queue or among the dead letters; where
too many are dropped at once, some become none and are counted as `unburied`. Only on a full disk, where acknowledgements
overtake what waits for room, a crash may take a dead letter that was not written yet: to drain the queue counts for more.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from edge_broker.core.ops import Lookup, Page, QueueWrite
from edge_broker.core.shedding import STORE_LIMIT

if TYPE_CHECKING:
    from edge_broker.core.dead_letters import DeadLetters
    from edge_broker.core.message import Message
    from edge_broker.core.queue import Queue

_MOST_HELD_BACK: Final = 10_000
"""Numbers whose rows are waited for, of one queue; what is dropped beyond is dropped without a dead letter."""


class Burials:
    """Makes dead letters of what `queue` drops; `recipient` is whom the messages were for."""

    __slots__ = ("_dead_letters", "_held", "_queue", "_reading", "recipient")

    def __init__(self, dead_letters: DeadLetters, queue: Queue, recipient: str) -> None:
        self._dead_letters = dead_letters
        self._queue = queue
        self._held: dict[int, str] | None = None  # on disk, by number: why they were dropped
        self._reading: tuple[int, int] | None = (
            None  # the first number asked for, and how much was committed then
        )
        self.recipient = recipient

    def bury(self, message: Message, reason: str, rule: str = "") -> None:
        """Keep `message`, which its recipient will not get."""
        if reason == STORE_LIMIT:
            return  # it has to go, and its dead letter would stay
        self._dead_letters.bury(message, reason, self.recipient, rule)

    def bury_number(self, number: int, reason: str) -> None:
        """The same for a number of the queue, which is about to leave it."""
        message = self._queue.messages.get(number)
        if reason == STORE_LIMIT:
            return
        if message is not None:
            self.bury(message, reason)
            return
        if self._held is None:
            self._held = {}
        if len(self._held) >= _MOST_HELD_BACK:
            self._dead_letters.unburied += 1
            return
        self._held[number] = reason
        self._ask()

    def hold_back(self, write: QueueWrite) -> None:
        """Have `write` say of what is waited for that it still waits."""
        if not self._held:
            return
        first = min(self._held)
        if first < write.head:
            done = [number for number in range(first, write.head) if number not in self._held]
            write.head, write.acknowledged = first, done + write.acknowledged
        write.acknowledged = [number for number in write.acknowledged if number not in self._held]

    def end(self) -> None:
        """The queue ends, and its rows with it."""
        self._dead_letters.unburied += len(self._held or ())
        self._held = None

    def _ask(self) -> None:
        queue = self._queue
        if self._reading is None and self._held and queue.pending is not None:
            self._reading = (min(self._held), queue.committed)
            queue.pending.lookups.append(Lookup(queue.queue_id, self._reading[0], self._take))

    def _take(self, page: Page | None) -> None:
        """The answer of the store; None where it could not read, and is asked again."""
        asked, self._reading = self._reading, None
        held, queue = self._held, self._queue
        if held and page is not None and asked is not None:
            for number, message in page.messages:
                reason = held.pop(number, None)
                if reason is not None:
                    self.bury(message, reason)
            first, committed = asked
            end = page.end if page.end > first else committed  # nothing is stored from there on
            for number in [number for number in held if first <= number < end]:
                del held[number]  # damaged
                self._dead_letters.unburied += 1
            if queue.pending is not None:
                queue.pending.touch(queue)
        self._ask()
