"""QoS 2, both ways: each step leaves when the one before it is on disk, and nobody gets a message twice."""

from __future__ import annotations

import pytest

from edge_broker.wire import const
from edge_broker.wire.packets import Ack, Connack, Publish
from tests.pump.pump import Pump, TestClient


def durable(pump: Pump, client_id: str) -> TestClient:
    return pump.client(client_id, clean=False, expiry=3600)


def come_back(pump: Pump, client_id: str) -> TestClient:
    client = TestClient(pump)
    client.connect(client_id, clean=False, expiry=3600)
    pump.commit()
    assert client.take(Connack).session_present
    return client


# ---- towards the broker


def test_a_clean_publisher_gets_every_step_at_once(pump: Pump) -> None:
    publisher = pump.client("p")
    subscriber = pump.client("s").subscribed("t", 2)
    publisher.publish("t", b"one", qos=2, packet_id=5)
    assert publisher.take_ack(const.PUBREC) == 5
    assert subscriber.take(Publish).qos == 2
    publisher.ack(const.PUBREL, 5)
    assert publisher.take_ack(const.PUBCOMP) == 5
    assert pump.pending.empty


def test_a_durable_publisher_gets_each_step_after_its_commit_and_nobody_the_message_before(
    pump: Pump,
) -> None:
    publisher = durable(pump, "p")
    live, quiet = pump.client("s").subscribed("t", 2), pump.client("q").subscribed("t", 0)
    stored = durable(pump, "d").subscribed("t", 1)
    publisher.publish("t", b"one", qos=2, packet_id=5)
    pump.seal()
    assert publisher.inbox == live.inbox == quiet.inbox == stored.inbox == []
    pump.settle()
    assert publisher.take_ack(const.PUBREC) == 5
    assert [client.take_payloads() for client in (live, quiet, stored)] == [[b"one"]] * 3
    publisher.ack(const.PUBREL, 5)
    pump.seal()
    assert publisher.inbox == []
    pump.settle()
    assert publisher.take_ack(const.PUBCOMP) == 5
    assert pump.store.inbound == set()


def test_steps_of_qos_2_do_not_wait_for_the_commit_delay(pump: Pump) -> None:
    publisher = durable(pump, "p")
    publisher.publish("t", qos=2)
    assert pump.pending.urgent


@pytest.mark.parametrize("client_kind", ["clean", "durable"])
def test_sent_again_it_is_answered_again_and_delivered_once(pump: Pump, client_kind: str) -> None:
    publisher = pump.client("p") if client_kind == "clean" else durable(pump, "p")
    subscriber = pump.client("s").subscribed("t", 1)
    for dup in (False, True, True):
        publisher.publish("t", b"one", qos=2, packet_id=5, dup=dup)
        pump.commit()
        assert publisher.take_ack(const.PUBREC) == 5
    assert subscriber.take_payloads() == [b"one"]
    publisher.ack(const.PUBREL, 5)
    pump.commit()
    publisher.take_ack(const.PUBCOMP)
    publisher.publish("t", b"two", qos=2, packet_id=5)  # the identifier is free again
    pump.commit()
    assert subscriber.take_payloads() == [b"two"]


def test_sent_again_before_the_commit_it_gets_one_pubrec(pump: Pump) -> None:
    publisher = durable(pump, "p")
    publisher.publish("t", qos=2, packet_id=5)
    publisher.publish("t", qos=2, packet_id=5, dup=True)
    assert publisher.inbox == []
    pump.commit()
    assert publisher.types == ["PUBREC 5"]


def test_sent_again_on_the_next_connection_it_is_delivered_once(pump: Pump) -> None:
    subscriber = pump.client("s").subscribed("t", 1)
    publisher = durable(pump, "p")
    publisher.publish("t", b"one", qos=2, packet_id=5)
    publisher.vanish()
    publisher = come_back(pump, "p")
    publisher.publish("t", b"one", qos=2, packet_id=5, dup=True)
    pump.commit()
    assert publisher.take_ack(const.PUBREC) == 5
    assert subscriber.take_payloads() == [b"one"]


