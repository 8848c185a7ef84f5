"""Quotas: what happens at each, what the client is told, and that it is counted."""

from __future__ import annotations

import pytest

from edge_broker.wire import const
from edge_broker.wire.packets import Ack, Connack, Disconnect, Suback, Will
from tests.pump.pump import Pump, TestClient


def answered(pump: Pump, client_id: str, **options: object) -> Connack:
    client = TestClient(pump)
    client.connect(client_id, **options)  # type: ignore[arg-type]
    pump.commit()
    return client.take(Connack)


@pytest.mark.parametrize(
    ("version", "reason_code"),
    [(const.MQTT_5, const.QUOTA_EXCEEDED), (const.MQTT_3_1_1, const.V3_SERVER_UNAVAILABLE)],
)
def test_sessions_in_all(version: int, reason_code: int) -> None:
    pump = Pump(max_sessions=2)
    kept = pump.client("a", clean=False, expiry=60)
    kept.vanish()
    pump.client("b")
    assert answered(pump, "c", version=version).reason_code == reason_code
    assert pump.refused == {"quota_exceeded": 1}
    assert answered(pump, "a", clean=False, expiry=60).session_present, "it has one already"
    pump.wait(0)
    pump.router.end_session(pump.session("b"))
    assert answered(pump, "c").reason_code == const.SUCCESS


def test_sessions_of_one_identity() -> None:
    pump = Pump(max_sessions_per_identity=1)
    pump.client("a", username="anna")
    assert answered(pump, "b", username="anna").reason_code == const.QUOTA_EXCEEDED
    assert answered(pump, "c", username="otto").reason_code == const.SUCCESS


def test_those_from_before_a_restart_count() -> None:
    pump = Pump(max_sessions=1)
    pump.client("a", clean=False, expiry=60)
    pump.crash()
    assert answered(pump, "b").reason_code == const.QUOTA_EXCEEDED


def test_a_client_identifier() -> None:
    pump = Pump(max_client_id_bytes=30)
    assert answered(pump, "é" * 15).reason_code == const.SUCCESS
    assert answered(pump, "é" * 16).reason_code == const.CLIENT_IDENTIFIER_NOT_VALID


def test_a_connect() -> None:
    pump = Pump(max_connect_bytes=200)
    will = Will("w", bytes(200), 0, False, 0, {})
    client = TestClient(pump)
    client.connect("a", will=will)
    assert client.closed
    assert pump.refused == {"packet_too_large": 1}
    client = pump.client("b").subscribed("t")
    client.publish("t", bytes(5_000))
    assert client.take_payloads() == [bytes(5_000)], "the limit is for who has not been let in"


def test_a_topic() -> None:
    pump = Pump(max_topic_bytes=64)
    client = pump.client("a").subscribed("#")
    client.publish("é" * 32)
    assert len(client.take_payloads()) == 1
    client.subscribe("é" * 33)
    assert client.take(Suback).reason_codes == [const.TOPIC_FILTER_INVALID]
    client.publish("é" * 33)
    assert client.take(Disconnect).reason_code == const.TOPIC_NAME_INVALID
    assert pump.refused == {"topic_name_invalid": 1}


@pytest.mark.parametrize("where", ["PUBLISH", "CONNECT", "SUBSCRIBE"])
def test_user_properties(where: str) -> None:
    pump = Pump(max_user_properties=2)
    for count, is_fine in ((2, True), (3, False)):
        properties = {const.USER_PROPERTY: [("a", "b")] * count}
        client = TestClient(pump)
        client.connect(f"c{count}", properties=properties if where == "CONNECT" else {})
        if where == "PUBLISH":
            client.publish("t", properties=properties)
        elif where == "SUBSCRIBE":
            block = b"\x26\0\x01a\0\x01b" * count
            body = b"\0\x01" + bytes((len(block),)) + block + b"\0\x01t\0"
            client.send(b"\x82" + bytes((len(body),)) + body)
        assert client.closed is not is_fine
    assert pump.refused == {"quota_exceeded": 1}


def test_retained_messages() -> None:
    pump = Pump(max_retained_messages=2)
    live = pump.client("live").subscribed("#")
    client = pump.client("a")
    for number in (1, 2, 3):
        client.publish(f"t/{number}", b"x", 1, packet_id=number, retain=True)
        pump.commit()
    assert [client.take(Ack).reason_code for _ in range(3)] == [0, 0, const.QUOTA_EXCEEDED]
    assert len(live.take_payloads()) == 2, "what is refused nobody gets"
    client.publish("t/1", b"y", 1, packet_id=4, retain=True)
    pump.commit()
    assert client.take(Ack).reason_code == const.SUCCESS, "it takes the place of another"
    client.publish("t/2", b"", 1, packet_id=5, retain=True)
    client.publish("t/3", b"z", 1, packet_id=6, retain=True)
    pump.commit()
    assert [client.take(Ack).reason_code for _ in range(2)] == [0, 0], "there is room again"
    assert pump.dropped == {"quota_exceeded": 1}


