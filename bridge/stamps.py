"""What a bridge writes into the properties of the messages that cross it: their origin on the way up, its mark both ways.

Made once per bridge; for a message without properties of its own it is one concatenation. An origin that a message came
with is replaced on the way up, be it another gateway's or forged by a local client: towards the upstream a message is
what this gateway numbered. The bridge that it names stays in the hops.
"""

from __future__ import annotations

import math
from typing import Final

from bridge import hops, origin
from bridge.hops import HopLimit
from bridge.origin import OriginWriter
from edge_broker.core.message import Message
from edge_broker.wire import const
from edge_broker.wire.properties import (
    Properties,
    decode_properties,
    decode_varint,
    encode_properties,
    encode_varint,
)

_PREFIX: Final = b"edge-"


class Stamp:
    """`writer` None: no origins; `limit` None: no marks. `epoch`: this run's, for what no store has numbered."""

    __slots__ = ("_epoch", "_limit", "_own", "_writer")

    def __init__(self, writer: OriginWriter | None, limit: HopLimit | None, epoch: int) -> None:
        self._writer = writer
        self._limit = limit
        self._epoch = epoch
        self._own = b"" if limit is None else _property(hops.NAME, limit.name)

    def rest(self, message: Message, number: int, now: float) -> bytes:
        """Property block and payload of `message` as it goes up. `number`: in its lane, 0 for what is only live."""
        frame = message.frame
        payload_at = message.payload_at
        writer = self._writer
        if writer is not None and number:
            own = writer.encode((message.source or message).epoch or self._epoch, number)
        else:
            own = self._own
        at = message.packet_id_at + 2 if message.qos else message.packet_id_at
        if message.version >= const.MQTT_5 and frame[at]:
            own = self._add(frame[at:payload_at], own, number > 0 and writer is not None, writer is not None)
        if message.expires_at is not None:
            left = max(1, math.ceil(message.expires_at - now))
            own = b"%c%b%b" % (const.MESSAGE_EXPIRY_INTERVAL, left.to_bytes(4, "big"), own)
        length = len(own)
        if length < 0x80:
            return b"%c%b%b" % (length, own, frame[payload_at:])
        return encode_varint(length) + own + frame[payload_at:]

    def block(self, message: Message, now: float) -> bytes:
        """The property block of `message` as it goes up in an envelope, which has the origin itself."""
        own = b""
        if message.version >= const.MQTT_5:
            frame = message.frame
            at = message.packet_id_at + 2 if message.qos else message.packet_id_at
            if frame[at]:
                own = self._add(frame[at : message.payload_at], b"", True, True)
        if message.expires_at is not None:
            left = max(1, math.ceil(message.expires_at - now))
            own = b"%c%b%b" % (const.MESSAGE_EXPIRY_INTERVAL, left.to_bytes(4, "big"), own)
        return encode_varint(len(own)) + own if own else b"\0"

    def mark(self, block: bytes) -> bytes:
        """The property block of a message that comes down, with the mark of this bridge."""
        body = self._add(block, self._own, False, False)
        return encode_varint(len(body)) + body

    def _add(self, block: bytes, own: bytes, is_origin: bool, strips: bool) -> bytes:
        """The properties of `block` and `own`, without the length in front. `is_origin`: that is what `own` is; `strips`:
        an origin in `block` goes."""
        if _PREFIX in block:
            return self._replace(block, own, is_origin, strips)
        _, at = decode_varint(block, 0, len(block))
        return block[at:] + own

    def _replace(self, block: bytes, own: bytes, is_origin: bool, strips: bool) -> bytes:
        """`_add` for a message that crossed a bridge before."""
        properties: Properties = decode_properties(block, 0, len(block), const.PUBLISH)[0]
        before = properties.pop(const.USER_PROPERTY, [])
        limit = self._limit
        stays = [
            (name, value)
            for name, value in before
            if (name != hops.NAME or limit is None) and (name != origin.NAME or not strips)
        ]
        if limit is not None:
            names = [name for name in hops.passed(before) if name != limit.name]
            if not is_origin:
                names.append(limit.name)
                own = b""
            if names:
                stays.append((hops.NAME, ",".join(names)))
        if stays:
            properties[const.USER_PROPERTY] = stays
        encoded = encode_properties(properties)
        _, at = decode_varint(encoded, 0, len(encoded))
        return encoded[at:] + own


def _property(name: str, value: str) -> bytes:
    """A user property as it stands in a block."""
    encoded = encode_properties({const.USER_PROPERTY: [(name, value)]})
    return encoded[decode_varint(encoded, 0, len(encoded))[1] :]
