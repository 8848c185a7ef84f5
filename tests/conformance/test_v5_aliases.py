"""MQTT 5.0, section 3.3.2.3.4: topic aliases both ways.

`Aliases` is the client's side as the specification has it: an alias comes with its topic first, and stands for it later.
"""

from __future__ import annotations

from typing import Any

import pytest

from tests.conformance.codec import V5, Puback, Publish, encode
from tests.conformance.conftest import StartBroker
from tests.conformance.harness import RunningBroker
from tests.conformance.normative import normative
from tests.conformance.wire import Wire

PROTOCOL_ERROR, TOPIC_ALIAS_INVALID = 0x82, 0x94
EXPIRY = {"session_expiry_interval": 10_000}


class Aliases:
    """What one client has learned, and a check of each message that comes: `maximum` is what it allows."""

    def __init__(self, wire: Wire, maximum: int) -> None:
        self.wire, self.maximum = wire, maximum
        self.topics: dict[int, str] = {}
        self.used = 0

    def take(self) -> tuple[str, bytes]:
        """The next message: its topic, resolved, and its payload; acknowledged."""
        message: Publish = self.wire.expect(Publish)
        topic, alias = str(message.topic), message.properties.get("topic_alias")
        if alias is not None:
            assert 0 < alias <= self.maximum, f"alias {alias}"
            if topic:
                self.topics[alias] = topic
            else:
                assert alias in self.topics, f"alias {alias} was never told"
                self.used += 1
            topic = self.topics[alias]
        if message.qos:
            self.wire.acknowledge(message)
        return topic, message.payload


def announced(broker: RunningBroker) -> int:
    """The broker's topic alias maximum."""
    return int(broker.wire(V5).connect().properties.get("topic_alias_maximum", 0))


# ---- the broker's aliases


@normative("MQTT-3.1.2-26", "MQTT-3.3.2-11", "MQTT-3.3.2-8", "MQTT-3.3.2-3")
@pytest.mark.parametrize("qos", [0, 1, 2])
@pytest.mark.parametrize("maximum", [1, 2, 10, 65_535])
def test_no_alias_is_above_the_clients_maximum(
    broker: RunningBroker, topic: str, qos: int, maximum: int
) -> None:
    wire = broker.client(version=V5, properties={"topic_alias_maximum": maximum})
    wire.subscribe((f"{topic}/#", qos))
    aliases, publisher = Aliases(wire, maximum), broker.client(version=V5)
    for turn in range(4):
        for number in (1, 2, 3, 1, 4, 5, 2, 1, 1):
            publisher.publish(f"{topic}/{number}", b"%d" % turn, qos)
            assert aliases.take() == (f"{topic}/{number}", b"%d" % turn)
    assert aliases.used  # what is never used proves nothing


@normative("MQTT-3.1.2-27", "MQTT-3.3.2-11")
@pytest.mark.parametrize("properties", [{}, {"topic_alias_maximum": 0}])
def test_a_client_that_allows_none_gets_none(
    broker: RunningBroker, topic: str, properties: dict[str, int]
) -> None:
    wire, publisher = broker.client(version=V5, properties=properties), broker.client(version=V5)
    wire.subscribe((topic, 1))
    for qos in (0, 1, 0, 1, 0, 1):
        publisher.publish(topic, b"x", qos)
        assert wire.expect_message(topic, b"x", qos).properties == {}


@normative("MQTT-3.3.2-7", "MQTT-3.1.2-26")
def test_the_brokers_aliases_end_with_the_connection(broker: RunningBroker, topic: str) -> None:
    client_id, publisher = "", broker.client(version=V5)
    for maximum in (10, 3, 0, 5):
        properties = EXPIRY | {"topic_alias_maximum": maximum}
        wire = broker.client(client_id or None, V5, clean=False, properties=properties)
        client_id = str(wire.client_id)
        wire.subscribe((topic, 1))
        aliases = Aliases(wire, maximum)  # which has learned nothing yet
        for turn in range(4):
            publisher.publish(topic, b"%d" % turn, 1)
            assert aliases.take() == (topic, b"%d" % turn)
        wire.disconnect()


