"""How fast messages come and go, and queues of bridges empty: over the last ten seconds, from a look each second.

There is no clock and no timer here; whoever calls `note` about once a second brings the time.
"""

from __future__ import annotations

from collections import deque
from typing import Final, NamedTuple

from edge_broker.ops.observed import Observed

_LOOKS: Final = 11


class _Look(NamedTuple):
    at: float
    received: int
    sent: int
    depths: dict[str, int]


class Rates:
    """Of one broker. All figures are per second, 0 before the second look."""

    def __init__(self, observed: Observed) -> None:
        self._observed = observed
        self._looks: deque[_Look] = deque(maxlen=_LOOKS)

    def note(self, now: float) -> None:
        """Look at the counters; `now` is the monotonic clock's seconds."""
        counters = self._observed.router.counters
        depths = {
            bridge.name: sum(queue.depth for queue in bridge.queues.values())
            for bridge in self._observed.bridges
        }
        self._looks.append(_Look(now, sum(counters.received), sum(counters.sent), depths))

    @property
    def received(self) -> float:
        """PUBLISH packets from clients."""
        first, last, seconds = self._span()
        return (last.received - first.received) / seconds

    @property
    def sent(self) -> float:
        """PUBLISH packets to clients."""
        first, last, seconds = self._span()
        return (last.sent - first.sent) / seconds

    def drain(self, bridge: str) -> float:
        """By how many messages the queue of `bridge` gets shorter; below 0 it grows."""
        first, last, seconds = self._span()
        return (first.depths.get(bridge, 0) - last.depths.get(bridge, 0)) / seconds

    def _span(self) -> tuple[_Look, _Look, float]:
        """The oldest look, the newest, and the seconds between them."""
        if not self._looks:
            nothing = _Look(0.0, 0, 0, {})
            return nothing, nothing, 1.0
        first, last = self._looks[0], self._looks[-1]
        return first, last, (last.at - first.at) or 1.0
