"""From the upstream to here: subscribes to what the `in` rules name, publishes what comes, acknowledges it when it is safe.

What it keeps true:

- A message is acknowledged upstream only when every durable recipient here has it safe, in the order in which they came.
- One of QoS 2 is published once, however often it comes: its packet identifier is kept with the messages themselves, for
  each upstream by itself, and outlives a restart; only when that upstream has no session of ours left is it void.
- What waited upstream while the bridge was away is told from what comes now, and its rule decides what becomes of it.
- A subscription refused upstream is reported; what crosses in the other direction goes on.

The upstream keeps the session, so what it accepts for us while we are away comes later.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from itertools import islice
from typing import TYPE_CHECKING, Final

from bridge.forms import local_form
from bridge.hops import HopLimit
from bridge.lateness import Arrears
from bridge.mapping import InMapping, LocalTopic
from bridge.outbox import Outbox
from bridge.sessions import Sessions, UpstreamSession
from bridge.stamps import Stamp
from edge_broker.core.acknowledging import HeldAcknowledgements
from edge_broker.core.client import Client
from edge_broker.core.message import Message
from edge_broker.errors import MessageRefused
from edge_broker.wire import const
from edge_broker.wire.packets import SubscriptionRequest

if TYPE_CHECKING:
    from edge_broker.core.router import Router

_FILTERS_PER_PACKET: Final = 8
"""Some clusters take no more in one SUBSCRIBE."""


class Downlink:
    """The `in` rules of one bridge. `attach` at each connection, `detach` at its end.

    `received`: messages by QoS; `dropped`: by reason. `subscriptions_refused`: how many filters the upstream did not
    grant when it was asked last; `on_subscription_refused(topic_filter, reason_code)` is called for each. `late`: messages
    that waited upstream, and whose rule does not say that they pass. `limit` and `stamp`: who looks at a message's hops,
    and marks it; None for nobody.
    """

    def __init__(
        self,
        router: Router,
        outbox: Outbox,
        mapping: InMapping,
        sessions: Sessions,
        on_subscription_refused: Callable[[str, int], None],
    ) -> None:
        self.received = [0, 0, 0]
        self.dropped: dict[str, int] = {}
        self.late = 0
        self.subscriptions_refused = 0
        self.limit: HopLimit | None = None
        self.stamp: Stamp | None = None
        self._router = router
        self._outbox = outbox
        self._mapping = mapping
        self._sessions = sessions
        self._session: UpstreamSession  # there, where `_client` is connected
        self._arrears: Arrears | None = None  # what waited there, while some of it may come
        self._pubcomps_held = 0
        self._on_subscription_refused = on_subscription_refused
        self._client: Client | None = None
        self._held = HeldAcknowledgements(_nobody_to_answer)
        self._asked: list[tuple[str, int]] = []
        self._to_ask: list[tuple[str, int]] = []
        self._subscribe_id = 0

    @property
    def waiting(self) -> int:
        """Messages published here that are not safe yet."""
        return len(self._held)

    @property
    def is_subscribed(self) -> bool:
        """Whether the upstream that is there has granted all that the rules name."""
        return self._client is not None and self._session.is_subscribed

    # ---- coming and going of the connection

    def attach(self, client: Client, subscribe_id: int, now: float, upstream: str) -> None:
        """`client` is connected to `upstream`, a URL. `subscribe_id`: a packet identifier that no message in flight has."""
        self._client = client
        self._held = HeldAcknowledgements(partial(self._acknowledge, client))
        self._pubcomps_held = 0
        self._subscribe_id = subscribe_id
        session = self._session = self._sessions.at(upstream)
        if not client.session_present:
            session.forget_inbound()
            session.is_subscribed = False
        elif self._mapping.remote_filters:
            absent_seconds = None if session.left_at is None else now - session.left_at
            if self._mapping.marks_after(absent_seconds):
                self._arrears = Arrears(client, absent_seconds, self._has_answered_all, now)
        if not session.is_subscribed:
            self.subscriptions_refused = 0
            self._to_ask = list(self._mapping.remote_filters.items())
            self._subscribe_to_next(client, now)

    def detach(self) -> None:
        """The connection is gone; what was not acknowledged on it comes again on the next."""
        if self._client is not None:
            self._session.left_at = self._router.now
        self._client = self._arrears = None
        self._held = HeldAcknowledgements(_nobody_to_answer)

    # ---- subscribing

    def _subscribe_to_next(self, client: Client, now: float) -> None:
        self._asked = list(islice(self._to_ask, _FILTERS_PER_PACKET))
        del self._to_ask[: len(self._asked)]
        if not self._asked:
            self._session.is_subscribed = not self.subscriptions_refused
            return
        requests = [
            # Retained messages once, as long as the session lasts; what we sent ourselves not at all (MQTT 5).
            SubscriptionRequest(topic_filter, qos, no_local=True, retain_as_published=True, retain_handling=1)
            for topic_filter, qos in self._asked
        ]
        client.subscribe(self._subscribe_id, requests, now)

    def on_suback(self, packet_id: int, reason_codes: list[int], now: float) -> None:
        """What the upstream granted; the next filters follow."""
        client = self._client
        if client is None or packet_id != self._subscribe_id:
            return
        for (topic_filter, _), reason_code in zip(self._asked, reason_codes, strict=False):
            if reason_code >= 0x80:
                self.subscriptions_refused += 1
                self._on_subscription_refused(topic_filter, reason_code)
        self._subscribe_to_next(client, now)

    # ---- messages

    def on_message(self, message: Message) -> None:
        """Publish `message` here, and acknowledge it when that may be."""
        self.received[message.qos] += 1
        client = self._client
        if client is None:
            return
        if message.qos == 2 and not self._is_new(message):
            return
        is_late = self._arrears is not None and self._arrears.takes(message, self._router.now)
        local = self._form(message, is_late)
        if local is None:
            local = message
        else:
            if message.qos == 2:
                self._router.pending.hold(local)
            self._publish(local)
        if not local.qos:
            return
        if local.unsafe or self._held:
            if len(self._held) >= self._router.settings.receive_maximum and client.version >= const.MQTT_5:
                client.fail(const.RECEIVE_MAXIMUM_EXCEEDED, "more unacknowledged publishes than we allowed")
                return
            self._held.hold(local)
        else:
            self._acknowledge(client, local)

    def _form(self, message: Message, is_late: bool) -> Message | None:
        """`message` as it is published here; None where it is not: a counted loss, or excepted by its rule."""
        topic = self._mapping.find(message.topic)
        if topic is None:
            if not self._mapping.excepts(message.topic):
                self._drop("no_rule")
            return None
        if self.limit is not None and self.limit.refuses(message):
            self._drop("loop")
            return None
        mark = self._late_mark(topic) if is_late else ""
        if mark is None:
            self._drop("late")
            return None
        local = local_form(message, topic, self.stamp, mark)
        if local is None:
            self._drop("not_transformed")
        return local

    def _late_mark(self, topic: LocalTopic) -> str | None:
        """What is to be written on a message that waited upstream, empty for nothing; None where it came too late."""
        arrears = self._arrears
        if (
            arrears is None
            or topic.when_late == "pass"
            or not arrears.is_longer_than(topic.late_after_seconds)
        ):
            return ""
        self.late += 1
        return None if topic.when_late == "drop" else arrears.mark

    def _drop(self, reason: str) -> None:
        self.dropped[reason] = self.dropped.get(reason, 0) + 1

    def _publish(self, local: Message) -> None:
        """Give it to whom it concerns here; what may not be is counted, and acknowledged all the same."""
        if not self._outbox.may_publish(local):
            self._drop("not_authorized")
            return
        try:
            self._router.publish(local, self._outbox)
        except MessageRefused:
            self._drop("refused")

    def _is_new(self, message: Message) -> bool:
        """Whether a QoS 2 message was not here before; then its identifier is noted."""
        packet_id = message.packet_id
        pending = self._router.pending
        if packet_id not in self._session.inbound:
            self._session.receive(packet_id)
            return True
        if packet_id not in self._held:
            # It came on an earlier connection: PUBREC leaves when all until now is on disk.
            pending.hold(message)
            self._held.hold(message)
        return False

    def on_pubrel(self, packet_id: int) -> None:
        """The upstream will not send this one again: forget it, and say so once that is on disk."""
        client = self._client
        if client is None:
            return
        if packet_id not in self._session.inbound:
            unknown = const.PACKET_IDENTIFIER_NOT_FOUND if client.version >= const.MQTT_5 else const.SUCCESS
            client.send_ack(const.PUBCOMP, packet_id, unknown)
            return
        self._session.release(packet_id)
        self._pubcomps_held += 1
        self._router.pending.after_commit(partial(self._send_pubcomp, client, packet_id))

    def _send_pubcomp(self, client: Client, packet_id: int) -> None:
        client.send_ack(const.PUBCOMP, packet_id)
        if client is self._client:
            self._pubcomps_held -= 1
            if self._arrears is not None:
                self._arrears.go_on(self._router.now)

    def _acknowledge(self, client: Client, message: Message) -> None:
        """`message` is safe."""
        client.send_ack(const.PUBACK if message.qos == 1 else const.PUBREC, message.packet_id)
        arrears = self._arrears
        if arrears is not None:
            if arrears.is_over:
                self._arrears = None
            else:
                arrears.go_on(self._router.now)

    def _has_answered_all(self) -> bool:
        return not (self._held or self._session.inbound or self._pubcomps_held)


def _nobody_to_answer(_message: Message) -> None:
    """The connection on which the message came is gone."""
