"""One broker that we are a client of, for as long as we run: connects, and after each end connects again.

The bridge's own parts do the work: its policy says when and in which version, its identity is read anew each time, its
link resolves, connects and encrypts. What is said over the connection is the user's of the line; a failure is logged when
it is not the one logged last for that URL. A fault of ours ends one connection and no more.
"""

from __future__ import annotations

import asyncio
import logging
import random
import time
from collections.abc import Callable
from functools import partial
from typing import Final, Protocol

from bridge import failures
from bridge.background import call_in_background
from bridge.config import BridgeConfig
from bridge.exchange import Ending
from bridge.identity import Credentials, FileIdentity
from bridge.ingest.talk import Talk
from bridge.link import Meter, Timeouts, open_link
from bridge.places import Upstream
from bridge.policy import Attempt, Policy
from bridge.resolving import Resolver
from bridge.upstreams import Member
from edge_broker.core.client import Client
from edge_broker.core.message import Message
from edge_broker.errors import UpstreamError
from edge_broker.wire import const
from edge_broker.wire.packets import Connect
from edge_broker.wire.topics import TopicCache

log: Final = logging.getLogger("bridge.ingest")

_VERSION_NAMES: Final = {const.MQTT_5: "5", const.MQTT_3_1_1: "3.1.1"}


class LineUser(Protocol):
    """Who uses a line. Called in the event loop; what these raise ends the connection."""

    def request(self, version: int, credentials: Credentials) -> Connect:
        """The CONNECT to be sent."""

    def on_online(self, talk: Talk, client: Client) -> UpstreamError | None:
        """The broker accepted us; an error ends the connection at once."""

    def on_offline(self) -> None:
        """The connection is gone; only after `on_online`."""

    def on_message(self, message: Message) -> None:
        """A PUBLISH came."""

    def on_ack(self, packet_type: int, packet_id: int, reason_code: int) -> None:
        """PUBACK, PUBREC or PUBCOMP came."""

    def on_suback(self, packet_id: int, reason_codes: list[int]) -> None:
        """The answer to SUBSCRIBE came."""

    def send_due(self) -> None:
        """Once per turn, before what is to be sent leaves."""


class Line:
    """The line to one broker. `name`: for the log. `connects`: connections accepted. `state`: for people."""

    def __init__(
        self,
        config: BridgeConfig,
        user: LineUser,
        name: str,
        *,
        random: Callable[[], float] = random.random,
    ) -> None:
        self._config = config
        self._user = user
        self._name = name
        self._policy = Policy(config, [Member(upstream) for upstream in config.upstreams], random)
        self._identity = FileIdentity(config)
        self._resolver = Resolver()
        self._meter = Meter()
        self._topics = TopicCache()
        self._logged: dict[Upstream, str] = {}
        self._talk: Talk | None = None
        self._task: asyncio.Task[None] | None = None
        self.state = "stopped"
        self.upstream = config.upstreams[0]
        self.connects = 0
        self.last_error: UpstreamError | None = None

    @property
    def online(self) -> bool:
        """Whether the broker has accepted us."""
        return self.state == "online"

    def start(self) -> None:
        """Begin to connect."""
        self._task = asyncio.get_running_loop().create_task(self._run(), name=f"line to {self._name}")

    async def stop(self) -> None:
        """Leave, and connect no more."""
        task, self._task = self._task, None
        if self._talk is not None:
            self._talk.leave(None)
            await asyncio.sleep(0)
        if task is not None:
            task.cancel()
            await asyncio.wait((task,))
        self.state = "stopped"

    # ---- the life of the line

    async def _run(self) -> None:
        while True:
            attempt = self._policy.next_attempt(time.monotonic())
            if attempt.delay_seconds:
                self.state = "backing-off"
                await asyncio.sleep(attempt.delay_seconds)
            self.upstream = attempt.upstream
            try:
                ending = await self._connect(attempt)
            except UpstreamError as error:
                self._policy.on_failed(attempt, "unreachable", time.monotonic())
                self._report(attempt, error)
            except Exception:
                log.exception("%s: internal error", self._name)
                self._policy.on_failed(attempt, "unreachable", time.monotonic())
            else:
                if ending.error is None:
                    return
                self._settle(attempt, ending, ending.error)

    async def _connect(self, attempt: Attempt) -> Ending:
        config = self._config
        upstream = attempt.upstream
        credentials = await self._read_identity(upstream)
        link = await open_link(
            upstream,
            self._resolver,
            credentials.context,
            config.server_name or upstream.host,
            Timeouts(
                config.resolve_timeout_seconds,
                config.connect_timeout_seconds,
                config.handshake_timeout_seconds,
            ),
            self._set_state,
            self._meter,
            judge=credentials.judge,
        )
        self.state = "connecting-mqtt"
        request = self._user.request(attempt.version, credentials)
        talk = self._talk = Talk(
            config, upstream, link, request, self._user, self._topics, partial(self._on_online, attempt)
        )
        try:
            talk.begin()
            return await talk.ended
        finally:
            self._talk = None
            self.state = "connecting"

    async def _read_identity(self, upstream: Upstream) -> Credentials:
        if not upstream.tls and self._config.password_file is None:
            return Credentials(None, self._config.username, None)
        try:
            async with asyncio.timeout(self._config.connect_timeout_seconds):
                return await call_in_background(
                    partial(self._identity.read, upstream.tls), f"{self._name} identity"
                )
        except TimeoutError:
            raise failures.identity_not_read(self._config.connect_timeout_seconds) from None

    # ---- what happens on the way

    def _set_state(self, state: str) -> None:
        self.state = state

    def _on_online(self, attempt: Attempt) -> None:
        self._policy.on_online(attempt, time.monotonic())
        self.state = "online"
        self.connects += 1
        self._logged.clear()
        log.info(
            "%s: connected to %s with MQTT %s", self._name, attempt.upstream, _VERSION_NAMES[attempt.version]
        )

    def _settle(self, attempt: Attempt, ending: Ending, error: UpstreamError) -> None:
        if ending.sign is None:
            self._policy.on_lost(
                attempt.upstream, ending.lasted_seconds, False, ending.sent_away, time.monotonic()
            )
        elif self._policy.on_failed(attempt, ending.sign, time.monotonic()):
            self.last_error = error
            log.debug("%s: %s; trying MQTT 3.1.1", self._name, error)
            return
        self._report(attempt, error)

    def _report(self, attempt: Attempt, error: UpstreamError) -> None:
        self.last_error = error
        text = str(error)
        if self._logged.get(attempt.upstream) != text:
            self._logged[attempt.upstream] = text
            log.warning("%s: %s", self._name, text)