def test_retained_bytes_where_the_publisher_cannot_be_told() -> None:
    pump = Pump(max_retained_bytes=1_000)
    live = pump.client("live").subscribed("#")
    old = pump.client("a", version=const.MQTT_3_1_1)
    old.publish("t/1", bytes(600), 1, retain=True)
    old.publish("t/2", bytes(600), 1, packet_id=2, retain=True)
    old.publish("t/2", bytes(600), 0, retain=True)
    assert len(live.take_payloads()) == 3, "who is there gets it"
    assert len(pump.client("late").subscribed("#").take_payloads()) == 1
    assert pump.dropped == {"retained_full": 2}
    assert pump.router.retained_bytes <= 1_000


def test_publishes_per_second() -> None:
    pump = Pump(max_publishes_per_second=3)
    fast, other = pump.client("fast").subscribed("#"), pump.client("other")
    for _ in range(8):
        fast.publish("t")
        other.ping()
    counts = [len(fast.take_payloads())]
    for _ in range(3):
        pump.wait(1)
        counts.append(len(fast.take_payloads()))
    assert counts == [3, 3, 2, 0], "nothing is dropped"
    assert pump.router.counters.throttled == 2
    assert not fast.closed


def test_bytes_per_second() -> None:
    pump = Pump(max_publish_bytes_per_second=1_000)
    client = pump.client("a").subscribed("#")
    for _ in range(3):
        client.publish("t", bytes(900))
    assert len(client.take_payloads()) == 2, "the one that crosses the line is still let through"
    pump.wait(1)
    assert len(client.take_payloads()) == 1


def test_unreleased_qos_2_of_a_client_that_knows_no_receive_maximum() -> None:
    pump = Pump(max_inbound_qos_2=2)
    client = pump.client("a", version=const.MQTT_3_1_1)
    for number in (1, 2):
        client.publish("t", qos=2, packet_id=number)
    assert not client.closed
    client.publish("t", qos=2, packet_id=3)
    assert client.closed
    assert pump.refused == {"receive_maximum_exceeded": 1}


@pytest.mark.parametrize(
    ("version", "refused"), [(const.MQTT_5, const.QUOTA_EXCEEDED), (const.MQTT_3_1_1, 0x80)]
)
def test_subscriptions_in_all(version: int, refused: int) -> None:
    pump = Pump(max_subscriptions=2)
    kept = pump.client("a", clean=False, expiry=60).subscribed("t/1").subscribed("t/1", 1)
    pump.client("b").subscribed("t/1")
    other = pump.client("c", version=version)
    assert asked(other, "t/1") == refused
    assert pump.router.counters.denied == {"quota": 1}
    kept.vanish()
    pump.commit()
    pump.crash()
    pump.client("d").subscribed("$share/g/t")
    other = pump.client("c", version=version)
    assert asked(other, "t/1") == refused, "those from before a restart count"
    pump.router.end_session(pump.session("a"))
    assert asked(other, "t/1") == 0
    pump.router.unsubscribe(pump.session("d"), "$share/g/t")
    assert asked(other, "t/2") == 0
    assert pump.router.subscribed.count == 2
    for client_id in ("c", "d"):
        pump.router.end_session(pump.session(client_id))
    assert (pump.router.subscribed.count, pump.router.subscribed.size_bytes) == (0, 0)


def test_subscriptions_of_one_identity() -> None:
    pump = Pump(max_subscriptions_per_identity=2)
    for client_id in ("a", "b"):
        pump.client(client_id, username="anna").subscribed("t")
    third, other = pump.client("c", username="anna"), pump.client("d", username="otto")
    assert (asked(third, "t"), asked(other, "t")) == (const.QUOTA_EXCEEDED, 0)


def test_the_memory_that_subscriptions_take() -> None:
    """A hundred levels take as much as forty short filters."""
    pump = Pump(max_subscription_bytes=30_000)
    client = pump.client("a")
    deep = "/".join("x" * 100)
    assert [asked(client, topic_filter) for topic_filter in (deep, f"{deep}/x", "t", deep)] == [
        0,
        const.QUOTA_EXCEEDED,
        0,
        0,
    ]


def asked(client: TestClient, topic_filter: str) -> int:
    client.subscribe(topic_filter)
    client.pump.commit()
    (code,) = client.take(Suback).reason_codes
    return code
