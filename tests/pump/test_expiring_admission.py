"""An admission that ends: the connection with it, unless the client authenticates anew in time."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from edge_broker.core.ports import Admission, AuthenticationExchange, Challenge, Credentials
from edge_broker.security.revoking import end_connections, end_unproved
from edge_broker.wire import const
from edge_broker.wire.encoder import encode_auth
from edge_broker.wire.packets import Auth, Connack, Disconnect
from tests.pump.pump import Pump, TestClient

V3, V5 = const.MQTT_3_1_1, const.MQTT_5
METHOD = "SECONDS"


class ForSeconds(AuthenticationExchange):
    """The authentication method SECONDS: anna comes in for as many as the data says, on the proof that it says."""

    def __init__(self, pump: Pump) -> None:
        self._pump = pump

    def step(self, data: bytes) -> Challenge | Admission:
        if not data:
            return Admission(const.NOT_AUTHORIZED, detail="no seconds")
        seconds, _, proof = data.decode().partition(" ")
        return Admission(const.SUCCESS, "anna", expires_at=self._pump.now + float(seconds), proof=proof)


class Door:
    """A password of as many seconds; or the method."""

    def __init__(self, pump: Pump) -> None:
        self._pump = pump

    def authenticate(self, credentials: Credentials, answer: Callable[[Admission], None]) -> None:
        admission = ForSeconds(self._pump).step(credentials.password or b"")
        assert isinstance(admission, Admission)
        answer(admission)

    def begin(self, credentials: Credentials, method: str) -> AuthenticationExchange | None:
        return ForSeconds(self._pump) if method == METHOD else None


@pytest.fixture
def pump() -> Pump:
    made = Pump()
    made.router.authenticator = Door(made)
    return made


def properties(data: str) -> dict[int, object]:
    return {const.AUTHENTICATION_METHOD: METHOD, const.AUTHENTICATION_DATA: data.encode()}


def authenticate_anew(client: TestClient, data: str) -> None:
    client.send(encode_auth(const.REAUTHENTICATE, properties(data)))


@pytest.mark.parametrize("version", [V3, V5])
def test_the_connection_ends_with_it(pump: Pump, version: int) -> None:
    client = TestClient(pump)
    client.connect("c", version=version, username="anna", password=b"30")
    assert client.take(Connack).reason_code == 0
    pump.wait(29)
    assert not client.closed
    pump.wait(1)
    if version == V5:
        assert client.take(Disconnect).reason_code == const.MAXIMUM_CONNECT_TIME
    assert client.closed
    assert pump.router.counters.refused == {"maximum_connect_time": 1}


def test_one_without_an_end_has_none(pump: Pump) -> None:
    client = TestClient(pump)
    client.connect("c", username="anna", password=b"inf")
    pump.wait(10**9)
    assert not client.closed


def test_it_ends_also_before_its_session_is_on_disk(pump: Pump) -> None:
    """CONNACK has not been sent: it becomes one that refuses, with a code that CONNACK has."""
    client = TestClient(pump)
    client.connect("c", username="anna", password=b"5", properties={const.SESSION_EXPIRY_INTERVAL: 600})
    pump.wait(6)
    assert client.take(Connack).reason_code == const.NOT_AUTHORIZED
    assert client.closed


@pytest.mark.parametrize(("seconds", "lasts"), [("100", 110), ("5", 15)])
def test_the_latest_word_counts(pump: Pump, seconds: str, lasts: int) -> None:
    """A newer one extends the connection; one that ends sooner shortens it."""
    client = TestClient(pump)
    client.connect("c", properties=properties("30"))
    client.take(Connack)
    pump.wait(10)
    authenticate_anew(client, seconds)
    assert client.take(Auth).reason_code == const.SUCCESS
    pump.wait(lasts - 11)
    assert not client.closed
    pump.wait(2)
    assert client.take(Disconnect).reason_code == const.MAXIMUM_CONNECT_TIME


def test_a_wrong_one_anew_ends_it(pump: Pump) -> None:
    client = TestClient(pump)
    client.connect("c", properties=properties("30"))
    client.take(Connack)
    authenticate_anew(client, "")
    assert client.take(Disconnect).reason_code == const.NOT_AUTHORIZED


def test_connections_end_by_what_they_rest_on(pump: Pump) -> None:
    first, second, moved = (TestClient(pump) for _ in range(3))
    first.connect("first", properties=properties("30 old"))
    second.connect("second", properties=properties("30 new"))
    moved.connect("moved", properties=properties("30 old"))
    for client in (first, second, moved):
        client.take(Connack)
    authenticate_anew(moved, "30 new")
    moved.take(Auth)
    assert end_unproved(pump.router, {"old", ""}) == 1
    assert end_connections(pump.router, {"anna"}) == 0, "they did not come by password"
    pump.run()
    assert first.take(Disconnect).reason_code == const.NOT_AUTHORIZED
    assert not second.closed
    assert not moved.closed
