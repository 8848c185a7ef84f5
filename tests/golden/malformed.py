"""Bytes that are no packet, each with the reason code that MQTT 5 gives for its fault.

Before MQTT 5 no reason code reaches the peer; the same number is asked for there, since one decoder serves all versions.
"""

from __future__ import annotations

from typing import Final

from tests.golden.notation import (
    ALIAS_INVALID,
    BEFORE_CONNECT,
    EVERY,
    FILTER_INVALID,
    MALFORMED,
    NAME_INVALID,
    PROTOCOL_ERROR,
    TOO_LARGE,
    UNSUPPORTED_VERSION,
    V3,
    V5,
    V311,
    Malformed,
    malformed,
)

ALWAYS: Final = (0, 3, 4, 5)

_REASON_TWICE: Final = "0a 1f 00 02 'ok' 1f 00 02 'ok'"

FIXED_HEADER: Final[tuple[Malformed, ...]] = (
    malformed("packet-type-0", ALWAYS, MALFORMED, "00 00"),
    malformed("packet-type-15-before-5", (0, 3, 4), MALFORMED, "f0 00"),
    malformed("remaining-length-of-five-bytes", ALWAYS, MALFORMED, "30 ff ff ff ff 01"),
    malformed("remaining-length-of-four-zeros-continued", ALWAYS, MALFORMED, "30 80 80 80 80"),
    malformed("remaining-length-padded-0", ALWAYS, MALFORMED, "c0 80 00"),
    malformed("remaining-length-padded-to-four", ALWAYS, MALFORMED, "c0 80 80 80 00"),
    malformed("remaining-length-padded-publish", V3, MALFORMED, "30 83 00 00 01 't'"),
    malformed("too-large-by-one", ALWAYS, TOO_LARGE, "30 9d 8d 06"),
    malformed("longest-remaining-length", ALWAYS, TOO_LARGE, "30 ff ff ff 7f"),
    malformed(
        "connect-reserved-flags", BEFORE_CONNECT, MALFORMED, "11 0d 00 04 'MQTT' 04 02 00 3c 00 01 'c'"
    ),
    malformed("connack-reserved-flags", V3, MALFORMED, "21 02 00 00"),
    malformed("puback-reserved-flags", EVERY, MALFORMED, "41 02 00 01"),
    malformed("pubrec-reserved-flags", EVERY, MALFORMED, "52 02 00 01"),
    malformed("pubrel-without-its-flags", EVERY, MALFORMED, "60 02 00 01"),
    malformed("pubrel-with-one-flag-too-many", V311 + V5, MALFORMED, "6a 02 00 01"),
    malformed("pubcomp-reserved-flags", EVERY, MALFORMED, "72 02 00 01"),
    malformed("subscribe-without-its-flags", V3, MALFORMED, "80 06 00 0a 00 01 't' 01"),
    malformed("suback-reserved-flags", V3, MALFORMED, "92 03 00 0a 00"),
    malformed("unsubscribe-without-its-flags", V3, MALFORMED, "a0 05 00 0a 00 01 't'"),
    malformed("unsuback-reserved-flags", V3, MALFORMED, "b2 02 00 0a"),
    malformed("pingreq-reserved-flags", EVERY, MALFORMED, "c1 00"),
    malformed("pingresp-reserved-flags", EVERY, MALFORMED, "d8 00"),
    malformed("disconnect-reserved-flags", EVERY, MALFORMED, "e1 00"),
    malformed("auth-reserved-flags", V5, MALFORMED, "f4 00"),
    malformed("pingreq-with-a-body", EVERY, MALFORMED, "c0 01 00"),
    malformed("pingresp-with-a-body", EVERY, MALFORMED, "d0 01 00"),
)


def _connect(name: str, reason_code: int, body: str) -> Malformed:
    return malformed(f"connect-{name}", BEFORE_CONNECT, reason_code, f"10 ~ {body}")


_NAME: Final = "00 04 'MQTT'"
_V4: Final = f"{_NAME} 04 02 00 3c"
_V5: Final = f"{_NAME} 05 02 00 3c"

