"""CONNECT: who gets in, what is answered when, and what a connection may not begin with."""

from __future__ import annotations

import pytest

from edge_broker.wire import const
from edge_broker.wire.encoder import PINGREQ, encode_connect, encode_publish, encode_subscribe
from edge_broker.wire.packets import Connack, Connect, Disconnect, Publish, SubscriptionRequest, Will
from tests.pump.pump import Pump, TestClient

V3, V5 = const.MQTT_3_1_1, const.MQTT_5


def test_a_clean_session_is_answered_at_once(pump: Pump) -> None:
    client = TestClient(pump)
    client.connect("c")
    connack = client.take(Connack)
    assert (connack.reason_code, connack.session_present) == (const.SUCCESS, False)
    assert pump.pending.empty


@pytest.mark.parametrize("version", [V3, V5])
def test_a_durable_session_is_answered_when_it_is_on_disk(pump: Pump, version: int) -> None:
    client = TestClient(pump)
    client.connect("c", clean=False, version=version, expiry=60 if version == V5 else None)
    assert client.inbox == []
    assert pump.pending.urgent
    pump.seal()
    assert client.inbox == []
    pump.settle()
    assert client.take(Connack).reason_code == const.SUCCESS
    assert [record.client_id for record in pump.store.sessions.values()] == ["c"]


def test_discarding_a_durable_session_is_answered_when_that_is_on_disk(pump: Pump) -> None:
    pump.client("c", clean=False, expiry=60).vanish()
    pump.commit()
    client = TestClient(pump)
    client.connect("c", clean=True)
    assert client.inbox == []
    pump.commit()
    assert not client.take(Connack).session_present
    assert pump.store.sessions == {}


def test_what_comes_behind_connect_waits_for_connack(pump: Pump) -> None:
    client = TestClient(pump)
    subscribe = encode_subscribe(V5, 3, [SubscriptionRequest("t", 0)])
    connect = encode_connect(Connect(V5, "c", False, 0, properties={const.SESSION_EXPIRY_INTERVAL: 9}))
    client.send(connect + PINGREQ + subscribe)
    assert client.inbox == []
    pump.commit()
    assert client.types == ["CONNACK", "PING", "SUBACK"]


def test_an_authenticator_that_takes_its_time_holds_nobody_else_up(pump: Pump) -> None:
    pump.door.later = True
    slow = TestClient(pump)
    slow.connect("slow")
    pump.door.later = False
    quick = pump.client("quick")
    quick.ping()
    assert quick.types == ["PING"]
    assert slow.inbox == []
    pump.wait(60)  # it is not the client's fault
    assert not slow.closed
    pump.door.waiting.pop()()
    pump.run()
    assert slow.take(Connack).reason_code == const.SUCCESS


def test_an_answer_that_comes_when_the_client_has_left(pump: Pump) -> None:
    pump.door.later = True
    client = TestClient(pump)
    client.connect("c", clean=False, expiry=60)
    client.vanish()
    pump.door.waiting.pop()()
    pump.commit()
    assert pump.router.sessions == {}


@pytest.mark.parametrize(("version", "code"), [(V3, 4), (V5, const.BAD_USER_NAME_OR_PASSWORD)])
def test_whoever_is_refused_hears_why(pump: Pump, version: int, code: int) -> None:
    client = TestClient(pump)
    client.connect("c", version=version, username="u", password=b"wrong")
    assert client.take(Connack).reason_code == code
    assert client.closed
    assert pump.refused == {"bad_user_name_or_password": 1}
    assert pump.router.sessions == {}


def test_a_client_identifier_belongs_to_whoever_had_it_first(pump: Pump) -> None:
    pump.client("c", clean=False, expiry=60, username="alice").vanish()
    thief = TestClient(pump)
    thief.connect("c", username="mallory")
    assert thief.take(Connack).reason_code == const.CLIENT_IDENTIFIER_NOT_VALID
    owner = TestClient(pump)
    owner.connect("c", clean=False, expiry=60, username="alice")
    pump.commit()
    assert owner.take(Connack).session_present


def test_without_a_client_identifier_one_is_given(pump: Pump) -> None:
    client = TestClient(pump)
    client.connect("")
    given = client.take(Connack).properties[const.ASSIGNED_CLIENT_IDENTIFIER]
    assert given in pump.router.sessions


