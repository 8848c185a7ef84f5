"""What lies between a socket and MQTT: pipes, which turn the peer's bytes into plain ones and ours into the peer's.

A pipe does no I/O: bytes go in, bytes come out, `take_output` after every call. TLS is one, WebSocket another, and
`LayeredPipe` makes one of two, so that any of them serves any transport.
"""

from __future__ import annotations

from typing import Protocol

from edge_broker.core.ports import PeerCertificate


class PipeError(Exception):
    """The peer broke a pipe's protocol. `counter`: under what it is counted; what is in the output should still be sent."""

    def __init__(self, counter: str, detail: str) -> None:
        super().__init__(detail)
        self.counter = counter


class Pipe(Protocol):
    """One side of one connection. `receive` and `send` raise `ssl.SSLError` or `PipeError` where the peer is at fault."""

    @property
    def established(self) -> bool:
        """Whether its handshake is done, so that plain bytes can pass."""

    @property
    def ended(self) -> bool:
        """Whether the peer has said goodbye in due form; nothing comes after that."""

    @property
    def has_more(self) -> bool:
        """Whether there is input left that `receive(b"")` would go on with: one call does a bounded amount of work."""

    @property
    def mid_frame(self) -> bool:
        """Whether what came last was part of something that is not whole yet: a sign of life without plain bytes."""

    @property
    def lingers(self) -> bool:
        """Whether, after `shut`, the peer's own goodbye is to be waited for before the connection is closed."""

    def receive(self, data: bytes) -> bytes:
        """Take the peer's bytes; returns the plain ones that are whole."""

    def send(self, data: bytes) -> None:
        """Take plain bytes for the peer."""

    def take_output(self) -> bytes:
        """The bytes to send to the peer now."""

    def shut(self) -> None:
        """Say goodbye in due form; twice does no harm."""

    def peer(self) -> PeerCertificate | None:
        """The certificate by which the peer has proved who it is; None where it did not."""

    def encryption(self) -> tuple[str, str] | None:
        """TLS version and cipher, once agreed on; None where nothing is encrypted."""


class LayeredPipe:
    """`upper` on top of `lower`, as one pipe: WebSocket over TLS."""

    __slots__ = ("_lower", "_upper")

    def __init__(self, lower: Pipe, upper: Pipe) -> None:
        self._lower = lower
        self._upper = upper

    @property
    def established(self) -> bool:
        """Both handshakes are done."""
        return self._upper.established

    @property
    def ended(self) -> bool:
        """Either layer has ended, and what came before that was taken."""
        return self._upper.ended or (self._lower.ended and not self._upper.has_more)

    @property
    def has_more(self) -> bool:
        """There is input left in the upper layer; the lower one keeps none."""
        return self._upper.has_more

    @property
    def mid_frame(self) -> bool:
        """Something in the upper layer is not whole."""
        return self._upper.mid_frame

    @property
    def lingers(self) -> bool:
        """The upper layer's goodbye is to be answered."""
        return self._upper.lingers

    def receive(self, data: bytes) -> bytes:
        """Take the peer's bytes through both layers."""
        plain = self._lower.receive(data) if data else b""
        try:
            return self._upper.receive(plain)
        finally:
            self._carry()

    def send(self, data: bytes) -> None:
        """Take plain bytes for the peer."""
        self._upper.send(data)
        self._carry()

    def take_output(self) -> bytes:
        """What the lower layer has for the peer."""
        return self._lower.take_output()

    def shut(self) -> None:
        """Goodbye from above; from below only when the peer's answer is not to be waited for."""
        self._upper.shut()
        self._carry()
        if not self._upper.lingers:
            self._lower.shut()

    def peer(self) -> PeerCertificate | None:
        """What the lower layer proved."""
        return self._lower.peer()

    def encryption(self) -> tuple[str, str] | None:
        """The lower layer's."""
        return self._lower.encryption()

    def _carry(self) -> None:
        output = self._upper.take_output()
        if output:
            self._lower.send(output)
