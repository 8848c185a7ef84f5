"""What a bridge is doing, as plain values: for metrics, for `$SYS`, for whoever asks why nothing arrives."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

State = Literal[
    "resolving",
    "connecting",
    "handshake",
    "connecting-mqtt",
    "online",
    "backing-off",
    "month-spent",
    "stopped",
]


@dataclass(slots=True)
class UpstreamStatus:
    """One of the upstreams. `ejected`: left alone for now. `seconds`: how long its answers take, by kind."""

    url: str
    priority: int
    chosen: bool
    ejected: bool
    seconds: dict[str, float]


@dataclass(slots=True)
class PolicyStatus:
    """What the policy has decided. `breaker`: `closed`, `open` or `half-open`; `breaker_opened`: how often.

    `failovers`: connections made to another upstream than the one before; `ejections`: how often one was left alone.
    `draining`: messages that waited when the connection stood and are not acknowledged yet; `drain_seconds`: until they
    are, where the pace is what holds them up. `month_used_bytes`: of the allowance `month_bytes`; 0 where there is none.
    """

    breaker: str
    breaker_opened: int
    failovers: int
    ejections: int
    upstreams: list[UpstreamStatus]
    draining: int
    drain_seconds: float | None
    month_used_bytes: int
    month_bytes: int


@dataclass(slots=True)
class EnvelopesStatus:
    """Since the start: envelopes `sent`, `messages` in them, the bytes of these before and after packing, `fallen_apart`:
    envelopes that the upstream refused, or that the lease's end came before. `lease`: as `bridge.lease` has it, or `off`;
    `lease_seconds` for how long it holds, `ingester` who announced it, `malformed` announcements that were none."""

    lease: str
    lease_seconds: float
    ingester: str
    malformed: int
    sent: int
    messages: int
    bytes_before: int
    bytes_after: int
    fallen_apart: int


@dataclass(slots=True)
class Status:
    """One moment. Counters are of messages since the start of the broker, but `connects`: connections accepted upstream.

    `version`: "5" or "3.1.1", empty while not online. `depth`: messages that wait for the upstream's acknowledgement,
    `in_flight` those of them that are sent. `sent`, `received`: by QoS. `dropped`: not taken, by reason; `refused`: given
    up because the upstream would never take them, by reason. `expired`: older than their publisher allowed.
    `lost`: damaged in the store. `failures`: of connections and attempts, by `bridge.failures.KINDS`.
    `last_error` and `last_hint` stay after a connection succeeded, for the log's sake. `spans_lost`: of traces, not arrived
    at their collector. `canary_percent`: so many of the topics go to its canary, None where there is none. `envelopes`:
    None where none are configured. `skipped_announced`, `skipped_refused`: numbers of messages that will not come, as the
    upstream took or refused the announcement; `skipped_waiting`: entries that are not announced yet. `late`: messages that
    waited upstream while the bridge was away, those among them that were dropped.
    """

    name: str
    state: State
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
    subscriptions_refused: int
    last_acknowledged_wall: float | None
    failures: dict[str, int]
    last_error: str
    last_hint: str
    policy: PolicyStatus
    spans_lost: int = 0
    canary_percent: float | None = None
    envelopes: EnvelopesStatus | None = None
    skipped_announced: int = 0
    skipped_refused: int = 0
    skipped_waiting: int = 0
    late: int = 0

    @property
    def connected(self) -> bool:
        """Whether messages cross now."""
        return self.state == "online"
