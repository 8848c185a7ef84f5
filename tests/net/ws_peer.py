"""A `Peer` that speaks MQTT over WebSocket, by hand: what it sends is bytes, so that frames can be anything."""

from __future__ import annotations

import asyncio
import ssl
from typing import Any

from edge_broker.net.listeners import Listener
from edge_broker.wire import const
from edge_broker.wire.encoder import encode_connect
from edge_broker.wire.packets import Connack, Connect
from tests.net.frames import BINARY, CLOSE, ServerFrames, frame, upgrade
from tests.net.hub import WAIT_SECONDS, Peer


class WebSocketPeer:
    """A client on a real socket. `controls`: the control frames that came, as (opcode, payload)."""

    def __init__(self, peer: Peer) -> None:
        self._peer = peer
        self._frames = ServerFrames()
        self.writer = peer.writer
        self.controls: list[tuple[int, bytes]] = []

    @classmethod
    async def open(cls, listener: Listener, context: ssl.SSLContext | None = None) -> WebSocketPeer:
        """Connected and upgraded."""
        peer = cls(await Peer.open(listener, context))
        peer.writer.write(upgrade())
        assert (await peer.head()).startswith("HTTP/1.1 101 ")
        return peer

    async def head(self) -> str:
        """The head of the HTTP answer."""
        async with asyncio.timeout(WAIT_SECONDS):
            return (await self._peer.reader.readuntil(b"\r\n\r\n")).decode()

    async def connect(self, client_id: str, **options: Any) -> Connack:
        """CONNECT in a frame, and the answer."""
        self.send(encode_connect(Connect(const.MQTT_5, client_id, True, 0, **options)))
        connack = await self.receive()
        assert isinstance(connack, Connack)
        return connack

    def send(self, data: bytes) -> None:
        """MQTT in one frame."""
        self.writer.write(frame(data))

    async def receive(self) -> Any:
        """The next MQTT packet; `EOFError` where the connection has ended, or a close frame came."""
        while (packet := self._peer.decoder.next_packet()) is None:
            if any(opcode == CLOSE for opcode, _ in self.controls):
                raise EOFError
            await self._read()
        return packet

    async def receive_control(self) -> tuple[int, bytes]:
        """The next control frame."""
        while not self.controls:
            await self._read()
        return self.controls.pop(0)

    async def ended(self) -> None:
        """Wait until the other side has closed the connection."""
        await self._peer.ended()

    async def _read(self) -> None:
        async with asyncio.timeout(WAIT_SECONDS):
            data = await self._peer.reader.read(1 << 16)
        if not data:
            raise EOFError
        for opcode, payload in self._frames.take(data):
            if opcode == BINARY:
                self._peer.decoder.feed(payload)
            else:
                self.controls.append((opcode, payload))
