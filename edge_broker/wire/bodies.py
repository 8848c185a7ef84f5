"""The bodies of the packets that are not PUBLISH, decoded: once or a few times in a connection's life.

Pure functions from a body to a packet; `decode_body` chooses. `wire.decoder` finds the bodies in the stream.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Final

from edge_broker.errors import MalformedPacket, MqttError, ProtocolError
from edge_broker.wire import const
from edge_broker.wire.packets import (
    NO_PROPERTIES,
    Ack,
    Auth,
    Connack,
    Connect,
    Disconnect,
    Packet,
    Ping,
    Suback,
    Subscribe,
    SubscriptionRequest,
    Unsubscribe,
    Will,
)
from edge_broker.wire.properties import (
    ANY_NUMBER,
    WILL,
    Properties,
    decode_binary,
    decode_properties,
    decode_string,
)
from edge_broker.wire.topics import check_topic_filter, check_topic_name

_FIXED_FLAGS: Final = {const.PUBREL: 2, const.SUBSCRIBE: 2, const.UNSUBSCRIBE: 2}
_LEVELS: Final = {
    "MQTT": (const.MQTT_3_1_1, const.MQTT_5),
    "MQIsdp": (const.MQTT_3_1,),
}
_REFUSED_BY_AN_OLDER_SERVER: Final = bytes((0, const.V3_UNACCEPTABLE_PROTOCOL_VERSION))
"""The body of the CONNACK, in 3.1.1's form, by which a server without MQTT 5 answers a CONNECT of 5 [3.1.2.2]."""


def decode_body(first: int, body: bytes, version: int, limit: int = ANY_NUMBER) -> Packet:
    """The packet whose first byte is `first` and that has `body` behind its remaining length; any but PUBLISH.

    `limit`: how many user properties it may have.
    """
    packet_type = first >> 4
    flags = first & 0x0F
    if version == const.MQTT_3_1 and packet_type in _FIXED_FLAGS:
        flags &= ~const.FLAG_DUP  # 3.1 has it in what is sent again
    if flags != _FIXED_FLAGS.get(packet_type, 0):
        raise MalformedPacket(f"reserved flags in {const.PACKET_NAMES[packet_type]}")  # [MQTT-2.1.3-1]
    if packet_type == const.CONNECT:
        return decode_connect(body, limit)
    decode = _DECODERS.get(packet_type)
    if decode is None or (packet_type == const.AUTH and version < const.MQTT_5):
        raise MalformedPacket(f"packet type {packet_type} does not exist")
    return decode(packet_type, body, version, limit)


def connect_level(body: bytes) -> int:
    """The protocol level that a CONNECT's body names, 0 where it is none that we know."""
    for name, levels in _LEVELS.items():
        head = len(name).to_bytes(2, "big") + name.encode()
        if body.startswith(head) and len(body) > len(head) and body[len(head)] in levels:
            return body[len(head)]
    return 0


def decode_connect(body: bytes, limit: int = ANY_NUMBER) -> Connect:
    """CONNECT [3.1]: in it the protocol name and level come first, and tell how to read the rest."""
    end = len(body)
    name, at = decode_string(body, 0, end)
    levels = _LEVELS.get(name)
    if levels is None:
        raise ProtocolError("an unknown protocol name")  # [MQTT-3.1.2-1]: no client of ours, so no CONNACK
    if at + 4 > end:
        raise MalformedPacket("CONNECT is cut off")
    version, flags = body[at], body[at + 1]
    if version not in levels:
        raise MqttError(const.UNSUPPORTED_PROTOCOL_VERSION, f"protocol level {version}")  # [MQTT-3.1.2-2]
    keep_alive = body[at + 2] << 8 | body[at + 3]
    at += 4
    if flags & 1:
        raise MalformedPacket("the reserved CONNECT flag is set")  # [MQTT-3.1.2-3]
    if version < const.MQTT_5 and flags & 0xC0 == 0x40:
        raise MalformedPacket("a password without a user name")  # [MQTT-3.1.2-22] of 3.1.1
    properties = NO_PROPERTIES
    if version >= const.MQTT_5:
        properties, at = decode_properties(body, at, end, const.CONNECT, limit)
        if const.AUTHENTICATION_DATA in properties and const.AUTHENTICATION_METHOD not in properties:
            raise ProtocolError("authentication data without a method")
    client_id, at = decode_string(body, at, end)
    will, at = _decode_will(body, at, flags, version, limit)
    username: str | None = None
    password: bytes | None = None
    if flags & 0x80:
        username, at = decode_string(body, at, end)
    if flags & 0x40:
        password, at = decode_binary(body, at, end)
    if at != end:
        raise MalformedPacket("CONNECT is longer than its parts")
    return Connect(version, client_id, flags & 2 != 0, keep_alive, username, password, will, properties)


