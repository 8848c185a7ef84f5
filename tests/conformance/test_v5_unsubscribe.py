"""MQTT 5.0, chapters 3.10 and 3.11: UNSUBSCRIBE and UNSUBACK."""

from __future__ import annotations

from typing import Any

import pytest

from tests.conformance.codec import (
    V5,
    Puback,
    Pubcomp,
    Publish,
    Pubrec,
    Pubrel,
    Unsuback,
    Unsubscribe,
    encode,
    frame,
)
from tests.conformance.conftest import StartBroker
from tests.conformance.harness import RunningBroker
from tests.conformance.normative import normative
from tests.conformance.properties import text

MALFORMED, PROTOCOL_ERROR, FILTER_INVALID, NONE_EXISTED = 0x81, 0x82, 0x8F, 0x11
UNSUBACK_CODES = {0x00, 0x11, 0x80, 0x83, 0x87, 0x8F, 0x91}
EXPIRY = {"session_expiry_interval": 10_000}


@normative("MQTT-3.10.1-1", "MQTT-4.13.1-1")
def test_the_flags_of_unsubscribe_are_checked(broker: RunningBroker, topic: str) -> None:
    packet = encode(Unsubscribe(1, (topic,)), V5)
    for flags in [flags for flags in range(16) if flags != 2]:
        wire = broker.client(version=V5).send(bytes((0xA0 | flags,)) + packet[1:])
        wire.expect_closed(MALFORMED)


@normative("MQTT-3.10.3-2", "MQTT-4.13.1-1")
def test_an_unsubscribe_without_a_filter_is_a_protocol_error(broker: RunningBroker) -> None:
    broker.client(version=V5).send(Unsubscribe(1, ())).expect_closed(PROTOCOL_ERROR)


@normative("MQTT-3.10.3-1", "MQTT-3.10.3-2", "MQTT-4.13.1-1")
@pytest.mark.parametrize(
    "body", [b"", b"\0", b"\0\x01", b"\0\x01\0\0", b"\0\x01\0\0\x05abc", b"\0\x01\x05" + text("t")]
)
def test_an_unsubscribe_that_is_cut_off_is_malformed(broker: RunningBroker, body: bytes) -> None:
    broker.client(version=V5).send(frame(0xA2, body)).expect_closed(MALFORMED)


@normative("MQTT-4.13.1-1")
@pytest.mark.parametrize(
    "properties", [{"subscription_identifier": 1}, {"reason_string": "x"}, b"\x7e\0"], ids=str
)
def test_properties_that_cannot_be_end_the_connection(broker: RunningBroker, properties: Any) -> None:
    broker.client(version=V5).send(Unsubscribe(1, ("t",), properties)).expect_closed()


@normative("MQTT-3.10.4-4", "MQTT-3.10.4-5", "MQTT-3.10.4-6", "MQTT-3.11.3-1", "MQTT-3.11.3-2")
@pytest.mark.parametrize("durable", [False, True])
def test_one_unsuback_with_a_code_for_each_filter_in_order(
    broker: RunningBroker, topic: str, durable: bool
) -> None:
    wire = broker.client(version=V5, properties=EXPIRY if durable else {})
    wire.subscribe((f"{topic}/1", 0), (f"{topic}/2", 1), (f"{topic}/3", 2))
    filters = ("never", f"{topic}/3", f"{topic}/+", f"{topic}/1", f"{topic}/1")
    wire.send(Unsubscribe(0xFEDC, filters))
    wire.expect(Unsuback(0xFEDC, (NONE_EXISTED, 0, NONE_EXISTED, 0, NONE_EXISTED)))
    wire.expect_nothing()
    publisher = broker.client(version=V5)
    for number in (1, 2, 3):
        publisher.publish(f"{topic}/{number}", b"x", 1)
    wire.expect_message(f"{topic}/2", b"x", 1)
    wire.expect_nothing()


@normative("MQTT-3.11.3-2", "MQTT-3.10.4-4")
def test_a_filter_that_cannot_be_is_answered(broker: RunningBroker) -> None:
    """With a code for that filter, or as the protocol error that it is: never as if it were gone."""
    wire = broker.client(version=V5).send(Unsubscribe(1, ("a/#/b",)))
    answer: Any = wire.take()
    if isinstance(answer, Unsuback):
        assert answer.codes == (FILTER_INVALID,) or answer.codes == (NONE_EXISTED,)
    else:
        assert answer.code in (FILTER_INVALID, MALFORMED, PROTOCOL_ERROR)


