"""The broker in Prometheus' text format. `docs/monitoring.md` says what each metric means.

Nothing is counted here: what the broker's parts count as plain ints is read when somebody asks, so a metric costs a
message nothing. Label values are bounded: reasons are a fixed vocabulary, and of queues only some have a name (`backlog`).
"""

from __future__ import annotations

import time
from collections.abc import Iterable, Iterator, Mapping, Sequence
from itertools import accumulate
from typing import Final, Protocol

from prometheus_client import CollectorRegistry, ProcessCollector, generate_latest
from prometheus_client.core import (
    CounterMetricFamily,
    GaugeMetricFamily,
    HistogramMetricFamily,
    InfoMetricFamily,
    Metric,
)
from prometheus_client.registry import Collector

from edge_broker import __version__
from edge_broker.core.dead_letters import DeadLetters
from edge_broker.core.delayed import Delayed
from edge_broker.core.histogram import Histogram
from edge_broker.ops import disk
from edge_broker.ops.backlog import Backlog, BacklogView
from edge_broker.ops.observed import (
    Observed,
    ObservedAudit,
    ObservedPolicy,
    ObservedStatus,
    dropped_messages,
)

CONTENT_TYPE: Final = "text/plain; version=0.0.4; charset=utf-8"
_DENIED: Final = ("publish", "qos", "retain", "subscribe", "share", "receive", "will", "removed")
"""All of them also where none was denied, so that a rule finds what it asks for."""


class Metrics:
    """The metrics of one broker. `close` it before the store is closed. `http_refused`: what HTTP refused, by reason."""

    def __init__(self, observed: Observed, http_refused: Mapping[str, int]) -> None:
        self._backlogs = BacklogView(observed)
        self._collector = BrokerCollector(observed, http_refused)
        self._registry = CollectorRegistry()
        self._registry.register(self._collector)
        ProcessCollector(registry=self._registry)

    async def render(self) -> bytes:
        """All of them, as of now."""
        self._collector.backlogs = await self._backlogs.look()
        return generate_latest(self._registry)

    async def close(self) -> None:
        """Read nothing more."""
        await self._backlogs.close()


