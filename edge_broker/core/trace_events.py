"""The steps of a message that a trace tells, and what is told of each: sizes, never payloads."""

from __future__ import annotations

from typing import Final, NamedTuple

ACCEPTED: Final = "accepted"
"""The broker took it from its publisher; the detail says for how many recipients."""
REFUSED: Final = "refused"
"""It was not taken, or a recipient refused it; the detail says why."""
REPEATED: Final = "repeated"
"""A QoS 2 message that its publisher sent again: it was taken the first time."""
WAITING: Final = "waiting"
"""A full queue rejects it and its publisher cannot be told: it is tried again."""
QUEUED: Final = "queued"
"""It has a place in a durable queue."""
SENT: Final = "sent"
"""It went out to the recipient."""
RECEIVED: Final = "received"
"""QoS 2: the recipient has it, and has still to forget its packet identifier."""
ACKNOWLEDGED: Final = "acknowledged"
"""The recipient answered for good."""
ELIDED: Final = "elided"
"""Acknowledged before it was written: this recipient's copy never goes to the disk."""
WRITTEN: Final = "written"
"""It is on the disk, synced."""
EXPIRED: Final = "expired"
"""It was older than it may be when its turn came."""
DROPPED: Final = "dropped"
"""A recipient does not get it; the detail says why."""
ANSWERED: Final = "answered"
"""PUBACK or PUBREC went to the publisher."""
UNANSWERED: Final = "unanswered"
"""It was taken, and its publisher was gone before it could be told."""


class Event(NamedTuple):
    """One step. `at`: monotonic seconds; `message`: its number in this trace; `client`: who published or receives it.

    `queue_number`: its number in the recipient's queue, 0 where it has none.
    """

    at: float
    message: int
    what: str
    client: str
    topic: str
    qos: int
    payload_bytes: int
    queue_number: int = 0
    detail: str = ""