CONNECT: Final[tuple[Malformed, ...]] = (
    _connect("empty", MALFORMED, ""),
    _connect("name-is-cut", MALFORMED, "00 04 'MQT'"),
    _connect("name-is-not-utf-8", MALFORMED, "00 04 'MQ' ff ff 04 02 00 3c 00 00"),
    _connect("name-is-empty", PROTOCOL_ERROR, "00 00 04 02 00 3c 00 00"),
    _connect("name-in-small-letters", PROTOCOL_ERROR, "00 04 'mqtt' 04 02 00 3c 00 00"),
    _connect("name-is-longer", PROTOCOL_ERROR, "00 05 'MQTT5' 05 02 00 3c 00 00 00"),
    _connect("level-0", UNSUPPORTED_VERSION, f"{_NAME} 00 02 00 3c 00 00"),
    _connect("level-3-of-mqtt", UNSUPPORTED_VERSION, f"{_NAME} 03 02 00 3c 00 00"),
    _connect("level-4-of-mqisdp", UNSUPPORTED_VERSION, "00 06 'MQIsdp' 04 02 00 3c 00 00"),
    _connect("level-6", UNSUPPORTED_VERSION, f"{_NAME} 06 02 00 3c 00 00 00"),
    _connect("level-of-a-private-bridge", UNSUPPORTED_VERSION, f"{_NAME} 84 02 00 3c 00 00"),
    _connect("ends-after-name", MALFORMED, _NAME),
    _connect("ends-after-level", MALFORMED, f"{_NAME} 04"),
    _connect("ends-after-flags", MALFORMED, f"{_NAME} 04 02"),
    _connect("keep-alive-is-cut", MALFORMED, f"{_NAME} 04 02 00"),
    _connect("3.1.1-reserved-flag", MALFORMED, f"{_NAME} 04 03 00 3c 00 01 'c'"),
    _connect("5-reserved-flag", MALFORMED, f"{_NAME} 05 03 00 3c 00 00 01 'c'"),
    _connect("will-retain-without-will", MALFORMED, f"{_NAME} 04 22 00 3c 00 01 'c'"),
    _connect("will-qos-1-without-will", MALFORMED, f"{_NAME} 04 0a 00 3c 00 01 'c'"),
    _connect("will-qos-2-without-will", MALFORMED, f"{_NAME} 05 12 00 3c 00 00 01 'c'"),
    _connect("will-qos-3", MALFORMED, f"{_NAME} 04 1e 00 3c 00 01 'c' 00 01 'w' 00 03 'bye'"),
    _connect("3.1.1-password-without-user-name", MALFORMED, f"{_NAME} 04 42 00 3c 00 01 'c' 00 02 'pw'"),
    _connect("3.1-password-without-user-name", MALFORMED, "00 06 'MQIsdp' 03 42 00 3c 00 01 'c' 00 02 'pw'"),
    _connect("no-client-id", MALFORMED, _V4),
    _connect("client-id-length-is-cut", MALFORMED, f"{_V4} 00"),
    _connect("client-id-is-cut", MALFORMED, f"{_V4} 00 02 'c'"),
    _connect("client-id-is-not-utf-8", MALFORMED, f"{_V4} 00 01 ff"),
    _connect("client-id-is-overlong-utf-8", MALFORMED, f"{_V4} 00 02 c0 80"),
    _connect("client-id-has-a-surrogate", MALFORMED, f"{_V4} 00 03 ed a0 80"),
    _connect("client-id-has-cut-utf-8", MALFORMED, f"{_V4} 00 02 f0 9f"),
    _connect("client-id-has-nul", MALFORMED, f"{_V4} 00 03 'a' 00 'b'"),
    _connect("no-will-topic", MALFORMED, f"{_NAME} 04 06 00 3c 00 01 'c'"),
    _connect("no-will-payload", MALFORMED, f"{_NAME} 04 06 00 3c 00 01 'c' 00 01 'w'"),
    _connect("will-payload-is-cut", MALFORMED, f"{_NAME} 04 06 00 3c 00 01 'c' 00 01 'w' 00 04 'bye'"),
    _connect("will-topic-is-empty", NAME_INVALID, f"{_NAME} 04 06 00 3c 00 01 'c' 00 00 00 03 'bye'"),
    _connect("will-topic-has-hash", NAME_INVALID, f"{_NAME} 04 06 00 3c 00 01 'c' 00 03 'w/#' 00 00"),
    _connect("will-topic-has-plus", NAME_INVALID, f"{_NAME} 05 06 00 3c 00 00 01 'c' 00 00 03 '+/w' 00 00"),
    _connect("no-user-name", MALFORMED, f"{_NAME} 04 82 00 3c 00 01 'c'"),
    _connect("user-name-is-not-utf-8", MALFORMED, f"{_NAME} 04 82 00 3c 00 01 'c' 00 01 80"),
    _connect("no-password", MALFORMED, f"{_NAME} 04 c2 00 3c 00 01 'c' 00 01 'u'"),
    _connect("password-is-cut", MALFORMED, f"{_NAME} 04 c2 00 3c 00 01 'c' 00 01 'u' 00 03 'pw'"),
    _connect("3.1.1-longer-than-its-parts", MALFORMED, f"{_V4} 00 01 'c' 00"),
    _connect("5-longer-than-its-parts", MALFORMED, f"{_V5} 00 00 01 'c' 00"),
    _connect("5-no-properties", MALFORMED, _V5),
    _connect("5-properties-longer-than-packet", MALFORMED, f"{_V5} 05 11 00 00 00"),
    _connect("5-property-length-is-cut", MALFORMED, f"{_V5} 80"),
    _connect("5-property-length-is-padded", MALFORMED, f"{_V5} 80 00 00 01 'c'"),
    _connect("5-property-length-of-five-bytes", MALFORMED, f"{_V5} 80 80 80 80 01 00 01 'c'"),
    _connect("5-property-reaches-beyond-block", MALFORMED, f"{_V5} 04 11 00 00 00 3c 00 01 'c'"),
    _connect("5-unknown-property", MALFORMED, f"{_V5} 02 7f 00 00 01 'c'"),
    _connect("5-unknown-property-of-two-bytes", MALFORMED, f"{_V5} 03 91 01 00 00 01 'c'"),
    _connect("5-property-identifier-is-padded", MALFORMED, f"{_V5} 06 91 00 00 00 00 3c 00 01 'c'"),
    _connect("5-property-of-another-packet", MALFORMED, f"{_V5} 05 03 00 02 'ct' 00 01 'c'"),
    _connect("5-session-expiry-twice", PROTOCOL_ERROR, f"{_V5} 0a 11 00 00 00 3c 11 00 00 00 3c 00 01 'c'"),
    _connect("5-receive-maximum-0", PROTOCOL_ERROR, f"{_V5} 03 21 00 00 00 01 'c'"),
    _connect("5-maximum-packet-size-0", PROTOCOL_ERROR, f"{_V5} 05 27 00 00 00 00 00 01 'c'"),
    _connect("5-request-response-information-2", PROTOCOL_ERROR, f"{_V5} 02 19 02 00 01 'c'"),
    _connect("5-request-problem-information-255", PROTOCOL_ERROR, f"{_V5} 02 17 ff 00 01 'c'"),
    _connect("5-authentication-data-without-method", PROTOCOL_ERROR, f"{_V5} 04 16 00 01 'd' 00 01 'c'"),
    _connect("5-user-property-without-value", MALFORMED, f"{_V5} 04 26 00 01 'k' 00 01 'c'"),
    _connect("5-will-without-properties", MALFORMED, f"{_NAME} 05 06 00 3c 00 00 01 'c'"),
    _connect(
        "5-will-property-of-connect",
        MALFORMED,
        f"{_NAME} 05 06 00 3c 00 00 01 'c' 03 21 00 01 00 01 'w' 00 00",
    ),
    _connect(
        "5-will-delay-twice",
        PROTOCOL_ERROR,
        f"{_NAME} 05 06 00 3c 00 00 01 'c' 0a 18 00 00 00 01 18 00 00 00 01 00 01 'w' 00 00",
    ),
    _connect(
        "5-will-response-topic-has-wildcard",
        NAME_INVALID,
        f"{_NAME} 05 06 00 3c 00 00 01 'c' 04 08 00 01 '#' 00 01 'w' 00 00",
    ),
    _connect(
        "5-will-payload-format-2",
        PROTOCOL_ERROR,
        f"{_NAME} 05 06 00 3c 00 00 01 'c' 02 01 02 00 01 'w' 00 00",
    ),
    _connect("5-will-delay-among-connect-properties", MALFORMED, f"{_V5} 05 18 00 00 00 01 00 01 'c'"),
)

