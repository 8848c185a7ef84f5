"""The bridge: carries messages both ways between the broker and an upstream, for as long as the broker runs.

It joins what a bridge is made of: the outbox, which takes messages whether the upstream is there or not; the forwarder and
the downlink, which carry them; the line, which keeps the connection (`bridge.line`). And it tells others how it does.
"""

from __future__ import annotations

import asyncio
import logging
import os
import random
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Final

from bridge import failures
from bridge.account import Account
from bridge.config import BridgeConfig
from bridge.downlink import Downlink
from bridge.forwarder import Forwarder
from bridge.line import Line
from bridge.mapping import InMapping, OutMapping, may_echo
from bridge.marking import find_lane, make_marks
from bridge.outbox import Outbox
from bridge.sessions import Sessions
from bridge.skips import announce_skips
from bridge.spans import SpanExporter
from bridge.stamps import Stamp
from bridge.status import EnvelopesStatus, PolicyStatus, Status
from bridge.tracing import MessageTracer, Span
from edge_broker.config.tracing import TracingConfig
from edge_broker.core.ports import Principal
from edge_broker.core.quota import Quota

if TYPE_CHECKING:
    from bridge.lease_watch import LeaseWatch
    from edge_broker.core.ops import Snapshot
    from edge_broker.core.ports import Host
    from edge_broker.core.queue import Queue
    from edge_broker.core.router import Router

log: Final = logging.getLogger("bridge")