class BrokerCollector(Collector):
    """Reads one broker's counters. `backlogs`: its queues, looked at just before, because that may need the store."""

    def __init__(self, observed: Observed, http_refused: Mapping[str, int]) -> None:
        self._observed = observed
        self._http_refused = http_refused
        self.backlogs: Sequence[Backlog] = ()

    def describe(self) -> Iterable[Metric]:
        """Nothing: names are not looked for before the broker runs."""
        return ()

    def collect(self) -> Iterator[Metric]:
        """Everything, group by group."""
        yield from self._broker()
        yield from self._clients()
        yield from self._messages()
        yield from self._queues()
        yield from _delayed(self._observed.router.delayed)
        yield from _dead_letters(self._observed.router.dead_letters)
        yield from self._store()
        statuses = [bridge.status() for bridge in self._observed.bridges]
        ahead = self._observed.clock.wall(time.monotonic()) - time.time()
        yield from _bridges(statuses, ahead)
        yield from _policies({status.name: status.policy for status in statuses})
        yield from _audit(self._observed.audit)
        yield from _files(self._observed, time.time())
        yield from _passwords(getattr(self._observed.router.authenticator, "passwords", None))
        yield from _tokens(getattr(self._observed.router.authenticator, "tokens", None))
        yield _counters(
            "http_refused",
            "HTTP requests and connections that were not answered as they wished, and why.",
            "reason",
            self._http_refused.items(),
        )

    def _broker(self) -> Iterator[Metric]:
        observed = self._observed
        yield InfoMetricFamily("edge_broker", "Which version runs.", {"version": __version__})
        yield _gauge("start_time_seconds", "When the broker started, Unix time.", observed.started_at)
        yield _gauge(
            "clock_unsynced",
            "1: the wall clock is not believed; deadlines go by the time that the broker runs.",
            observed.clock.unsynced,
        )
        yield _counter(
            "clock_corrections",
            "How often the clock was set while the broker ran.",
            observed.clock.corrections,
        )
        yield _histogram(
            "event_loop_lag_seconds",
            "How late the event loop is: what every client waits in addition.",
            observed.loop_lag_seconds,
        )

    def _clients(self) -> Iterator[Metric]:
        observed = self._observed
        counters = observed.router.counters
        sessions = observed.router.sessions.values()
        connected = sum(session.online for session in sessions)
        states = {"connected": connected, "disconnected": len(sessions) - connected}
        yield _gauge("connections", "Clients connected now.", len(observed.connections))
        yield _counter("connections", "Connections accepted.", counters.connections)
        yield _counters(
            "connections_refused",
            "Connections not let in, or closed for what the client did.",
            "reason",
            counters.refused.items(),
        )
        yield _gauges("sessions", "Sessions kept.", "state", states.items())
        yield _gauge(
            "subscriptions",
            "Subscriptions of all sessions.",
            sum(len(session.subscriptions) for session in sessions),
        )

    def _messages(self) -> Iterator[Metric]:
        router = self._observed.router
        counters = router.counters
        yield _gauge("retained_messages", "Topics with a retained message.", router.retained_messages)
        yield _gauge(
            "retained_memory_bytes", "What retained messages take in memory.", router.retained.memory_bytes
        )
        yield _gauge(
            "retained_on_disk_only",
            "Retained messages that are not in memory.",
            router.retained.on_disk_only,
        )
        yield _counters(
            "messages_received", "PUBLISH packets from clients.", "qos", _by_qos(counters.received)
        )
        yield _counters("messages_sent", "PUBLISH packets to clients.", "qos", _by_qos(counters.sent))
        yield _counters(
            "messages_dropped",
            "Messages that a recipient did not get, and why.",
            "reason",
            dropped_messages(self._observed).items(),
        )
        denied = dict.fromkeys(_DENIED, 0) | counters.denied
        yield _counters(
            "denied", "What somebody wanted and may not, and what about it.", "kind", denied.items()
        )
        yield _histogram(
            "publish_acknowledge_seconds",
            "From a PUBLISH that had to be kept to its acknowledgement.",
            counters.acknowledge_seconds,
        )

    def _queues(self) -> Iterator[Metric]:
        depths = [(backlog.name, backlog.messages) for backlog in self.backlogs]
        ages = [
            (backlog.name, backlog.oldest_age_seconds)
            for backlog in self.backlogs
            if backlog.oldest_age_seconds is not None
        ]
        yield _gauges(
            "queue_dropped_messages",
            "Messages that a queue let go without its recipient since the start, whatever the reason.",
            "queue",
            [(backlog.name, backlog.dropped) for backlog in self.backlogs],
        )
        yield _gauges("queue_messages", "Messages that wait in a queue.", "queue", depths)
        yield _gauges("queue_oldest_age_seconds", "How long the first of them has waited.", "queue", ages)

    def _store(self) -> Iterator[Metric]:
        observed = self._observed
        store, journal, pending = observed.store, observed.journal, observed.router.pending
        yield _gauge(
            "store_healthy",
            "0: the store cannot be written, nothing it must keep is acknowledged; or it cannot be read.",
            journal.healthy and not store.read_problem,
        )
        yield _counter("store_commits", "Commits to disk.", store.commits)
        yield _counter(
            "store_errors", "Commits or reads that failed.", store.commit_errors + observed.read_errors
        )
        yield _buckets(
            "commit_seconds",
            "One commit to disk, its sync included.",
            journal.commit_seconds_bounds,
            journal.commit_seconds_buckets,
            journal.commit_seconds_sum,
        )
        yield _gauge(
            "store_log_frames_dropped",
            "Frames of a damaged write-ahead log that this start had to drop.",
            store.log_frames_dropped,
        )
        yield _gauge("store_bytes", "The size of the store's files.", store.file_bytes)
        yield _gauge("uncommitted_bytes", "Messages that are not on disk yet.", pending.uncommitted_bytes)
        yield _counter(
            "elided_messages",
            "Messages that never had to be written: their recipients took them first.",
            pending.elided,
        )
        yield _gauge(
            "commit_delay_seconds",
            "How long a message may wait for others now.",
            journal.commit_delay_seconds,
        )
        written = disk.written_bytes()
        if written is not None:
            yield _counter("written_bytes", "Bytes that the process had written to disk.", written)
            yield from self._card(written)

    def _card(self, written: int) -> Iterator[Metric]:
        """How long a card lasts that takes so many bytes, at the rate of this run."""
        seconds = self._observed.clock.wall(time.monotonic()) - self._observed.started_at
        years = disk.card_years(self._observed.card_endurance_bytes, written, seconds)
        if years is not None:
            yield _gauge(
                "card_years", "How long the card lasts at the rate of this run, by its endurance.", years
            )


