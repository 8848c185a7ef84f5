"""How gateways learn that somebody here understands envelopes: a retained message that is only good for a while.

    {"ingester": "edge-ingest-1", "expires": 1760000180, "valid_seconds": 180, "envelope_versions": [1], "dictionaries": []}

It expires by itself, with MQTT 5 as a message at the cluster too, and is renewed in time. `expires` is Unix time; a
gateway whose clock may be wrong counts `valid_seconds` from when a live one (not retained) came, and for a retained one
goes by what MQTT 5 says is left of its expiry.
"""

from __future__ import annotations

from typing import Final

import msgspec

from bridge.envelope import VERSION
from edge_broker.wire import const
from edge_broker.wire.properties import encode_properties, encode_string

PACKET_ID: Final = 2
"""Of the announcement's PUBLISH; nothing else is published on that connection."""


class Lease(msgspec.Struct):
    """What the announcement says. `dictionaries`: zstd's identifiers of those that envelopes may use."""

    ingester: str
    expires: int
    valid_seconds: int
    envelope_versions: tuple[int, ...]
    dictionaries: tuple[int, ...]


class LeaseWriter:
    """Makes the announcements of one ingester."""

    def __init__(self, topic: str, ingester: str, valid_seconds: int, dictionaries: tuple[int, ...]) -> None:
        self.topic = encode_string(topic)
        self._ingester = ingester
        self._valid_seconds = valid_seconds
        self._dictionaries = dictionaries

    def announcement(self, version: int, now: float) -> bytes:
        """What follows the packet identifier in the PUBLISH that announces us; `now`: Unix time."""
        lease = Lease(
            self._ingester,
            int(now) + self._valid_seconds,
            self._valid_seconds,
            (VERSION,),
            self._dictionaries,
        )
        properties = {
            const.PAYLOAD_FORMAT_INDICATOR: 1,
            const.MESSAGE_EXPIRY_INTERVAL: self._valid_seconds,
            const.CONTENT_TYPE: "application/json",
        }
        block = encode_properties(properties) if version >= const.MQTT_5 else b""
        return block + msgspec.json.encode(lease)

    def withdrawal(self, version: int) -> bytes:
        """The same for the one that takes it back: an empty retained message."""
        return b"\0" if version >= const.MQTT_5 else b""
