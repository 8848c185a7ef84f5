"""MQTT 5.0, chapter 3.3: PUBLISH: its flags, its topic and its properties, and who gets what of it.

Retained messages are in ``test_v5_retained``, topic aliases in ``test_v5_aliases``, message expiry in ``test_v5_expiry``,
the handshakes in ``test_v5_qos``.
"""

from __future__ import annotations

from typing import Any

import pytest

from tests.conformance.codec import V5, V311, Puback, Publish, Pubrec, Pubrel, frame
from tests.conformance.conftest import StartBroker
from tests.conformance.harness import RunningBroker
from tests.conformance.normative import normative
from tests.conformance.properties import text
from tests.conformance.wire import Wire

MALFORMED, PROTOCOL_ERROR, TOPIC_NAME_INVALID = 0x81, 0x82, 0x90
EXPIRY = {"session_expiry_interval": 10_000}


def subscriber(broker: RunningBroker, topic: str, options: int = 2, **properties: Any) -> Wire:
    wire = broker.client(version=V5)
    wire.subscribe((topic, options), properties=properties)
    return wire


# ---- flags


@normative("MQTT-3.3.1-1", "MQTT-4.4.0-1", "MQTT-4.3.2-2", "MQTT-4.3.3-2")
@pytest.mark.parametrize("qos", [1, 2])
def test_a_redelivery_has_dup_and_a_first_delivery_has_not(
    broker: RunningBroker, topic: str, qos: int
) -> None:
    wire = broker.client(version=V5, clean=False, properties=EXPIRY)
    wire.subscribe((topic, qos))
    broker.client(version=V5).publish(topic, b"m", qos)
    first: Publish = wire.expect(Publish)
    assert not first.dup
    broker.vanish(wire)
    again = broker.client(wire.client_id, V5, clean=False, properties=EXPIRY)
    second: Publish = again.expect(Publish)
    assert (second.dup, second.packet_id, second.payload) == (True, first.packet_id, b"m")


@normative("MQTT-3.3.1-2", "MQTT-4.13.1-1")
def test_dup_at_qos_0_is_malformed(broker: RunningBroker, topic: str) -> None:
    watcher = subscriber(broker, topic)
    broker.client(version=V5).send(Publish(topic, b"x", 0, dup=True)).expect_closed(MALFORMED)
    watcher.expect_nothing()


@normative("MQTT-3.3.1-2", "MQTT-3.3.1-3")
@pytest.mark.parametrize("qos", [1, 2])
@pytest.mark.parametrize("granted", [0, 1, 2])
def test_dup_is_not_handed_on(broker: RunningBroker, topic: str, qos: int, granted: int) -> None:
    watcher = subscriber(broker, topic, granted)
    broker.client(version=V5).publish(topic, b"x", qos, dup=True)
    watcher.expect_message(topic, b"x", min(qos, granted), dup=False)


@normative("MQTT-3.3.1-4", "MQTT-4.13.1-1")
@pytest.mark.parametrize("first_byte", [0x36, 0x37, 0x3E, 0x3F])
def test_qos_3_is_malformed(broker: RunningBroker, topic: str, first_byte: int) -> None:
    watcher = subscriber(broker, topic)
    wire = broker.client(version=V5).send(frame(first_byte, text(topic) + b"\0\x01\0x"))
    wire.expect_closed(MALFORMED)
    watcher.expect_nothing()


# ---- topic


@normative("MQTT-3.3.2-2", "MQTT-4.7.0-1", "MQTT-4.7.3-1")
@pytest.mark.parametrize("name", ["#", "+", "a/#", "a/+/b", "a+", "a#b"])
@pytest.mark.parametrize("qos", [0, 1, 2])
def test_a_topic_name_with_a_wildcard_is_refused(broker: RunningBroker, name: str, qos: int) -> None:
    """By an acknowledgement with that reason or by the end of the connection; nobody gets the message."""
    watcher = broker.client(version=V5)
    watcher.subscribe(("#", 2))
    wire = broker.client(version=V5).send(Publish(name, b"x", qos, packet_id=1 if qos else None))
    answers: list[Any] = [wire.take()] if qos else wire.send(b"\0").drain()
    assert answers[0].code in (TOPIC_NAME_INVALID, MALFORMED)
    watcher.expect_nothing()


