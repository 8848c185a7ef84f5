"""A message's MQTT 5 properties by name, as the outputs have them."""

from __future__ import annotations

from typing import Any, Final

from edge_broker.wire import const
from edge_broker.wire.properties import decode_properties

_NAMES: Final = {
    const.PAYLOAD_FORMAT_INDICATOR: "payload_format_indicator",
    const.MESSAGE_EXPIRY_INTERVAL: "message_expiry_interval",
    const.CONTENT_TYPE: "content_type",
    const.RESPONSE_TOPIC: "response_topic",
    const.CORRELATION_DATA: "correlation_data",
    const.USER_PROPERTY: "user_properties",
}


def named_properties(block: bytes) -> dict[str, Any]:
    """The properties in a block that was checked before; user properties as a list of pairs, in their order."""
    properties, _ = decode_properties(block, 0, len(block), const.PUBLISH)
    return {_NAMES[identifier]: value for identifier, value in properties.items() if identifier in _NAMES}
