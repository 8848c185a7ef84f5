"""What health and metrics look at: the broker, its store, its journal and its bridges, as far as `ops` reads them.

Everything here is read when somebody asks, and never written. `edge_broker.broker.Broker` is the one that fits.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence, Sized
from typing import Protocol

from edge_broker.core.histogram import Histogram
from edge_broker.core.ops import Page
from edge_broker.core.queue import Queue
from edge_broker.core.router import Router
from edge_broker.ops.expiring import Expiring
from edge_broker.ops.watching import Watching


class ObservedJournal(Protocol):
    """The group commit. `commit_seconds_buckets` are not cumulative, and one more than the bounds."""

    @property
    def healthy(self) -> bool:
        """Whether the last commit succeeded."""

    @property
    def problem(self) -> str:
        """Why it did not."""

    @property
    def commit_delay_seconds(self) -> float:
        """How long a message may wait for others now."""

    @property
    def commit_seconds_bounds(self) -> Sequence[float]:
        """Upper bounds in seconds."""

    @property
    def commit_seconds_buckets(self) -> Sequence[int]:
        """Commits by how long they took."""

    @property
    def commit_seconds_sum(self) -> float:
        """All of them together."""


class ObservedStore(Protocol):
    """The store."""

    @property
    def full(self) -> bool:
        """Whether the last commit failed for want of space."""

    @property
    def log_frames_dropped(self) -> int:
        """Frames of a damaged write-ahead log that were dropped at the start."""

    @property
    def read_problem(self) -> str:
        """Why the last read failed; empty where it did not."""

    @property
    def commits(self) -> int:
        """Commits that are on the disk."""

    @property
    def commit_errors(self) -> int:
        """Commits that failed."""

    @property
    def file_bytes(self) -> int:
        """The size of its files; `OSError` where they cannot be looked at."""

    async def read_page(self, queue_id: int, from_number: int, max_messages: int, max_bytes: int) -> Page:
        """The stored messages of a queue from `from_number` on, or `StoreError`."""


class ObservedUpstream(Protocol):
    """One of a bridge's upstreams."""

    url: str
    priority: int
    chosen: bool
    ejected: bool
    seconds: dict[str, float]


class ObservedPolicy(Protocol):
    """What a bridge's policy has decided; `bridge.status.PolicyStatus` says what each of these means."""

    breaker: str
    breaker_opened: int
    failovers: int
    ejections: int
    draining: int
    drain_seconds: float | None
    month_used_bytes: int
    month_bytes: int

    @property
    def upstreams(self) -> Sequence[ObservedUpstream]:
        """All that are known now."""


class ObservedEnvelopes(Protocol):
    """A bridge's envelopes; `bridge.status.EnvelopesStatus` says what each of these means."""

    lease: str
    lease_seconds: float
    ingester: str
    malformed: int
    sent: int
    messages: int
    bytes_before: int
    bytes_after: int
    fallen_apart: int


class ObservedClock(Protocol):
    """What time it is, where the wall clock may be wrong."""

    @property
    def unsynced(self) -> bool:
        """Whether the wall clock is not believed now."""

    @property
    def corrections(self) -> int:
        """How often it was set while the broker ran, and followed."""

    def wall(self, monotonic: float) -> float:
        """The wall time of a moment of the monotonic clock, as far as it is known by now."""


class ObservedStatus(Protocol):
    """A bridge at one moment; `bridge.status.Status` says what each of these means."""

    name: str
    upstream: str
    version: str
    depth: int
    in_flight: int
    sent: tuple[int, int, int]
    acknowledged: int
    resent: int
    received: tuple[int, int, int]
    connects: int
    dropped: dict[str, int]
    refused: dict[str, int]
    expired: int
    lost: int
    last_acknowledged_wall: float | None
    failures: dict[str, int]
    last_error: str
    last_hint: str
    spans_lost: int
    canary_percent: float | None
    skipped_announced: int
    skipped_refused: int
    skipped_waiting: int
    late: int

    @property
    def policy(self) -> ObservedPolicy:
        """Where it goes, and how fast."""

    @property
    def envelopes(self) -> ObservedEnvelopes | None:
        """What goes in envelopes; None where nothing does."""

    @property
    def state(self) -> str:
        """What it is doing, in a word."""

    @property
    def connected(self) -> bool:
        """Whether messages cross now."""


