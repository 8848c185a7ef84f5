"""Two clients that keep to the protocol: one publishes, the other one gets it, whatever happens around them."""

from __future__ import annotations

from typing import Final

from edge_broker.wire import const
from edge_broker.wire.packets import Ack, Publish
from tests.pump.pump import Pump, TestClient

TOPIC: Final = "honest-7f3a91/c0ffee"
SUBSCRIBER: Final = "honest-subscriber-7f3a91"
PUBLISHER: Final = "honest-publisher-7f3a91"
PREFIX: Final = b"honest "


class Honest:
    """Publisher and subscriber. Their names are nothing that a fuzzer hits upon, and they come as another identity."""

    def __init__(self, pump: Pump) -> None:
        self._pump = pump
        self._sequence = 0
        self.subscriber = pump.client(SUBSCRIBER, username=SUBSCRIBER).subscribed(TOPIC, 2)
        self.publisher = pump.client(PUBLISHER, username=PUBLISHER)
        self.publishes = 0
        """PUBLISH packets that the subscriber got."""

    @property
    def clients(self) -> tuple[TestClient, TestClient]:
        return self.subscriber, self.publisher

    def converse(self) -> None:
        """One message at each QoS arrives, in order and once, and is acknowledged."""
        pump, publisher = self._pump, self.publisher
        expected = []
        for qos in range(3):
            self._sequence += 1
            payload = PREFIX + b"%d" % self._sequence
            expected.append(payload)
            publisher.publish(TOPIC, payload, qos, self._sequence % 60_000 + 1 if qos else 0)
            pump.commit()
            if publisher.connection.paused:  # it has published as often as it may in a second
                pump.wait(1.0)
                pump.commit()
            if qos == 1:
                assert publisher.take_ack(const.PUBACK) == self._sequence % 60_000 + 1
            elif qos == 2:
                publisher.ack(const.PUBREL, publisher.take_ack(const.PUBREC))
                pump.commit()
                publisher.take_ack(const.PUBCOMP)
        received = self._read()
        assert [payload for payload in received if payload.startswith(PREFIX)] == expected
        assert publisher.inbox == []

    def _read(self) -> list[bytes]:
        """The payloads of what has come, each acknowledged as its QoS asks for."""
        payloads = []
        subscriber = self.subscriber
        while subscriber.inbox:
            packet = subscriber.inbox.pop(0)
            if isinstance(packet, Publish):
                payloads.append(packet.payload)
                self.publishes += 1
                if packet.qos:
                    subscriber.ack(const.PUBACK if packet.qos == 1 else const.PUBREC, packet.packet_id)
            else:
                assert isinstance(packet, Ack)
                assert packet.packet_type == const.PUBREL
                subscriber.ack(const.PUBCOMP, packet.packet_id)
        return payloads
