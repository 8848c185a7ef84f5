"""From the upstream to here: subscribes to what the `in` rules name, publishes what comes, acknowledges it when it is safe.

What it keeps true:

- A message is acknowledged upstream only when every durable recipient here has it safe, in the order in which they came.
- One of QoS 2 is published once, however often it comes: its packet identifier is kept with the messages themselves,
  under the outbox's queue, and outlives a restart; only when the upstream has no session of ours left is it void.
- A subscription refused upstream is reported; what crosses in the other direction goes on.

The upstream keeps the session, so what it accepts for us while we are away comes later.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from itertools import islice
from typing import TYPE_CHECKING, Final

from bridge.forms import local_form
from bridge.mapping import InMapping
from bridge.outbox import Outbox
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
    grant when it was asked last; `on_subscription_refused(topic_filter, reason_code)` is called for each.
    """

    def __init__(
        self,
        router: Router,
        outbox: Outbox,
        mapping: InMapping,
        inbound: set[int],
        on_subscription_refused: Callable[[str, int], None],
    ) -> None:
        self.received = [0, 0, 0]
        self.dropped: dict[str, int] = {}
        self.subscriptions_refused = 0
        self._router = router
        self._outbox = outbox
        self._mapping = mapping
        self._inbound = inbound  # packet ids of QoS 2 messages whose PUBREL has not come
        self._on_subscription_refused = on_subscription_refused
        self._subscribed = False
        self._client: Client | None = None
        self._held = HeldAcknowledgements(_nobody_to_answer)
        self._asked: list[tuple[str, int]] = []
        self._to_ask: list[tuple[str, int]] = []
        self._subscribe_id = 0

    @property
    def waiting(self) -> int:
        """Messages published here that are not safe yet."""
        return len(self._held)

    # ---- coming and going of the connection

    def attach(self, client: Client, subscribe_id: int, now: float) -> None:
        """`client` is connected. `subscribe_id`: a packet identifier that no message in flight uses."""
        self._client = client
        self._held = HeldAcknowledgements(partial(self._acknowledge, client))
        self._subscribe_id = subscribe_id
        if not client.session_present:
            self._forget_inbound()
            self._subscribed = False
        if not self._subscribed:
            self.subscriptions_refused = 0
            self._to_ask = list(self._mapping.remote_filters.items())
            self._subscribe_to_next(client, now)

    def detach(self) -> None:
        """The connection is gone; what was not acknowledged on it comes again on the next."""
        self._client = None
        self._held = HeldAcknowledgements(_nobody_to_answer)

    def _forget_inbound(self) -> None:
        """The upstream has no session of ours: it will use these identifiers for other messages."""
        for packet_id in self._inbound:
            self._router.pending.release_id(self._outbox.queue.queue_id, packet_id)
        self._inbound.clear()

    # ---- subscribing

    def _subscribe_to_next(self, client: Client, now: float) -> None:
        self._asked = list(islice(self._to_ask, _FILTERS_PER_PACKET))
        del self._to_ask[: len(self._asked)]
        if not self._asked:
            self._subscribed = not self.subscriptions_refused
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
        topic = self._mapping.find(message.topic)
        if topic is None:
            self.dropped["no_rule"] = self.dropped.get("no_rule", 0) + 1
            local = message
        else:
            local = local_form(message, topic)
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

    def _publish(self, local: Message) -> None:
        """Give it to whom it concerns here; what may not be is counted, and acknowledged all the same."""
        if not self._outbox.may_publish(local):
            self.dropped["not_authorized"] = self.dropped.get("not_authorized", 0) + 1
            return
        try:
            self._router.publish(local, self._outbox)
        except MessageRefused:
            self.dropped["refused"] = self.dropped.get("refused", 0) + 1

    def _is_new(self, message: Message) -> bool:
        """Whether a QoS 2 message was not here before; then its identifier is noted."""
        packet_id = message.packet_id
        pending = self._router.pending
        if packet_id not in self._inbound:
            self._inbound.add(packet_id)
            pending.receive_id(self._outbox.queue.queue_id, packet_id)
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
        if packet_id not in self._inbound:
            unknown = const.PACKET_IDENTIFIER_NOT_FOUND if client.version >= const.MQTT_5 else const.SUCCESS
            client.send_ack(const.PUBCOMP, packet_id, unknown)
            return
        self._inbound.remove(packet_id)
        pending = self._router.pending
        pending.release_id(self._outbox.queue.queue_id, packet_id)
        pending.after_commit(partial(client.send_ack, const.PUBCOMP, packet_id))

    def _acknowledge(self, client: Client, message: Message) -> None:
        """`message` is safe."""
        client.send_ack(const.PUBACK if message.qos == 1 else const.PUBREC, message.packet_id)


def _nobody_to_answer(_message: Message) -> None:
    """The connection on which the message came is gone."""
