"""Clients with a durable session that outlive every broker: they connect again at once and go on as MQTT demands.

A `Publisher` keeps a window of messages under way; after a cut it sends again what was not acknowledged, in its order, and
PUBREL where PUBREC had come. Packet identifiers are used again as soon as they may be, the lowest first: a broker that
forgot too late that one was free would take a new message for an old one. A `Subscriber` keeps the packet identifiers of
QoS 2 that it has seen until their PUBREL. Both tell the accountant what they saw.
"""

from __future__ import annotations

import asyncio
import heapq
import random
import struct
from collections.abc import Callable
from typing import Final

from tests.torture import wire
from tests.torture.account import NOTHING_YET, Reader, Stream

_PAUSE_SECONDS: Final = 0.02
_READ_BYTES: Final = 65_536
HEAD: Final = struct.Struct(">BI")
_PAYLOAD_BYTES: Final = (5, 40, 200, 200, 200, 1000, 4000)


class Clock:
    """Which round it is; the first is 1."""

    round_number = 1


class Client:
    """A durable session's client end. `connections`: CONNACKs so far. `forgotten`: how often the broker had no session
    that it had confirmed before."""

    def __init__(self, port: int, client_id: str, version: int) -> None:
        self.client_id, self.version = client_id, version
        self.connections = self.forgotten = 0
        self.connected = False
        self._port = port
        self._known = False  # a CONNACK was seen: the session must be there from then on
        self._writer: asyncio.StreamWriter | None = None
        self._task: asyncio.Task[None] | None = None

    def start(self) -> None:
        """Connect, again and again, until `stop`; nothing where that is so already."""
        if self._task is not None:  # two connections of one client would take the session from each other
            return
        self._task = asyncio.create_task(self._stay_connected(), name=self.client_id)

    async def stop(self, *, politely: bool = False) -> None:
        """Be away; the session stays. `politely`: with a DISCONNECT."""
        task, self._task = self._task, None
        if task is None:
            return
        if politely and self.connected:
            self.send(wire.DISCONNECT_PACKET)
        task.cancel()
        await asyncio.wait([task])

    def send(self, data: bytes) -> None:
        """Write, if there is a connection."""
        if self._writer is not None and not self._writer.is_closing():
            self._writer.write(data)

    async def _stay_connected(self) -> None:
        while True:
            try:
                reader, self._writer = await asyncio.open_connection("127.0.0.1", self._port)
                await self._converse(reader)
            except OSError:
                pass
            finally:
                self.connected = False
                writer, self._writer = self._writer, None
                if writer is not None:
                    writer.close()
            await asyncio.sleep(_PAUSE_SECONDS)

    async def _converse(self, reader: asyncio.StreamReader) -> None:
        parser = wire.Parser()
        self.send(wire.connect(self.client_id, self.version, clean=False))
        while data := await reader.read(_READ_BYTES):
            for packet in parser.feed(data):
                if packet.kind == wire.CONNACK:
                    if packet.body[1]:
                        return  # not taken: the broker is not ready yet
                    self._on_connack(bool(packet.body[0]))
                else:
                    self.on_packet(packet)

    def _on_connack(self, present: bool) -> None:
        if self._known and not present:
            self.forgotten += 1
        self.connections += 1
        self._known = self.connected = True
        self.on_connected(present)

    def on_connected(self, present: bool) -> None:
        """The broker has the session; `present`: from before."""
        raise NotImplementedError

    def on_packet(self, packet: wire.Packet) -> None:
        """Anything but CONNACK."""
        raise NotImplementedError


