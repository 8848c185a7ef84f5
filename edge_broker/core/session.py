"""A client's session: its subscriptions, its queue of deliveries, and the QoS 2 identifiers it has sent us.

A session is *durable* when it outlives its connection: what it is owed then goes through the store. It is written to as
a recipient by the router (`deliver`), and read from by whatever connection it has at the moment (`pump`).
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final, Protocol

from edge_broker.core.dead_letters import SESSION
from edge_broker.core.message import Message
from edge_broker.core.ops import SessionRecord, SubscriptionRecord
from edge_broker.core.ports import Permissions, Principal
from edge_broker.core.queue import LARGE_FRAME_BYTES, Queue
from edge_broker.core.quota import KEEP_LATEST, REJECT, Numbers
from edge_broker.core.shedding import QUEUE_FULL
from edge_broker.wire import const
from edge_broker.wire.topics import split_share

if TYPE_CHECKING:
    from edge_broker.core.connection import Connection
    from edge_broker.core.router import Router
    from edge_broker.core.routing import ShareGroup


KILLED: Final = "killed_subscriber"
_DEATHS: Final = 3
"""Connections that break with the same message as the oldest in flight, one after the other, before it is let go."""
_BROKEN: Final = frozenset(
    (const.UNSPECIFIED_ERROR, const.KEEP_ALIVE_TIMEOUT, const.MALFORMED_PACKET, const.PROTOCOL_ERROR)
)
"""How a connection ends that did not come to its end as MQTT has it; a session taken over is another matter."""


class Recipient(Protocol):
    """Whoever the router delivers to: a session, or a bridge's outbox.

    `permissions`: what it may do, None where that is everything.
    """

    permissions: Permissions | None

    @property
    def durable(self) -> bool:
        """Whether what it takes at QoS > 0 must be on disk before the publisher is answered."""

    @property
    def ready(self) -> bool:
        """Whether it can take a message now without queueing it."""

    @property
    def online(self) -> bool:
        """Whether somebody is there."""

    @property
    def may_reject(self) -> bool:
        """Whether its queue may have no room for a message that comes now."""

    def rejects(self, size_bytes: int) -> bool:
        """Whether it has none for a packet of that size, whose publisher is to be told."""

    def deliver(self, message: Message) -> None:
        """Take `message`, already in the form that this recipient gets."""


class Subscription:
    """One recipient's interest in one topic filter. `topic_filter` is as subscribed; `matched_filter` without `$share`.

    `instead`: of one with no local, what the recipient gets its own messages by, where it has overlapping subscriptions.
    `simple`: the recipient gets the message as it came, but for its QoS: no options that the router must look at.
    """

    __slots__ = (
        "instead",
        "matched_filter",
        "no_local",
        "qos",
        "recipient",
        "retain_as_published",
        "share_name",
        "simple",
        "subscription_ids",
        "topic_filter",
    )

    def __init__(
        self,
        recipient: Recipient,
        topic_filter: str,
        qos: int,
        no_local: bool = False,
        retain_as_published: bool = False,
        subscription_ids: tuple[int, ...] = (),
    ) -> None:
        self.recipient = recipient
        self.topic_filter = topic_filter
        self.share_name, self.matched_filter = split_share(topic_filter)
        self.qos = qos
        self.no_local = no_local
        self.retain_as_published = retain_as_published
        self.subscription_ids = subscription_ids
        self.instead: Subscription | None = None
        self.simple = not (no_local or retain_as_published or subscription_ids)

    def at_qos(self, qos: int) -> Subscription:
        """The same at another QoS."""
        return Subscription(
            self.recipient,
            self.topic_filter,
            qos,
            self.no_local,
            self.retain_as_published,
            self.subscription_ids,
        )

    def for_own_messages(self) -> Subscription | None:
        """What the recipient gets its own messages by [MQTT-3.8.3-3]."""
        return self.instead if self.no_local else self


class Session:
    """One client identifier's session. `session_id` is its queue's id, 0 where nothing of it is stored.

    `connection` is set while deliveries can be sent; `claimed_by` already while a CONNECT is being worked on.
    `username`, `groups`: what else was proved of whoever opened it last, for `permissions`, which hold while it is away
    too; None where everything is allowed.
    """

    __slots__ = (
        "by_topic",
        "claimed_by",
        "client_id",
        "connection",
        "disconnected_at",
        "expiry_interval",
        "groups",
        "identity",
        "inbound",
        "permissions",
        "queue",
        "router",
        "session_id",
        "shared",
        "shared_away",
        "subscriptions",
        "suspect",
        "username",
        "will",
        "will_delay",
    )

    def __init__(
        self, router: Router, client_id: str, identity: str, expiry_interval: int, queue: Queue
    ) -> None:
        self.router = router
        self.client_id = client_id
        self.identity = identity
        self.username = ""
        self.groups: tuple[str, ...] = ()
        self.permissions: Permissions | None = None
        self.expiry_interval = expiry_interval
        self.queue = queue
        queue.owner = self
        queue.on_dropped = router.counters.drop
        if router.dead_letters is not None:
            queue.burials = router.dead_letters.burials_of(queue, SESSION + client_id)
        queue.max_age_seconds = router.settings.max_queue_age_seconds if queue.pending is not None else 0
        self.session_id = queue.queue_id if queue.pending is not None else 0
        self.subscriptions: dict[str, Subscription] = {}
        self.connection: Connection | None = None
        self.claimed_by: Connection | None = None
        self.by_topic: Numbers | None = None
        self.shared: dict[int, ShareGroup] | None = (
            None  # by number: what came by a shared subscription at QoS 1
        )
        self.shared_away: dict[int, Message] | None = (
            None  # of those, while the client is away: what was sent to it
        )
        self.inbound: set[int] | None = None  # packet ids of QoS 2 PUBLISH whose PUBREL has not come
        self.disconnected_at: float | None = None
        self.suspect = (
            0,
            0,
        )  # the number that was the oldest in flight when the connection broke, and how often
        self.will: Message | None = None
        self.will_delay = 0

    @property
    def durable(self) -> bool:
        """Whether it outlives its connection, and so a restart."""
        return self.session_id != 0

    @property
    def principal(self) -> Principal:
        """Whose permissions it has."""
        return Principal(self.identity, self.client_id, self.username, self.groups)

    @property
    def online(self) -> bool:
        """Whether its client is connected."""
        return self.connection is not None

    @property
    def ready(self) -> bool:
        """Whether a message would leave at once."""
        connection = self.connection
        return (
            connection is not None
            and connection.writable
            and self.queue.cursor == self.queue.next_number
            and self.queue.in_flight < connection.send_window
        )

    @property
    def may_reject(self) -> bool:
        """Whether its queue may have no room for a message that comes now."""
        return self.router.quota.may_reject(self.queue)

    def rejects(self, size_bytes: int) -> bool:
        """Whether it has none for a packet of that size, whose publisher is to be told."""
        return self.router.quota.rejects(self.queue, size_bytes)

    # ---- deliveries

    def deliver(self, message: Message) -> None:
        """Send `message` now if it can go, else queue it; at QoS 0 it goes now or is dropped and counted."""
        connection = self.connection
        if not message.qos:
            if connection is not None:
                connection.send_qos_0(message)
            else:
                self.router.counters.drop("offline")
            return
        queue = self.queue
        number = queue.next_number
        if queue.pending is not None or connection is None:
            self._deliver_with_care(message)
        elif (
            number == queue.cursor
            and number - queue.head < connection.send_window
            and connection.writable
            and len(message.frame) <= LARGE_FRAME_BYTES
        ):  # nothing of it outlives the connection and nothing is in its way: what most deliveries are; no more than
            # what lies between head and number is in flight, so the window has room
            queue.next_number = queue.cursor = number + 1
            queue.in_flight += 1
            queue.messages[number] = message
            connection.send_publish(message, number)
        else:
            self._deliver_with_care(message)

    def _deliver_with_care(self, message: Message) -> None:
        """Queue `message` in its place, then send what is due."""
        queue, router = self.queue, self.router
        if (
            queue.pending is None or message.volatile
        ) and queue.bytes_in_memory >= router.settings.max_queue_bytes_in_memory:
            queue.refuse(message, QUEUE_FULL)
            return
        if queue.pending is not None and router.quota.is_limited and not self._make_room(message):
            return
        number = queue.append(message)
        if number == queue.cursor:
            self.pump()

    def _make_room(self, message: Message) -> bool:
        """Whether `message` has a place in the queue; counts what has none, be it `message` or what gives way to it."""
        queue, router, quota = self.queue, self.router, self.router.quota
        if quota.when_full == KEEP_LATEST:
            if self.by_topic is None:
                self.by_topic = Numbers()
            self.by_topic.add(message.topic, queue.next_number)
        problem = quota.make_room(queue, message, self.by_topic)
        if problem:
            queue.refuse(message, problem)
        if quota.when_full == REJECT and quota.may_reject(queue, 1, len(message.frame)):
            router.full[self] = None
        return not problem

    def deliver_shared(self, message: Message, group: ShareGroup) -> None:
        """`deliver` for a member of `group` at QoS 1, which the message goes back to if this session ends before it."""
        queue = self.queue
        number = queue.next_number
        self.deliver(message)
        if queue.next_number == number:  # dropped
            return
        shared = self.shared
        if shared is None:
            shared = self.shared = {}
        elif len(shared) > 2 * queue.depth + 16:
            for done in [n for n in shared if n not in queue.messages]:
                del shared[done]
        shared[number] = group

    def take_shared(self) -> list[tuple[Message, ShareGroup]]:
        """What came by shared subscriptions at QoS 1, is not acknowledged and in memory, oldest first; forgets it."""
        shared, self.shared = self.shared or {}, None
        messages = self.queue.messages | (self.shared_away or {})
        return [(messages[number], group) for number, group in shared.items() if number in messages]

    def pump(self) -> None:
        """Send what is due and what the client's window and its socket have room for."""
        connection = self.connection
        if connection is None:
            return
        queue = self.queue
        window = connection.send_window
        window_bytes = self.router.settings.send_window_bytes
        while connection.writable and queue.in_flight < window and queue.large_in_flight_bytes < window_bytes:
            due = queue.next_to_send(self.router.now)
            if due is None:
                return
            number, message = due
            if message is None:
                connection.send_pubrel(number)
            else:
                connection.send_publish(message, number, dup=number < queue.sent_before)

    # ---- coming and going

    def attach(self, connection: Connection) -> None:
        """`connection` is established: what is owed goes out on it, the oldest first."""
        self.connection = connection
        self.disconnected_at = None
        self.shared_away = None
        self.queue.rewind()

    def detach(self, now: float) -> None:
        """The connection is gone; a durable session goes on without."""
        if self.queue.burials is not None and self.connection is not None and self.durable:
            self._suspect_oldest(self.connection)
        self.connection = self.claimed_by = None
        self.disconnected_at = now
        if self.shared and self.durable:
            self._keep_shared(self.shared)
        self.queue.suspend()
        if not self.durable:
            self.inbound = None

    def _suspect_oldest(self, connection: Connection) -> None:
        """A connection that broke: if the same message was the oldest in flight each time, it is what kills the client."""
        queue, end = self.queue, connection.end
        message = queue.messages.get(queue.head) if queue.head < queue.cursor else None
        if end is None or end[0] not in _BROKEN or message is None:
            self.suspect = (0, 0)
            return
        number, deaths = self.suspect
        deaths = deaths + 1 if number == queue.head else 1
        self.suspect = (queue.head, deaths)
        if deaths >= _DEATHS:
            assert queue.burials is not None
            queue.burials.bury(message, KILLED)
            queue.complete(queue.head)
            queue.count_drop(KILLED)
            self.suspect = (0, 0)

    def _keep_shared(self, shared: dict[int, ShareGroup]) -> None:
        """Keep what another member would get, as far as memory goes: the queue is about to leave it to the disk."""
        room = self.router.settings.window_bytes
        kept = self.shared_away = {}
        for number in shared:
            message = self.queue.messages.get(number)
            if message is not None and room > 0:
                kept[number] = message
                room -= len(message.frame)

    # ---- what the store keeps

    def record(self) -> SessionRecord:
        """The session as the store keeps it."""
        return SessionRecord(
            self.session_id,
            self.client_id,
            self.identity,
            self.expiry_interval,
            self.disconnected_at,
            self.will,
            self.will_delay,
            self.username,
            self.groups,
        )

    def subscription_record(self, subscription: Subscription) -> SubscriptionRecord:
        """One of its subscriptions as the store keeps it."""
        return SubscriptionRecord(
            self.session_id,
            subscription.topic_filter,
            subscription.qos,
            subscription.no_local,
            subscription.retain_as_published,
            subscription.subscription_ids[0] if subscription.subscription_ids else 0,
        )
