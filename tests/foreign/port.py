"""What the script asks of a client: connect, publish, give what came, leave, vanish.

Small enough that a command line, a library with callbacks and a process in another language all fit behind it. What a
client cannot do is in its `left_out`, with the reason; the tests take the matrix from there, so nothing is missing
without one.
"""

from __future__ import annotations

import asyncio
import os
import socket
import ssl
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar, Final, Protocol

HOST: Final = "127.0.0.1"
WEBSOCKET_PATH: Final = "/mqtt"
VERSIONS: Final = ("3.1", "3.1.1", "5.0")
TRANSPORTS: Final = ("tcp", "tls", "ws", "wss")
SESSION_PRESENT: Final = "session present"
SESSION_EXPIRY_SECONDS: Final = 3600  # of a durable session in 5.0; a script ends long before
WAIT_SECONDS: Final = 5.0  # for any one thing that must come


@dataclass(frozen=True, slots=True)
class Message:
    """A message, sent or received. The last two travel in 5.0 only."""

    topic: str
    payload: bytes
    qos: int = 0
    retain: bool = False
    response_topic: str = ""
    correlation: bytes = b""


@dataclass(frozen=True, slots=True)
class Wish:
    """How to connect. A session that is not `durable` starts clean and ends with its connection.

    `filters` are subscribed to with `qos` once connected; without any, the connection publishes, or a durable session
    goes on with the subscriptions it has. The identifier is short enough for 3.1.
    """

    client_id: str
    filters: tuple[str, ...] = ()
    qos: int = 1
    durable: bool = False
    will: Message | None = None


@dataclass(frozen=True, slots=True)
class Endpoint:
    """Where the broker listens, and how to speak to it. `ca`: the PEM file to trust."""

    version: str
    transport: str
    port: int
    ca: Path

    @property
    def secure(self) -> bool:
        return self.transport in ("tls", "wss")

    @property
    def websocket(self) -> bool:
        return self.transport in ("ws", "wss")

    def url(self, tcp: str, tls: str) -> str:
        """The address, with the client's own names for the schemes of MQTT without WebSocket."""
        scheme = {"tcp": tcp, "tls": tls}.get(self.transport, self.transport)
        return f"{scheme}://{HOST}:{self.port}{WEBSOCKET_PATH if self.websocket else ''}"

    def context(self) -> ssl.SSLContext | None:
        """A TLS context that trusts `ca` only and checks the host; None where there is no TLS."""
        return ssl.create_default_context(cafile=str(self.ca)) if self.secure else None


class Connection(Protocol):
    """One connection. `session_present` is None where the client does not show that flag."""

    session_present: bool | None

    async def publish(self, message: Message) -> None:
        """Publish, and return once it is acknowledged, or sent where the QoS knows no acknowledgement."""

    async def leave(self) -> None:
        """DISCONNECT, and the end of the connection."""

    async def vanish(self) -> None:
        """The end of the connection without DISCONNECT."""


class ForeignClient(Protocol):
    """A kind of client, made for one cell of the matrix.

    `left_out`: a version, a transport, a step of the script or `SESSION_PRESENT`, and why it is left out.
    `needs`: programs that must be installed. `fixtures`: pytest fixtures to set up first.
    """

    name: ClassVar[str]
    left_out: ClassVar[Mapping[str, str]] = {}
    needs: ClassVar[tuple[str, ...]] = ()
    fixtures: ClassVar[tuple[str, ...]] = ()
    endpoint: Endpoint

    def __init__(self, endpoint: Endpoint) -> None:
        self.endpoint = endpoint

    async def connect(self, wish: Wish, inbox: asyncio.Queue[Message]) -> Connection:
        """Connect, and subscribe at the QoS wished for; whatever comes goes to `inbox`, in order."""
        raise NotImplementedError

    async def request(self, message: Message, client_id: str) -> bytes:
        """Publish with a response topic and give the payload that comes there; through `connect` unless better can."""
        inbox: asyncio.Queue[Message] = asyncio.Queue()
        connection = await self.connect(Wish(client_id, (message.response_topic,)), inbox)
        await connection.publish(message)
        response = await inbox.get()
        await connection.leave()
        assert response.topic == message.response_topic
        return response.payload

    async def close(self) -> None:
        """End what the client keeps running beside its connections."""


def cut(descriptor: int) -> None:
    """Shut a socket down under whatever wraps it, so that no last word is said."""
    with socket.socket(fileno=os.dup(descriptor)) as raw:
        raw.shutdown(socket.SHUT_RDWR)
