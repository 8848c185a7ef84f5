"""From the configuration to bridges: for each table as many as it has connections."""

from __future__ import annotations

import random
from collections.abc import Callable, Sequence
from pathlib import Path

from bridge.bridge import Bridge
from bridge.canary import Canary
from bridge.commands import Commands
from bridge.config import BridgeConfig
from edge_broker.config.tracing import TracingConfig


def make_bridges(
    configs: Sequence[BridgeConfig],
    tracing: TracingConfig | None = None,
    *,
    data_dir: Path | None = None,
    random: Callable[[], float] = random.random,
) -> list[Bridge]:
    """A bridge for each of `configs`, with its commands' and its canary's behind it where these have their own."""
    bridges: list[Bridge] = []
    for config in configs:
        bridge = Bridge(config.main_line, tracing, data_dir=data_dir, random=random)
        bridges.append(bridge)
        if config.commands_line is not None:
            bridges.append(Commands(bridge, config.commands_line, tracing, random))
        if config.canary_line is not None:
            bridges.append(Canary(bridge, config.canary_line, tracing, random))
    return bridges
