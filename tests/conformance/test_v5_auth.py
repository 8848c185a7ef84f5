"""MQTT 5.0, chapters 3.15 and 4.12: AUTH and enhanced authentication, by SCRAM-SHA-256.

The client's side of it is in ``test_v5_scram``.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.conformance.codec import (
    V5,
    Auth,
    Connack,
    Connect,
    Disconnect,
    Pingreq,
    Publish,
    Subscribe,
    Will,
    encode,
)
from tests.conformance.harness import RunningBroker
from tests.conformance.normative import normative
from tests.conformance.test_v5_scram import METHOD, Scram, verifier
from tests.conformance.wire import Wire, fresh

MALFORMED, PROTOCOL_ERROR, BAD_METHOD = 0x81, 0x82, 0x8C
SUCCESS, CONTINUE, AGAIN = 0x00, 0x18, 0x19
REFUSALS = range(0x80, 0xA3)
EXPIRY = {"session_expiry_interval": 1000}
PASSWORDS = {"alice": "secret one", "bob": "secret two"}


@pytest.fixture(scope="module")
def _scram_broker(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RunningBroker]:
    folder: Path = tmp_path_factory.mktemp("scram")
    passwords = folder / "passwords"
    passwords.touch(0o600)
    passwords.write_text("".join(f"{name}:{verifier(word)}\n" for name, word in PASSWORDS.items()))
    broker = RunningBroker(
        folder / "data",
        listeners=[{"bind": "127.0.0.1:0", "anonymous": False}, {"bind": "127.0.0.1:0"}],
        security={
            "password_file": str(passwords),
            "wrong_passwords_per_name": 0,
            "wrong_passwords_per_address": 0,
        },
        store={"commit_delay_ms": 1},
    ).start()
    yield broker
    broker.stop()


@pytest.fixture
def scram(_scram_broker: RunningBroker) -> Iterator[RunningBroker]:
    """A broker whose first listener wants a password, by SCRAM too; the second lets anybody in."""
    yield _scram_broker
    _scram_broker.close_wires()
    _scram_broker.assert_sound()


def auth(code: int, data: bytes | None, method: str | None = METHOD) -> Auth:
    properties: dict[str, Any] = {} if method is None else {"authentication_method": method}
    return Auth(code, properties if data is None else properties | {"authentication_data": data})


def begin(
    broker: RunningBroker, exchange: Scram, client_id: Any = None, properties: Any = None, **fields: Any
) -> tuple[Wire, bytes]:
    """CONNECT with the exchange's first message: the connection, and the server's question."""
    wire = broker.wire(V5)
    wire.client_id = fresh("c") if client_id is None else client_id
    wanted = (properties or {}) | {"authentication_method": METHOD, "authentication_data": exchange.first}
    wire.send(Connect(wire.client_id, properties=wanted, **fields))
    return wire, question(wire)


def question(wire: Wire) -> bytes:
    """The server's AUTH that asks on."""
    packet: Auth = wire.expect(Auth)
    assert (packet.code, packet.properties["authentication_method"]) == (CONTINUE, METHOD)
    data = packet.properties["authentication_data"]
    assert isinstance(data, bytes)
    return data


def login(broker: RunningBroker, name: str = "alice", client_id: Any = None, **fields: Any) -> Wire:
    """A client that came in by its password."""
    exchange = Scram(name, PASSWORDS[name])
    wire, server_first = begin(broker, exchange, client_id, **fields)
    wire.send(auth(CONTINUE, exchange.final(server_first)))
    connack: Any = wire.expect(Connack)
    assert (connack.code, connack.properties["authentication_method"]) == (SUCCESS, METHOD)
    exchange.check(connack.properties["authentication_data"])
    return wire


def watch(broker: RunningBroker, topic: str) -> Wire:
    wire = broker.wire(V5, listener=1)
    wire.connect()
    wire.subscribe((topic, 0))
    return wire


# ---- coming in