@normative("MQTT-3.3.2-1", "MQTT-4.7.3-1", "MQTT-4.13.1-1")
def test_neither_topic_nor_alias_is_a_protocol_error(broker: RunningBroker) -> None:
    for packet in (Publish("", b"x"), Publish("", b"x", 1, packet_id=1), Publish("", b"x", 2, packet_id=1)):
        broker.client(version=V5).send(packet).expect_closed(PROTOCOL_ERROR)


@normative("MQTT-3.3.2-1", "MQTT-4.13.1-1")
@pytest.mark.parametrize(
    "body", [b"", b"\0", b"\0\x05top", text("t")[:-1], text("t") + b"\0", text("t") + b"\0\x01"]
)
def test_a_publish_that_is_cut_off_is_malformed(broker: RunningBroker, body: bytes) -> None:
    broker.client(version=V5).send(frame(0x32, body)).expect_closed(MALFORMED)


@normative("MQTT-3.3.2-3")
def test_what_is_delivered_has_the_topic_it_was_published_to(broker: RunningBroker, topic: str) -> None:
    wire = broker.client(version=V5)
    wire.subscribe((f"{topic}/+/x", 0), (f"{topic}/deep/#", 0))
    publisher = broker.client(version=V5)
    for name in ("a/x", "a/y", "deep", "deep/er/still", "a/x/more", "x", "/x"):
        publisher.publish(f"{topic}/{name}", name.encode())
    publisher.publish(topic, b"itself")
    for name in ("a/x", "deep", "deep/er/still", "/x"):
        wire.expect(Publish(f"{topic}/{name}", name.encode()))
    wire.expect_nothing()


# ---- properties that travel with the message

CARRIED: dict[str, Any] = {
    "payload_format_indicator": 1,
    "content_type": "text/plain; charset=utf-8",
    "response_topic": "answers/to/me",
    "correlation_data": b"\0\x01\xfe\xff",
    "user_property": [("b", "2"), ("a", "1"), ("", ""), ("b", "1"), ("b", "2"), ("é", "\U0001f321")],
}


@normative(
    "MQTT-3.3.2-4", "MQTT-3.3.2-15", "MQTT-3.3.2-16", "MQTT-3.3.2-17", "MQTT-3.3.2-18", "MQTT-3.3.2-20"
)
@pytest.mark.parametrize("qos", [0, 1, 2])
@pytest.mark.parametrize("granted", [0, 1, 2])
def test_properties_arrive_as_they_were_sent(
    broker: RunningBroker, topic: str, qos: int, granted: int
) -> None:
    watcher, identified = (
        subscriber(broker, topic, granted),
        subscriber(broker, topic, granted, subscription_identifier=7),
    )
    broker.client(version=V5).publish(topic, b"text", qos, properties=CARRIED)
    assert watcher.expect_message(topic, b"text", min(qos, granted)).properties == CARRIED
    message = identified.expect_message(topic, b"text", min(qos, granted))
    assert message.properties == CARRIED | {"subscription_identifier": [7]}


@normative(
    "MQTT-3.3.2-4", "MQTT-3.3.2-15", "MQTT-3.3.2-16", "MQTT-3.3.2-17", "MQTT-3.3.2-18", "MQTT-3.3.2-20"
)
@pytest.mark.parametrize("name", CARRIED)
def test_each_property_arrives_alone_too(broker: RunningBroker, topic: str, name: str) -> None:
    watcher = subscriber(broker, topic, 1)
    for value in (CARRIED[name], 0 if name == "payload_format_indicator" else CARRIED[name]):
        broker.client(version=V5).publish(topic, b"text", 1, properties={name: value})
        assert watcher.expect_message(topic, b"text", 1).properties == {name: value}


