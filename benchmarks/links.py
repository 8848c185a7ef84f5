"""Connections of the load generator, and the one epoll loop that serves them.

A `Link` is opened with blocking calls (CONNECT, SUBSCRIBE) and then joins a `Loop`, which makes it non-blocking.
Bytes that a socket does not take are kept and sent when it does; a partial packet waits for its rest.
"""

import contextlib
import select
import socket
import ssl
import time
from collections.abc import Callable

from benchmarks import wire
from benchmarks.wire import BrokerMisbehaved

Address = tuple[str, int]

RECEIVE_BYTES = 65_536
SETUP_TIMEOUT_SECONDS = 20.0
SILENCE_TIMEOUT_SECONDS = 15.0
KEEP_ALIVE_SECONDS = 600  # longer than any run: no PINGREQ disturbs a measurement


def _nobody(data: bytes) -> None:
    raise AssertionError("a link that is in no loop received something")


class Link:
    """One MQTT connection; `connack` says what the broker answered to CONNECT."""

    def __init__(
        self,
        address: Address,
        client_id: str,
        version: int,
        *,
        clean: bool = True,
        tls: ssl.SSLContext | None = None,
    ) -> None:
        plain = socket.create_connection(address, SETUP_TIMEOUT_SECONDS)
        plain.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self.socket = tls.wrap_socket(plain, server_hostname=address[0]) if tls else plain
        self.fd = self.socket.fileno()
        self.version = version
        self.received: Callable[[bytes], None] = _nobody
        self._rest = b""
        self._unsent = bytearray()
        self._epoll: select.epoll | None = None
        connect = wire.connect(client_id, version, clean, KEEP_ALIVE_SECONDS)
        self.connack = wire.decode_connack(self.exchange(connect), version)
        if self.connack.reason_code:
            raise BrokerMisbehaved(f"CONNECT was refused with code {self.connack.reason_code:#04x}")

    def exchange(self, packet: bytes) -> bytes:
        """Send one packet and wait for the next one to come; only before the link joins a loop."""
        self.socket.sendall(packet)
        while (size := wire.first_packet_size(self._rest)) is None:
            data = self.socket.recv(RECEIVE_BYTES)
            if not data:
                raise BrokerMisbehaved("the broker closed the connection instead of answering")
            self._rest += data
        answer, self._rest = self._rest[:size], self._rest[size:]
        return answer

    def subscribe(self, topic_filters: list[str], qos: int) -> None:
        answer = self.exchange(wire.subscribe(1, topic_filters, qos, self.version))
        granted = wire.decode_suback(answer, self.version)
        if granted != bytes([qos]) * len(topic_filters):
            raise BrokerMisbehaved(f"asked for QoS {qos}, granted {granted.hex(' ')}")

    def join(self, epoll: select.epoll) -> None:
        self.socket.setblocking(False)
        self._epoll = epoll
        epoll.register(self.fd, select.EPOLLIN)

    def take_early_bytes(self) -> bytes:
        """What came with the answer to `exchange` and is still unparsed."""
        early, self._rest = self._rest, b""
        return early

    def receive(self) -> bytes:
        """What is there to parse: the rest of last time, and what the socket has."""
        try:
            data = self.socket.recv(RECEIVE_BYTES)
        except BlockingIOError:
            return b""
        if not data:
            raise BrokerMisbehaved("the broker closed a connection in the middle of the run")
        if self._rest:
            data = self._rest + data
            self._rest = b""
        return data

    def keep(self, rest: bytes) -> None:
        self._rest = rest

    def send(self, data: bytes | memoryview) -> None:
        if self._unsent:
            self._unsent += data
            return
        try:
            sent = self.socket.send(data)
        except BlockingIOError:
            sent = 0
        if sent < len(data):
            self._unsent += data[sent:]
            self._watch(select.EPOLLIN | select.EPOLLOUT)

    def send_rest(self) -> None:
        """The socket is writable again."""
        try:
            sent = self.socket.send(self._unsent)
        except BlockingIOError:
            return
        del self._unsent[:sent]
        if not self._unsent:
            self._watch(select.EPOLLIN)

    def _watch(self, events: int) -> None:
        assert self._epoll is not None, "a link sends through a loop"
        self._epoll.modify(self.fd, events)

    def leave(self) -> None:
        """Leave the loop: blocking calls are possible again."""
        if self._epoll is not None:
            self._epoll.unregister(self.fd)
            self._epoll = None
        self.socket.settimeout(SETUP_TIMEOUT_SECONDS)

    def part(self) -> None:
        """Send DISCONNECT and wait until the broker closes: from then on, it knows that this client is offline."""
        self.leave()
        self.socket.sendall(wire.DISCONNECT_PACKET)
        while self.socket.recv(RECEIVE_BYTES):
            pass
        self.socket.close()

    def close(self, *, politely: bool = True) -> None:
        """Close at once, after a DISCONNECT where the socket takes it and nothing unsent is in its way."""
        self.leave()
        self.socket.setblocking(False)
        try:
            if politely and not self._unsent:
                self.socket.send(wire.DISCONNECT_PACKET)
        except OSError:
            pass  # the broker closed first, or reads no more: there is nobody to tell
        finally:
            self.socket.close()


