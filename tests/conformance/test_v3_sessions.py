"""MQTT 3.1.1: sessions, over connections and restarts (sections 3.1.2.4, 3.2.2, 4.1, 4.4)."""

from __future__ import annotations

import pytest

from tests.conformance.codec import (
    Connack,
    Connect,
    Puback,
    Pubcomp,
    Publish,
    Pubrec,
    Pubrel,
)
from tests.conformance.conftest import StartBroker
from tests.conformance.harness import RunningBroker
from tests.conformance.normative import normative
from tests.conformance.wire import Wire, fresh


def come_back(broker: RunningBroker, client_id: str | bytes, present: bool = True) -> Wire:
    """Connect without clean session; the CONNACK tells whether the session was there."""
    wire = broker.wire()
    assert wire.connect(client_id, clean=False) == Connack(session_present=present)
    return wire


@normative("MQTT-3.1.2-4", "MQTT-3.2.2-2", "MQTT-3.2.2-3")
def test_a_session_is_made_and_found_again(broker: RunningBroker) -> None:
    name = fresh("client-")
    come_back(broker, name, present=False).disconnect()
    come_back(broker, name, present=True)


@normative("MQTT-3.1.2-4", "MQTT-3.1.3-2", "MQTT-4.1.0-1")
def test_subscriptions_outlive_the_connection(broker: RunningBroker, topic: str) -> None:
    name, other = fresh("client-"), fresh("client-")
    wire = come_back(broker, name, present=False)
    wire.subscribe((topic, 2))
    broker.vanish(wire)
    stranger = come_back(broker, other, present=False)
    again = come_back(broker, name)
    broker.client().publish(topic, b"x", qos=2)
    again.expect_message(topic, b"x", qos=2)
    stranger.expect_nothing()


@normative("MQTT-3.1.2-5", "MQTT-4.5.0-1")
def test_messages_for_an_absent_client_are_kept(broker: RunningBroker, topic: str) -> None:
    wire = broker.client(clean=False)
    wire.subscribe((f"{topic}/1", 1), (f"{topic}/2", 2), (f"{topic}/#", 0))
    wire.disconnect()
    publisher = broker.client()
    for number in range(20):
        publisher.publish(f"{topic}/{1 + number % 2}", b"%d" % number, qos=1 + number % 2)
    again = come_back(broker, wire.client_id)
    for number in range(20):
        again.expect_message(f"{topic}/{1 + number % 2}", b"%d" % number, qos=1 + number % 2)
    again.expect_nothing()


@normative("MQTT-3.1.2-4", "MQTT-3.1.2-5", "MQTT-4.1.0-1")
def test_a_session_outlives_a_restart(start_broker: StartBroker, topic: str) -> None:
    broker = start_broker()
    wire = broker.client(clean=False)
    wire.subscribe((topic, 2))
    wire.disconnect()
    broker.client().publish(topic, b"before", qos=1)
    broker.restart()
    broker.client().publish(topic, b"after", qos=2)
    again = come_back(broker, wire.client_id)
    again.expect_message(topic, b"before", qos=1)
    again.expect_message(topic, b"after", qos=2)
    again.expect_nothing()


@normative("MQTT-3.1.2-6", "MQTT-3.1.4-3", "MQTT-3.2.2-1")
def test_clean_session_drops_the_session_before(broker: RunningBroker, topic: str) -> None:
    wire = broker.client(clean=False)
    wire.subscribe((topic, 1))
    wire.disconnect()
    publisher = broker.client()
    publisher.publish(topic, b"waiting", qos=1)
    clean = broker.wire()
    clean.send(Connect(wire.client_id, clean=True))
    clean.expect(b"\x20\x02\x00\x00")
    publisher.publish(topic, b"unwanted", qos=1)
    clean.expect_nothing()
    clean.disconnect()
    again = come_back(broker, wire.client_id, present=False)
    again.expect_nothing()


@normative("MQTT-3.1.2-6", "MQTT-3.2.2-3")
@pytest.mark.parametrize("goodbye", ["disconnect", "reset"])
def test_a_clean_session_ends_with_its_connection(broker: RunningBroker, topic: str, goodbye: str) -> None:
    wire = broker.client(clean=True)
    wire.subscribe((topic, 1))
    wire.disconnect() if goodbye == "disconnect" else broker.vanish(wire)
    broker.client().publish(topic, b"x", qos=1)
    again = come_back(broker, wire.client_id, present=False)
    again.expect_nothing()


@normative("MQTT-3.1.2-6")
def test_clean_session_forgets_what_was_received_half(broker: RunningBroker, topic: str) -> None:
    """A packet identifier of QoS 2 that the old session had not released is a new message's in the new one."""
    watcher = broker.client()
    watcher.subscribe((topic, 2))
    wire = broker.client(clean=False)
    wire.send(Publish(topic, b"old", qos=2, packet_id=5)).expect(Pubrec(5))
    broker.vanish(wire)
    clean = broker.client(wire.client_id, clean=True)
    clean.send(Publish(topic, b"new", qos=2, packet_id=5)).expect(Pubrec(5))
    watcher.expect_message(topic, b"old", qos=2)
    watcher.expect_message(topic, b"new", qos=2)


@normative("MQTT-3.1.2-7")
@pytest.mark.parametrize("clean", [True, False])
def test_retained_messages_outlive_the_session(broker: RunningBroker, topic: str, clean: bool) -> None:
    wire = broker.client(clean=clean)
    wire.publish(topic, b"kept", qos=1, retain=True)
    wire.disconnect()
    broker.client(wire.client_id, clean=True).disconnect()
    later = broker.client()
    later.subscribe((topic, 1))
    later.expect_message(topic, b"kept", qos=1, retain=True)