CONNACK: Final[tuple[Malformed, ...]] = (
    malformed("connack-empty", EVERY, MALFORMED, "20 00"),
    malformed("connack-is-cut", EVERY, MALFORMED, "20 01 00"),
    malformed("connack-acknowledge-flags", V3, MALFORMED, "20 02 02 00"),
    malformed("connack-acknowledge-flags-5", V5, MALFORMED, "20 03 81 00 00"),
    malformed("connack-longer-than-its-parts", V3, MALFORMED, "20 03 00 00 00"),
    malformed("connack-5-longer-than-its-parts", V5, MALFORMED, "20 04 00 00 00 00"),
    malformed("connack-5-without-properties", V5, MALFORMED, "20 02 00 00"),
    malformed("connack-5-session-present-and-3.1.1-refusal", V5, MALFORMED, "20 02 01 01"),
    malformed("connack-5-maximum-qos-2", V5, PROTOCOL_ERROR, "20 05 00 00 02 24 02"),
    malformed("connack-5-retain-available-2", V5, PROTOCOL_ERROR, "20 05 00 00 02 25 02"),
    malformed("connack-5-receive-maximum-0", V5, PROTOCOL_ERROR, "20 06 00 00 03 21 00 00"),
    malformed("connack-5-property-of-connect", V5, MALFORMED, "20 05 00 00 02 17 01"),
    malformed("connack-5-server-keep-alive-is-cut", V5, MALFORMED, "20 05 00 00 02 13 00"),
)


