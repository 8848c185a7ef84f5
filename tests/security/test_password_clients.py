"""Passwords against a running broker: what clients of each version are told, on which listeners, and after a reload."""

from __future__ import annotations

import asyncio
import logging
import re
import ssl
import subprocess
import threading
from collections.abc import AsyncIterator
from datetime import UTC, datetime, timedelta
from pathlib import Path

import aiohttp
import pytest

from edge_broker.broker import Broker
from edge_broker.config.http import HttpConfig
from edge_broker.config.listeners import ListenerConfig
from edge_broker.config.model import Config
from edge_broker.config.security import SecurityConfig
from edge_broker.core.session import Session
from edge_broker.errors import ConfigError
from edge_broker.security.admission import ANONYMOUS
from edge_broker.security.authority import Authority
from edge_broker.wire import const
from edge_broker.wire.encoder import encode_connect
from edge_broker.wire.packets import Connect, Disconnect
from tests.net.hub import Peer, until
from tests.security.serving import ScramPeer, connect, is_served, lines, reach, scram_of, serving
from tests.security.storm import PASSWORD, PasswordBroker, write_passwords

V3, V5 = const.MQTT_3_1_1, const.MQTT_5
USERS = lines("anna", "pencil") + lines("bob", "paper")


@pytest.fixture
async def broker(tmp_path: Path) -> AsyncIterator[Broker]:
    async with serving(tmp_path, USERS) as broker:
        yield broker


def write(broker: Broker, text: str) -> None:
    assert broker.config.security.password_file is not None
    broker.config.security.password_file.write_text(text)


def session_of(broker: Broker, client_id: str) -> Session:
    return broker.router.sessions[client_id]


# ---- what clients are told


@pytest.mark.parametrize("version", [const.MQTT_3_1, V3, V5])
async def test_a_right_password(broker: Broker, version: int) -> None:
    peer, answer = await connect(broker, "anna", "pencil", version=version, client_id="c")
    assert answer.reason_code == 0
    assert session_of(broker, "c").identity == "anna"
    assert await is_served(peer)


@pytest.mark.parametrize(("version", "code"), [(const.MQTT_3_1, 4), (V3, 4), (V5, 0x86)])
@pytest.mark.parametrize("name", ["anna", "nobody"])
async def test_a_wrong_one(broker: Broker, version: int, code: int, name: str) -> None:
    peer, answer = await connect(broker, name, "pen", version=version, client_id="c")
    assert answer.reason_code == code
    assert const.REASON_STRING not in answer.properties
    await peer.ended()
    assert not broker.router.sessions


@pytest.mark.parametrize(("version", "code"), [(V3, 5), (V5, 0x87)])
async def test_nobody(broker: Broker, version: int, code: int) -> None:
    _, answer = await connect(broker, None, None, version=version, client_id="c")
    assert answer.reason_code == code


@pytest.mark.parametrize(("version", "code"), [(V3, 5), (V5, 0x8A)])
async def test_a_guesser(tmp_path: Path, version: int, code: int) -> None:
    async with serving(tmp_path, USERS, wrong_passwords_per_name=2, wrong_password_delay_seconds=0) as broker:
        for password in ("a", "b"):
            await connect(broker, "anna", password)
        _, answer = await connect(broker, "anna", "pencil", version=version, client_id="c")
        assert answer.reason_code == code
        assert broker.router.counters.refused == {"bad_user_name_or_password": 2, "banned": 1}