@normative("MQTT-4.12.0-2", "MQTT-4.12.0-5", "MQTT-3.15.2-1", "MQTT-3.2.0-1", "MQTT-3.1.4-5", "MQTT-4.12.0-3")
def test_a_client_comes_in_by_scram(scram: RunningBroker, topic: str) -> None:
    wire = login(scram)
    wire.subscribe((topic, 1))
    wire.send(Publish(topic, b"in"))
    wire.expect_message(topic, b"in")


@normative("MQTT-4.12.0-4", "MQTT-3.1.4-2", "MQTT-3.2.2-7", "MQTT-3.14.0-1", "MQTT-4.13.2-1")
@pytest.mark.parametrize(
    ("name", "password"),
    [("alice", "secret two"), ("alice", ""), ("nobody", "secret one"), ("bob", "secret one")],
)
def test_a_wrong_password_closes_the_connection(
    scram: RunningBroker, topic: str, name: str, password: str
) -> None:
    watcher = watch(scram, topic)
    exchange = Scram(name, password)
    wire, server_first = begin(scram, exchange, will=Will(topic, b"will"))
    wire.send(auth(CONTINUE, exchange.final(server_first)), Publish(topic, b"behind it"), Pingreq())
    for answer in wire.drain():
        assert isinstance(answer, Connack)
        assert answer.code in REFUSALS
        assert not answer.session_present
    watcher.expect_nothing()


@normative("MQTT-4.12.0-4", "MQTT-3.14.0-1")
@pytest.mark.parametrize(
    "first",
    [
        b"nonsense",
        b"\xff\xfe",
        b"y,,n=alice",
        b"p=tls-unique,,n=alice,r=abc",
        b"n,,n=,r=abc",
        b"n,,r=abc",
    ],
)
def test_a_first_message_that_cannot_be_closes_the_connection(scram: RunningBroker, first: bytes) -> None:
    properties = {"authentication_method": METHOD, "authentication_data": first}
    answers = scram.wire(V5).send(Connect("c", properties=properties)).drain()
    assert all(isinstance(answer, Connack) and answer.code in REFUSALS for answer in answers)


@normative("MQTT-4.12.0-2", "MQTT-4.12.0-5", "MQTT-3.15.2-1")
@pytest.mark.parametrize("data", [{}, {"authentication_data": b""}])
def test_who_names_only_the_method_is_asked_for_the_rest(
    scram: RunningBroker, data: dict[str, bytes]
) -> None:
    exchange = Scram("alice", PASSWORDS["alice"])
    wire = scram.wire(V5).send(Connect(fresh("c"), properties={"authentication_method": METHOD} | data))
    asked: Any = wire.expect(Auth)
    assert (asked.code, asked.properties) == (CONTINUE, {"authentication_method": METHOD})
    server_first = question(wire.send(auth(CONTINUE, exchange.first)))
    connack: Any = wire.send(auth(CONTINUE, exchange.final(server_first))).expect(Connack)
    assert connack.code == SUCCESS


@normative("MQTT-4.12.0-4", "MQTT-3.1.4-2")
def test_a_proof_cannot_be_used_again(scram: RunningBroker) -> None:
    exchange = Scram("alice", PASSWORDS["alice"])
    wire, server_first = begin(scram, exchange)
    proof = exchange.final(server_first)
    wire.send(auth(CONTINUE, proof))
    assert wire.expect(Connack).code == SUCCESS
    wire, _ = begin(scram, Scram("alice", PASSWORDS["alice"]))
    answers = wire.send(auth(CONTINUE, proof)).drain()
    assert all(isinstance(answer, Connack) and answer.code in REFUSALS for answer in answers)


@normative("MQTT-3.1.4-2", "MQTT-4.12.0-4")
def test_who_proves_nothing_is_not_let_in(scram: RunningBroker) -> None:
    for fields in ({}, {"username": "alice"}, {"username": "alice", "password": b"wrong"}):
        answers = scram.wire(V5).send(Connect(fresh("c"), **fields), Pingreq()).drain()
        assert all(isinstance(answer, Connack) and answer.code in REFUSALS for answer in answers)