@normative("MQTT-3.10.4-4", "MQTT-3.10.4-5")
def test_each_of_many_is_answered_in_turn(broker: RunningBroker, topic: str) -> None:
    for properties in ({}, EXPIRY):
        wire = broker.client(version=V5, properties=properties)
        wire.send(*(Unsubscribe(number, (f"{topic}/{number}",)) for number in range(1, 101)))
        for number in range(1, 101):
            wire.expect(Unsuback(number, (NONE_EXISTED,)))


@normative("MQTT-3.10.4-1", "MQTT-4.7.3-4")
@pytest.mark.parametrize(
    ("subscribed", "given_up"),
    [
        ("{}/a", "{}/A"),
        ("{}/+", "{}/a"),
        ("{}/a", "{}/+"),
        ("{}/#", "{}/"),
        ("{}/#", "{}"),
        ("{}", "{}/"),
        ("{}/é", "{}/e\u0301"),
        ("$share/g/{}", "{}"),
        ("{}", "$share/g/{}"),
        ("$share/g/{}", "$share/h/{}"),
        ("{}/a", "{}/a "),
    ],
)
def test_only_the_very_same_characters_delete_a_subscription(
    broker: RunningBroker, topic: str, subscribed: str, given_up: str
) -> None:
    wire = broker.client(version=V5)
    wire.subscribe((subscribed.format(topic), 1))
    assert wire.unsubscribe(given_up.format(topic)).codes == (NONE_EXISTED,)
    name = subscribed.format(topic).removeprefix("$share/g/").replace("+", "a").replace("#", "a")
    publisher = broker.client(version=V5)
    publisher.publish(name, b"still", 1)
    wire.expect_message(name, b"still", 1)
    assert wire.unsubscribe(subscribed.format(topic)).codes == (0,)
    publisher.publish(name, b"no more", 1)
    wire.expect_nothing()


@normative("MQTT-3.10.4-1", "MQTT-3.1.2-23")
def test_a_subscription_given_up_stays_gone(start_broker: StartBroker, topic: str) -> None:
    broker = start_broker()
    wire = broker.client("sleeper", V5, properties=EXPIRY)
    wire.subscribe((topic, 1), (f"{topic}/2", 1))
    assert wire.unsubscribe(topic).codes == (0,)
    broker.restart()
    broker.client(version=V5).publish(topic, b"x", 1)
    wire = broker.client("sleeper", V5, clean=False, properties=EXPIRY)
    assert wire.unsubscribe(topic, f"{topic}/2").codes == (NONE_EXISTED, 0)
    wire.expect_nothing()


@normative("MQTT-3.10.4-2")
@pytest.mark.parametrize("qos", [0, 1, 2])
def test_nothing_new_comes_for_it(broker: RunningBroker, topic: str, qos: int) -> None:
    wire, other = broker.client(version=V5), broker.client(version=V5)
    for client in (wire, other):
        client.subscribe((topic, 2))
    wire.unsubscribe(topic)
    broker.client(version=V5).publish(topic, b"x", qos)
    other.expect_message(topic, b"x", qos)
    wire.expect_nothing()


@normative("MQTT-3.10.4-3")
def test_what_was_begun_is_completed(broker: RunningBroker, topic: str) -> None:
    wire, publisher = broker.client(version=V5, properties=EXPIRY), broker.client(version=V5)
    wire.subscribe((topic, 2))
    for number, qos in enumerate((1, 2, 2, 1, 2)):
        publisher.publish(topic, b"%d" % number, qos)
    begun: list[Any] = [wire.expect(Publish) for _ in range(5)]
    wire.send(Pubrec(begun[1].packet_id)).expect(Pubrel(begun[1].packet_id))
    wire.unsubscribe(topic)
    wire.send(Puback(begun[0].packet_id), Pubcomp(begun[1].packet_id))
    wire.send(Pubrec(begun[2].packet_id)).expect(Pubrel(begun[2].packet_id))
    wire.expect_nothing()
    broker.vanish(wire)
    wire = broker.client(wire.client_id, V5, clean=False, properties=EXPIRY)
    again = [wire.take() for _ in range(3)]
    assert again.count(Pubrel(begun[2].packet_id)) == 1
    for message in (begun[3], begun[4]):
        expected = Publish(topic, message.payload, message.qos, dup=True, packet_id=message.packet_id)
        assert again.count(expected) == 1
    wire.expect_nothing()