def _bridges(statuses: Sequence[ObservedStatus], ahead_seconds: float) -> Iterator[Metric]:
    """`ahead_seconds`: what the broker's clock is ahead of the system's, by which the statuses' times are."""
    yield _gauges(
        "bridge_connected",
        "Whether the upstream is connected.",
        "bridge",
        [(status.name, status.connected) for status in statuses],
    )
    yield _counters(
        "bridge_acknowledged",
        "Messages that the upstream acknowledged.",
        "bridge",
        [(status.name, status.acknowledged) for status in statuses],
    )
    yield _counters(
        "bridge_resent",
        "Messages sent again after a reconnect.",
        "bridge",
        [(status.name, status.resent) for status in statuses],
    )
    yield _counters(
        "bridge_connects",
        "Connections made to the upstream.",
        "bridge",
        [(status.name, status.connects) for status in statuses],
    )
    yield _gauges(
        "bridge_in_flight",
        "Messages sent and not yet acknowledged.",
        "bridge",
        [(status.name, status.in_flight) for status in statuses],
    )
    yield _gauges(
        "bridge_last_acknowledged_timestamp_seconds",
        "When the upstream last acknowledged something, Unix time.",
        "bridge",
        [
            (status.name, status.last_acknowledged_wall + ahead_seconds)
            for status in statuses
            if status.last_acknowledged_wall is not None
        ],
    )


def _policies(policies: Mapping[str, ObservedPolicy]) -> Iterator[Metric]:
    """Where the bridges go, and how fast they may."""
    breaker = _labelled(
        "bridge_breaker", "1 for the state that the circuit breaker is in.", "bridge", "state"
    )
    chosen = _labelled("bridge_upstream_chosen", "Whether the bridge goes there.", "bridge", "upstream")
    ejected = _labelled("bridge_upstream_ejected", "Whether it is left alone now.", "bridge", "upstream")
    answers = _labelled(
        "bridge_upstream_answer_seconds", "How long answers take there.", "bridge", "upstream", "kind"
    )
    for name, policy in policies.items():
        for state in ("closed", "open", "half-open"):
            breaker.add_metric([name, state], policy.breaker == state)
        for upstream in policy.upstreams:
            chosen.add_metric([name, upstream.url], upstream.chosen)
            ejected.add_metric([name, upstream.url], upstream.ejected)
            for kind, seconds in upstream.seconds.items():
                answers.add_metric([name, upstream.url, kind], seconds)
    yield from (breaker, chosen, ejected, answers)
    for counter, text in (
        ("breaker_opened", "How often the circuit breaker opened."),
        ("failovers", "Connections made to another upstream than the one before."),
        ("ejections", "How often an upstream was left alone for a while."),
    ):
        values = [(name, getattr(policy, counter)) for name, policy in policies.items()]
        yield _counters(f"bridge_{counter}", text, "bridge", values)
    for gauge, text in (
        ("draining", "Messages that waited when the connection stood and are not acknowledged yet."),
        ("drain_seconds", "Until those are sent, where their pace is limited."),
        ("month_used_bytes", "What the line has carried this month, where it has an allowance."),
        ("month_bytes", "The month's allowance, where there is one."),
    ):
        found = [
            (name, getattr(policy, gauge)) for name, policy in policies.items() if _counts(policy, gauge)
        ]
        yield _gauges(f"bridge_{gauge}", text, "bridge", found)


