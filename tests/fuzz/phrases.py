"""Packets worth having at one byte each: what a fuzzer would need long to put together, and then breaks from within.

`CONNECTS` by number; `phrase` gives the others in the form of a connection's version.
"""

from __future__ import annotations

from functools import cache
from typing import Final

from edge_broker.wire import const
from edge_broker.wire.encoder import (
    PINGREQ,
    encode_ack,
    encode_auth,
    encode_connect,
    encode_disconnect,
    encode_publish,
    encode_subscribe,
    encode_unsubscribe,
)
from edge_broker.wire.packets import Connect, SubscriptionRequest, Will
from edge_broker.wire.properties import Properties, encode_properties
from tests.fuzz.door import METHOD

_FILTERS: Final = ("t", "#", "+/t", "$share/g/#", "$share/g/t", "$share/h/a/+", "a/b", "no/t", "$SYS/#")
_METHOD: Final[Properties] = {const.AUTHENTICATION_METHOD: METHOD}


def _connects() -> tuple[bytes, ...]:
    v3, v5 = const.MQTT_3_1_1, const.MQTT_5
    keep = {const.SESSION_EXPIRY_INTERVAL: 60}
    narrow = {const.RECEIVE_MAXIMUM: 1, const.MAXIMUM_PACKET_SIZE: 60, const.SESSION_EXPIRY_INTERVAL: 10**9}
    aliases = {const.TOPIC_ALIAS_MAXIMUM: 1}
    will = Will("t", b"gone", 1, False, 0, {})
    late_will = Will("t", b"late", 2, True, 30, {const.MESSAGE_EXPIRY_INTERVAL: 20})
    connects = (
        Connect(v5, "x", True, 0),
        Connect(v5, "x", False, 10, properties=keep, will=will),
        Connect(v5, "y", False, 0, properties=narrow, will=late_will),
        Connect(v5, "y", True, 5, "name", b"password", will=will),
        Connect(v3, "x", False, 0),
        Connect(v3, "y", True, 10, will=late_will),
        Connect(v3, "", True, 0),
        Connect(const.MQTT_3_1, "z", False, 1),
        Connect(v5, "", True, 0, properties={const.RECEIVE_MAXIMUM: 2} | aliases),
        Connect(v5, "z", False, 0, "name", b"wrong", properties=keep),
        Connect(v5, "x", False, 0, properties=_METHOD | keep | {const.AUTHENTICATION_DATA: b"in"} | aliases),
        Connect(v5, "y", True, 0, properties=_METHOD | {const.REQUEST_RESPONSE_INFORMATION: 1}),
        Connect(v5, "z", False, 0, properties=keep, will=late_will),
    )
    return tuple(encode_connect(connect) for connect in connects)


CONNECTS: Final = _connects()


@cache
def phrases(version: int) -> tuple[bytes, ...]:
    """All of them, for a connection of `version`."""
    return (
        *_subscribes(version),
        *_publishes(version),
        *_answers(version),
        PINGREQ,
        encode_disconnect(version),
        encode_disconnect(version, const.DISCONNECT_WITH_WILL),
        encode_disconnect(version, const.SUCCESS, {const.SESSION_EXPIRY_INTERVAL: 0}),
        encode_disconnect(version, const.SUCCESS, {const.SESSION_EXPIRY_INTERVAL: 20}),
        encode_auth(const.CONTINUE_AUTHENTICATION, _METHOD | {const.AUTHENTICATION_DATA: b"in"}),
        encode_auth(const.CONTINUE_AUTHENTICATION, _METHOD | {const.AUTHENTICATION_DATA: b"no"}),
        encode_auth(const.REAUTHENTICATE, _METHOD | {const.AUTHENTICATION_DATA: b"again"}),
    )


def _subscribes(version: int) -> list[bytes]:
    packets: list[bytes] = []
    for number, topic_filter in enumerate(_FILTERS):
        shared = topic_filter.startswith("$share")
        request = SubscriptionRequest(
            topic_filter, 2 - number % 3, not shared and number % 2 == 1, number % 4 == 1, number % 3
        )
        ids = {const.SUBSCRIPTION_IDENTIFIER: [number]} if number % 3 == 1 else {}
        packets.append(encode_subscribe(version, number + 1, [request], ids))
        packets.append(encode_unsubscribe(version, number + 20, [topic_filter]))
    both = [SubscriptionRequest("#", 1), SubscriptionRequest("t", 2)]
    return [*packets, encode_subscribe(version, 50, both)]


def _publishes(version: int) -> list[bytes]:
    packets: list[bytes] = []
    for qos in range(3):
        for retain in (False, True):
            for topic in ("t", "a/b", "r/1", "no/t", "$SYS/t"):
                packet_id = len(packets) + 1 if qos else 0
                packets.append(encode_publish(version, topic, b"body", qos, retain, packet_id=packet_id))
        packets.append(encode_publish(version, "t", b"", qos, True, packet_id=60 if qos else 0))
        packets.append(encode_publish(version, "t", bytes(300), qos, packet_id=61 if qos else 0))
    expiring = encode_properties({const.MESSAGE_EXPIRY_INTERVAL: 5, const.TOPIC_ALIAS: 1})
    aliased = encode_properties({const.TOPIC_ALIAS: 1, const.PAYLOAD_FORMAT_INDICATOR: 1})
    packets.append(encode_publish(version, "t", b"brief", 1, packet_id=70, property_block=expiring))
    packets.append(encode_publish(version, "", b"\xff", 2, packet_id=71, property_block=aliased))
    return packets


def _answers(version: int) -> list[bytes]:
    packets = []
    for packet_id in (1, 2, 71):
        for kind in (const.PUBACK, const.PUBREC, const.PUBREL, const.PUBCOMP):
            packets.append(encode_ack(version, kind, packet_id))
            packets.append(encode_ack(version, kind, packet_id, const.UNSPECIFIED_ERROR))
    return packets
