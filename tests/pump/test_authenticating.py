"""Enhanced authentication [MQTT 5 section 4.12], with a method that only tests know."""

from __future__ import annotations

import pytest

from edge_broker.wire import const
from edge_broker.wire.encoder import PINGREQ, encode_auth, encode_disconnect
from edge_broker.wire.packets import Auth, Connack, Disconnect
from tests.pump.pump import Pump, TestClient

METHOD = {const.AUTHENTICATION_METHOD: "NAME-FIRST"}


def auth(data: bytes, reason_code: int = const.CONTINUE_AUTHENTICATION, method: str = "NAME-FIRST") -> bytes:
    return encode_auth(reason_code, {const.AUTHENTICATION_METHOD: method, const.AUTHENTICATION_DATA: data})


def asked(pump: Pump, name: bytes = b"anna") -> TestClient:
    """A client that has been asked who says so."""
    client = TestClient(pump)
    client.connect("c", properties=METHOD | {const.AUTHENTICATION_DATA: name})
    challenge = client.take(Auth)
    assert challenge.reason_code == const.CONTINUE_AUTHENTICATION
    assert challenge.properties == METHOD | {const.AUTHENTICATION_DATA: b"who says so?"}
    return client


def admitted(pump: Pump) -> TestClient:
    client = asked(pump)
    client.send(auth(b"anna"))
    connack = client.take(Connack)
    assert connack.reason_code == const.SUCCESS
    assert connack.properties[const.AUTHENTICATION_METHOD] == "NAME-FIRST"
    assert connack.properties[const.AUTHENTICATION_DATA] == b"welcome"
    return client


def test_who_answers_comes_in_as_whom_the_method_says(pump: Pump) -> None:
    admitted(pump)
    assert pump.session("c").identity == "anna"


def test_who_answers_wrong_does_not_and_learns_no_reason(pump: Pump) -> None:
    client = asked(pump)
    client.send(auth(b"otto"))
    connack = client.take(Connack)
    assert connack.reason_code == const.NOT_AUTHORIZED
    assert const.REASON_STRING not in connack.properties
    assert client.closed
    assert "c" not in pump.router.sessions


@pytest.mark.parametrize(
    "data",
    [
        pytest.param(auth(b"anna", method="OTHER"), id="another method"),
        pytest.param(auth(b"anna", const.REAUTHENTICATE), id="anew before CONNACK"),
        pytest.param(auth(b"anna", const.SUCCESS), id="success is the server's to say"),
        pytest.param(encode_auth(const.CONTINUE_AUTHENTICATION), id="without a method"),
        pytest.param(PINGREQ, id="PINGREQ"),
    ],
)
def test_what_may_not_come_meanwhile_ends_the_connection(pump: Pump, data: bytes) -> None:
    client = asked(pump)
    client.send(data)
    assert client.take(Connack).reason_code == const.PROTOCOL_ERROR
    assert client.closed


def test_the_client_may_give_up(pump: Pump) -> None:
    client = asked(pump)
    client.send(encode_disconnect(const.MQTT_5))
    assert client.closed
    assert not client.inbox


def test_silence_meanwhile_is_bounded(pump: Pump) -> None:
    client = asked(pump)
    pump.wait(pump.settings.connect_timeout_seconds + 1)
    assert client.closed


def test_it_authenticates_anew(pump: Pump) -> None:
    client = admitted(pump)
    client.send(auth(b"anna", const.REAUTHENTICATE))
    assert client.take(Auth).reason_code == const.CONTINUE_AUTHENTICATION
    client.ping()  # the connection goes on meanwhile
    client.inbox.clear()
    client.send(auth(b"anna"))
    done = client.take(Auth)
    assert (done.reason_code, done.properties[const.AUTHENTICATION_DATA]) == (const.SUCCESS, b"welcome")
    assert not client.closed


@pytest.mark.parametrize(("name", "answer"), [(b"anna", b"wrong"), (b"otto", b"otto")])
def test_who_fails_to_or_is_somebody_else_is_sent_away(pump: Pump, name: bytes, answer: bytes) -> None:
    client = admitted(pump)
    client.send(auth(name, const.REAUTHENTICATE))
    client.inbox.clear()
    client.send(auth(answer))
    assert client.take(Disconnect).reason_code == const.NOT_AUTHORIZED
    assert client.closed


def test_auth_without_a_method_in_connect_is_a_protocol_error(pump: Pump) -> None:
    client = pump.client("c")
    client.send(auth(b"anna", const.REAUTHENTICATE))
    assert client.take(Disconnect).reason_code == const.PROTOCOL_ERROR
