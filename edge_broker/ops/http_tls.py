"""TLS under the HTTP port: a plain socket on one side, on the other a visitor that sees plain bytes.

It sits on plain transports, as the listeners' TLS does, so each connection takes the newest certificate, costs little, and
counts from its first moment: the event loop's own TLS tells nobody of connections that have not finished their handshake,
and nobody could bound them. The encryption itself is the pipe's.
"""

from __future__ import annotations

import asyncio
import ssl
from collections.abc import Iterable
from typing import Any, Protocol, cast

from edge_broker.ops.http_visitor import Visitor


class Pipe(Protocol):
    """One side of a TLS connection in memory; `edge_broker.net.tls.TlsPipe` is one."""

    established: bool
    ended: bool

    def start(self) -> None:
        """Begin the handshake."""

    def receive(self, data: bytes) -> bytes:
        """Take encrypted bytes, give the plain ones; `ssl.SSLError` where they are wrong."""

    def send(self, data: bytes) -> None:
        """Encrypt `data`."""

    def take_output(self) -> bytes:
        """The encrypted bytes to send now."""

    def shut(self) -> None:
        """Say that we send no more."""


class TlsSocket(asyncio.Protocol):
    """The socket of one that becomes a connection of `visitor` once TLS is agreed on; cut after `seconds` without."""

    def __init__(self, visitor: Visitor, pipe: Pipe, seconds: float) -> None:
        self._visitor = visitor
        self._pipe = pipe
        self._seconds = seconds
        self._plain: asyncio.Transport
        self._patience: asyncio.TimerHandle

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._plain = cast(asyncio.Transport, transport)
        self._patience = asyncio.get_running_loop().call_later(self._seconds, self._plain.abort)
        self._visitor.give_up = self._plain.abort
        self._pipe.start()

    def data_received(self, data: bytes) -> None:
        if self._plain.is_closing():
            return
        try:
            plain = self._pipe.receive(data)
        except ssl.SSLError:
            self._plain.write(self._pipe.take_output())  # an alert
            self._plain.close()
            return
        self._plain.write(self._pipe.take_output())
        if not self._pipe.established:
            return
        if self._visitor.transport is None:
            self._patience.cancel()
            self._visitor.connection_made(TlsTransport(self._plain, self._pipe))
        if plain:
            self._visitor.data_received(plain)
        if self._pipe.ended and not self._plain.is_closing():
            self._visitor.eof_received()

    def eof_received(self) -> bool | None:
        return None if self._visitor.transport is None else self._visitor.eof_received()

    def pause_writing(self) -> None:
        if self._visitor.transport is not None:
            self._visitor.pause_writing()

    def resume_writing(self) -> None:
        if self._visitor.transport is not None:
            self._visitor.resume_writing()

    def connection_lost(self, error: Exception | None) -> None:
        self._patience.cancel()
        self._visitor.connection_lost(error)


class TlsTransport(asyncio.Transport):
    """What the visitor writes to: plain bytes, which leave encrypted."""

    def __init__(self, plain: asyncio.Transport, pipe: Pipe) -> None:
        super().__init__()
        self._plain = plain
        self._pipe = pipe

    def write(self, data: bytes | bytearray | memoryview[Any]) -> None:
        if not self._plain.is_closing():
            self._pipe.send(bytes(data))
            self._plain.write(self._pipe.take_output())

    def writelines(self, list_of_data: Iterable[bytes | bytearray | memoryview[Any]]) -> None:
        self.write(b"".join(list_of_data))

    def can_write_eof(self) -> bool:
        return False

    def close(self) -> None:
        if not self._plain.is_closing():
            self._pipe.shut()
            self._plain.write(self._pipe.take_output())
            self._plain.close()

    def abort(self) -> None:
        self._plain.abort()

    def is_closing(self) -> bool:
        return self._plain.is_closing()

    def get_extra_info(self, name: str, default: Any = None) -> Any:
        return self._plain.get_extra_info(name, default)

    def pause_reading(self) -> None:
        self._plain.pause_reading()

    def resume_reading(self) -> None:
        self._plain.resume_reading()

    def is_reading(self) -> bool:
        return self._plain.is_reading()

    def get_write_buffer_size(self) -> int:
        return self._plain.get_write_buffer_size()

    def get_write_buffer_limits(self) -> tuple[int, int]:
        return self._plain.get_write_buffer_limits()

    def set_write_buffer_limits(self, high: int | None = None, low: int | None = None) -> None:
        self._plain.set_write_buffer_limits(high, low)
