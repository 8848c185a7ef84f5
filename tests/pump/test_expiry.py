"""Message expiry: what waits for too long is not delivered, and who gets it in time hears how long is left."""

from __future__ import annotations

from edge_broker.wire import const
from edge_broker.wire.packets import Connack, Publish
from tests.pump.pump import Pump, TestClient

V3, V5 = const.MQTT_3_1_1, const.MQTT_5


def expiring(seconds: int) -> dict[int, int]:
    return {const.MESSAGE_EXPIRY_INTERVAL: seconds}


def come_back(pump: Pump, client_id: str = "d") -> TestClient:
    client = TestClient(pump)
    client.connect(client_id, clean=False, expiry=3600)
    pump.commit()
    client.take(Connack)
    return client


def test_at_once_all_of_it_is_left(pump: Pump) -> None:
    client = pump.client("c").subscribed("t", 1)
    publisher = pump.client("p")
    for qos in (0, 1):
        publisher.publish("t", b"x", qos=qos, properties=expiring(10))
    assert [p.expiry_interval for p in client.inbox if isinstance(p, Publish)] == [10, 10]


def test_a_3_1_1_subscriber_gets_it_without(pump: Pump) -> None:
    client = pump.client("c", version=V3).subscribed("t", 1)
    pump.client("p").publish("t", b"x", qos=1, properties=expiring(10))
    assert client.take_payloads() == [b"x"]


def test_in_a_durable_queue_time_passes(pump: Pump) -> None:
    pump.client("d", clean=False, expiry=3600).subscribed("t", 1).vanish()
    publisher = pump.client("p")
    publisher.publish("t", b"short", qos=1, packet_id=1, properties=expiring(5))
    publisher.publish("t", b"long", qos=1, packet_id=2, properties=expiring(50))
    publisher.publish("t", b"for ever", qos=1, packet_id=3)
    pump.commit()
    pump.wait(20)
    client = come_back(pump)
    got = [(p.payload, p.packet_id, p.expiry_interval) for p in client.inbox if isinstance(p, Publish)]
    assert got == [(b"long", 2, 30), (b"for ever", 3, None)]
    assert pump.session("d").queue.expired == 1
    pump.commit()
    queue = pump.store.queues[pump.session("d").session_id]
    assert (queue.head, sorted(queue.messages)) == (2, [2, 3])


def test_through_a_crash_too(pump: Pump) -> None:
    pump.client("d", clean=False, expiry=3600).subscribed("t", 1).vanish()
    pump.client("p").publish("t", b"short", qos=1, properties=expiring(5))
    pump.client("p").publish("t", b"long", qos=1, properties=expiring(50))
    pump.commit()
    pump.now += 20
    pump.crash()
    client = come_back(pump)
    assert [(p.payload, p.expiry_interval) for p in client.inbox if isinstance(p, Publish)] == [(b"long", 30)]


def test_a_queue_of_nothing_but_expired_messages_is_passed_over(pump: Pump) -> None:
    pump.client("d", clean=False, expiry=3600).subscribed("t", 1).vanish()
    publisher = pump.client("p")
    for number in range(1, 101):
        publisher.publish("t", b"%d" % number, qos=1, packet_id=number, properties=expiring(5))
    publisher.publish("t", b"last", qos=1, packet_id=500)
    pump.commit()
    pump.wait(6)
    client = come_back(pump)
    assert client.take_payloads() == [b"last"]
    assert pump.session("d").queue.expired == 100


def test_expired_behind_a_full_window(pump: Pump) -> None:
    client = pump.client("c", properties={const.RECEIVE_MAXIMUM: 1}).subscribed("t", 1)
    publisher = pump.client("p")
    publisher.publish("t", b"one", qos=1, packet_id=1)
    publisher.publish("t", b"two", qos=1, packet_id=2, properties=expiring(5))
    publisher.publish("t", b"three", qos=1, packet_id=3)
    pump.wait(6)
    client.take(Publish)
    client.ack(const.PUBACK, 1)
    assert client.take_payloads() == [b"three"]
    assert pump.session("c").queue.bytes_in_memory == 0


def test_a_publisher_waits_not_for_what_has_expired(pump: Pump) -> None:
    """Passed over before its commit, it is done with as if it were acknowledged."""
    client = pump.client("d", clean=False, expiry=3600, properties={const.RECEIVE_MAXIMUM: 1}).subscribed(
        "t", 1
    )
    publisher = pump.client("p")
    publisher.publish("t", b"one", qos=1, packet_id=1)
    publisher.publish("t", b"two", qos=1, packet_id=2, properties=expiring(5))
    pump.wait(6)
    client.ack(const.PUBACK, 1)
    assert publisher.types == ["PUBACK 1", "PUBACK 2"]


def test_sent_again_with_less_left(pump: Pump) -> None:
    client = pump.client("d", clean=False, expiry=3600).subscribed("t", 1)
    pump.client("p").publish("t", b"x", qos=1, properties=expiring(50))
    assert client.take(Publish).expiry_interval == 50
    client.vanish()
    pump.commit()
    pump.wait(20)
    publish = come_back(pump).take(Publish)
    assert (publish.expiry_interval, publish.dup) == (30, True)


def test_other_properties_travel_with_it(pump: Pump) -> None:
    client = pump.client("c").subscribed("t", 1)
    properties = {const.CONTENT_TYPE: "text", const.USER_PROPERTY: [("a", "b")], **expiring(10)}
    pump.client("p").publish("t", b"x", qos=1, properties=properties)
    publish = client.take(Publish)
    assert publish.properties == {const.CONTENT_TYPE: "text", const.USER_PROPERTY: [("a", "b")]}
    assert publish.expiry_interval == 10
