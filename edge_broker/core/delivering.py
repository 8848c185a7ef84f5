"""From a message to those who subscribed: looked up, formed as each wants it, delivered.

- Who rejects what it has no room for is asked before anybody gets the message: either all do or nobody does.
- What came at QoS 2 reaches durable queues at once, and all others only when its packet identifier is committed.
- A retained message is kept before it is delivered; what has options is formed for each, all else goes as it came.

Permissions are in the routes already (`routing`). Nobody is acknowledged here: `message.unsafe` says whether that may be.
"""

from __future__ import annotations

from collections.abc import Iterable
from functools import partial
from typing import TYPE_CHECKING

from edge_broker.core.counters import Counters
from edge_broker.core.durable_queues import DurableQueues
from edge_broker.core.message import Message, build_message
from edge_broker.core.retained import Retained
from edge_broker.core.routing import Route, RoutingTable, ShareGroup
from edge_broker.core.session import Recipient, Session, Subscription
from edge_broker.errors import MqttError, NotPermitted, QueueFull
from edge_broker.wire import const
from edge_broker.wire.topics import DELAYED_PREFIX, is_own

if TYPE_CHECKING:
    from edge_broker.core.delayed import Delayed
    from edge_broker.core.pending import Pending
    from edge_broker.core.settings import Settings
    from edge_broker.core.totals import Totals


