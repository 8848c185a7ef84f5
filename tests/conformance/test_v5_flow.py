"""MQTT 5.0, chapter 4.9: flow control: how much of QoS 1 and 2 is under way to a client, and what goes on meanwhile."""

from __future__ import annotations

from typing import Any

import pytest

from tests.conformance.codec import V5, Puback, Pubcomp, Publish, Pubrec, Pubrel
from tests.conformance.conftest import StartBroker
from tests.conformance.harness import RunningBroker
from tests.conformance.normative import normative
from tests.conformance.wire import Wire

EXPIRY = {"session_expiry_interval": 1000}


def windowed(broker: RunningBroker, topic: str, maximum: int | None, durable: bool, **fields: Any) -> Wire:
    """A subscriber that takes `maximum` at a time."""
    properties = ({} if maximum is None else {"receive_maximum": maximum}) | (EXPIRY if durable else {})
    wire = broker.client(version=V5, properties=properties, **fields)
    wire.subscribe((topic, 2))
    return wire


def publish(broker: RunningBroker, topic: str, *qos: int) -> None:
    """A message at each QoS, numbered from 0."""
    publisher = broker.client(version=V5)
    for number, one in enumerate(qos):
        publisher.publish(topic, b"%d" % number, one)


@normative("MQTT-3.3.4-9", "MQTT-4.9.0-1", "MQTT-4.9.0-2")
@pytest.mark.parametrize("maximum", [1, 2, 7])
@pytest.mark.parametrize("durable", [False, True])
def test_no_more_than_receive_maximum_is_under_way(
    broker: RunningBroker, topic: str, maximum: int, durable: bool
) -> None:
    wire = windowed(broker, topic, maximum, durable)
    publish(broker, topic, *[1, 2] * 10)
    under_way = [wire.expect(Publish) for _ in range(maximum)]  # from the first on: the quota begins whole
    wire.expect_nothing()
    for number in range(20):
        message = under_way.pop(0)
        assert message.payload == b"%d" % number
        packet_id = message.packet_id or 0
        if message.qos == 2:
            wire.send(Pubrec(packet_id)).expect(Pubrel(packet_id))
            wire.expect_nothing()  # PUBREC gives nothing back
            wire.send(Pubcomp(packet_id))
        else:
            wire.send(Puback(packet_id))
        if number + maximum < 20:
            under_way.append(wire.expect(Publish))
        wire.expect_nothing()


@normative("MQTT-4.9.0-2", "MQTT-3.3.4-9", "MQTT-4.4.0-2")
@pytest.mark.parametrize("qos", [1, 2])
def test_a_refusal_gives_the_quota_back(broker: RunningBroker, topic: str, qos: int) -> None:
    wire = windowed(broker, topic, 1, durable=False)
    publish(broker, topic, *[qos] * 5)
    for number in range(5):
        message: Publish = wire.expect(Publish)
        assert message.payload == b"%d" % number
        wire.send((Puback if qos == 1 else Pubrec)(message.packet_id or 0, 0x83))
    wire.expect_nothing()


@normative("MQTT-3.3.4-9", "MQTT-4.9.0-2")
def test_acknowledgements_of_nothing_give_no_quota(broker: RunningBroker, topic: str) -> None:
    wire = windowed(broker, topic, 2, durable=False)
    publish(broker, topic, 1, 2, 1, 1)
    first, second = wire.expect(Publish), wire.expect(Publish)
    packet_id = second.packet_id or 0
    wire.send(Puback(999), Pubcomp(999), Pubrec(998, 0x80)).expect_nothing()
    wire.send(Puback(first.packet_id or 0), Puback(first.packet_id or 0))
    assert wire.expect(Publish).payload == b"2"
    wire.expect_nothing()
    for _ in range(2):
        wire.send(Pubrec(packet_id)).expect(Pubrel(packet_id))
    wire.send(Pubcomp(packet_id), Pubcomp(packet_id))
    assert wire.expect(Publish).payload == b"3"
    wire.expect_nothing()