def test_a_3_1_1_client_without_identifier_must_be_clean(pump: Pump) -> None:
    refused = TestClient(pump)
    refused.connect("", version=V3, clean=False)
    assert refused.take(Connack).reason_code == const.V3_IDENTIFIER_REJECTED
    accepted = TestClient(pump)
    accepted.connect("", version=V3, clean=True)
    assert accepted.take(Connack).reason_code == const.SUCCESS


def test_connack_says_what_the_broker_allows(pump: Pump) -> None:
    pump = Pump(max_keep_alive_seconds=100, max_session_expiry_seconds=50, receive_maximum=7)
    client = TestClient(pump)
    client.connect("c", clean=False, expiry=1000, keep_alive=0)
    pump.commit()
    properties = client.take(Connack).properties
    assert properties[const.SERVER_KEEP_ALIVE] == 100
    assert properties[const.SESSION_EXPIRY_INTERVAL] == 50
    assert properties[const.RECEIVE_MAXIMUM] == 7
    assert properties[const.MAXIMUM_PACKET_SIZE] == pump.settings.max_packet_bytes
    assert properties[const.TOPIC_ALIAS_MAXIMUM] == pump.settings.topic_alias_maximum
    assert const.ASSIGNED_CLIENT_IDENTIFIER not in properties


def test_enhanced_authentication_is_not_offered(pump: Pump) -> None:
    client = TestClient(pump)
    client.connect("c", properties={const.AUTHENTICATION_METHOD: "SCRAM-SHA-1"})
    assert client.take(Connack).reason_code == const.BAD_AUTHENTICATION_METHOD
    assert client.closed