class Delivering(DurableQueues):
    """The router's second floor: the way of a message. `now` is the clock as of the last thing that happened."""

    __slots__ = ("_routes", "counters", "delayed", "full", "now", "received", "retained", "sent", "table")

    delayed: Delayed

    def __init__(self, settings: Settings, pending: Pending, next_queue_id: int) -> None:
        super().__init__(settings, pending, next_queue_id)
        self.now = 0.0
        self.counters = Counters()
        self.received = self.counters.received
        self.sent = self.counters.sent
        self.table = RoutingTable(settings.durabilities, self.counters)
        self._routes = self.table.routes
        self.retained = Retained(settings, pending, self.counters)
        self.full: dict[Recipient | Totals, None] = {}  # whose queues may reject what comes
        if self.totals is not None:
            self.full[self.totals] = None

    def publish(self, message: Message, publisher: Recipient | None) -> int:
        """Deliver `message` to all who subscribed; returns to how many. Look at `message.unsafe` before acknowledging.

        `MqttError` for a topic that no client may use, `MessageRefused` for a message that is not taken.
        """
        route = self._routes.get(message.topic)
        if route is None:
            if message.topic.startswith(DELAYED_PREFIX):
                return self.delayed.take(message, publisher)
            route = self._find_route(message.topic, publisher)
        plain = route.plain
        qos = message.qos
        if qos and self.full:
            self._require_room(route, len(message.frame))
        if plain is None or message.retain or qos == 2 or message.expiry_interval is not None:
            return self._publish_with_care(message, route, publisher)
        message.received_at = self.now
        if qos and len(plain) > 1:
            message.parts_for(message.version, self.now)  # made once for all
        for deliver, granted in plain:
            deliver(message if granted >= qos else message.variant(granted, False))
        return len(plain)

    def _require_room(self, route: Route, size_bytes: int) -> None:
        """`MessageRefused` where a queue that rejects what it has no room for would get the message: then nobody does."""
        full, totals = self.full, self.totals
        for recipient in [recipient for recipient in full if not recipient.may_reject]:
            del full[recipient]
        is_store_full = totals is not None and not totals.has_room(size_bytes)
        if not is_store_full and len(full) == (totals is not None):
            return
        for subscription in route.subscriptions:
            recipient = subscription.recipient
            if subscription.qos and (is_store_full or recipient in full) and recipient.rejects(size_bytes):
                raise QueueFull(const.QUOTA_EXCEEDED, "a subscriber's queue is full")

    def _find_route(self, topic: str, publisher: Recipient | None) -> Route:
        """The route of a topic that is not remembered; `MqttError` where a client goes deeper or longer than it may."""
        self.check_topic(topic, publisher)
        return self.table.find(topic)

    def check_topic(self, topic: str, publisher: Recipient | None) -> None:
        """Refuse what no client may publish to: `MqttError`, `MessageRefused`."""
        if isinstance(publisher, Session):
            settings = self.settings
            if topic.count("/") >= settings.max_topic_levels:
                raise MqttError(const.TOPIC_NAME_INVALID, "a topic of more levels than we allow")
            if len(topic) * 4 > settings.max_topic_bytes and len(topic.encode()) > settings.max_topic_bytes:
                raise MqttError(const.TOPIC_NAME_INVALID, "a longer topic than we allow")
            if is_own(topic):
                raise NotPermitted("publish", "a topic that only the broker publishes to")

    def _form(self, message: Message, subscription: Subscription) -> Message:
        """`message` as `subscription` gets it."""
        return message.variant(
            min(message.qos, subscription.qos),
            message.retain and subscription.retain_as_published,
            subscription.subscription_ids,
        )

    def _publish_with_care(self, message: Message, route: Route, publisher: Recipient | None) -> int:
        """The way of what is retained, expires, is shared, or goes to subscriptions with options; and of QoS 2.

        A message received at QoS 2 goes into durable queues at once, which wait for the commit themselves, and to all
        others only when its packet id is committed.
        """
        message.received_at = self.now
        if message.expiry_interval is not None:
            message.expires_at = self.now + message.expiry_interval
        message.volatile = route.volatile
        if message.retain:
            self.retained.retain(message)
        subscriptions = route.subscriptions
        if publisher is not None:
            own = [s.for_own_messages() if s.recipient is publisher else s for s in subscriptions]
            subscriptions = [s for s in own if s is not None]
        if message.qos < 2:
            self._deliver_to(message, subscriptions, route.groups)
        else:
            self._deliver_in_two_steps(message, subscriptions, route.groups)
        return len(subscriptions) + len(route.groups)

    def _deliver_in_two_steps(
        self, message: Message, subscriptions: list[Subscription], groups: list[ShareGroup]
    ) -> None:
        """QoS 2: durable queues take it at once, so that it is theirs in the commit that its PUBREC waits for."""
        at_once = [s for s in subscriptions if s.recipient.durable and s.qos]
        later = [s for s in subscriptions if not (s.recipient.durable and s.qos)]
        groups_later = []
        for group in groups:
            subscription = group.choose()
            if subscription is not None and subscription.recipient.durable and subscription.qos:
                at_once.append(subscription)
            else:
                groups_later.append(group)  # its member of now may be gone by then
        self._deliver_to(message, at_once)
        if (later or groups_later) and message.unsafe:
            self.pending.after_commit(partial(self._deliver_to, message, later, groups_later))
        else:
            self._deliver_to(message, later, groups_later)

    def _deliver_to(
        self, message: Message, subscriptions: list[Subscription], groups: Iterable[ShareGroup] = ()
    ) -> None:
        for subscription in subscriptions:
            subscription.recipient.deliver(self._form(message, subscription))
        for group in groups:
            self._deliver_to_one_of(group, message)
        if message.retain:
            message.forget_variants()  # it stays

    def deliver_to(self, message: Message, route: Route) -> None:
        """Give a message of our own to the recipients of `route`."""
        self._deliver_to(message, route.subscriptions, route.groups)

    def _deliver_to_one_of(self, group: ShareGroup, message: Message) -> None:
        """Give `message` to one member of a shared subscription [MQTT-4.8.2-4]."""
        subscription = group.choose()
        if subscription is None:  # the last one left while the message waited for its commit
            self.counters.drop("session_ended")
            return
        recipient = subscription.recipient
        form = self._form(message, subscription)
        if form.qos == 1 and isinstance(recipient, Session):
            recipient.deliver_shared(form, group)
        else:
            recipient.deliver(form)

    # ---- retained messages

    @property
    def retained_messages(self) -> int:
        """Topics with a retained message, but for those that the broker publishes of itself."""
        return self.retained.count

    @property
    def retained_bytes(self) -> int:
        """Their packets' bytes, in memory or on disk only."""
        return self.retained.size_bytes

    def publish_system(self, topic: str, payload: bytes) -> None:
        """Publish what the broker says of itself: retained in memory only, delivered at QoS 0, never stored."""
        message = build_message(topic, payload, retain=True)
        message.received_at = self.now
        self.retained.set_system(message)
        self.deliver_to(message, self.table.find(topic))

    def deliver_retained(self, message: Message, subscription: Subscription) -> None:
        """Give a new subscription one of the retained messages that it matches [3.3.1.3]."""
        qos = min(message.qos, subscription.qos)
        subscription.recipient.deliver(message.copy(qos, True, subscription.subscription_ids))
