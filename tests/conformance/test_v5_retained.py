"""MQTT 5.0, section 3.3.1.3: retained messages: what is kept, what replaces and removes it, who is sent it and when."""

from __future__ import annotations

import pytest

from tests.conformance.codec import V5, Publish
from tests.conformance.conftest import StartBroker
from tests.conformance.harness import RunningBroker
from tests.conformance.normative import normative
from tests.conformance.wire import Wire

RETAIN_AS_PUBLISHED = 0x08
RETAIN_IF_NEW, RETAIN_NEVER = 0x10, 0x20
EXPIRY = {"session_expiry_interval": 10_000}


def retain(broker: RunningBroker, topic: str, payload: bytes, qos: int = 1) -> None:
    """Publish it with RETAIN, and wait until the broker has it."""
    broker.client(version=V5).publish(topic, payload, qos, retain=True)


def late(broker: RunningBroker, topic_filter: str, options: int = 2) -> Wire:
    """A client that subscribes now."""
    wire = broker.client(version=V5)
    wire.subscribe((topic_filter, options))
    return wire


# ---- what is kept


@normative("MQTT-3.3.1-5", "MQTT-3.3.1-9")
@pytest.mark.parametrize("qos", [0, 1, 2])
def test_the_newest_retained_message_is_the_one(broker: RunningBroker, topic: str, qos: int) -> None:
    retain(broker, topic, b"first", 1)
    retain(broker, topic, b"second", qos)
    wire = late(broker, topic)
    wire.expect_message(topic, b"second", qos, retain=True)
    wire.expect_nothing()


@normative("MQTT-3.3.1-5")
def test_it_is_kept_with_nobody_connected_and_over_a_restart(start_broker: StartBroker, topic: str) -> None:
    broker = start_broker()
    retain(broker, topic, b"kept")
    retain(broker, f"{topic}/0", b"at QoS 0", 0)
    broker.settle()
    broker.restart()
    late(broker, topic).expect_message(topic, b"kept", 1, retain=True)
    late(broker, f"{topic}/0").expect_message(f"{topic}/0", b"at QoS 0", 0, retain=True)


@normative("MQTT-3.3.1-6", "MQTT-3.3.1-7")
@pytest.mark.parametrize("qos", [0, 1, 2])
def test_an_empty_one_removes_it_and_is_delivered(broker: RunningBroker, topic: str, qos: int) -> None:
    watcher = late(broker, topic, 2 | RETAIN_AS_PUBLISHED)
    retain(broker, topic, b"kept")
    watcher.expect_message(topic, b"kept", 1)
    retain(broker, topic, b"", qos)
    watcher.expect_message(topic, b"", qos)
    late(broker, topic).expect_nothing()


@normative("MQTT-3.3.1-7")
def test_an_empty_one_is_not_kept_where_there_was_none(start_broker: StartBroker, topic: str) -> None:
    broker = start_broker()
    retain(broker, topic, b"")
    late(broker, topic).expect_nothing()
    broker.restart()
    late(broker, topic).expect_nothing()


@normative("MQTT-3.3.1-6", "MQTT-3.3.1-7")
def test_a_removed_one_does_not_come_back_with_a_restart(start_broker: StartBroker, topic: str) -> None:
    broker = start_broker()
    retain(broker, topic, b"kept")
    broker.restart()
    retain(broker, topic, b"")
    broker.restart()
    late(broker, topic).expect_nothing()


@normative("MQTT-3.3.1-8")
@pytest.mark.parametrize("payload", [b"passing by", b""])
@pytest.mark.parametrize("qos", [0, 1, 2])
def test_what_is_not_retained_changes_nothing(
    broker: RunningBroker, topic: str, payload: bytes, qos: int
) -> None:
    broker.client(version=V5).publish(topic, payload, qos)
    late(broker, topic).expect_nothing()
    retain(broker, topic, b"kept")
    broker.client(version=V5).publish(topic, payload, qos)
    wire = late(broker, topic)
    wire.expect_message(topic, b"kept", 1, retain=True)
    wire.expect_nothing()


@normative("MQTT-3.3.1-5", "MQTT-3.3.2-3")
def test_each_topic_has_its_own(broker: RunningBroker, topic: str) -> None:
    names = [topic, f"{topic}/a", f"{topic}/a/b", f"{topic}/", f"/{topic}"]
    for name in names:
        retain(broker, name, name.encode())
    wire = late(broker, f"{topic}/#")
    assert {m.topic for m in _take(wire, 4)} == set(names[:4])
    wire.expect_nothing()
    one_level = late(broker, f"{topic}/+")
    assert {m.topic for m in _take(one_level, 2)} == {f"{topic}/a", f"{topic}/"}
    one_level.expect_nothing()


def _take(wire: Wire, count: int) -> list[Publish]:
    messages = []
    for _ in range(count):
        message: Publish = wire.expect(Publish)
        assert (message.retain, message.topic) == (True, bytes(message.payload).decode())
        wire.acknowledge(message)
        messages.append(message)
    return messages


# ---- when it is sent


