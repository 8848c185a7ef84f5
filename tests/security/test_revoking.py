"""Whose connections end when passwords change; the core in memory, so that nothing depends on when the disk is done."""

from __future__ import annotations

from edge_broker.security.revoking import end_connections
from edge_broker.wire import const
from edge_broker.wire.packets import Connack, Disconnect
from tests.pump.pump import Pump, TestClient


def end(pump: Pump, *names: str) -> int:
    ended = end_connections(pump.router, frozenset(names))
    pump.run()
    return ended


def test_those_of_the_names_and_nobody_else() -> None:
    pump = Pump()
    anna, bob = pump.client("a", username="anna"), pump.client("b", username="bob")
    older = pump.client("c", username="anna", version=const.MQTT_3_1_1)
    assert end(pump, "anna", "carl") == 2
    assert anna.take(Disconnect).reason_code == const.NOT_AUTHORIZED
    assert (anna.closed, older.closed, bob.closed) == (True, True, False)
    assert not older.inbox
    assert end(pump, "anna") == 0


def test_a_session_outlives_it() -> None:
    pump = Pump()
    pump.client("a", username="anna", expiry=3600)
    assert end(pump, "anna") == 1
    pump.commit()
    assert pump.session("a").claimed_by is None


def test_a_client_that_still_waits_for_its_connack() -> None:
    pump = Pump()
    client = TestClient(pump)
    client.connect("a", username="anna", expiry=3600)
    assert not client.inbox, "its session is not on disk yet"
    assert end(pump, "anna") == 1
    assert client.take(Connack).reason_code == const.NOT_AUTHORIZED
    pump.commit()
    assert client.closed
    assert not client.inbox
    assert pump.session("a").connection is None


def test_who_came_by_certificate_stays() -> None:
    pump = Pump()
    client = TestClient(pump)
    client.connection.certificate_names = ("anna",)
    client.connect("a", username="anna")
    assert client.take(Connack).reason_code == const.SUCCESS
    assert end(pump, "anna") == 0
    assert not client.closed


def test_who_is_away_has_no_connection_to_end() -> None:
    pump = Pump()
    pump.client("a", username="anna", expiry=3600).disconnect()
    pump.commit()
    assert end(pump, "anna") == 0