@normative("MQTT-3.3.2-7", "MQTT-4.4.0-1")
def test_a_redelivery_does_not_rely_on_an_alias_of_before(broker: RunningBroker, topic: str) -> None:
    properties = EXPIRY | {"topic_alias_maximum": 10}
    wire, publisher = broker.client(version=V5, properties=properties), broker.client(version=V5)
    wire.subscribe((topic, 1))
    for turn in range(4):
        publisher.publish(topic, b"%d" % turn, 1)
        wire.expect(Publish)
    broker.vanish(wire)
    aliases = Aliases(broker.client(wire.client_id, V5, clean=False, properties=properties), 10)
    assert [aliases.take() for _ in range(4)] == [(topic, b"%d" % turn) for turn in range(4)]


@normative("MQTT-3.3.2-6", "MQTT-3.3.2-17", "MQTT-3.3.4-3")
def test_an_alias_leaves_the_other_properties_alone(broker: RunningBroker, topic: str) -> None:
    wire = broker.client(version=V5, properties={"topic_alias_maximum": 10})
    wire.subscribe((topic, 1), properties={"subscription_identifier": 9})
    publisher = broker.client(version=V5)
    sent: dict[str, Any] = {"user_property": [("b", "1"), ("a", "2")], "message_expiry_interval": 1000}
    for _ in range(4):
        publisher.publish(topic, b"x", 1, properties=sent)
        message: Publish = wire.expect(Publish)
        wire.acknowledge(message)
        assert isinstance(message.properties, dict)
        got = {name: value for name, value in message.properties.items() if name != "topic_alias"}
        assert 990 <= got.pop("message_expiry_interval") <= 1000
        assert got == {"user_property": sent["user_property"], "subscription_identifier": [9]}


@normative("MQTT-3.1.2-25", "MQTT-3.1.2-24", "MQTT-3.3.2-11")
@pytest.mark.parametrize("qos", [0, 1])
def test_an_alias_that_was_not_sent_is_not_relied_on(broker: RunningBroker, topic: str, qos: int) -> None:
    """A message too large for the client is dropped, and with it what it was to teach."""
    properties = {"topic_alias_maximum": 10, "maximum_packet_size": 200}
    wire, publisher = broker.client(version=V5, properties=properties), broker.client(version=V5)
    wire.subscribe((topic, 1))
    aliases = Aliases(wire, 10)
    for size in (1, 300, 2, 300, 3, 300, 4):
        publisher.publish(topic, bytes(size), qos)
        if size < 300:
            assert aliases.take() == (topic, bytes(size))


@normative("MQTT-3.1.2-24", "MQTT-3.1.2-25")
@pytest.mark.parametrize("qos", [0, 1])
def test_an_alias_does_not_make_a_message_too_large(broker: RunningBroker, topic: str, qos: int) -> None:
    packet = Publish(topic, bytes(50), qos, packet_id=1 if qos else None)
    limit = len(encode(packet, V5))
    properties = {"topic_alias_maximum": 10, "maximum_packet_size": limit}
    wire, publisher = broker.client(version=V5, properties=properties), broker.client(version=V5)
    wire.subscribe((topic, 1))
    aliases = Aliases(wire, 10)
    for turn in range(4):
        payload = b"%d" % turn + bytes(49)
        publisher.publish(topic, payload, qos)
        assert aliases.take() == (topic, payload)
        assert len(wire.last_frame) <= limit


# ---- the client's aliases


@normative("MQTT-3.3.2-12")
@pytest.mark.parametrize("qos", [0, 1, 2])
def test_every_alias_up_to_the_brokers_maximum_is_taken(broker: RunningBroker, topic: str, qos: int) -> None:
    maximum = announced(broker)
    watcher, wire = broker.client(version=V5), broker.client(version=V5)
    watcher.subscribe((f"{topic}/#", 2))
    for alias in range(1, maximum + 1):
        wire.publish(f"{topic}/{alias}", b"told", qos, properties={"topic_alias": alias})
        watcher.expect_message(f"{topic}/{alias}", b"told", qos)
    for alias in range(maximum, 0, -1):
        wire.publish("", b"used", qos, properties={"topic_alias": alias})
        message = watcher.expect_message(f"{topic}/{alias}", b"used", qos)
        assert "topic_alias" not in message.properties


