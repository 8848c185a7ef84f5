"""asyncio's callbacks to a core connection: the thin shell around sans-I/O code.

A chunk from the socket goes to `Connection.receive`; what it leaves for another turn is continued from the event loop,
with the socket paused meanwhile. Output is flushed once per turn by whoever `request_tick` calls. An exception out of
the core is ours: it is reported with the connection's address, that connection is closed, and the broker goes on.
"""

from __future__ import annotations

import asyncio
import logging
import ssl
import time
from collections.abc import Callable
from typing import Final, Protocol, cast

from edge_broker.core.connection import Connection
from edge_broker.core.router import Router
from edge_broker.net.tls import TlsPipe

log: Final = logging.getLogger("edge_broker.net")


class Hub(Protocol):
    """What the transports of one broker share."""

    router: Router
    connections: set[Connection]
    max_connections: int
    tick_requested: bool

    def request_tick(self) -> None:
        """Have the output flushed and the store told at the end of this turn of the event loop.

        The first request of a turn also reads the clock: `router.now` is the time of the whole turn.
        """


class StreamProtocol(asyncio.Protocol):
    """One accepted TCP connection, and the `Outlet` of its core connection."""

    __slots__ = (
        "_closed",
        "_connection",
        "_hub",
        "_listener",
        "_reading",
        "_transport",
        "_unread_bytes",
        "_working",
    )

    def __init__(self, hub: Hub, listener: str) -> None:
        self._hub = hub
        self._listener = listener
        self._reading = True
        self._working = False
        self._closed = False
        self._unread_bytes = 0  # written although the transport's buffer was full
        self._connection: Connection
        self._transport: asyncio.Transport

    # ---- what asyncio calls

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast(asyncio.Transport, transport)
        hub = self._hub
        peer = transport.get_extra_info("peername")
        address = f"{peer[0].removeprefix('::ffff:')}:{peer[1]}" if isinstance(peer, tuple) else "local"
        self._connection = Connection(hub.router, self, time.monotonic(), address, self._listener)
        if len(hub.connections) >= hub.max_connections:
            hub.router.counters.refuse("max_connections")
            self._connection.end = (0x97, "max_connections")
            self._closed = True
            self._transport.abort()
            return
        hub.connections.add(self._connection)
        hub.router.counters.connections += 1
        limit = hub.router.settings.max_output_bytes
        self._transport.set_write_buffer_limits(limit, limit // 4)

    def data_received(self, data: bytes) -> None:
        hub = self._hub
        connection = self._connection
        if not hub.tick_requested:
            hub.request_tick()
        try:
            if connection.receive(data, hub.router.now):
                self._continue_later()
            elif connection.paused:
                self._pause_if_full()
        except Exception:
            self._break()

    def eof_received(self) -> bool:
        return False

    def connection_lost(self, exc: Exception | None) -> None:
        self._closed = True
        connection = self._connection
        self._hub.connections.discard(connection)
        try:
            connection.on_lost(
                "the connection was lost" if exc is None else f"the connection was lost: {exc}"
            )
        except Exception:
            self._break()
        self._hub.request_tick()

    def pause_writing(self) -> None:
        self._connection.on_writable(False)

    def resume_writing(self) -> None:
        self._unread_bytes = 0
        try:
            self._connection.on_writable(True)
        except Exception:
            self._break()
        self._hub.request_tick()

    # ---- what the core calls (Outlet)

    def write(self, data: bytes) -> None:
        """Send `data`; the transport buffers what the socket does not take."""
        if not self._closed and (self._connection.writable or self._has_room(len(data))):
            self._transport.write(data)

    def _has_room(self, size: int) -> bool:
        """Whether a peer that does not keep up may have `size` bytes of answers more.

        What it subscribed to waits elsewhere; one that goes on asking and reads nothing is cut off.
        """
        hub = self._hub
        self._unread_bytes += size
        if self._unread_bytes <= hub.router.settings.max_output_bytes:
            return True
        hub.router.counters.refuse("unread_output")
        self._connection.on_lost("it asks and does not read the answers")
        self._abort()
        hub.request_tick()
        return False

    def close(self) -> None:
        """Close when everything written is out, or at the latest when the other side's patience is ours to end."""
        if not self._closed:
            self._transport.close()
            asyncio.get_running_loop().call_later(5.0, self._abort)

    def wake(self) -> None:
        """Go on with the input that was left."""
        self._continue_later()

    # ---- working through buffered input

    def _continue_later(self) -> None:
        """Handle the rest in the next turn; until then the socket is not read."""
        self._set_reading(False)
        if not self._working:
            self._working = True
            asyncio.get_running_loop().call_soon(self._continue)

    def _continue(self) -> None:
        self._working = False
        connection = self._connection
        if self._closed or connection.end is not None:
            return
        try:
            if connection.take_turn():
                self._continue_later()
            elif connection.paused:
                self._pause_if_full()
            else:
                self._set_reading(True)
        except Exception:
            self._break()
        self._hub.request_tick()

    def _pause_if_full(self) -> None:
        """Input is taken meanwhile, but only as much as one packet may be."""
        if self._connection.buffered_bytes > self._hub.router.settings.work_budget_bytes:
            self._set_reading(False)

    def _set_reading(self, reading: bool) -> None:
        if reading != self._reading and not self._closed:
            self._reading = reading
            if reading:
                self._transport.resume_reading()
            else:
                self._transport.pause_reading()

    def _abort(self) -> None:
        if not self._closed:
            self._transport.abort()

    def _break(self) -> None:
        """Called from an except block: a fault of ours ends the one connection that met it."""
        connection = self._connection
        log.exception(
            "internal error on the connection of %s (%s)", connection.client_id or "?", connection.address
        )
        self._hub.router.counters.refuse("internal_error")
        if connection.end is None:
            connection.on_lost("internal error")
        self._abort()


class TlsStreamProtocol(StreamProtocol):
    """The same over TLS; `new_context` gives the newest context at each accept."""

    __slots__ = ("_identity_from", "_new_context", "_pipe")

    def __init__(
        self, hub: Hub, listener: str, new_context: Callable[[], ssl.SSLContext], identity_from: str
    ) -> None:
        super().__init__(hub, listener)
        self._new_context = new_context
        self._identity_from = identity_from
        self._pipe: TlsPipe

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._pipe = TlsPipe(self._new_context(), server_side=True)
        super().connection_made(transport)

    def data_received(self, data: bytes) -> None:
        pipe = self._pipe
        was_established = pipe.established
        try:
            plain = pipe.receive(data)
        except ssl.SSLError as error:
            self._refuse(error)
            return
        output = pipe.take_output()
        if output:
            self._transport.write(output)
        if pipe.established and not was_established:
            self._connection.certificate_names = pipe.peer_names()[self._identity_from]
        if plain:
            super().data_received(plain)
        if pipe.ended:
            self._transport.close()

    def write(self, data: bytes) -> None:
        """Encrypt and send `data`."""
        if self._closed or not (self._connection.writable or self._has_room(len(data))):
            return
        try:
            self._pipe.send(data)
        except ssl.SSLError as error:
            self._refuse(error)
            return
        self._transport.write(self._pipe.take_output())

    def close(self) -> None:
        """Say goodbye in TLS's form, then as below."""
        if not self._closed:
            self._pipe.shut()
            self._transport.write(self._pipe.take_output())
        super().close()

    def _refuse(self, error: ssl.SSLError) -> None:
        """The handshake or the stream failed: the peer gets TLS's alert, the log the reason."""
        connection = self._connection
        if connection.end is None:
            self._hub.router.counters.refuse("tls")
            connection.on_lost(f"TLS failed: {error.reason or error}")
            self._hub.request_tick()
        output = self._pipe.take_output()
        if output:
            self._transport.write(output)
        self._transport.close()
