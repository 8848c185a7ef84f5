"""What a message looks like on the other side: the same payload under that side's topic, in that side's version.

Going up to MQTT 5 the properties stay, with what is left of the expiry; 3.1.1 has no place for them. Coming down, the
properties come along and the expiry starts to run here. Nothing is decided here, only built.
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

from bridge.lateness import with_mark
from edge_broker.core.message import Message, build_message
from edge_broker.wire import const
from edge_broker.wire.properties import encode_properties

if TYPE_CHECKING:
    from bridge.mapping import LocalTopic
    from bridge.stamps import Stamp


def rest_for(message: Message, version: int, now: float) -> bytes:
    """What follows the packet identifier of `message` in a PUBLISH of `version`: property block (MQTT 5) and payload."""
    frame = message.frame
    if version < const.MQTT_5:
        return frame[message.payload_at :]
    if message.expires_at is not None:
        remaining = {const.MESSAGE_EXPIRY_INTERVAL: max(1, math.ceil(message.expires_at - now))}
        return encode_properties(remaining | message.properties) + frame[message.payload_at :]
    if message.version >= const.MQTT_5:
        return frame[message.packet_id_at + (2 if message.qos else 0) :]
    return b"\0" + frame[message.payload_at :]


def local_form(message: Message, local: LocalTopic, stamp: Stamp | None, late: str = "") -> Message | None:
    """`message`, which came from the upstream, as it is published here; its packet identifier stays.

    `stamp` marks it, where its version has a place for that; `late`, where it is not empty, is written on it. None where
    its rule drops it.
    """
    shape = local.shape
    if message.version < const.MQTT_5:
        stamp = None
    if local.topic == message.topic and shape is None and stamp is None and not late:
        return message
    retain, version, expiry_interval = message.retain, message.version, message.expiry_interval
    parts: tuple[bytes, bytes] | None = message.payload, message.property_block
    if shape is not None:
        parts = shape.rewrite(message)
        retain = retain and not shape.clears_retain
        if shape.expiry_seconds:
            expiry_interval = min(shape.expiry_seconds, expiry_interval or shape.expiry_seconds)
    if parts is None:
        return None
    payload, block = parts
    if stamp is not None:
        block = stamp.mark(block)
    if late:
        block = with_mark(block, late)
    if block != b"\0":
        version = const.MQTT_5
    form = build_message(
        local.topic, payload, qos=message.qos, retain=retain, property_block=block, version=version
    )
    form.packet_id = message.packet_id
    form.expiry_interval = expiry_interval
    return form
