"""The control packets as plain objects, one class per packet type.

They carry what the bytes said, already checked for form; whether a packet may come now is the receiver's question.
`Publish` is different on purpose: it keeps the frame it came in, because most messages leave as they came, and gives
its parts when asked.
"""

from __future__ import annotations

from typing import Final

import msgspec

from edge_broker.wire import const
from edge_broker.wire.properties import Properties, decode_properties

NO_PROPERTIES: Final[Properties] = {}
"""Shared and never written to: most packets have none."""


class Publish(msgspec.Struct, eq=False):
    """PUBLISH [3.3]. `frame`: the whole packet, without DUP, alias, expiry and subscription identifiers.

    `dup`, `packet_id` and `subscription_ids` are of this hop only; a client may not send the last [MQTT-3.3.4-6].
    `version`: the protocol level of `frame`. `packet_id_at`: offset after the topic; `payload_at`: of the payload.
    `expiry_interval`: seconds to live as received, None for ever.

    A struct, since one is made for each message: that takes two thirds of the time that a class with `__init__` takes.
    """

    frame: bytes
    version: int
    topic: str
    packet_id_at: int
    payload_at: int
    qos: int
    retain: bool
    packet_id: int
    expiry_interval: int | None = None
    dup: bool = False
    subscription_ids: tuple[int, ...] = ()

    @property
    def payload(self) -> bytes:
        """The application message, a copy."""
        return self.frame[self.payload_at :]

    @property
    def property_block(self) -> bytes:
        """The properties as MQTT 5 bytes, their length first; one zero byte where there are none."""
        if self.version < const.MQTT_5:
            return b"\0"
        return self.frame[self.packet_id_at + (2 if self.qos else 0) : self.payload_at]

    @property
    def properties(self) -> Properties:
        """The properties, decoded anew at each call."""
        block = self.property_block
        return decode_properties(block, 0, len(block), const.PUBLISH)[0]


class Will:
    """The will message of a CONNECT [3.1.2.5]. `delay_interval` in seconds; `properties` without it."""

    __slots__ = ("delay_interval", "payload", "properties", "qos", "retain", "topic")

    def __init__(
        self, topic: str, payload: bytes, qos: int, retain: bool, delay_interval: int, properties: Properties
    ) -> None:
        self.topic = topic
        self.payload = payload
        self.qos = qos
        self.retain = retain
        self.delay_interval = delay_interval
        self.properties = properties


class Connect:
    """CONNECT [3.1]. `keep_alive` in seconds, 0 = none; `username` and `password` None where absent."""

    __slots__ = (
        "clean_start",
        "client_id",
        "keep_alive",
        "password",
        "properties",
        "username",
        "version",
        "will",
    )

    def __init__(
        self,
        version: int,
        client_id: str,
        clean_start: bool,
        keep_alive: int,
        username: str | None = None,
        password: bytes | None = None,
        will: Will | None = None,
        properties: Properties = NO_PROPERTIES,
    ) -> None:
        self.version = version
        self.client_id = client_id
        self.clean_start = clean_start
        self.keep_alive = keep_alive
        self.username = username
        self.password = password
        self.will = will
        self.properties = properties


class Connack:
    """CONNACK [3.2]. `reason_code` is the version's own: a return code of 3.1.1 or a reason code of 5.0."""

    __slots__ = ("properties", "reason_code", "session_present")

    def __init__(
        self, session_present: bool, reason_code: int, properties: Properties = NO_PROPERTIES
    ) -> None:
        self.session_present = session_present
        self.reason_code = reason_code
        self.properties = properties


class Ack:
    """PUBACK, PUBREC, PUBREL or PUBCOMP [3.4 to 3.7], told apart by `packet_type`."""

    __slots__ = ("packet_id", "packet_type", "properties", "reason_code")

    def __init__(
        self,
        packet_type: int,
        packet_id: int,
        reason_code: int = const.SUCCESS,
        properties: Properties = NO_PROPERTIES,
    ) -> None:
        self.packet_type = packet_type
        self.packet_id = packet_id
        self.reason_code = reason_code
        self.properties = properties


class SubscriptionRequest:
    """One filter of a SUBSCRIBE with its options [3.8.3.1]; the options of 5.0 have 3.1.1's behaviour as defaults."""

    __slots__ = ("no_local", "qos", "retain_as_published", "retain_handling", "topic_filter")

    def __init__(
        self,
        topic_filter: str,
        qos: int,
        no_local: bool = False,
        retain_as_published: bool = False,
        retain_handling: int = 0,
    ) -> None:
        self.topic_filter = topic_filter
        self.qos = qos
        self.no_local = no_local
        self.retain_as_published = retain_as_published
        self.retain_handling = retain_handling


class Subscribe:
    """SUBSCRIBE [3.8]."""

    __slots__ = ("packet_id", "properties", "requests")

    def __init__(
        self, packet_id: int, requests: list[SubscriptionRequest], properties: Properties = NO_PROPERTIES
    ) -> None:
        self.packet_id = packet_id
        self.requests = requests
        self.properties = properties


class Suback:
    """SUBACK or UNSUBACK [3.9, 3.11], told apart by `packet_type`; 3.1.1's UNSUBACK has no reason codes."""

    __slots__ = ("packet_id", "packet_type", "properties", "reason_codes")

    def __init__(
        self,
        packet_type: int,
        packet_id: int,
        reason_codes: list[int],
        properties: Properties = NO_PROPERTIES,
    ) -> None:
        self.packet_type = packet_type
        self.packet_id = packet_id
        self.reason_codes = reason_codes
        self.properties = properties


class Unsubscribe:
    """UNSUBSCRIBE [3.10]."""

    __slots__ = ("packet_id", "properties", "topic_filters")

    def __init__(
        self, packet_id: int, topic_filters: list[str], properties: Properties = NO_PROPERTIES
    ) -> None:
        self.packet_id = packet_id
        self.topic_filters = topic_filters
        self.properties = properties


class Ping:
    """PINGREQ or PINGRESP [3.12, 3.13], told apart by `packet_type`."""

    __slots__ = ("packet_type",)

    def __init__(self, packet_type: int) -> None:
        self.packet_type = packet_type


class Disconnect:
    """DISCONNECT [3.14]."""

    __slots__ = ("properties", "reason_code")

    def __init__(self, reason_code: int = const.SUCCESS, properties: Properties = NO_PROPERTIES) -> None:
        self.reason_code = reason_code
        self.properties = properties


class Auth:
    """AUTH [3.15], MQTT 5 only."""

    __slots__ = ("properties", "reason_code")

    def __init__(self, reason_code: int, properties: Properties = NO_PROPERTIES) -> None:
        self.reason_code = reason_code
        self.properties = properties


Packet = Publish | Connect | Connack | Ack | Subscribe | Suback | Unsubscribe | Ping | Disconnect | Auth