@normative("MQTT-3.3.1-9", "MQTT-3.8.4-4")
def test_retain_handling_0_sends_it_with_every_subscribe(broker: RunningBroker, topic: str) -> None:
    retain(broker, topic, b"kept")
    wire = late(broker, topic)
    wire.expect_message(topic, b"kept", 1, retain=True)
    wire.subscribe((topic, 1))
    wire.expect_message(topic, b"kept", 1, retain=True)
    wire.subscribe((topic, 0))
    wire.expect_message(topic, b"kept", 0, retain=True)


@normative("MQTT-3.3.1-10")
def test_retain_handling_1_sends_it_with_a_new_subscription(broker: RunningBroker, topic: str) -> None:
    retain(broker, topic, b"kept")
    wire = late(broker, topic, 1 | RETAIN_IF_NEW)
    wire.expect_message(topic, b"kept", 1, retain=True)
    wire.subscribe((topic, 2 | RETAIN_IF_NEW))
    wire.expect_nothing()
    wire.unsubscribe(topic)
    wire.subscribe((topic, 1 | RETAIN_IF_NEW))
    wire.expect_message(topic, b"kept", 1, retain=True)


@normative("MQTT-3.3.1-10", "MQTT-3.1.2-23")
def test_retain_handling_1_knows_a_subscription_of_an_earlier_connection(
    start_broker: StartBroker, topic: str
) -> None:
    broker = start_broker()
    wire = broker.client("sleeper", V5, properties=EXPIRY)
    wire.subscribe((topic, 1))
    wire.disconnect()
    broker.client(version=V5).publish(topic, b"kept", 0, retain=True)
    broker.restart()
    wire = broker.client("sleeper", V5, clean=False, properties=EXPIRY)
    wire.subscribe((topic, 1 | RETAIN_IF_NEW))
    wire.expect_nothing()
    wire.subscribe((topic, 1))
    wire.expect_message(topic, b"kept", 0, retain=True)


@normative("MQTT-3.3.1-11")
def test_retain_handling_2_sends_none(broker: RunningBroker, topic: str) -> None:
    retain(broker, topic, b"kept")
    wire = late(broker, topic, 1 | RETAIN_NEVER)
    wire.expect_nothing()
    wire.subscribe((topic, 1 | RETAIN_NEVER))
    wire.expect_nothing()
    retain(broker, topic, b"new")
    wire.expect_message(topic, b"new", 1, retain=False)


@normative("MQTT-3.3.1-9")
def test_a_reconnect_alone_is_no_subscribe(broker: RunningBroker, topic: str) -> None:
    wire = broker.client(version=V5, properties=EXPIRY)
    wire.subscribe((topic, 1))
    wire.disconnect()
    broker.client(version=V5).publish(topic, b"kept", 0, retain=True)
    again = broker.client(wire.client_id, V5, clean=False, properties=EXPIRY)
    again.expect_nothing()


@normative("MQTT-3.3.1-9", "MQTT-3.8.4-8")
@pytest.mark.parametrize("qos", [0, 1, 2])
@pytest.mark.parametrize("granted", [0, 1, 2])
def test_it_is_sent_at_the_lower_qos(broker: RunningBroker, topic: str, qos: int, granted: int) -> None:
    retain(broker, topic, b"kept", qos)
    late(broker, topic, granted).expect_message(topic, b"kept", min(qos, granted), retain=True)


# ---- the flag of what is forwarded


@normative("MQTT-3.3.1-12", "MQTT-3.3.1-13")
@pytest.mark.parametrize("qos", [0, 1, 2])
def test_retain_as_published(broker: RunningBroker, topic: str, qos: int) -> None:
    plain, as_published = late(broker, topic, 2), late(broker, topic, 2 | RETAIN_AS_PUBLISHED)
    publisher = broker.client(version=V5)
    for flag in (True, False):
        publisher.publish(topic, b"x", qos, retain=flag)
        plain.expect_message(topic, b"x", qos, retain=False)
        as_published.expect_message(topic, b"x", qos, retain=flag)


@normative("MQTT-3.3.1-12", "MQTT-3.3.1-13")
def test_retain_as_published_for_what_waited(start_broker: StartBroker, topic: str) -> None:
    broker = start_broker()
    for name, options in (("plain", 1), ("as published", 1 | RETAIN_AS_PUBLISHED)):
        wire = broker.client(name, V5, properties=EXPIRY)
        wire.subscribe((topic, options))
        wire.disconnect()
    publisher = broker.client(version=V5)
    publisher.publish(topic, b"retained", 1, retain=True)
    publisher.publish(topic, b"not", 1)
    broker.restart()
    for name, flag in (("plain", False), ("as published", True)):
        wire = broker.client(name, V5, clean=False, properties=EXPIRY)
        wire.expect_message(topic, b"retained", 1, retain=flag)
        wire.expect_message(topic, b"not", 1, retain=False)


@normative("MQTT-3.3.1-9", "MQTT-3.3.1-12")
def test_what_a_subscription_brings_has_the_flag_in_any_case(broker: RunningBroker, topic: str) -> None:
    retain(broker, topic, b"kept")
    late(broker, topic, 1).expect_message(topic, b"kept", 1, retain=True)


@normative("MQTT-3.3.1-9")
def test_a_shared_subscription_brings_none(broker: RunningBroker, topic: str) -> None:
    """[4.8.2]: none is sent to a session when it first subscribes."""
    retain(broker, topic, b"kept")
    late(broker, f"$share/g/{topic}").expect_nothing()