@normative("MQTT-4.12.0-1", "MQTT-3.2.2-8")
@pytest.mark.parametrize("method", ["", "scram-sha-256", "SCRAM-SHA-1", "SCRAM-SHA-256-PLUS", "GS2-KRB5"])
@pytest.mark.parametrize("listener", [0, 1])
def test_a_method_that_is_not_offered_is_refused(scram: RunningBroker, method: str, listener: int) -> None:
    properties = {"authentication_method": method, "authentication_data": b"x"}
    answers = scram.wire(V5, listener).send(Connect("c", properties=properties), Pingreq()).drain()
    assert all(isinstance(answer, Connack) and answer.code in (BAD_METHOD, 0x87) for answer in answers)


@normative("MQTT-4.12.0-1")
def test_a_broker_without_passwords_offers_no_method(broker: RunningBroker) -> None:
    properties = {"authentication_method": METHOD, "authentication_data": Scram("alice", "x").first}
    answers = broker.wire(V5).send(Connect("c", properties=properties)).drain()
    assert all(isinstance(answer, Connack) and answer.code in (BAD_METHOD, 0x87) for answer in answers)


@normative("MQTT-3.1.4-2", "MQTT-3.1.4-3", "MQTT-3.1.4-4", "MQTT-4.1.0-1")
def test_only_who_is_let_in_takes_a_session_over(scram: RunningBroker, topic: str) -> None:
    owner = login(scram, client_id="owned", properties=EXPIRY)
    owner.subscribe((topic, 1))
    for name, password in (("alice", "wrong"), ("bob", PASSWORDS["bob"])):
        exchange = Scram(name, password)
        wire, server_first = begin(scram, exchange, "owned", clean=True)
        owner.ping()
        answers = wire.send(auth(CONTINUE, exchange.final(server_first))).drain()
        assert all(isinstance(answer, Connack) and answer.code in REFUSALS for answer in answers)
    owner.send(Publish(topic, b"still here"))
    owner.expect_message(topic, b"still here")


# ---- while it is under way


@normative("MQTT-3.1.2-30", "MQTT-3.14.0-1", "MQTT-3.1.4-6")
@pytest.mark.parametrize(
    "packet",
    [Publish("t", b"x"), Subscribe(1, (("t", 0),)), Pingreq(), Connect("again"), b"\x40\x02\x00\x01"],
    ids=str,
)
def test_nothing_but_auth_meanwhile(scram: RunningBroker, packet: Any) -> None:
    exchange = Scram("alice", PASSWORDS["alice"])
    wire, server_first = begin(scram, exchange)
    wire.send(packet, auth(CONTINUE, exchange.final(server_first)))
    answers = wire.drain()
    assert all(isinstance(answer, Connack) and answer.code in REFUSALS for answer in answers)


@normative("MQTT-3.1.2-30", "MQTT-3.2.0-1")
def test_a_client_may_give_up(scram: RunningBroker, topic: str) -> None:
    watcher = watch(scram, topic)
    wire, _ = begin(scram, Scram("alice", "x"), will=Will(topic, b"will"))
    wire.send(Disconnect()).expect_end()
    watcher.expect_nothing()


@normative("MQTT-4.12.0-5", "MQTT-4.12.0-3", "MQTT-3.15.2-1")
@pytest.mark.parametrize(
    "packet",
    [
        auth(CONTINUE, b"x", "SCRAM-SHA-1"),
        auth(CONTINUE, b"x", None),
        auth(AGAIN, b"x"),
        auth(SUCCESS, b"x"),
        auth(0x05, b"x"),
        auth(0x80, b"x"),
        b"\xf0\x00",
        b"\xf0\x01\x18",
        b"\xf0\x02\x18\x05",
    ],
)
def test_an_auth_that_cannot_be_closes_the_connection(scram: RunningBroker, packet: Any) -> None:
    wire, _ = begin(scram, Scram("alice", "x"))
    answers = wire.send(packet).drain()
    assert all(isinstance(answer, Connack) and answer.code in REFUSALS for answer in answers)


