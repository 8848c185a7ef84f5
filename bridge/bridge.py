"""The bridge: keeps one connection to the upstream and carries messages both ways, for as long as the broker runs.

`_run` is the whole story: what to try next, the connection, how it ended, and again. All that has to survive lives beside
it: the outbox takes messages whether the upstream is there or not. A failure is logged when it is not among those logged
last for that URL, so an outage of a week is a few lines.
"""

from __future__ import annotations

import asyncio
import logging
import os
import random
import time
from collections import deque
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Final

from bridge import failures
from bridge.account import Account
from bridge.config import BridgeConfig
from bridge.conversation import Conversation, Ending
from bridge.downlink import Downlink
from bridge.forwarder import Forwarder
from bridge.handover import Handover, Opened
from bridge.identity import Credentials, identity_of
from bridge.mapping import InMapping, OutMapping, may_echo
from bridge.marking import find_lane, make_marks
from bridge.opening import Opener
from bridge.outbox import Outbox
from bridge.places import Service, Upstream
from bridge.policy import Attempt
from bridge.roaming import Roaming
from bridge.spans import SpanExporter
from bridge.stamps import Stamp
from bridge.status import EnvelopesStatus, PolicyStatus, State, Status
from bridge.tracing import MessageTracer, Span
from bridge.upstreams import Kind, Member
from edge_broker.config.tracing import TracingConfig
from edge_broker.core.client import Client
from edge_broker.core.ports import Principal
from edge_broker.core.quota import Quota
from edge_broker.errors import UpstreamError
from edge_broker.wire import const
from edge_broker.wire.packets import Connect
from edge_broker.wire.properties import Properties

if TYPE_CHECKING:
    from bridge.lease_watch import LeaseWatch
    from edge_broker.core.ops import Snapshot
    from edge_broker.core.ports import Host
    from edge_broker.core.queue import Queue
    from edge_broker.core.router import Router

log: Final = logging.getLogger("bridge")

