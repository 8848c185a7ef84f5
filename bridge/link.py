"""The transport of one connection to the upstream: addresses, TCP, TLS; then bytes in and bytes out.

Opening it goes through stages, each bounded in time and with a failure of its own kind. Several addresses are tried a
moment apart rather than one after another, so that a dead IPv6 route costs a quarter of a second. What is written goes
out in one piece per call; the receiver is told when the socket takes no more, and when it does again.
"""

from __future__ import annotations

import asyncio
import fcntl
import socket
import ssl
import termios
import time
from collections.abc import Callable, Sequence
from functools import partial
from typing import Final, Literal, NamedTuple, Protocol, cast

from bridge.failures import not_resolved, tls_failed, unreachable, upstream_identity_refused
from bridge.places import Upstream
from bridge.resolving import Address, Resolver
from edge_broker.net.tls import TlsPipe

_NEXT_ADDRESS_SECONDS: Final = 0.25
_BUFFER_BYTES: Final = 256 << 10

Stage = Literal["resolving", "connecting", "handshake"]
Judge = Callable[[Sequence[bytes], float], object]
"""Asked about the chain that the server presented (leaf first, DER) at a Unix time; `ValueError` where it will not do."""


class Meter:
    """`carried_bytes`: what went over sockets so far, both directions, TLS included, TCP and below not."""

    __slots__ = ("carried_bytes",)

    def __init__(self) -> None:
        self.carried_bytes = 0


class Timeouts(NamedTuple):
    """For each stage, in seconds."""

    resolve: float
    connect: float
    handshake: float


class Receiver(Protocol):
    """Who is at our end of the link. Exceptions out of these are its own: it handles them itself."""

    def on_data(self, data: bytes) -> None:
        """Plain bytes came."""

    def on_writable(self, writable: bool) -> None:
        """The socket takes no more for now, or takes more again."""

    def on_link_end(self, detail: str) -> None:
        """The connection is gone, or the upstream has closed its direction; called once."""


