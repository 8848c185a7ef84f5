"""A bridge with two connections, one for each direction, taken apart into two bridges: what goes up, and what comes down.

What comes down keeps the client id, and with it the session in which commands wait upstream. What goes up gets an id of
its own, and as long as it sends nothing at QoS 2 the upstream remembers nothing of it: when its certificate is renewed, the
next connection stands by before the old one is left. Queues, and what is remembered of them, stay with what goes up.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

import msgspec

from bridge.envelopes_config import EnvelopesConfig

if TYPE_CHECKING:
    from bridge.config import BridgeConfig

SUFFIX: Final = "!commands"
"""Behind the bridge's name, which has no `!` in it, that of its commands' connection: in log, metrics and store."""


def uplink_id(bridge: BridgeConfig) -> str:
    """The client id of what goes up."""
    return f"{bridge.client_id}-up"


def uplink_of(bridge: BridgeConfig) -> BridgeConfig:
    """What goes up, under the bridge's name."""
    stands_by = bridge.second_client_id != bridge.client_id
    return msgspec.structs.replace(
        bridge,
        client_id=uplink_id(bridge),
        second_client_id=bridge.second_client_id if stands_by else uplink_id(bridge),
        in_=(),
        separate_uplink=False,
    )


def commands_of(bridge: BridgeConfig) -> BridgeConfig:
    """What comes down, under its one client id."""
    found = msgspec.structs.replace(
        bridge,
        second_client_id=bridge.client_id,
        out=(),
        canary=None,
        envelopes=EnvelopesConfig(),
        skipped_topic="",
        separate_uplink=False,
    )
    msgspec.structs.force_setattr(found, "name", bridge.name + SUFFIX)
    return found