def _publish(name: str, reason_code: int, body: str, first: str = "30") -> Malformed:
    """A PUBLISH of MQTT 5: its property block and what follows, after the topic "t"."""
    return malformed(f"publish-5-{name}", V5, reason_code, f"{first} ~ 00 01 't' {body}")


PUBLISH: Final[tuple[Malformed, ...]] = (
    malformed("publish-qos-3", V3, MALFORMED, "36 07 00 01 't' 00 01 'hi'"),
    malformed("publish-5-qos-3", V5, MALFORMED, "36 06 00 01 't' 00 01 00"),
    malformed("publish-qos-0-with-dup", V3, MALFORMED, "38 05 00 01 't' 'hi'"),
    malformed("publish-5-qos-0-with-dup", V5, MALFORMED, "38 04 00 01 't' 00"),
    malformed("publish-empty", ALWAYS, MALFORMED, "30 00"),
    malformed("publish-topic-length-is-cut", ALWAYS, MALFORMED, "30 01 00"),
    malformed("publish-topic-is-cut", ALWAYS, MALFORMED, "30 03 00 02 't'"),
    malformed("publish-topic-much-longer-than-packet", ALWAYS, MALFORMED, "30 03 ff ff 't'"),
    malformed("publish-qos-1-topic-is-cut", ALWAYS, MALFORMED, "32 05 00 04 'top'"),
    malformed("publish-without-packet-id", EVERY, MALFORMED, "32 03 00 01 't'"),
    malformed("publish-packet-id-is-cut", EVERY, MALFORMED, "34 04 00 01 't' 00"),
    malformed("publish-packet-id-0", V3, MALFORMED, "32 05 00 01 't' 00 00"),
    malformed("publish-5-packet-id-0", V5, MALFORMED, "34 06 00 01 't' 00 00 00"),
    malformed("publish-topic-is-empty", V3, NAME_INVALID, "30 04 00 00 'hi'"),
    malformed("publish-topic-has-hash", V3, NAME_INVALID, "30 05 00 03 'a/#'"),
    malformed("publish-topic-has-plus", V3, NAME_INVALID, "30 07 00 05 'a/+/b'"),
    malformed("publish-topic-has-plus-in-a-level", V3, NAME_INVALID, "30 04 00 02 'a+'"),
    malformed("publish-5-topic-has-hash", V5, NAME_INVALID, "30 06 00 03 'a/#' 00"),
    malformed("publish-topic-has-nul", V3, MALFORMED, "30 05 00 03 'a' 00 'b'"),
    malformed("publish-topic-is-not-utf-8", V3, MALFORMED, "30 03 00 01 ff"),
    malformed("publish-topic-has-a-surrogate", V3, MALFORMED, "30 05 00 03 ed bf bf"),
    malformed("publish-5-topic-is-not-utf-8", V5, MALFORMED, "30 05 00 02 c3 28 00"),
    malformed("publish-5-neither-topic-nor-alias", V5, PROTOCOL_ERROR, "30 03 00 00 00"),
    malformed("publish-5-alias-never-set", V5, PROTOCOL_ERROR, "30 06 00 00 03 23 00 01"),
    malformed("publish-5-empty-topic-alias-too-high", V5, ALIAS_INVALID, "30 06 00 00 03 23 00 0b"),
    malformed("publish-5-without-properties", V5, MALFORMED, "30 03 00 01 't'"),
    malformed("publish-5-qos-1-without-properties", V5, MALFORMED, "32 05 00 01 't' 00 01"),
    _publish("alias-0", ALIAS_INVALID, "03 23 00 00"),
    _publish("alias-above-maximum", ALIAS_INVALID, "03 23 00 0b"),
    _publish("alias-highest", ALIAS_INVALID, "03 23 ff ff"),
    _publish("alias-twice", PROTOCOL_ERROR, "06 23 00 01 23 00 01"),
    _publish("properties-longer-than-packet", MALFORMED, "08 26 00 01 'k' 00 01 'v'"),
    _publish("property-length-is-cut", MALFORMED, "80"),
    _publish("property-length-is-padded", MALFORMED, "82 00 01 01 'hi'"),
    _publish("property-without-value", MALFORMED, "01 01"),
    _publish("property-identifier-is-cut", MALFORMED, "01 a6"),
    _publish("expiry-is-cut", MALFORMED, "04 02 00 00 00"),
    _publish("expiry-twice", PROTOCOL_ERROR, "0a 02 00 00 00 3c 02 00 00 00 3c"),
    _publish("content-type-length-is-cut", MALFORMED, "02 03 00"),
    _publish("content-type-is-cut", MALFORMED, "04 03 00 02 'c'"),
    _publish("content-type-reaches-into-payload", MALFORMED, "04 03 00 04 'text' 'hi'"),
    _publish("content-type-is-not-utf-8", MALFORMED, "04 03 00 01 ff"),
    _publish("content-type-has-nul", MALFORMED, "04 03 00 01 00"),
    _publish("user-property-name-is-not-utf-8", MALFORMED, "07 26 00 01 80 00 01 'v'"),
    _publish("user-property-value-has-nul", MALFORMED, "07 26 00 01 'k' 00 01 00"),
    _publish("user-property-value-is-cut", MALFORMED, "06 26 00 01 'k' 00 01"),
    _publish("correlation-data-twice", PROTOCOL_ERROR, "08 09 00 01 'd' 09 00 01 'd'"),
    _publish("correlation-data-is-cut", MALFORMED, "04 09 00 02 'd'"),
    _publish("payload-format-2", PROTOCOL_ERROR, "02 01 02"),
    _publish("response-topic-has-hash", NAME_INVALID, "06 08 00 03 'r/#'"),
    _publish("response-topic-has-plus", NAME_INVALID, "04 08 00 01 '+'"),
    _publish("response-topic-is-empty", NAME_INVALID, "03 08 00 00"),
    _publish("subscription-identifier-0", PROTOCOL_ERROR, "02 0b 00"),
    _publish("subscription-identifier-is-padded", MALFORMED, "03 0b 81 00"),
    _publish("subscription-identifier-is-cut", MALFORMED, "02 0b 81"),
    _publish("subscription-identifier-of-five-bytes", MALFORMED, "06 0b ff ff ff ff 01"),
    _publish("reason-string", MALFORMED, "05 1f 00 02 'ok'"),
    _publish("will-delay", MALFORMED, "05 18 00 00 00 01"),
    _publish("unknown-property", MALFORMED, "02 00 00"),
)

