"""The connection that brings commands down, where what goes up has one of its own.

Towards this broker the two are one: what came down does not go up again, and a message that went up here and came round is
known again. So it publishes as the other one's outbox does, and looks at hops with the other one's names.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from bridge.beside import Beside

if TYPE_CHECKING:
    from bridge.outbox import Outbox
    from edge_broker.core.ops import Snapshot


class Commands(Beside):
    """Of a bridge that subscribes to nothing upstream."""

    def _publisher(self) -> Outbox:
        return self._of._outbox

    def _mark_messages(self, snapshot: Snapshot) -> None:
        """As the bridge would, if they came down there."""
        ours, its = self._downlink, self._of._downlink
        ours.stamp, ours.limit = its.stamp, its.limit
