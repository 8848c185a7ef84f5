"""The broker in Prometheus' text format. `docs/monitoring.md` says what each metric means.

Nothing is counted here: what the broker's parts count as plain ints is read when somebody asks, so a metric costs a
message nothing. Label values are bounded: reasons are a fixed vocabulary, and of queues only some have a name (`backlog`).
"""

from __future__ import annotations

import time
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Final

from prometheus_client import CollectorRegistry, ProcessCollector, generate_latest
from prometheus_client.core import CounterMetricFamily, InfoMetricFamily, Metric
from prometheus_client.registry import Collector

from edge_broker import __version__
from edge_broker.core.dead_letters import DeadLetters
from edge_broker.core.delayed import Delayed
from edge_broker.ops import disk
from edge_broker.ops.backlog import Backlog, BacklogView
from edge_broker.ops.metrics_access import audit_metrics, file_metrics, password_metrics, token_metrics
from edge_broker.ops.metrics_envelopes import envelope_metrics
from edge_broker.ops.metrics_families import buckets, by_qos, counter, counters, gauge, gauges, histogram
from edge_broker.ops.metrics_policy import policy_metrics
from edge_broker.ops.observed import Observed, ObservedStatus, dropped_messages

CONTENT_TYPE: Final = "text/plain; version=0.0.4; charset=utf-8"
_DENIED: Final = ("publish", "qos", "retain", "subscribe", "share", "receive", "will", "removed", "quota")
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
    """Reads one broker's counted. `backlogs`: its queues, looked at just before, because that may need the store."""

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
        yield from policy_metrics({status.name: status.policy for status in statuses})
        yield from envelope_metrics({status.name: status.envelopes for status in statuses})
        yield from audit_metrics(self._observed.audit)
        yield from file_metrics(self._observed, time.time())
        yield from password_metrics(getattr(self._observed.router.authenticator, "passwords", None))
        yield from token_metrics(getattr(self._observed.router.authenticator, "tokens", None))
        yield counters(
            "http_refused",
            "HTTP requests and connections that were not answered as they wished, and why.",
            "reason",
            self._http_refused.items(),
        )

    def _broker(self) -> Iterator[Metric]:
        observed = self._observed
        yield InfoMetricFamily("edge_broker", "Which version runs.", {"version": __version__})
        yield gauge("start_time_seconds", "When the broker started, Unix time.", observed.started_at)
        yield gauge(
            "clock_unsynced",
            "1: the wall clock is not believed; deadlines go by the time that the broker runs.",
            observed.clock.unsynced,
        )
        yield counter(
            "clock_corrections",
            "How often the clock was set while the broker ran.",
            observed.clock.corrections,
        )
        yield histogram(
            "event_loop_lag_seconds",
            "How late the event loop is: what every client waits in addition.",
            observed.loop_lag_seconds,
        )

    def _clients(self) -> Iterator[Metric]:
        observed = self._observed
        counted = observed.router.counters
        sessions = observed.router.sessions.values()
        connected = sum(session.online for session in sessions)
        states = {"connected": connected, "disconnected": len(sessions) - connected}
        yield gauge("connections", "Clients connected now.", len(observed.connections))
        yield counter("connections", "Connections accepted.", counted.connections)
        yield counters(
            "connections_refused",
            "Connections not let in, or closed for what the client did.",
            "reason",
            counted.refused.items(),
        )
        yield gauges("sessions", "Sessions kept.", "state", states.items())
        yield gauge(
            "subscriptions",
            "Subscriptions of all sessions.",
            sum(len(session.subscriptions) for session in sessions),
        )

    def _messages(self) -> Iterator[Metric]:
        router = self._observed.router
        counted = router.counters
        yield gauge("retained_messages", "Topics with a retained message.", router.retained_messages)
        yield gauge(
            "retained_memory_bytes", "What retained messages take in memory.", router.retained.memory_bytes
        )
        yield gauge(
            "retained_on_disk_only",
            "Retained messages that are not in memory.",
            router.retained.on_disk_only,
        )
        yield counters("messages_received", "PUBLISH packets from clients.", "qos", by_qos(counted.received))
        yield counters("messages_sent", "PUBLISH packets to clients.", "qos", by_qos(counted.sent))
        yield counters(
            "messages_dropped",
            "Messages that a recipient did not get, and why.",
            "reason",
            dropped_messages(self._observed).items(),
        )
        denied = dict.fromkeys(_DENIED, 0) | counted.denied
        yield counters(
            "denied", "What somebody wanted and may not, and what about it.", "kind", denied.items()
        )
        yield histogram(
            "publish_acknowledge_seconds",
            "From a PUBLISH that had to be kept to its acknowledgement.",
            counted.acknowledge_seconds,
        )

    def _queues(self) -> Iterator[Metric]:
        depths = [(backlog.name, backlog.messages) for backlog in self.backlogs]
        ages = [
            (backlog.name, backlog.oldest_age_seconds)
            for backlog in self.backlogs
            if backlog.oldest_age_seconds is not None
        ]
        yield gauges(
            "queue_dropped_messages",
            "Messages that a queue let go without its recipient since the start, whatever the reason.",
            "queue",
            [(backlog.name, backlog.dropped) for backlog in self.backlogs],
        )
        yield gauges("queue_messages", "Messages that wait in a queue.", "queue", depths)
        yield gauges("queue_oldest_age_seconds", "How long the first of them has waited.", "queue", ages)

    def _store(self) -> Iterator[Metric]:
        observed = self._observed
        store, journal, pending = observed.store, observed.journal, observed.router.pending
        yield gauge(
            "store_healthy",
            "0: the store cannot be written, nothing it must keep is acknowledged; or it cannot be read.",
            journal.healthy and not store.read_problem,
        )
        yield counter("store_commits", "Commits to disk.", store.commits)
        yield counter(
            "store_errors", "Commits or reads that failed.", store.commit_errors + observed.read_errors
        )
        yield buckets(
            "commit_seconds",
            "One commit to disk, its sync included.",
            journal.commit_seconds_bounds,
            journal.commit_seconds_buckets,
            journal.commit_seconds_sum,
        )
        yield gauge(
            "store_log_frames_dropped",
            "Frames of a damaged write-ahead log that this start had to drop.",
            store.log_frames_dropped,
        )
        yield gauge("store_bytes", "The size of the store's files.", store.file_bytes)
        yield gauge("uncommitted_bytes", "Messages that are not on disk yet.", pending.uncommitted_bytes)
        yield counter(
            "elided_messages",
            "Messages that never had to be written: their recipients took them first.",
            pending.elided,
        )
        yield gauge(
            "commit_delay_seconds",
            "How long a message may wait for others now.",
            journal.commit_delay_seconds,
        )
        written = disk.written_bytes()
        if written is not None:
            yield counter("written_bytes", "Bytes that the process had written to disk.", written)
            yield from self._card(written)

    def _card(self, written: int) -> Iterator[Metric]:
        """How long a card lasts that takes so many bytes, at the rate of this run."""
        seconds = self._observed.clock.wall(time.monotonic()) - self._observed.started_at
        years = disk.card_years(self._observed.card_endurance_bytes, written, seconds)
        if years is not None:
            yield gauge(
                "card_years", "How long the card lasts at the rate of this run, by its endurance.", years
            )


