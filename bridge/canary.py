"""A bridge's canary: a second line, to another upstream, for a part of the topics.

It is a bridge of its own in all but one thing: it subscribes to nothing. What is its share, the bridge's outbox hands it,
message by message. So it has queues, a window, a policy and an identity of its own, and a canary that is away or full
costs the bridge nothing. Nothing comes down from it. The month's bytes are one account for both: they go over one modem.

When the share changes, what is queued stays where it is. A topic that moves has its older messages at the one upstream and
its newer ones at the other; between two upstreams there is no order.
"""

from __future__ import annotations

import random
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from bridge.bridge import Bridge
from bridge.config import BridgeConfig
from edge_broker.config.tracing import TracingConfig

if TYPE_CHECKING:
    from edge_broker.core.ops import Snapshot
    from edge_broker.core.ports import Host


class Canary(Bridge):
    """Of `bridge`, which is started before it. `config`: its own, as `BridgeConfig.lines` has it."""

    def __init__(
        self, bridge: Bridge, config: BridgeConfig, tracing: TracingConfig | None, random: Callable[[], float]
    ) -> None:
        super().__init__(config, tracing, account=bridge.account, random=random)
        self._of = bridge
        bridge.meter(self._line)

    @property
    def carried_bytes(self) -> int:
        """What the bridge and its canary have carried."""
        return self._of.carried_bytes

    def start(self, broker: Host, snapshot: Snapshot) -> None:
        """Take over what the store kept, take the share of the topics, and begin to connect."""
        super().start(broker, snapshot)
        self._of.hand_share_to(self._outbox)

    def _subscribe(self, snapshot: Snapshot) -> None:
        """The bridge does, and knows what is retained: it went there before there was a canary."""


def make_bridges(
    configs: Sequence[BridgeConfig],
    tracing: TracingConfig | None = None,
    *,
    data_dir: Path | None = None,
    random: Callable[[], float] = random.random,
) -> list[Bridge]:
    """A bridge for each of `configs`, with its canary behind it."""
    bridges: list[Bridge] = []
    for config in configs:
        bridge = Bridge(config, tracing, data_dir=data_dir, random=random)
        bridges += (bridge, *(Canary(bridge, line, tracing, random) for line in config.lines[1:]))
    return bridges
