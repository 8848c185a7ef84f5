"""Store-and-forward from the broker to an upstream MQTT cluster, and commands back down.

`Bridge(config)` goes into `edge_broker.broker.Broker(config, bridges=[…])`; its configuration is in `bridge.config`.
"""

from __future__ import annotations

from bridge.bridge import Bridge
from bridge.status import Status

__all__ = ["Bridge", "Status"]