def _counts(policy: ObservedPolicy, gauge: str) -> bool:
    """Whether `gauge` says anything of this bridge."""
    if gauge == "drain_seconds":
        return policy.drain_seconds is not None
    return policy.month_bytes > 0 or not gauge.startswith("month_")


def _labelled(name: str, text: str, *labels: str) -> GaugeMetricFamily:
    return GaugeMetricFamily(f"edge_broker_{name}", text, labels=labels)


def _audit(audit: ObservedAudit | None) -> Iterator[Metric]:
    """Also where there is none, so that a rule finds what it asks for."""
    left_out = {"rate": 0, "waiting": 0} if audit is None else audit.left_out
    yield _counter("audit_lines", "Lines in the audit log.", audit.written if audit else 0)
    yield _counters("audit_lines_left_out", "Lines that it has not, and why.", "reason", left_out.items())
    yield _counter("audit_errors", "Writes of it that failed.", audit.write_errors if audit else 0)


def _files(observed: Observed, wall: float) -> Iterator[Metric]:
    """What expires, and what the broker takes anew from its files."""
    expiry = GaugeMetricFamily(
        "edge_broker_expires_in_seconds",
        "Until a certificate, CA or revocation list expires; negative since it has.",
        labels=["kind", "owner"],
    )
    for entry in observed.expiring:
        expiry.add_metric([entry.kind, entry.owner], entry.at - wall)
    yield expiry
    watches = observed.watching.watches.items()
    for name, text, values in (
        ("files_taken", "Changed files that were taken anew.", [(what, w.taken) for what, w in watches]),
        ("files_refused", "Changed files that were refused.", [(what, w.refused) for what, w in watches]),
    ):
        yield _counters(name, text, "files", values)
    yield _gauges(
        "files_refused",
        "1: what stands in the files now is refused, and what was taken before counts.",
        "files",
        [(what, int(bool(watch.refusal))) for what, watch in watches],
    )


def _delayed(delayed: Delayed) -> Iterator[Metric]:
    yield _gauge("delayed_messages", "Messages that wait for their delay.", len(delayed))
    yield _gauge("delayed_bytes", "Their packets.", delayed.size_bytes)
    ends = {"delivered": delayed.delivered, "expired": delayed.expired} | {
        f"refused_{reason}": count for reason, count in delayed.refused.items()
    }
    yield _counters("delayed", "What became of delayed messages.", "outcome", ends.items())


def _dead_letters(dead_letters: DeadLetters | None) -> Iterator[Metric]:
    """All of them also where none are kept, so that a rule finds what it asks for."""
    buried = {} if dead_letters is None else dead_letters.buried
    yield _counters("dead_letters", "Messages that became dead letters, and why.", "reason", buried.items())
    yield _gauge("dead_letters_waiting", "Dead letters kept.", dead_letters.depth if dead_letters else 0)
    yield _counter(
        "dead_letters_dropped",
        "Dead letters that gave way to later ones, or were too old.",
        dead_letters.dropped if dead_letters else 0,
    )
    yield _counter(
        "dead_letters_failed",
        "Messages that should have become dead letters and could not.",
        dead_letters.unburied if dead_letters else 0,
    )


