"""The bridge: carries messages both ways between the broker and an upstream, for as long as the broker runs.

It joins what a bridge is made of: the outbox, which takes messages whether the upstream is there or not; the forwarder and
the downlink, which carry them; the line, which keeps the connection (`bridge.line`). And it tells others how it does.
"""

from __future__ import annotations

import asyncio
import logging
import os
import random
from collections.abc import Callable, Mapping
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Final

from bridge import failures
from bridge.account import Account
from bridge.canary_config import SUFFIX
from bridge.config import BridgeConfig
from bridge.downlink import Downlink
from bridge.line import Line
from bridge.mapping import InMapping, OutMapping, may_echo
from bridge.marking import make_marks
from bridge.outbox import Outbox
from bridge.priorities import NAMES, NORMAL
from bridge.sessions import Sessions
from bridge.share import Share
from bridge.skips import announce_skips
from bridge.spans import SpanExporter
from bridge.status import Status
from bridge.summary import summarize
from bridge.tracing import MessageTracer, Span
from bridge.way_up import WayUp, make_way_up
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
    `account`: another bridge's, for a line that is counted there.
    """

    def __init__(
        self,
        config: BridgeConfig,
        tracing: TracingConfig | None = None,
        *,
        data_dir: Path | None = None,
        account: Account | None = None,
        random: Callable[[], float] = random.random,
    ) -> None:
        self.config = config
        self._tracing = tracing or TracingConfig()
        self._spans: SpanExporter | None = None
        self._owns_account = account is None
        self.account = _account(config, data_dir) if account is None else account
        self._random = random
        self._line = Line(config, None if self.account is None else self._month_allows, random)
        self._metered = [self._line]
        self._out = OutMapping(config.out, config.gateway)
        self._in = InMapping(config.in_, config.gateway)
        self._last_given_up = ""
        self._lease_watch: LeaseWatch | None = None
        self._router: Router
        self._way_up: WayUp
        self._outbox: Outbox
        self._downlink: Downlink

    @property
    def name(self) -> str:
        """How configuration, log and metrics call it."""
        return self.config.name

    @property
    def queue(self) -> Queue:
        """What waits for the upstream, of priority `normal`; all of it are `queues`."""
        return self._outbox.queue

    @property
    def queues(self) -> Mapping[str, Queue]:
        """All that waits for the upstream, by priority."""
        return {NAMES[priority]: queue for priority, queue in self._way_up.queues.items()}

    # ---- start and stop

    def start(self, broker: Host, snapshot: Snapshot) -> None:
        """Take over what the store kept, subscribe, and begin to connect."""
        config = self.config
        router = self._router = broker.router
        way = self._way_up = make_way_up(config, self._out, router, snapshot, self._random, self._on_given_up)
        queue = way.queues[NORMAL]
        outbox = self._outbox = Outbox(
            config.name, queue, self._out, router, _quota(config, router), way.queues
        )
        as_bridge = config.name.partition("!")[0]  # a canary may do what its bridge may, and commands too
        router.admit_companion(outbox, Principal(f"bridge:{config.name}", "", bridge=as_bridge))
        for priority, forwarder in way.forwarders.items():
            forwarder.latest = outbox.latest[priority]
            forwarder.on_answer = partial(self._line.note_answer, "puback")
        outbox.sender = way.uplink
        outbox.wake = way.uplink.pump
        self._downlink = Downlink(
            router,
            self._publisher(),
            self._in,
            Sessions(config.name, config.places[0].where, queue.queue_id, router, snapshot),
            self._on_subscription_refused,
        )
        self._mark_messages(snapshot)
        self._follow_messages()
        self._subscribe(snapshot)
        self._warn_of_canary(snapshot)
        self._line.begin(
            router,
            broker.request_tick,
            way.uplink,
            self._downlink,
            self._lease_watch,
            keeps_session=bool(config.in_) or self._out.highest_qos == 2,
            is_fresh=way.is_fresh and self._out.highest_qos == 2,
            echoes=may_echo(self._out, self._in),
        )
        broker.request_tick()

    def _publisher(self) -> Outbox:
        """As whom it publishes what comes down: so that does not go up again."""
        return self._outbox

    def _subscribe(self, snapshot: Snapshot) -> None:
        self._outbox.subscribe()
        if self._way_up.is_new:
            self._outbox.take_retained(snapshot.retained)

    def _mark_messages(self, snapshot: Snapshot) -> None:
        """Have messages bear their origin and their hops, and those announced that will not come, as configured."""
        way = self._way_up
        others = [priority for priority in way.names if priority != NORMAL]
        names = [way.names[priority] for priority in others]
        marks = make_marks(self.config, way.names[NORMAL], self._router.pending.epoch, names)
        stamps = {NORMAL: marks.up, **dict(zip(others, marks.others, strict=True))}
        for priority, forwarder in way.forwarders.items():
            forwarder.stamp = stamps[priority]
            announce_skips(self.config, forwarder, self._router, snapshot, way.names[priority])
        self._downlink.stamp = marks.down
        self._outbox.limit = self._downlink.limit = marks.limit
        if marks.up is not None and (self.config.envelopes.enabled or self._out.is_ingested):
            self._pack_messages()

    def _pack_messages(self) -> None:
        """Have messages go in envelopes, where an ingester listens."""
        from bridge.enveloping import make_lease_watch, pack_lanes  # loads CBOR and zstd

        self._lease_watch = make_lease_watch(self.config, self._in)
        epoch = self._router.pending.epoch
        pack_lanes(self.config, self._way_up, epoch, self._lease_watch, self._on_envelope_refused)

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
        self._outbox.tracer = tracer
        for forwarder in self._way_up.forwarders.values():
            forwarder.tracer = tracer.beside()

    async def stop(self) -> None:
        """Leave the upstream. The outbox goes on taking messages, until the broker has closed its store."""
        if not self._line.is_running:
            return
        await self._line.end()
        if self.account is not None and self._owns_account:
            self.account.note(self.carried_bytes)
            self.account.close()
        if self._spans is not None:
            await asyncio.to_thread(self._spans.close)

    # ---- the month's bytes

    def meter(self, line: Line) -> None:
        """Have what `line` carries counted too."""
        self._metered.append(line)

    @property
    def carried_bytes(self) -> int:
        """What all lines of this account have carried."""
        return sum(line.carried_bytes for line in self._metered)

    def _month_allows(self) -> bool:
        """Count what the line has carried, and keep to what is left of the month; whether the line may be used at all."""
        if self.account is None:
            return True
        withheld = self.account.look(self.carried_bytes)
        for forwarder in self._way_up.forwarders.values():
            forwarder.withholds = "" if withheld == "line" else withheld
        return withheld != "line"

    # ---- a canary

    @property
    def canary_percent(self) -> float | None:
        """So many of the topics go to the canary; None where there is none."""
        share = self._out.share
        return None if share is None else share.percent

    def hand_share_to(self, outbox: Outbox) -> None:
        """The canary's `outbox` gets its share of the topics from now on."""
        assert self.config.canary is not None
        self._outbox.canary = outbox
        self._out.share = Share(self.name, self.config.canary.percent)
        self._out.forget()

    def _warn_of_canary(self, snapshot: Snapshot) -> None:
        """Say so where something waits for a canary that the configuration does not have any more."""
        if self.config.canary is not None:
            return
        name = self.name + SUFFIX
        queues = [
            queue_id
            for one, queue_id in snapshot.outboxes.items()
            if one == name or one.startswith(f"{name}!")
        ]
        waiting = sum(snapshot.queues[queue_id].stored for queue_id in queues if queue_id in snapshot.queues)
        if waiting:
            log.warning(
                "bridge %s: %d messages wait for its canary, and [bridges.canary] is not there any more: they stay (write "
                "it again with percent = 0 until they are gone)",
                self.name,
                waiting,
            )

    def set_canary_percent(self, percent: float) -> None:
        """Have so many of the topics go to the canary, from the next message on, until the broker ends."""
        share = self._out.share
        assert share is not None
        log.info(
            "bridge %s: %g %% of the topics go to the canary, %g %% before", self.name, percent, share.percent
        )
        share.percent = percent
        self._out.forget()

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
        return summarize(
            self._outbox,
            self._way_up,
            self._downlink,
            self._line,
            self._lease_watch,
            month_used_bytes=0 if self.account is None else self.account.allowance.used_bytes,
            spans_lost=0 if self._spans is None else self._spans.lost,
            canary_percent=self.canary_percent,
        )


def _nobody_to_tell(_spans: list[Span]) -> None:
    """Messages get a `traceparent`, and others tell of them."""


def _account(config: BridgeConfig, data_dir: Path | None) -> Account | None:
    if not config.pacing.monthly_bytes:
        return None
    path = None if data_dir is None else data_dir / f"bridge-{config.name}.json"
    return Account(config.name, path, config.pacing)


def _quota(config: BridgeConfig, router: Router) -> Quota:
    return router.make_quota(config.max_queue_messages, config.max_queue_bytes, config.when_queue_full)