ACKS: Final[tuple[Malformed, ...]] = tuple(
    vector
    for name, first in (("puback", "40"), ("pubrec", "50"), ("pubrel", "62"), ("pubcomp", "70"))
    for vector in (
        malformed(f"{name}-empty", EVERY, MALFORMED, f"{first} 00"),
        malformed(f"{name}-packet-id-is-cut", EVERY, MALFORMED, f"{first} 01 00"),
        malformed(f"{name}-packet-id-0", EVERY, MALFORMED, f"{first} 02 00 00"),
        malformed(f"{name}-longer-than-its-parts", V3, MALFORMED, f"{first} 03 00 01 00"),
        malformed(f"{name}-5-packet-id-0-with-reason", V5, MALFORMED, f"{first} 03 00 00 00"),
        malformed(f"{name}-5-longer-than-its-parts", V5, MALFORMED, f"{first} 05 00 01 00 00 00"),
        malformed(f"{name}-5-properties-longer-than-packet", V5, MALFORMED, f"{first} 04 00 01 00 01"),
        malformed(f"{name}-5-property-of-publish", V5, MALFORMED, f"{first} 06 00 01 00 02 01 01"),
        malformed(f"{name}-5-reason-string-twice", V5, PROTOCOL_ERROR, f"{first} ~ 00 01 00 {_REASON_TWICE}"),
    )
)

