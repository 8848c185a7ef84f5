"""What listeners and transports need around them, without a broker: a router, a tick, commits into dicts.

`Peer` is the other end of a real socket: it sends bytes and waits for packets.
"""

from __future__ import annotations

import asyncio
import dataclasses
import socket
import ssl
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

from edge_broker.core.connection import Connection
from edge_broker.net.endpoints import TcpEndpoint
from edge_broker.net.listeners import Listener
from edge_broker.security.certificates import CertificateVetting, Demands
from edge_broker.security.denied import Denied, DenyList
from edge_broker.wire import const
from edge_broker.wire.decoder import Decoder
from edge_broker.wire.encoder import encode_connect
from edge_broker.wire.packets import Connack, Connect
from edge_broker.wire.topics import TopicCache
from tests.pump.pump import Pump

WAIT_SECONDS = 20.0


class LocalHub:
    """A `Hub` that commits what is pending at every tick, while `disk_works`."""

    def __init__(self, **limits: Any) -> None:
        self.max_connections: int = limits.pop("max_connections", 100)
        self.pump = Pump(**limits)
        self.router = self.pump.router
        self.connections: set[Connection] = set()
        self.tick_requested = False
        self.disk_works = True
        self.longest_turn_seconds = 0.0

    def request_tick(self) -> None:
        if not self.tick_requested:
            self.tick_requested = True
            self.router.now = time.monotonic()
            asyncio.get_running_loop().call_soon(self._tick)

    def _tick(self) -> None:
        self.tick_requested = False
        while self.disk_works and not self.router.pending.empty:
            sealed = self.router.pending.seal()
            self.pump.store.apply(sealed.batch)
            sealed.settle()
            self.router.on_settled()
        dirty, self.router.dirty = self.router.dirty, []
        for connection in dirty:
            connection.flush()

    @property
    def refused(self) -> dict[str, int]:
        return self.router.counters.refused

    async def listen(self, **options: Any) -> Listener:
        """`identity_from` and the other `Demands` beside what `Listener` takes."""
        names = {field.name for field in dataclasses.fields(Demands)} - {"client_ca"}
        chosen = {name: options.pop(name) for name in names & options.keys()}
        if "client_ca" in options:
            demands = Demands(Path(options["client_ca"]), **chosen)
            deny_list = options.pop("deny_list", None) or DenyList(Denied())
            options["read_vetting"] = partial(CertificateVetting, demands, deny_list)
            options["crls"] = [str(path) for path in demands.strict_crls]
        listener = Listener(self, options.pop("endpoint", None) or TcpEndpoint("127.0.0.1", 0), **options)
        await listener.start()
        return listener


class Peer:
    """A client on a real socket."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter, version: int) -> None:
        self.reader, self.writer = reader, writer
        self.decoder = Decoder(TopicCache(), const.MAX_REMAINING_LENGTH, version=version, from_server=True)

    @classmethod
    async def open(
        cls, listener: Listener, context: ssl.SSLContext | None = None, version: int = const.MQTT_5
    ) -> Peer:
        host, _, port = listener.name.rpartition(":")
        sock = socket.socket()
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 256 << 10)  # not more that lies in the kernel
        sock.setblocking(False)
        await asyncio.get_running_loop().sock_connect(sock, (host, int(port)))
        server_name = "localhost" if context is not None else None
        reader, writer = await asyncio.open_connection(
            sock=sock, ssl=context, server_hostname=server_name, limit=1 << 24
        )
        return cls(reader, writer, version)

    async def connect(self, client_id: str, **options: Any) -> Connack:
        """CONNECT, and the answer."""
        self.writer.write(encode_connect(Connect(const.MQTT_5, client_id, True, 0, **options)))
        connack = await self.receive()
        assert isinstance(connack, Connack)
        return connack

    async def receive(self) -> Any:
        """The next packet; `EOFError` where the connection has ended."""
        async with asyncio.timeout(WAIT_SECONDS):
            while (packet := self.decoder.next_packet()) is None:
                data = await self.reader.read(1 << 16)
                if not data:
                    raise EOFError
                self.decoder.feed(data)
        return packet

    async def ended(self) -> None:
        """Wait until the other side has closed, whatever it sends before."""
        async with asyncio.timeout(WAIT_SECONDS):
            try:
                while await self.reader.read(1 << 16):
                    pass
            except (ConnectionError, ssl.SSLError):
                pass

    def stop_reading(self) -> None:
        """As a client with a stuck program behind its socket."""
        self.writer.transport.pause_reading()  # type: ignore[attr-defined]

    def read_again(self) -> None:
        self.writer.transport.resume_reading()  # type: ignore[attr-defined]

    def close(self) -> None:
        self.writer.close()


async def until(condition: Callable[[], object], what: str = "") -> None:
    """Wait for `condition`."""
    deadline = time.monotonic() + WAIT_SECONDS
    while not condition():
        assert time.monotonic() < deadline, what or "in vain"
        await asyncio.sleep(0.001)