@pytest.mark.parametrize(
    "first",
    [
        pytest.param(PINGREQ, id="PINGREQ"),
        pytest.param(encode_publish(V3, "t", b"x"), id="PUBLISH"),
        pytest.param(encode_subscribe(V3, 1, [SubscriptionRequest("t", 0)]), id="SUBSCRIBE"),
        pytest.param(b"\x40\x02\x00\x01", id="PUBACK"),
        pytest.param(b"\xe0\x00", id="DISCONNECT"),
        pytest.param(
            b"GET / HTTP/1.1\r\nHost: gateway.local:1883\r\nUser-Agent: a browser that lost its way\r\n\r\n",
            id="HTTP",
        ),
        pytest.param(b"\x10\x03abc", id="a torn CONNECT"),
        pytest.param(b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03" + bytes(600), id="TLS"),
    ],
)
def test_a_first_packet_that_is_no_connect_ends_the_connection_without_a_word(
    pump: Pump, first: bytes
) -> None:
    other = pump.client("other")
    client = TestClient(pump)
    client.send(first)
    assert client.closed
    assert client.inbox == []
    other.ping()
    assert other.types == ["PING"]


@pytest.mark.parametrize("level", [0, 2, 6, 255])
def test_an_unknown_protocol_level_is_answered_in_3_1_1_form(pump: Pump, level: int) -> None:
    client = TestClient(pump)
    client._decoder.version = V3
    client.send(bytes((0x10, 13, 0, 4)) + b"MQTT" + bytes((level, 2, 0, 0, 0, 1)) + b"c")
    assert client.take(Connack).reason_code == const.V3_UNACCEPTABLE_PROTOCOL_VERSION
    assert client.closed


@pytest.mark.parametrize("version", [V3, V5])
def test_a_second_connect_ends_the_connection(pump: Pump, version: int) -> None:
    client = pump.client("c", version=version)
    client.send(encode_connect(Connect(version, "c", True, 0)))
    assert client.closed
    if version == V5:
        assert client.take(Disconnect).reason_code == const.PROTOCOL_ERROR


def test_a_second_connect_of_another_version_is_answered_in_the_first_ones(pump: Pump) -> None:
    client = pump.client("c", version=V5)
    client.send(encode_connect(Connect(V3, "c", True, 0)))
    assert client.take(Disconnect).reason_code == const.PROTOCOL_ERROR


def test_without_connect_in_time_the_connection_ends(pump: Pump) -> None:
    silent = TestClient(pump)
    trickling = TestClient(pump)
    trickling.send(b"\x10")
    pump.wait(9)
    trickling.send(b"\x20")
    assert not silent.closed
    pump.wait(2)
    assert silent.closed
    assert trickling.closed, "bytes alone are no CONNECT"
    assert pump.refused == {"connect_timeout": 2}


# ---- taking over


@pytest.mark.parametrize("version", [V3, V5])
def test_a_new_connection_ends_the_old_one(pump: Pump, version: int) -> None:
    old = pump.client("c", version=version)
    new = pump.client("c", version=version)
    assert old.closed
    if version == V5:
        assert old.take(Disconnect).reason_code == const.SESSION_TAKEN_OVER
    new.ping()
    assert new.types == ["PING"]
    assert len(pump.router.sessions) == 1


def test_a_durable_session_moves_to_the_new_connection(pump: Pump) -> None:
    old = pump.client("c", clean=False, expiry=60).subscribed("t", 1)
    new = TestClient(pump)
    new.connect("c", clean=False, expiry=60)
    assert old.closed
    publisher = pump.client("p")
    publisher.publish("t", b"meanwhile", qos=1)
    pump.commit()
    assert new.take(Connack).session_present
    assert new.take_payloads() == [b"meanwhile"]


def test_a_connection_taken_over_before_its_connack(pump: Pump) -> None:
    first, second = TestClient(pump), TestClient(pump)
    first.connect("c", clean=False, expiry=60)
    second.connect("c", clean=False, expiry=60)
    assert first.take(Connack).reason_code == const.UNSPECIFIED_ERROR, "CONNACK knows no 'session taken over'"
    assert first.closed
    pump.commit()
    assert second.take(Connack).reason_code == const.SUCCESS
    assert first.inbox == []
    second.ping()
    assert second.types == ["PING"]


def test_the_session_discarded_by_a_take_over_before_connack_does_not_come_back(pump: Pump) -> None:
    first, second = TestClient(pump), TestClient(pump)
    first.connect("c", clean=False, expiry=60)
    pump.seal()
    second.connect("c", clean=True, expiry=60)
    pump.commit()
    assert not second.take(Connack).session_present
    second.vanish()
    pump.commit()
    assert [record.client_id for record in pump.store.sessions.values()] == ["c"]
    assert pump.crash().session("c").session_id in pump.store.sessions


def test_three_connections_at_once_for_one_client(pump: Pump) -> None:
    clients = [TestClient(pump) for _ in range(3)]
    for client in clients:
        client.connect("c", clean=False, expiry=60)
        pump.seal()
    pump.commit()
    assert [client.closed for client in clients] == [True, True, False]
    assert clients[-1].take(Connack).reason_code == const.SUCCESS


def test_a_client_lost_before_its_connack_leaves_a_session_that_can_be_taken_up(pump: Pump) -> None:
    client = TestClient(pump)
    client.connect("c", clean=False, expiry=60)
    client.vanish()
    pump.commit()
    assert client.inbox == []
    session = pump.session("c")
    assert (session.online, session.claimed_by, session.disconnected_at) == (False, None, pump.now)
    again = TestClient(pump)
    again.connect("c", clean=False, expiry=60)
    pump.commit()
    assert again.take(Connack).session_present


def test_a_client_lost_before_its_connack_was_never_connected_and_leaves_no_will(pump: Pump) -> None:
    watcher = pump.client("watcher").subscribed("w", 1)
    client = TestClient(pump)
    client.connect("c", clean=False, expiry=60, will=Will("w", b"gone", 1, False, 0, {}))
    client.vanish()
    pump.commit()
    pump.wait(1)
    assert watcher.inbox == []
    watcher = pump.crash().client("watcher").subscribed("w", 1)
    pump.wait(1)
    assert watcher.inbox == []


def test_packets_are_read_however_they_are_cut(pump: Pump) -> None:
    data = (
        encode_connect(Connect(V5, "c", True, 0))
        + encode_subscribe(V5, 1, [SubscriptionRequest("t", 1)])
        + encode_publish(V5, "t", b"payload", 1, packet_id=9)
    )
    client = TestClient(pump)
    for at in range(len(data)):
        client.send(data[at : at + 1])
    assert client.types == ["CONNACK", "SUBACK", "PUBLISH 1 QoS 1 b'payload'", "PUBACK 9"]
    assert isinstance(client.inbox[2], Publish)
