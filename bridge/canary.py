"""A bridge's canary: a second line, to another upstream, for a part of the topics.

It is a bridge of its own in all but one thing: it subscribes to nothing. What is its share, the bridge's outbox hands it,
message by message. So it has queues, a window, a policy and an identity of its own, and a canary that is away or full
costs the bridge nothing. Nothing comes down from it.

When the share changes, what is queued stays where it is. A topic that moves has its older messages at the one upstream and
its newer ones at the other; between two upstreams there is no order.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from bridge.beside import Beside

if TYPE_CHECKING:
    from edge_broker.core.ops import Snapshot
    from edge_broker.core.ports import Host


class Canary(Beside):
    """Of a bridge, which hands it its share."""

    def start(self, broker: Host, snapshot: Snapshot) -> None:
        """Take over what the store kept, take the share of the topics, and begin to connect."""
        super().start(broker, snapshot)
        self._of.hand_share_to(self._outbox)

    def _subscribe(self, snapshot: Snapshot) -> None:
        """The bridge does, and knows what is retained: it went there before there was a canary."""