@normative("MQTT-4.12.0-5", "MQTT-4.12.1-1", "MQTT-4.13.1-1")
@pytest.mark.parametrize("method", ["SCRAM-SHA-1", "scram-sha-256", "", None])
def test_the_method_stays_the_one_of_connect(scram: RunningBroker, method: str | None) -> None:
    """Also where all the rest is as it must be."""
    exchange = Scram("alice", PASSWORDS["alice"])
    wire, server_first = begin(scram, exchange)
    answers = wire.send(auth(CONTINUE, exchange.final(server_first), method)).drain()
    assert all(isinstance(answer, Connack) and answer.code in REFUSALS for answer in answers)
    login(scram).send(auth(AGAIN, exchange.first, method)).expect_closed()
    wire = login(scram)
    server_first = question(wire.send(auth(AGAIN, exchange.first)))
    wire.send(auth(CONTINUE, exchange.final(server_first), method)).expect_closed()


@normative("MQTT-3.15.1-1", "MQTT-2.1.3-1", "MQTT-4.13.1-1")
def test_the_flags_of_auth_are_checked(scram: RunningBroker) -> None:
    exchange = Scram("alice", PASSWORDS["alice"])
    for flags in (1, 2, 4, 8, 15):
        wire, server_first = begin(scram, exchange)
        packet = encode(auth(CONTINUE, exchange.final(server_first)), V5)
        answers = wire.send(bytes((0xF0 | flags,)) + packet[1:]).drain()
        assert all(isinstance(answer, Connack) and answer.code in REFUSALS for answer in answers)
    wire = login(scram)
    wire.send(b"\xf1" + encode(auth(AGAIN, exchange.first), V5)[1:]).expect_closed(MALFORMED)


@normative("MQTT-4.13.1-1", "MQTT-3.15.2-1")
@pytest.mark.parametrize(
    "properties",
    [
        {"authentication_method": [METHOD, METHOD]},
        {"authentication_method": METHOD, "authentication_data": [b"x", b"x"]},
        {"authentication_method": METHOD, "topic_alias": 1},
        {"authentication_method": METHOD, "session_expiry_interval": 1},
    ],
)
def test_properties_that_cannot_be_close_the_connection(scram: RunningBroker, properties: Any) -> None:
    login(scram).send(Auth(AGAIN, properties)).expect_closed()


# ---- without a method


@normative("MQTT-4.12.0-6", "MQTT-4.12.0-7", "MQTT-4.13.1-1")
def test_who_names_no_method_is_asked_nothing_and_may_send_no_auth(scram: RunningBroker) -> None:
    wire = scram.wire(V5, listener=1)
    properties: Any = wire.connect().properties
    assert {"authentication_method", "authentication_data"}.isdisjoint(properties)
    wire.send(auth(AGAIN, Scram("alice", PASSWORDS["alice"]).first)).expect_closed(PROTOCOL_ERROR)


# ---- once more


@normative("MQTT-4.12.1-1", "MQTT-4.12.0-5", "MQTT-3.15.2-1", "MQTT-4.12.0-2")
def test_a_client_authenticates_itself_anew(scram: RunningBroker, topic: str) -> None:
    """Meanwhile everything else goes on as before [4.12.1]."""
    wire, other = login(scram), watch(scram, "unused")
    wire.subscribe((topic, 0))
    for turn in range(3):
        exchange = Scram("alice", PASSWORDS["alice"], f"nonce{turn}")
        server_first = question(wire.send(auth(AGAIN, exchange.first)))
        other.publish(topic, b"meanwhile")
        wire.expect_message(topic, b"meanwhile")
        wire.ping()
        wire.send(auth(CONTINUE, exchange.final(server_first)))
        packet: Any = wire.expect(Auth)
        assert (packet.code, packet.properties["authentication_method"]) == (SUCCESS, METHOD)
        exchange.check(packet.properties["authentication_data"])
    wire.expect_nothing()