def _decode_will(body: bytes, at: int, flags: int, version: int, limit: int) -> tuple[Will | None, int]:
    qos = flags >> 3 & 3
    if not flags & 4:
        if flags & 0x38:
            raise MalformedPacket("will flags without a will")  # [MQTT-3.1.2-11, -13]
        return None, at
    if qos == 3:
        raise MalformedPacket("a will of QoS 3")  # [MQTT-3.1.2-12]
    end = len(body)
    properties = NO_PROPERTIES
    if version >= const.MQTT_5:
        properties, at = decode_properties(body, at, end, WILL, limit)
        if const.RESPONSE_TOPIC in properties:
            check_topic_name(properties[const.RESPONSE_TOPIC])
    topic, at = decode_string(body, at, end)
    check_topic_name(topic)
    payload, at = decode_binary(body, at, end)
    delay_interval = properties.pop(const.WILL_DELAY_INTERVAL, 0) if properties else 0
    return Will(topic, payload, qos, flags & 0x20 != 0, delay_interval, properties), at


def _decode_connack(_packet_type: int, body: bytes, version: int, limit: int) -> Connack:
    if version >= const.MQTT_5 and body == _REFUSED_BY_AN_OLDER_SERVER:
        return Connack(False, const.UNSUPPORTED_PROTOCOL_VERSION)
    if len(body) < 2 or body[0] > 1:
        raise MalformedPacket("CONNACK is cut off or has reserved flags")
    properties, at = _decode_rest(body, 2, version, const.CONNACK, limit)
    if at != len(body):
        raise MalformedPacket("CONNACK is longer than its parts")
    return Connack(body[0] == 1, body[1], properties)


def _decode_rest(body: bytes, at: int, version: int, packet_type: int, limit: int) -> tuple[Properties, int]:
    """The property block that MQTT 5 has at `at`."""
    if version < const.MQTT_5:
        return NO_PROPERTIES, at
    return decode_properties(body, at, len(body), packet_type, limit)


def _decode_packet_id(body: bytes) -> int:
    if len(body) < 2:
        raise MalformedPacket("a packet identifier is cut off")
    packet_id = body[0] << 8 | body[1]
    if not packet_id:
        raise MalformedPacket("packet identifier 0")
    return packet_id


def _decode_ack(packet_type: int, body: bytes, version: int, limit: int) -> Ack:
    packet_id = _decode_packet_id(body)
    if len(body) == 2:
        return Ack(packet_type, packet_id)
    if version < const.MQTT_5:
        raise MalformedPacket(f"{const.PACKET_NAMES[packet_type]} is longer than its parts")
    properties = NO_PROPERTIES
    if len(body) > 3:
        properties, at = decode_properties(body, 3, len(body), packet_type, limit)
        if at != len(body):
            raise MalformedPacket(f"{const.PACKET_NAMES[packet_type]} is longer than its parts")
    return Ack(packet_type, packet_id, body[2], properties)