SUBSCRIBE: Final[tuple[Malformed, ...]] = (
    malformed("subscribe-empty", EVERY, MALFORMED, "82 00"),
    malformed("subscribe-packet-id-0", V3, MALFORMED, "82 06 00 00 00 01 't' 01"),
    malformed("subscribe-5-packet-id-0", V5, MALFORMED, "82 07 00 00 00 00 01 't' 01"),
    malformed("subscribe-without-filter", V3, PROTOCOL_ERROR, "82 02 00 0a"),
    malformed("subscribe-5-without-filter", V5, PROTOCOL_ERROR, "82 03 00 0a 00"),
    malformed("subscribe-5-without-properties", V5, MALFORMED, "82 02 00 0a"),
    malformed("subscribe-filter-is-cut", V3, MALFORMED, "82 06 00 0a 00 03 't' 01"),
    malformed("subscribe-filter-length-is-cut", V3, MALFORMED, "82 07 00 0a 00 01 't' 01 00"),
    malformed("subscribe-filter-without-options", V3, MALFORMED, "82 05 00 0a 00 01 't'"),
    malformed("subscribe-filter-is-not-utf-8", V3, MALFORMED, "82 06 00 0a 00 01 fe 01"),
    malformed("subscribe-filter-has-nul", V3, MALFORMED, "82 06 00 0a 00 01 00 01"),
    malformed("subscribe-options-of-5-before-5", V3, MALFORMED, "82 06 00 0a 00 01 't' 04"),
    malformed("subscribe-reserved-options", V3, MALFORMED, "82 06 00 0a 00 01 't' 81"),
    malformed("subscribe-5-reserved-option-6", V5, MALFORMED, "82 07 00 0a 00 00 01 't' 41"),
    malformed("subscribe-5-reserved-option-7", V5, MALFORMED, "82 07 00 0a 00 00 01 't' 80"),
    malformed("subscribe-qos-3", V3, PROTOCOL_ERROR, "82 06 00 0a 00 01 't' 03"),
    malformed("subscribe-5-qos-3", V5, PROTOCOL_ERROR, "82 07 00 0a 00 00 01 't' 03"),
    malformed("subscribe-5-retain-handling-3", V5, PROTOCOL_ERROR, "82 07 00 0a 00 00 01 't' 30"),
    malformed("subscribe-5-identifier-0", V5, PROTOCOL_ERROR, "82 09 00 0a 02 0b 00 00 01 't' 01"),
    malformed("subscribe-5-identifier-twice", V5, PROTOCOL_ERROR, "82 0b 00 0a 04 0b 01 0b 02 00 01 't' 01"),
    malformed("subscribe-5-reason-string", V5, MALFORMED, "82 0c 00 0a 05 1f 00 02 'ok' 00 01 't' 01"),
    malformed("suback-empty", EVERY, MALFORMED, "90 00"),
    malformed("suback-packet-id-0", V3, MALFORMED, "90 03 00 00 00"),
    malformed("suback-without-codes", V3, MALFORMED, "90 02 00 0a"),
    malformed("suback-5-without-codes", V5, MALFORMED, "90 03 00 0a 00"),
    malformed("suback-5-properties-longer-than-packet", V5, MALFORMED, "90 04 00 0a 02 00"),
    malformed("suback-5-reason-string-twice", V5, PROTOCOL_ERROR, f"90 ~ 00 0a {_REASON_TWICE} 00"),
)

