"""Somebody else's session as an attack: to take it over, to end it, to read its queue, to speak with its last word."""

from __future__ import annotations

import pytest

from edge_broker.wire import const
from edge_broker.wire.packets import Connack, Disconnect, Publish, Will
from tests.pump.pump import Pump, TestClient
from tests.security.rules import OWN_TOPICS

IDENTITIES = [
    ("anna", "mallory"),
    ("anna", None),
    (None, "mallory"),
    ("anna", "Anna"),
    ("anna", "anna\u200b"),
]


@pytest.fixture
def pump() -> Pump:
    return Pump()


def attack(pump: Pump, client_id: str, username: str | None, **options: object) -> int:
    """CONNECT as `username`, and the answer."""
    attacker = TestClient(pump)
    attacker.connect(client_id, username=username, **options)  # type: ignore[arg-type]
    pump.commit()
    code: int = attacker.take(Connack).reason_code
    assert code == const.SUCCESS or (attacker.closed and not attacker.inbox)
    return code


@pytest.mark.parametrize(("owner", "attacker"), IDENTITIES)
@pytest.mark.parametrize("clean", [True, False])
@pytest.mark.parametrize("online", [True, False])
@pytest.mark.parametrize("version", [const.MQTT_5, const.MQTT_3_1_1, const.MQTT_3_1])
def test_another_identity_gets_nothing_of_a_session(
    pump: Pump, owner: str | None, attacker: str | None, clean: bool, online: bool, version: int
) -> None:
    """Neither its queue, nor its subscriptions, nor its end, whether its owner is there or not."""
    victim = pump.client("door", username=owner, expiry=600, clean=False).subscribed("a/#", 1)
    if not online:
        victim.vanish()
    pump.client("publisher", username="publisher").publish("a/b", b"hers", 1)
    pump.commit()
    code = attack(pump, "door", attacker, clean=clean, version=version)
    refused = {const.MQTT_5: const.CLIENT_IDENTIFIER_NOT_VALID}.get(version, 2)
    assert code == refused
    session = pump.session("door")
    assert session.identity == (owner or "anonymous")
    assert list(session.subscriptions) == ["a/#"]
    if online:
        assert not victim.closed
        assert victim.take_and_ack() == [b"hers"]
    else:
        again = pump.client("door", username=owner, expiry=600, clean=False)
        assert again.take_and_ack() == [b"hers"]


def test_nor_while_its_owner_waits_to_be_let_in(pump: Pump) -> None:
    victim = TestClient(pump)
    victim.connect("door", username="anna", expiry=600)
    assert victim.inbox == [], "the session is not on disk yet"
    mallory = TestClient(pump)
    mallory.connect("door", username="mallory")
    assert mallory.take(Connack).reason_code == const.CLIENT_IDENTIFIER_NOT_VALID
    pump.commit()
    assert victim.take(Connack).reason_code == const.SUCCESS


def test_nor_after_a_restart(pump: Pump) -> None:
    pump.client("door", username="anna", expiry=600).subscribed("a/#", 1)
    pump.crash()
    assert attack(pump, "door", "mallory") == const.CLIENT_IDENTIFIER_NOT_VALID
    assert attack(pump, "door", None) == const.CLIENT_IDENTIFIER_NOT_VALID
    assert list(pump.session("door").subscriptions) == ["a/#"]


def test_a_wrong_password_takes_nothing_over(pump: Pump) -> None:
    """Who may come in is decided before anybody has to go."""
    victim = pump.client("door", username="anna", expiry=600, will=Will("alarm", b"!", 0, False, 0, {}))
    watcher = pump.client("watcher").subscribed("alarm")
    code = attack(pump, "door", "anna", password=b"wrong", clean=True)
    assert code == const.BAD_USER_NAME_OR_PASSWORD
    victim.ping()
    assert (victim.closed, watcher.inbox) == (False, [])


def test_nor_does_one_whose_answer_is_slow(pump: Pump) -> None:
    victim = pump.client("door", username="anna", expiry=600)
    pump.door.later = True
    attacker = TestClient(pump)
    attacker.connect("door", username="mallory")
    victim.ping()
    assert not victim.closed
    (answer,) = pump.door.waiting
    answer()
    pump.run()
    assert attacker.take(Connack).reason_code == const.CLIENT_IDENTIFIER_NOT_VALID
    assert not victim.closed


