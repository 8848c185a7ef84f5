"""A client of which nothing is expected; all that it is sent must be MQTT all the same."""

from __future__ import annotations

from edge_broker.errors import MqttError
from edge_broker.wire import const
from edge_broker.wire.packets import Ack, Packet, Publish
from tests.pump.pump import Pump, TestClient


class Stranger(TestClient):
    """Its decoder follows the version of its connection. `publishes`: how many PUBLISH packets have come, read or not."""

    def __init__(self, pump: Pump) -> None:
        super().__init__(pump)
        self.publishes = 0
        self.vanished = False

    def _receive(self, data: bytes) -> None:
        connection, decoder = self.connection, self._decoder
        named = (
            connection.version or connection._decoder.version
        )  # also by a CONNECT that was refused as malformed
        self.version = decoder.version = named or const.MQTT_3_1_1
        decoder.topic_alias_maximum = const.MAX_PACKET_ID if connection.aliases is not None else 0
        decoder.feed(data)
        while True:
            before = decoder.buffered_bytes
            try:
                packet = decoder.next_packet()
            except MqttError as error:
                raise AssertionError(f"it was sent {data!r}, which is not MQTT: {error}") from error
            if packet is None:
                return
            self._look_at(packet, before - decoder.buffered_bytes)

    def _look_at(self, packet: Packet, size: int) -> None:
        limit = self.connection.max_packet_bytes
        assert not limit or size <= limit, f"{packet} is longer than it takes [MQTT-3.1.2-24]"
        if isinstance(packet, Publish):
            self.publishes += 1
        elif isinstance(packet, Ack):  # the decoder uses one object for every PUBACK
            packet = Ack(packet.packet_type, packet.packet_id, packet.reason_code, packet.properties)
        self.inbox.append(packet)

    @property
    def incomplete_bytes(self) -> int:
        """What it was sent of a packet that is not whole."""
        return self._decoder.buffered_bytes

    def send(self, data: bytes, run: bool = True) -> None:
        """As any client; nothing of what comes after the end can be sent."""
        if not self.vanished:
            super().send(data, run)

    def answer(self) -> None:
        """Acknowledge all that is in the inbox, and what comes of that, a few times over."""
        for _ in range(5):
            packets, self.inbox = self.inbox, []
            answers = b""
            for packet in packets:
                if isinstance(packet, Publish) and packet.qos:
                    answers += (b"\x40\x02", b"\x50\x02")[packet.qos - 1] + packet.packet_id.to_bytes(
                        2, "big"
                    )
                elif isinstance(packet, Ack) and packet.packet_type == const.PUBREC:
                    answers += b"\x62\x02" + packet.packet_id.to_bytes(2, "big")
                elif isinstance(packet, Ack) and packet.packet_type == const.PUBREL:
                    answers += b"\x70\x02" + packet.packet_id.to_bytes(2, "big")
            if not answers:
                return
            self.send(answers)

    def vanish(self) -> None:
        """The connection breaks without a word, once."""
        if not self.vanished:
            if self.blocked:
                data, self.unread = self.unread, b""
                self._receive(data)  # lost on the way, and yet it was sent
            self.vanished = True
            super().vanish()

    def unblock(self) -> None:
        """Read again, if there is anything to read from."""
        if self.blocked and not self.vanished:
            super().unblock()
