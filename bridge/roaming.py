"""What the policy needs of the world: asks DNS, makes test connections, looks around while connected.

`bridge.policy` decides; here is what has to be awaited for it. A fault in looking around ends the looking of that
connection and is logged: the connection itself goes on.
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Awaitable, Callable
from typing import Final

from bridge.config import BridgeConfig
from bridge.discovery import Directory
from bridge.identity import Credentials
from bridge.link import Link
from bridge.places import Service, Upstream
from bridge.policy import Policy
from bridge.probing import probe
from bridge.status import UpstreamStatus
from edge_broker.errors import UpstreamError
from edge_broker.wire.packets import Connect

log: Final = logging.getLogger("bridge")

_LOOK_SECONDS: Final = 1.0


class Roaming:
    """Of one bridge. `open_link(upstream)` gives a link and who we are on it, or raises `UpstreamError`.

    `policy`: what it serves. `leaving_for`: where the bridge goes when the connection that it is about to leave has ended.
    `look_seconds`: how often `wants_to_leave` is to be asked while connected.
    """

    def __init__(
        self,
        config: BridgeConfig,
        random: Callable[[], float],
        open_link: Callable[[Upstream], Awaitable[tuple[Link, Credentials]]],
    ) -> None:
        self._config = config
        self._open_link = open_link
        proves_itself = config.server_name is not None or config.upstream_identity is not None
        self._directory = Directory(config.places, not proves_itself, config.resolve_timeout_seconds)
        self.policy = Policy(config, self._directory.members, random)
        self.leaving_for: Upstream | None = None
        self.look_seconds = min(_LOOK_SECONDS, config.failover.probe_interval_seconds / 2)

    @property
    def may_move(self) -> bool:
        """Whether there could ever be another upstream."""
        places = self._config.places
        return len(places) > 1 or isinstance(places[0].where, Service)

    async def find_upstreams(self, on_failed: Callable[[UpstreamError], None]) -> None:
        """Until there is one to try: where the configuration names a service, DNS has to tell."""
        self.leaving_for = None
        while True:
            try:
                await self._refresh()
                return
            except UpstreamError as error:
                on_failed(error)
            now = time.monotonic()
            self.policy.on_unresolved(now)
            await asyncio.sleep(self.policy.wait_seconds(now))

    async def _refresh(self) -> None:
        if await self._directory.refresh():
            self.policy.upstreams.replace(self._directory.members)

    async def wants_to_leave(self, here: Upstream) -> bool:
        """While connected to `here`: test what ranks better, ask DNS again; True where it is better to go elsewhere."""
        if not self.may_move:
            return False
        try:
            await self._refresh()
        except UpstreamError as error:  # a connection that stands needs no DNS
            log.debug("bridge %s: %s", self._config.name, error)
        tested = self.policy.returning.due(here, time.monotonic())
        if tested is not None:
            self.policy.returning.on_tested(tested, await self._test(tested), time.monotonic())
        self.leaving_for = self.policy.should_leave_for(time.monotonic())
        if self.leaving_for is not None:
            log.info("bridge %s: leaving %s for %s", self._config.name, here, self.leaving_for)
        return self.leaving_for is not None

    async def _test(self, upstream: Upstream) -> float | None:
        """How long a test connection to `upstream` took to be answered; None where it was not."""
        config = self._config
        try:
            link, credentials = await self._open_link(upstream)
        except UpstreamError as error:
            log.debug("bridge %s: test of %s: %s", config.name, upstream, error)
            return None
        request = Connect(
            self.policy.version_for(upstream, time.monotonic()),
            f"{config.client_id}-probe",
            clean_start=True,
            keep_alive=0,
            username=credentials.username,
            password=credentials.password,
        )
        return await probe(link, request, config.connack_timeout_seconds)

    def on_left(self, upstream: Upstream) -> None:
        """A connection that worked ended because we wanted it to."""
        if self.leaving_for is not None:
            self.policy.on_left(upstream, self.leaving_for, time.monotonic())

    def status(self, chosen: Upstream | Service) -> list[UpstreamStatus]:
        """All upstreams that are known now."""
        upstreams, now = self.policy.upstreams, time.monotonic()
        return [
            UpstreamStatus(
                url=str(upstream),
                priority=priority,
                chosen=upstream == chosen,
                ejected=upstreams.is_ejected(upstream, now),
                seconds={str(kind): seconds for kind, seconds in upstreams.health(upstream).seconds.items()},
            )
            for upstream, priority, *_ in upstreams.members
        ]
