"""Plain counters, written where things happen and read by ``ops`` when somebody asks."""

from __future__ import annotations

from typing import Final

ACKNOWLEDGE_BUCKETS: Final = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0)
"""Upper bounds in seconds of the publish-to-acknowledge histogram; one more bucket holds what is above."""


class Counters:
    """What went through the router since the start. `received` and `sent` are by QoS; `dropped` by reason.

    `acknowledged_at_once`: QoS > 0 publishes that no durable recipient wanted; the others are in `acknowledge_buckets`.
    """

    __slots__ = (
        "acknowledge_buckets",
        "acknowledge_seconds",
        "acknowledged_at_once",
        "connections",
        "denied",
        "dropped",
        "received",
        "refused",
        "sent",
    )

    def __init__(self) -> None:
        self.received = [0, 0, 0]
        self.sent = [0, 0, 0]
        self.dropped: dict[str, int] = {}
        self.refused: dict[str, int] = {}
        self.connections = 0
        self.denied = 0
        self.acknowledged_at_once = 0
        self.acknowledge_seconds = 0.0
        self.acknowledge_buckets = [0] * (len(ACKNOWLEDGE_BUCKETS) + 1)

    def drop(self, reason: str) -> None:
        """One message less than its recipient should have had."""
        self.dropped[reason] = self.dropped.get(reason, 0) + 1

    def refuse(self, reason: str) -> None:
        """One connection that was not let in, or was closed for what its peer did."""
        self.refused[reason] = self.refused.get(reason, 0) + 1

    def acknowledge(self, seconds: float) -> None:
        """One publish was acknowledged after waiting `seconds` for its durable recipients."""
        self.acknowledge_seconds += seconds
        bucket = 0
        for bound in ACKNOWLEDGE_BUCKETS:
            if seconds <= bound:
                break
            bucket += 1
        self.acknowledge_buckets[bucket] += 1