@normative("MQTT-3.3.2-12")
def test_an_alias_can_be_given_another_topic(broker: RunningBroker, topic: str) -> None:
    watcher, wire = broker.client(version=V5), broker.client(version=V5)
    watcher.subscribe((f"{topic}/#", 0))
    for name in ("a", "b"):
        wire.publish(f"{topic}/{name}", b"told", properties={"topic_alias": 1})
        wire.publish("", b"used", properties={"topic_alias": 1})
        watcher.expect_message(f"{topic}/{name}", b"told")
        watcher.expect_message(f"{topic}/{name}", b"used")


@normative("MQTT-3.3.2-12", "MQTT-3.2.2-17")
def test_the_configured_maximum_is_the_one_announced(start_broker: StartBroker, topic: str) -> None:
    broker = start_broker(limits={"topic_alias_maximum": 3})
    assert announced(broker) == 3
    broker.client(version=V5).publish(topic, b"x", properties={"topic_alias": 3})
    wire = broker.client(version=V5).send(Publish(topic, b"x", properties={"topic_alias": 4}))
    wire.expect_closed(TOPIC_ALIAS_INVALID)
    none = start_broker(limits={"topic_alias_maximum": 0})
    assert announced(none) == 0
    wire = none.client(version=V5).send(Publish(topic, b"x", properties={"topic_alias": 1}))
    wire.expect_closed(TOPIC_ALIAS_INVALID)


@normative("MQTT-3.3.2-8", "MQTT-3.3.2-9", "MQTT-4.13.1-1")
@pytest.mark.parametrize("qos", [0, 1, 2])
def test_an_alias_that_cannot_be_ends_the_connection(broker: RunningBroker, topic: str, qos: int) -> None:
    watcher = broker.client(version=V5)
    watcher.subscribe((topic, 2))
    for alias in (0, announced(broker) + 1, 65_535):
        packet = Publish(topic, b"x", qos, packet_id=1 if qos else None, properties={"topic_alias": alias})
        broker.client(version=V5).send(packet).expect_closed(TOPIC_ALIAS_INVALID)
    watcher.expect_nothing()


@normative("MQTT-3.3.2-7", "MQTT-4.13.1-1")
def test_an_alias_that_was_never_told_is_a_protocol_error(broker: RunningBroker, topic: str) -> None:
    """Neither on this connection nor, which comes to the same, on another of the same session."""
    watcher = broker.client(version=V5)
    watcher.subscribe((topic, 2))
    first = broker.client(version=V5, properties=EXPIRY)
    first.publish(topic, b"told", properties={"topic_alias": 1})
    watcher.expect_message(topic, b"told")
    second = broker.client(version=V5)
    second.send(Publish("", b"another client's", properties={"topic_alias": 1}))
    second.expect_closed(PROTOCOL_ERROR)
    again = broker.client(first.client_id, V5, clean=False, properties=EXPIRY)
    again.send(Publish("", b"the connection before", properties={"topic_alias": 1}))
    again.expect_closed(PROTOCOL_ERROR)
    watcher.expect_nothing()


@normative("MQTT-3.3.2-12")
def test_an_alias_of_a_message_for_nobody_is_learned_all_the_same(broker: RunningBroker, topic: str) -> None:
    watcher, wire = broker.client(version=V5), broker.client(version=V5)
    packet = Publish(topic, b"for nobody", 1, packet_id=1, properties={"topic_alias": 1})
    puback: Puback = wire.send(packet).expect(Puback)
    assert puback.code in (0x00, 0x10)
    watcher.subscribe((topic, 0))
    wire.publish("", b"used", properties={"topic_alias": 1})
    watcher.expect_message(topic, b"used")
