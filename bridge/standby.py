"""A connection that stands by: made, and accepted by the upstream, while another one still carries the messages.

It has a client id of its own, since the upstream would end the other one if they had the same. So this is for a line of
which nothing is remembered upstream: no subscription that outlives a connection, and no identifier of QoS 2.

Some upstreams let a certificate connect under one client id alone. Where one does not take the second, it is done without.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable

from bridge.conversation import Conversation
from bridge.handover import Opened, Successor


class ClientIds:
    """`live`: that of the connection that carries messages; `spare`: for one that stands by."""

    def __init__(self, first: str, second: str) -> None:
        self.live, self.spare = first, second

    def swap(self) -> None:
        """The one that stood by is the live one now."""
        self.live, self.spare = self.spare, self.live


class Succession:
    """Makes the successor of one connection, as often as it takes. `converse(opened)`: who would stand by on it; None
    where nobody can."""

    def __init__(
        self, prepare: Callable[[], Awaitable[Opened]], converse: Callable[[Opened], Conversation] | None
    ) -> None:
        self._prepare = prepare
        self._converse = converse

    async def open(self) -> Successor:
        """One that stands by, accepted; or, where that was refused before, up to the last byte before MQTT.

        `UpstreamError` where it does not come to that.
        """
        opened = await self._prepare()
        if self._converse is None:
            return Successor(opened)
        standby = self._converse(opened)
        standby.begin()
        try:
            await asyncio.wait((standby.accepted, standby.ended), return_when=asyncio.FIRST_COMPLETED)
        except asyncio.CancelledError:
            opened.link.abort()
            raise
        if not standby.accepted.done():
            self._converse = None
            error = standby.ended.result().error
            assert error is not None  # nobody else ends it
            raise error
        return Successor(opened, standby)
