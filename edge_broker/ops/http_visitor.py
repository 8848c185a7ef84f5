"""One connection to the HTTP port, between the socket or TLS and aiohttp: how much it may say.

A request here is a line, some headers and no body. Whatever comes beyond that is not taken from the socket; headers that do
not end within the bound are answered once and that is all. `on_lost` is called when the connection is gone.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Final, cast

MAX_INPUT_BYTES: Final = 16 << 10
_HEAD_END: Final = b"\r\n\r\n"
_TOO_LARGE: Final = (
    b"HTTP/1.1 431 Request Header Fields Too Large\r\nConnection: close\r\nContent-Length: 0\r\n"
    b"Cache-Control: no-store\r\nX-Content-Type-Options: nosniff\r\n\r\n"
)


class Visitor(asyncio.Protocol):
    """Hands everything to `inner`, within the bound. `transport` is None before the TLS handshake, where there is one;
    until then `give_up` cuts it off.
    """

    def __init__(
        self,
        inner: asyncio.Protocol,
        on_lost: Callable[[Visitor], None],
        on_too_large: Callable[[], None],
    ) -> None:
        self.transport: asyncio.Transport | None = None
        self.give_up: Callable[[], None] | None = None
        self._inner = inner
        self._on_lost = on_lost
        self._on_too_large = on_too_large
        self._taken_bytes = 0
        self._tail = b""
        self._head_is_over = False
        self._is_over = False

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.transport = cast(asyncio.Transport, transport)
        self._inner.connection_made(transport)

    def data_received(self, data: bytes) -> None:
        room = MAX_INPUT_BYTES - self._taken_bytes
        self._taken_bytes += len(data)
        taken = data[: max(0, room)]
        if not self._head_is_over:
            seen = self._tail + taken if self._tail else taken.lstrip(b"\r\n")  # empty lines before a request
            self._head_is_over = _HEAD_END in seen
            self._tail = seen[-3:]
        if len(taken) == len(data):
            self._inner.data_received(data)
        elif not self._is_over:
            self._is_over = True
            self._end(taken)

    def _end(self, last: bytes) -> None:
        """Nothing more is taken than `last`: a request whose head is whole is answered, without its body."""
        assert self.transport is not None
        self._on_too_large()
        if self._head_is_over:
            self.transport.pause_reading()
            self._inner.data_received(last)
        elif not self.transport.is_closing():
            self.transport.write(_TOO_LARGE)
            self.transport.close()

    def eof_received(self) -> bool | None:
        return self._inner.eof_received()

    def pause_writing(self) -> None:
        self._inner.pause_writing()

    def resume_writing(self) -> None:
        self._inner.resume_writing()

    def connection_lost(self, error: Exception | None) -> None:
        if self.transport is not None:
            self._inner.connection_lost(error)
        self._on_lost(self)
