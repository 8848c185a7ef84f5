"""Which packet identifier a message has upstream, and whose an identifier is that comes back.

It follows from the message's number in its queue, so it stays over connections and restarts without being stored. The one
place that says how: queues that share a connection need another rule, in which their identifiers do not meet.
"""

from __future__ import annotations

from typing import Final, Protocol

from edge_broker.core.queue import Queue
from edge_broker.wire import const


class PacketIds(Protocol):
    """The rule for one queue."""

    def of(self, number: int) -> int:
        """The packet identifier of the message `number`."""

    def number_of(self, packet_id: int) -> int:
        """The number in flight that goes by `packet_id`; 0 where none does."""

    @property
    def free(self) -> int:
        """An identifier that no message in flight has, nor will have soon."""


class OwnPacketIds:
    """A queue with a connection of its own: identifiers go round from 1 to 65,535, as the queue itself has it."""

    __slots__ = ("_queue", "number_of")

    def __init__(self, queue: Queue) -> None:
        self._queue = queue
        self.number_of = queue.number_of

    def of(self, number: int) -> int:
        """The packet identifier of the message `number`."""
        return (number - 1) % const.MAX_PACKET_ID + 1

    @property
    def free(self) -> int:
        """That of the last one acknowledged."""
        return self.of(self._queue.head - 1)


SHARERS: Final = 3
"""Queues that may share a connection: always so many, or an identifier would change when one is added."""

SHARE: Final = const.MAX_PACKET_ID // SHARERS
"""Identifiers that each of them has."""


class SharedPacketIds:
    """One of the queues that share a connection. Of three identifiers in a row each queue has the one at its `place`.

    A queue's numbers in flight must span less than `SHARE`.
    """

    __slots__ = ("_place", "_queue")

    def __init__(self, queue: Queue, place: int) -> None:
        self._queue = queue
        self._place = place

    def of(self, number: int) -> int:
        """The packet identifier of the message `number`."""
        return (number - 1) % SHARE * SHARERS + self._place + 1

    def number_of(self, packet_id: int) -> int:
        """The number in flight that goes by `packet_id`; 0 where none does, be it another queue's."""
        turn, place = divmod(packet_id - 1, SHARERS)
        if place != self._place:
            return 0
        head = self._queue.head
        number = head + (turn - (head - 1)) % SHARE
        return number if number < self._queue.cursor else 0

    @property
    def free(self) -> int:
        """That of the last one acknowledged."""
        return self.of(self._queue.head - 1)


def place_of(packet_id: int) -> int:
    """The place of the queue that `packet_id` belongs to, where three share a connection."""
    return (packet_id - 1) % SHARERS
