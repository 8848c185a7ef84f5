"""MQTT 5.0, sections 4.3 and 4.4: the three delivery protocols, both sides of each, and what is delivered again."""

from __future__ import annotations

from typing import Any

import pytest

from tests.conformance.codec import V5, Puback, Pubcomp, Publish, Pubrec, Pubrel, frame
from tests.conformance.conftest import StartBroker
from tests.conformance.harness import RunningBroker
from tests.conformance.normative import normative
from tests.conformance.properties import text
from tests.conformance.wire import Wire

NOT_FOUND = 0x92
EXPIRY = {"session_expiry_interval": 10_000}


def durable(broker: RunningBroker, client_id: Any = None, **properties: Any) -> Wire:
    """A client whose session outlives its connection; without clean start, so it goes on where it left."""
    return broker.client(client_id, V5, clean=False, properties=EXPIRY | properties)


def watch(broker: RunningBroker, topic: str, qos: int = 2) -> Wire:
    wire = durable(broker)
    wire.subscribe((topic, qos))
    return wire


def come_back(broker: RunningBroker, wire: Wire, restart: bool = False, **properties: Any) -> Wire:
    """The client's connection breaks and it connects again."""
    broker.vanish(wire)
    if restart:
        broker.restart()
    return durable(broker, wire.client_id, **properties)


# ---- QoS 0


@normative("MQTT-4.3.1-1", "MQTT-3.3.1-2")
@pytest.mark.parametrize("published", [0, 1, 2])
def test_qos_0_goes_out_plain(broker: RunningBroker, topic: str, published: int) -> None:
    wire = broker.client(version=V5)
    wire.subscribe((topic, 0))
    broker.client(version=V5).publish(topic, b"x", published, dup=published > 0)
    wire.expect(frame(0x30, text(topic) + b"\0x"))


@normative("MQTT-4.3.1-1", "MQTT-4.4.0-1")
def test_qos_0_is_not_delivered_again(broker: RunningBroker, topic: str) -> None:
    wire = watch(broker, topic)
    broker.client(version=V5).publish(topic, b"x")
    wire.expect_message(topic, b"x")
    come_back(broker, wire).expect_nothing()


# ---- QoS 1: the broker sends


@normative("MQTT-4.3.2-1", "MQTT-4.3.2-2", "MQTT-4.3.2-3", "MQTT-4.4.0-1")
@pytest.mark.parametrize("restart", [False, True])
def test_qos_1_is_delivered_again_until_acknowledged(
    start_broker: StartBroker, topic: str, restart: bool
) -> None:
    broker = start_broker()
    wire, publisher = watch(broker, topic), broker.client(version=V5)
    for number in range(5):
        publisher.publish(topic, b"%d" % number, 1)
    sent = [wire.expect(Publish) for _ in range(5)]
    assert not any(message.dup for message in sent)
    wire.send(Puback(sent[1].packet_id), Puback(sent[3].packet_id)).ping()
    broker.settle()
    for _ in range(2):
        wire = come_back(broker, wire, restart)
        for message in (sent[0], sent[2], sent[4]):
            wire.expect(Publish(topic, message.payload, 1, dup=True, packet_id=message.packet_id))
        wire.expect_nothing()
    for message in (sent[0], sent[2], sent[4]):
        wire.acknowledge(message)
    wire.ping()
    broker.settle()
    come_back(broker, wire, restart).expect_nothing()


@normative("MQTT-4.4.0-1")
@pytest.mark.parametrize("qos", [1, 2])
def test_nothing_is_sent_again_on_a_connection_that_stands(
    start_broker: StartBroker, topic: str, qos: int
) -> None:
    broker = start_broker()
    wire = watch(broker, topic)
    broker.client(version=V5).publish(topic, b"x", qos)
    message: Publish = wire.expect(Publish)
    for _ in range(3):
        broker.pass_time(100)
        wire.expect_nothing()
    if qos == 2:
        wire.send(Pubrec(message.packet_id)).expect(Pubrel(message.packet_id))
        broker.pass_time(100)
        wire.expect_nothing()


