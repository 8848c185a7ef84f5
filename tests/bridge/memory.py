"""A bridge's parts joined in memory: the real router, queue and client, an upstream of packets, a store by hand."""

from collections.abc import Callable, Sequence
from typing import Any

from bridge.config import BridgeConfig, RuleConfig
from bridge.downlink import Downlink
from bridge.forwarder import Forwarder
from bridge.lane import Lane
from bridge.lanes import Lanes
from bridge.mapping import InMapping, OutMapping
from bridge.outbox import Outbox
from bridge.places import parse_place
from bridge.policy_config import PacingConfig
from bridge.priorities import NORMAL
from bridge.sessions import Sessions
from edge_broker.core.client import Client
from edge_broker.core.message import Message, build_message
from edge_broker.core.ops import Page, Snapshot
from edge_broker.core.pending import Pending
from edge_broker.core.queue import Queue
from edge_broker.core.quota import Quota
from edge_broker.core.router import Router
from edge_broker.core.session import Subscription
from edge_broker.core.settings import Settings
from edge_broker.wire import const
from edge_broker.wire.decoder import Decoder
from edge_broker.wire.encoder import encode_ack, encode_connack
from edge_broker.wire.packets import Ack, Connect, Packet
from edge_broker.wire.properties import Properties, encode_properties
from edge_broker.wire.topics import TopicCache

UPSTREAM = "mqtt://upstream:1883"


class Local:
    """A local subscriber. `durable`: what it takes at QoS > 0 is unsafe until the next `Bridged.commit`."""

    online = ready = True
    permissions = None

    def __init__(self, bridged: "Bridged", topic_filter: str, durable: bool) -> None:
        self.durable = durable
        self.messages: list[Message] = []
        self._queue = Queue(bridged.router.new_queue_id(), bridged.pending)
        bridged.router.table.add(Subscription(self, topic_filter, 2))

    def deliver(self, message: Message) -> None:
        self.messages.append(message)
        if self.durable and message.qos:
            self._queue.append(message)


