"""asyncio's callbacks to a core connection: the thin shell around sans-I/O code.

A chunk from the socket goes to `Connection.receive`; what it leaves for another turn is continued from the event loop,
with the socket paused meanwhile. Output is flushed once per turn by whoever `request_tick` calls. An exception out of
the core is ours: it is reported with the connection's address, that connection is closed, and the broker goes on.
"""

from __future__ import annotations

import asyncio
import logging
import time
from typing import ClassVar, Final, Protocol, cast

from edge_broker.core.connection import Connection
from edge_broker.core.router import Router
from edge_broker.net.addresses import address_of
from edge_broker.net.gate import Gate

log: Final = logging.getLogger("edge_broker.net")

_CLOSING_SECONDS: Final = 5.0


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
    """One accepted connection, and the `Outlet` of its core connection."""

    shakes_hands: ClassVar[bool] = False
    """Whether something has to be agreed on before MQTT can begin."""

    __slots__ = (
        "_closed",
        "_connection",
        "_gate",
        "_hub",
        "_listener",
        "_reading",
        "_transport",
        "_unread_bytes",
        "_working",
    )

    def __init__(self, hub: Hub, gate: Gate, listener: str) -> None:
        self._hub = hub
        self._gate = gate
        self._listener = listener
        self._reading = True
        self._working = False
        self._closed = False
        self._unread_bytes = 0  # written although the transport's buffer was full
        self._connection: Connection
        self._transport: asyncio.Transport

    # ---- what asyncio calls

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.begin(transport, address_of(transport), time.monotonic())

    def begin(self, transport: asyncio.BaseTransport, address: str, opened_at: float) -> None:
        """Serve a client that is at `address` and connected at `opened_at`, or turn it away."""
        self._transport = cast(asyncio.Transport, transport)
        hub = self._hub
        self._connection = Connection(hub.router, self, opened_at, address, self._listener)
        refusal = self._gate.admit(address, self.shakes_hands)
        if refusal is not None:
            hub.router.counters.refuse(refusal)
            self._connection.end = (0x97, refusal)
            if hub.router.observer is not None:
                hub.router.observer.on_refused(address, self._listener, refusal)
            self._closed = True
            self._transport.abort()
            return
        hub.connections.add(self._connection)
        hub.router.counters.connections += 1
        limit = hub.router.settings.max_output_bytes
        self._transport.set_write_buffer_limits(limit, limit // 4)
        self._choose_way_out()

    def _choose_way_out(self) -> None:
        """A turn's output goes straight to the transport, unless that is closed, full, or not what speaks to the peer."""
        connection = self._connection
        is_direct = connection.writable and not self._closed and not self.shakes_hands
        connection.write_out = self._transport.write if is_direct else self.write

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
        self._choose_way_out()
        connection = self._connection
        if connection in self._hub.connections:  # it was let in
            self._hub.connections.remove(connection)
            self._gate.leave(connection.address)
        try:
            connection.on_lost(
                "the connection was lost" if exc is None else f"the connection was lost: {exc}"
            )
        except Exception:
            self._break()
        self._hub.request_tick()

    def pause_writing(self) -> None:
        self._connection.on_writable(False)
        self._choose_way_out()

    def resume_writing(self) -> None:
        self._unread_bytes = 0
        try:
            self._connection.on_writable(True)
        except Exception:
            self._break()
        self._choose_way_out()
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
            self._abort_later()

    def wake(self) -> None:
        """Go on with the input that was left."""
        self._continue_later()

    def encryption(self) -> tuple[str, str] | None:
        """Nothing is encrypted."""
        return None

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

    def _abort_later(self) -> None:
        """The other side had its time to take what is left and to go."""
        asyncio.get_running_loop().call_later(_CLOSING_SECONDS, self._abort)

    def _abort(self) -> None:
        if not self._closed:
            self._closed = True
            self._choose_way_out()
            self._transport.abort()

    def _break(self) -> None:
        """Called from an except block: a fault of ours ends the one connection that met it."""
        connection = self._connection
        log.exception(
            "internal error on the connection of %s (%s)", connection.client_id or "?", connection.address
        )
        self._hub.router.counters.refuse("internal_error")
        try:
            connection.on_lost("internal error")
        finally:
            self._abort()