@normative("MQTT-4.4.0-1", "MQTT-4.3.2-3")
def test_a_second_subscribe_and_new_messages_send_nothing_again(broker: RunningBroker, topic: str) -> None:
    wire, publisher = watch(broker, topic, 1), broker.client(version=V5)
    publisher.publish(topic, b"first", 1)
    first: Publish = wire.expect(Publish)
    wire.subscribe((topic, 1))
    publisher.publish(topic, b"second", 1)
    wire.expect_message(topic, b"second", 1)
    wire.expect_nothing()
    wire.acknowledge(first)
    wire.expect_nothing()


@normative("MQTT-4.4.0-2", "MQTT-4.3.2-3")
@pytest.mark.parametrize("code", [0x80, 0x83, 0x87, 0x90, 0x91, 0x97, 0x99])
def test_a_message_refused_by_puback_is_done_with(broker: RunningBroker, topic: str, code: int) -> None:
    wire = watch(broker, topic)
    broker.client(version=V5).publish(topic, b"x", 1)
    message: Publish = wire.expect(Publish)
    wire.send(Puback(message.packet_id or 0, code)).expect_nothing()
    come_back(broker, wire).expect_nothing()


# ---- QoS 1: the broker receives


@normative("MQTT-4.3.2-4", "MQTT-4.5.0-1")
def test_puback_means_that_it_is_the_brokers(start_broker: StartBroker, topic: str) -> None:
    broker = start_broker()
    broker.vanish(wire := watch(broker, topic))
    broker.client(version=V5).publish(topic, b"mine now", 1)
    broker.restart()
    durable(broker, wire.client_id).expect_message(topic, b"mine now", 1)


@normative("MQTT-4.3.2-5")
@pytest.mark.parametrize("dup", [False, True])
def test_after_puback_the_identifier_is_a_new_message(broker: RunningBroker, topic: str, dup: bool) -> None:
    watcher, wire = watch(broker, topic), broker.client(version=V5)
    for payload in (b"first", b"second", b"first"):
        wire.send(Publish(topic, payload, 1, dup=dup, packet_id=7)).expect(Puback(7))
        watcher.expect_message(topic, payload, 1, dup=False)


# ---- QoS 2: the broker sends


@normative("MQTT-4.3.3-1", "MQTT-4.3.3-2", "MQTT-4.3.3-4", "MQTT-4.3.3-3")
@pytest.mark.parametrize("durably", [False, True])
def test_qos_2_step_by_step(broker: RunningBroker, topic: str, durably: bool) -> None:
    wire = watch(broker, topic) if durably else broker.client(version=V5)
    wire.subscribe((topic, 2))
    broker.client(version=V5).publish(topic, b"x", 2)
    message: Publish = wire.expect(Publish)
    assert (message.dup, message.qos) == (False, 2)
    packet_id = message.packet_id or 0
    wire.expect_nothing()
    wire.send(Pubrec(packet_id)).expect(Pubrel(packet_id))
    wire.send(Pubcomp(packet_id)).expect_nothing()


@normative("MQTT-4.3.3-4")
@pytest.mark.parametrize("code", [0x00, 0x10])
def test_pubrel_for_every_pubrec_that_is_no_refusal(broker: RunningBroker, topic: str, code: int) -> None:
    wire = watch(broker, topic)
    broker.client(version=V5).publish(topic, b"x", 2)
    packet_id = wire.expect(Publish).packet_id or 0
    wire.send(Pubrec(packet_id, code)).expect(Pubrel(packet_id))


@normative("MQTT-4.3.3-4", "MQTT-4.4.0-2")
@pytest.mark.parametrize("code", [0x80, 0x83, 0x87, 0x90, 0x91, 0x97, 0x99])
def test_a_message_refused_by_pubrec_is_done_with(broker: RunningBroker, topic: str, code: int) -> None:
    wire = watch(broker, topic)
    broker.client(version=V5).publish(topic, b"x", 2)
    packet_id = wire.expect(Publish).packet_id or 0
    wire.send(Pubrec(packet_id, code)).expect_nothing()
    come_back(broker, wire).expect_nothing()


