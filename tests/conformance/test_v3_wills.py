"""MQTT 3.1.1: wills (sections 3.1.2.5 to 3.1.2.7, 3.14)."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from tests.conformance.codec import Disconnect, Publish, Will
from tests.conformance.conftest import StartBroker
from tests.conformance.harness import RunningBroker
from tests.conformance.normative import normative
from tests.conformance.wire import Wire


def watch(broker: RunningBroker, topic: str) -> Wire:
    """A client that gets whatever is published there."""
    watcher = broker.client()
    watcher.subscribe((topic, 2))
    return watcher


ENDS: dict[str, Callable[[RunningBroker, Wire], None]] = {
    "reset": lambda broker, wire: wire.abort(),
    "closed without DISCONNECT": lambda broker, wire: wire.close(),
    "half closed": lambda broker, wire: wire.finish(),
    "protocol violation": lambda broker, wire: wire.send(b"\xf0\x00").expect_closed(),
    "taken over": lambda broker, wire: broker.client(wire.client_id).ping(),
}


@normative("MQTT-3.1.2-8")
@pytest.mark.parametrize("end", ENDS)
def test_a_will_is_published_when_the_connection_closes(broker: RunningBroker, topic: str, end: str) -> None:
    watcher = watch(broker, topic)
    wire = broker.client(will=Will(topic, b"gone"))
    watcher.expect_nothing()
    ENDS[end](broker, wire)
    watcher.expect(Publish(topic, b"gone"))
    watcher.expect_nothing()


@normative("MQTT-3.1.2-8")
def test_a_will_of_a_session_that_stays_is_published_too(broker: RunningBroker, topic: str) -> None:
    watcher = watch(broker, topic)
    broker.vanish(broker.client(clean=False, will=Will(topic, b"gone")))
    watcher.expect(Publish(topic, b"gone"))


@normative("MQTT-3.1.2-8")
def test_a_will_is_published_when_the_broker_comes_back_without_its_client(
    start_broker: StartBroker, topic: str
) -> None:
    broker = start_broker()
    watcher = broker.client("watcher", clean=False)
    watcher.subscribe((topic, 1))
    broker.client(clean=False, will=Will(topic, b"gone", qos=1))
    broker.restart()
    broker.settle()
    broker.pass_time(1)
    again = broker.client("watcher", clean=False)
    again.expect_message(topic, b"gone", qos=1)


@normative("MQTT-3.1.2-9")
@pytest.mark.parametrize("qos", [0, 1, 2])
@pytest.mark.parametrize("payload", [b"", b"\0\xff", b"x" * 60_000], ids=["empty", "binary", "long"])
def test_a_will_has_the_qos_and_the_message_it_was_given(
    broker: RunningBroker, topic: str, qos: int, payload: bytes
) -> None:
    watcher = watch(broker, topic)
    broker.client(will=Will(topic, payload, qos)).abort()
    watcher.expect_message(topic, payload, qos, retain=False)


@normative("MQTT-3.1.2-10", "MQTT-3.14.4-3")
@pytest.mark.parametrize("clean", [True, False])
def test_disconnect_takes_the_will_away(broker: RunningBroker, topic: str, clean: bool) -> None:
    watcher = watch(broker, topic)
    wire = broker.client(clean=clean, will=Will(topic, b"gone"))
    wire.disconnect()
    watcher.expect_nothing()
    broker.vanish(broker.client(wire.client_id, clean=False))
    watcher.expect_nothing()


@normative("MQTT-3.14.4-3")
def test_disconnect_counts_although_the_connection_breaks_right_after(
    broker: RunningBroker, topic: str
) -> None:
    watcher = watch(broker, topic)
    wire = broker.client(will=Will(topic, b"gone"))
    wire.send(Disconnect())
    wire.finish()
    wire.expect_end()
    watcher.expect_nothing()


@normative("MQTT-3.1.2-10")
def test_a_will_is_published_once(broker: RunningBroker, topic: str) -> None:
    watcher = watch(broker, topic)
    wire = broker.client(clean=False, will=Will(topic, b"gone"))
    broker.vanish(wire)
    watcher.expect(Publish(topic, b"gone"))
    broker.vanish(broker.client(wire.client_id, clean=False))
    watcher.expect_nothing()


@normative("MQTT-3.1.2-10")
def test_a_will_that_was_published_is_not_in_the_store(start_broker: StartBroker, topic: str) -> None:
    broker = start_broker()
    wire = broker.client(clean=False, will=Will(topic, b"gone", retain=True))
    broker.vanish(wire)
    broker.client().publish(topic, b"", retain=True)
    broker.restart()
    broker.pass_time(1)
    later = watch(broker, topic)
    later.expect_nothing()


@normative("MQTT-3.1.2-12")
def test_no_will_no_message(broker: RunningBroker, topic: str) -> None:
    """Also of the client before with the same identifier, whose will was another connection's."""
    watcher = watch(broker, "#")
    wire = broker.client(clean=False, will=Will(topic, b"gone"))
    wire.disconnect()
    broker.vanish(broker.client(wire.client_id, clean=False))
    broker.vanish(broker.client())
    watcher.expect_nothing()


@normative("MQTT-3.1.2-16")
def test_a_will_without_retain_is_not_retained(broker: RunningBroker, topic: str) -> None:
    watcher = watch(broker, topic)
    broker.client(will=Will(topic, b"gone", retain=False)).abort()
    watcher.expect(Publish(topic, b"gone"))
    watch(broker, topic).expect_nothing()


@normative("MQTT-3.1.2-17")
@pytest.mark.parametrize("qos", [0, 1, 2])
def test_a_will_with_retain_is_retained(broker: RunningBroker, topic: str, qos: int) -> None:
    watcher = watch(broker, topic)
    broker.client(will=Will(topic, b"gone", qos, retain=True)).abort()
    watcher.expect_message(topic, b"gone", qos, retain=False)
    watch(broker, topic).expect_message(topic, b"gone", qos, retain=True)


@normative("MQTT-3.1.2-17")
def test_an_empty_will_with_retain_removes_the_retained_message(broker: RunningBroker, topic: str) -> None:
    broker.client().publish(topic, b"kept", retain=True)
    watcher = watch(broker, topic)
    watcher.expect(Publish(topic, b"kept", retain=True))
    broker.client(will=Will(topic, b"", retain=True)).abort()
    watcher.expect(Publish(topic, b""))
    watch(broker, topic).expect_nothing()
