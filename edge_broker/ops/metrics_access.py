"""The metrics of who comes in, of the account that is kept of it, and of the files that decide it.

Nothing is counted here. `docs/monitoring.md` says what each metric means; whoever decides is known by its counters alone.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Protocol

from prometheus_client.core import GaugeMetricFamily, Metric

from edge_broker.ops.metrics_families import counter, counters, gauge, gauges
from edge_broker.ops.observed import Observed, ObservedAudit


def password_metrics(admission: ObservedPasswords | None) -> Iterator[Metric]:
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
        yield counter(f"password_{name}", text, value)
    yield gauge("passwords_waiting", "Passwords that wait to be checked.", checks.waiting if checks else 0)
    bans = nothing if admission is None else admission.guessing.banned()
    yield gauges("password_bans", "Bans in force, by what is banned.", "kind", bans.items())
    yield counters(
        "password_bans", "Bans, by what was banned.", "kind", (guesses.bans if guesses else nothing).items()
    )


def token_metrics(admission: ObservedTokens | None) -> Iterator[Metric]:
    """What became of JSON Web Tokens; nothing by reason where none are taken."""
    counted = None if admission is None else admission.counters
    yield counter(
        "tokens_accepted",
        "JSON Web Tokens that let a client in, or stay.",
        counted.accepted if counted else 0,
    )
    yield counters(
        "tokens_refused",
        "JSON Web Tokens that were not taken, by what was wrong.",
        "reason",
        counted.refused.items() if counted else (),
    )


def audit_metrics(audit: ObservedAudit | None) -> Iterator[Metric]:
    """Also where there is none, so that a rule finds what it asks for."""
    left_out = {"rate": 0, "waiting": 0} if audit is None else audit.left_out
    yield counter("audit_lines", "Lines in the audit log.", audit.written if audit else 0)
    yield counters("audit_lines_left_out", "Lines that it has not, and why.", "reason", left_out.items())
    yield counter("audit_errors", "Writes of it that failed.", audit.write_errors if audit else 0)


def file_metrics(observed: Observed, wall: float) -> Iterator[Metric]:
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
        yield counters(name, text, "files", values)
    yield gauges(
        "files_refused",
        "1: what stands in the files now is refused, and what was taken before counts.",
        "files",
        [(what, int(bool(watch.refusal))) for what, watch in watches],
    )


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


class ObservedTokens(Protocol):
    """Who decides about tokens."""

    @property
    def counters(self) -> _TokenCounters: ...


class _TokenCounters(Protocol):
    accepted: int
    refused: dict[str, int]
