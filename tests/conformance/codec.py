"""MQTT as bytes once more: the judge's own codec, for 3.1, 3.1.1 and 5.0, which shares nothing with the broker's.

Written from the specifications for clearness alone. `encode` makes what it is told, also what no client may send: odd
flags, properties twice or where they do not belong, strings given as raw bytes. `decode` is strict: whatever a server
may not send is `Malformed`. Packets compare by value; `unittest.mock.ANY` in a field stands for anything.
"""

from __future__ import annotations

import struct
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, Final

from tests.conformance.properties import Malformed, Text, decode_properties, encode_properties, text, varint

V31, V311, V5 = 3, 4, 5
PROTOCOL_NAMES: Final = {V31: "MQIsdp", V311: "MQTT", V5: "MQTT"}

Properties = Mapping[str, Any] | bytes
"""By name, see `properties.TABLE`; a list is the same property several times; bytes are sent as they are."""


@dataclass(frozen=True)
class Will:
    """The will part of a CONNECT."""

    topic: Text
    payload: bytes
    qos: int = 0
    retain: bool = False
    properties: Properties = field(default_factory=dict)


@dataclass(frozen=True)
class Connect:
    """`flags` other than None replaces the byte that follows from the other fields; so do name and level."""

    client_id: Text = ""
    clean: bool = True
    keep_alive: int = 0
    will: Will | None = None
    username: Text | None = None
    password: bytes | None = None
    properties: Properties = field(default_factory=dict)
    flags: int | None = None
    protocol_name: Text | None = None
    protocol_level: int | None = None


@dataclass(frozen=True)
class Connack:
    session_present: bool = False
    code: int = 0
    properties: Properties = field(default_factory=dict)


@dataclass(frozen=True)
class Publish:
    topic: Text
    payload: bytes = b""
    qos: int = 0
    retain: bool = False
    dup: bool = False
    packet_id: int | None = None
    properties: Properties = field(default_factory=dict)


@dataclass(frozen=True)
class Ack:
    """What PUBACK, PUBREC, PUBREL and PUBCOMP have in common. In MQTT 5 a plain success is encoded short."""

    packet_id: int
    code: int = 0
    properties: Properties = field(default_factory=dict)


class Puback(Ack):
    pass


class Pubrec(Ack):
    pass


class Pubrel(Ack):
    pass


class Pubcomp(Ack):
    pass


@dataclass(frozen=True)
class Subscribe:
    """`filters`: pairs of a topic filter and its byte of options (in 3.1.1 the QoS)."""

    packet_id: int
    filters: tuple[tuple[Text, int], ...]
    properties: Properties = field(default_factory=dict)


@dataclass(frozen=True)
class Suback:
    packet_id: int
    codes: tuple[int, ...]
    properties: Properties = field(default_factory=dict)


@dataclass(frozen=True)
class Unsubscribe:
    packet_id: int
    filters: tuple[Text, ...]
    properties: Properties = field(default_factory=dict)


@dataclass(frozen=True)
class Unsuback:
    """`codes` is empty before MQTT 5."""

    packet_id: int
    codes: tuple[int, ...] = ()
    properties: Properties = field(default_factory=dict)


@dataclass(frozen=True)
class Pingreq:
    pass


@dataclass(frozen=True)
class Pingresp:
    pass


@dataclass(frozen=True)
class Disconnect:
    code: int = 0
    properties: Properties = field(default_factory=dict)


@dataclass(frozen=True)
class Auth:
    code: int = 0
    properties: Properties = field(default_factory=dict)


Packet = (
    Connect
    | Connack
    | Publish
    | Ack
    | Subscribe
    | Suback
    | Unsubscribe
    | Unsuback
    | Pingreq
    | Pingresp
    | Disconnect
    | Auth
)

_ACKS: Final[dict[int, type[Ack]]] = {4: Puback, 5: Pubrec, 6: Pubrel, 7: Pubcomp}
_ACK_TYPES: Final = {kind: number for number, kind in _ACKS.items()}


# ---- encoding


def frame(first_byte: int, body: bytes) -> bytes:
    """A packet of any first byte and any body, with the remaining length that is right."""
    return bytes((first_byte,)) + varint(len(body)) + body


def _block(properties: Properties, version: int) -> bytes:
    return encode_properties(properties) if version >= V5 else b""


def encode(packet: Packet, version: int) -> bytes:
    """`packet` as a client of `version` sends it."""
    if isinstance(packet, Connect):
        return frame(0x10, _encode_connect(packet, version))
    if isinstance(packet, Publish):
        first = 0x30 | packet.dup << 3 | packet.qos << 1 | packet.retain
        packet_id = b"" if packet.packet_id is None else struct.pack(">H", packet.packet_id)
        return frame(
            first, text(packet.topic) + packet_id + _block(packet.properties, version) + packet.payload
        )
    if isinstance(packet, Ack):
        number = _ACK_TYPES[type(packet)]
        return frame(number << 4 | (2 if number == 6 else 0), _encode_ack(packet, version))
    if isinstance(packet, Subscribe):
        filters = b"".join(text(name) + bytes((options,)) for name, options in packet.filters)
        return frame(0x82, struct.pack(">H", packet.packet_id) + _block(packet.properties, version) + filters)
    if isinstance(packet, Unsubscribe):
        filters = b"".join(text(name) for name in packet.filters)
        return frame(0xA2, struct.pack(">H", packet.packet_id) + _block(packet.properties, version) + filters)
    if isinstance(packet, Pingreq):
        return frame(0xC0, b"")
    if isinstance(packet, Disconnect | Auth):
        first = 0xE0 if isinstance(packet, Disconnect) else 0xF0
        if version < V5 or not (packet.code or packet.properties):
            return frame(first, b"")
        return frame(first, bytes((packet.code,)) + encode_properties(packet.properties))
    raise TypeError(f"a client does not send {packet}")


