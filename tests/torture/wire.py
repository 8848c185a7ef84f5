"""The few packets that the torture needs, written and read by hand: the broker's own codec shall not judge itself.

Both protocol versions, without properties but for the session's expiry.
"""

from __future__ import annotations

import struct
from collections.abc import Iterator
from typing import Final, NamedTuple

V3: Final = 4
V5: Final = 5

CONNACK: Final = 0x20
PUBLISH: Final = 0x30
PUBACK: Final = 0x40
PUBREC: Final = 0x50
PUBREL: Final = 0x62
PUBCOMP: Final = 0x70
SUBACK: Final = 0x90

DISCONNECT_PACKET: Final = b"\xe0\x00"
_NEVER_EXPIRES: Final = b"\x05\x11\xff\xff\xff\xff"
_RETAIN: Final = 0x01
_DUP: Final = 0x08


class Packet(NamedTuple):
    """A packet that came: its first byte and what stands behind its length."""

    first: int
    body: bytes

    @property
    def kind(self) -> int:
        """The packet type; of PUBLISH without its flags."""
        return self.first & 0xF0

    @property
    def packet_id(self) -> int:
        """Of an acknowledgement or SUBACK."""
        return int.from_bytes(self.body[:2], "big")

    @property
    def reason_code(self) -> int:
        """Of an acknowledgement."""
        return self.body[2] if len(self.body) > 2 else 0


def connect(client_id: str, version: int, clean: bool) -> bytes:
    """CONNECT without keep alive; a session that is not clean never expires."""
    properties = b"" if version == V3 else b"\x00" if clean else _NEVER_EXPIRES
    body = _string("MQTT") + bytes((version, 2 * clean, 0, 0)) + properties + _string(client_id)
    return _packet(0x10, body)


def subscribe(packet_id: int, topic_filters: list[str], qos: int, version: int) -> bytes:
    """SUBSCRIBE."""
    body = struct.pack(">H", packet_id) + (b"" if version == V3 else b"\x00")
    return _packet(0x82, body + b"".join(_string(one) + bytes((qos,)) for one in topic_filters))


def publish(
    topic: str, payload: bytes, qos: int, packet_id: int, version: int, retain: bool = False
) -> bytes:
    """PUBLISH at QoS 1 or 2."""
    properties = b"" if version == V3 else b"\x00"
    return _packet(
        PUBLISH | qos << 1 | (_RETAIN if retain else 0),
        _string(topic) + struct.pack(">H", packet_id) + properties + payload,
    )


def as_duplicate(publish_packet: bytes) -> bytes:
    """The same PUBLISH, sent again."""
    return bytes((publish_packet[0] | _DUP,)) + publish_packet[1:]


def acknowledgement(first: int, packet_id: int) -> bytes:
    """PUBACK, PUBREC, PUBREL or PUBCOMP with success."""
    return bytes((first, 2)) + struct.pack(">H", packet_id)


def read_publish(packet: Packet, version: int) -> tuple[int, int, bytes]:
    """(qos, packet id, payload) of a PUBLISH."""
    qos = packet.first >> 1 & 3
    body = packet.body
    at = 2 + int.from_bytes(body[:2], "big")
    packet_id = 0
    if qos:
        packet_id = int.from_bytes(body[at : at + 2], "big")
        at += 2
    if version == V5:
        length, at = _length(body, at)
        at += length
    return qos, packet_id, body[at:]


class Parser:
    """Packets out of a stream of bytes."""

    def __init__(self) -> None:
        self._rest = b""

    def feed(self, data: bytes) -> Iterator[Packet]:
        """The packets that are whole now."""
        data = self._rest + data
        at, end = 0, len(data)
        try:
            while at + 2 <= end:
                length, body_at = _length(data, at + 1)
                if body_at + length > end:
                    break
                packet = Packet(data[at], data[body_at : body_at + length])
                at = body_at + length
                yield packet
        except IndexError:  # the length itself is not whole yet
            pass
        self._rest = data[at:]


def _packet(first: int, body: bytes) -> bytes:
    length, digits = len(body), bytearray()
    while length > 0x7F:
        digits.append(length & 0x7F | 0x80)
        length >>= 7
    digits.append(length)
    return bytes((first,)) + digits + body


def _length(data: bytes, at: int) -> tuple[int, int]:
    """The variable byte integer at `at` and where it ends; IndexError where it is cut."""
    value = shift = 0
    while True:
        byte = data[at]
        at += 1
        value |= (byte & 0x7F) << shift
        if byte < 0x80:
            return value, at
        shift += 7


def _string(text: str) -> bytes:
    raw = text.encode()
    return struct.pack(">H", len(raw)) + raw