def test_sent_again_after_a_crash_it_is_delivered_once(pump: Pump) -> None:
    durable(pump, "s").subscribed("t", 1).vanish()
    publisher = durable(pump, "p")
    publisher.publish("t", b"one", qos=2, packet_id=5)
    pump.commit()
    pump.crash()
    publisher = come_back(pump, "p")
    publisher.publish("t", b"one", qos=2, packet_id=5, dup=True)
    pump.commit()
    assert publisher.take_ack(const.PUBREC) == 5
    assert come_back(pump, "s").take_payloads() == [b"one"]


def test_lost_in_a_crash_before_its_commit_it_was_not_acknowledged_and_comes_again(pump: Pump) -> None:
    durable(pump, "s").subscribed("t", 1).vanish()
    publisher = durable(pump, "p")
    pump.commit()
    publisher.publish("t", b"one", qos=2, packet_id=5)
    assert publisher.inbox == []
    pump.crash()
    publisher = come_back(pump, "p")
    publisher.publish("t", b"one", qos=2, packet_id=5, dup=True)
    pump.commit()
    assert come_back(pump, "s").take_payloads() == [b"one"]


@pytest.mark.parametrize("version", [const.MQTT_3_1_1, const.MQTT_5])
def test_pubrel_for_nothing_is_answered_all_the_same(pump: Pump, version: int) -> None:
    publisher = pump.client("p", version=version)
    publisher.ack(const.PUBREL, 9)
    answer = publisher.take(Ack, const.PUBCOMP)
    expected = const.PACKET_IDENTIFIER_NOT_FOUND if version == const.MQTT_5 else const.SUCCESS
    assert (answer.packet_id, answer.reason_code) == (9, expected)


# ---- towards the subscriber


def test_a_clean_subscriber_is_led_through_all_steps(pump: Pump) -> None:
    subscriber = pump.client("s").subscribed("t", 2)
    publisher = pump.client("p")
    publisher.publish("t", b"one", qos=2)
    publish = subscriber.take(Publish)
    assert (publish.payload, publish.qos, publish.packet_id) == (b"one", 2, 1)
    subscriber.ack(const.PUBREC, 1)
    assert subscriber.take_ack(const.PUBREL) == 1
    subscriber.ack(const.PUBCOMP, 1)
    assert subscriber.inbox == []
    assert pump.session("s").queue.in_flight == 0


def test_to_a_durable_subscriber_it_leaves_after_its_commit(pump: Pump) -> None:
    """Its packet identifier must be its own after a crash too, or the subscriber takes another message for this one."""
    subscriber = durable(pump, "s").subscribed("t", 2)
    pump.client("p").publish("t", b"one", qos=2)
    pump.seal()
    assert subscriber.inbox == []
    pump.settle()
    assert subscriber.take(Publish).packet_id == 1


def test_pubrel_leaves_after_the_commit_of_pubrec(pump: Pump) -> None:
    subscriber = durable(pump, "s").subscribed("t", 2)
    pump.client("p").publish("t", b"one", qos=2)
    pump.commit()
    subscriber.take(Publish)
    subscriber.ack(const.PUBREC, 1)
    pump.seal()
    assert subscriber.inbox == []
    pump.settle()
    assert subscriber.take_ack(const.PUBREL) == 1
    subscriber.ack(const.PUBCOMP, 1)
    pump.commit()
    assert pump.store.queues[pump.session("s").session_id].messages == {}


def test_a_subscriber_lost_before_pubrec_gets_the_message_again_with_dup(pump: Pump) -> None:
    subscriber = durable(pump, "s").subscribed("t", 2)
    pump.client("p").publish("t", b"one", qos=2)
    pump.commit()
    subscriber.vanish()
    publish = come_back(pump, "s").take(Publish)
    assert (publish.payload, publish.packet_id, publish.dup) == (b"one", 1, True)