class Bridged:
    """Everything of one bridge but its sockets. The clock stands at `now` until a test moves it."""

    def __init__(
        self,
        out: Sequence[RuleConfig] = (),
        in_: Sequence[RuleConfig] = (),
        *,
        window: int = 10,
        timeout: float = 30.0,
        pacing: PacingConfig = PacingConfig(),  # noqa: B008 - immutable
        settings: Settings | None = None,
        quota: Quota | None = None,
        shares_identifiers: bool = True,
    ) -> None:
        self.pending = Pending(1, 256 << 10)
        self.router = Router(settings or Settings(), self.pending, None, str, TopicCache())  # type: ignore[arg-type]
        self.router.now = 1000.0
        self.given_up: list[tuple[str, str]] = []
        self.retreats: list[int] = []
        self.refused_filters: list[tuple[str, int]] = []
        mapping = OutMapping(out)
        self.queue = Queue(self.router.new_queue_id(), self.pending)
        self.queues = {NORMAL: self.queue}
        for priority in sorted(mapping.priorities - {NORMAL}):
            self.queues[priority] = Queue(self.router.new_queue_id(), self.pending)
        self.outbox = Outbox("cloud", self.queue, mapping, self.router, quota or Quota(), self.queues)
        self.forwarder: Any  # of several queues the `Lanes`
        self.forwarders: dict[int, Forwarder]
        self._make_forwarders(mapping, window, timeout, pacing, shares_identifiers)
        for priority, forwarder in self.forwarders.items():
            forwarder.latest = self.outbox.latest[priority]
        self.outbox.sender = self.forwarder
        self.outbox.wake = self.forwarder.pump
        self.outbox.subscribe()
        nothing = Snapshot(1, [], [], {}, {}, [], [], 1)
        first = parse_place(UPSTREAM)
        self.sessions = Sessions("cloud", first, self.queue.queue_id, self.router, nothing)
        self.downlink = Downlink(
            self.router,
            self.outbox,
            InMapping(in_),
            self.sessions,
            lambda *values: self.refused_filters.append(values),
        )
        self.client: Client
        self.stored: dict[int, Message] = {}
        """Of priority `normal`, by number."""
        self.stored_of: dict[int, dict[int, Message]] = {self.queue.queue_id: self.stored}

    def _make_forwarders(
        self, mapping: OutMapping, window: int, timeout: float, pacing: PacingConfig, shares_identifiers: bool
    ) -> None:
        def on_given_up(*values: str) -> None:
            self.given_up.append((values[0], values[1]))

        if len(self.queues) == 1:
            self.forwarder = Forwarder(self.queue, mapping, self.router, window, timeout, on_given_up, pacing)
            self.forwarders = {NORMAL: self.forwarder}
            return
        config = BridgeConfig(
            urls=("mqtt://h",), window=window, puback_timeout_seconds=timeout, pacing=pacing
        )
        lanes = [
            Lane(priority, queue, mapping, self.router, config, on_given_up)
            for priority, queue in self.queues.items()
        ]
        self.forwarder = Lanes(lanes, window, None if shares_identifiers else self._keep_word)
        self.forwarders = {**self.forwarder.lanes}

    def _keep_word(self, done: Callable[[], None]) -> None:
        self.pending.after_commit(done)

    # ---- the upstream

    def connect(
        self,
        version: int = const.MQTT_5,
        present: bool = True,
        properties: Properties | None = None,
        upstream: str = UPSTREAM,
    ) -> None:
        """The upstream accepts a connection."""
        request = Connect(version, "gateway", False, 60)
        self.client = Client(self, request, self.router.topics, lambda: None)
        self.client.start(self.router.now)
        self.client.take_output(self.router.now)
        self.receive(encode_connack(version, present, 0, properties or {}))
        self.forwarder.attach(self.client, lambda: None, self.retreats.append)
        self.downlink.attach(self.client, self.forwarder.free_packet_id, self.router.now, upstream)

    def disconnect(self) -> None:
        self.client.on_lost("cut")
        self.forwarder.detach()
        self.downlink.detach()

    def receive(self, *packets: bytes) -> None:
        """The upstream sends."""
        self.client.receive(b"".join(packets), self.router.now)

    def sent(self) -> list[Packet]:
        """What the upstream gets at the end of a turn."""
        while self.forwarder.send_due():
            pass
        decoder = Decoder(TopicCache(), 1 << 20, version=self.client.version, publish_type=Message)
        decoder.feed(self.client.take_output(self.router.now))
        packets: list[Packet] = []
        while (packet := decoder.next_packet()) is not None:
            packets.append(Ack(*_parts(packet)) if isinstance(packet, Ack) else packet)
        return packets

    def sent_messages(self) -> list[Message]:
        return [packet for packet in self.sent() if isinstance(packet, Message)]

    def sent_acks(self) -> list[tuple[int, int, int]]:
        """(packet type, packet id, reason code) of each."""
        return [_parts(packet) for packet in self.sent() if isinstance(packet, Ack)]

    def acknowledge(self, *packet_ids: int, reason_code: int = 0, kind: int = const.PUBACK) -> None:
        self.receive(*(encode_ack(self.client.version, kind, number, reason_code) for number in packet_ids))

    # ---- here

    def publish(
        self,
        topic: str,
        payload: bytes = b"",
        qos: int = 1,
        retain: bool = False,
        expiry: int | None = None,
        version: int = const.MQTT_5,
        properties: Properties | None = None,
    ) -> Message:
        """A local client publishes."""
        block = encode_properties(properties or {})
        message = build_message(topic, payload, qos=qos, retain=retain, property_block=block, version=version)
        message.expiry_interval = expiry
        self.router.publish(message, None)
        return message

    def commit(self) -> None:
        """Everything up to now is on disk."""
        sealed = self.pending.seal()
        for write in sealed.batch.queues:
            self.stored_of.setdefault(write.queue_id, {}).update(write.messages)
        self.last_batch = sealed.batch
        sealed.settle()

    def answer_reads(self) -> None:
        """The store answers what was asked of it."""
        reads, self.pending.reads = self.pending.reads, []
        for queue in reads:
            assert queue.reading is not None
            start, end = queue.reading
            stored = self.stored_of.get(queue.queue_id, {})
            messages = [(number, stored[number]) for number in range(start, end) if number in stored]
            queue.take_page(Page(queue.queue_id, messages, end))

    # ---- the client's events, as `bridge.conversation` passes them on

    def on_connected(self, session_present: bool) -> None: ...

    def on_refused(self, reason_code: int, detail: str) -> None: ...

    def on_closed(self, reason_code: int, detail: str) -> None: ...

    def on_message(self, message: Message) -> None:
        self.downlink.on_message(message)

    def on_puback(self, packet_id: int, reason_code: int) -> None:
        self.forwarder.on_puback(packet_id, reason_code)

    def on_pubrec(self, packet_id: int, reason_code: int) -> None:
        self.forwarder.on_pubrec(packet_id, reason_code)

    def on_pubrel(self, packet_id: int) -> None:
        self.downlink.on_pubrel(packet_id)

    def on_pubcomp(self, packet_id: int, reason_code: int) -> None:
        self.forwarder.on_pubcomp(packet_id)

    def on_suback(self, packet_id: int, reason_codes: list[int]) -> None:
        self.downlink.on_suback(packet_id, reason_codes, self.router.now)


def _parts(ack: Ack) -> tuple[int, int, int]:
    return ack.packet_type, ack.packet_id, ack.reason_code


def rule(topic_filter: str, qos: int = 1, local: str = "", remote: str = "", **more: Any) -> RuleConfig:
    return RuleConfig(filter=topic_filter, qos=qos, local_prefix=local, remote_prefix=remote, **more)
