"""A real broker with a password file, in this process, and a client that says exactly what a test wants it to say."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from functools import cache
from pathlib import Path
from typing import Any

import scramp

from edge_broker.broker import Broker
from edge_broker.config.listeners import ListenerConfig
from edge_broker.config.model import Config
from edge_broker.config.security import SecurityConfig
from edge_broker.config.store import StoreConfig
from edge_broker.security.hashing import Argon2Cost, Argon2Hash
from edge_broker.security.scram import LEAST_ITERATIONS, METHOD, ScramVerifier
from edge_broker.wire import const
from edge_broker.wire.encoder import PINGREQ, encode_auth, encode_connect
from edge_broker.wire.packets import Auth, Connack, Connect, Ping
from tests.net.hub import Peer
from tests.secrets import LEAST_LENGTH, secret

CHEAP = Argon2Cost(7_168, 1)
"""The least that a password file may have: tests wait for many."""


_COMMON = ("secret", "password")


def keep_secret(password: str | bytes) -> None:
    """No log may have it, unless it is so short or so common that any log has it."""
    text = password.decode(errors="replace") if isinstance(password, bytes) else password
    if len(text) >= LEAST_LENGTH and text not in _COMMON:
        secret(text)


@cache
def argon2_of(password: str) -> Argon2Hash:
    keep_secret(password)
    return Argon2Hash.from_password(password, CHEAP)


@cache
def scram_of(password: str) -> ScramVerifier:
    keep_secret(password)
    return ScramVerifier.from_password(password, iterations=LEAST_ITERATIONS)


def lines(name: str, password: str) -> str:
    """Both lines of one name."""
    return f"{name}:{argon2_of(password).text}\n{name}:{scram_of(password).to_text()}\n"


@asynccontextmanager
async def serving(
    directory: Path,
    passwords: str | None,
    listeners: Sequence[ListenerConfig] = (ListenerConfig(bind="127.0.0.1:0", anonymous=False),),
    **security: Any,
) -> AsyncIterator[Broker]:
    """A broker whose password file, `directory`/passwords, says `passwords`; None: it has none."""
    if passwords is not None:
        file = directory / "passwords"
        file.write_text(passwords)
        file.chmod(0o600)
        security["password_file"] = file
    config = Config(
        data_dir=directory / "data",
        listeners=tuple(listeners),
        security=SecurityConfig(**security),
        store=StoreConfig(commit_delay_ms=1),
    )
    broker = Broker(config)
    await broker.start()
    try:
        yield broker
    finally:
        await broker.stop()


async def reach(broker: Broker, version: int = const.MQTT_5, listener: int = 0) -> Peer:
    """A connection to one of its listeners, without a word."""
    port = int(broker.listening[listener].rsplit(":", 1)[1])
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    return Peer(reader, writer, version)


async def connect(
    broker: Broker,
    name: str | None,
    password: str | bytes | None,
    *,
    version: int = const.MQTT_5,
    client_id: str = "",
    listener: int = 0,
) -> tuple[Peer, Connack]:
    """CONNECT with user name and password, and the answer."""
    keep_secret(password or b"")
    peer = await reach(broker, version, listener)
    secret = password.encode() if isinstance(password, str) else password
    peer.writer.write(encode_connect(Connect(version, client_id, True, 0, name, secret)))
    answer = await peer.receive()
    assert isinstance(answer, Connack)
    return peer, answer


async def is_served(peer: Peer) -> bool:
    """Whether the connection stands: it pings, and the next that comes is the answer."""
    peer.writer.write(PINGREQ)
    answer = await peer.receive()
    return isinstance(answer, Ping) and answer.packet_type == const.PINGRESP


class ScramPeer:
    """scramp, a client that nobody here wrote, over AUTH packets."""

    def __init__(self, peer: Peer, name: str, password: str) -> None:
        self.peer = peer
        keep_secret(password)
        self._name, self._password = name, password
        self._begin()

    def _begin(self) -> None:
        self._client = scramp.ScramClient([METHOD], self._name, self._password)

    async def connect(self, client_id: str = "c", *, first_in_connect: bool = True, expiry: int = 0) -> Any:
        """CONNECT and everything up to the answer."""
        first = self._client.get_client_first().encode()
        properties: dict[int, Any] = {const.AUTHENTICATION_METHOD: METHOD}
        if expiry:
            properties[const.SESSION_EXPIRY_INTERVAL] = expiry
        if first_in_connect:
            properties[const.AUTHENTICATION_DATA] = first
        self.peer.writer.write(
            encode_connect(Connect(const.MQTT_5, client_id, True, 0, properties=properties))
        )
        if not first_in_connect:
            asked = await self.peer.receive()
            assert isinstance(asked, Auth)
            assert asked.reason_code == const.CONTINUE_AUTHENTICATION
            assert const.AUTHENTICATION_DATA not in asked.properties
            self._send(const.CONTINUE_AUTHENTICATION, first)
        return await self._finish()

    async def authenticate_anew(self, password: str | None = None) -> Any:
        """AUTH once more, with another password if there is one, up to the answer."""
        self._password = password or self._password
        self._begin()
        self._send(const.REAUTHENTICATE, self._client.get_client_first().encode())
        return await self._finish()

    def _send(self, reason_code: int, data: bytes) -> None:
        properties = {const.AUTHENTICATION_METHOD: METHOD, const.AUTHENTICATION_DATA: data}
        self.peer.writer.write(encode_auth(reason_code, properties))

    async def _finish(self) -> Any:
        """From the server's first message on; the server's signature is checked where it comes."""
        challenge = await self.peer.receive()
        if not isinstance(challenge, Auth) or challenge.reason_code != const.CONTINUE_AUTHENTICATION:
            return challenge
        self._client.set_server_first(challenge.properties[const.AUTHENTICATION_DATA].decode())
        self._send(const.CONTINUE_AUTHENTICATION, self._client.get_client_final().encode())
        answer = await self.peer.receive()
        if answer.reason_code == const.SUCCESS:
            assert answer.properties[const.AUTHENTICATION_METHOD] == METHOD
            self._client.set_server_final(answer.properties[const.AUTHENTICATION_DATA].decode())
        return answer