def _encode_connect(packet: Connect, version: int) -> bytes:
    will = packet.will
    flags = packet.clean << 1 | (packet.password is not None) << 6 | (packet.username is not None) << 7
    if will is not None:
        flags |= 0x04 | will.qos << 3 | will.retain << 5
    name = PROTOCOL_NAMES[version] if packet.protocol_name is None else packet.protocol_name
    level = version if packet.protocol_level is None else packet.protocol_level
    body = text(name) + bytes((level, flags if packet.flags is None else packet.flags))
    body += struct.pack(">H", packet.keep_alive) + _block(packet.properties, version) + text(packet.client_id)
    if will is not None:
        body += _block(will.properties, version) + text(will.topic) + text(will.payload)
    if packet.username is not None:
        body += text(packet.username)
    if packet.password is not None:
        body += text(packet.password)
    return body


def _encode_ack(packet: Ack, version: int) -> bytes:
    body = struct.pack(">H", packet.packet_id)
    if version >= V5 and (packet.code or packet.properties):
        body += bytes((packet.code,)) + encode_properties(packet.properties)
    return body


# ---- decoding


class Body:
    """What is left of a packet, read from its beginning; `Malformed` where it is too short."""

    def __init__(self, data: bytes, version: int) -> None:
        self.rest, self.version = data, version

    def take(self, size: int) -> bytes:
        if len(self.rest) < size:
            raise Malformed(f"{size} bytes expected, {self.rest!r} left")
        data, self.rest = self.rest[:size], self.rest[size:]
        return data

    def byte(self) -> int:
        return self.take(1)[0]

    def two(self) -> int:
        return int.from_bytes(self.take(2), "big")

    def packet_id(self) -> int:
        value = self.two()
        if not value:
            raise Malformed("packet identifier 0")
        return value

    def text(self) -> str:
        value = self.take(self.two()).decode()  # strict: neither surrogates nor overlong forms
        if "\0" in value:
            raise Malformed("U+0000 in a string")
        return value

    def properties(self, packet: str) -> Mapping[str, Any]:
        """Those of MQTT 5, each one allowed in `packet`; nothing in older versions."""
        if self.version < V5:
            return {}
        found, self.rest = decode_properties(self.rest, packet)
        return found

    def end(self) -> None:
        if self.rest:
            raise Malformed(f"{self.rest!r} is too much")


def decode(data: bytes, version: int) -> Packet:
    """What a server of `version` sent; `data` is one whole packet. `Malformed` where a server may not send that."""
    kind, flags = data[0] >> 4, data[0] & 15
    size, at = 0, 1
    while True:
        size |= (data[at] & 127) << 7 * (at - 1)
        at += 1
        if not data[at - 1] & 128:
            break
    if varint(size) != data[1:at] or at + size != len(data):
        raise Malformed(f"remaining length {data[1:at].hex()} of {len(data)} bytes")
    body = Body(data[at:], version)
    if kind == 3:
        return _decode_publish(body, flags)
    if flags != (2 if kind == 6 else 0):
        raise Malformed(f"flags {flags:04b} in packet type {kind}")
    decoder = _DECODERS.get(kind)
    if decoder is None:
        raise Malformed(f"packet type {kind} is not for a server")
    packet = decoder(body, kind)
    body.end()
    return packet


def _decode_publish(body: Body, flags: int) -> Publish:
    qos, retain, dup = flags >> 1 & 3, bool(flags & 1), bool(flags & 8)
    if qos == 3 or (dup and not qos):
        raise Malformed(f"flags {flags:04b} in PUBLISH")
    topic = body.text()
    if "+" in topic or "#" in topic:
        raise Malformed(f"topic name {topic}")
    packet_id = body.packet_id() if qos else None
    properties = body.properties("PUBLISH")
    if not topic and "topic_alias" not in properties:
        raise Malformed("an empty topic name")
    return Publish(topic, body.rest, qos, retain, dup, packet_id, properties)


def _decode_connack(body: Body, _kind: int) -> Connack:
    flags, code = body.byte(), body.byte()
    if flags > 1:
        raise Malformed(f"CONNACK flags {flags}")
    return Connack(bool(flags), code, body.properties("CONNACK"))


def _decode_ack(body: Body, kind: int) -> Ack:
    packet_id = body.packet_id()
    code = body.byte() if body.version >= V5 and body.rest else 0
    properties = body.properties("ACK") if body.rest else {}
    return _ACKS[kind](packet_id, code, properties)


def _decode_suback(body: Body, kind: int) -> Suback | Unsuback:
    packet_id = body.packet_id()
    properties = body.properties("ACK")
    codes = tuple(body.rest) if kind == 9 or body.version >= V5 else ()
    body.take(len(codes))
    return (Suback if kind == 9 else Unsuback)(packet_id, codes, properties)


def _decode_end(body: Body, kind: int) -> Disconnect | Auth:
    if body.version < V5:
        raise Malformed("a server of that version does not send this")
    name, packet = ("DISCONNECT", Disconnect) if kind == 14 else ("AUTH", Auth)
    code = body.byte() if body.rest else 0
    return packet(code, body.properties(name) if body.rest else {})


_DECODERS: Final[dict[int, Callable[[Body, int], Packet]]] = {
    2: _decode_connack,
    4: _decode_ack,
    5: _decode_ack,
    6: _decode_ack,
    7: _decode_ack,
    9: _decode_suback,
    11: _decode_suback,
    13: lambda _body, _kind: Pingresp(),
    14: _decode_end,
    15: _decode_end,
}