@normative("MQTT-3.1.4-2", "MQTT-3.1.4-3")
def test_a_session_goes_over_to_the_client_that_takes_over(broker: RunningBroker, topic: str) -> None:
    first = broker.client(clean=False)
    first.subscribe((topic, 1))
    broker.client().publish(topic, b"x", qos=1)
    packet_id = first.expect(Publish).packet_id
    second = come_back(broker, first.client_id)
    first.expect_closed()
    second.expect(Publish(topic, b"x", qos=1, dup=True, packet_id=packet_id))


@normative("MQTT-4.1.0-2")
@pytest.mark.parametrize("clean", [True, False])
def test_a_session_lasts_as_long_as_its_connection(
    start_broker: StartBroker, topic: str, clean: bool
) -> None:
    broker = start_broker(sessions={"max_expiry_seconds": 60})
    wire = broker.client(clean=clean)
    wire.subscribe((topic, 1))
    broker.pass_time(100_000)
    broker.client().publish(topic, b"x", qos=1)
    wire.expect_message(topic, b"x", qos=1)


@normative("MQTT-4.1.0-1")
def test_a_session_is_kept_as_long_as_is_configured(start_broker: StartBroker) -> None:
    broker = start_broker(sessions={"max_expiry_seconds": 60})
    broker.client("sensor", clean=False).disconnect()
    broker.pass_time(50)
    come_back(broker, "sensor").disconnect()
    broker.pass_time(50)
    come_back(broker, "sensor").disconnect()
    broker.pass_time(70)
    come_back(broker, "sensor", present=False)


RETURNS = pytest.mark.parametrize("returns", ["reconnected", "restarted"])


def leave_and_return(broker: RunningBroker, wire: Wire, returns: str) -> Wire:
    """The connection breaks, or the broker is started again; the client comes back to its session."""
    broker.vanish(wire)
    if returns == "restarted":
        broker.restart()
    return come_back(broker, wire.client_id)


@normative("MQTT-4.4.0-1", "MQTT-3.3.1-1", "MQTT-4.3.2-1", "MQTT-4.6.0-1", "MQTT-4.1.0-1")
@RETURNS
def test_unacknowledged_publishes_come_again(start_broker: StartBroker, topic: str, returns: str) -> None:
    broker = start_broker()
    wire = broker.client(clean=False)
    wire.subscribe((topic, 2))
    publisher = broker.client()
    for number in range(12):
        publisher.publish(topic, b"%d" % number, qos=1 + number % 2)
    first = [wire.expect(Publish) for _ in range(12)]
    wire.acknowledge(first[4])
    wire.acknowledge(first[7])
    broker.settle()
    again = leave_and_return(broker, wire, returns)
    for message in first:
        if message not in (first[4], first[7]):
            again.expect(Publish(topic, message.payload, message.qos, dup=True, packet_id=message.packet_id))
    again.expect_nothing()


@normative("MQTT-4.4.0-1", "MQTT-4.3.3-1")
@RETURNS
def test_unacknowledged_pubrels_come_again_and_no_publish(
    start_broker: StartBroker, topic: str, returns: str
) -> None:
    broker = start_broker()
    wire = broker.client(clean=False)
    wire.subscribe((topic, 2))
    publisher = broker.client()
    for number in range(3):
        publisher.publish(topic, b"%d" % number, qos=2)
    ids = [wire.expect(Publish).packet_id for _ in range(3)]
    for packet_id in ids[:2]:
        wire.send(Pubrec(packet_id)).expect(Pubrel(packet_id))
    again = leave_and_return(broker, wire, returns)
    got = [again.take() for _ in range(3)]
    assert [packet for packet in got if isinstance(packet, Pubrel)] == [Pubrel(ids[0]), Pubrel(ids[1])]
    assert [packet for packet in got if isinstance(packet, Publish)] == [
        Publish(topic, b"2", qos=2, dup=True, packet_id=ids[2])
    ]
    again.send(Pubcomp(ids[0]), Pubcomp(ids[1]), Pubrec(ids[2])).expect(Pubrel(ids[2]))
    again.send(Pubcomp(ids[2]))
    again.expect_nothing()
    leave_and_return(broker, again, returns).expect_nothing()


@normative("MQTT-4.3.3-2", "MQTT-4.1.0-1")
@RETURNS
def test_a_half_received_message_is_remembered(start_broker: StartBroker, topic: str, returns: str) -> None:
    broker = start_broker()
    watcher = broker.client("watcher", clean=False)
    watcher.subscribe((topic, 2))
    wire = broker.client(clean=False)
    wire.send(Publish(topic, b"once", qos=2, packet_id=9)).expect(Pubrec(9))
    watcher.expect_message(topic, b"once", qos=2)
    watcher.expect_nothing()
    again = leave_and_return(broker, wire, returns)
    again.send(Publish(topic, b"once", qos=2, packet_id=9, dup=True)).expect(Pubrec(9))
    again.send(Pubrel(9)).expect(Pubcomp(9))
    if returns == "restarted":
        watcher = come_back(broker, "watcher")
    watcher.expect_nothing()
    again.send(Publish(topic, b"twice", qos=2, packet_id=9)).expect(Pubrec(9))
    watcher.expect_message(topic, b"twice", qos=2)


@normative("MQTT-4.4.0-1")
def test_nothing_comes_again_while_the_connection_stands(start_broker: StartBroker, topic: str) -> None:
    broker = start_broker()
    wire = broker.client(clean=False)
    wire.subscribe((topic, 2))
    broker.client().publish(topic, b"x", qos=1)
    message = wire.expect(Publish)
    broker.pass_time(3600)
    wire.expect_nothing()
    wire.send(Puback(message.packet_id))
    wire.expect_nothing()
