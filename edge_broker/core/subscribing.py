"""SUBSCRIBE and UNSUBSCRIBE [3.8 to 3.11].

A subscription takes effect at once; the SUBACK of a durable session waits until it is on disk. Retained messages follow
the SUBACK, a stretch per turn of the event loop: one SUBSCRIBE may ask for all of them a thousand times over.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable
from functools import partial
from typing import TYPE_CHECKING, Final

from edge_broker.core.permitting import permitted
from edge_broker.core.ports import NEVER
from edge_broker.core.retained import Entry
from edge_broker.core.retained_pages import RetainedPages
from edge_broker.core.session import Session, Subscription
from edge_broker.errors import MqttError, ProtocolError
from edge_broker.wire import const
from edge_broker.wire.encoder import encode_suback, encode_unsuback
from edge_broker.wire.packets import Subscribe, SubscriptionRequest, Unsubscribe
from edge_broker.wire.topics import DELAYED_PREFIX, SHARE_PREFIX, check_topic_filter, split_share

_LONGEST_EXPLANATION: Final = 1000
"""Characters of a reason string."""

if TYPE_CHECKING:
    from edge_broker.core.connection import Connection


def handle_subscribe(connection: Connection, session: Session, packet: Subscribe) -> None:
    """Add each subscription or refuse it, with a reason code of its own [MQTT-3.8.4-5]."""
    reason_codes = []
    wanted: list[Subscription] = []  # those that get retained messages
    ids = tuple(packet.properties.get(const.SUBSCRIPTION_IDENTIFIER, ()))
    if ids and not connection.router.settings.subscription_ids_available:
        raise MqttError(
            const.SUBSCRIPTION_IDENTIFIERS_NOT_SUPPORTED, "a subscription identifier, which we do not offer"
        )
    for request in packet.requests:
        reason_code = _refusal(connection, session, request) or _grant(connection, session, request)
        if reason_code < const.UNSPECIFIED_ERROR:
            subscription = Subscription(
                session, request.topic_filter, reason_code, request.no_local, request.retain_as_published, ids
            )
            is_new = connection.router.subscribe(session, subscription)
            handling = request.retain_handling
            if not subscription.share_name and (handling == 0 or (handling == 1 and is_new)):
                wanted.append(subscription)
        reason_codes.append(reason_code)

    def answer() -> None:
        encode = partial(encode_suback, connection.version, packet.packet_id, reason_codes)
        connection.send_explained(
            encode, _explanation(packet, reason_codes) if connection.wants_reasons else ""
        )
        if wanted and connection.end is None:
            connection.owe_retained(wanted)

    _answer_when_kept(connection, session, answer)


def _explanation(packet: Subscribe, reason_codes: list[int]) -> str:
    """Which filters were refused, and why, in words."""
    return ", ".join(
        f"{request.topic_filter}: {const.REASON_NAMES[reason_code]}"
        for request, reason_code in zip(packet.requests, reason_codes, strict=True)
        if reason_code >= const.UNSPECIFIED_ERROR
    )[:_LONGEST_EXPLANATION]


def _refusal(connection: Connection, session: Session, request: SubscriptionRequest) -> int:
    """Why a subscription cannot be, as a reason code; 0 if it can."""
    settings = connection.router.settings
    topic_filter = request.topic_filter
    try:
        check_topic_filter(topic_filter)
    except MqttError as error:
        return error.reason_code
    if split_share(topic_filter)[1].startswith(DELAYED_PREFIX):
        return const.TOPIC_FILTER_INVALID  # nothing is ever delivered there
    if topic_filter.count("/") >= settings.max_topic_levels:
        return const.TOPIC_FILTER_INVALID
    if len(topic_filter.encode()) > settings.max_topic_bytes:
        return const.TOPIC_FILTER_INVALID
    if topic_filter.startswith(SHARE_PREFIX) and not settings.shared_subscriptions_available:
        return const.SHARED_SUBSCRIPTIONS_NOT_SUPPORTED
    if ("+" in topic_filter or "#" in topic_filter) and not settings.wildcard_subscriptions_available:
        return const.WILDCARD_SUBSCRIPTIONS_NOT_SUPPORTED
    if (
        len(session.subscriptions) >= settings.max_subscriptions_per_client
        and topic_filter not in session.subscriptions
    ):
        return const.QUOTA_EXCEEDED
    if request.no_local and topic_filter.startswith(SHARE_PREFIX):
        raise ProtocolError("no local on a shared subscription")  # [MQTT-3.8.3-4]
    return const.SUCCESS


def _grant(connection: Connection, session: Session, request: SubscriptionRequest) -> int:
    """The QoS that a sound subscription is granted, or the reason code it is refused with."""
    router = connection.router
    qos = min(request.qos, router.settings.maximum_qos)  # [MQTT-3.2.2-10]
    if session.permissions is None:
        return qos
    share_name, topic_filter = split_share(request.topic_filter)
    highest_qos = session.permissions.granted_qos(topic_filter, bool(share_name))
    if highest_qos == NEVER:
        kind = "share" if share_name else "subscribe"
        router.deny(connection, kind, request.topic_filter, session.identity)
        return const.NOT_AUTHORIZED
    return min(qos, highest_qos)


def handle_unsubscribe(connection: Connection, session: Session, packet: Unsubscribe) -> None:
    """Remove each subscription; one that was not there is no error [MQTT-3.11.3-2]."""
    reason_codes = [
        const.SUCCESS
        if connection.router.unsubscribe(session, topic_filter)
        else const.NO_SUBSCRIPTION_EXISTED
        for topic_filter in packet.topic_filters
    ]

    def answer() -> None:
        connection.send(encode_unsuback(connection.version, packet.packet_id, reason_codes))

    _answer_when_kept(connection, session, answer)


def _answer_when_kept(connection: Connection, session: Session, answer: Callable[[], None]) -> None:
    """Call `answer` at once, or for a durable session when what happened is on disk."""
    if session.durable:
        connection.router.pending.after_commit(answer)
    else:
        answer()


class RetainedDelivery:
    """The retained messages that are still to be given to new subscriptions of one connection.

    Those on disk only are waited for, and keep their place in the order. What is left when the connection ends is not
    given: the client has to subscribe again for it.
    """

    __slots__ = ("_connection", "_entries", "_pages", "_session", "_subscriptions")

    def __init__(self, connection: Connection, session: Session) -> None:
        self._connection = connection
        self._session = session
        self._subscriptions: deque[Subscription] = deque()
        self._entries: list[Entry] | None = None  # the first one's; None before they are looked up
        self._pages = RetainedPages(connection)

    def add(self, subscriptions: list[Subscription]) -> None:
        """Give the messages for `subscriptions` behind those for earlier ones."""
        owed = self._subscriptions
        owed.extend(subscriptions)
        if len(owed) > 2 * self._session.router.settings.max_subscriptions_per_client:
            current = self._session.subscriptions  # what was replaced since is not owed any more
            first = owed.popleft()
            self._subscriptions = deque((first, *(s for s in owed if current.get(s.topic_filter) is s)))

    def step(self) -> bool:
        """Give a stretch of them, no more than the client and the store have room for; True if that was all."""
        router = self._connection.router
        settings = router.settings
        work = size_bytes = 0
        while self._subscriptions:
            subscription = self._subscriptions[0]
            if self._entries is None:
                if work and subscription.topic_filter.endswith(("+", "#")):
                    return False  # looking all topics through is work enough for one turn
                self._entries = router.retained.match(subscription.matched_filter)
                work += 1
            is_wanted = self._session.subscriptions.get(subscription.topic_filter) is subscription
            while is_wanted and self._entries:
                is_enough = work > settings.work_budget_retained or size_bytes > settings.max_output_bytes
                if is_enough or self.is_blocked:
                    return False
                entry = self._entries[-1]
                work += 1
                form = permitted(subscription, entry.topic, router.counters)
                if form is not None and router.retained.is_due(entry, router.now):
                    message = self._pages.find(entry)
                    if message is None:
                        self._pages.ask(self._entries)
                        return False
                    router.deliver_retained(message, form)
                    size_bytes += len(message.frame)
                self._entries.pop()
            self._entries = None
            self._subscriptions.popleft()
        return True

    @property
    def is_blocked(self) -> bool:
        """Whether more would only be dropped, or pile up in the queue or before the store, or comes from the disk.

        Whatever makes room then wakes the connection: its socket, an acknowledgement, the next commit, the answer.
        """
        connection = self._connection
        if self._pages.is_waiting:
            return True
        if connection.router.pending.uncommitted_bytes > connection.router.max_uncommitted_bytes:
            return True
        if self._subscriptions and self._subscriptions[0].qos:
            return not self._session.ready
        return not connection.writable