@normative("MQTT-4.12.1-2", "MQTT-3.14.4-2", "MQTT-4.13.2-1")
@pytest.mark.parametrize(
    ("name", "password"), [("alice", "wrong"), ("bob", PASSWORDS["bob"]), ("nobody", "x")]
)
def test_who_fails_or_turns_into_somebody_else_is_out(
    scram: RunningBroker, topic: str, name: str, password: str
) -> None:
    watcher = watch(scram, topic)
    wire = login(scram, will=Will(topic, b"out"))
    exchange = Scram(name, password)
    server_first = question(wire.send(auth(AGAIN, exchange.first)))
    wire.send(auth(CONTINUE, exchange.final(server_first)), Publish(topic, b"behind it"), Pingreq())
    (disconnect,) = wire.drain()
    assert isinstance(disconnect, Disconnect)
    assert disconnect.code in REFUSALS
    watcher.expect_message(topic, b"out")
    watcher.expect_nothing()


@normative("MQTT-4.12.1-1", "MQTT-4.12.1-2", "MQTT-4.12.0-5", "MQTT-4.13.1-1")
@pytest.mark.parametrize(
    "packet",
    [
        auth(AGAIN, b"x", "SCRAM-SHA-1"),
        auth(AGAIN, b"x", None),
        auth(CONTINUE, b"x"),
        auth(SUCCESS, b"x"),
        auth(0x30, b"x"),
        auth(AGAIN, b"nonsense"),
        b"\xf0\x00",
    ],
)
def test_an_auth_out_of_place_ends_the_connection(scram: RunningBroker, packet: Any) -> None:
    login(scram).send(packet).expect_closed()


@normative("MQTT-4.12.1-1", "MQTT-4.13.1-1")
def test_a_second_beginning_while_one_is_under_way(scram: RunningBroker) -> None:
    """It starts over or ends the connection; the first one's proof is worth nothing any more."""
    wire = login(scram)
    first, second = (Scram("alice", PASSWORDS["alice"], nonce) for nonce in ("one", "two"))
    proof = first.final(question(wire.send(auth(AGAIN, first.first))))
    answer = wire.send(auth(AGAIN, second.first)).take()
    if isinstance(answer, Auth):
        wire.send(auth(CONTINUE, proof)).expect_closed()
    else:
        assert isinstance(answer, Disconnect)
        wire.expect_end()


# ---- size


@normative("MQTT-3.15.2-2", "MQTT-3.15.2-3", "MQTT-3.1.2-24", "MQTT-3.1.2-29")
def test_auth_keeps_to_the_clients_maximum_packet_size(scram: RunningBroker) -> None:
    exchange = Scram("alice", PASSWORDS["alice"])
    wire, _ = begin(scram, exchange)
    whole = len(wire.last_frame)
    properties = {"authentication_method": METHOD, "authentication_data": exchange.first}
    for limit in (whole, whole + 1):
        wire, server_first = begin(scram, exchange, properties={"maximum_packet_size": limit})
        assert len(wire.last_frame) <= limit
        wire.send(auth(CONTINUE, exchange.final(server_first)))
        assert len(wire.take_frame()) <= limit
    for limit in (whole - 1, whole // 2, 20):
        connect = Connect("c", properties=properties | {"maximum_packet_size": limit})
        wire = scram.wire(V5).send(connect)
        wire.drain()
        assert len(wire.last_frame) <= limit


@normative("MQTT-3.1.2-29")
def test_auth_says_no_more_than_is_wanted(scram: RunningBroker) -> None:
    exchange = Scram("alice", PASSWORDS["alice"])
    wire = login(scram, properties={"request_problem_information": 0})
    packet: Any = wire.send(auth(AGAIN, exchange.first)).expect(Auth)
    assert set(packet.properties) == {"authentication_method", "authentication_data"}
    wire.send(auth(CONTINUE, exchange.final(packet.properties["authentication_data"])))
    packet = wire.expect(Auth)
    assert set(packet.properties) == {"authentication_method", "authentication_data"}
