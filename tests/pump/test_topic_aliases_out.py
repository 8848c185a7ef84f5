"""Topic aliases that the broker gives [MQTT 5 3.3.2.3.4]: fewer bytes, the same messages."""

from __future__ import annotations

import pytest

from edge_broker.wire import const
from edge_broker.wire.encoder import encode_publish
from edge_broker.wire.packets import Publish
from tests.pump.pump import Pump


@pytest.mark.parametrize("qos", [0, 1, 2])
@pytest.mark.parametrize("publisher_version", [const.MQTT_3_1_1, const.MQTT_5])
def test_a_topic_that_comes_again_comes_as_a_number(pump: Pump, qos: int, publisher_version: int) -> None:
    topic = "plants/7/rooms/12/temperature"
    subscriber = pump.client("s", properties={const.TOPIC_ALIAS_MAXIMUM: 5}).subscribed("#", qos)
    publisher = pump.client("p", version=publisher_version)
    sizes = []
    for number in range(1, 5):
        before = subscriber.bytes_received
        publisher.publish(topic, b"%d" % number, qos, packet_id=number)
        pump.commit()
        sizes.append(subscriber.bytes_received - before)
        received = subscriber.take(Publish)
        assert (received.topic, received.payload, received.qos) == (topic, b"%d" % number, qos)
    assert sizes[1] == sizes[0] + 3
    assert sizes[2] == sizes[3] == sizes[0] + 3 - len(topic)


def test_with_expiry_and_properties(pump: Pump) -> None:
    subscriber = pump.client("s", properties={const.TOPIC_ALIAS_MAXIMUM: 1}).subscribed("#", 1, identifier=9)
    publisher = pump.client("p")
    properties = {const.MESSAGE_EXPIRY_INTERVAL: 60, const.USER_PROPERTY: [("a", "b")]}
    for number in range(1, 4):
        publisher.publish("rooms/1", b"x", 1, packet_id=number, properties=properties)
        received = subscriber.take(Publish)
        assert received.topic == "rooms/1"
        assert received.properties == {const.USER_PROPERTY: [("a", "b")]}
        assert (received.expiry_interval, received.subscription_ids) == (60, (9,))


def test_who_takes_none_gets_none(pump: Pump) -> None:
    subscriber = pump.client("s").subscribed("#")
    publisher = pump.client("p")
    for _ in range(3):
        publisher.publish("rooms/1", b"x")
        assert subscriber.take(Publish).topic == "rooms/1"


def test_after_a_reconnect_they_begin_anew(pump: Pump) -> None:
    options = {"clean": False, "expiry": 60, "properties": {const.TOPIC_ALIAS_MAXIMUM: 1}}
    subscriber = pump.client("s", **options).subscribed("#", 1)
    publisher = pump.client("p")
    for number in range(1, 4):
        publisher.publish("rooms/1", b"x", 1, packet_id=number)
        pump.commit()
    assert len(subscriber.take_payloads()) == 3
    subscriber.vanish()
    again = pump.client("s", **options)
    assert [again.take(Publish).topic for _ in range(3)] == ["rooms/1"] * 3


def test_a_packet_that_fits_only_without_goes_without(pump: Pump) -> None:
    long = b"x" * 50
    size = len(encode_publish(const.MQTT_5, "rooms/1", long))
    subscriber = pump.client(
        "s", properties={const.TOPIC_ALIAS_MAXIMUM: 1, const.MAXIMUM_PACKET_SIZE: size + 1}
    )
    subscriber.subscribed("#")
    publisher = pump.client("p")
    for added in (b"", b"", b"1", b"12", b""):
        publisher.publish("rooms/1", long + added)
    assert [subscriber.take(Publish).payload[50:] for _ in range(4)] == [b"", b"", b"1", b""]
    assert pump.dropped == {"packet_too_large": 1}