class Publisher(Client):
    """Publishes `stream`. `window`: how many messages are under way at most; 0 sends nothing new. `room` says how many more
    its readers can take; whoever gives one calls `pump` when there is some again."""

    def __init__(
        self,
        port: int,
        version: int,
        stream: Stream,
        number: int,
        topic: str,
        clock: Clock,
        *,
        retain: bool = False,
    ) -> None:
        super().__init__(port, f"publisher-{stream.name}", version)
        self.stream, self.window = stream, 0
        self.room: Callable[[], int] = lambda: 1
        self._number, self._topic, self._clock, self._retain = number, topic, clock, retain
        self._dice = random.Random(number)
        self._free = list(range(1, 1001))
        # By packet id, in the order in which they were sent: number and PUBLISH, None where PUBREC has come.
        self._under_way: dict[int, tuple[int, bytes | None]] = {}

    @property
    def idle(self) -> bool:
        """Nothing is under way."""
        return not self._under_way

    def pump(self) -> None:
        """Publish as far as the window allows."""
        packets = []
        while self.connected and len(self._under_way) < self.window and self.room() > 0:
            packets.append(self._next())
        if packets:
            self.send(b"".join(packets))

    def publish_one(self) -> None:
        """Publish one message whatever the window."""
        self.send(self._next())

    def _next(self) -> bytes:
        number = self.stream.next_number()
        packet_id = heapq.heappop(self._free)
        payload = HEAD.pack(self._number, number).ljust(self._dice.choice(_PAYLOAD_BYTES), b".")
        packet = wire.publish(self._topic, payload, self.stream.qos, packet_id, self.version, self._retain)
        self._under_way[packet_id] = number, packet
        return packet

    def on_connected(self, present: bool) -> None:
        if not present:  # what was released is the broker's, or lost with it
            for packet_id in [key for key, (_, packet) in self._under_way.items() if packet is None]:
                self._end(packet_id)
        self.send(
            b"".join(
                wire.acknowledgement(wire.PUBREL, packet_id) if packet is None else wire.as_duplicate(packet)
                for packet_id, (_, packet) in self._under_way.items()
            )
        )
        self.pump()

    def on_packet(self, packet: wire.Packet) -> None:
        number, publish = self._under_way.get(packet.packet_id, (0, None))
        if packet.kind == wire.PUBREC and packet.reason_code < 0x80:
            if publish is not None:
                self.stream.acknowledge(number, self._clock.round_number)
                self._under_way[packet.packet_id] = number, None
            self.send(wire.acknowledgement(wire.PUBREL, packet.packet_id))
        elif packet.kind in (wire.PUBACK, wire.PUBREC, wire.PUBCOMP) and number:
            if packet.reason_code >= 0x80 and packet.kind != wire.PUBCOMP:
                self.stream.refused += 1
            elif packet.kind == wire.PUBACK:
                self.stream.acknowledge(number, self._clock.round_number)
            self._end(packet.packet_id)
            self.pump()

    def _end(self, packet_id: int) -> None:
        del self._under_way[packet_id]
        heapq.heappush(self._free, packet_id)


class Subscriber(Client):
    """Tells `reader` what comes, and then calls `on_progress`. `streams`: by the publisher's number in the payload.
    `subscribed`: the session has the subscription, as far as the broker said."""

    def __init__(
        self, port: int, version: int, reader: Reader, streams: dict[int, Stream], topic_filters: list[str]
    ) -> None:
        super().__init__(port, f"reader-{reader.name}", version)
        self.reader, self.subscribed = reader, False
        self._was_subscribed = False
        self.on_progress: Callable[[], None] = lambda: None
        self._streams, self._topic_filters = streams, topic_filters
        self._held: set[int] = set()

    def on_connected(self, present: bool) -> None:
        if not present:
            self._held.clear()
            self.subscribed = False
        if not self.subscribed:
            self.send(wire.subscribe(1, self._topic_filters, 2, self.version))

    def on_packet(self, packet: wire.Packet) -> None:
        if packet.kind == wire.PUBLISH:
            self._on_publish(*wire.read_publish(packet, self.version))
        elif packet.first == wire.PUBREL:
            self._held.discard(packet.packet_id)
            self.send(wire.acknowledgement(wire.PUBCOMP, packet.packet_id))
        elif packet.kind == wire.SUBACK and not self.subscribed:
            self.subscribed = True
            if not self._was_subscribed:
                self._was_subscribed = True
                self.on_subscribed()

    def on_subscribed(self) -> None:
        """The first SUBACK."""

    def _on_publish(self, qos: int, packet_id: int, payload: bytes) -> None:
        if qos != 2 or packet_id not in self._held:
            source, number = HEAD.unpack_from(payload)
            self.reader.take(self._streams[source].name, number)
            self.on_progress()
        if qos == 1:
            self.send(wire.acknowledgement(wire.PUBACK, packet_id))
        elif qos == 2:
            self._held.add(packet_id)
            self.send(wire.acknowledgement(wire.PUBREC, packet_id))


class Newcomer(Subscriber):
    """Makes its session while everything runs: it is owed what is sent after its SUBACK, and nothing before."""

    def __init__(
        self, port: int, version: int, reader: Reader, streams: dict[int, Stream], topic_filters: list[str]
    ) -> None:
        super().__init__(port, version, reader, streams, topic_filters)
        reader.owed = dict.fromkeys(reader.owed, NOTHING_YET)

    def on_subscribed(self) -> None:
        for name, stream in self.reader.streams.items():
            self.reader.owed[name] = stream.sent + 1


async def forget_session(port: int, client: Client) -> None:
    """Have the broker discard a session whose client is away."""
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    writer.write(wire.connect(client.client_id, client.version, clean=True) + wire.DISCONNECT_PACKET)
    while await reader.read(_READ_BYTES):
        pass
    writer.close()


async def read_retained(port: int, topic: str, seconds: float) -> int:
    """The number in the retained message of `topic`; 0 where none comes in time."""
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    writer.write(wire.connect("retained", wire.V3, clean=True) + wire.subscribe(1, [topic], 1, wire.V3))
    parser = wire.Parser()
    try:
        async with asyncio.timeout(seconds):
            while data := await reader.read(_READ_BYTES):
                for packet in parser.feed(data):
                    if packet.kind == wire.PUBLISH and packet.first & 1:
                        _, number = HEAD.unpack_from(wire.read_publish(packet, wire.V3)[2])
                        return int(number)
    except TimeoutError:
        pass
    finally:
        writer.close()
    return 0