def _passwords(admission: ObservedPasswords | None) -> Iterator[Metric]:
    """All of them also where nobody comes in by password, so that a rule finds what it asks for."""
    nothing = {"name": 0, "address": 0}
    checks = None if admission is None else admission.verifications
    guesses = None if admission is None else admission.guessing.counters
    hits = 0 if admission is None else admission.verified.hits
    for name, text, value in (
        ("checks", "Passwords checked, which is slow on purpose.", checks.done if checks else 0),
        ("checks_failed", "Checks that failed by themselves.", checks.failed if checks else 0),
        ("checks_turned_away", "Not checked: too many waited.", checks.turned_away if checks else 0),
        ("cache_hits", "Right passwords that needed no check.", hits),
        ("failures", "Wrong passwords, SCRAM's proofs among them.", guesses.failures if guesses else 0),
        ("ban_refusals", "Not looked at because of a ban.", guesses.refused if guesses else 0),
        ("guesses_forgotten", "Guesses forgotten for want of room.", guesses.forgotten if guesses else 0),
    ):
        yield _counter(f"password_{name}", text, value)
    yield _gauge("passwords_waiting", "Passwords that wait to be checked.", checks.waiting if checks else 0)
    bans = nothing if admission is None else admission.guessing.banned()
    yield _gauges("password_bans", "Bans in force, by what is banned.", "kind", bans.items())
    yield _counters(
        "password_bans", "Bans, by what was banned.", "kind", (guesses.bans if guesses else nothing).items()
    )


def _tokens(admission: ObservedTokens | None) -> Iterator[Metric]:
    counters = None if admission is None else admission.counters
    yield _counter(
        "tokens_accepted",
        "JSON Web Tokens that let a client in, or stay.",
        counters.accepted if counters else 0,
    )
    yield _counters(
        "tokens_refused",
        "JSON Web Tokens that were not taken, by what was wrong.",
        "reason",
        counters.refused.items() if counters else (),
    )


class ObservedTokens(Protocol):
    """Who decides about tokens."""

    @property
    def counters(self) -> _TokenCounters: ...


class _TokenCounters(Protocol):
    accepted: int
    refused: dict[str, int]


class ObservedPasswords(Protocol):
    """Who decides about passwords; `edge_broker.security` says what each of these means."""

    @property
    def verifications(self) -> _Verifications: ...

    @property
    def guessing(self) -> _Guessing: ...

    @property
    def verified(self) -> _Verified: ...


class _Verifications(Protocol):
    done: int
    failed: int
    turned_away: int

    @property
    def waiting(self) -> int: ...


class _GuessCounters(Protocol):
    failures: int
    refused: int
    forgotten: int
    bans: dict[str, int]


class _Guessing(Protocol):
    @property
    def counters(self) -> _GuessCounters: ...

    def banned(self) -> dict[str, int]: ...


class _Verified(Protocol):
    hits: int


# ---- families


def _by_qos(counts: Sequence[int]) -> Iterator[tuple[str, int]]:
    return ((str(qos), count) for qos, count in enumerate(counts))


def _gauge(name: str, text: str, value: float) -> Metric:
    return GaugeMetricFamily(f"edge_broker_{name}", text, value=value)


def _counter(name: str, text: str, value: float) -> Metric:
    return CounterMetricFamily(f"edge_broker_{name}", text, value=value)


def _gauges(name: str, text: str, label: str, values: Iterable[tuple[str, float]]) -> Metric:
    family = GaugeMetricFamily(f"edge_broker_{name}", text, labels=[label])
    for label_value, value in values:
        family.add_metric([label_value], value)
    return family


def _counters(name: str, text: str, label: str, values: Iterable[tuple[str, float]]) -> Metric:
    family = CounterMetricFamily(f"edge_broker_{name}", text, labels=[label])
    for label_value, value in values:
        family.add_metric([label_value], value)
    return family


def _histogram(name: str, text: str, histogram: Histogram) -> Metric:
    return _buckets(name, text, histogram.bounds, histogram.counts, histogram.total)


def _buckets(name: str, text: str, bounds: Sequence[float], counts: Sequence[int], total: float) -> Metric:
    """`counts` are per bucket, the last one above all bounds; Prometheus wants them cumulative."""
    limits = [*(str(bound) for bound in bounds), "+Inf"]
    buckets = list(zip(limits, accumulate(counts), strict=True))
    return HistogramMetricFamily(f"edge_broker_{name}", text, buckets=buckets, sum_value=total)
