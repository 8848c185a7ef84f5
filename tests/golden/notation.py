"""How the packet vectors are written: bytes as one reads them in the specification, fields by the specification's names.

`bytes_of` takes hexadecimal octets and quoted ASCII text, either repeated with ``*n``; a ``~`` in place of the remaining
length stands for the right one (only malformed vectors use it, where the length is not what is wrong).

Nothing here uses ``edge_broker``: the vectors are an independent statement of what the specifications say.
"""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from typing import Any, Final

V31: Final = (3,)
V311: Final = (4,)
V3: Final = (3, 4)
V5: Final = (5,)
EVERY: Final = (3, 4, 5)
BEFORE_CONNECT: Final = (0,)

KEY_VALUE: Final = "26 00 01 'k' 00 01 'v'"
"""The user property "k" with the value "v": seven bytes."""

MALFORMED: Final = 0x81
PROTOCOL_ERROR: Final = 0x82
UNSUPPORTED_VERSION: Final = 0x84
FILTER_INVALID: Final = 0x8F
NAME_INVALID: Final = 0x90
ALIAS_INVALID: Final = 0x94
TOO_LARGE: Final = 0x95

MAX_PACKET_BYTES: Final = 100_000
"""The limit that every vector is decoded with."""
TOPIC_ALIAS_MAXIMUM: Final = 10
"""The topic alias maximum that every vector is decoded with."""

_TOKEN: Final = re.compile(
    r"(?:'(?P<text>[^']*)'|(?P<octet>[0-9a-f]{2})|(?P<length>~))(?:\*(?P<times>\d+))?(?:\s+|$)"
)

_DEFAULTS: Final[dict[str, dict[str, Any]]] = {
    "CONNECT": {
        "client_id": "",
        "clean_start": True,
        "keep_alive": 60,
        "username": None,
        "password": None,
        "will": None,
        "properties": {},
    },
    "CONNACK": {"session_present": False, "reason_code": 0, "properties": {}},
    "PUBLISH": {
        "topic": "t",
        "payload": b"",
        "qos": 0,
        "retain": False,
        "dup": False,
        "packet_id": 0,
        "expiry_interval": None,
        "subscription_ids": (),
        "properties": {},
    },
    "PUBACK": {"packet_id": 1, "reason_code": 0, "properties": {}},
    "PUBREC": {"packet_id": 1, "reason_code": 0, "properties": {}},
    "PUBREL": {"packet_id": 1, "reason_code": 0, "properties": {}},
    "PUBCOMP": {"packet_id": 1, "reason_code": 0, "properties": {}},
    "SUBSCRIBE": {"packet_id": 10, "requests": [], "properties": {}},
    "SUBACK": {"packet_id": 10, "reason_codes": [], "properties": {}},
    "UNSUBSCRIBE": {"packet_id": 10, "topic_filters": [], "properties": {}},
    "UNSUBACK": {"packet_id": 10, "reason_codes": [], "properties": {}},
    "PINGREQ": {},
    "PINGRESP": {},
    "DISCONNECT": {"reason_code": 0, "properties": {}},
    "AUTH": {"reason_code": 0, "properties": {}},
}
_WILL_DEFAULTS: Final = {
    "topic": "w",
    "payload": b"bye",
    "qos": 0,
    "retain": False,
    "delay_interval": 0,
    "properties": {},
}


@dataclass(frozen=True)
class Valid:
    """Bytes that are one packet at each of `versions`, and its `fields`; `frame` is what a PUBLISH keeps of the bytes.

    A `canonical` packet is encoded to the same bytes; any other decodes to the same fields from what is encoded.
    A CONNECT is decoded by a decoder that knows no version yet.
    """

    name: str
    versions: tuple[int, ...]
    sender: str
    data: bytes
    packet: str
    fields: dict[str, Any] = field(hash=False)
    frame: bytes
    canonical: bool


@dataclass(frozen=True)
class Malformed:
    """Bytes that are no packet to a decoder at each of `versions` (0: no CONNECT yet), refused with `reason_code`."""

    name: str
    versions: tuple[int, ...]
    reason_code: int
    data: bytes


def bytes_of(written: str) -> bytes:
    """The bytes that `written` says; ValueError where it says none."""
    head, rest, length_asked = b"", b"", False
    at = 0
    written = written.strip()
    while at < len(written):
        token = _TOKEN.match(written, at)
        if token is None:
            raise ValueError(f"not bytes: {written[at:]!r}")
        at = token.end()
        if token["length"]:
            head, rest, length_asked = rest, b"", True
            continue
        piece = bytes.fromhex(token["octet"]) if token["octet"] else token["text"].encode("ascii")
        rest += piece * int(token["times"] or 1)
    return head + _varint(len(rest)) + rest if length_asked else rest


def _varint(value: int) -> bytes:
    digits = []
    while True:
        value, digit = divmod(value, 128)
        digits.append(digit | (0x80 if value else 0))
        if not value:
            return bytes(digits)


def valid(
    name: str,
    versions: tuple[int, ...],
    sender: str,
    written: str,
    packet: str,
    *,
    frame: str = "",
    canonical: bool = True,
    **fields: Any,
) -> Valid:
    """A `Valid`; fields that are not given have the packet's defaults, a PUBLISH keeps all of its bytes but DUP."""
    defaults = _DEFAULTS[packet]
    unknown = fields.keys() - defaults.keys()
    if unknown or sender not in ("client", "server", "either"):
        raise ValueError(f"{name}: {unknown or sender} is nothing that a vector can say")
    data = bytes_of(written)
    kept = bytes_of(frame) if frame else bytes((data[0] & ~0x08,)) + data[1:] if packet == "PUBLISH" else b""
    return Valid(name, versions, sender, data, packet, defaults | fields, kept, canonical)


def will(**fields: Any) -> dict[str, Any]:
    """A will's fields; the topic is "w" and the payload "bye" where not said otherwise."""
    return _WILL_DEFAULTS | fields


def request(topic_filter: str, qos: int, **options: Any) -> dict[str, Any]:
    """One filter of a SUBSCRIBE; the options of MQTT 5 are off where not given."""
    plain = {"no_local": False, "retain_as_published": False, "retain_handling": 0}
    return {"topic_filter": topic_filter, "qos": qos} | plain | options


def malformed(name: str, versions: tuple[int, ...], reason_code: int, written: str) -> Malformed:
    """A `Malformed`."""
    return Malformed(name, versions, reason_code, bytes_of(written))