def _decode_subscribe(_packet_type: int, body: bytes, version: int, limit: int) -> Subscribe:
    packet_id = _decode_packet_id(body)
    properties, at = _decode_rest(body, 2, version, const.SUBSCRIBE, limit)
    requests = []
    while at < len(body):
        topic_filter, at = decode_string(body, at, len(body))
        if at >= len(body):
            raise MalformedPacket("a topic filter without options")
        options = body[at]
        at += 1
        if options & ~(0x3F if version >= const.MQTT_5 else 0x03):
            raise MalformedPacket(f"subscription options 0x{options:02x}")  # [MQTT-3.8.3-5]
        if options & 3 == 3 or options & 0x30 == 0x30:
            raise ProtocolError(f"subscription options 0x{options:02x}")  # [3.8.3.1]
        requests.append(
            SubscriptionRequest(
                topic_filter, options & 3, options & 4 != 0, options & 8 != 0, options >> 4 & 3
            )
        )
    if not requests:
        raise ProtocolError("SUBSCRIBE without a topic filter")  # [MQTT-3.8.3-2]
    return Subscribe(packet_id, requests, properties)


def _decode_suback(packet_type: int, body: bytes, version: int, limit: int) -> Suback:
    packet_id = _decode_packet_id(body)
    properties, at = _decode_rest(body, 2, version, packet_type, limit)
    has_codes = packet_type == const.SUBACK or version >= const.MQTT_5
    if has_codes != (at < len(body)):  # one for each filter asked for [3.9.3, 3.11.3]
        raise MalformedPacket(f"{const.PACKET_NAMES[packet_type]} has {len(body) - at} reason codes")
    return Suback(packet_type, packet_id, list(body[at:]), properties)


def _decode_unsubscribe(_packet_type: int, body: bytes, version: int, limit: int) -> Unsubscribe:
    packet_id = _decode_packet_id(body)
    properties, at = _decode_rest(body, 2, version, const.UNSUBSCRIBE, limit)
    topic_filters = []
    while at < len(body):
        topic_filter, at = decode_string(body, at, len(body))
        check_topic_filter(topic_filter)
        topic_filters.append(topic_filter)
    if not topic_filters:
        raise ProtocolError("UNSUBSCRIBE without a topic filter")  # [MQTT-3.10.3-2]
    return Unsubscribe(packet_id, topic_filters, properties)


def _decode_ping(packet_type: int, body: bytes, _version: int, _limit: int) -> Ping:
    if body:
        raise MalformedPacket(f"{const.PACKET_NAMES[packet_type]} with a body")
    return Ping(packet_type)


def _decode_disconnect(packet_type: int, body: bytes, version: int, limit: int) -> Disconnect:
    reason_code, properties = _decode_reason(packet_type, body, version, limit)
    return Disconnect(reason_code, properties)


def _decode_auth(packet_type: int, body: bytes, version: int, limit: int) -> Auth:
    reason_code, properties = _decode_reason(packet_type, body, version, limit)
    return Auth(reason_code, properties)


def _decode_reason(packet_type: int, body: bytes, version: int, limit: int) -> tuple[int, Properties]:
    """The optional reason code and properties of DISCONNECT and AUTH [3.14.2.1, 3.15.2.1]."""
    if not body:
        return const.SUCCESS, NO_PROPERTIES
    if version < const.MQTT_5:
        raise MalformedPacket(f"{const.PACKET_NAMES[packet_type]} with a body")
    if len(body) == 1:
        return body[0], NO_PROPERTIES
    properties, at = decode_properties(body, 1, len(body), packet_type, limit)
    if at != len(body):
        raise MalformedPacket(f"{const.PACKET_NAMES[packet_type]} is longer than its parts")
    return body[0], properties


_DECODERS: Final[dict[int, Callable[[int, bytes, int, int], Packet]]] = {
    const.CONNACK: _decode_connack,
    const.PUBACK: _decode_ack,
    const.PUBREC: _decode_ack,
    const.PUBREL: _decode_ack,
    const.PUBCOMP: _decode_ack,
    const.SUBSCRIBE: _decode_subscribe,
    const.SUBACK: _decode_suback,
    const.UNSUBSCRIBE: _decode_unsubscribe,
    const.UNSUBACK: _decode_suback,
    const.PINGREQ: _decode_ping,
    const.PINGRESP: _decode_ping,
    const.DISCONNECT: _decode_disconnect,
    const.AUTH: _decode_auth,
}
