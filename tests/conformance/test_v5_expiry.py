"""MQTT 5.0, section 3.3.2.3.3: message expiry: what is left of it when a message goes out, and what does not go out."""

from __future__ import annotations

import pytest

from tests.conformance.codec import V5, Publish
from tests.conformance.conftest import StartBroker
from tests.conformance.harness import RunningBroker
from tests.conformance.normative import normative
from tests.conformance.test_v5_publish import EXPIRY, subscriber


@normative("MQTT-3.3.2-5", "MQTT-3.3.2-6")
@pytest.mark.parametrize("restart", [False, True])
def test_a_message_expires_while_it_waits(start_broker: StartBroker, topic: str, restart: bool) -> None:
    broker = start_broker()
    sleeper = broker.client("sleeper", V5, properties=EXPIRY)
    sleeper.subscribe((topic, 1))
    sleeper.disconnect()
    publisher = broker.client(version=V5)
    for seconds in (10, 100, 5):
        publisher.publish(topic, b"%d" % seconds, 1, properties={"message_expiry_interval": seconds})
    publisher.publish(topic, b"never", 1)
    broker.pass_time(30)
    if restart:
        broker.restart()
    sleeper = broker.client("sleeper", V5, clean=False, properties=EXPIRY)
    left = sleeper.expect_message(topic, b"100", 1).properties["message_expiry_interval"]
    assert 60 <= left <= 70
    assert sleeper.expect_message(topic, b"never", 1).properties == {}
    sleeper.expect_nothing()


@normative("MQTT-3.3.2-6")
@pytest.mark.parametrize("qos", [0, 1, 2])
def test_what_did_not_wait_has_its_whole_expiry(broker: RunningBroker, topic: str, qos: int) -> None:
    watcher = subscriber(broker, topic)
    broker.client(version=V5).publish(topic, b"x", qos, properties={"message_expiry_interval": 4_000_000_000})
    left = watcher.expect_message(topic, b"x", qos).properties["message_expiry_interval"]
    assert 3_999_999_990 <= left <= 4_000_000_000


@normative("MQTT-3.3.2-6")
def test_the_expiry_never_grows(broker: RunningBroker, topic: str) -> None:
    """Seconds of a clock are no whole numbers: what is left of an interval just received may not be rounded up past it."""
    watcher, publisher = subscriber(broker, topic), broker.client(version=V5)
    intervals = range(1, 3000, 7)
    for start in range(0, len(intervals), 20):
        batch = intervals[start : start + 20]
        for seconds in batch:
            publisher.send(Publish(topic, b"x", properties={"message_expiry_interval": seconds}))
        for seconds in batch:
            left = watcher.expect_message(topic, b"x").properties["message_expiry_interval"]
            assert seconds - 10 <= left <= seconds


@normative("MQTT-3.3.2-5", "MQTT-3.3.2-6")
@pytest.mark.parametrize("restart", [False, True])
def test_a_retained_message_expires(start_broker: StartBroker, topic: str, restart: bool) -> None:
    broker = start_broker()
    broker.client(version=V5).publish(
        topic, b"x", 1, retain=True, properties={"message_expiry_interval": 100}
    )
    broker.pass_time(40)
    left = subscriber(broker, topic).expect_message(topic, b"x", 1).properties["message_expiry_interval"]
    assert 50 <= left <= 60
    if restart:
        broker.restart()
        assert subscriber(broker, topic).expect_message(topic, b"x", 1).retain
    broker.pass_time(61)
    subscriber(broker, topic).expect_nothing()


@normative("MQTT-3.3.2-5")
def test_a_message_behind_a_full_window_expires_too(start_broker: StartBroker, topic: str) -> None:
    """Delivery to a connected client has not begun either while its receive maximum is used up."""
    broker = start_broker()
    wire = broker.client(version=V5, properties={"receive_maximum": 1})
    wire.subscribe((topic, 1))
    publisher = broker.client(version=V5)
    publisher.publish(topic, b"first", 1)
    publisher.publish(topic, b"expires", 1, properties={"message_expiry_interval": 10})
    publisher.publish(topic, b"stays", 1)
    first: Publish = wire.expect(Publish)
    broker.pass_time(11)
    wire.acknowledge(first)
    wire.expect_message(topic, b"stays", 1)
