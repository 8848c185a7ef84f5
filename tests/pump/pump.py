"""Broker core and clients joined in memory: no sockets, no disk, no clock but the test's.

`Pump` is what `broker.py` is around the core: it flushes output, answers reads, wakes connections. Nothing is committed
before the test says so, so that each step of "acknowledged only after commit" can be looked at: `seal`, `settle`, or
`commit` for both. `TestClient` speaks MQTT through the wire package and does nothing on its own.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable
from typing import Any

from edge_broker.core.connection import Connection
from edge_broker.core.pending import Pending, Sealed
from edge_broker.core.ports import Admission, Authorizer, Challenge, Credentials
from edge_broker.core.router import Router
from edge_broker.core.session import Session
from edge_broker.core.settings import Settings
from edge_broker.wire import const
from edge_broker.wire.decoder import Decoder
from edge_broker.wire.encoder import (
    PINGREQ,
    encode_ack,
    encode_connect,
    encode_disconnect,
    encode_publish,
    encode_subscribe,
    encode_unsubscribe,
)
from edge_broker.wire.packets import (
    Ack,
    Connack,
    Connect,
    Packet,
    Publish,
    Suback,
    SubscriptionRequest,
    Will,
)
from edge_broker.wire.properties import Properties, encode_properties
from edge_broker.wire.topics import TopicCache
from tests.pump.model_store import ModelStore

START_SECONDS = 1000.0


class OpenDoor:
    """An authenticator that lets everybody in as their user name. `later` keeps it waiting.

    `groups`: by identity, what else it finds proved; `identities`: by user name, where the identity is another name.
    """

    def __init__(self) -> None:
        self.later = False
        self.groups: dict[str, tuple[str, ...]] = {}
        self.identities: dict[str, str] = {}
        self.waiting: list[Callable[[], None]] = []

    def authenticate(self, credentials: Credentials, answer: Callable[[Admission], None]) -> None:
        if credentials.password == b"wrong":
            admission = Admission(const.BAD_USER_NAME_OR_PASSWORD, detail="wrong password")
        else:
            name = credentials.username or "anonymous"
            identity = self.identities.get(name, name)
            admission = Admission(const.SUCCESS, identity, groups=self.groups.get(identity, ()))
        if self.later:
            self.waiting.append(lambda: answer(admission))
        else:
            answer(admission)

    def begin(self, credentials: Credentials, method: str) -> NameFirst | None:
        return NameFirst(self) if method == "NAME-FIRST" else None


class NameFirst:
    """The authentication method NAME-FIRST: a name, then "who says so?", then the password, which is the name reversed."""

    def __init__(self, door: OpenDoor) -> None:
        self._door = door
        self._name = b""

    def step(self, data: bytes) -> Challenge | Admission:
        if not self._name:
            self._name = data
            return Challenge(b"who says so?")
        if data == self._name[::-1]:
            identity = self._name.decode()
            return Admission(
                const.SUCCESS, identity, data=b"welcome", groups=self._door.groups.get(identity, ())
            )
        return Admission(const.NOT_AUTHORIZED, detail="a secret reason")


class Pump:
    """One broker without anything around it. `store` outlives `crash`."""

    def __init__(self, store: ModelStore | None = None, **limits: Any) -> None:
        self.store = ModelStore() if store is None else store
        self.window_bytes: int = limits.pop("window_bytes", 256 << 10)
        self.max_uncommitted_bytes: int = limits.pop("max_uncommitted_bytes", 32 << 20)
        self.authorizer: Authorizer | None = limits.pop("authorizer", None)
        self.page_messages: int = limits.pop("page_messages", 1000)
        self.settings = Settings(window_bytes=self.window_bytes, **limits)
        self.now = START_SECONDS
        self.door = OpenDoor()
        self.sealed: deque[Sealed] = deque()
        self._start()

    def _start(self) -> None:
        snapshot = self.store.snapshot()
        names = iter(f"auto-{number}" for number in range(1000))
        self.pending = Pending(snapshot.epoch, self.window_bytes)
        self.router = Router(
            self.settings,
            self.pending,
            self.door,
            new_client_id=lambda: next(names),
            topics=TopicCache(),
            authorizer=self.authorizer,
            max_uncommitted_bytes=self.max_uncommitted_bytes,
            next_queue_id=snapshot.next_queue_id,
        )
        self.router.now = self.now
        self.router.restore(snapshot)
        self.clients: list[TestClient] = []
        self.sealed.clear()

    # ---- time and power

    def wait(self, seconds: float) -> None:
        """Let time pass: whatever falls due, falls due, and the once-a-second work is done."""
        self.now += seconds
        for client in list(self.clients):
            client.connection.check_idle(self.now)
        self.router.sweep(self.now)
        self.run()

    def crash(self) -> Pump:
        """Everything in memory is gone; start again on what was committed."""
        self._start()
        return self

    # ---- the store

    def seal(self) -> Sealed:
        """Take what is pending as a batch, which is not on disk yet."""
        sealed = self.pending.seal()
        self.sealed.append(sealed)
        return sealed

    def settle(self) -> None:
        """The oldest sealed batch reaches the disk."""
        sealed = self.sealed.popleft()
        self.store.apply(sealed.batch)
        self.router.now = self.now
        sealed.settle()
        self.router.on_settled()
        self.run()

    def commit(self) -> None:
        """Commit until nothing is pending, and answer all reads."""
        pending = self.pending
        while self.sealed or not pending.empty or pending.reads or pending.lookups or pending.retained_reads:
            while self.sealed:
                self.settle()
            if not self.pending.empty:
                self.seal()
            self.answer_reads()

    def answer_reads(self) -> None:
        """Give each queue the page that it asked for, and new subscribers their retained messages."""
        queues, self.pending.reads = self.pending.reads, []
        for queue in queues:
            assert queue.reading is not None
            queue.take_page(self.store.read_page(queue.queue_id, queue.reading[0], self.page_messages))
        lookups, self.pending.lookups = self.pending.lookups, []
        for lookup in lookups:
            self.router.now = self.now
            count = min(lookup.max_messages, self.page_messages)
            lookup.take(self.store.read_page(lookup.queue_id, lookup.from_number, count))
        deliveries, self.pending.retained_reads = self.pending.retained_reads, []
        for pages in deliveries:
            if pages.wanted:
                pages.take(self.store.read_retained(pages.wanted))
        self.run()

    # ---- the event loop

    def run(self) -> None:
        """Turns of the event loop, until nothing happens any more."""
        while True:
            awake = [client for client in self.clients if client.awake]
            for client in awake:
                client.awake = client.connection.take_turn()
            dirty, self.router.dirty = self.router.dirty, []
            for connection in dirty:
                connection.flush()
            if not awake and not dirty:
                return

    # ---- shortcuts

    def client(self, client_id: str = "", **options: Any) -> TestClient:
        """A client that is connected: CONNECT is answered, and everything committed."""
        client = TestClient(self)
        client.connect(client_id, **options)
        self.commit()
        assert client.take(Connack).reason_code == const.SUCCESS
        return client

    def session(self, client_id: str) -> Session:
        return self.router.sessions[client_id]

    @property
    def dropped(self) -> dict[str, int]:
        """Messages dropped so far, by reason."""
        return {reason: count for reason, count in self.router.counters.dropped.items() if count}

    @property
    def refused(self) -> dict[str, int]:
        return self.router.counters.refused


class TestClient:
    """The other end of one connection. `inbox`: packets received and not taken yet, oldest first."""

    __test__ = False

    def __init__(self, pump: Pump) -> None:
        self.pump = pump
        self.inbox: list[Packet] = []
        self.closed = self.lost = False
        self.awake = False
        self.blocked = False  # the socket takes nothing: what the broker writes stays in `unread`
        self.unread = b""
        self.bytes_received = 0
        self.version = const.MQTT_5
        self.connection = Connection(pump.router, self, pump.now, "192.0.2.1:5000", "test")
        self._decoder = Decoder(
            TopicCache(), const.MAX_REMAINING_LENGTH, version=const.MQTT_5, from_server=True
        )
        pump.clients.append(self)

    # ---- what the core calls (Outlet)

    def write(self, data: bytes) -> None:
        if self.lost:
            return
        assert not self.closed
        if self.blocked:
            self.unread += data
            return
        self._receive(data)

    def close(self) -> None:
        self.closed = True

    def wake(self) -> None:
        self.awake = True

    def encryption(self) -> None:
        """It is in memory."""

    def _receive(self, data: bytes) -> None:
        self.bytes_received += len(data)
        self._decoder.feed(data)
        while (packet := self._decoder.next_packet()) is not None:
            if isinstance(packet, Ack):  # the decoder uses one object for every PUBACK
                packet = Ack(packet.packet_type, packet.packet_id, packet.reason_code, packet.properties)
            self.inbox.append(packet)

    # ---- sending

    def send(self, data: bytes, run: bool = True) -> None:
        """Bytes to the broker, and the event loop's turns that follow."""
        if self.connection.end is None:
            self.awake = self.connection.receive(data, self.pump.now) or self.awake
        if run:
            self.pump.run()

    def connect(
        self,
        client_id: str = "",
        *,
        version: int = const.MQTT_5,
        clean: bool = True,
        keep_alive: int = 0,
        expiry: int | None = None,
        will: Will | None = None,
        username: str | None = None,
        password: bytes | None = None,
        properties: Properties | None = None,
    ) -> None:
        """CONNECT. `expiry`: the session expiry interval of MQTT 5."""
        self.version = self._decoder.version = version
        properties = dict(properties or {})
        self._decoder.topic_alias_maximum = properties.get(const.TOPIC_ALIAS_MAXIMUM, 0)
        if expiry is not None:
            properties[const.SESSION_EXPIRY_INTERVAL] = expiry
        self.send(
            encode_connect(
                Connect(version, client_id, clean, keep_alive, username, password, will, properties)
            )
        )

    def publish(
        self,
        topic: str,
        payload: bytes = b"x",
        qos: int = 0,
        packet_id: int = 0,
        *,
        retain: bool = False,
        dup: bool = False,
        properties: Properties | None = None,
        run: bool = True,
    ) -> None:
        """PUBLISH; `packet_id` is 1 where QoS asks for one and none is given."""
        packet_id = packet_id or (1 if qos else 0)
        block = encode_properties(properties or {})
        self.send(encode_publish(self.version, topic, payload, qos, retain, dup, packet_id, block), run)

    def subscribe(
        self, topic_filter: str, qos: int = 0, *, packet_id: int = 1, identifier: int = 0, **options: Any
    ) -> None:
        """SUBSCRIBE to one filter, without looking at the answer."""
        request = SubscriptionRequest(topic_filter, qos, **options)
        properties = {const.SUBSCRIPTION_IDENTIFIER: [identifier]} if identifier else {}
        self.send(encode_subscribe(self.version, packet_id, [request], properties))

    def subscribed(self, topic_filter: str, qos: int = 0, **options: Any) -> TestClient:
        """SUBSCRIBE to one filter, and see that it was granted."""
        self.subscribe(topic_filter, qos, **options)
        self.pump.commit()
        assert self.take(Suback).reason_codes == [qos]
        return self

    def unsubscribe(self, topic_filter: str, packet_id: int = 1) -> None:
        self.send(encode_unsubscribe(self.version, packet_id, [topic_filter]))

    def ack(self, packet_type: int, packet_id: int, reason_code: int = const.SUCCESS) -> None:
        """PUBACK, PUBREC, PUBREL or PUBCOMP."""
        self.send(encode_ack(self.version, packet_type, packet_id, reason_code))

    def ping(self) -> None:
        self.send(PINGREQ)

    def disconnect(self, reason_code: int = const.SUCCESS, expiry: int | None = None) -> None:
        """DISCONNECT in due form."""
        properties = {} if expiry is None else {const.SESSION_EXPIRY_INTERVAL: expiry}
        self.send(encode_disconnect(self.version, reason_code, properties))

    def vanish(self) -> None:
        """The connection breaks without a word."""
        self.closed = self.lost = True
        self.connection.on_lost("the connection was lost")
        self.pump.run()

    def block(self) -> None:
        """Stop reading: the transport's buffer is full."""
        self.blocked = True
        self.connection.on_writable(False)

    def unblock(self) -> None:
        """Read again."""
        self.blocked = False
        data, self.unread = self.unread, b""
        self._receive(data)
        self.connection.on_writable(True)
        self.pump.run()

    # ---- receiving

    def take(self, kind: type[Any], packet_type: int | None = None) -> Any:
        """The oldest packet, which is of class `kind` (and `packet_type`), out of the inbox."""
        assert self.inbox, f"no {kind.__name__} here"
        packet = self.inbox.pop(0)
        assert isinstance(packet, kind), f"{describe(packet)} instead of {kind.__name__}"
        if packet_type is not None:
            assert packet.packet_type == packet_type, f"{describe(packet)} instead of type {packet_type}"
        return packet

    def take_ack(self, packet_type: int) -> int:
        """The packet identifier of the acknowledgement that comes next, with reason code 0."""
        ack = self.take(Ack, packet_type)
        assert ack.reason_code == const.SUCCESS
        return int(ack.packet_id)

    def take_payloads(self) -> list[bytes]:
        """The payloads of everything in the inbox, all of which is PUBLISH."""
        packets, self.inbox = self.inbox, []
        assert all(isinstance(packet, Publish) for packet in packets), [describe(p) for p in packets]
        return [packet.payload for packet in packets if isinstance(packet, Publish)]

    def take_and_ack(self) -> list[bytes]:
        """The same, and every QoS 1 message acknowledged, until no more comes."""
        payloads = []
        while self.inbox:
            publish = self.take(Publish)
            payloads.append(publish.payload)
            if publish.qos == 1:
                self.ack(const.PUBACK, publish.packet_id)
        return payloads

    @property
    def types(self) -> list[str]:
        """What is in the inbox, by name."""
        return [describe(packet) for packet in self.inbox]


def describe(packet: Packet) -> str:
    """A packet in a few words, for messages of failing tests."""
    if isinstance(packet, Publish):
        return f"PUBLISH {packet.packet_id} QoS {packet.qos} {packet.payload[:20]!r}"
    if isinstance(packet, Ack):
        return f"{const.PACKET_NAMES[packet.packet_type]} {packet.packet_id}"
    return type(packet).__name__.upper()
