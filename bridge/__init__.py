"""Store-and-forward from the broker to an upstream MQTT cluster, and commands back down.

`make_bridges(configs)` goes into `edge_broker.broker.Broker(config, bridges=…)`; the configuration is in `bridge.config`.
"""

from __future__ import annotations

from bridge.bridge import Bridge
from bridge.making import make_bridges
from bridge.status import Status

__all__ = ["Bridge", "Status", "make_bridges"]