class Link(asyncio.Protocol):
    """One connection, TCP or a Unix socket, under TLS where `pipe` is given.

    `tls_version` as in ``TLSv1.3``; empty without TLS.

    `put_off`: does what it is given later, for drills.
    """

    def __init__(self, pipe: TlsPipe | None, meter: Meter) -> None:
        self._pipe = pipe
        self._meter = meter
        self._transport: asyncio.Transport
        self._receiver: Receiver | None = None
        self._early: list[bytes] = []
        self._ended: str | None = None
        self._closing = False
        self._sent_mark = -1
        self.put_off: Callable[[Callable[[], object]], None] | None = None
        self.tls_version = ""
        self.established: asyncio.Future[None] = asyncio.get_running_loop().create_future()

    # ---- what asyncio calls

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast(asyncio.Transport, transport)
        self._transport.set_write_buffer_limits(_BUFFER_BYTES, _BUFFER_BYTES // 4)
        if self._pipe is None:
            self.established.set_result(None)
            return
        self._pipe.start()
        self._put(self._pipe.take_output())

    def data_received(self, data: bytes) -> None:
        self._meter.carried_bytes += len(data)
        if self._pipe is not None:
            plain = self._decrypt(self._pipe, data)
            if plain is None:
                return
            data = plain
        if data:
            if self._receiver is None:
                self._early.append(data)
            else:
                self._receiver.on_data(data)
        if self._pipe is not None and self._pipe.ended:
            self._end("it closed the connection")

    def eof_received(self) -> bool:
        return False  # the transport closes, and connection_lost follows

    def connection_lost(self, exc: Exception | None) -> None:
        if isinstance(exc, OSError):
            self._end(exc.strerror or str(exc))
        else:
            self._end("it closed the connection" if exc is None else str(exc))

    def pause_writing(self) -> None:
        if self._receiver is not None:
            self._receiver.on_writable(False)

    def resume_writing(self) -> None:
        if self._receiver is not None:
            self._receiver.on_writable(True)

    # ---- TLS

    def _decrypt(self, pipe: TlsPipe, data: bytes) -> bytes | None:
        was_established = pipe.established
        try:
            plain = pipe.receive(data)
        except ssl.SSLError as error:
            self._send_alert(pipe)
            if not self.established.done():
                self.established.set_exception(error)
            self._end(f"TLS: {(error.reason or str(error)).replace('_', ' ').lower()}")
            return None
        output = pipe.take_output()
        if output:
            self._put(output)
        if pipe.established and not was_established:
            self.tls_version = pipe.version
            if not self.established.done():
                self.established.set_result(None)
        return plain

    def _send_alert(self, pipe: TlsPipe) -> None:
        output = pipe.take_output()
        if output:
            self._transport.write(output)

    # ---- what the bridge calls

    def presented_chain(self) -> Sequence[bytes]:
        """The certificates that the server sent, leaf first, DER; none without TLS."""
        return () if self._pipe is None else self._pipe.presented_chain()

    @property
    def ended(self) -> str:
        """How the connection ended, empty while it stands."""
        return self._ended or ""

    def begin(self, receiver: Receiver) -> None:
        """From now on `receiver` gets what comes, and first what came already."""
        self._receiver = receiver
        early, self._early = self._early, []
        for data in early:
            receiver.on_data(data)
        if self._ended is not None:
            receiver.on_link_end(self._ended)

    def write(self, data: bytes) -> None:
        """Send `data`."""
        if self._ended is not None or self._closing:
            return
        if self._pipe is not None:
            try:
                self._pipe.send(data)
            except ssl.SSLError as error:
                self._end(f"TLS: {error.reason or error}")
                return
            data = self._pipe.take_output()
        self._put(data)

    def _put(self, data: bytes) -> None:
        self._meter.carried_bytes += len(data)
        if self.put_off is None:
            self._transport.write(data)
        else:
            self.put_off(partial(self._transport.write, data))

    def set_reading(self, reading: bool) -> None:
        """Take input, or leave it in the socket."""
        if self._ended is None and not self._closing:
            if reading:
                self._transport.resume_reading()
            else:
                self._transport.pause_reading()

    def is_sending(self) -> bool:
        """Whether output is still on its way out and moved since this was asked last."""
        mark = self._transport.get_write_buffer_size() + _unacknowledged_bytes(self._transport)
        moved = mark != 0 and mark != self._sent_mark
        self._sent_mark = mark
        return moved

    def close(self) -> None:
        """Close when what was written is out."""
        if self._pipe is not None and self._ended is None and not self._closing:
            self._pipe.shut()
            self._put(self._pipe.take_output())
        self._closing = True
        if self.put_off is None:
            self._transport.close()
        else:
            self.put_off(self._transport.close)

    def abort(self) -> None:
        """Close now."""
        self._transport.abort()

    def _end(self, detail: str) -> None:
        if self._ended is not None:
            return
        self._ended = detail
        if not self.established.done():
            self.established.set_exception(ConnectionError(detail))
        if self._receiver is not None:
            self._receiver.on_link_end(detail)
        self._transport.close()


def _unacknowledged_bytes(transport: asyncio.Transport) -> int:
    """What the kernel holds of our output and the other end's has not acknowledged; 0 where it does not tell."""
    try:
        number = transport.get_extra_info("socket").fileno()
        return int.from_bytes(fcntl.ioctl(number, termios.TIOCOUTQ, bytes(4)), "little")
    except (OSError, AttributeError):
        return 0


# ---- opening


async def open_link(
    upstream: Upstream,
    resolver: Resolver,
    context: ssl.SSLContext | None,
    server_name: str,
    timeouts: Timeouts,
    on_stage: Callable[[Stage], None],
    meter: Meter,
    *,
    judge: Judge | None,
) -> Link:
    """Connect, with a `context` by TLS to a server that proves to be `server_name`; `UpstreamUnavailable` else.

    With a `judge` the server proves to whom it is as well; what TLS verifies then is up to the context. It has no default:
    where it is forgotten, anybody would do whom any trust bundle vouches for.
    """
    sock = await _open_socket(upstream, resolver, timeouts, on_stage)
    link = await _establish(upstream, sock, context, server_name, timeouts.handshake, on_stage, meter)
    if judge is not None:
        try:
            judge(link.presented_chain(), time.time())
        except Exception as error:
            link.abort()
            if isinstance(error, ValueError):
                raise upstream_identity_refused(upstream, str(error)) from None
            raise
    return link


async def _open_socket(
    upstream: Upstream, resolver: Resolver, timeouts: Timeouts, on_stage: Callable[[Stage], None]
) -> socket.socket:
    """A connected socket."""
    if upstream.path:
        addresses = [Address(socket.AF_UNIX, upstream.path)]
    else:
        addresses = await _resolve(upstream, resolver, timeouts.resolve, on_stage)
    on_stage("connecting")
    try:
        async with asyncio.timeout(timeouts.connect):
            return await _connect_any(addresses)
    except TimeoutError:
        raise unreachable(upstream, None, timeouts.connect) from None
    except OSError as error:
        raise unreachable(upstream, error, timeouts.connect) from None


async def _resolve(
    upstream: Upstream, resolver: Resolver, timeout_seconds: float, on_stage: Callable[[Stage], None]
) -> list[Address]:
    on_stage("resolving")
    try:
        async with asyncio.timeout(timeout_seconds):
            return await resolver.resolve(upstream.host, upstream.port)
    except TimeoutError:
        raise not_resolved(upstream, None, timeout_seconds) from None
    except OSError as error:
        raise not_resolved(upstream, error, timeout_seconds) from None


async def _establish(
    upstream: Upstream,
    sock: socket.socket,
    context: ssl.SSLContext | None,
    server_name: str,
    timeout_seconds: float,
    on_stage: Callable[[Stage], None],
    meter: Meter,
) -> Link:
    """The link over a connected socket, TLS done."""
    try:
        pipe = None if context is None else TlsPipe(context, server_side=False, server_hostname=server_name)
    except ValueError as error:  # a name that cannot be one
        sock.close()
        raise tls_failed(upstream, None, f"server_name {server_name!r}: {error}") from None
    if pipe is not None:
        on_stage("handshake")
    loop = asyncio.get_running_loop()
    connect = loop.create_unix_connection if upstream.path else loop.create_connection
    _, link = await connect(lambda: Link(pipe, meter), sock=sock)
    try:
        async with asyncio.timeout(timeout_seconds):
            await link.established
    except TimeoutError:
        link.abort()
        raise tls_failed(upstream, None, f"no answer within {timeout_seconds:g} s") from None
    except ssl.SSLError as error:
        raise tls_failed(upstream, error) from None
    except OSError as error:
        raise tls_failed(upstream, None, str(error)) from None
    except asyncio.CancelledError:
        link.abort()
        raise
    return link


async def _connect_any(addresses: list[Address]) -> socket.socket:
    """A socket connected to the first of `addresses` that answers; the first error where none does."""
    waiting = list(addresses)
    tries: set[asyncio.Task[socket.socket]] = set()
    first_error: OSError | None = None
    try:
        while waiting or tries:
            if waiting:
                tries.add(asyncio.create_task(_connect(waiting.pop(0))))
            done, tries = await asyncio.wait(
                tries,
                timeout=_NEXT_ADDRESS_SECONDS if waiting else None,
                return_when=asyncio.FIRST_COMPLETED,
            )
            connected = [task.result() for task in done if task.exception() is None]
            for sock in connected[1:]:
                sock.close()
            if connected:
                return connected[0]
            for task in done:
                first_error = first_error or cast(OSError, task.exception())
    finally:
        for task in tries:
            task.cancel()
        await asyncio.gather(*tries, return_exceptions=True)
    raise first_error or OSError("no address")


async def _connect(address: Address) -> socket.socket:
    sock = socket.socket(address.family, socket.SOCK_STREAM)
    try:
        sock.setblocking(False)
        if address.family != socket.AF_UNIX:
            sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        await asyncio.get_running_loop().sock_connect(sock, address.socket_address)
    except BaseException:
        sock.close()
        raise
    return sock
