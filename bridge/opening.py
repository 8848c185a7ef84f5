"""How a bridge gets a connection on which nothing of MQTT was sent yet: who we are, the link, who they are.

This is the one way to a link, for live connections, their successors and tests alike: so all their bytes count, all of them
are judged, and drills apply to all.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from functools import partial

from bridge import failures
from bridge.background import call_in_background
from bridge.config import BridgeConfig
from bridge.faults import PutOff
from bridge.handover import Opened
from bridge.identity import Credentials, Identity
from bridge.link import Link, Meter, Stage, Timeouts, open_link
from bridge.places import Upstream
from bridge.resolving import Resolver
from bridge.upstreams import Member


def note_no_stage(stage: Stage) -> None:
    """How far a test or a successor has come is nobody's state."""


class Opener:
    """Of one bridge. `meter`: what all its links carried. `member_of(upstream)`: how that ranks now, None if not at all."""

    def __init__(
        self,
        config: BridgeConfig,
        identity: Identity,
        member_of: Callable[[Upstream], Member | None],
        random: Callable[[], float],
    ) -> None:
        self.meter = Meter()
        self._config = config
        self._identity = identity
        self._member_of = member_of
        self._random = random
        self._resolver = Resolver()

    async def prepare(self, upstream: Upstream, on_stage: Callable[[Stage], None] = note_no_stage) -> Opened:
        """Up to the last byte before MQTT; `UpstreamError` where it does not come to that."""
        credentials = await self._read_identity(upstream)
        return Opened(await self._open(upstream, credentials, on_stage), credentials)

    async def _open(
        self, upstream: Upstream, credentials: Credentials, on_stage: Callable[[Stage], None]
    ) -> Link:
        """Whoever is at the other end has proved who it is."""
        config = self._config
        member = self._member_of(upstream)
        if member is not None and self._random() < member.fault_abort_share:
            raise failures.drill(upstream)
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
            on_stage,
            self.meter,
            judge=credentials.judge,
        )
        if member is not None and member.fault_delay_seconds:
            link.put_off = PutOff(member.fault_delay_seconds)
        return link

    async def _read_identity(self, upstream: Upstream) -> Credentials:
        config = self._config
        if not upstream.tls and config.password_file is None:
            return Credentials(None, config.username, None)
        try:
            async with asyncio.timeout(config.connect_timeout_seconds):
                return await call_in_background(
                    partial(self._identity.read, upstream.tls), f"bridge {config.name} identity"
                )
        except TimeoutError:
            raise failures.identity_not_read(config.connect_timeout_seconds) from None