def test_a_session_that_ended_may_be_anybodys_and_is_empty(pump: Pump) -> None:
    victim = pump.client("door", username="anna").subscribed("a/#", 1)
    victim.vanish()
    assert attack(pump, "door", "mallory", expiry=600, clean=False) == const.SUCCESS
    assert pump.session("door").subscriptions == {}


def test_what_waits_with_a_will_is_its_owners_too(pump: Pump) -> None:
    """A delayed will cannot be cancelled, replaced or brought about by somebody else's CONNECT."""
    watcher = pump.client("watcher").subscribed("alarm")
    will = Will("alarm", b"anna is gone", 0, False, 30, {})
    pump.client("door", username="anna", expiry=600, will=will).vanish()
    for clean in (True, False):
        code = attack(
            pump, "door", "mallory", clean=clean, will=Will("alarm", b"all is well", 0, False, 0, {})
        )
        assert code == const.CLIENT_IDENTIFIER_NOT_VALID
    assert watcher.inbox == []
    pump.wait(31)
    assert watcher.take_payloads() == [b"anna is gone"]


@pytest.mark.parametrize("delay", [0, 5])
@pytest.mark.parametrize("version", [const.MQTT_5, const.MQTT_3_1_1])
def test_a_will_is_no_way_around_permissions(delay: int, version: int) -> None:
    pump = Pump(authorizer=OWN_TOPICS)
    watcher = pump.client("watcher", username="watcher").subscribed("#")
    attacker = TestClient(pump)
    attacker.connect(
        "m",
        username="mallory",
        version=version,
        will=Will("anna/door", b"open", 1, True, delay, {}),
        clean=True,
    )
    pump.commit()
    assert attacker.take(Connack).reason_code == (const.NOT_AUTHORIZED if version == const.MQTT_5 else 5)
    assert attacker.closed
    attacker.vanish()
    pump.wait(600)
    assert watcher.inbox == []
    assert pump.client("later", username="later").subscribed("#").inbox == []
    assert "m" not in pump.router.sessions, "nothing of it is kept"


def test_a_refused_will_does_not_replace_the_one_that_is_kept() -> None:
    pump = Pump(authorizer=OWN_TOPICS)
    watcher = pump.client("watcher", username="watcher").subscribed("#")
    own = Will("mallory/alarm", b"allowed", 0, False, 30, {})
    pump.client("m", username="mallory", expiry=600, will=own).vanish()
    attacker = TestClient(pump)
    attacker.connect(
        "m", username="mallory", clean=False, expiry=600, will=Will("anna/door", b"!", 0, False, 0, {})
    )
    assert attacker.take(Connack).reason_code == const.NOT_AUTHORIZED
    pump.commit()
    pump.wait(31)
    assert watcher.take_payloads() == [b"allowed"]


def test_nobody_authenticates_anew_as_somebody_else(pump: Pump) -> None:
    """`pump/test_authenticating` has the protocol; here, that the session stays its owner's afterwards."""
    from edge_broker.wire.encoder import encode_auth

    method = {const.AUTHENTICATION_METHOD: "NAME-FIRST"}
    client = TestClient(pump)
    client.connect("door", expiry=600, properties=method | {const.AUTHENTICATION_DATA: b"anna"})
    client.take(object)
    client.send(
        encode_auth(const.CONTINUE_AUTHENTICATION, method | {const.AUTHENTICATION_DATA: b"anna"[::-1]})
    )
    pump.commit()
    assert client.take(Connack).reason_code == const.SUCCESS
    client.send(encode_auth(const.REAUTHENTICATE, method | {const.AUTHENTICATION_DATA: b"root"}))
    client.take(object)
    client.send(
        encode_auth(const.CONTINUE_AUTHENTICATION, method | {const.AUTHENTICATION_DATA: b"root"[::-1]})
    )
    assert client.take(Disconnect).reason_code == const.NOT_AUTHORIZED
    pump.commit()
    assert pump.session("door").identity == "anna"


def test_a_message_for_a_session_reaches_no_successor_of_another_name(pump: Pump) -> None:
    """What was queued for a session that expired goes with it."""
    victim = pump.client("door", username="anna", expiry=10).subscribed("a/#", 1)
    victim.vanish()
    pump.client("publisher").publish("a/b", b"hers", 1)
    pump.commit()
    pump.wait(11)
    pump.commit()
    thief = pump.client("door", username="mallory", expiry=600, clean=False)
    pump.commit()
    assert not [packet for packet in thief.inbox if isinstance(packet, Publish)]
    assert pump.session("door").subscriptions == {}