def _bridges(statuses: Sequence[ObservedStatus], ahead_seconds: float) -> Iterator[Metric]:
    """`ahead_seconds`: what the broker's clock is ahead of the system's, by which the statuses' times are."""
    yield gauges(
        "bridge_connected",
        "Whether the upstream is connected.",
        "bridge",
        [(status.name, status.connected) for status in statuses],
    )
    yield counters(
        "bridge_acknowledged",
        "Messages that the upstream acknowledged.",
        "bridge",
        [(status.name, status.acknowledged) for status in statuses],
    )
    yield counters(
        "bridge_resent",
        "Messages sent again after a reconnect.",
        "bridge",
        [(status.name, status.resent) for status in statuses],
    )
    yield from _connections(statuses)
    yield gauges(
        "bridge_in_flight",
        "Messages sent and not yet acknowledged.",
        "bridge",
        [(status.name, status.in_flight) for status in statuses],
    )
    yield gauges(
        "bridge_canary_percent",
        "How many percent of the topics go to the bridge's canary, where it has one.",
        "bridge",
        [(status.name, status.canary_percent) for status in statuses if status.canary_percent is not None],
    )
    yield counters(
        "bridge_spans_lost",
        "Spans of traces that did not arrive at their collector.",
        "bridge",
        [(status.name, status.spans_lost) for status in statuses],
    )
    yield counters(
        "bridge_late",
        "Messages that waited upstream while the bridge was away.",
        "bridge",
        [(status.name, status.late) for status in statuses],
    )
    yield from _skipped(statuses)
    yield _last_acknowledged(statuses, ahead_seconds)