UNSUBSCRIBE: Final[tuple[Malformed, ...]] = (
    malformed("unsubscribe-empty", EVERY, MALFORMED, "a2 00"),
    malformed("unsubscribe-packet-id-0", V3, MALFORMED, "a2 05 00 00 00 01 't'"),
    malformed("unsubscribe-without-filter", V3, PROTOCOL_ERROR, "a2 02 00 0a"),
    malformed("unsubscribe-5-without-filter", V5, PROTOCOL_ERROR, "a2 03 00 0a 00"),
    malformed("unsubscribe-filter-is-cut", V3, MALFORMED, "a2 05 00 0a 00 02 't'"),
    malformed("unsubscribe-filter-length-is-cut", V3, MALFORMED, "a2 06 00 0a 00 01 't' 00"),
    malformed("unsubscribe-filter-is-not-utf-8", V3, MALFORMED, "a2 05 00 0a 00 01 ff"),
    malformed("unsubscribe-filter-is-empty", V3, FILTER_INVALID, "a2 04 00 0a 00 00"),
    malformed("unsubscribe-hash-not-last", V3, FILTER_INVALID, "a2 09 00 0a 00 05 'a/#/b'"),
    malformed("unsubscribe-hash-in-a-level", V3, FILTER_INVALID, "a2 06 00 0a 00 02 'a#'"),
    malformed("unsubscribe-plus-in-a-level", V3, FILTER_INVALID, "a2 06 00 0a 00 02 '+a'"),
    malformed("unsubscribe-5-share-without-filter", V5, FILTER_INVALID, "a2 ~ 00 0a 00 00 08 '$share/g'"),
    malformed("unsubscribe-5-share-of-empty-filter", V5, FILTER_INVALID, "a2 ~ 00 0a 00 00 09 '$share/g/'"),
    malformed("unsubscribe-5-share-without-name", V5, FILTER_INVALID, "a2 ~ 00 0a 00 00 09 '$share//t'"),
    malformed("unsubscribe-5-share-with-wildcard", V5, FILTER_INVALID, "a2 ~ 00 0a 00 00 0a '$share/+/t'"),
    malformed("unsubscribe-5-identifier", V5, MALFORMED, "a2 08 00 0a 02 0b 01 00 01 't'"),
    malformed("unsuback-empty", EVERY, MALFORMED, "b0 00"),
    malformed("unsuback-packet-id-0", V3, MALFORMED, "b0 02 00 00"),
    malformed("unsuback-with-codes-before-5", V3, MALFORMED, "b0 03 00 0a 00"),
    malformed("unsuback-5-without-codes", V5, MALFORMED, "b0 03 00 0a 00"),
    malformed("unsuback-5-without-properties", V5, MALFORMED, "b0 02 00 0a"),
)

ENDINGS: Final[tuple[Malformed, ...]] = (
    malformed("disconnect-with-a-body-before-5", V3, MALFORMED, "e0 01 00"),
    malformed("disconnect-5-longer-than-its-parts", V5, MALFORMED, "e0 03 00 00 00"),
    malformed("disconnect-5-properties-longer-than-packet", V5, MALFORMED, "e0 02 00 05"),
    malformed("disconnect-5-session-expiry-is-cut", V5, MALFORMED, "e0 05 00 03 11 00 00"),
    malformed(
        "disconnect-5-session-expiry-twice",
        V5,
        PROTOCOL_ERROR,
        "e0 0c 00 0a 11 00 00 00 3c 11 00 00 00 3c",
    ),
    malformed("disconnect-5-property-of-publish", V5, MALFORMED, "e0 04 00 02 01 01"),
    malformed("auth-longer-than-its-parts", V5, MALFORMED, "f0 03 18 00 00"),
    malformed("auth-properties-longer-than-packet", V5, MALFORMED, "f0 02 18 04"),
    malformed("auth-method-twice", V5, PROTOCOL_ERROR, "f0 0a 18 08 15 00 01 'm' 15 00 01 'm'"),
    malformed("auth-property-of-connect", V5, MALFORMED, "f0 05 18 03 21 00 01"),
)

MALFORMED_VECTORS: Final = (
    *FIXED_HEADER,
    *CONNECT,
    *CONNACK,
    *PUBLISH,
    *ACKS,
    *SUBSCRIBE,
    *UNSUBSCRIBE,
    *ENDINGS,
)