async def test_a_ban_ends_by_itself(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    async with serving(tmp_path, USERS, wrong_passwords_per_name=1, ban_seconds=1) as broker:
        with caplog.at_level(logging.INFO):
            await connect(broker, "anna", "pen")
            assert broker._passwords is not None
            assert broker._passwords.guessing.banned() == {"name": 1, "address": 0}
            await until(lambda: "'anna' from 127.0.0.1 may try again" in caplog.text)
        assert broker._passwords.guessing.banned() == {"name": 0, "address": 0}
        assert (await connect(broker, "anna", "pencil"))[1].reason_code == 0


@pytest.mark.parametrize(("version", "code"), [(V3, 3), (V5, 0x89)])
async def test_too_many_at_once(tmp_path: Path, version: int, code: int) -> None:
    async with serving(tmp_path, USERS, max_waiting_passwords=1) as broker:
        peers = [await reach(broker, version) for _ in range(20)]
        for number, peer in enumerate(peers):
            peer.writer.write(encode_connect(Connect(version, f"c{number}", True, 0, f"u{number}", b"x")))
        answers = [(await peer.receive()).reason_code for peer in peers]
        assert code in answers
        assert broker._passwords is not None
        assert broker._passwords.verifications.turned_away == answers.count(code)
        assert broker.router.counters.refused["server_busy"] == answers.count(code)


async def test_the_log_knows_why_and_never_the_password(
    broker: Broker, caplog: pytest.LogCaptureFixture
) -> None:
    with caplog.at_level(logging.DEBUG):
        for name in ("anna", "hunter3"):
            peer, _ = await connect(broker, name, "hunter2", client_id=f"c-{len(name)}")
            await peer.ended()
    assert "c-4 from 127.0.0.1" in caplog.text
    assert "a wrong password for 'anna'" in caplog.text
    assert "a user name of nobody" in caplog.text
    assert "hunter" not in caplog.text, "nor what somebody typed into the wrong field"


async def test_an_answer_that_comes_later_is_sent_in_the_same_turn(broker: Broker) -> None:
    called: asyncio.Future[bool] = asyncio.get_running_loop().create_future()
    await until(lambda: not broker.tick_requested)
    broker._call_later(0.0, lambda: called.set_result(broker.tick_requested))
    assert await called


async def test_a_client_that_goes_while_it_is_checked(broker: Broker) -> None:
    peer = await reach(broker)
    peer.writer.write(encode_connect(Connect(V5, "c", True, 0, "anna", b"pencil")))
    peer.close()
    await until(lambda: not broker.connections)
    _, answer = await connect(broker, "anna", "pencil", client_id="c")
    assert answer.reason_code == 0
    assert session_of(broker, "c").claimed_by is not None


async def test_a_broker_stops_while_passwords_are_checked(tmp_path: Path) -> None:
    async with serving(tmp_path, USERS) as broker:
        peers = [await reach(broker) for _ in range(50)]
        for number, peer in enumerate(peers):
            peer.writer.write(encode_connect(Connect(V5, f"c{number}", True, 0, f"u{number}", b"x")))
        await until(lambda: broker._passwords is not None and broker._passwords.verifications.waiting)
    assert not [thread for thread in threading.enumerate() if thread.name.startswith("passwords")]
    for peer in peers:
        await peer.ended()


# ---- which listeners


async def test_listeners_with_and_without(tmp_path: Path) -> None:
    listeners = (
        ListenerConfig(bind="127.0.0.1:0", anonymous=True),
        ListenerConfig(bind="127.0.0.1:0", anonymous=False),
    )
    async with serving(tmp_path, USERS, listeners) as broker:
        for number, name in enumerate((None, "anna", "nobody")):
            _, answer = await connect(broker, name, name and "pen", client_id=f"c{number}", listener=0)
            assert answer.reason_code == 0
            assert session_of(broker, f"c{number}").identity == ANONYMOUS
        _, answer = await connect(broker, None, None, listener=1)
        assert answer.reason_code == const.NOT_AUTHORIZED
        client = ScramPeer(await reach(broker), "anna", "pencil")
        assert (await client.connect("scram")).reason_code == 0
        assert session_of(broker, "scram").identity == "anna"


async def test_one_identity_however_it_was_proved(broker: Broker) -> None:
    """Password today, SCRAM tomorrow: the session is the same one's."""
    first, _ = await connect(broker, "anna", "pencil", client_id="c")
    client = ScramPeer(await reach(broker), "anna", "pencil")
    assert (await client.connect("c")).reason_code == 0
    assert (await first.receive()).reason_code == const.SESSION_TAKEN_OVER
    _, answer = await connect(broker, "bob", "paper", client_id="c")
    assert answer.reason_code == const.CLIENT_IDENTIFIER_NOT_VALID


async def test_a_certificate_wins(tmp_path: Path) -> None:
    """Over a name and a password, right or wrong, over SCRAM, and over what becomes of its name in the password file."""
    now, day = datetime.now(UTC), timedelta(days=1)
    authority = Authority("ours", now, day)
    (tmp_path / "ca.crt").write_bytes(authority.certificate)
    certificate, key = authority.issue("gateway", now, day, hosts=("localhost",)).write(tmp_path, "server")
    shown = authority.issue("anna", now, day).write(tmp_path, "anna")
    listener = ListenerConfig(
        transport="tls",
        bind="127.0.0.1:0",
        anonymous=False,
        certificate=certificate,
        key=key,
        client_ca=tmp_path / "ca.crt",
        require_client_certificate=False,
    )

    def context(with_certificate: bool) -> ssl.SSLContext:
        made = ssl.create_default_context(cafile=str(tmp_path / "ca.crt"))
        if with_certificate:
            made.load_cert_chain(*shown)
        return made

    async with serving(tmp_path, USERS, (listener,)) as broker:

        async def knock(client_id: str, password: bytes, with_certificate: bool) -> tuple[Peer, int]:
            peer = await Peer.open(broker._listeners[0], context(with_certificate))
            answer = await peer.connect(client_id, username="anna", password=password)
            return peer, answer.reason_code

        shows, code = await knock("shows", b"wrong", True)
        assert (code, session_of(broker, "shows").identity) == (0, "anna")
        says, code = await knock("says", b"pencil", False)
        assert (code, session_of(broker, "says").identity) == (0, "anna")
        assert (await knock("lies", b"wrong", False))[1] == const.BAD_USER_NAME_OR_PASSWORD
        both = ScramPeer(await Peer.open(broker._listeners[0], context(True)), "bob", "paper")
        assert (await both.connect("both")).reason_code == 0
        assert session_of(broker, "both").identity == "anna"
        write(broker, lines("carl", "chalk"))
        await broker.reload(broker.config)
        assert isinstance(await says.receive(), Disconnect)
        for peer in (shows, both.peer):
            assert await is_served(peer)


# ---- the password file, at the start and read again


async def test_a_broken_file_at_the_start(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="line 3: has a credential that is neither"):
        async with serving(tmp_path, "# users\n\nanna:plain\n"):
            pytest.fail("it started")
    with pytest.raises(ConfigError, match="edge-broker passwd"):
        await Broker(
            Config(data_dir=tmp_path / "data", security=SecurityConfig(password_file=tmp_path / "nothing"))
        ).start()


async def test_a_new_file(broker: Broker) -> None:
    anna, _ = await connect(broker, "anna", "pencil", client_id="anna")
    bob, _ = await connect(broker, "bob", "paper", client_id="bob")
    bobs_scram = ScramPeer(await reach(broker), "bob", "paper")
    await bobs_scram.connect("bob-2", expiry=600)
    old, _ = await connect(broker, "anna", "pencil", version=V3, client_id="old")
    write(broker, lines("anna", "pencil") + lines("carl", "chalk"))
    await broker.reload(broker.config)
    for peer in (bob, bobs_scram.peer):
        goodbye = await peer.receive()
        assert isinstance(goodbye, Disconnect)
        assert goodbye.reason_code == const.NOT_AUTHORIZED
        await peer.ended()
    for peer in (anna, old):
        assert await is_served(peer)
    assert "bob-2" in broker.router.sessions, "a session outlives its connection"
    assert (await connect(broker, "bob", "paper"))[1].reason_code == const.BAD_USER_NAME_OR_PASSWORD
    assert (await connect(broker, "carl", "chalk"))[1].reason_code == 0
    write(broker, lines("anna", "crayon"))
    await broker.reload(broker.config)
    await old.ended()
    assert (await connect(broker, "anna", "pencil"))[1].reason_code == const.BAD_USER_NAME_OR_PASSWORD
    assert (await connect(broker, "anna", "crayon"))[1].reason_code == 0


async def test_another_kind_of_credential_ends_nobody(tmp_path: Path) -> None:
    only_argon2 = lines("anna", "pencil").split("\n")[0] + "\n"
    async with serving(tmp_path, only_argon2) as broker:
        peer, _ = await connect(broker, "anna", "pencil", client_id="c")
        write(broker, only_argon2 + f"anna:{scram_of('pencil').to_text()}\n")
        await broker.reload(broker.config)
        assert await is_served(peer)
        client = ScramPeer(await reach(broker), "anna", "pencil")
        assert (await client.connect("c2")).reason_code == 0


async def test_a_broken_new_file_is_refused(broker: Broker, caplog: pytest.LogCaptureFixture) -> None:
    peer, _ = await connect(broker, "anna", "pencil", client_id="c")
    write(broker, USERS + "carl:plain\n")
    with caplog.at_level(logging.INFO):
        await broker.reload(broker.config)
    assert re.search(
        r"passwords: the new file is refused, the old one stays.*line 5: has a credential that is neither",
        caplog.text,
    )
    assert await is_served(peer)
    assert (await connect(broker, "bob", "paper"))[1].reason_code == 0


async def test_who_comes_in_while_the_file_is_read_again(broker: Broker) -> None:
    """CONNECT is under way, in the queue or before its CONNACK: nobody gets in by a password that is gone."""
    peers = [await reach(broker) for _ in range(20)]
    for number, peer in enumerate(peers):
        properties = {const.SESSION_EXPIRY_INTERVAL: 600}
        peer.writer.write(
            encode_connect(Connect(V5, f"c{number}", True, 0, "anna", b"pencil", properties=properties))
        )
    await until(lambda: "c0" in broker.router.sessions)
    write(broker, lines("anna", "crayon"))
    await broker.reload(broker.config)
    for peer in peers:
        await peer.ended()
    await until(lambda: not any(session.claimed_by for session in broker.router.sessions.values()))


@pytest.mark.needs("mosquitto_pub")
async def test_a_process_reads_it_again_on_sighup(tmp_path: Path) -> None:
    """And a client that nobody here wrote, against the full cost of a hash."""
    write_passwords(tmp_path, 2)
    broker = PasswordBroker(tmp_path)
    try:
        port = await broker.port()

        async def publish(name: str) -> int:
            command = [
                "mosquitto_pub",
                "-h",
                "127.0.0.1",
                "-p",
                str(port),
                "-u",
                name,
                "-P",
                PASSWORD.decode(),
            ]
            done = await asyncio.to_thread(
                subprocess.run, [*command, "-t", "t", "-m", "m", "-q", "1"], capture_output=True, timeout=60
            )
            return done.returncode

        assert await publish("device-1") == 0
        assert await publish("device-2") != 0
        (tmp_path / "passwords").write_text("device-1")
        broker.reload()
        await broker.wait_until_logged(
            r"passwords: the new file is refused, the old one stays.*line 1: has no colon"
        )
        assert await publish("device-1") == 0
        write_passwords(tmp_path, 1)
        broker.reload()
        await broker.wait_until_logged("1 names have a password; 0 connections")
        assert await publish("device-1") != 0
        assert await publish("device-0") == 0
    finally:
        assert broker.stop() == 0
    assert PASSWORD.decode() not in broker.log


# ---- metrics


async def scrape(config: Config) -> dict[str, float]:
    """The metrics of passwords after two right ones, a wrong one and a ban."""
    broker = Broker(config)
    await broker.start()
    try:
        for name, password in (("anna", "pencil"), ("anna", "pencil"), ("anna", "pen"), ("anna", "pencil")):
            await connect(broker, name, password)
        if broker._passwords is not None:  # what is not easily come by
            broker._passwords.verifications.failed = 5
            broker._passwords.verifications.turned_away = 7
            broker._passwords.guessing.counters.forgotten = 9
        assert broker._http is not None
        async with aiohttp.ClientSession() as web, web.get(broker._http.url + "/metrics") as response:
            text = await response.text()
    finally:
        await broker.stop()
    found = re.findall(r"^edge_broker_(passwords?_\S+) (\S+)$", text, re.MULTILINE)
    return {name: float(value) for name, value in found if not name.endswith("_created")}


@pytest.mark.parametrize("has_file", [True, False])
async def test_metrics(tmp_path: Path, has_file: bool) -> None:
    file = tmp_path / "passwords"
    file.write_text(USERS)
    security = SecurityConfig(
        password_file=file if has_file else None, wrong_passwords_per_name=1, wrong_password_delay_seconds=0
    )
    listener = ListenerConfig(bind="127.0.0.1:0", anonymous=not has_file)
    values = await scrape(
        Config(
            data_dir=tmp_path / "data",
            listeners=(listener,),
            security=security,
            http=HttpConfig(bind="127.0.0.1:0"),
        )
    )
    expected = {
        "password_checks_total": 2,
        "password_cache_hits_total": 1,
        "password_failures_total": 1,
        "password_checks_failed_total": 5,
        "password_checks_turned_away_total": 7,
        "passwords_waiting": 0,
        "password_ban_refusals_total": 1,
        "password_guesses_forgotten_total": 9,
        'password_bans{kind="name"}': 1,
        'password_bans{kind="address"}': 0,
        'password_bans_total{kind="name"}': 1,
        'password_bans_total{kind="address"}': 0,
    }
    assert values == (expected if has_file else dict.fromkeys(expected, 0))
