"""MQTT 5 properties: a block of bytes to a dict and back [MQTT 5 section 2.2.2].

`Properties` maps a property identifier (``wire.const``) to its value: int for the integer kinds, str, bytes, a list of
(name, value) pairs for user properties, a list of ints for subscription identifiers. A block is decoded with the packet
type that carries it, so that a property in the wrong packet, or twice where once is allowed, is refused here.
"""

from __future__ import annotations

from typing import Any, Final

from edge_broker.errors import MalformedPacket, MqttError, ProtocolError
from edge_broker.wire import const
from edge_broker.wire.topics import decode_utf8

Properties = dict[int, Any]

ANY_NUMBER: Final = 1 << 30
"""No limit for user properties: the packet's own length bounds them."""

WILL: Final = 0
"""Stands for the will's own block where a packet type is asked for."""

_BYTE: Final = 0
_TWO: Final = 1
_FOUR: Final = 2
_VARINT: Final = 3
_STRING: Final = 4
_BINARY: Final = 5
_PAIR: Final = 6

_EVERY_REPLY: Final = frozenset(
    (
        const.CONNACK,
        const.PUBACK,
        const.PUBREC,
        const.PUBREL,
        const.PUBCOMP,
        const.SUBACK,
        const.UNSUBACK,
        const.DISCONNECT,
        const.AUTH,
    )
)
_MESSAGE: Final = frozenset((const.PUBLISH, WILL))
_EVERYWHERE: Final = _EVERY_REPLY | _MESSAGE | {const.CONNECT, const.SUBSCRIBE, const.UNSUBSCRIBE}
_CONNACK: Final = frozenset((const.CONNACK,))
_CONNECT: Final = frozenset((const.CONNECT,))
_BOTH_CONNECTS: Final = _CONNECT | _CONNACK

_TABLE: Final[dict[int, tuple[int, frozenset[int]]]] = {
    const.PAYLOAD_FORMAT_INDICATOR: (_BYTE, _MESSAGE),
    const.MESSAGE_EXPIRY_INTERVAL: (_FOUR, _MESSAGE),
    const.CONTENT_TYPE: (_STRING, _MESSAGE),
    const.RESPONSE_TOPIC: (_STRING, _MESSAGE),
    const.CORRELATION_DATA: (_BINARY, _MESSAGE),
    const.SUBSCRIPTION_IDENTIFIER: (_VARINT, frozenset((const.PUBLISH, const.SUBSCRIBE))),
    const.SESSION_EXPIRY_INTERVAL: (_FOUR, _BOTH_CONNECTS | {const.DISCONNECT}),
    const.ASSIGNED_CLIENT_IDENTIFIER: (_STRING, _CONNACK),
    const.SERVER_KEEP_ALIVE: (_TWO, _CONNACK),
    const.AUTHENTICATION_METHOD: (_STRING, _BOTH_CONNECTS | {const.AUTH}),
    const.AUTHENTICATION_DATA: (_BINARY, _BOTH_CONNECTS | {const.AUTH}),
    const.REQUEST_PROBLEM_INFORMATION: (_BYTE, _CONNECT),
    const.WILL_DELAY_INTERVAL: (_FOUR, frozenset((WILL,))),
    const.REQUEST_RESPONSE_INFORMATION: (_BYTE, _CONNECT),
    const.RESPONSE_INFORMATION: (_STRING, _CONNACK),
    const.SERVER_REFERENCE: (_STRING, _CONNACK | {const.DISCONNECT}),
    const.REASON_STRING: (_STRING, _EVERY_REPLY),
    const.RECEIVE_MAXIMUM: (_TWO, _BOTH_CONNECTS),
    const.TOPIC_ALIAS_MAXIMUM: (_TWO, _BOTH_CONNECTS),
    const.TOPIC_ALIAS: (_TWO, frozenset((const.PUBLISH,))),
    const.MAXIMUM_QOS: (_BYTE, _CONNACK),
    const.RETAIN_AVAILABLE: (_BYTE, _CONNACK),
    const.USER_PROPERTY: (_PAIR, _EVERYWHERE),
    const.MAXIMUM_PACKET_SIZE: (_FOUR, _BOTH_CONNECTS),
    const.WILDCARD_SUBSCRIPTION_AVAILABLE: (_BYTE, _CONNACK),
    const.SUBSCRIPTION_IDENTIFIER_AVAILABLE: (_BYTE, _CONNACK),
    const.SHARED_SUBSCRIPTION_AVAILABLE: (_BYTE, _CONNACK),
}
_FLAGS: Final = frozenset(identifier for identifier, (kind, _) in _TABLE.items() if kind == _BYTE)
_NEVER_ZERO: Final = frozenset(
    (const.RECEIVE_MAXIMUM, const.MAXIMUM_PACKET_SIZE, const.SUBSCRIPTION_IDENTIFIER)
)