@pytest.mark.parametrize("crash", [False, True])
def test_a_subscriber_lost_after_pubrec_gets_pubrel_and_never_the_message(pump: Pump, crash: bool) -> None:
    subscriber = durable(pump, "s").subscribed("t", 2)
    publisher = pump.client("p")
    publisher.publish("t", b"one", qos=2)
    publisher.publish("t", b"two", qos=2, packet_id=2)
    pump.commit()
    subscriber.ack(const.PUBREC, 1)
    pump.commit()
    if crash:
        pump.crash()
    else:
        subscriber.vanish()
    subscriber = come_back(pump, "s")
    assert subscriber.types == ["PUBREL 1", "PUBLISH 2 QoS 2 b'two'"]
    subscriber.ack(const.PUBCOMP, 1)
    pump.commit()
    assert pump.session("s").queue.head == 2


def test_a_pubrec_whose_commit_a_crash_took_is_asked_for_again(pump: Pump) -> None:
    subscriber = durable(pump, "s").subscribed("t", 2)
    pump.client("p").publish("t", b"one", qos=2)
    pump.commit()
    subscriber.take(Publish)
    subscriber.ack(const.PUBREC, 1)
    assert subscriber.inbox == []
    pump.crash()
    publish = come_back(pump, "s").take(Publish)
    assert (publish.packet_id, publish.dup) == (1, True)


def test_pubrec_twice_gets_pubrel_twice(pump: Pump) -> None:
    subscriber = pump.client("s").subscribed("t", 2)
    pump.client("p").publish("t", b"one", qos=2)
    subscriber.take(Publish)
    subscriber.ack(const.PUBREC, 1)
    subscriber.ack(const.PUBREC, 1)
    assert [subscriber.take_ack(const.PUBREL) for _ in range(2)] == [1, 1]


def test_a_pubrec_that_refuses_ends_the_delivery(pump: Pump) -> None:
    subscriber = durable(pump, "s").subscribed("t", 2)
    pump.client("p").publish("t", b"one", qos=2)
    pump.commit()
    subscriber.take(Publish)
    subscriber.ack(const.PUBREC, 1, const.QUOTA_EXCEEDED)
    pump.commit()
    assert subscriber.inbox == []
    assert pump.session("s").queue.depth == 0


@pytest.mark.parametrize("version", [const.MQTT_3_1_1, const.MQTT_5])
def test_pubrec_for_nothing_is_answered(pump: Pump, version: int) -> None:
    subscriber = pump.client("s", version=version)
    subscriber.ack(const.PUBREC, 9)
    answer = subscriber.take(Ack, const.PUBREL)
    expected = const.PACKET_IDENTIFIER_NOT_FOUND if version == const.MQTT_5 else const.SUCCESS
    assert (answer.packet_id, answer.reason_code) == (9, expected)


def test_pubrec_for_a_message_of_qos_1_releases_nothing(pump: Pump) -> None:
    subscriber = durable(pump, "s").subscribed("t", 1)
    pump.client("p").publish("t", b"one", qos=1)
    subscriber.take(Publish)
    subscriber.ack(const.PUBREC, 1)
    assert subscriber.take(Ack, const.PUBREL).reason_code == const.PACKET_IDENTIFIER_NOT_FOUND
    subscriber.vanish()
    assert come_back(pump, "s").take_payloads() == [b"one"]


def test_the_lower_of_both_qos_counts_and_the_qos_2_commit_is_still_waited_for(pump: Pump) -> None:
    publisher = durable(pump, "p")
    subscriber = durable(pump, "s").subscribed("t", 1)
    publisher.publish("t", b"one", qos=2)
    assert subscriber.inbox == []
    pump.commit()
    assert subscriber.take(Publish).qos == 1


def test_a_later_message_of_qos_1_does_not_overtake_in_a_durable_queue(pump: Pump) -> None:
    publisher = durable(pump, "p")
    subscriber = durable(pump, "s").subscribed("t", 2)
    publisher.publish("t", b"one", qos=2, packet_id=1)
    publisher.publish("t", b"two", qos=1, packet_id=2)
    assert subscriber.inbox == []
    pump.commit()
    assert subscriber.take_payloads() == [b"one", b"two"]
