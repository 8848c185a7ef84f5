"""Retained messages: kept, replaced, cleared, and given to new subscriptions as they asked for it."""

from __future__ import annotations

import pytest

from edge_broker.wire import const
from edge_broker.wire.packets import Connack, Publish, Suback
from tests.pump.pump import Pump, TestClient


@pytest.fixture
def publisher(pump: Pump) -> TestClient:
    return pump.client("p")


def retained(client: TestClient) -> list[tuple[str, bytes, bool]]:
    """(topic, payload, retain flag) of what is in the inbox, by topic."""
    packets, client.inbox = client.inbox, []
    assert all(isinstance(packet, Publish) for packet in packets)
    return sorted((p.topic, p.payload, p.retain) for p in packets if isinstance(p, Publish))


def test_a_new_subscription_gets_the_last_one_of_each_topic_behind_suback(
    pump: Pump, publisher: TestClient
) -> None:
    for topic, payload in (("a", b"old"), ("a", b"new"), ("a/b", b"x"), ("$a", b"hidden"), ("b", b"y")):
        publisher.publish(topic, payload, retain=True)
    client = pump.client("c")
    client.subscribe("#")
    client.take(Suback)
    assert retained(client) == [("a", b"new", True), ("a/b", b"x", True), ("b", b"y", True)]
    client.subscribed("a")
    assert retained(client) == [("a", b"new", True)]
    client.subscribed("+/b")
    assert retained(client) == [("a/b", b"x", True)]
    client.subscribed("$a")
    assert retained(client) == [("$a", b"hidden", True)]


def test_an_empty_payload_clears(pump: Pump, publisher: TestClient) -> None:
    live = pump.client("live").subscribed("a")
    publisher.publish("a", b"x", retain=True)
    publisher.publish("a", b"", retain=True)
    assert retained(live) == [("a", b"", False), ("a", b"x", False)]
    assert retained(pump.client("c").subscribed("a")) == []
    pump.commit()
    assert pump.store.retained == {}


def test_clearing_what_is_not_there(pump: Pump, publisher: TestClient) -> None:
    publisher.publish("a", b"", qos=1, retain=True)
    assert publisher.take_ack(const.PUBACK) == 1
    assert pump.pending.empty


def test_a_message_without_the_flag_changes_nothing(pump: Pump, publisher: TestClient) -> None:
    publisher.publish("a", b"kept", retain=True)
    publisher.publish("a", b"passing")
    assert retained(pump.client("c").subscribed("a")) == [("a", b"kept", True)]


@pytest.mark.parametrize(("handling", "first", "again"), [(0, 1, 1), (1, 1, 0), (2, 0, 0)])
def test_retain_handling(pump: Pump, publisher: TestClient, handling: int, first: int, again: int) -> None:
    publisher.publish("a", b"x", retain=True)
    client = pump.client("c").subscribed("a", retain_handling=handling)
    assert len(client.take_payloads()) == first
    client.subscribed("a", retain_handling=handling)
    assert len(client.take_payloads()) == again


def test_the_flag_as_published_or_not(pump: Pump, publisher: TestClient) -> None:
    plain = pump.client("plain").subscribed("a")
    as_published = pump.client("asp").subscribed("a", retain_as_published=True)
    publisher.publish("a", b"x", retain=True)
    publisher.publish("a", b"y")
    assert retained(plain) == [("a", b"x", False), ("a", b"y", False)]
    assert retained(as_published) == [("a", b"x", True), ("a", b"y", False)]


@pytest.mark.parametrize("published", [0, 1, 2])
@pytest.mark.parametrize("granted", [0, 1, 2])
def test_the_lower_qos_counts(pump: Pump, publisher: TestClient, published: int, granted: int) -> None:
    publisher.publish("a", b"x", qos=published, retain=True)
    pump.commit()
    client = pump.client("c")
    client.subscribe("a", granted)
    pump.commit()
    client.take(Suback)
    assert client.take(Publish).qos == min(published, granted)


def test_with_a_subscription_identifier(pump: Pump, publisher: TestClient) -> None:
    publisher.publish("a", b"x", retain=True)
    publish = pump.client("c").subscribed("a", identifier=5).take(Publish)
    assert (publish.subscription_ids, publish.retain) == ((5,), True)


def test_not_for_a_shared_subscription(pump: Pump, publisher: TestClient) -> None:
    publisher.publish("a", b"x", retain=True)
    assert pump.client("c").subscribed("$share/g/a").inbox == []


def test_not_for_a_subscription_that_was_taken_back_before_its_suback(
    pump: Pump, publisher: TestClient
) -> None:
    publisher.publish("a", b"x", retain=True)
    client = pump.client("c", clean=False, expiry=60)
    client.subscribe("a", packet_id=1)
    client.unsubscribe("a", packet_id=2)
    pump.commit()
    assert client.types == ["SUBACK", "SUBACK"]


def test_expired_it_is_gone(pump: Pump, publisher: TestClient) -> None:
    publisher.publish("a", b"x", retain=True, properties={const.MESSAGE_EXPIRY_INTERVAL: 10})
    pump.wait(9)
    publish = pump.client("c").subscribed("a").take(Publish)
    assert publish.expiry_interval == 1
    pump.wait(2)
    assert pump.client("d").subscribed("a").inbox == []
    pump.commit()
    assert pump.store.retained == {}
    assert len(pump.router.retained) == 0


def test_it_outlives_a_crash_at_any_qos(pump: Pump, publisher: TestClient) -> None:
    for qos in (0, 1, 2):
        publisher.publish(f"q{qos}", b"x", qos=qos, packet_id=qos, retain=True)
    pump.commit()
    client = pump.crash().client("c").subscribed("#")
    assert retained(client) == [("q0", b"x", True), ("q1", b"x", True), ("q2", b"x", True)]


def test_into_a_durable_queue_it_is_kept(pump: Pump, publisher: TestClient) -> None:
    publisher.publish("a", b"x", qos=1, retain=True)
    pump.commit()
    client = pump.client("d", clean=False, expiry=60)
    client.subscribe("a", 1)
    pump.commit()
    pump.crash()
    client = TestClient(pump)
    client.connect("d", clean=False, expiry=60)
    pump.commit()
    client.take(Connack)
    assert retained(client) == [("a", b"x", True)]


@pytest.mark.parametrize(("one", "other"), [(4, 5), (5, 4)])
def test_between_versions(pump: Pump, one: int, other: int) -> None:
    pump.client("p", version=one).publish("a", b"x", retain=True)
    assert retained(pump.client("c", version=other).subscribed("a")) == [("a", b"x", True)]
