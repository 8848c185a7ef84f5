"""The other end of a socket, honest or not: MQTT 5 by hand, packet by packet, and nothing on its own."""

from __future__ import annotations

import select
import socket
import struct
import time
from typing import Any, Self

from edge_broker.errors import MqttError
from edge_broker.wire import const
from edge_broker.wire.decoder import Decoder
from edge_broker.wire.encoder import (
    PINGREQ,
    encode_ack,
    encode_connect,
    encode_publish,
    encode_subscribe,
)
from edge_broker.wire.packets import Ack, Connack, Connect, Ping, Publish, Suback, SubscriptionRequest, Will
from edge_broker.wire.properties import Properties
from edge_broker.wire.topics import TopicCache

WAIT_SECONDS = 20.0
V5 = const.MQTT_5
LITTLE_BUFFER_BYTES = 4096


class Peer:
    """One connection. With `little_buffer` the kernel takes a few KB for it: what is not read stays with the broker."""

    def __init__(self, port: int, *, little_buffer: bool = False) -> None:
        self.sock = socket.socket()
        if little_buffer:
            self.sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, LITTLE_BUFFER_BYTES)
        self.sock.settimeout(WAIT_SECONDS)
        self.sock.connect(("127.0.0.1", port))
        self.sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self._decoder = Decoder(TopicCache(), const.MAX_REMAINING_LENGTH, V5, from_server=True)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.sock.close()

    # ---- sending

    def connect(
        self,
        client_id: str,
        *,
        clean: bool = True,
        keep_alive: int = 0,
        expiry: int = 0,
        receive_maximum: int = 0,
        will: Will | None = None,
    ) -> Connack:
        """CONNECT, and the answer, which admits."""
        properties: Properties = {}
        if expiry:
            properties[const.SESSION_EXPIRY_INTERVAL] = expiry
        if receive_maximum:
            properties[const.RECEIVE_MAXIMUM] = receive_maximum
        self.send(encode_connect(Connect(V5, client_id, clean, keep_alive, will=will, properties=properties)))
        connack = self.expect(Connack)
        assert connack.reason_code == const.SUCCESS
        return connack

    def subscribe(self, topic_filter: str, qos: int = 0) -> Self:
        self.send(encode_subscribe(V5, 1, [SubscriptionRequest(topic_filter, qos)]))
        assert self.expect(Suback).reason_codes == [qos]
        return self

    def send(self, data: bytes) -> None:
        self.sock.sendall(data)

    def publish(self, topic: str, payload: bytes, qos: int = 0, packet_id: int = 0) -> None:
        """PUBLISH, without looking at the answer."""
        self.send(encode_publish(V5, topic, payload, qos, packet_id=packet_id or (1 if qos else 0)))

    def ack(self, packet_type: int, packet_id: int) -> None:
        self.send(encode_ack(V5, packet_type, packet_id))

    def ping(self) -> None:
        """PINGREQ, and the answer: the broker has handled all that came before it."""
        self.send(PINGREQ)
        self.expect(Ping)

    # ---- receiving

    def receive(self) -> Any:
        """The next packet; EOFError where the broker has closed, TimeoutError where nothing comes."""
        while (packet := self._decoder.next_packet()) is None:
            try:
                data = self.sock.recv(1 << 16)
            except ConnectionError:
                data = b""
            if not data:
                raise EOFError
            self._decoder.feed(data)
        if isinstance(packet, Ack):  # the decoder uses one object for every PUBACK
            packet = Ack(packet.packet_type, packet.packet_id, packet.reason_code, packet.properties)
        return packet

    def expect(self, kind: type[Any]) -> Any:
        """The next packet, which is of class `kind`."""
        packet = self.receive()
        assert isinstance(packet, kind), f"{packet} instead of {kind.__name__}"
        return packet

    def expect_ack(self, packet_type: int) -> Ack:
        """The next packet, which is of type `packet_type`."""
        packet = self.receive()
        assert isinstance(packet, Ack), packet
        assert packet.packet_type == packet_type, const.PACKET_NAMES[packet.packet_type]
        return packet

    def read_to_the_end(self) -> list[Any]:
        """Every packet until the broker closes."""
        packets = []
        try:
            while True:
                packets.append(self.receive())
        except EOFError:
            return packets
        except MqttError as error:
            raise AssertionError("what the broker sends is not MQTT") from error

    @property
    def has_something(self) -> bool:
        """Whether there is a packet, or the end, to be read now."""
        return bool(self._decoder.buffered_bytes or select.select([self.sock], [], [], 0)[0])

    # ---- going

    def reset(self) -> None:
        """Close with a TCP reset, at once."""
        self.sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        self.sock.close()


class Pair:
    """A publisher and a subscriber that keep to the protocol; `round_trip` sees that a message makes its way."""

    def __init__(self, port: int) -> None:
        self.subscriber = Peer(port)
        self.subscriber.connect("honest-subscriber")
        self.subscriber.subscribe("honest", 1)
        self.publisher = Peer(port)
        self.publisher.connect("honest-publisher")
        self._sequence = 0

    def __enter__(self) -> Self:
        self.round_trip()
        return self

    def __exit__(self, error: type[BaseException] | None, *_: object) -> None:
        if error is None:
            self.round_trip()
        self.subscriber.sock.close()
        self.publisher.sock.close()

    def round_trip(self) -> float:
        """One message at QoS 1 from publisher to subscriber, acknowledged on both sides; seconds that it took."""
        self._sequence += 1
        payload = b"%d" % self._sequence
        packet_id = (self._sequence - 1) % const.MAX_PACKET_ID + 1
        begun_at = time.perf_counter()
        self.publisher.publish("honest", payload, 1, packet_id)
        publish = self.subscriber.expect(Publish)
        took = time.perf_counter() - begun_at
        assert publish.payload == payload
        self.subscriber.ack(const.PUBACK, publish.packet_id)
        assert self.publisher.expect_ack(const.PUBACK).packet_id == packet_id
        return took