@normative("MQTT-4.3.3-3", "MQTT-4.4.0-1")
@pytest.mark.parametrize("restart", [False, True])
def test_qos_2_is_delivered_again_until_pubrec(start_broker: StartBroker, topic: str, restart: bool) -> None:
    broker = start_broker()
    wire = watch(broker, topic)
    broker.client(version=V5).publish(topic, b"x", 2)
    packet_id = wire.expect(Publish).packet_id
    for _ in range(2):
        wire = come_back(broker, wire, restart)
        wire.expect(Publish(topic, b"x", 2, dup=True, packet_id=packet_id))
        wire.expect_nothing()


@normative("MQTT-4.3.3-5", "MQTT-4.3.3-6", "MQTT-4.4.0-1")
@pytest.mark.parametrize("restart", [False, True])
def test_after_pubrel_only_pubrel_comes_again(start_broker: StartBroker, topic: str, restart: bool) -> None:
    broker = start_broker()
    wire, publisher = watch(broker, topic), broker.client(version=V5)
    publisher.publish(topic, b"released", 2)
    publisher.publish(topic, b"waiting", 2)
    released, waiting = wire.expect(Publish).packet_id, wire.expect(Publish).packet_id
    wire.send(Pubrec(released)).expect(Pubrel(released))
    for _ in range(2):
        wire = come_back(broker, wire, restart)
        got = [wire.take(), wire.take()]
        assert Pubrel(released) in got
        assert Publish(topic, b"waiting", 2, dup=True, packet_id=waiting) in got
        wire.expect_nothing()
    wire.send(Pubcomp(released)).ping()
    broker.settle()
    wire = come_back(broker, wire, restart)
    wire.expect(Publish(topic, b"waiting", 2, dup=True, packet_id=waiting))
    wire.expect_nothing()


@normative("MQTT-4.3.3-7")
@pytest.mark.parametrize("restart", [False, True])
def test_what_was_sent_does_not_expire_any_more(start_broker: StartBroker, topic: str, restart: bool) -> None:
    broker = start_broker()
    wire = watch(broker, topic)
    broker.client(version=V5).publish(topic, b"x", 2, properties={"message_expiry_interval": 5})
    packet_id = wire.expect(Publish).packet_id
    broker.vanish(wire)
    broker.pass_time(100)
    if restart:
        broker.restart()
    wire = durable(broker, wire.client_id)
    again: Publish = wire.expect(Publish)
    assert (again.packet_id, again.dup, again.payload) == (packet_id, True, b"x")
    wire.acknowledge(again)


@normative("MQTT-3.6.2-1", "MQTT-4.3.3-4", "MQTT-4.13.1-1")
def test_a_pubrec_of_nothing_under_way_is_answered(broker: RunningBroker) -> None:
    wire = broker.client(version=V5)
    pubrel: Pubrel = wire.send(Pubrec(99)).expect(Pubrel)
    assert (pubrel.packet_id, pubrel.code) == (99, NOT_FOUND)
    wire.ping()


@normative("MQTT-4.3.3-6", "MQTT-3.6.2-1")
def test_a_repeated_pubrec_is_answered_by_pubrel(broker: RunningBroker, topic: str) -> None:
    wire = watch(broker, topic)
    broker.client(version=V5).publish(topic, b"x", 2)
    packet_id = wire.expect(Publish).packet_id
    for _ in range(3):
        wire.send(Pubrec(packet_id)).expect(Pubrel(packet_id))
    wire.send(Pubcomp(packet_id)).expect_nothing()


# ---- QoS 2: the broker receives


@normative("MQTT-4.3.3-8", "MQTT-4.3.3-10", "MQTT-4.3.3-11", "MQTT-4.3.3-12")
@pytest.mark.parametrize("durably", [False, True])
def test_a_publish_repeated_before_pubrel_is_delivered_once(
    broker: RunningBroker, topic: str, durably: bool
) -> None:
    watcher = watch(broker, topic)
    wire = durable(broker) if durably else broker.client(version=V5)
    for payload in (b"first", b"second"):
        for dup in (False, True, True, False):
            wire.send(Publish(topic, payload, 2, dup=dup, packet_id=9)).expect(Pubrec(9))
        watcher.expect_message(topic, payload, 2)
        watcher.expect_nothing()
        wire.send(Pubrel(9)).expect(Pubcomp(9))