@normative("MQTT-3.3.4-10", "MQTT-4.9.0-3", "MQTT-3.12.4-1")
@pytest.mark.parametrize("durable", [False, True])
def test_everything_else_goes_on_while_the_quota_is_used_up(
    broker: RunningBroker, topic: str, durable: bool
) -> None:
    wire = windowed(broker, topic, 1, durable)
    publish(broker, topic, 2, 1, 0)
    first: Publish = wire.expect(Publish)
    wire.expect_message(topic, b"2")  # QoS 0 asks for no quota
    wire.ping()
    assert wire.subscribe((f"{topic}/other", 0)).codes == (0,)
    assert wire.unsubscribe(f"{topic}/other").codes == (0,)
    wire.send(Publish("elsewhere", b"x", 1, packet_id=1)).expect(Puback)
    wire.send(Publish("elsewhere", b"x", 2, packet_id=2)).expect(Pubrec)
    wire.send(Pubrel(2)).expect(Pubcomp(2))
    wire.expect_nothing()
    wire.acknowledge(first)
    wire.expect_message(topic, b"1", 1)


@normative("MQTT-4.9.0-1", "MQTT-4.9.0-2", "MQTT-3.3.4-9")
@pytest.mark.parametrize("restart", [False, True])
def test_each_connection_has_its_own_quota(start_broker: StartBroker, topic: str, restart: bool) -> None:
    """What was under way before counts anew, and what is sent again counts."""
    broker = start_broker()
    wire = windowed(broker, topic, 4, durable=True)
    publish(broker, topic, *[1] * 10)
    for _ in range(4):
        wire.expect(Publish)
    wire.expect_nothing()
    client_id, seen = wire.client_id, 4
    for maximum in (2, 6, 1):
        broker.vanish(wire)
        if restart:
            broker.restart()
        properties = EXPIRY | {"receive_maximum": maximum}
        wire = broker.client(client_id, V5, clean=False, properties=properties)
        for number in range(maximum):
            message: Publish = wire.expect(Publish)
            assert message.payload == b"%d" % number
            if not restart:
                assert message.dup is (number < seen)
        seen = max(seen, maximum)
        wire.expect_nothing()


@normative("MQTT-3.3.4-9", "MQTT-4.9.0-2")
def test_a_pubrel_that_is_owed_takes_its_part_of_the_quota(broker: RunningBroker, topic: str) -> None:
    wire = windowed(broker, topic, 2, durable=True)
    publish(broker, topic, 2, 1, 1, 1)
    first, second = wire.expect(Publish), wire.expect(Publish)
    wire.send(Pubrec(first.packet_id or 0)).expect(Pubrel)
    broker.vanish(wire)
    properties = EXPIRY | {"receive_maximum": 2}
    wire = broker.client(wire.client_id, V5, clean=False, properties=properties)
    got: list[Any] = [wire.take(), wire.take()]
    assert Pubrel(first.packet_id or 0) in got
    assert Publish(topic, b"1", 1, dup=True, packet_id=second.packet_id) in got
    publishes = sum(isinstance(packet, Publish) for packet in got)
    wire.expect_nothing()
    assert publishes == 1


@normative("MQTT-4.9.0-1", "MQTT-3.3.4-9")
def test_without_a_receive_maximum_there_are_many_under_way(broker: RunningBroker, topic: str) -> None:
    wire = windowed(broker, topic, None, durable=False)
    publish(broker, topic, *[1] * 100)
    assert [wire.expect(Publish).payload for _ in range(100)] == [b"%d" % number for number in range(100)]


@normative("MQTT-3.3.4-9", "MQTT-3.3.1-9")
@pytest.mark.parametrize("durable", [False, True])
def test_retained_messages_keep_to_the_quota_too(broker: RunningBroker, topic: str, durable: bool) -> None:
    publisher = broker.client(version=V5)
    for number in range(10):
        publisher.publish(f"{topic}/{number}", b"x", 1, retain=True)
    wire = windowed(broker, f"{topic}/#", 3, durable)
    got = [wire.expect(Publish) for _ in range(3)]
    wire.expect_nothing()
    while len(got) < 10:
        wire.send(Puback(got[len(got) - 3].packet_id or 0))
        got.append(wire.expect(Publish))
        wire.expect_nothing()
    assert len({message.topic for message in got}) == 10