@normative(
    "MQTT-3.3.2-4", "MQTT-3.3.2-15", "MQTT-3.3.2-16", "MQTT-3.3.2-17", "MQTT-3.3.2-18", "MQTT-3.3.2-20"
)
def test_properties_outlive_a_restart(start_broker: StartBroker, topic: str) -> None:
    broker = start_broker()
    sleeper = broker.client("sleeper", V5, properties=EXPIRY)
    sleeper.subscribe((topic, 1))
    sleeper.disconnect()
    broker.client(version=V5).publish(topic, b"text", 1, properties=CARRIED)
    broker.client(version=V5).publish(f"{topic}/r", b"text", 1, retain=True, properties=CARRIED)
    broker.restart()
    sleeper = broker.client("sleeper", V5, clean=False, properties=EXPIRY)
    assert sleeper.expect_message(topic, b"text", 1).properties == CARRIED
    sleeper.subscribe((f"{topic}/r", 1))
    assert sleeper.expect_message(f"{topic}/r", b"text", 1, retain=True).properties == CARRIED


@normative("MQTT-3.3.2-17")
def test_a_version_3_subscriber_gets_the_message_without_them(broker: RunningBroker, topic: str) -> None:
    wire = broker.client(version=V311)
    wire.subscribe((topic, 1))
    broker.client(version=V5).publish(topic, b"text", 1, properties=CARRIED)
    wire.expect_message(topic, b"text", 1)


@normative("MQTT-3.3.2-14", "MQTT-4.13.1-1")
@pytest.mark.parametrize("name", ["#", "a/+", "a/#"])
@pytest.mark.parametrize("qos", [1, 2])
def test_a_response_topic_with_a_wildcard_is_refused(
    broker: RunningBroker, topic: str, name: str, qos: int
) -> None:
    watcher = subscriber(broker, topic)
    packet = Publish(topic, b"x", qos, packet_id=1, properties={"response_topic": name})
    answer: Any = broker.client(version=V5).send(packet).take()
    assert answer.code in (PROTOCOL_ERROR, TOPIC_NAME_INVALID)
    watcher.expect_nothing()


@normative("MQTT-4.13.1-1")
@pytest.mark.parametrize(
    "properties",
    [
        {"payload_format_indicator": 2},
        {"payload_format_indicator": [1, 1]},
        {"message_expiry_interval": [1, 1]},
        {"topic_alias": [1, 1]},
        {"response_topic": ["a", "a"]},
        {"correlation_data": [b"a", b"a"]},
        {"content_type": ["a", "a"]},
        {"session_expiry_interval": 1},
        {"reason_string": "x"},
        {"will_delay_interval": 1},
        b"\x7e\x00",
        b"\x01",
        b"\x26\x00\x01a",
        b"\x09\x00\x05abc",
    ],
    ids=str,
)
def test_properties_that_cannot_be_end_the_connection(
    broker: RunningBroker, topic: str, properties: Any
) -> None:
    watcher = subscriber(broker, topic)
    wire = broker.client(version=V5).send(Publish(topic, b"x", 1, packet_id=1, properties=properties))
    wire.expect_closed()
    watcher.expect_nothing()


@normative("MQTT-3.3.4-6", "MQTT-4.13.1-1")
def test_a_clients_subscription_identifier_is_a_protocol_error(broker: RunningBroker, topic: str) -> None:
    watcher = subscriber(broker, topic)
    packet = Publish(topic, b"x", 1, packet_id=1, properties={"subscription_identifier": 3})
    broker.client(version=V5).send(packet).expect_closed(PROTOCOL_ERROR)
    watcher.expect_nothing()


# ---- the answer


@normative("MQTT-3.3.4-1", "MQTT-4.3.2-4", "MQTT-4.3.3-8")
@pytest.mark.parametrize("durable", [False, True])
def test_each_qos_gets_its_answer(broker: RunningBroker, topic: str, durable: bool) -> None:
    properties = EXPIRY if durable else {}
    watcher = broker.client(version=V5, properties=properties)
    watcher.subscribe((topic, 0))
    wire = broker.client(version=V5, properties=properties)
    wire.send(Publish(topic, b"0")).ping()  # nothing but the answer to the ping
    wire.send(Publish(topic, b"1", 1, packet_id=5)).expect(Puback(5))
    wire.send(Publish(topic, b"2", 2, packet_id=5)).expect(Pubrec(5))
    wire.send(Pubrel(5)).take()
    for payload in (b"0", b"1", b"2"):
        watcher.expect_message(topic, payload)


