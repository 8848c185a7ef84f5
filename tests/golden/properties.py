"""Every property of MQTT 5: identifier, data type, and where it may stand [MQTT 5 table 2-4 and the packets' sections]."""

from __future__ import annotations

from typing import Any, Final, NamedTuple

PACKETS: Final = (
    "CONNECT",
    "CONNACK",
    "PUBLISH",
    "PUBACK",
    "PUBREC",
    "PUBREL",
    "PUBCOMP",
    "SUBSCRIBE",
    "SUBACK",
    "UNSUBSCRIBE",
    "UNSUBACK",
    "PINGREQ",
    "PINGRESP",
    "DISCONNECT",
    "AUTH",
)
"""The control packets; a packet's type is its place here, counted from 1 [table 2-1]."""

_ACKNOWLEDGEMENTS: Final = ("PUBACK", "PUBREC", "PUBREL", "PUBCOMP", "SUBACK", "UNSUBACK")
_REPLIES: Final = ("CONNACK", *_ACKNOWLEDGEMENTS, "DISCONNECT", "AUTH")
_ALL: Final = ("CONNECT", "WILL", "PUBLISH", "SUBSCRIBE", "UNSUBSCRIBE", *_REPLIES)


class Property(NamedTuple):
    """`kind`: byte, two, four, varint, string, binary or pair. `places`: packets, and WILL for a will's own block."""

    identifier: int
    kind: str
    places: tuple[str, ...]
    lowest: int = 0
    highest: int = 0xFFFFFFFF

    @property
    def sample(self) -> tuple[bytes, Any]:
        """The property, identifier first, with a value that every rule allows; and that value."""
        tag = bytes((self.identifier,))
        samples: dict[str, tuple[bytes, Any]] = {
            "byte": (b"\x01", 1),
            "two": (b"\x00\x07", 7),
            "four": (b"\x00\x01\x00\x02", 0x00010002),
            "varint": (b"\x80\x01", 128),
            "string": (b"\x00\x03a/b", "a/b"),
            "binary": (b"\x00\x02\x00\xff", b"\x00\xff"),
            "pair": (b"\x00\x01k\x00\x01v", ("k", "v")),
        }
        encoded, value = samples[self.kind]
        return tag + encoded, value


PROPERTIES: Final[dict[str, Property]] = {
    "payload_format_indicator": Property(0x01, "byte", ("PUBLISH", "WILL"), 0, 1),
    "message_expiry_interval": Property(0x02, "four", ("PUBLISH", "WILL")),
    "content_type": Property(0x03, "string", ("PUBLISH", "WILL")),
    "response_topic": Property(0x08, "string", ("PUBLISH", "WILL")),
    "correlation_data": Property(0x09, "binary", ("PUBLISH", "WILL")),
    "subscription_identifier": Property(0x0B, "varint", ("PUBLISH", "SUBSCRIBE"), 1, 268_435_455),
    "session_expiry_interval": Property(0x11, "four", ("CONNECT", "CONNACK", "DISCONNECT")),
    "assigned_client_identifier": Property(0x12, "string", ("CONNACK",)),
    "server_keep_alive": Property(0x13, "two", ("CONNACK",), 0, 65535),
    "authentication_method": Property(0x15, "string", ("CONNECT", "CONNACK", "AUTH")),
    "authentication_data": Property(0x16, "binary", ("CONNECT", "CONNACK", "AUTH")),
    "request_problem_information": Property(0x17, "byte", ("CONNECT",), 0, 1),
    "will_delay_interval": Property(0x18, "four", ("WILL",)),
    "request_response_information": Property(0x19, "byte", ("CONNECT",), 0, 1),
    "response_information": Property(0x1A, "string", ("CONNACK",)),
    "server_reference": Property(0x1C, "string", ("CONNACK", "DISCONNECT")),
    "reason_string": Property(0x1F, "string", _REPLIES),
    "receive_maximum": Property(0x21, "two", ("CONNECT", "CONNACK"), 1, 65535),
    "topic_alias_maximum": Property(0x22, "two", ("CONNECT", "CONNACK"), 0, 65535),
    "topic_alias": Property(0x23, "two", ("PUBLISH",), 1, 65535),
    "maximum_qos": Property(0x24, "byte", ("CONNACK",), 0, 1),
    "retain_available": Property(0x25, "byte", ("CONNACK",), 0, 1),
    "user_property": Property(0x26, "pair", _ALL),
    "maximum_packet_size": Property(0x27, "four", ("CONNECT", "CONNACK"), 1),
    "wildcard_subscription_available": Property(0x28, "byte", ("CONNACK",), 0, 1),
    "subscription_identifier_available": Property(0x29, "byte", ("CONNACK",), 0, 1),
    "shared_subscription_available": Property(0x2A, "byte", ("CONNACK",), 0, 1),
}

NAMES: Final = {entry.identifier: name for name, entry in PROPERTIES.items()}
"""The name of each property identifier."""
