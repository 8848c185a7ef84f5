"""The properties of MQTT 5 as bytes: part of the judge's own codec.

`TABLE` is the specification's table 2-4, as far as packets of a server are concerned. Encoding obeys whoever writes the
test; decoding checks that a server may send each property in that packet, once.
"""

from __future__ import annotations

import struct
from collections.abc import Mapping
from typing import Any, Final, NamedTuple

Text = str | bytes
"""A string as it goes on the wire; bytes are sent as they are, well-formed or not."""


class Malformed(AssertionError):
    """The broker sent what no server may send."""


class Property(NamedTuple):
    """`kind`: byte, two, four, varint, text, binary or pair. `packets`: those of a server that may have it."""

    number: int
    kind: str
    packets: frozenset[str]
    repeated: bool = False


def _property(number: int, kind: str, packets: str = "", repeated: bool = False) -> Property:
    return Property(number, kind, frozenset(packets.split()), repeated)


TABLE: Final = {
    "payload_format_indicator": _property(0x01, "byte", "PUBLISH"),
    "message_expiry_interval": _property(0x02, "four", "PUBLISH"),
    "content_type": _property(0x03, "text", "PUBLISH"),
    "response_topic": _property(0x08, "text", "PUBLISH"),
    "correlation_data": _property(0x09, "binary", "PUBLISH"),
    "subscription_identifier": _property(0x0B, "varint", "PUBLISH", True),
    "session_expiry_interval": _property(0x11, "four", "CONNACK"),
    "assigned_client_identifier": _property(0x12, "text", "CONNACK"),
    "server_keep_alive": _property(0x13, "two", "CONNACK"),
    "authentication_method": _property(0x15, "text", "CONNACK AUTH"),
    "authentication_data": _property(0x16, "binary", "CONNACK AUTH"),
    "request_problem_information": _property(0x17, "byte"),
    "will_delay_interval": _property(0x18, "four"),
    "request_response_information": _property(0x19, "byte"),
    "response_information": _property(0x1A, "text", "CONNACK"),
    "server_reference": _property(0x1C, "text", "CONNACK DISCONNECT"),
    "reason_string": _property(0x1F, "text", "CONNACK ACK DISCONNECT AUTH"),
    "receive_maximum": _property(0x21, "two", "CONNACK"),
    "topic_alias_maximum": _property(0x22, "two", "CONNACK"),
    "topic_alias": _property(0x23, "two", "PUBLISH"),
    "maximum_qos": _property(0x24, "byte", "CONNACK"),
    "retain_available": _property(0x25, "byte", "CONNACK"),
    "user_property": _property(0x26, "pair", "CONNACK PUBLISH ACK DISCONNECT AUTH", True),
    "maximum_packet_size": _property(0x27, "four", "CONNACK"),
    "wildcard_subscription_available": _property(0x28, "byte", "CONNACK"),
    "subscription_identifiers_available": _property(0x29, "byte", "CONNACK"),
    "shared_subscription_available": _property(0x2A, "byte", "CONNACK"),
}
"""By name. ACK is every acknowledgement: PUBACK, PUBREC, PUBREL, PUBCOMP, SUBACK, UNSUBACK."""

_NAMES: Final = {entry.number: name for name, entry in TABLE.items()}
_NUMBERS: Final = {"byte": ">B", "two": ">H", "four": ">I"}
_YES_OR_NO: Final = frozenset(
    (
        "payload_format_indicator",
        "maximum_qos",
        "retain_available",
        "wildcard_subscription_available",
        "subscription_identifiers_available",
        "shared_subscription_available",
    )
)
_NEVER_ZERO: Final = frozenset(
    ("subscription_identifier", "receive_maximum", "maximum_packet_size", "topic_alias")
)


def varint(value: int, size: int = 0) -> bytes:
    """A variable byte integer; in `size` bytes where that is more than it needs."""
    out = bytearray()
    while True:
        value, low = divmod(value, 128)
        more = bool(value) or len(out) + 1 < size
        out.append(low | (128 if more else 0))
        if not more:
            return bytes(out)


def text(value: Text) -> bytes:
    """A string, or binary data, with its length before it."""
    data = value.encode() if isinstance(value, str) else value
    return struct.pack(">H", len(data)) + data


def encode_properties(properties: Mapping[str, Any] | bytes) -> bytes:
    """The block with its length before it. A list is the same property several times; bytes are taken as they are."""
    if isinstance(properties, bytes):
        block = properties
    else:
        block = b"".join(
            _encode_one(name, one)
            for name, value in properties.items()
            for one in (value if isinstance(value, list) else [value])
        )
    return varint(len(block)) + block


def _encode_one(name: str, value: Any) -> bytes:
    number, kind, _, _ = TABLE[name]
    head = bytes((number,))
    if kind in _NUMBERS:
        return head + struct.pack(_NUMBERS[kind], value)
    if kind == "varint":
        return head + varint(value)
    if kind == "pair":
        return head + text(value[0]) + text(value[1])
    return head + text(value)


def decode_properties(data: bytes, packet: str) -> tuple[dict[str, Any], bytes]:
    """The properties at the beginning of `data` and what follows them. What may come several times is a list."""
    size, data = _take_varint(data)
    if len(data) < size:
        raise Malformed(f"{size} bytes of properties in {data!r}")
    block, rest = data[:size], data[size:]
    found: dict[str, Any] = {}
    while block:
        number, block = _take_varint(block)
        name = _NAMES.get(number)
        if name is None or packet not in TABLE[name].packets:
            raise Malformed(f"property {number:#04x} ({name}) in {packet}")
        value, block = _decode_one(name, block)
        if TABLE[name].repeated:
            found.setdefault(name, []).append(value)
        elif name in found:
            raise Malformed(f"{name} twice")
        else:
            found[name] = value
    return found, rest


def _decode_one(name: str, block: bytes) -> tuple[Any, bytes]:
    kind = TABLE[name].kind
    value: Any
    if kind in _NUMBERS:
        size = struct.calcsize(_NUMBERS[kind])
        raw, block = _take(block, size)
        value = int.from_bytes(raw, "big")
    elif kind == "varint":
        value, block = _take_varint(block)
    elif kind == "pair":
        key, block = _take_text(block)
        word, block = _take_text(block)
        value = (key, word)
    elif kind == "text":
        value, block = _take_text(block)
    else:
        value, block = _take_sized(block)
    if (name in _YES_OR_NO and value > 1) or (name in _NEVER_ZERO and not value):
        raise Malformed(f"{name} is {value}")
    return value, block


def _take(data: bytes, size: int) -> tuple[bytes, bytes]:
    if len(data) < size:
        raise Malformed(f"{size} bytes expected, {data!r} left")
    return data[:size], data[size:]


def _take_sized(data: bytes) -> tuple[bytes, bytes]:
    size, data = _take(data, 2)
    return _take(data, int.from_bytes(size, "big"))


def _take_text(data: bytes) -> tuple[str, bytes]:
    raw, data = _take_sized(data)
    value = raw.decode()
    if "\0" in value:
        raise Malformed("U+0000 in a string")
    return value, data


def _take_varint(data: bytes) -> tuple[int, bytes]:
    value = 0
    for at in range(4):
        if at >= len(data):
            break
        value |= (data[at] & 127) << 7 * at
        if not data[at] & 128:
            if at and not data[at]:
                raise Malformed("a variable byte integer longer than it must be")
            return value, data[at + 1 :]
    raise Malformed(f"no variable byte integer: {data[:4]!r}")
