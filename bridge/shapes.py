"""What a rule makes of the messages that it carries: retained or not, how long they live, how their payload is written.

A rule that says nothing of these has no shape, so its messages cost nothing here. A shaped message is a message of its own
whose `source` is the one that came in, as every variant is: who waits for it to be safe waits for that one.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from bridge.transforms import TRANSFORMS, Transform
from edge_broker.core.message import Message, build_message
from edge_broker.wire import const
from edge_broker.wire.properties import encode_properties

if TYPE_CHECKING:
    from bridge.rules import RuleConfig


class Shape:
    """`expiry_seconds` 0: for ever. `transform` None: the payload stays. `drops`: what cannot be transformed."""

    __slots__ = ("clears_retain", "expiry_seconds", "_drops", "_transform")  # noqa: RUF023

    def __init__(
        self, clears_retain: bool, expiry_seconds: int, transform: Transform | None, drops: bool
    ) -> None:
        self.clears_retain = clears_retain
        self.expiry_seconds = expiry_seconds
        self._transform = transform
        self._drops = drops

    def rewrite(self, message: Message) -> tuple[bytes, bytes] | None:
        """(payload, property block) of `message` as they cross; None where it is to be dropped."""
        payload, transform = message.payload, self._transform
        if transform is None or not payload:  # an empty one removes what is retained
            return payload, message.property_block
        properties = message.properties
        if (
            properties.get(const.CONTENT_TYPE) == transform.content_type
        ):  # a dead letter, say, that is sent again
            return payload, message.property_block
        written = transform.convert(payload)
        if written is None:
            return None if self._drops else (payload, message.property_block)
        properties[const.CONTENT_TYPE] = transform.content_type
        properties[const.PAYLOAD_FORMAT_INDICATOR] = int(transform.is_text)
        return written, encode_properties(properties)

    def apply(self, message: Message, now: float) -> Message | None:
        """`message`, which goes up, as its rule wants it; None where it is to be dropped."""
        retain = message.retain and not self.clears_retain
        if self._transform is None and not self.expiry_seconds:
            return message.variant(message.qos, retain)
        parts = self.rewrite(message)
        if parts is None:
            return None
        payload, block = parts
        shaped = derived(message, payload, block, retain)
        if self.expiry_seconds:
            until = now + self.expiry_seconds
            shaped.expires_at = until if shaped.expires_at is None else min(until, shaped.expires_at)
        return shaped


def derived(message: Message, payload: bytes, block: bytes, retain: bool) -> Message:
    """What goes up in the place of `message`, with that payload and property block."""
    other = build_message(message.topic, payload, qos=message.qos, retain=retain, property_block=block)
    other.source = message.origin
    other.volatile = message.volatile
    other.received_at = message.received_at
    other.expires_at = message.expires_at
    return other


def shape_of(rule: RuleConfig) -> Shape | None:
    """What `rule` makes of its messages; None where it leaves them as they are."""
    clears = rule.retain == "clear"
    if not clears and not rule.expiry_seconds and rule.payload == "keep":
        return None
    transform = None if rule.payload == "keep" else TRANSFORMS[rule.payload]
    return Shape(clears, rule.expiry_seconds, transform, rule.unreadable == "drop")
