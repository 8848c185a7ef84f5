"""What the core asks of the store: one `Batch` of plain data per commit, and what comes back at start and from reads.

A batch is whole or not at all: either everything in it is on disk and synced, or nothing of it happened. Its objects are
not touched again by the core once the batch is sealed, so the store may encode them in another thread.

A *queue* is the ordered, durable backlog of one recipient, a session or a bridge's outbox. Its messages are numbered
without gaps; at any time each number from `head` on is either acknowledged, or stored, or still uncommitted in memory.
Times are the monotonic clock's seconds, as everywhere in the core, except where a name says `wall`.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field

from edge_broker.core.message import Message


@dataclass(slots=True)
class QueueWrite:
    """What changes in one queue: `messages` are appended, and everything acknowledged so far is stated anew.

    `messages`: (number, message) in rising order; numbers acknowledged before the commit are left out.
    `head`: the lowest number not acknowledged; stored messages below it may be deleted.
    `acknowledged`: numbers above `head` that are acknowledged. `released`: QoS 2 numbers whose PUBREC has come; what the
    subscriber gets next of them is PUBREL, so their messages are no longer needed. Both sorted.
    `sent`: messages at QoS 2 below it may have been sent, so that they do not expire any more [MQTT-4.3.3-7].
    `moved`: something acknowledged here is among the messages of other queues in this batch, so none of it may be committed
    before them. `volatile`: (first, last) of each stretch of numbers before the last of `messages` that are in memory only,
    by choice.
    """

    queue_id: int
    messages: list[tuple[int, Message]]
    head: int
    acknowledged: list[int]
    released: list[int]
    sent: int = 0
    moved: bool = False
    volatile: list[tuple[int, int]] = field(default_factory=list)


@dataclass(slots=True)
class SessionRecord:
    """A durable session. `session_id` is also its queue's id.

    `identity`: whoever created it; `username` and `groups`: what else was proved of whoever opened it last.
    `expiry_interval` in seconds, 0xFFFFFFFF for ever. `disconnected_at`: None while connected (and after a crash).
    `will`: what to publish if its connection was lost, `will_delay` in seconds.
    """

    session_id: int
    client_id: str
    identity: str
    expiry_interval: int
    disconnected_at: float | None
    will: Message | None = None
    will_delay: int = 0
    username: str = ""
    groups: tuple[str, ...] = ()


@dataclass(slots=True)
class SubscriptionRecord:
    """One subscription of a durable session; `subscription_id` 0 where it has none."""

    session_id: int
    topic_filter: str
    qos: int
    no_local: bool
    retain_as_published: bool
    subscription_id: int


@dataclass(slots=True)
class Batch:
    """Everything of one commit. Removals of a session take its subscriptions, inbound ids and queue with them.

    Within one batch removals are applied first: a session replaced by a new one has another `session_id`.
    """

    removed_sessions: list[int] = field(default_factory=list)
    sessions: list[SessionRecord] = field(default_factory=list)
    removed_subscriptions: list[tuple[int, str]] = field(default_factory=list)
    subscriptions: list[SubscriptionRecord] = field(default_factory=list)
    outboxes: list[tuple[int, str]] = field(default_factory=list)
    """(queue_id, name) of a queue without a session that is new: a bridge's outbox, the dead letters."""
    queues: list[QueueWrite] = field(default_factory=list)
    retained: dict[str, Message | None] = field(default_factory=dict)
    """By topic: the message to retain, or None to remove it."""
    inbound: dict[tuple[int, int], bool] = field(default_factory=dict)
    """(session_id, packet_id) of a QoS 2 PUBLISH received: True until its PUBREL has come."""


@dataclass(slots=True)
class QueueState:
    """A queue as the store has it at start. `next_number`: above everything ever stored. `stored`: messages on disk."""

    queue_id: int
    head: int
    next_number: int
    acknowledged: list[int]
    released: list[int]
    stored: int
    sent: int = 0


@dataclass(slots=True)
class Snapshot:
    """What the store held when it was opened; messages in queues are read later, in pages.

    `epoch`: this run's, already committed. `outboxes`: queue ids by name.
    """

    epoch: int
    sessions: list[SessionRecord]
    subscriptions: list[SubscriptionRecord]
    queues: dict[int, QueueState]
    outboxes: dict[str, int]
    retained: list[Message]
    inbound: list[tuple[int, int]]
    next_queue_id: int


@dataclass(slots=True)
class Page:
    """A stretch of one queue, read back: (number, message) in rising order, of the numbers below `end`.

    A number below `end` that is neither in `messages` nor acknowledged is lost: the store could not read it.
    """

    queue_id: int
    messages: list[tuple[int, Message]]
    end: int


@dataclass(slots=True)
class Lookup:
    """A page of a queue, from `from_number` on, for somebody else than its recipient.

    `take` is called with it, or with None where the store could not read. `max_messages`: more only as one whole segment.
    """

    queue_id: int
    from_number: int
    take: Callable[[Page | None], None]
    max_messages: int = 1_000
