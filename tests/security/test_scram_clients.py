"""SCRAM-SHA-256 over MQTT 5 against a running broker, with scramp as the client."""

from __future__ import annotations

from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest

from edge_broker.broker import Broker
from edge_broker.core.ports import Admission, Challenge, Credentials
from edge_broker.security.guessing import Guessing, GuessLimits
from edge_broker.security.passwords import Passwords, User
from edge_broker.security.scram import METHOD, Decoys
from edge_broker.security.scram_admission import ScramAdmission
from edge_broker.wire import const
from edge_broker.wire.encoder import encode_connect
from edge_broker.wire.packets import Auth, Connack, Connect, Disconnect
from tests.security.serving import ScramPeer, argon2_of, is_served, lines, reach, scram_of, serving


@pytest.fixture
async def broker(tmp_path: Path) -> AsyncIterator[Broker]:
    passwords = lines("anna", "pencil") + lines("københavn", "blyant") + f"paper:{argon2_of('pencil').text}\n"
    async with serving(tmp_path, passwords) as broker:
        yield broker


async def scram(broker: Broker, name: str, password: str, **options: Any) -> tuple[ScramPeer, Any]:
    client = ScramPeer(await reach(broker), name, password)
    return client, await client.connect(**options)


@pytest.mark.parametrize("first_in_connect", [True, False])
@pytest.mark.parametrize(("name", "password"), [("anna", "pencil"), ("københavn", "blyant")])
async def test_a_proved_password_is_let_in(
    broker: Broker, name: str, password: str, first_in_connect: bool
) -> None:
    client, answer = await scram(broker, name, password, first_in_connect=first_in_connect)
    assert isinstance(answer, Connack)
    assert answer.reason_code == const.SUCCESS
    assert broker.router.sessions["c"].identity == name
    assert await is_served(client.peer)


@pytest.mark.parametrize(
    ("name", "password"),
    [("anna", "pen"), ("nobody", "pencil"), ("paper", "pencil")],
)
async def test_everybody_else_is_refused_alike(broker: Broker, name: str, password: str) -> None:
    client, answer = await scram(broker, name, password)
    assert isinstance(answer, Connack)
    assert answer.reason_code == const.NOT_AUTHORIZED
    assert const.REASON_STRING not in answer.properties
    await client.peer.ended()
    assert not broker.router.sessions


async def test_authenticating_anew(broker: Broker) -> None:
    client, _ = await scram(broker, "anna", "pencil")
    for _ in range(2):
        answer = await client.authenticate_anew()
        assert isinstance(answer, Auth)
        assert answer.reason_code == const.SUCCESS
    answer = await client.authenticate_anew("pen")
    assert isinstance(answer, Disconnect)
    assert answer.reason_code == const.NOT_AUTHORIZED
    await client.peer.ended()


async def test_a_first_message_that_is_not_scram(broker: Broker) -> None:
    peer = await reach(broker)
    properties = {const.AUTHENTICATION_METHOD: METHOD, const.AUTHENTICATION_DATA: b"\xff\x00"}
    peer.writer.write(encode_connect(Connect(const.MQTT_5, "c", True, 0, properties=properties)))
    answer = await peer.receive()
    assert (type(answer), answer.reason_code) == (Connack, const.NOT_AUTHORIZED)


@pytest.mark.parametrize(
    ("passwords", "method"),
    [("", METHOD), (lines("anna", "pencil"), "SCRAM-SHA-1"), (lines("anna", "p"), "PLAIN")],
)
async def test_a_method_that_is_not_offered(tmp_path: Path, passwords: str, method: str) -> None:
    async with serving(tmp_path, passwords) as broker:
        peer = await reach(broker)
        properties = {const.AUTHENTICATION_METHOD: method}
        peer.writer.write(encode_connect(Connect(const.MQTT_5, "c", True, 0, properties=properties)))
        answer = await peer.receive()
        assert (type(answer), answer.reason_code) == (Connack, const.BAD_AUTHENTICATION_METHOD)


async def test_who_guesses_too_often_is_not_heard_further(tmp_path: Path) -> None:
    async with serving(tmp_path, lines("anna", "pencil"), wrong_passwords_per_name=3) as broker:
        waiting = ScramPeer(await reach(broker), "anna", "pencil")
        for _ in range(3):
            _, answer = await scram(broker, "anna", "pen")
            assert answer.reason_code == const.NOT_AUTHORIZED
        _, answer = await scram(broker, "anna", "pencil")
        assert answer.reason_code == const.NOT_AUTHORIZED
        assert (await waiting.connect("waiting")).reason_code == const.NOT_AUTHORIZED
        assert broker._passwords is not None
        assert broker._passwords.guessing.counters.refused == 2
        await scram(broker, "bob", "pencil")
        assert broker._passwords.guessing.counters.failures == 4, "another name is still looked at"


# ---- one exchange by itself


class Exchange:
    """An exchange with scramp's words, without a broker; `passwords` may be replaced in its course."""

    def __init__(self, certificate_names: tuple[str, ...] = (), per_name: int = 10) -> None:
        import scramp

        self.passwords = Passwords({"anna": User(None, scram_of("pencil"))})
        self.guessing = Guessing(GuessLimits(per_name=per_name), lambda _name: True, lambda: 0.5)
        credentials = Credentials("c", None, None, "192.0.2.1:5", "l", certificate_names)
        self.ours = ScramAdmission(
            credentials, lambda: self.passwords, self.guessing, lambda: 100.0, lambda: "nonce", Decoys(b"s")
        )
        self.client = scramp.ScramClient([METHOD], "anna", "pencil")

    def start(self) -> Challenge | Admission:
        challenge = self.ours.step(self.client.get_client_first().encode())
        if isinstance(challenge, Challenge):
            self.client.set_server_first(challenge.data.decode())
        return challenge

    def finish(self) -> Challenge | Admission:
        return self.ours.step(self.client.get_client_final().encode())


def test_a_certificates_name_stays_the_identity() -> None:
    exchange = Exchange(("sensor-1", "second"))
    exchange.start()
    admission = exchange.finish()
    assert isinstance(admission, Admission)
    assert (admission.reason_code, admission.identity) == (const.SUCCESS, "sensor-1")
    exchange.client.set_server_final(admission.data.decode())


def test_a_password_that_changes_meanwhile_is_a_wrong_one() -> None:
    for users in ({}, {"anna": User(None, scram_of("other"))}, {"anna": User(argon2_of("pencil"))}):
        exchange = Exchange()
        exchange.start()
        exchange.passwords = Passwords(users)
        admission = exchange.finish()
        assert isinstance(admission, Admission)
        assert (admission.reason_code, admission.identity, admission.data) == (const.NOT_AUTHORIZED, "", b"")


def test_a_ban_that_begins_meanwhile_ends_it_before_the_proof() -> None:
    exchange = Exchange(per_name=1)
    exchange.start()
    exchange.guessing.fail("192.0.2.1:9", "anna", None, 99.0)
    admission = exchange.finish()
    assert isinstance(admission, Admission)
    assert (admission.reason_code, "too many" in admission.detail) == (const.NOT_AUTHORIZED, True)


def test_only_the_first_empty_message_asks_for_more() -> None:
    exchange = Exchange()
    assert exchange.ours.step(b"") == Challenge(b"")
    admission = exchange.ours.step(b"")
    assert isinstance(admission, Admission)
    assert admission.reason_code == const.NOT_AUTHORIZED


def test_what_is_no_guess_is_not_counted() -> None:
    exchange = Exchange()
    exchange.start()
    exchange.ours.step(b"nonsense")
    assert exchange.guessing.counters.failures == 0