def decode_varint(data: bytes, at: int, end: int) -> tuple[int, int]:
    """A variable byte integer at `at`: (value, offset after it). `MalformedPacket` if cut, too long or padded."""
    value = shift = 0
    while True:
        if at >= end:
            raise MalformedPacket("a variable byte integer is cut off")
        byte = data[at]
        at += 1
        value |= (byte & 0x7F) << shift
        if byte < 0x80:
            if byte == 0 and shift:
                raise MalformedPacket(
                    "a variable byte integer is longer than it needs to be"
                )  # [MQTT-1.5.5-1]
            return value, at
        shift += 7
        if shift > 21:
            raise MalformedPacket("a variable byte integer of more than four bytes")


def encode_varint(value: int) -> bytes:
    """`value` (0 to 268,435,455) as a variable byte integer [1.5.5]."""
    if value < 0x80:
        return bytes((value,))
    encoded = bytearray()
    while value >= 0x80:
        encoded.append(value & 0x7F | 0x80)
        value >>= 7
    encoded.append(value)
    return bytes(encoded)


def decode_binary(data: bytes, at: int, end: int) -> tuple[bytes, int]:
    """Binary data with its two-byte length at `at`: (value, offset after it)."""
    if at + 2 > end:
        raise MalformedPacket("a length is cut off")
    start = at + 2
    stop = start + (data[at] << 8 | data[at + 1])
    if stop > end:
        raise MalformedPacket("a string or binary value is cut off")
    return data[start:stop], stop


def decode_string(data: bytes, at: int, end: int) -> tuple[str, int]:
    """A UTF-8 encoded string at `at`: (text, offset after it)."""
    raw, stop = decode_binary(data, at, end)
    return decode_utf8(raw), stop


def encode_binary(value: bytes) -> bytes:
    """`value` (at most 65,535 bytes) behind its two-byte length."""
    return len(value).to_bytes(2, "big") + value


def encode_string(text: str) -> bytes:
    """`text` as a UTF-8 encoded string."""
    return encode_binary(text.encode())


def decode_properties(
    data: bytes, at: int, end: int, packet_type: int, max_user_properties: int = ANY_NUMBER
) -> tuple[Properties, int]:
    """The property block at `at`, length first, of a packet of `packet_type` (or `WILL`): (properties, offset after).

    `MqttError` with quota exceeded for more than `max_user_properties`, before they take memory.
    """
    length, at = decode_varint(data, at, end)
    stop = at + length
    if stop > end:
        raise MalformedPacket("the property length is longer than the packet")
    properties: Properties = {}
    while at < stop:
        identifier, at = decode_varint(data, at, stop)
        value, at = _decode_value(data, at, stop, identifier, packet_type)
        if identifier == const.USER_PROPERTY or (
            identifier == const.SUBSCRIPTION_IDENTIFIER and packet_type == const.PUBLISH
        ):
            values = properties.setdefault(identifier, [])
            values.append(value)
            if len(values) > max_user_properties:
                raise MqttError(const.QUOTA_EXCEEDED, "more properties than we allow")
        elif identifier in properties:
            raise ProtocolError(f"property 0x{identifier:02x} more than once")
        else:
            properties[identifier] = [value] if identifier == const.SUBSCRIPTION_IDENTIFIER else value
    return properties, stop


def _decode_value(data: bytes, at: int, end: int, identifier: int, packet_type: int) -> tuple[Any, int]:
    entry = _TABLE.get(identifier)
    if entry is None or packet_type not in entry[1]:
        place = const.PACKET_NAMES[packet_type] if packet_type != WILL else "a will"
        raise MalformedPacket(f"property 0x{identifier:02x} has no place in {place}")
    kind = entry[0]
    value: Any
    if kind == _STRING:
        return decode_string(data, at, end)
    if kind == _PAIR:
        name, at = decode_string(data, at, end)
        text, at = decode_string(data, at, end)
        return (name, text), at
    if kind == _BINARY:
        return decode_binary(data, at, end)
    if kind == _VARINT:
        value, at = decode_varint(data, at, end)
    else:
        size = 1 << kind
        if at + size > end:
            raise MalformedPacket(f"property 0x{identifier:02x} is cut off")
        value = int.from_bytes(data[at : at + size], "big")
        at += size
    if (value == 0 and identifier in _NEVER_ZERO) or (value > 1 and identifier in _FLAGS):
        raise ProtocolError(f"property 0x{identifier:02x} cannot be {value}")
    return value, at


def encode_properties(properties: Properties) -> bytes:
    """A property block, its length first. Values as in `Properties`; a value out of its kind's range is a bug here."""
    if not properties:
        return b"\0"
    body = b"".join(_encode_property(identifier, value) for identifier, value in properties.items())
    return encode_varint(len(body)) + body


def _encode_property(identifier: int, value: Any) -> bytes:
    kind = _TABLE[identifier][0]
    tag = bytes((identifier,))
    if kind == _PAIR:
        return b"".join(tag + encode_string(name) + encode_string(text) for name, text in value)
    if kind == _VARINT:
        return b"".join(tag + encode_varint(number) for number in value)
    if kind == _STRING:
        return tag + encode_string(value)
    if kind == _BINARY:
        return tag + encode_binary(value)
    return tag + int(value).to_bytes(1 << kind, "big")