class Bridge:
    """One bridge of one broker: what `edge_broker.broker.Companion` asks for.

    `data_dir`: where it keeps what its line has used of the month's bytes; without one it forgets that at its end.
    """

    def __init__(
        self,
        config: BridgeConfig,
        tracing: TracingConfig | None = None,
        *,
        data_dir: Path | None = None,
        random: Callable[[], float] = random.random,
    ) -> None:
        self.config = config
        self._tracing = tracing or TracingConfig()
        self._spans: SpanExporter | None = None
        account_path = None if data_dir is None else data_dir / f"bridge-{config.name}.json"
        self._account = (
            Account(config.name, account_path, config.pacing) if config.pacing.monthly_bytes else None
        )
        self._random = random
        self._line = Line(config, None if self._account is None else self._month_allows, random)
        self._out = OutMapping(config.out, config.gateway)
        self._in = InMapping(config.in_, config.gateway)
        self._last_given_up = ""
        self._lease_watch: LeaseWatch | None = None
        self._router: Router
        self._outbox: Outbox
        self._forwarder: Forwarder
        self._downlink: Downlink

    @property
    def name(self) -> str:
        """How configuration, log and metrics call it."""
        return self.config.name

    @property
    def queue(self) -> Queue:
        """What waits for the upstream."""
        return self._outbox.queue

    # ---- start and stop

    def start(self, broker: Host, snapshot: Snapshot) -> None:
        """Take over what the store kept, subscribe, and begin to connect."""
        config = self.config
        router = self._router = broker.router
        is_new = config.name not in snapshot.outboxes
        queue = router.outbox_queue(snapshot, config.name)
        queue.max_age_seconds = config.max_queue_age_seconds
        self._outbox = Outbox(config.name, queue, self._out, router, _quota(config, router))
        router.admit_companion(self._outbox, Principal(f"bridge:{config.name}", "", bridge=config.name))
        self._forwarder = Forwarder(
            queue,
            self._out,
            router,
            config.window,
            config.puback_timeout_seconds,
            self._on_given_up,
            config.pacing,
        )
        self._forwarder.latest = self._outbox.latest
        self._forwarder.on_answer = partial(self._line.note_answer, "puback")
        self._outbox.sender = self._forwarder
        self._outbox.wake = self._forwarder.pump
        self._downlink = Downlink(
            router,
            self._outbox,
            self._in,
            Sessions(config.name, config.places[0].where, queue.queue_id, router, snapshot),
            self._on_subscription_refused,
        )
        self._mark_messages(snapshot)
        self._follow_messages()
        self._outbox.subscribe()
        if is_new:
            self._outbox.take_retained(snapshot.retained)
        self._line.begin(
            router,
            broker.request_tick,
            self._forwarder,
            self._downlink,
            self._lease_watch,
            keeps_session=bool(config.in_) or self._out.highest_qos == 2,
            is_fresh=is_new and self._out.highest_qos == 2,
            echoes=may_echo(self._out, self._in),
        )
        broker.request_tick()

    def _mark_messages(self, snapshot: Snapshot) -> None:
        """Have messages bear their origin and their hops, as configured."""
        pending = self._router.pending
        lane = find_lane(self.name, self.queue.queue_id, snapshot, pending, self._random)
        marks = make_marks(self.config, lane, pending.epoch)
        self._forwarder.stamp, self._downlink.stamp = marks.up, marks.down
        self._outbox.limit = self._downlink.limit = marks.limit
        announce_skips(self.config, self._forwarder, self._router, snapshot, lane)
        if marks.up is not None and (self.config.envelopes.enabled or self._out.is_ingested):
            self._pack_messages(lane, marks.up)

    def _pack_messages(self, lane: str, stamp: Stamp) -> None:
        """Have messages go in envelopes, where an ingester listens."""
        from bridge.enveloping import make_envelopes, make_lease_watch  # loads CBOR and zstd

        forwarder = self._forwarder
        self._lease_watch = make_lease_watch(self.config, self._in)
        forwarder.envelopes = make_envelopes(
            self.config, lane, self._router.pending.epoch, stamp, self.queue, self._lease_watch
        )
        forwarder.on_envelope_refused = self._on_envelope_refused

    def _on_envelope_refused(self, reason: str) -> None:
        log.error(
            "bridge %s: the upstream refused an envelope: %s (messages go plain on this connection; let %s publish to "
            "%s/ITS-NAME/envelopes)",
            self.name,
            reason,
            failures.printable(self.config.gateway),
            self.config.envelopes.topic_prefix,
        )

    def _follow_messages(self) -> None:
        """Have messages followed, where `[tracing]` asks for it."""
        tracing = self._tracing
        if tracing.endpoint is None and not tracing.sample_rate and not self._out.traces:
            return
        if tracing.endpoint is not None:
            self._spans = SpanExporter(tracing.endpoint, tracing.service_name)
        tell = _nobody_to_tell if self._spans is None else self._spans.put
        tracer = MessageTracer(self.name, tracing.sample_rate, tell, self._random, os.urandom)
        self._outbox.tracer = self._forwarder.tracer = tracer

    async def stop(self) -> None:
        """Leave the upstream. The outbox goes on taking messages, until the broker has closed its store."""
        if not self._line.is_running:
            return
        await self._line.end()
        if self._account is not None:
            self._account.note(self._line.carried_bytes)
            self._account.close()
        if self._spans is not None:
            await asyncio.to_thread(self._spans.close)

    def _month_allows(self) -> bool:
        """Count what the line has carried, and keep to what is left of the month; whether the line may be used at all."""
        if self._account is None:
            return True
        withheld = self._account.look(self._line.carried_bytes)
        self._forwarder.withholds = "" if withheld == "line" else withheld
        return withheld != "line"

    # ---- what happens on the way

    def _on_given_up(self, reason: str, topic: str) -> None:
        if reason != self._last_given_up:
            self._last_given_up = reason
            log.error(
                "bridge %s: gave up a message to %s, the upstream will never take it: %s (further ones are counted)",
                self.name,
                failures.printable(topic),
                reason,
            )

    def _on_subscription_refused(self, topic_filter: str, reason_code: int) -> None:
        log.error(
            "bridge %s: the upstream refused the subscription to %s: %s (what it would bring does not come down)",
            self.name,
            topic_filter,
            failures.describe(reason_code, ""),
        )

    # ---- what others see

    def status(self) -> Status:
        """This moment; to be asked after `start`."""
        queue, forwarder, downlink, line = self.queue, self._forwarder, self._downlink, self._line
        acknowledged_at, error = forwarder.last_acknowledged_at, line.last_error
        dropped = dict(self._outbox.dropped)
        for reason, count in downlink.dropped.items():
            dropped[reason] = dropped.get(reason, 0) + count
        return Status(
            name=self.name,
            state=line.state,
            upstream=str(line.upstream),
            version=line.version,
            depth=queue.depth,
            in_flight=forwarder.in_flight,
            sent=(forwarder.sent[0], forwarder.sent[1], forwarder.sent[2]),
            acknowledged=forwarder.acknowledged,
            resent=forwarder.resent,
            received=(downlink.received[0], downlink.received[1], downlink.received[2]),
            connects=line.connects,
            dropped=dropped,
            refused=dict(forwarder.refused),
            expired=queue.expired,
            lost=queue.lost,
            late=downlink.late,
            subscriptions_refused=downlink.subscriptions_refused,
            last_acknowledged_wall=(
                None if acknowledged_at is None else time.time() - (time.monotonic() - acknowledged_at)
            ),
            failures=dict(line.failures),
            last_error="" if error is None else error.problem,
            last_hint="" if error is None else error.hint,
            skipped_announced=0 if forwarder.skips is None else forwarder.skips.announced,
            skipped_refused=0 if forwarder.skips is None else forwarder.skips.refused,
            skipped_waiting=0 if forwarder.skips is None else forwarder.skips.waiting,
            spans_lost=0 if self._spans is None else self._spans.lost,
            policy=self._policy_status(time.monotonic()),
            envelopes=self._envelopes_status(time.monotonic()),
        )

    def _policy_status(self, now: float) -> PolicyStatus:
        policy = self._line.policy
        return PolicyStatus(
            breaker=policy.breaker.state(now),
            breaker_opened=policy.breaker.opened,
            failovers=policy.failovers,
            ejections=policy.ejections,
            upstreams=self._line.roaming.status(self._line.upstream),
            draining=self._forwarder.draining,
            drain_seconds=self._forwarder.drain_seconds,
            month_used_bytes=0 if self._account is None else self._account.allowance.used_bytes,
            month_bytes=self.config.pacing.monthly_bytes,
        )

    def _envelopes_status(self, now: float) -> EnvelopesStatus | None:
        envelopes, watch = self._forwarder.envelopes, self._lease_watch
        if envelopes is None:
            return None
        return EnvelopesStatus(
            lease="off" if watch is None else watch.lease.state(now),
            lease_seconds=0.0 if watch is None else watch.lease.seconds_left(now),
            ingester="" if watch is None else watch.lease.ingester,
            malformed=0 if watch is None else watch.lease.malformed,
            sent=envelopes.sent,
            messages=envelopes.messages,
            bytes_before=envelopes.bytes_before,
            bytes_after=envelopes.bytes_after,
            fallen_apart=envelopes.fallen_apart,
        )


def _nobody_to_tell(_spans: list[Span]) -> None:
    """Messages get a `traceparent`, and others tell of them."""


def _quota(config: BridgeConfig, router: Router) -> Quota:
    return router.make_quota(config.max_queue_messages, config.max_queue_bytes, config.when_queue_full)
