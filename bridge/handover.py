"""Before our certificate expires, the live connection is followed by one with the new certificate.

The new connection is made first: name, TCP, TLS and both identities are settled while the old one still carries messages.
Where nothing is remembered of us upstream, MQTT is too: the new one stands by under another client id, accepted, and takes
over as soon as the old one has its last acknowledgement. Where a session is, only its own id can take it over: CONNECT goes
out on the new connection when the old one is left, and what is between is one round trip.

The old one is left in a calm moment if there is one; where the new one cannot be made, or does not stand, the old one stays
and it is tried again.

How early: a quarter of the certificate's life before its end, an hour at most, and somewhere in the first part of that, so
that gateways whose certificates were issued together do not come together. When half of it is over, no calm moment is
waited for any more; the other half is for what may fail.
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Awaitable, Callable
from typing import TYPE_CHECKING, Final, NamedTuple

from bridge.background import call_in_background
from bridge.identity import Credentials, Identity
from bridge.link import Link
from edge_broker.errors import UpstreamError

if TYPE_CHECKING:
    from bridge.conversation import Conversation

log: Final = logging.getLogger("bridge")

_PART: Final = 0.25
_SPREAD: Final = 0.4
_MOST_SECONDS: Final = 3600.0
_LONGEST_LOOK_SECONDS: Final = 30.0
_LOOKS: Final = 40
"""How often at least we look for a new certificate in the time that is left."""
_CALM_SECONDS: Final = 1.0
_PROBATION_SECONDS: Final = 0.5
"""With TLS 1.3 a mesh refuses a certificate after the handshake: so long the new connection has to stand for itself."""


class Opened(NamedTuple):
    """A connection on which nothing of MQTT was sent yet, and what it was made with."""

    link: Link
    credentials: Credentials


class Successor(NamedTuple):
    """A connection for the one before it. `standby`: who stands by on it; without one, nothing of MQTT was sent there."""

    opened: Opened
    standby: Conversation | None = None


class Moments(NamedTuple):
    """Unix times: from when a new certificate is taken, from when no calm moment is waited for, and the end."""

    begins_at: float
    hurries_at: float
    ends_at: float

    @classmethod
    def of(cls, holds: tuple[float, float], random: Callable[[], float]) -> Moments:
        """`holds`: from when to when the certificate does. `random` gives a number from 0 up to 1."""
        begin, end = holds
        margin = min((end - begin) * _PART, _MOST_SECONDS)
        return cls(end - margin * (1 - _SPREAD * random()), end - margin / 2, end)

    @property
    def look_seconds(self) -> float:
        """Between one look for a new certificate and the next."""
        return min(_LONGEST_LOOK_SECONDS, max(0.05, (self.ends_at - self.begins_at) / _LOOKS))


class Handover:
    """Finds the successor of one bridge's connections. `is_calm`: nothing is on its way; `open_anew`: connects."""

    def __init__(
        self,
        name: str,
        identity: Identity,
        open_anew: Callable[[], Awaitable[Successor]],
        is_calm: Callable[[], bool],
        random: Callable[[], float],
        wall: Callable[[], float] = time.time,
    ) -> None:
        self._name = name
        self._identity = identity
        self._open_anew = open_anew
        self._is_calm = is_calm
        self._random = random
        self._wall = wall
        self._said = ""

    async def successor(self, holds: tuple[float, float]) -> Successor:
        """The connection that follows one whose certificate `holds` so long; returns when it is time to change over."""
        moments = Moments.of(holds, self._random)
        while (left := moments.begins_at - self._wall()) > 0:  # noqa: ASYNC110 - time is all that it waits for
            await asyncio.sleep(min(left, _LONGEST_LOOK_SECONDS))  # the wall clock may be set meanwhile
        while True:
            successor = await self._try(moments)
            if successor is not None:
                return successor
            await asyncio.sleep(moments.look_seconds)

    async def _try(self, moments: Moments) -> Successor | None:
        ends_at = await call_in_background(self._identity.ends_at, f"bridge {self._name} identity")
        if ends_at is None or ends_at <= moments.ends_at:
            if self._wall() >= moments.hurries_at:
                self._say(
                    "the certificate is about to expire and there is no new one: the next connection will fail (renew it)"
                )
            return None
        if not self._is_calm() and self._wall() < moments.hurries_at:
            return None
        try:
            successor = await self._open_anew()
        except UpstreamError as error:
            self._say(f"no connection with the new certificate yet: {error}")
            return None
        link = successor.opened.link
        try:
            await asyncio.sleep(_PROBATION_SECONDS)
            if self._wall() < moments.hurries_at:
                await self._calm_down()
        except asyncio.CancelledError:
            link.abort()
            raise
        if link.ended:
            self._say(
                f"the new certificate may be refused: the connection made with it ended at once ({link.ended})"
            )
            return None
        return successor

    async def _calm_down(self) -> None:
        """A moment without messages on their way, or not: what is unacknowledged is sent again."""
        deadline = self._wall() + _CALM_SECONDS
        while not self._is_calm() and self._wall() < deadline:  # noqa: ASYNC110 - as in Conversation.finish
            await asyncio.sleep(0.01)

    def _say(self, text: str) -> None:
        if text != self._said:
            self._said = text
            log.warning("bridge %s: %s", self._name, text)
