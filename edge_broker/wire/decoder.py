"""Bytes to packets: `Decoder` takes whatever the socket gave and hands out whole, well-formed packets one by one.

It keeps these promises: a packet comes out only when complete; a packet longer than allowed is refused as soon as its
length is known, before its body is kept; whatever is malformed raises `MqttError` and nothing else, and after that the
decoder is not used again. It knows the form of every packet of both directions, never whether one may come now.

PUBLISH and the plain PUBACK are decoded here, since they are nearly all of the traffic; the others in ``wire.bodies``.
"""

from __future__ import annotations

from typing import Final

from edge_broker.errors import MalformedPacket, MqttError, PacketTooLarge, ProtocolError
from edge_broker.wire import const
from edge_broker.wire.bodies import connect_level, decode_body
from edge_broker.wire.encoder import encode_publish
from edge_broker.wire.packets import Ack, Connect, Packet, Publish
from edge_broker.wire.properties import ANY_NUMBER, Properties, decode_properties, encode_properties
from edge_broker.wire.pubacks import PUBACK_BYTES, PUBACKS, PubackRun, take_pubacks
from edge_broker.wire.topics import Likeness, TopicCache, check_topic_name

_OWN_TO_THE_HOP: Final = frozenset(
    (const.TOPIC_ALIAS, const.MESSAGE_EXPIRY_INTERVAL, const.SUBSCRIPTION_IDENTIFIER)
)
"""Properties that a message does not carry on as they came: `Publish.frame` is built anew without them."""

_LONGEST_KEPT_BYTES: Final = 512
"""An idle connection keeps no more than this of a chunk already handed out, and of a property block to compare with."""


_LONGEST_ALIKE_BYTES: Final = 16_386
"""The longest packet whose remaining length takes two bytes: longer ones are not compared with those before them."""


