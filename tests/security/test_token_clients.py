"""Tokens against a running broker: what clients of each version are told, how a connection ends, and a reload of keys."""

from __future__ import annotations

import logging
import os
import re
import time
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest

from edge_broker.broker import Broker
from edge_broker.config.model import Config
from edge_broker.config.security import SecurityConfig
from edge_broker.errors import ConfigError
from edge_broker.security.token_admission import METHOD
from edge_broker.wire import const
from edge_broker.wire.encoder import encode_auth, encode_connect
from edge_broker.wire.packets import Auth, Connack, Connect, Disconnect
from tests.net.hub import Peer
from tests.security.issuer import AUDIENCE, claims, issue, jwk, write_set
from tests.security.serving import connect, is_served, lines, reach, serving

V3, V5 = const.MQTT_3_1_1, const.MQTT_5


def token(name: str = "anna", number: int = 0, lasts: float = 86_400, **said: Any) -> bytes:
    return issue(claims(name, now=time.time(), lasts=lasts, **said), "ES256", number)


def write_keys(folder: Path, *numbers: int) -> Path:
    """The issuer publishes these keys; whoever reads meanwhile sees the old ones or the new."""
    path, new = folder / "issuer.json", folder / "issuer.new"
    write_set(new, *(jwk("ES256", number, kid=f"key-{number}") for number in numbers))
    os.replace(new, path)
    return path


@pytest.fixture
async def broker(tmp_path: Path) -> AsyncIterator[Broker]:
    keys = (write_keys(tmp_path, 0, 1),)
    options: dict[str, Any] = {"jwt_keys": keys, "jwt_audience": AUDIENCE, "jwt_leeway_seconds": 0}
    async with serving(tmp_path, lines("bob", "paper"), **options) as broker:
        yield broker


async def connect_by_method(broker: Broker, data: bytes, client_id: str = "c") -> tuple[Peer, Any]:
    peer = await reach(broker)
    properties = {const.AUTHENTICATION_METHOD: METHOD, const.AUTHENTICATION_DATA: data}
    peer.writer.write(encode_connect(Connect(V5, client_id, True, 0, properties=properties)))
    return peer, await peer.receive()


async def authenticate_anew(peer: Peer, data: bytes) -> Any:
    properties = {const.AUTHENTICATION_METHOD: METHOD, const.AUTHENTICATION_DATA: data}
    peer.writer.write(encode_auth(const.REAUTHENTICATE, properties))
    return await peer.receive()


@pytest.mark.parametrize("version", [const.MQTT_3_1, V3, V5])
async def test_a_token_in_the_passwords_place(broker: Broker, version: int) -> None:
    peer, answer = await connect(broker, "anna", token(), version=version, client_id="c")
    assert answer.reason_code == 0
    assert broker.router.sessions["c"].identity == "anna"
    assert await is_served(peer)


async def test_passwords_go_on_beside(broker: Broker) -> None:
    assert (await connect(broker, "bob", "paper"))[1].reason_code == 0
    assert (await connect(broker, "bob", "pencil"))[1].reason_code == const.BAD_USER_NAME_OR_PASSWORD


@pytest.mark.parametrize(("version", "code"), [(V3, 4), (V5, 0x86)])
@pytest.mark.parametrize(
    ("name", "wrong"),
    [
        ("anna", token(number=99)),
        ("anna", token(lasts=-1)),
        ("anna", token(aud="web")),
        ("anna", token(exp=None)),
        ("bob", token()),
    ],
    ids=["stranger", "expired", "audience", "endless", "other name"],
)
async def test_a_wrong_token(
    broker: Broker, version: int, code: int, name: str, wrong: bytes, caplog: pytest.LogCaptureFixture
) -> None:
    with caplog.at_level(logging.INFO):
        peer, answer = await connect(broker, name, wrong, version=version, client_id="c")
        assert answer.reason_code == code
        assert const.REASON_STRING not in answer.properties
        await peer.ended()
    assert "its token " in caplog.text
    assert wrong.decode() not in caplog.text


async def test_tokens_and_passwords_share_what_guessing_costs(tmp_path: Path) -> None:
    options: dict[str, Any] = {"jwt_keys": (write_keys(tmp_path, 0),), "jwt_audience": AUDIENCE}
    limits = {"wrong_passwords_per_name": 2, "wrong_password_delay_seconds": 0}
    async with serving(tmp_path, lines("anna", "pencil"), **options, **limits) as broker:
        await connect(broker, "anna", token(number=98))
        await connect(broker, "anna", "wrong")
        for proof in (token(), "pencil"):
            assert (await connect(broker, "anna", proof))[1].reason_code == const.BANNED


async def test_tokens_alone(tmp_path: Path) -> None:
    """Without a password file there is no password, and guessing is counted and swept all the same."""
    options: dict[str, Any] = {"jwt_keys": (write_keys(tmp_path, 0),), "jwt_audience": AUDIENCE}
    limits = {"wrong_passwords_per_name": 1, "wrong_password_delay_seconds": 0, "ban_seconds": 1}
    async with serving(tmp_path, None, **options, **limits) as broker:
        assert (await connect(broker, "anna", token()))[1].reason_code == 0
        assert (await connect(broker, "anna", "secret"))[1].reason_code == const.NOT_AUTHORIZED
        await connect(broker, "anna", token(number=98))
        assert (await connect(broker, "anna", token()))[1].reason_code == const.BANNED
        assert broker._tokens is not None
        broker._tokens.guessing.sweep(time.monotonic() + 2)
        assert (await connect(broker, "anna", token()))[1].reason_code == 0


