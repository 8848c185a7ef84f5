"""Which message this is, wherever it turns up: (gateway, lane, epoch, sequence), as one MQTT 5 user property.

The bridge adds it to what it sends; whoever unpacks at the other end knows by it what came twice and what is missing. It
is text, `GATEWAY/LANE/EPOCH/SEQUENCE` under the name `edge-origin`, with whatever a name may not hold percent-encoded
[RFC 3986 section 2.1]. It stays the same when a message is sent again, also after a restart of the gateway.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Final, NamedTuple
from urllib.parse import quote, unquote

from edge_broker.wire import const

NAME: Final = "edge-origin"
LARGEST_NUMBER: Final = (1 << 63) - 1
LONGEST_NAME: Final = 250
"""Characters of a gateway's or a lane's name."""


def topic_level(name: str) -> str:
    """A gateway's name as one level of a topic: percent-encoded, `.` too, for NATS takes none in topics."""
    return quote(name, safe="").replace(".", "%2E")


class Origin(NamedTuple):
    """`epoch`: the run of the gateway's broker that took the message. `sequence`: gapless per lane."""

    gateway: str
    lane: str
    epoch: int
    sequence: int

    def __str__(self) -> str:
        return f"{quote(self.gateway, safe='')}/{quote(self.lane, safe='')}/{self.epoch}/{self.sequence}"


class OriginWriter:
    """Encodes the property for one lane: all but epoch and number is made once."""

    __slots__ = ("_begin", "_value")

    def __init__(self, gateway: str, lane: str) -> None:
        name = NAME.encode()
        self._begin = bytes((const.USER_PROPERTY,)) + len(name).to_bytes(2, "big") + name
        self._value = f"{quote(gateway, safe='')}/{quote(lane, safe='')}/".encode()

    def encode(self, epoch: int, sequence: int) -> bytes:
        """The user property as it stands in a property block."""
        value = self._value + b"%d/%d" % (epoch, sequence)
        return self._begin + len(value).to_bytes(2, "big") + value


def find_origin(user_properties: Iterable[tuple[str, str]]) -> Origin | None:
    """The origin among a message's user properties; None where there is none, or none that makes sense."""
    for name, value in user_properties:
        if name == NAME:
            return parse_origin(value)
    return None


def parse_origin(text: str) -> Origin | None:
    """What `str` of an origin gives, back; None where it is something else."""
    parts = text.split("/")
    if len(parts) != 4 or len(text) > 25 * LONGEST_NAME:
        return None
    gateway, lane, epoch, sequence = parts
    if not (gateway and _is_number(epoch) and _is_number(sequence)):
        return None
    gateway, lane = unquote(gateway), unquote(lane)
    if max(len(gateway), len(lane)) > LONGEST_NAME:
        return None
    return Origin(gateway, lane, int(epoch), int(sequence))


def _is_number(text: str) -> bool:
    return text.isascii() and text.isdigit() and len(text) <= 19 and int(text) <= LARGEST_NUMBER
