"""What a message looks like on the other side: the same payload under that side's topic, in that side's version.

Going up to MQTT 5 the properties stay, with what is left of the expiry; 3.1.1 has no place for them. Coming down, the
properties come along and the expiry starts to run here. Nothing is decided here, only built.
"""

from __future__ import annotations

import math

from edge_broker.core.message import Message, build_message
from edge_broker.wire import const
from edge_broker.wire.properties import encode_properties


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


def local_form(message: Message, topic: str) -> Message:
    """`message`, which came from the upstream, as it is published here under `topic`; its packet identifier stays."""
    if topic == message.topic:
        return message
    local = build_message(
        topic,
        message.payload,
        qos=message.qos,
        retain=message.retain,
        property_block=message.property_block,
        version=message.version,
    )
    local.packet_id = message.packet_id
    local.expiry_interval = message.expiry_interval
    return local