class TlsLink(Link):
    """The same over TLS, in the one cipher that is compared. In a loop it reads all that the library has decrypted."""

    CIPHER = ("TLS_AES_256_GCM_SHA384", "TLSv1.3")

    def __init__(self, address: Address, client_id: str, version: int, *, tls: ssl.SSLContext) -> None:
        super().__init__(address, client_id, version, tls=tls)
        assert isinstance(self.socket, ssl.SSLSocket)
        cipher = self.socket.cipher()
        if cipher is None or cipher[:2] != self.CIPHER:
            raise BrokerMisbehaved(f"the broker chose {cipher}, which cannot be compared")

    def receive(self) -> bytes:
        pieces = [self._rest] if self._rest else []
        self._rest = b""
        while True:
            try:
                data = self.socket.recv(RECEIVE_BYTES)
            except ssl.SSLWantReadError:
                break
            if not data:
                raise BrokerMisbehaved("the broker closed a connection in the middle of the run")
            pieces.append(data)
            if len(data) < RECEIVE_BYTES and not self.socket.pending():  # type: ignore[attr-defined]
                break
        return b"".join(pieces)

    def send(self, data: bytes | memoryview) -> None:
        try:
            super().send(data)
        except ssl.SSLWantWriteError:
            self._unsent += data
            self._watch(select.EPOLLIN | select.EPOLLOUT)

    def send_rest(self) -> None:
        with contextlib.suppress(ssl.SSLWantWriteError):
            super().send_rest()


class Loop:
    """Waits for sockets and hands each one's bytes to `link.received`."""

    def __init__(self) -> None:
        self.epoll = select.epoll()
        self._links: dict[int, Link] = {}

    def add(self, link: Link, received: Callable[[bytes], None]) -> None:
        link.received = received
        link.join(self.epoll)
        self._links[link.fd] = link
        early = link.take_early_bytes()
        if early:
            received(early)

    def turn(self, timeout_seconds: float) -> int:
        """Serve every socket that is ready, once; how many were."""
        events = self.epoll.poll(timeout_seconds, 1024)
        for fd, event in events:
            self.serve(fd, event)
        return len(events)

    def serve(self, fd: int, event: int) -> None:
        link = self._links[fd]
        if event & select.EPOLLOUT:
            link.send_rest()
        if event & ~select.EPOLLOUT:
            data = link.receive()
            if data:
                link.received(data)

    def turn_until(self, done: Callable[[], bool], what: str) -> None:
        """Turn until `done`; silence from every socket for too long is the broker's fault."""
        quiet_since = time.monotonic()
        while not done():
            if self.turn(0.2):
                quiet_since = time.monotonic()
            elif time.monotonic() - quiet_since > SILENCE_TIMEOUT_SECONDS:
                raise BrokerMisbehaved(f"silence for {SILENCE_TIMEOUT_SECONDS:g} s while waiting for {what}")

    def close(self) -> None:
        for link in self._links.values():
            link.close()
        self._links.clear()
        self.epoll.close()