class Decoder:
    """One direction of one connection.

    `version` is 0 until a CONNECT has been decoded; a client sets it. `topic_alias_maximum` is what we told the peer.
    `publish_type` lets the receiver have its own subclass of `Publish` built directly.
    """

    __slots__ = (
        "_aliases",
        "_buffer",
        "_from_server",
        "_like",
        "_likenesses",
        "_max_user_properties",
        "_names",
        "_needed",
        "_puback",
        "_publish_type",
        "_tail",
        "_topics",
        "_valid_block",
        "at",
        "max_packet_bytes",
        "more",
        "topic_alias_maximum",
        "version",
    )

    def __init__(
        self,
        topics: TopicCache,
        max_packet_bytes: int,
        version: int = 0,
        topic_alias_maximum: int = 0,
        publish_type: type[Publish] = Publish,
        from_server: bool = False,
        max_user_properties: int = ANY_NUMBER,
    ) -> None:
        self.version = version
        self.max_packet_bytes = max_packet_bytes
        self.topic_alias_maximum = topic_alias_maximum
        self._max_user_properties = max_user_properties
        self._publish_type = publish_type
        self._from_server = from_server
        self._topics = topics
        self._names = topics.names
        self._likenesses = self._choose_likenesses()
        self._like: Likeness | None = None  # of the plain PUBLISH before: who has one topic asks no table
        self._aliases: dict[int, str] | None = None
        self._valid_block = b"\0"
        self._puback = Ack(const.PUBACK, 0)
        self._buffer = b""
        self.at = 0  # how far `_buffer` is handled; read by whoever works within a budget
        self.more = False  # whether `_buffer` has bytes that were not handed out
        self._needed = 0  # bytes that the packet at `at` is known to take, while it is incomplete
        self._tail = bytearray()  # what came behind `_buffer`, joined to it once that packet is complete

    def _choose_likenesses(self) -> dict[bytes, Likeness]:
        """Those shared with all connections of this form, or our own where our limit could be lower than theirs."""
        if self.max_packet_bytes <= _LONGEST_ALIKE_BYTES:
            return {}
        return self._topics.likenesses[self.version >= const.MQTT_5]

    def feed(self, data: bytes) -> None:
        """Take the next bytes of the stream."""
        self.more = True
        buffer = self._buffer
        at = self.at
        if at == len(buffer):
            self._buffer = data
            self.at = 0
            return
        if self._needed:  # a packet over many chunks is put together once, not once per chunk
            tail = self._tail
            tail += data
            if len(buffer) - at + len(tail) < self._needed:
                return
            self._buffer = buffer[at:] + tail
            self._needed = 0
            tail.clear()
        else:
            self._buffer = buffer[at:] + data
        self.at = 0

    def take_whole(self, data: bytes) -> Publish | PubackRun | None:
        """The packet that `data` is, if it is one whole PUBLISH like one before, or plain PUBACKs in order.

        None for anything else, and while earlier bytes wait: then `data` was not taken, and `feed` is for it.
        """
        if self.more:
            return None
        size = len(data)
        like = self._like
        if like is None or not data.startswith(like[0]):
            if size == PUBACK_BYTES:
                packet_id = data[2] << 8 | data[3]
                return (packet_id, 1) if packet_id and data == PUBACKS[packet_id] else None
            if size < PUBACK_BYTES:
                return None
            if data[0] == 0x40:
                return take_pubacks(data)
            like = self._find_like(data, 0)
            if like is None:
                return None
        _, known_size, topic, packet_id_at, payload_at, qos, retain = like
        version = self.version
        if known_size != size or (version >= const.MQTT_5 and data[payload_at - 1]):
            return None
        packet_id = 0
        if qos:
            packet_id = data[packet_id_at] << 8 | data[packet_id_at + 1]
            if not packet_id:
                return None
        return self._publish_type(data, version, topic, packet_id_at, payload_at, qos, retain, packet_id)

    def _find_like(self, data: bytes, at: int) -> Likeness | None:
        """What is known of packets that begin like the PUBLISH at `at`, of which five bytes are there at least."""
        topic_at = at + 4 if data[at + 1] < 0x80 else at + 5
        like = self._likenesses.get(data[at : topic_at + (data[topic_at - 2] << 8 | data[topic_at - 1])])
        if like is not None:
            self._like = like
        return like

    @property
    def waiting_for(self) -> int:
        """The first byte of the packet that has begun and is not whole yet; -1 where none has."""
        return self._buffer[self.at] if self.at < len(self._buffer) else -1

    @property
    def buffered_bytes(self) -> int:
        """Bytes taken and not yet handed out as packets."""
        return len(self._buffer) - self.at + len(self._tail)

    def next_packet(self) -> Packet | None:
        """The next whole packet, or None until more is fed.

        A plain PUBACK is the same `Ack` object each time: read it before asking again.
        """
        buffer = self._buffer
        at = self.at
        have = len(buffer)
        if have - at < 2:
            self.more = at < have
            if at > _LONGEST_KEPT_BYTES:
                self._buffer = buffer[at:]
                self.at = 0
            return None
        first = buffer[at]
        if first < 0x40 and have - at > 4:
            # A PUBLISH, by all likelihood: one that begins just like a sound one before it is as sound.
            like = self._like
            if like is None or not buffer.startswith(like[0], at):
                like = self._find_like(buffer, at)
            if like is not None and at + like[1] <= have:
                publish = self._decode_alike(buffer, at, like)
                if publish is not None:
                    self.at = end = at + like[1]
                    self.more = end < have
                    return publish
        length = buffer[at + 1]
        body = at + 2
        if length >= 0x80:
            found = _long_length(buffer, at + 1, have)
            if found is None:
                return None
            length, body = found
        end = body + length
        if end - at > self.max_packet_bytes:
            raise PacketTooLarge(end - at, self.max_packet_bytes)
        if end > have:
            self._needed = end - at
            if at:
                self._buffer = buffer[at:]
                self.at = 0
            return None
        self.at = end
        self.more = end < have
        if first & 0xF0 == 0x30:
            return self._decode_publish(buffer, first, at, body, end)
        if first == 0x40 and length == 2:
            packet_id = buffer[body] << 8 | buffer[body + 1]
            if not packet_id:
                raise MalformedPacket("packet identifier 0")
            ack = self._puback
            ack.packet_id = packet_id
            return ack
        if first >> 4 == const.CONNECT and not self.version:
            self.version = connect_level(buffer[body:end])  # also of one that turns out to be malformed
        packet = decode_body(first, buffer[body:end], self.version, self._max_user_properties)
        if type(packet) is Connect:
            self.version = packet.version
            self._likenesses = self._choose_likenesses()
            self._like = None
        return packet

    def _decode_alike(self, buffer: bytes, at: int, like: Likeness) -> Publish | None:
        """The whole PUBLISH at `at`, whose beginning is known; None where what follows is not as plain."""
        _, size, topic, packet_id_at, payload_at, qos, retain = like
        packet_id = 0
        if qos:
            packet_id = buffer[at + packet_id_at] << 8 | buffer[at + packet_id_at + 1]
            if not packet_id:
                return None
        version = self.version
        if version >= const.MQTT_5 and buffer[at + payload_at - 1]:  # it has properties
            return None
        frame = buffer[at : at + size]
        return self._publish_type(frame, version, topic, packet_id_at, payload_at, qos, retain, packet_id)

    def _decode_publish(self, buffer: bytes, first: int, at: int, body: int, end: int) -> Publish:
        topic_at = body + 2
        if topic_at > end:
            raise MalformedPacket("PUBLISH is cut off")
        topic_end = topic_at + (buffer[body] << 8 | buffer[body + 1])
        qos = first >> 1 & 3
        payload_at = topic_end
        packet_id = 0
        if qos:
            payload_at += 2
            if payload_at > end:
                raise MalformedPacket("PUBLISH is cut off")
            packet_id = buffer[topic_end] << 8 | buffer[topic_end + 1]
            if not packet_id:
                raise MalformedPacket("packet identifier 0")  # [MQTT-2.2.1-2]
            if qos == 3:
                raise MalformedPacket("QoS 3")  # [MQTT-3.3.1-4]
        elif first & const.FLAG_DUP:
            raise MalformedPacket("DUP at QoS 0")  # [MQTT-3.3.1-2]
        if topic_end > end:
            raise MalformedPacket("PUBLISH is cut off")
        raw_topic = buffer[topic_at:topic_end]
        if self.version >= const.MQTT_5:
            if payload_at >= end:
                raise MalformedPacket("PUBLISH without a property length")
            if buffer[payload_at] or not raw_topic:
                return self._decode_publish_with_properties(
                    buffer[at:end], raw_topic, topic_end - at, payload_at - at
                )
            payload_at += 1
        topic = self._names.get(raw_topic)
        if topic is None:
            topic = self._topics.name(raw_topic)
        retain = first & const.FLAG_RETAIN == 1
        publish = self._publish_type(
            buffer[at:end], self.version, topic, topic_end - at, payload_at - at, qos, retain, packet_id
        )
        if first & const.FLAG_DUP:
            _clear_dup(publish)
        elif body - at <= 3:
            head = buffer[at:topic_end]
            like = (head, end - at, topic, topic_end - at, payload_at - at, qos, retain)
            self._topics.remember(self._likenesses, like)
        return publish

    def _decode_publish_with_properties(
        self, frame: bytes, raw_topic: bytes, packet_id_at: int, properties_at: int
    ) -> Publish:
        """MQTT 5 with properties: checked, and the frame built anew where some of them end here."""
        first = frame[0]
        qos = first >> 1 & 3
        packet_id = int.from_bytes(frame[packet_id_at:properties_at], "big")
        dup = first & const.FLAG_DUP != 0
        retain = first & const.FLAG_RETAIN != 0
        block = self._valid_block
        if raw_topic and len(block) > 1 and frame.startswith(block, properties_at):
            topic = self._topics.name(raw_topic)  # and the very block checked last: nothing in it ends here
            payload_at = properties_at + len(block)
        else:
            properties, payload_at = decode_properties(
                frame, properties_at, len(frame), const.PUBLISH, self._max_user_properties
            )
            if const.RESPONSE_TOPIC in properties:
                check_topic_name(properties[const.RESPONSE_TOPIC])  # [MQTT-3.3.2-14]
            topic = self._resolve_topic(raw_topic, properties.get(const.TOPIC_ALIAS))
            if not _OWN_TO_THE_HOP.isdisjoint(properties):
                payload = frame[payload_at:]
                return self._build_publish(topic, payload, qos, retain, packet_id, dup, properties)
            if payload_at - properties_at <= _LONGEST_KEPT_BYTES:
                self._valid_block = frame[properties_at:payload_at]
        publish = self._publish_type(
            frame, self.version, topic, packet_id_at, payload_at, qos, retain, packet_id
        )
        if dup:
            _clear_dup(publish)
        return publish

    def _build_publish(
        self,
        topic: str,
        payload: bytes,
        qos: int,
        retain: bool,
        packet_id: int,
        dup: bool,
        properties: Properties,
    ) -> Publish:
        """A PUBLISH whose frame is new: with its topic written out, and without what is of this hop only."""
        kept = {key: value for key, value in properties.items() if key not in _OWN_TO_THE_HOP}
        block = encode_properties(kept)
        frame = encode_publish(self.version, topic, payload, qos, retain, False, packet_id, block)
        payload_at = len(frame) - len(payload)
        packet_id_at = payload_at - len(block) - (2 if qos else 0)
        publish = self._publish_type(
            frame, self.version, topic, packet_id_at, payload_at, qos, retain, packet_id
        )
        publish.dup = dup
        if const.MESSAGE_EXPIRY_INTERVAL in properties:
            publish.expiry_interval = properties[const.MESSAGE_EXPIRY_INTERVAL]
        if const.SUBSCRIPTION_IDENTIFIER in properties:
            if not self._from_server:
                raise ProtocolError("a subscription identifier in a client's PUBLISH")  # [MQTT-3.3.4-6]
            publish.subscription_ids = tuple(properties[const.SUBSCRIPTION_IDENTIFIER])
        return publish

    def _resolve_topic(self, raw_topic: bytes, alias: int | None) -> str:
        if alias is None:
            if not raw_topic:
                raise ProtocolError("PUBLISH with neither topic nor alias")
            return self._topics.name(raw_topic)
        if not 0 < alias <= self.topic_alias_maximum:  # [MQTT-3.3.2-8, -9]
            raise MqttError(const.TOPIC_ALIAS_INVALID, f"topic alias {alias}")
        aliases = self._aliases
        if aliases is None:
            aliases = self._aliases = {}
        if raw_topic:
            topic = aliases[alias] = self._topics.name(raw_topic)
            return topic
        known = aliases.get(alias)
        if known is None:
            raise ProtocolError(f"topic alias {alias} was never set")
        return known


def _long_length(buffer: bytes, at: int, have: int) -> tuple[int, int] | None:
    """A remaining length of several bytes at `at`: (length, offset after it), or None while it is not all there."""
    length = shift = 0
    while at < have:
        byte = buffer[at]
        at += 1
        length |= (byte & 0x7F) << shift
        if byte < 0x80:
            if not byte:  # [MQTT-1.5.5-1]: and the frame may leave again as it came
                raise MalformedPacket("a remaining length is longer than it needs to be")
            return length, at
        shift += 7
        if shift > 21:
            raise MalformedPacket("a remaining length of more than four bytes")
    return None


def _clear_dup(publish: Publish) -> None:
    """DUP tells of this hop only: the flag moves from the frame to `publish.dup`."""
    publish.dup = True
    publish.frame = bytes((publish.frame[0] & ~const.FLAG_DUP,)) + publish.frame[1:]
