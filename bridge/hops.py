"""What a message has passed: the mark by which two bridges in a ring see that it was here already, and how far it went.

Each bridge that a message crosses, in either direction, leaves its name, `GATEWAY/LANE`, in the user property `edge-hops`,
with commas between them. On the way up the message's origin (`bridge.origin`) is that name already, and stands in for it.
A message that comes to a bridge whose name it bears, or that bears too many, goes no further. MQTT 3.1.1 has no user
properties: what crosses by it has no past.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Final
from urllib.parse import quote

from bridge.origin import NAME as ORIGIN
from bridge.origin import parse_origin
from edge_broker.core.message import Message
from edge_broker.wire import const

NAME: Final = "edge-hops"
_PREFIX: Final = b"edge-"
_SHORTEST: Final = 8
"""Bytes between topic and payload with a property in them: fewer are a packet identifier and a length."""


def bridge_name(gateway: str, lane: str) -> str:
    """How a bridge calls itself in hops."""
    return f"{quote(gateway, safe='')}/{quote(lane, safe='')}"


def is_marked(message: Message) -> bool:
    """Whether `message` may bear hops or an origin: a quick look, which does not take its properties apart."""
    first, end = message.packet_id_at, message.payload_at
    return (
        end - first > _SHORTEST
        and message.version >= const.MQTT_5
        and message.frame.find(_PREFIX, first, end) >= 0
    )


def passed(user_properties: Iterable[tuple[str, str]]) -> list[str]:
    """The bridges that a message with these properties crossed, each once."""
    names: dict[str, None] = {}
    for name, value in user_properties:
        if name == NAME:
            names |= dict.fromkeys(filter(None, value.split(",")))
        elif name == ORIGIN:
            origin = parse_origin(value)
            if origin is not None:
                names[bridge_name(origin.gateway, origin.lane)] = None
    return list(names)


class HopLimit:
    """One bridge's: its `name`, and how many it lets a message have crossed, itself among them.

    `others`: what it is called in origins too, one for each of its queues.
    """

    __slots__ = ("_most", "_names", "name")

    def __init__(self, name: str, most: int, others: Iterable[str] = ()) -> None:
        self.name = name
        self._names = frozenset((name, *others))
        self._most = most

    def refuses(self, message: Message) -> bool:
        """Whether `message` was here already, or has come too far."""
        if not is_marked(message):
            return False
        names = passed(message.properties.get(const.USER_PROPERTY, ()))
        return len(names) >= self._most or not self._names.isdisjoint(names)