# ---- overlapping subscriptions


@normative("MQTT-3.3.4-2", "MQTT-3.3.4-3", "MQTT-3.3.4-4", "MQTT-3.3.4-5", "MQTT-3.8.4-8")
@pytest.mark.parametrize("qos", [0, 1, 2])
def test_overlapping_subscriptions(broker: RunningBroker, topic: str, qos: int) -> None:
    """One copy with all identifiers and the highest QoS, or a copy for each with its own."""
    wire = broker.client(version=V5)
    wanted = {3: (f"{topic}/#", 0), 268_435_455: (f"{topic}/+", 2), 8: (f"{topic}/a", 1)}
    for identifier, subscription in wanted.items():
        wire.subscribe(subscription, properties={"subscription_identifier": identifier})
    wire.subscribe((f"+/{'a'}", 0))
    broker.client(version=V5).publish(f"{topic}/a", b"x", qos)
    copies = [wire.expect_message(f"{topic}/a", b"x", qos)] if qos == 2 else [_take_acknowledged(wire)]
    identifiers = copies[0].properties["subscription_identifier"]
    if len(identifiers) > 1:
        assert sorted(identifiers) == sorted(wanted)
        assert copies[0].qos == qos
        wire.expect_nothing()
        return
    copies += [_take_acknowledged(wire) for _ in wanted]
    by_identifier = {copy.properties.get("subscription_identifier", [0])[0]: copy.qos for copy in copies}
    assert by_identifier == {0: 0} | {key: min(qos, granted) for key, (_, granted) in wanted.items()}


def _take_acknowledged(wire: Wire) -> Publish:
    message: Publish = wire.expect(Publish)
    if message.qos:
        wire.acknowledge(message)
    return message


@normative("MQTT-3.3.4-4", "MQTT-3.3.4-3")
def test_the_same_identifier_for_two_subscriptions(broker: RunningBroker, topic: str) -> None:
    wire = broker.client(version=V5)
    for topic_filter in (f"{topic}/#", f"{topic}/a"):
        wire.subscribe((topic_filter, 0), properties={"subscription_identifier": 5})
    broker.client(version=V5).publish(f"{topic}/a", b"x")
    identifiers = wire.expect_message(f"{topic}/a", b"x").properties["subscription_identifier"]
    assert set(identifiers) == {5}


@normative("MQTT-3.3.4-5")
def test_a_shared_and_a_plain_subscription_are_two_copies_each_with_its_own_identifier(
    broker: RunningBroker, topic: str
) -> None:
    wire = broker.client(version=V5)
    wire.subscribe((topic, 0), properties={"subscription_identifier": 1})
    wire.subscribe((f"$share/g/{topic}", 0), properties={"subscription_identifier": 2})
    broker.client(version=V5).publish(topic, b"x")
    copies = [wire.expect_message(topic, b"x").properties["subscription_identifier"] for _ in range(2)]
    assert sorted(copies) == [[1], [2]]


@normative("MQTT-3.3.4-3", "MQTT-3.3.4-4")
def test_a_retained_message_carries_the_identifier_of_the_new_subscription(
    broker: RunningBroker, topic: str
) -> None:
    broker.client(version=V5).publish(topic, b"x", 1, retain=True)
    wire = broker.client(version=V5)
    wire.subscribe((topic, 1), properties={"subscription_identifier": 77})
    assert wire.expect_message(topic, b"x", 1).properties == {"subscription_identifier": [77]}


@normative("MQTT-3.3.4-3")
def test_identifiers_outlive_the_connection(start_broker: StartBroker, topic: str) -> None:
    broker = start_broker()
    sleeper = broker.client("sleeper", V5, properties=EXPIRY)
    sleeper.subscribe((topic, 1), properties={"subscription_identifier": 128})
    sleeper.disconnect()
    publisher = broker.client(version=V5)
    publisher.publish(topic, b"before", 1)
    broker.restart()
    broker.client(version=V5).publish(topic, b"after", 1)
    sleeper = broker.client("sleeper", V5, clean=False, properties=EXPIRY)
    for payload in (b"before", b"after"):
        assert sleeper.expect_message(topic, payload, 1).properties == {"subscription_identifier": [128]}
