"""A message on its way: the PUBLISH as it came, what its recipients get of it, and who does not have it safe yet.

Times are the monotonic clock's seconds; the store translates them to wall time and back. A message is immutable once
routed, except for `unsafe`, which counts down, for its caches, and for its times where the clock comes right
(`correcting`). A recipient that gets another QoS, retain flag or a subscription identifier gets a *variant*: a message of
its own whose `source` is the one that came in; all recipients of one kind share one variant, so a fan-out encodes once.
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Protocol

from edge_broker.wire import const
from edge_broker.wire.encoder import encode_publish
from edge_broker.wire.packets import Publish
from edge_broker.wire.properties import Properties, encode_properties

if TYPE_CHECKING:
    from edge_broker.core.followed import Trace, Unfollowed


class Publisher(Protocol):
    """Who waits for a message to be safe."""

    def on_safe(self, message: Message) -> None:
        """The last durable recipient has `message` safe: its acknowledgement may leave."""


class Message(Publish, eq=False):
    """A PUBLISH that the router carries. `unsafe`: durable recipients that have it neither on disk nor acknowledged.

    `sequence` (with `epoch`, the broker's run) is given when the first durable queue takes it; 0 before.
    """

    received_at: float = 0.0
    expires_at: float | None = None
    epoch: int = 0
    sequence: int = 0
    unsafe: int = 0
    volatile: bool = False
    """Kept in memory only, by the user's choice for its topic: nobody waits for it to be on disk."""
    publisher: Publisher | None = None
    source: Message | None = None
    trace: Trace | Unfollowed | None = None
    """Set while somebody follows this message; nobody on the way of a message looks at it but ``traced``."""
    _variants: dict[tuple[int, bool, tuple[int, ...]], Message] | None = None
    parts_3: tuple[bytes, bytes] | None = None
    parts_5: tuple[bytes, bytes] | None = None
    """What `parts_for` gave last, by the form of the version; the way of a message looks here before it asks."""

    @property
    def origin(self) -> Message:
        """The message as it came in: itself, or the source that this is a variant of."""
        return self.source or self

    def variant(self, qos: int, retain: bool, subscription_ids: tuple[int, ...] = ()) -> Message:
        """This message as a recipient with `qos`, `retain` and `subscription_ids` gets it; the same object each time."""
        if qos == self.qos and retain == self.retain and not subscription_ids:
            return self
        key = (qos, retain, subscription_ids)
        variants = self._variants
        if variants is None:
            variants = self._variants = {}
        found = variants.get(key)
        if found is None:
            found = variants[key] = self.copy(qos, retain, subscription_ids)
        return found

    def forget_variants(self) -> None:
        """Keep no variant any more; those who got one have it."""
        self._variants = None

    def copy(self, qos: int, retain: bool, subscription_ids: tuple[int, ...] = ()) -> Message:
        """A variant that is not remembered: for messages that live long, as the retained ones do."""
        block = self.property_block
        version = self.version
        if subscription_ids:
            version = const.MQTT_5
            properties = self.properties
            properties[const.SUBSCRIPTION_IDENTIFIER] = list(subscription_ids)
            block = encode_properties(properties)
        other = build_message(
            self.topic, self.payload, qos=qos, retain=retain, property_block=block, version=version
        )
        other.source = self.origin
        other.volatile = self.volatile
        other.received_at = self.received_at
        other.expires_at = self.expires_at
        return other

    def frame_for(self, version: int, now: float) -> bytes:
        """The whole packet for a connection of `version`, with what is left of its expiry; its packet id, if any, is 0."""
        if (version >= const.MQTT_5) == (self.version >= const.MQTT_5) and (
            self.expires_at is None or version < const.MQTT_5
        ):
            return self.frame
        return self.encode(version, now)[0]

    def parts_for(self, version: int, now: float) -> tuple[bytes, bytes]:
        """The packet at QoS > 0 for a connection of `version`: what stands before its packet identifier, and after."""
        form_5 = version >= const.MQTT_5
        parts = self.parts_5 if form_5 else self.parts_3
        if parts is not None:
            return parts
        if form_5 and self.expires_at is not None:  # never the same twice
            return _split(*self.encode(version, now))
        if form_5 == (self.version >= const.MQTT_5):
            at = self.packet_id_at
            parts = (self.frame[:at], self.frame[at + 2 :])
        else:
            parts = _split(*self.encode(version, now))
        if form_5:
            self.parts_5 = parts
        else:
            self.parts_3 = parts
        return parts

    def encode(self, version: int, now: float, alias: int = 0, is_known: bool = False) -> tuple[bytes, int]:
        """The packet built anew: (whole packet, offset of the packet identifier).

        With `alias` it carries that as its topic alias, and where the client knows the alias already, no topic.
        """
        payload = self.payload
        topic = "" if is_known else self.topic
        block = b""
        if version >= const.MQTT_5:
            block = self.property_block
            of_this_hop: Properties = {}
            if alias:
                of_this_hop[const.TOPIC_ALIAS] = alias
            if self.expires_at is not None:
                of_this_hop[const.MESSAGE_EXPIRY_INTERVAL] = _seconds_left(self.expires_at, now)
            if of_this_hop:
                block = encode_properties(of_this_hop | self.properties)
        whole = encode_publish(version, topic, payload, self.qos, self.retain, property_block=block)
        return whole, len(whole) - len(payload) - len(block) - 2


def _seconds_left(expires_at: float, now: float) -> int:
    """A begun second counts as a whole one; the clock's own rounding as none, lest the interval grow [MQTT-3.3.2-6]."""
    return max(0, math.ceil(expires_at - now - 1e-6))


def _split(frame: bytes, packet_id_at: int) -> tuple[bytes, bytes]:
    return frame[:packet_id_at], frame[packet_id_at + 2 :]


def build_message(
    topic: str,
    payload: bytes,
    *,
    qos: int = 0,
    retain: bool = False,
    property_block: bytes = b"\0",
    version: int = const.MQTT_5,
) -> Message:
    """A message that did not come over a connection: a will, a variant, one of our own."""
    frame = encode_publish(version, topic, payload, qos, retain, property_block=property_block)
    payload_at = len(frame) - len(payload)
    packet_id_at = payload_at - (2 if qos else 0)
    if version >= const.MQTT_5:
        packet_id_at -= len(property_block)
    return Message(frame, version, topic, packet_id_at, payload_at, qos, retain, 0)
