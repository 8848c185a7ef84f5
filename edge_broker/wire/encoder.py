"""Packets to bytes. Every function returns one whole packet; `version` is the protocol level of the connection.

Values are trusted here: what comes from a peer was checked by the decoder, what comes from us is ours to get right.
"""

from __future__ import annotations

from typing import Final

from edge_broker.wire import const
from edge_broker.wire.packets import NO_PROPERTIES, Connect, SubscriptionRequest, Will
from edge_broker.wire.properties import (
    Properties,
    encode_binary,
    encode_properties,
    encode_string,
    encode_varint,
)

PINGREQ: Final = b"\xc0\x00"
PINGRESP: Final = b"\xd0\x00"

_PROTOCOL_NAMES: Final = {const.MQTT_3_1: "MQIsdp", const.MQTT_3_1_1: "MQTT", const.MQTT_5: "MQTT"}
_ACK_FIRST_BYTE: Final = {const.PUBACK: 0x40, const.PUBREC: 0x50, const.PUBREL: 0x62, const.PUBCOMP: 0x70}


def _packet(first_byte: int, *parts: bytes) -> bytes:
    body = b"".join(parts)
    return bytes((first_byte,)) + encode_varint(len(body)) + body


def encode_publish(
    version: int,
    topic: str,
    payload: bytes,
    qos: int = 0,
    retain: bool = False,
    dup: bool = False,
    packet_id: int = 0,
    property_block: bytes = b"\0",
) -> bytes:
    """PUBLISH [3.3]. `property_block` with its length first; left out below MQTT 5. `packet_id` counts at QoS > 0."""
    return _packet(
        const.PUBLISH << 4 | (const.FLAG_DUP if dup else 0) | qos << 1 | retain,
        encode_string(topic),
        packet_id.to_bytes(2, "big") if qos else b"",
        property_block if version >= const.MQTT_5 else b"",
        payload,
    )


def encode_ack(
    version: int,
    packet_type: int,
    packet_id: int,
    reason_code: int = const.SUCCESS,
    properties: Properties = NO_PROPERTIES,
) -> bytes:
    """PUBACK, PUBREC, PUBREL or PUBCOMP, as short as the version allows [3.4.2.1]."""
    head = _ACK_FIRST_BYTE[packet_type]
    if version < const.MQTT_5 or (reason_code == const.SUCCESS and not properties):
        return bytes((head, 2, packet_id >> 8, packet_id & 0xFF))
    if not properties:
        return bytes((head, 3, packet_id >> 8, packet_id & 0xFF, reason_code))
    return _packet(head, packet_id.to_bytes(2, "big"), bytes((reason_code,)), encode_properties(properties))


def encode_connect(packet: Connect) -> bytes:
    """CONNECT [3.1]."""
    will = packet.will
    flags = (
        (packet.username is not None) << 7
        | (packet.password is not None) << 6
        | (0 if will is None else will.retain << 5 | will.qos << 3 | 1 << 2)
        | packet.clean_start << 1
    )
    parts = [
        encode_string(_PROTOCOL_NAMES[packet.version]),
        bytes((packet.version, flags)),
        packet.keep_alive.to_bytes(2, "big"),
    ]
    if packet.version >= const.MQTT_5:
        parts.append(encode_properties(packet.properties))
    parts.append(encode_string(packet.client_id))
    if will is not None:
        parts.extend(_will_parts(will, packet.version))
    if packet.username is not None:
        parts.append(encode_string(packet.username))
    if packet.password is not None:
        parts.append(encode_binary(packet.password))
    return _packet(const.CONNECT << 4, *parts)


def _will_parts(will: Will, version: int) -> list[bytes]:
    parts = [encode_string(will.topic), encode_binary(will.payload)]
    if version >= const.MQTT_5:
        properties = dict(will.properties)
        if will.delay_interval:
            properties[const.WILL_DELAY_INTERVAL] = will.delay_interval
        parts.insert(0, encode_properties(properties))
    return parts


def encode_connack(
    version: int, session_present: bool, reason_code: int, properties: Properties = NO_PROPERTIES
) -> bytes:
    """CONNACK [3.2]; a `reason_code` of MQTT 5 is given to older clients as the return code nearest to it."""
    if version >= const.MQTT_5:
        return _packet(
            const.CONNACK << 4, bytes((session_present, reason_code)), encode_properties(properties)
        )
    return_code = const.V3_CONNACK_CODES.get(reason_code, const.V3_SERVER_UNAVAILABLE)
    acknowledge_flags = session_present and version >= const.MQTT_3_1_1  # in 3.1 that byte was reserved
    return bytes((const.CONNACK << 4, 2, acknowledge_flags, return_code))


def encode_subscribe(
    version: int,
    packet_id: int,
    requests: list[SubscriptionRequest],
    properties: Properties = NO_PROPERTIES,
) -> bytes:
    """SUBSCRIBE [3.8]."""
    parts = [packet_id.to_bytes(2, "big")]
    if version >= const.MQTT_5:
        parts.append(encode_properties(properties))
    for request in requests:
        options = request.qos
        if version >= const.MQTT_5:
            options |= request.no_local << 2 | request.retain_as_published << 3 | request.retain_handling << 4
        parts.append(encode_string(request.topic_filter) + bytes((options,)))
    return _packet(const.SUBSCRIBE << 4 | 2, *parts)


def encode_suback(
    version: int, packet_id: int, reason_codes: list[int], properties: Properties = NO_PROPERTIES
) -> bytes:
    """SUBACK [3.9]; refusals read 0x80 below MQTT 5."""
    if version >= const.MQTT_5:
        block = encode_properties(properties)
    else:
        block = b""
        reason_codes = [min(code, const.V3_SUBSCRIBE_FAILURE) for code in reason_codes]
    return _packet(const.SUBACK << 4, packet_id.to_bytes(2, "big"), block, bytes(reason_codes))


def encode_unsubscribe(
    version: int, packet_id: int, topic_filters: list[str], properties: Properties = NO_PROPERTIES
) -> bytes:
    """UNSUBSCRIBE [3.10]."""
    block = encode_properties(properties) if version >= const.MQTT_5 else b""
    filters = b"".join(map(encode_string, topic_filters))
    return _packet(const.UNSUBSCRIBE << 4 | 2, packet_id.to_bytes(2, "big"), block, filters)


def encode_unsuback(
    version: int, packet_id: int, reason_codes: list[int], properties: Properties = NO_PROPERTIES
) -> bytes:
    """UNSUBACK [3.11]; below MQTT 5 it has neither reason codes nor properties."""
    head = packet_id.to_bytes(2, "big")
    if version < const.MQTT_5:
        return _packet(const.UNSUBACK << 4, head)
    return _packet(const.UNSUBACK << 4, head, encode_properties(properties), bytes(reason_codes))


def encode_disconnect(
    version: int, reason_code: int = const.SUCCESS, properties: Properties = NO_PROPERTIES
) -> bytes:
    """DISCONNECT [3.14]; below MQTT 5 it is two bytes and only a client sends it."""
    if version < const.MQTT_5 or (reason_code == const.SUCCESS and not properties):
        return b"\xe0\x00"
    if not properties:
        return bytes((0xE0, 1, reason_code))
    return _packet(const.DISCONNECT << 4, bytes((reason_code,)), encode_properties(properties))


def encode_auth(reason_code: int, properties: Properties = NO_PROPERTIES) -> bytes:
    """AUTH [3.15]."""
    if reason_code == const.SUCCESS and not properties:
        return b"\xf0\x00"
    return _packet(const.AUTH << 4, bytes((reason_code,)), encode_properties(properties))