_VERSION_NAMES: Final = {const.MQTT_5: "5", const.MQTT_3_1_1: "3.1.1"}
_MONTH_SECONDS: Final = 1.0
"""How often it is looked whether a new month has begun."""
_LOGGED: Final = 3
"""A refusal may show itself in two ways by turns: as an alert of TLS, and as a reset that overtakes it."""
_GRACE_SECONDS: Final = 1.0
"""How long a stop waits for acknowledgements that are on their way: each saves the upstream a duplicate."""


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
        self._identity = identity_of(config)
        self._opener = Opener(config, self._identity, self._member_of, random)
        self._roaming = Roaming(config, random, self._opener.prepare)
        self._policy = self._roaming.policy
        self._out = OutMapping(config.out, config.gateway)
        self._in = InMapping(config.in_, config.gateway)
        self._keeps_session = bool(config.in_) or self._out.highest_qos == 2
        self._state: State = "stopped"
        self._upstream: Upstream | Service = config.places[0].where
        self._version = ""
        self._connects = 0
        self._last_error: UpstreamError | None = None
        self._failures = dict.fromkeys(failures.KINDS, 0)
        self._left_at: float | None = None  # a connection, for the one that follows it
        self._logged: dict[Upstream | Service, deque[str]] = {}
        self._last_given_up = ""
        self._warned_of_echo = False
        self._lease_watch: LeaseWatch | None = None
        self._conversation: Conversation | None = None
        self._task: asyncio.Task[None] | None = None
        self._router: Router
        self._outbox: Outbox
        self._forwarder: Forwarder
        self._downlink: Downlink
        self._request_tick: Callable[[], None]
        self._is_fresh = self._wipes_session = False

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
        self._request_tick = broker.request_tick
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
        self._forwarder.on_answer = partial(self._note_answer, "puback")
        self._outbox.sender = self._forwarder
        self._outbox.wake = self._forwarder.pump
        self._downlink = Downlink(
            router,
            self._outbox,
            self._in,
            {packet_id for session_id, packet_id in snapshot.inbound if session_id == queue.queue_id},
            self._on_subscription_refused,
        )
        self._is_fresh = is_new and self._out.highest_qos == 2
        self._mark_messages(snapshot)
        self._follow_messages()
        self._outbox.subscribe()
        if is_new:
            self._outbox.take_retained(snapshot.retained)
        self._identity.start()
        self._task = asyncio.get_running_loop().create_task(self._run(), name=f"bridge {config.name}")
        broker.request_tick()

    def _mark_messages(self, snapshot: Snapshot) -> None:
        """Have messages bear their origin and their hops, as configured."""
        pending = self._router.pending
        lane = find_lane(self.name, self.queue.queue_id, snapshot, pending, self._random)
        marks = make_marks(self.config, lane, pending.epoch)
        self._forwarder.stamp, self._downlink.stamp = marks.up, marks.down
        self._outbox.limit = self._downlink.limit = marks.limit
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
        task, self._task = self._task, None
        if task is None:
            return
        if self._conversation is not None:
            await self._conversation.finish(_GRACE_SECONDS)
        task.cancel()
        await asyncio.wait((task,))
        self._identity.stop()
        self._state = "stopped"
        if self._account is not None:
            self._account.note(self._opener.meter.carried_bytes)
            self._account.close()
        if self._spans is not None:
            await asyncio.to_thread(self._spans.close)

    # ---- the life of the bridge

    async def _run(self) -> None:
        while True:
            while not self._month_allows():
                self._state = "month-spent"
                self._last_error = failures.month_spent(self.config.pacing.monthly_bytes)
                await asyncio.sleep(_MONTH_SECONDS)
            await self._roaming.find_upstreams(self._on_not_found)
            attempt = self._policy.next_attempt(time.monotonic())
            if attempt.delay_seconds:
                self._state = "backing-off"
                await asyncio.sleep(attempt.delay_seconds)
            self._upstream = attempt.upstream
            try:
                ending = await self._connect(attempt)
            except UpstreamError as error:
                self._policy.on_failed(attempt, "unreachable", time.monotonic())
                self._report(attempt.upstream, error)
            except Exception:
                log.exception("bridge %s: internal error", self.name)
                self._policy.on_failed(attempt, "unreachable", time.monotonic())
            else:
                if ending.error is not None:
                    self._settle(attempt, ending, ending.error)
                elif self._task is None:
                    return
                else:
                    self._roaming.on_left(attempt.upstream)

    def _month_allows(self) -> bool:
        """Count what the line has carried, and keep to what is left of the month; whether the line may be used at all."""
        if self._account is None:
            return True
        withheld = self._account.look(self._opener.meter.carried_bytes)
        self._forwarder.withholds = "" if withheld == "line" else withheld
        return withheld != "line"

    def _on_not_found(self, error: UpstreamError) -> None:
        self._state = "resolving"
        self._report(self._upstream, error)

    async def _connect(self, attempt: Attempt) -> Ending:
        """One connection, from the name to its end, with those that follow it when its certificate is about to expire.

        `UpstreamError` where it does not come to MQTT.
        """
        opened = await self._opener.prepare(attempt.upstream, self._set_state)
        while True:
            self._state = "connecting-mqtt"
            conversation = self._conversation = self._converse(attempt, opened)
            looking = asyncio.get_running_loop().create_task(
                self._look_around(attempt.upstream, conversation)
            )
            looking.add_done_callback(self._note_end_of_looking)
            try:
                conversation.begin()
                successor = await self._successor(attempt.upstream, conversation, opened.credentials)
                if successor is None:
                    return await conversation.ended
                await self._leave(conversation, successor)
            finally:
                looking.cancel()
                self._conversation = None
                self._version = ""
            opened = successor

    def _converse(self, attempt: Attempt, opened: Opened) -> Conversation:
        return Conversation(
            self.config,
            attempt.upstream,
            opened.link,
            self._request(attempt.version, opened.credentials),
            self._router,
            self._request_tick,
            self._forwarder,
            self._downlink,
            partial(self._refuse_session, attempt.upstream),
            partial(self._on_online, attempt),
            self._note_answer,
            self._lease_watch,
        )

    async def _successor(
        self, upstream: Upstream, conversation: Conversation, credentials: Credentials
    ) -> Opened | None:
        """The connection that is to follow this one; None where this one ended first."""
        if credentials.holds is None:
            await asyncio.wait((conversation.ended,))
            return None
        handover = Handover(
            self.name,
            self._identity,
            lambda: self._opener.prepare(upstream),
            lambda: not self._forwarder.in_flight and not self._downlink.waiting,
            self._random,
        )
        search = asyncio.ensure_future(handover.successor(credentials.holds))
        try:
            await asyncio.wait((conversation.ended, search), return_when=asyncio.FIRST_COMPLETED)
            if not conversation.ended.done():
                return search.result()
        finally:
            await _end(search)
        if search.done() and not search.cancelled() and search.exception() is None:
            search.result().link.abort()
        return None

    async def _leave(self, conversation: Conversation, successor: Opened) -> None:
        """Make room for the successor, which stands already."""
        self._left_at = time.monotonic()
        try:
            await conversation.finish(_GRACE_SECONDS)
        except asyncio.CancelledError:
            successor.link.abort()
            raise

    # ---- while connected

    async def _look_around(self, here: Upstream, conversation: Conversation) -> None:
        """While connected: keep the account, and where there are several upstreams look whether another one is better."""
        while self._roaming.may_move or self._account is not None:
            await asyncio.sleep(self._roaming.look_seconds)
            if not self._month_allows() or (
                self._state == "online" and await self._roaming.wants_to_leave(here)
            ):
                await conversation.finish(_GRACE_SECONDS)
                return

    def _note_end_of_looking(self, looking: asyncio.Task[None]) -> None:
        if not looking.cancelled() and looking.exception() is not None:
            log.error("bridge %s: internal error", self.name, exc_info=looking.exception())

    def _member_of(self, upstream: Upstream) -> Member | None:
        return self._policy.upstreams.member(upstream)

    def _note_answer(self, kind: Kind, seconds: float) -> None:
        if isinstance(self._upstream, Upstream):
            self._policy.on_answer(self._upstream, kind, seconds)

    def _request(self, version: int, credentials: Credentials) -> Connect:
        config = self.config
        settings = self._router.settings
        properties: Properties = {
            const.RECEIVE_MAXIMUM: settings.receive_maximum,
            const.MAXIMUM_PACKET_SIZE: settings.max_packet_bytes,
            const.TOPIC_ALIAS_MAXIMUM: settings.topic_alias_maximum,
        }
        keeps_session = self._keeps_session and config.session_expiry_seconds > 0
        if keeps_session:
            properties[const.SESSION_EXPIRY_INTERVAL] = config.session_expiry_seconds
        return Connect(
            version,
            config.client_id,
            clean_start=not keeps_session or self._wipes_session,
            keep_alive=config.keep_alive_seconds,
            username=credentials.username,
            password=credentials.password,
            properties=properties,
        )

    # ---- what happens on the way

    def _set_state(self, state: State) -> None:
        self._state = state

    def _refuse_session(self, upstream: Upstream, client: Client) -> UpstreamError | None:
        """Why the session that the upstream opened for us will not do, None if it will.

        A new outbox counts from 1 again. An upstream that still has a session of ours, from before our store was lost, may
        have QoS 2 identifiers in it, and would take new messages for old ones: such a session is wiped first.
        """
        if self._is_fresh and client.session_present:
            self._wipes_session = True
            return failures.strange_session(upstream)
        wiped, self._wipes_session, self._is_fresh = self._wipes_session, False, False
        if wiped and client.version < const.MQTT_5:
            return failures.session_wiped(
                upstream
            )  # a session that starts clean ends with its connection there
        return None

    def _on_online(self, attempt: Attempt, client: Client) -> None:
        now = time.monotonic()
        self._policy.on_online(attempt, now)
        self._state = "online"
        self._version = _VERSION_NAMES[attempt.version]
        self._connects += 1
        self._logged.clear()
        left_at, self._left_at = self._left_at, None
        if left_at is not None:
            log.info(
                "bridge %s: went over to a new connection to %s before the certificate expires, away for %.0f ms",
                self.name,
                attempt.upstream,
                (now - left_at) * 1000,
            )
            return
        log.info(
            "bridge %s: connected to %s with MQTT %s, %d messages wait",
            self.name,
            attempt.upstream,
            self._version,
            self.queue.depth,
        )
        echoes = client.version < const.MQTT_5 and may_echo(self._out, self._in)
        if echoes and not self._warned_of_echo:
            self._warned_of_echo = True
            log.warning(
                "bridge %s: out and in overlap, and MQTT 3.1.1 has no way to tell them apart: what goes up comes back "
                "once (give the two directions different remote_prefix)",
                self.name,
            )

    def _settle(self, attempt: Attempt, ending: Ending, error: UpstreamError) -> None:
        """A connection ended: the policy learns how, the log why."""
        if ending.sign is None:
            self._policy.on_lost(
                attempt.upstream,
                ending.lasted_seconds,
                ending.progressed,
                ending.sent_away,
                time.monotonic(),
            )
        elif self._policy.on_failed(attempt, ending.sign, time.monotonic()):
            self._last_error = error
            log.debug("bridge %s: %s; trying MQTT 3.1.1", self.name, error)
            return
        self._report(attempt.upstream, error)

    def _report(self, upstream: Upstream | Service, error: UpstreamError) -> None:
        self._last_error = error
        self._failures[error.kind] += 1
        self._left_at = None
        text = str(error)
        logged = self._logged.setdefault(upstream, deque(maxlen=_LOGGED))
        if text not in logged:
            logged.append(text)
            log.warning("bridge %s: %s", self.name, text)

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
        queue, forwarder, downlink = self.queue, self._forwarder, self._downlink
        acknowledged_at = forwarder.last_acknowledged_at
        error = self._last_error
        dropped = dict(self._outbox.dropped)
        for reason, count in downlink.dropped.items():
            dropped[reason] = dropped.get(reason, 0) + count
        return Status(
            name=self.name,
            state=self._state,
            upstream=str(self._upstream),
            version=self._version,
            depth=queue.depth,
            in_flight=forwarder.in_flight,
            sent=(forwarder.sent[0], forwarder.sent[1], forwarder.sent[2]),
            acknowledged=forwarder.acknowledged,
            resent=forwarder.resent,
            received=(downlink.received[0], downlink.received[1], downlink.received[2]),
            connects=self._connects,
            dropped=dropped,
            refused=dict(forwarder.refused),
            expired=queue.expired,
            lost=queue.lost,
            subscriptions_refused=downlink.subscriptions_refused,
            last_acknowledged_wall=(
                None if acknowledged_at is None else time.time() - (time.monotonic() - acknowledged_at)
            ),
            failures=dict(self._failures),
            last_error="" if error is None else error.problem,
            last_hint="" if error is None else error.hint,
            spans_lost=0 if self._spans is None else self._spans.lost,
            policy=self._policy_status(time.monotonic()),
            envelopes=self._envelopes_status(time.monotonic()),
        )

    def _policy_status(self, now: float) -> PolicyStatus:
        policy = self._policy
        return PolicyStatus(
            breaker=policy.breaker.state(now),
            breaker_opened=policy.breaker.opened,
            failovers=policy.failovers,
            ejections=policy.ejections,
            upstreams=self._roaming.status(self._upstream),
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


async def _end(task: asyncio.Future[Opened]) -> None:
    """Have it stop, if it has not."""
    task.cancel()
    await asyncio.wait((task,))


def _quota(config: BridgeConfig, router: Router) -> Quota:
    return router.make_quota(config.max_queue_messages, config.max_queue_bytes, config.when_queue_full)