@normative("MQTT-4.3.3-10", "MQTT-4.3.3-11", "MQTT-3.1.2-23")
@pytest.mark.parametrize("restart", [False, True])
def test_a_publish_repeated_on_a_new_connection_is_delivered_once(
    start_broker: StartBroker, topic: str, restart: bool
) -> None:
    broker = start_broker()
    watcher, wire = watch(broker, topic), durable(broker)
    wire.send(Publish(topic, b"once", 2, packet_id=9)).expect(Pubrec(9))
    watcher.expect_message(topic, b"once", 2)
    wire = come_back(broker, wire, restart)
    watcher = durable(broker, watcher.client_id) if restart else watcher
    wire.send(Publish(topic, b"once", 2, dup=True, packet_id=9)).expect(Pubrec(9))
    watcher.expect_nothing()
    wire.send(Pubrel(9)).expect(Pubcomp(9))
    wire.send(Publish(topic, b"new", 2, packet_id=9)).expect(Pubrec(9))
    watcher.expect_message(topic, b"new", 2)


@normative("MQTT-4.3.3-11", "MQTT-3.7.2-1")
def test_pubcomp_for_a_pubrel_of_nothing_under_way(broker: RunningBroker) -> None:
    wire = broker.client(version=V5)
    pubcomp: Pubcomp = wire.send(Pubrel(77)).expect(Pubcomp)
    assert (pubcomp.packet_id, pubcomp.code) == (77, NOT_FOUND)
    wire.ping()


@normative("MQTT-4.3.3-11", "MQTT-3.7.2-1")
def test_a_repeated_pubrel_is_answered(broker: RunningBroker, topic: str) -> None:
    """The identifier is unknown by then, which is what MQTT 5 has a code for."""
    wire = durable(broker)
    wire.send(Publish(topic, b"x", 2, packet_id=9)).take()
    wire.send(Pubrel(9)).expect(Pubcomp(9))
    pubcomp: Pubcomp = wire.send(Pubrel(9)).expect(Pubcomp)
    assert (pubcomp.packet_id, pubcomp.code) == (9, NOT_FOUND)


@normative("MQTT-4.3.3-13")
def test_the_handshake_goes_on_after_the_message_expired(start_broker: StartBroker, topic: str) -> None:
    broker = start_broker()
    watcher, wire = watch(broker, topic), durable(broker)
    broker.vanish(watcher)
    properties = {"message_expiry_interval": 5}
    wire.send(Publish(topic, b"x", 2, packet_id=9, properties=properties)).expect(Pubrec(9))
    broker.pass_time(100)
    wire.send(Publish(topic, b"x", 2, dup=True, packet_id=9, properties=properties)).expect(Pubrec(9))
    wire.send(Pubrel(9)).expect(Pubcomp(9))
    durable(broker, watcher.client_id).expect_nothing()


@normative("MQTT-4.3.3-8", "MQTT-4.5.0-1")
def test_pubrec_means_that_it_is_the_brokers(start_broker: StartBroker, topic: str) -> None:
    broker = start_broker()
    broker.vanish(watcher := watch(broker, topic))
    durable(broker).send(Publish(topic, b"mine now", 2, packet_id=9)).expect(Pubrec)
    broker.restart()
    durable(broker, watcher.client_id).expect_message(topic, b"mine now", 2)


@normative("MQTT-2.2.1-5", "MQTT-4.3.3-12", "MQTT-4.3.2-5")
def test_both_directions_have_identifiers_of_their_own(broker: RunningBroker, topic: str) -> None:
    """The same number may be under way both ways at the same time [2.2.1]."""
    wire = watch(broker, topic)
    broker.client(version=V5).publish(topic, b"out", 2)
    packet_id = wire.expect(Publish).packet_id or 0
    wire.send(Publish("elsewhere", b"in", 2, packet_id=packet_id))
    pubrec: Pubrec = wire.expect(Pubrec)
    assert (pubrec.packet_id, pubrec.code < 0x80) == (packet_id, True)
    wire.send(Pubrec(packet_id)).expect(Pubrel(packet_id))
    wire.send(Pubrel(packet_id)).expect(Pubcomp(packet_id))
    wire.send(Pubcomp(packet_id)).expect_nothing()
