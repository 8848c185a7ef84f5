"""The facts that health is judged by, taken from the broker at one moment."""

from __future__ import annotations

import time

from edge_broker.ops.health import BridgeFacts, Facts
from edge_broker.ops.observed import Observed


def gather(observed: Observed, now: float) -> Facts:
    """The facts of this moment; `now` is the monotonic clock."""
    statuses = [bridge.status() for bridge in observed.bridges]
    return Facts(
        store_healthy=observed.journal.healthy and not observed.store.read_problem,
        store_problem=observed.journal.problem or observed.store.read_problem,
        store_full=observed.store.full,
        listening=observed.listening,
        not_listening=observed.not_listening,
        bridges=[
            BridgeFacts(
                name=status.name,
                state=status.state,
                upstream=status.upstream,
                connected=status.connected,
                waiting=status.depth,
                in_flight=status.in_flight,
                last_error=status.last_error,
                last_hint=status.last_hint,
            )
            for status in statuses
        ],
        since_sweep_seconds=now - observed.swept_at,
        loop_lag_seconds=observed.last_lag_seconds,
        expiring=observed.expiring.problems(time.time()),
        refused_files=observed.watching.refused,
        clock_unsynced=observed.clock.unsynced,
    )
