"""A stored message as a program elsewhere gets it: a JSON object on a line of its own, or a CBOR map.

JSON has no bytes: a payload that is UTF-8 is `payload`, any other `payload_base64`, and so with `correlation_data`. CBOR
has them, and a sequence of its maps needs nothing between them (RFC 8742). Times are RFC 3339 in UTC, in JSON as text, in
CBOR as tag 0. `id` is the same for a message in every queue: the broker's run, and the sequence in it.
"""

from __future__ import annotations

from base64 import b64encode
from collections.abc import Callable
from datetime import UTC, datetime
from typing import Any, Final

from edge_broker.store.exporting import Exported
from edge_broker.wire import const

_PROPERTY_NAMES: Final = {
    const.PAYLOAD_FORMAT_INDICATOR: "payload_format_indicator",
    const.CONTENT_TYPE: "content_type",
    const.RESPONSE_TOPIC: "response_topic",
    const.CORRELATION_DATA: "correlation_data",
    const.SUBSCRIPTION_IDENTIFIER: "subscription_identifier",
    const.USER_PROPERTY: "user_properties",
}

Encode = Callable[[Exported], bytes]


def encoder(form: str) -> Encode:
    """How to write one message as `json` or `cbor`."""
    if form == "cbor":
        import cbor2

        return lambda exported: bytes(cbor2.dumps(as_map(exported)))
    import msgspec

    encode = msgspec.json.Encoder().encode
    return lambda exported: encode(_for_json(as_map(exported))) + b"\n"


def as_map(exported: Exported) -> dict[str, Any]:
    """Everything of a message, bytes as bytes and times as `datetime`; what it has not is left out."""
    message = exported.message
    described: dict[str, Any] = {} if exported.number is None else {"number": exported.number}
    described |= {
        "topic": message.topic,
        "payload": message.payload,
        "qos": message.qos,
        "retain": message.retain,
        "received_at": _time(message.received_at),
    }
    if message.expires_at is not None:
        described["expires_at"] = _time(message.expires_at)
    if message.sequence:
        described["id"] = f"{message.epoch}-{message.sequence}"
    if message.version >= const.MQTT_5 and message.properties:
        described["properties"] = {
            _PROPERTY_NAMES.get(key, str(key)): value for key, value in message.properties.items()
        }
    return described


def _for_json(described: dict[str, Any]) -> dict[str, Any]:
    """The same without bytes, in the same order."""
    plain: dict[str, Any] = {}
    for key, value in described.items():
        if isinstance(value, bytes):
            try:
                plain[key] = value.decode("utf-8")
            except UnicodeDecodeError:
                plain[f"{key}_base64"] = b64encode(value).decode("ascii")
        else:
            plain[key] = _for_json(value) if isinstance(value, dict) else value
    return plain


def _time(wall_seconds: float) -> datetime:
    return datetime.fromtimestamp(round(wall_seconds, 3), UTC)