def _last_acknowledged(statuses: Sequence[ObservedStatus], ahead_seconds: float) -> Metric:
    return gauges(
        "bridge_last_acknowledged_timestamp_seconds",
        "When the upstream last acknowledged something, Unix time.",
        "bridge",
        [
            (status.name, status.last_acknowledged_wall + ahead_seconds)
            for status in statuses
            if status.last_acknowledged_wall is not None
        ],
    )


def _connections(statuses: Sequence[ObservedStatus]) -> Iterator[Metric]:
    yield counters(
        "bridge_connects",
        "Connections made to the upstream.",
        "bridge",
        [(status.name, status.connects) for status in statuses],
    )
    failures = CounterMetricFamily(
        "edge_broker_bridge_failures",
        "Connections to the upstream that failed or were lost, by what happened.",
        labels=["bridge", "kind"],
    )
    for status in statuses:
        for kind, count in status.failures.items():
            failures.add_metric([status.name, kind], count)
    yield failures


def _skipped(statuses: Sequence[ObservedStatus]) -> Iterator[Metric]:
    """Numbers of messages that policy let go, on their way to whoever counts them upstream."""
    yield counters(
        "bridge_skipped_announced",
        "Messages let go whose numbers the upstream knows not to expect.",
        "bridge",
        [(status.name, status.skipped_announced) for status in statuses],
    )
    yield counters(
        "bridge_skipped_refused",
        "Messages let go of which the upstream refused to be told.",
        "bridge",
        [(status.name, status.skipped_refused) for status in statuses],
    )
    yield gauges(
        "bridge_skipped_waiting",
        "Announcements of messages let go that wait for the upstream.",
        "bridge",
        [(status.name, status.skipped_waiting) for status in statuses],
    )


def _delayed(delayed: Delayed) -> Iterator[Metric]:
    yield gauge("delayed_messages", "Messages that wait for their delay.", len(delayed))
    yield gauge("delayed_bytes", "Their packets.", delayed.size_bytes)
    ends = {"delivered": delayed.delivered, "expired": delayed.expired} | {
        f"refused_{reason}": count for reason, count in delayed.refused.items()
    }
    yield counters("delayed", "What became of delayed messages.", "outcome", ends.items())


def _dead_letters(dead_letters: DeadLetters | None) -> Iterator[Metric]:
    """All of them also where none are kept, so that a rule finds what it asks for."""
    buried = {} if dead_letters is None else dead_letters.buried
    yield counters("dead_letters", "Messages that became dead letters, and why.", "reason", buried.items())
    yield gauge("dead_letters_waiting", "Dead letters kept.", dead_letters.depth if dead_letters else 0)
    yield counter(
        "dead_letters_dropped",
        "Dead letters that gave way to later ones, or were too old.",
        dead_letters.dropped if dead_letters else 0,
    )
    yield counter(
        "dead_letters_failed",
        "Messages that should have become dead letters and could not.",
        dead_letters.unburied if dead_letters else 0,
    )
