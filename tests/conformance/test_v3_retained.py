"""MQTT 3.1.1: retained messages (section 3.3.1.3)."""

from __future__ import annotations

import pytest

from tests.conformance.codec import Publish, Suback, Subscribe
from tests.conformance.conftest import StartBroker
from tests.conformance.harness import RunningBroker
from tests.conformance.normative import normative
from tests.conformance.wire import Wire


def newcomer(broker: RunningBroker, topic_filter: str, qos: int = 2) -> Wire:
    """A client that has just subscribed."""
    wire = broker.client()
    wire.subscribe((topic_filter, qos))
    return wire


@normative("MQTT-3.3.1-5", "MQTT-3.3.1-8", "MQTT-3.8.4-6")
@pytest.mark.parametrize("granted", [0, 1, 2])
@pytest.mark.parametrize("published", [0, 1, 2])
def test_a_retained_message_is_kept_with_its_qos(
    broker: RunningBroker, topic: str, published: int, granted: int
) -> None:
    broker.client().publish(topic, b"kept", published, retain=True)
    for _ in range(2):
        newcomer(broker, topic, granted).expect_message(topic, b"kept", min(published, granted), retain=True)


@normative("MQTT-3.3.1-5")
@pytest.mark.parametrize("qos", [0, 1, 2])
def test_a_retained_message_outlives_a_restart(start_broker: StartBroker, topic: str, qos: int) -> None:
    broker = start_broker()
    publisher = broker.client()
    publisher.publish(topic, b"old", qos, retain=True)
    publisher.publish(topic, b"new", qos, retain=True)
    broker.settle()
    broker.restart()
    newcomer(broker, topic).expect_message(topic, b"new", qos, retain=True)


@normative("MQTT-3.3.1-6", "MQTT-3.3.1-8")
def test_a_new_subscription_gets_the_last_of_each_topic(broker: RunningBroker, topic: str) -> None:
    publisher = broker.client()
    for name in ("a", "b", "b/c"):
        publisher.publish(f"{topic}/{name}", b"older", retain=True)
        publisher.publish(f"{topic}/{name}", name.encode(), retain=True)
    every = newcomer(broker, f"{topic}/#")
    got = {every.expect(Publish).topic: every.last_frame[0] for _ in range(3)}
    assert got == {f"{topic}/a": 0x31, f"{topic}/b": 0x31, f"{topic}/b/c": 0x31}
    every.expect_nothing()
    one = newcomer(broker, f"{topic}/+")
    assert {one.expect(Publish).payload for _ in range(2)} == {b"a", b"b"}
    one.expect_nothing()


@normative("MQTT-3.3.1-6")
def test_every_filter_of_a_subscribe_gets_its_retained_messages(broker: RunningBroker, topic: str) -> None:
    for name in "abc":
        broker.client().publish(f"{topic}/{name}", name.encode(), retain=True)
    wire = broker.client()
    wire.send(Subscribe(1, ((f"{topic}/a", 0), (f"{topic}/none", 0), (f"{topic}/c", 0)))).expect(
        Suback(1, (0, 0, 0))
    )
    assert {wire.expect(Publish).payload for _ in range(2)} == {b"a", b"c"}
    wire.expect_nothing()


@normative("MQTT-3.3.1-7")
@pytest.mark.parametrize("before", [0, 1, 2])
def test_qos_0_takes_the_place_of_what_was_retained(broker: RunningBroker, topic: str, before: int) -> None:
    """This broker keeps the new one, as it should; the specification would let it keep none."""
    publisher = broker.client()
    publisher.publish(topic, b"old", before, retain=True)
    publisher.publish(topic, b"new", qos=0, retain=True)
    wire = newcomer(broker, topic)
    wire.expect(Publish(topic, b"new", retain=True))
    wire.expect_nothing()


@normative("MQTT-3.3.1-9")
@pytest.mark.parametrize("qos", [0, 1, 2])
def test_a_standing_subscription_gets_it_without_the_flag(
    broker: RunningBroker, topic: str, qos: int
) -> None:
    wire = newcomer(broker, topic)
    absent = broker.client(clean=False)
    absent.subscribe((topic, 2))
    absent.disconnect()
    publisher = broker.client()
    publisher.publish(topic, b"kept", qos, retain=True)
    publisher.publish(topic, b"plain", qos)
    wire.expect_message(topic, b"kept", qos, retain=False)
    wire.expect_message(topic, b"plain", qos, retain=False)
    if qos:
        broker.client(absent.client_id, clean=False).expect_message(topic, b"kept", qos, retain=False)


@normative("MQTT-3.3.1-10", "MQTT-3.3.1-11")
@pytest.mark.parametrize("qos", [0, 1, 2])
@pytest.mark.parametrize("first", [True, False], ids=["over one", "over none"])
def test_an_empty_retained_message_removes(broker: RunningBroker, topic: str, qos: int, first: bool) -> None:
    publisher = broker.client()
    if first:
        publisher.publish(topic, b"kept", qos=1, retain=True)
    wire = broker.client()
    wire.subscribe((topic, 2))
    if first:
        wire.expect_message(topic, b"kept", qos=1, retain=True)
    publisher.publish(topic, b"", qos, retain=True)
    wire.expect_message(topic, b"", qos, retain=False)
    newcomer(broker, topic).expect_nothing()


@normative("MQTT-3.3.1-10", "MQTT-3.3.1-11")
def test_what_was_removed_stays_so_after_a_restart(start_broker: StartBroker, topic: str) -> None:
    broker = start_broker()
    publisher = broker.client()
    publisher.publish(topic, b"kept", qos=1, retain=True)
    broker.restart()
    broker.client().publish(topic, b"", qos=1, retain=True)
    broker.restart()
    newcomer(broker, topic).expect_nothing()


@normative("MQTT-3.3.1-12")
@pytest.mark.parametrize("payload", [b"passing", b""])
@pytest.mark.parametrize("qos", [0, 1, 2])
def test_a_message_without_the_flag_changes_nothing(
    broker: RunningBroker, topic: str, payload: bytes, qos: int
) -> None:
    publisher = broker.client()
    publisher.publish(f"{topic}/none", payload, qos)
    publisher.publish(f"{topic}/one", b"kept", qos=1, retain=True)
    publisher.publish(f"{topic}/one", payload, qos)
    newcomer(broker, f"{topic}/none").expect_nothing()
    newcomer(broker, f"{topic}/one").expect_message(f"{topic}/one", b"kept", qos=1, retain=True)
