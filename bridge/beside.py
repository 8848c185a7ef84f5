"""Another connection of a bridge: a bridge of its own in all but the month's bytes, which are one account for both.

They go over one modem.
"""

from __future__ import annotations

from collections.abc import Callable

from bridge.bridge import Bridge
from bridge.config import BridgeConfig
from edge_broker.config.tracing import TracingConfig


class Beside(Bridge):
    """Of `bridge`, which is started before it. `config`: its own, one of `BridgeConfig.lines`."""

    def __init__(
        self, bridge: Bridge, config: BridgeConfig, tracing: TracingConfig | None, random: Callable[[], float]
    ) -> None:
        super().__init__(config, tracing, account=bridge.account, random=random)
        self._of = bridge
        bridge.meter(self._line)

    @property
    def carried_bytes(self) -> int:
        """What the bridge and all beside it have carried."""
        return self._of.carried_bytes