async def test_the_connection_ends_with_its_token(broker: Broker) -> None:
    old, _ = await connect(broker, "anna", token(lasts=3), version=V3, client_id="old")
    peer, answer = await connect(broker, "anna", token(lasts=3), client_id="c")
    assert answer.reason_code == 0
    goodbye = await peer.receive()
    assert isinstance(goodbye, Disconnect)
    assert goodbye.reason_code == const.MAXIMUM_CONNECT_TIME
    await peer.ended()
    await old.ended()
    assert broker.router.counters.refused["maximum_connect_time"] == 2


# ---- the method JWT


async def test_a_newer_token_extends_the_connection(broker: Broker) -> None:
    peer, answer = await connect_by_method(broker, token(lasts=60))
    assert isinstance(answer, Connack)
    assert answer.reason_code == 0
    assert answer.properties[const.AUTHENTICATION_METHOD] == METHOD
    connection = broker.router.sessions["c"].connection
    assert connection is not None
    before = connection.expires_at
    assert before is not None
    again = await authenticate_anew(peer, token(lasts=600))
    assert isinstance(again, Auth)
    assert again.reason_code == const.SUCCESS
    assert connection.expires_at is not None
    assert connection.expires_at > before + 500
    connection.check_idle(before + 1)
    assert await is_served(peer)


@pytest.mark.parametrize(
    "newer",
    [token("bob"), token(lasts=-1), token(number=99), b"nonsense"],
    ids=["other", "old", "forged", "none"],
)
async def test_a_wrong_newer_token_ends_it(broker: Broker, newer: bytes) -> None:
    peer, _ = await connect_by_method(broker, token())
    goodbye = await authenticate_anew(peer, newer)
    assert isinstance(goodbye, Disconnect)
    assert goodbye.reason_code == const.NOT_AUTHORIZED


async def test_the_method_asks_for_a_token_that_did_not_come(broker: Broker) -> None:
    peer, question = await connect_by_method(broker, b"")
    assert isinstance(question, Auth)
    assert question.reason_code == const.CONTINUE_AUTHENTICATION
    properties = {const.AUTHENTICATION_METHOD: METHOD, const.AUTHENTICATION_DATA: token()}
    peer.writer.write(encode_auth(const.CONTINUE_AUTHENTICATION, properties))
    answer = await peer.receive()
    assert (type(answer), answer.reason_code) == (Connack, 0)


async def test_without_keys_the_method_is_not_offered(tmp_path: Path) -> None:
    async with serving(tmp_path, lines("bob", "paper")) as broker:
        _, answer = await connect_by_method(broker, token())
        assert answer.reason_code == const.BAD_AUTHENTICATION_METHOD


# ---- the keys, read again


async def test_a_key_that_is_taken_away(
    broker: Broker, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    gone, _ = await connect(broker, "anna", token(number=0), client_id="gone")
    stays, _ = await connect(broker, "anna", token(number=1), client_id="stays")
    method, _ = await connect_by_method(broker, token(number=0), "method")
    bob, _ = await connect(broker, "bob", "paper", client_id="bob")
    write_keys(tmp_path, 1, 2)
    with caplog.at_level(logging.INFO):
        await broker.reload(broker.config)
    assert "2 keys verify tokens; 2 connections of keys that are gone ended" in caplog.text
    for peer in (gone, method):
        goodbye = await peer.receive()
        assert isinstance(goodbye, Disconnect)
        assert goodbye.reason_code == const.NOT_AUTHORIZED
    for peer in (stays, bob):
        assert await is_served(peer)
    assert (await connect(broker, "anna", token(number=0)))[1].reason_code != 0
    assert (await connect(broker, "anna", token(number=2)))[1].reason_code == 0


@pytest.mark.parametrize("broken", ["", "{", '{"keys": []}'])
async def test_a_broken_key_file_changes_nothing(
    broker: Broker, tmp_path: Path, broken: str, caplog: pytest.LogCaptureFixture
) -> None:
    peer, _ = await connect(broker, "anna", token(), client_id="c")
    (tmp_path / "issuer.json").write_text(broken)
    with caplog.at_level(logging.INFO):
        await broker.reload(broker.config)
    assert re.search(r"keys of tokens: the new file is refused, the old one stays in force: \S+", caplog.text)
    assert await is_served(peer)
    assert (await connect(broker, "anna", token()))[1].reason_code == 0


async def test_a_changed_password_does_not_end_who_came_by_token(broker: Broker, tmp_path: Path) -> None:
    by_token, _ = await connect(broker, "bob", token("bob"), client_id="token")
    by_password, _ = await connect(broker, "bob", "paper", client_id="password")
    (tmp_path / "passwords").write_text(lines("bob", "pencil"))
    await broker.reload(broker.config)
    assert isinstance(await by_password.receive(), Disconnect)
    assert await is_served(by_token)


async def test_a_broken_key_file_at_the_start(tmp_path: Path) -> None:
    (tmp_path / "key.pem").write_text("nothing")
    security = SecurityConfig(jwt_keys=(tmp_path / "key.pem",), jwt_audience=AUDIENCE)
    with pytest.raises(ConfigError, match=r"key\.pem: has no key in it"):
        await Broker(Config(data_dir=tmp_path / "data", security=security)).start()
