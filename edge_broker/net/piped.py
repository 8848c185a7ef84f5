"""A transport whose bytes go through a pipe: TLS, WebSocket, or one over the other.

What `StreamProtocol` promises holds here too: turns, limits, the last word before the end. Until the pipe's handshakes are
done the connection counts as unfinished.
"""

from __future__ import annotations

import asyncio
import ssl
from collections.abc import Callable
from typing import ClassVar

from edge_broker.core.connection import SIGN_OF_LIFE_BYTES
from edge_broker.core.ports import Vetting
from edge_broker.net.gate import Gate
from edge_broker.net.pipes import Pipe, PipeError
from edge_broker.net.transport import Hub, StreamProtocol
from edge_broker.wire import const


class CertifiedClients:
    """A listener's clients that showed a certificate. `vetting`: what is demanded of them from now on."""

    def __init__(self, vetting: Vetting) -> None:
        self.vetting = vetting
        self.connected: set[PipedProtocol] = set()

    def judge_again(self) -> int:
        """End the connections that would not be let in any more; how many. Have the output flushed afterwards."""
        return sum(protocol.judge_again(self.vetting) for protocol in list(self.connected))


class PipedProtocol(StreamProtocol):
    """One accepted connection through a pipe of its own.

    `new_pipe` makes it at each accept: so the newest certificates apply. `clients`: what becomes of a client's certificate;
    None where none is asked for.
    """

    shakes_hands: ClassVar[bool] = True

    __slots__ = ("_clients", "_pipe", "_shaking_hands", "_vetting")

    def __init__(
        self,
        hub: Hub,
        gate: Gate,
        listener: str,
        new_pipe: Callable[[], Pipe],
        clients: CertifiedClients | None = None,
    ) -> None:
        super().__init__(hub, gate, listener)
        self._pipe = new_pipe()
        self._clients = clients
        self._vetting = None if clients is None else clients.vetting
        self._shaking_hands = False

    # ---- what asyncio calls

    def begin(self, transport: asyncio.BaseTransport, address: str, opened_at: float) -> None:
        super().begin(transport, address, opened_at)
        self._shaking_hands = not self._closed

    def data_received(self, data: bytes) -> None:
        pipe, connection = self._pipe, self._connection
        try:
            plain = pipe.receive(data)
        except (ssl.SSLError, PipeError) as error:
            self._refuse(error)
            return
        except Exception:  # noqa: BLE001 - a fault of ours ends the one connection that met it
            self._break()
            return
        self._send_output()
        if self._shaking_hands and pipe.established:
            self._end_handshake()
            if self._clients is not None and not self._passes(self._clients):
                return
        if plain and connection.end is None:
            super().data_received(plain)
        elif pipe.mid_frame and len(data) >= SIGN_OF_LIFE_BYTES:
            self._hub.request_tick()
            connection.last_received_at = self._hub.router.now
        if pipe.ended:
            self._goodbye()
        elif pipe.has_more:
            self._continue_later()
        elif pipe.lingers:
            self._set_reading(True)  # for the peer's goodbye

    def connection_lost(self, exc: Exception | None) -> None:
        if self._shaking_hands:
            self._end_handshake()
        if self._clients is not None:
            self._clients.connected.discard(self)
        super().connection_lost(exc)

    # ---- the client's certificate

    def _passes(self, clients: CertifiedClients) -> bool:
        try:
            return self._is_let_in(clients)
        except Exception:  # noqa: BLE001 - as above
            self._break()
            return False

    def _is_let_in(self, clients: CertifiedClients) -> bool:
        """Whether its certificate, if it showed one, is let in; if so, its names are the connection's."""
        peer = self._pipe.peer()
        if peer is None:
            return True
        vetting = clients.vetting
        is_as_it_was = vetting is self._vetting  # else the handshake went by the CAs of before
        judgement = vetting.judge(peer) if is_as_it_was else vetting.judge_again(peer)
        self._vetting = None
        if judgement.refusal:
            self._end("certificate", judgement.refusal)
            self._goodbye()
            return False
        self._connection.certificate_names = judgement.names
        clients.connected.add(self)
        return True

    def judge_again(self, vetting: Vetting) -> bool:
        """What is demanded of certificates has changed: end the connection where it does not fit; whether it did."""
        peer, connection = self._pipe.peer(), self._connection
        refusal = "" if peer is None else vetting.judge_again(peer).refusal
        if not refusal or connection.end is not None:
            return False
        connection.fail(const.NOT_AUTHORIZED, refusal)
        return True

    # ---- what the core calls (Outlet)

    def write(self, data: bytes) -> None:
        """Send `data` through the pipe."""
        if self._closed or not (self._connection.writable or self._has_room(len(data))):
            return
        try:
            self._pipe.send(data)
        except (ssl.SSLError, PipeError) as error:
            self._refuse(error)
            return
        self._transport.write(self._pipe.take_output())

    def encryption(self) -> tuple[str, str] | None:
        """What the pipe agreed on."""
        return self._pipe.encryption()

    def close(self) -> None:
        """Say goodbye in the pipe's form; close now, or when the peer has said it too, or has had its time."""
        if self._closed:
            return
        self._pipe.shut()
        self._send_output()
        if not self._pipe.lingers:
            super().close()
            return
        self._abort_later()
        if self._pipe.has_more:
            self._continue_later()
        else:
            self._set_reading(True)

    # ----

    def _continue(self) -> None:
        """First what the core has left, then what the pipe has."""
        super()._continue()
        connection = self._connection
        is_free = connection.end is not None or not (self._working or connection.paused)
        if self._pipe.has_more and is_free and not self._closed:
            self.data_received(b"")

    def _end_handshake(self) -> None:
        self._shaking_hands = False
        self._gate.end_handshake()

    def _send_output(self) -> None:
        """What the pipe itself has to say counts as answers do: who reads none is cut off."""
        output = self._pipe.take_output()
        if output and not self._closed and (self._connection.writable or self._has_room(len(output))):
            self._transport.write(output)

    def _goodbye(self) -> None:
        """The peer has said it, or we end it here."""
        self._pipe.shut()
        self._send_output()
        super().close()

    def _refuse(self, error: ssl.SSLError | PipeError) -> None:
        """A handshake or the stream failed: the peer gets the pipe's own word for it, the log the reason."""
        connection = self._connection
        if connection.end is None:
            counter, detail = (
                (error.counter, f"WebSocket failed: {error}")
                if isinstance(error, PipeError)
                else ("tls", f"TLS failed: {_why(error)}")
            )
            self._end(counter, detail)
        self._send_output()
        super().close()

    def _end(self, counter: str, detail: str) -> None:
        self._hub.router.counters.refuse(counter)
        self._connection.on_lost(detail)
        self._hub.request_tick()


def _why(error: ssl.SSLError) -> str:
    if isinstance(error, ssl.SSLCertVerificationError):
        return f"the client's certificate is refused: {error.verify_message}"
    return error.reason or str(error)
