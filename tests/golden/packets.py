"""Between the project's packets and the fields that the vectors speak of: `describe` one way, `encode` to bytes.

The only place of the golden tests that knows the names in ``edge_broker.wire``.
"""

from __future__ import annotations

from typing import Any, Final

from edge_broker.wire.encoder import (
    PINGREQ,
    PINGRESP,
    encode_ack,
    encode_auth,
    encode_connack,
    encode_connect,
    encode_disconnect,
    encode_publish,
    encode_suback,
    encode_subscribe,
    encode_unsuback,
    encode_unsubscribe,
)
from edge_broker.wire.packets import (
    Ack,
    Auth,
    Connack,
    Connect,
    Disconnect,
    Packet,
    Ping,
    Publish,
    Suback,
    Subscribe,
    Unsubscribe,
)
from edge_broker.wire.properties import Properties
from tests.golden.properties import NAMES, PACKETS

_RETURN_CODES: Final = {0: 0, 1: 0x84, 2: 0x85, 3: 0x88, 4: 0x86, 5: 0x87}
"""The reason code of MQTT 5 that each CONNACK return code of 3.1.1 stands for: the encoder takes the former."""


def describe(packet: Packet) -> tuple[str, dict[str, Any]]:
    """The packet's name in the specification, and its fields as `notation.valid` has them."""
    if isinstance(packet, Ack | Suback | Ping):
        name = PACKETS[packet.packet_type - 1]
    else:
        name = type(packet).__name__.upper()
    if isinstance(packet, Publish):
        return name, _describe_publish(packet)
    fields = {field: getattr(packet, field) for field in packet.__slots__}
    fields.pop("packet_type", None)
    fields.pop("version", None)
    if "properties" in fields:
        fields["properties"] = by_name(fields["properties"])
    if isinstance(packet, Connect) and packet.will is not None:
        will = {field: getattr(packet.will, field) for field in packet.will.__slots__}
        fields["will"] = will | {"properties": by_name(packet.will.properties)}
    if isinstance(packet, Subscribe):
        fields["requests"] = [
            {option: getattr(request, option) for option in request.__slots__} for request in packet.requests
        ]
    return name, fields


def _describe_publish(packet: Publish) -> dict[str, Any]:
    own = ("topic", "payload", "qos", "retain", "dup", "packet_id", "expiry_interval", "subscription_ids")
    return {field: getattr(packet, field) for field in own} | {"properties": by_name(packet.properties)}


def by_name(properties: Properties) -> dict[str, Any]:
    """Properties by the specification's names instead of their identifiers."""
    return {NAMES[identifier]: value for identifier, value in properties.items()}


def encode(packet: Packet, version: int) -> bytes:
    """The bytes of `packet` for a connection of `version`; what a PUBLISH had of its last hop only is not among them."""
    if isinstance(packet, Publish):
        return encode_publish(
            version,
            packet.topic,
            packet.payload,
            packet.qos,
            packet.retain,
            packet.dup,
            packet.packet_id,
            packet.property_block,
        )
    if isinstance(packet, Connect):
        return encode_connect(packet)
    if isinstance(packet, Connack):
        code = packet.reason_code if version >= 5 else _RETURN_CODES[packet.reason_code]
        return encode_connack(version, packet.session_present, code, packet.properties)
    if isinstance(packet, Ack):
        return encode_ack(
            version, packet.packet_type, packet.packet_id, packet.reason_code, packet.properties
        )
    return _encode_rare(packet, version)


def _encode_rare(packet: Subscribe | Suback | Unsubscribe | Ping | Disconnect | Auth, version: int) -> bytes:
    if isinstance(packet, Subscribe):
        return encode_subscribe(version, packet.packet_id, packet.requests, packet.properties)
    if isinstance(packet, Suback):
        name = PACKETS[packet.packet_type - 1]
        encode_one = encode_suback if name == "SUBACK" else encode_unsuback
        return encode_one(version, packet.packet_id, packet.reason_codes, packet.properties)
    if isinstance(packet, Unsubscribe):
        return encode_unsubscribe(version, packet.packet_id, packet.topic_filters, packet.properties)
    if isinstance(packet, Ping):
        return PINGREQ if PACKETS[packet.packet_type - 1] == "PINGREQ" else PINGRESP
    if isinstance(packet, Disconnect):
        return encode_disconnect(version, packet.reason_code, packet.properties)
    return encode_auth(packet.reason_code, packet.properties)
