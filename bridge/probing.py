"""A test connection: does an upstream take us, and how soon? CONNECT under another client id, CONNACK, DISCONNECT.

It carries nothing and leaves nothing behind: it starts clean and its session ends with it. An upstream that answers and
refuses because of that client id works as well as one that accepts; one that is busy or going down does not.
"""

from __future__ import annotations

import asyncio
import time
from typing import Final

from bridge.link import Link
from edge_broker.core.client import Client
from edge_broker.core.message import Message
from edge_broker.wire import const
from edge_broker.wire.packets import Connect
from edge_broker.wire.topics import TopicCache

_CHECK_SECONDS: Final = 0.25
_UNFIT: Final = frozenset(
    (
        const.UNSPECIFIED_ERROR,
        const.SERVER_UNAVAILABLE,
        const.SERVER_BUSY,
        const.SERVER_SHUTTING_DOWN,
        const.USE_ANOTHER_SERVER,
        const.SERVER_MOVED,
        const.CONNECTION_RATE_EXCEEDED,
        const.UNSUPPORTED_PROTOCOL_VERSION,
    )
)


async def probe(link: Link, request: Connect, timeout_seconds: float) -> float | None:
    """How many seconds CONNACK took over `link`; None where the upstream is not fit. The link is closed then."""
    test = _Test(link, request, timeout_seconds)
    try:
        return await test.run()
    finally:
        link.close()
        asyncio.get_running_loop().call_later(1.0, link.abort)


class _Test:
    """One of them: the link's receiver and the client's handler."""

    def __init__(self, link: Link, request: Connect, timeout_seconds: float) -> None:
        self._link = link
        self._client = Client(
            self, request, TopicCache(), self._nothing_to_wake, connack_timeout_seconds=timeout_seconds
        )
        self._answered: asyncio.Future[bool] = asyncio.get_running_loop().create_future()

    async def run(self) -> float | None:
        started = time.monotonic()
        self._client.start(started)
        self._flush()
        self._link.begin(self)
        while not self._answered.done():
            await asyncio.wait((self._answered,), timeout=_CHECK_SECONDS)
            self._client.check(time.monotonic())
        seconds = time.monotonic() - started
        self._client.disconnect()
        self._flush()
        return seconds if self._answered.result() else None

    def _flush(self) -> None:
        data = self._client.take_output(time.monotonic())
        if data:
            self._link.write(data)

    def _nothing_to_wake(self) -> None: ...

    def _answer(self, is_fit: bool) -> None:
        if not self._answered.done():
            self._answered.set_result(is_fit)

    # ---- the link's events

    def on_data(self, data: bytes) -> None:
        """Bytes came."""
        self._client.receive(data, time.monotonic())

    def on_writable(self, writable: bool) -> None:
        """The socket is full, or has room again: two small packets do not care."""

    def on_link_end(self, detail: str) -> None:
        """The connection is gone."""
        self._client.on_lost(detail)

    # ---- the client's events

    def on_connected(self, session_present: bool) -> None:
        """It took us."""
        self._answer(True)

    def on_refused(self, reason_code: int, detail: str) -> None:
        """It answered, and refused."""
        self._answer(reason_code not in _UNFIT)

    def on_closed(self, reason_code: int, detail: str) -> None:
        """It ended without an answer."""
        self._answer(False)

    def on_message(self, message: Message) -> None:
        """A client that subscribed to nothing gets nothing that counts."""

    def on_puback(self, packet_id: int, reason_code: int) -> None: ...

    def on_pubrec(self, packet_id: int, reason_code: int) -> None: ...

    def on_pubrel(self, packet_id: int) -> None: ...

    def on_pubcomp(self, packet_id: int, reason_code: int) -> None: ...

    def on_suback(self, packet_id: int, reason_codes: list[int]) -> None: ...
