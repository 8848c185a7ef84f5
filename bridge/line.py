"""The life of one line to the upstream: what to try next, the connection, how it ended, and again.

`_run` is the whole story. All that has to survive lives beside it: the outbox takes messages whether the upstream is there
or not. A failure is logged when it is not among those logged last for that URL, so an outage of a week is a few lines.
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections import deque
from collections.abc import Callable
from functools import partial
from typing import TYPE_CHECKING, Final

from bridge import failures
from bridge.config import BridgeConfig
from bridge.conversation import Conversation
from bridge.downlink import Downlink
from bridge.exchange import Ending
from bridge.handover import Handover, Opened, Successor
from bridge.identity import Credentials, identity_of
from bridge.opening import Opener
from bridge.places import Service, Upstream
from bridge.policy import Attempt
from bridge.roaming import Roaming
from bridge.standby import ClientIds, Succession
from bridge.status import State
from bridge.uplink import Uplink
from bridge.upstreams import Kind, Member
from edge_broker.core.client import Client
from edge_broker.errors import UpstreamError
from edge_broker.wire import const
from edge_broker.wire.packets import Connect
from edge_broker.wire.properties import Properties

if TYPE_CHECKING:
    from bridge.lease_watch import LeaseWatch
    from edge_broker.core.router import Router

log: Final = logging.getLogger("bridge")

_VERSION_NAMES: Final = {const.MQTT_5: "5", const.MQTT_3_1_1: "3.1.1"}
_MONTH_SECONDS: Final = 1.0
"""How often it is looked whether a new month has begun."""
_LOGGED: Final = 3
"""A refusal may show itself in two ways by turns: as an alert of TLS, and as a reset that overtakes it."""
_GRACE_SECONDS: Final = 1.0
"""How long a stop waits for acknowledgements that are on their way: each saves the upstream a duplicate."""


class Line:
    """One line of a bridge, with a policy and an identity of its own. `begin` once, then `end`.

    `month_allows()`: asked about once a second whether the line may be used at all; None where nothing limits that.
    `carried_bytes`, `state`, `upstream` (where it is or goes next), `version` (empty while not online), `connects`,
    `last_error` and `failures` (by kind): for who looks at it.
    """

    def __init__(
        self, config: BridgeConfig, month_allows: Callable[[], bool] | None, random: Callable[[], float]
    ) -> None:
        self.config = config
        self._month_allows = month_allows
        self._random = random
        self._identity = identity_of(config)
        self._opener = Opener(config, self._identity, self._member_of, random)
        self.roaming = Roaming(config, random, self._opener.prepare)
        self.policy = self.roaming.policy
        self.state: State = "stopped"
        self.upstream: Upstream | Service = config.places[0].where
        self.version = ""
        self.connects = 0
        self.last_error: UpstreamError | None = None
        self.failures = dict.fromkeys(failures.KINDS, 0)
        self._client_ids = ClientIds(config.client_id, config.second_client_id)
        self._left_at: float | None = None  # a connection, for the one that follows it
        self._logged: dict[Upstream | Service, deque[str]] = {}
        self._conversation: Conversation | None = None
        self._task: asyncio.Task[None] | None = None
        self._router: Router
        self._request_tick: Callable[[], None]
        self._forwarder: Uplink
        self._downlink: Downlink
        self._lease_watch: LeaseWatch | None
        self._keeps_session = self._is_fresh = self._wipes_session = self._echoes = False

    @property
    def is_running(self) -> bool:
        """Whether it has begun and not ended."""
        return self._task is not None

    @property
    def carried_bytes(self) -> int:
        """What all its connections carried, both ways."""
        return self._opener.meter.carried_bytes

    def begin(
        self,
        router: Router,
        request_tick: Callable[[], None],
        forwarder: Uplink,
        downlink: Downlink,
        lease_watch: LeaseWatch | None = None,
        *,
        keeps_session: bool,
        is_fresh: bool,
        echoes: bool,
    ) -> None:
        """Begin to connect, and carry what `forwarder` and `downlink` have.

        `keeps_session`: a session is wanted that outlives connections. `is_fresh`: identifiers in one that is there already
        mean nothing. `echoes`: what goes up matches what is subscribed to, which MQTT 3.1.1 cannot tell apart.
        """
        self._router, self._request_tick = router, request_tick
        self._forwarder, self._downlink, self._lease_watch = forwarder, downlink, lease_watch
        self._keeps_session = keeps_session and self.config.session_expiry_seconds > 0
        self._is_fresh, self._echoes = is_fresh, echoes
        self._identity.start()
        self._task = asyncio.get_running_loop().create_task(self._run(), name=f"bridge {self.config.name}")

    async def end(self) -> None:
        """Leave the upstream."""
        task, self._task = self._task, None
        if task is None:
            return
        if self._conversation is not None:
            await self._conversation.finish(_GRACE_SECONDS)
        task.cancel()
        await asyncio.wait((task,))
        self._identity.stop()
        self.state = "stopped"

    # ---- the life of the line

    async def _run(self) -> None:
        while True:
            while not self._is_allowed():
                self.state = "month-spent"
                self.last_error = failures.month_spent(self.config.pacing.monthly_bytes)
                await asyncio.sleep(_MONTH_SECONDS)
            await self.roaming.find_upstreams(self._on_not_found)
            attempt = self.policy.next_attempt(time.monotonic())
            if attempt.delay_seconds:
                self.state = "backing-off"
                await asyncio.sleep(attempt.delay_seconds)
            self.upstream = attempt.upstream
            try:
                ending = await self._connect(attempt)
            except UpstreamError as error:
                self.policy.on_failed(attempt, "unreachable", time.monotonic())
                self._report(attempt.upstream, error)
            except Exception:
                log.exception("bridge %s: internal error", self.config.name)
                self.policy.on_failed(attempt, "unreachable", time.monotonic())
            else:
                if ending.error is not None:
                    self._settle(attempt, ending, ending.error)
                elif self._task is None:
                    return
                else:
                    self.roaming.on_left(attempt.upstream)

    def _is_allowed(self) -> bool:
        return self._month_allows is None or self._month_allows()

    def _on_not_found(self, error: UpstreamError) -> None:
        self.state = "resolving"
        self._report(self.upstream, error)

    async def _connect(self, attempt: Attempt) -> Ending:
        """One connection, from the name to its end, with those that follow it when its certificate is about to expire.

        `UpstreamError` where it does not come to MQTT.
        """
        one = Successor(await self._opener.prepare(attempt.upstream, self._set_state))
        while True:
            self.state = "connecting-mqtt"
            conversation = self._conversation = one.standby or self._converse(attempt, one.opened)
            looking = asyncio.get_running_loop().create_task(
                self._look_around(attempt.upstream, conversation)
            )
            looking.add_done_callback(self._note_end_of_looking)
            try:
                self._begin(conversation, one.standby is not None)
                successor = await self._successor(attempt, conversation, one.opened.credentials)
                if successor is None:
                    return await conversation.ended
                one = await self._leave(attempt.upstream, conversation, successor)
                if self._task is None:  # a stop, meanwhile, has ended the one that it found
                    one.opened.link.abort()
                    return await conversation.ended
            finally:
                looking.cancel()
                self._conversation = None
                self.version = ""

    def _begin(self, conversation: Conversation, stood_by: bool) -> None:
        if stood_by:
            self._client_ids.swap()
            conversation.take_over()
        else:
            conversation.begin()

    def _converse(self, attempt: Attempt, opened: Opened, stands_by: bool = False) -> Conversation:
        client_id = self._client_ids.spare if stands_by else self._client_ids.live
        return Conversation(
            self.config,
            attempt.upstream,
            opened.link,
            self._request(attempt.version, client_id, opened.credentials),
            self._router,
            self._request_tick,
            self._forwarder,
            self._downlink,
            partial(self._refuse_session, attempt.upstream),
            partial(self._on_online, attempt),
            self.note_answer,
            self._lease_watch,
            stands_by=stands_by,
        )

    async def _successor(
        self, attempt: Attempt, conversation: Conversation, credentials: Credentials
    ) -> Successor | None:
        """The connection that is to follow this one; None where this one ended first."""
        if credentials.holds is None:
            await asyncio.wait((conversation.ended,))
            return None
        ids, may_stand_by = self._client_ids, not self._keeps_session
        succession = Succession(
            lambda: self._opener.prepare(attempt.upstream),
            partial(self._converse, attempt, stands_by=True)
            if may_stand_by and ids.live != ids.spare
            else None,
        )
        handover = Handover(
            self.config.name,
            self._identity,
            succession.open,
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
            search.result().opened.link.abort()
        return None

    async def _leave(self, upstream: Upstream, conversation: Conversation, successor: Successor) -> Successor:
        """Make room for the successor, which stands already; another one, where that could overtake what is unanswered.

        What was sent on the old connection may still be on its way. Only a CONNECT under the same client id ends it.
        """
        self._left_at = time.monotonic()
        try:
            is_clear = await conversation.finish(_GRACE_SECONDS)
        except asyncio.CancelledError:
            successor.opened.link.abort()
            raise
        if is_clear or successor.standby is None:
            return successor
        successor.opened.link.abort()
        return Successor(await self._opener.prepare(upstream))

    # ---- while connected

    async def _look_around(self, here: Upstream, conversation: Conversation) -> None:
        """While connected: keep the account, and where there are several upstreams look whether another one is better."""
        while self.roaming.may_move or self._month_allows is not None:
            await asyncio.sleep(self.roaming.look_seconds)
            if not self._is_allowed() or (self.state == "online" and await self.roaming.wants_to_leave(here)):
                await conversation.finish(_GRACE_SECONDS)
                return

    def _note_end_of_looking(self, looking: asyncio.Task[None]) -> None:
        if not looking.cancelled() and looking.exception() is not None:
            log.error("bridge %s: internal error", self.config.name, exc_info=looking.exception())

    def _member_of(self, upstream: Upstream) -> Member | None:
        return self.policy.upstreams.member(upstream)

    def note_answer(self, kind: Kind, seconds: float) -> None:
        if isinstance(self.upstream, Upstream):
            self.policy.on_answer(self.upstream, kind, seconds)

    def _request(self, version: int, client_id: str, credentials: Credentials) -> Connect:
        config = self.config
        settings = self._router.settings
        properties: Properties = {
            const.RECEIVE_MAXIMUM: settings.receive_maximum,
            const.MAXIMUM_PACKET_SIZE: settings.max_packet_bytes,
            const.TOPIC_ALIAS_MAXIMUM: settings.topic_alias_maximum,
        }
        if self._keeps_session:
            properties[const.SESSION_EXPIRY_INTERVAL] = config.session_expiry_seconds
        return Connect(
            version,
            client_id,
            clean_start=not self._keeps_session or self._wipes_session,
            keep_alive=config.keep_alive_seconds,
            username=credentials.username,
            password=credentials.password,
            properties=properties,
        )

    # ---- what happens on the way

    def _set_state(self, state: State) -> None:
        self.state = state

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
        self.policy.on_online(attempt, now)
        self.state = "online"
        self.version = _VERSION_NAMES[attempt.version]
        self.connects += 1
        self._logged.clear()
        left_at, self._left_at = self._left_at, None
        if left_at is not None:
            log.info(
                "bridge %s: went over to a new connection to %s before the certificate expires, away for %.0f ms",
                self.config.name,
                attempt.upstream,
                (now - left_at) * 1000,
            )
            return
        log.info(
            "bridge %s: connected to %s with MQTT %s, %d messages wait",
            self.config.name,
            attempt.upstream,
            self.version,
            self._forwarder.depth,
        )
        if self._echoes and client.version < const.MQTT_5:
            self._echoes = False  # said once
            log.warning(
                "bridge %s: out and in overlap, and MQTT 3.1.1 has no way to tell them apart: what goes up comes back "
                "once (give the two directions different remote_prefix)",
                self.config.name,
            )

    def _settle(self, attempt: Attempt, ending: Ending, error: UpstreamError) -> None:
        """A connection ended: the policy learns how, the log why."""
        if ending.sign is None:
            self.policy.on_lost(
                attempt.upstream,
                ending.lasted_seconds,
                ending.progressed,
                ending.sent_away,
                time.monotonic(),
            )
        elif self.policy.on_failed(attempt, ending.sign, time.monotonic()):
            self.last_error = error
            log.debug("bridge %s: %s; trying MQTT 3.1.1", self.config.name, error)
            return
        self._report(attempt.upstream, error)

    def _report(self, upstream: Upstream | Service, error: UpstreamError) -> None:
        self.last_error = error
        self.failures[error.kind] += 1
        self._left_at = None
        text = str(error)
        logged = self._logged.setdefault(upstream, deque(maxlen=_LOGGED))
        if text not in logged:
            logged.append(text)
            log.warning("bridge %s: %s", self.config.name, text)


async def _end(task: asyncio.Future[Successor]) -> None:
    """Have it stop, if it has not."""
    task.cancel()
    await asyncio.wait((task,))