class ObservedBridge(Protocol):
    """A bridge."""

    @property
    def name(self) -> str:
        """How configuration, log and metrics call it."""

    @property
    def queues(self) -> Mapping[str, Queue]:
        """What waits for its upstream, by priority: `normal`, and others where its rules have them."""

    def status(self) -> ObservedStatus:
        """What it is doing now."""

    def set_canary_percent(self, percent: float) -> None:
        """Have so many of the topics go to its canary, which it has: `status` tells a percentage."""


class ObservedAudit(Protocol):
    """The audit log; `edge_broker.ops.audit` says what each of these means."""

    written: int
    left_out: dict[str, int]
    write_errors: int


class Observed(Protocol):
    """The broker."""

    router: Router
    card_endurance_bytes: float

    @property
    def journal(self) -> ObservedJournal:
        """Its group commit."""

    @property
    def store(self) -> ObservedStore:
        """Its store."""

    @property
    def audit(self) -> ObservedAudit | None:
        """Its audit log, where there is one."""

    @property
    def clock(self) -> ObservedClock:
        """Its clock."""

    @property
    def bridges(self) -> Sequence[ObservedBridge]:
        """What rides along."""

    @property
    def connections(self) -> Sized:
        """Clients' connections."""

    @property
    def listening(self) -> Sequence[str]:
        """Where clients can connect, as URLs."""

    @property
    def not_listening(self) -> Sequence[str]:
        """Where they should be able to and cannot."""

    @property
    def started_at(self) -> float:
        """When it started, wall clock."""

    @property
    def swept_at(self) -> float:
        """When its every-second work last ran, monotonic clock."""

    @property
    def last_lag_seconds(self) -> float:
        """How late that was."""

    @property
    def loop_lag_seconds(self) -> Histogram:
        """How late it ever was."""

    @property
    def expiring(self) -> Expiring:
        """Certificates and revocation lists, and when they expire."""

    @property
    def watching(self) -> Watching:
        """Files that are taken anew when they change."""

    @property
    def read_errors(self) -> int:
        """Pages of queues that could not be read."""

    def record_action(self, action: str, by: str, **fields: str | int | float | bool | None) -> None:
        """Put into the audit log what an administrator did."""


def queue_names(bridge: ObservedBridge) -> dict[str, Queue]:
    """The queues of `bridge` by what metrics call them: `bridge:NAME`, and beside it `bridge:NAME!high` and the like."""
    name = f"bridge:{bridge.name}"
    return {
        name if priority == "normal" else f"{name}!{priority}": queue
        for priority, queue in bridge.queues.items()
    }


def dropped_messages(observed: Observed) -> Mapping[str, int]:
    """Messages that a recipient should have had and did not get, by reason, bridges included; never falls.

    What ended sessions had counted is in the router's counters already.
    """
    counters = observed.router.counters
    dropped = {"expired": 0, "lost": 0} | counters.dropped
    for session in observed.router.sessions.values():
        dropped["expired"] += session.queue.expired
        dropped["lost"] += session.queue.lost
    for bridge in observed.bridges:
        status = bridge.status()
        dropped["expired"] += status.expired
        dropped["lost"] += status.lost
        for reason, count in status.dropped.items():
            dropped[reason] = dropped.get(reason, 0) + count
        if status.refused:
            dropped["upstream_refused"] = dropped.get("upstream_refused", 0) + sum(status.refused.values())
    return dropped
