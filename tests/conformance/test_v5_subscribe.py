"""MQTT 5.0, chapters 3.8 and 3.9: SUBSCRIBE and SUBACK. Filters themselves are in ``test_v5_topics``."""

from __future__ import annotations

import threading
from typing import Any
from unittest.mock import ANY

import pytest

from tests.conformance.codec import V5, Publish, Suback, Subscribe, encode, frame
from tests.conformance.conftest import StartBroker
from tests.conformance.harness import RunningBroker
from tests.conformance.normative import normative
from tests.conformance.properties import text, varint
from tests.conformance.wire import Wire

MALFORMED, PROTOCOL_ERROR, FILTER_INVALID = 0x81, 0x82, 0x8F
NO_LOCAL, RETAIN_AS_PUBLISHED = 0x04, 0x08
EXPIRY = {"session_expiry_interval": 10_000}
SUBACK_CODES = {0x00, 0x01, 0x02, 0x80, 0x83, 0x87, 0x8F, 0x91, 0x97, 0x9E, 0xA1, 0xA2}


# ---- the packet


@normative("MQTT-3.8.1-1", "MQTT-4.13.1-1")
def test_the_flags_of_subscribe_are_checked(broker: RunningBroker, topic: str) -> None:
    packet = encode(Subscribe(1, ((topic, 0),)), V5)
    for flags in [flags for flags in range(16) if flags != 2]:
        wire = broker.client(version=V5).send(bytes((0x80 | flags,)) + packet[1:])
        wire.expect_closed(MALFORMED)


@normative("MQTT-3.8.3-2", "MQTT-4.13.1-1")
def test_a_subscribe_without_a_filter_is_a_protocol_error(broker: RunningBroker) -> None:
    for properties in ({}, {"subscription_identifier": 1}):
        broker.client(version=V5).send(Subscribe(1, (), properties)).expect_closed(PROTOCOL_ERROR)


@normative("MQTT-3.8.3-2", "MQTT-3.8.3-1", "MQTT-4.13.1-1")
@pytest.mark.parametrize(
    "body",
    [b"", b"\0", b"\0\x01", b"\0\x01\0\0", b"\0\x01\0" + text("t"), b"\0\x01\0\0\x05abc\0", b"\0\x01\x05"],
)
def test_a_subscribe_that_is_cut_off_is_malformed(broker: RunningBroker, body: bytes) -> None:
    broker.client(version=V5).send(frame(0x82, body)).expect_closed(MALFORMED)


@normative("MQTT-3.8.3-5", "MQTT-4.13.1-1")
@pytest.mark.parametrize("options", [0x40, 0x80, 0xC0, 0x41, 0xFF])
def test_reserved_options_are_malformed(broker: RunningBroker, topic: str, options: int) -> None:
    wire = broker.client(version=V5).send(Subscribe(1, (("good", 0), (topic, options))))
    wire.expect_closed(MALFORMED)


@normative("MQTT-4.13.1-1")
@pytest.mark.parametrize("options", [0x03, 0x30, 0x33])
def test_qos_3_and_retain_handling_3_are_protocol_errors(
    broker: RunningBroker, topic: str, options: int
) -> None:
    broker.client(version=V5).send(Subscribe(1, ((topic, options),))).expect_closed(PROTOCOL_ERROR)


@normative("MQTT-4.13.1-1")
@pytest.mark.parametrize(
    "properties",
    [
        {"subscription_identifier": 0},
        {"subscription_identifier": [1, 2]},
        {"topic_alias": 1},
        {"reason_string": "x"},
        b"\x0b",
        b"\x0b\xff\xff\xff\xff\x01",
    ],
    ids=str,
)
def test_properties_that_cannot_be_end_the_connection(
    broker: RunningBroker, topic: str, properties: Any
) -> None:
    broker.client(version=V5).send(Subscribe(1, ((topic, 0),), properties)).expect_closed()


@normative("MQTT-3.8.3-4", "MQTT-4.13.1-1")
def test_no_local_on_a_shared_subscription_is_a_protocol_error(broker: RunningBroker, topic: str) -> None:
    wire = broker.client(version=V5).send(Subscribe(1, ((f"$share/g/{topic}", NO_LOCAL),)))
    wire.expect_closed(PROTOCOL_ERROR)


# ---- SUBACK


@normative("MQTT-3.8.4-1", "MQTT-3.8.4-2", "MQTT-3.8.4-5", "MQTT-3.8.4-6", "MQTT-3.9.3-1", "MQTT-3.8.4-7")
@pytest.mark.parametrize("durable", [False, True])
def test_one_suback_with_a_code_for_each_filter_in_order(
    broker: RunningBroker, topic: str, durable: bool
) -> None:
    wire = broker.client(version=V5, properties=EXPIRY if durable else {})
    filters = (("a", 2), ("a/#/b", 1), ("b", 0), ("", 2), ("c", 1), ("$share//x", 0), (topic, 2), ("x+", 1))
    wire.send(Subscribe(0xABCD, filters))
    codes = (2, FILTER_INVALID, 0, FILTER_INVALID, 1, FILTER_INVALID, 2, FILTER_INVALID)
    wire.expect(Suback(0xABCD, codes, ANY))
    wire.expect_nothing()
    broker.client(version=V5).publish(topic, b"taken all the same", 2)
    wire.expect_message(topic, b"taken all the same", 2)


@normative("MQTT-3.8.4-5", "MQTT-3.8.4-3")
def test_the_same_filter_twice_in_one_packet_is_replaced_by_the_last(
    broker: RunningBroker, topic: str
) -> None:
    wire = broker.client(version=V5)
    assert wire.subscribe((topic, 0), (topic, 2), (topic, 1)).codes == (0, 2, 1)
    broker.client(version=V5).publish(topic, b"x", 2)
    wire.expect_message(topic, b"x", 1)
    wire.expect_nothing()


@normative("MQTT-3.8.4-1", "MQTT-3.8.4-2")
def test_each_of_many_subscribes_is_answered_in_turn(broker: RunningBroker, topic: str) -> None:
    for properties in ({}, EXPIRY):
        wire = broker.client(version=V5, properties=properties)
        wire.send(*(Subscribe(number, ((f"{topic}/{number}", 1),)) for number in range(1, 101)))
        for number in range(1, 101):
            wire.expect(Suback(number, (1,)))


@normative("MQTT-3.9.3-2", "MQTT-3.8.4-7")
def test_reason_codes_are_of_the_table(start_broker: StartBroker, topic: str) -> None:
    broker = start_broker(limits={"max_subscriptions_per_client": 3, "max_topic_levels": 3})
    wire = broker.client(version=V5)
    filters = (
        ("a/b/c/d", 0),
        ("#/x", 0),
        (f"{topic}/1", 0),
        (f"{topic}/2", 1),
        (f"{topic}/3", 2),
        ("four", 0),
    )
    codes = wire.subscribe(*filters).codes
    assert codes[2:5] == (0, 1, 2)
    assert {*codes} <= SUBACK_CODES
    assert codes[0] >= 0x80
    assert codes[1] == FILTER_INVALID
    assert codes[5] in (0x80, 0x97)


@normative("MQTT-3.8.4-1", "MQTT-3.3.1-9")
def test_messages_come_behind_the_suback_of_a_retained_topic(broker: RunningBroker, topic: str) -> None:
    broker.client(version=V5).publish(topic, b"kept", 1, retain=True)
    wire = broker.client(version=V5)
    wire.send(Subscribe(1, ((topic, 1),))).expect(Suback(1, (1,)))
    wire.expect_message(topic, b"kept", 1)


# ---- replacing a subscription


@normative("MQTT-3.8.4-3")
def test_the_same_filter_again_replaces_all_of_the_subscription(broker: RunningBroker, topic: str) -> None:
    wire, publisher = broker.client(version=V5), broker.client(version=V5)
    wire.subscribe((topic, 2 | NO_LOCAL | RETAIN_AS_PUBLISHED), properties={"subscription_identifier": 5})
    publisher.publish(topic, b"1", 2)
    assert wire.expect_message(topic, b"1", 2).properties == {"subscription_identifier": [5]}
    wire.subscribe((topic, 1), properties={"subscription_identifier": 6})
    publisher.publish(topic, b"2", 2)
    assert wire.expect_message(topic, b"2", 1).properties == {"subscription_identifier": [6]}
    wire.subscribe((topic, 0))
    publisher.publish(topic, b"3", 2)
    assert wire.expect_message(topic, b"3", 0).properties == {}
    wire.send(Publish(topic, b"own"))  # no local is gone as well
    wire.expect_message(topic, b"own")


@normative("MQTT-3.8.4-3", "MQTT-3.10.4-1")
def test_replaced_and_given_up_it_is_gone(broker: RunningBroker, topic: str) -> None:
    wire = broker.client(version=V5)
    for options in (0, 1, 2, 0):
        wire.subscribe((topic, options))
    assert wire.unsubscribe(topic).codes == (0,)
    broker.client(version=V5).publish(topic, b"x", 1)
    wire.expect_nothing()


@normative("MQTT-3.8.4-3")
def test_another_filter_that_matches_the_same_replaces_nothing(broker: RunningBroker, topic: str) -> None:
    wire = broker.client(version=V5)
    wire.subscribe((f"{topic}/+", 0), properties={"subscription_identifier": 1})
    wire.subscribe((f"{topic}/a", 0), properties={"subscription_identifier": 2})
    broker.client(version=V5).publish(f"{topic}/b", b"x")
    assert wire.expect_message(f"{topic}/b", b"x").properties == {"subscription_identifier": [1]}


@normative("MQTT-3.8.4-3", "MQTT-4.8.2-1")
def test_a_shared_subscription_is_another_one_than_the_plain(broker: RunningBroker, topic: str) -> None:
    wire = broker.client(version=V5)
    wire.subscribe((topic, 0))
    wire.subscribe((f"$share/g/{topic}", 0))
    wire.unsubscribe(f"$share/g/{topic}")
    broker.client(version=V5).publish(topic, b"x")
    wire.expect_message(topic, b"x")
    wire.expect_nothing()


@normative("MQTT-3.8.4-4")
@pytest.mark.parametrize("durable", [False, True])
def test_nothing_is_lost_while_a_subscription_is_replaced(
    broker: RunningBroker, topic: str, durable: bool
) -> None:
    wire = broker.client(version=V5, properties=EXPIRY if durable else {})
    wire.subscribe((topic, 1))
    publisher, count = broker.client(version=V5), 300

    def publish() -> None:
        for number in range(count):
            publisher.publish(topic, b"%d" % number, 1)

    thread = threading.Thread(target=publish)
    thread.start()
    got: list[int] = []
    packet_id = 0
    while len(got) < count:
        packet_id += 1
        wire.send(Subscribe(packet_id, ((topic, 1 | (RETAIN_AS_PUBLISHED if packet_id % 2 else 0)),)))
        while not isinstance(packet := wire.take(), Suback):
            assert isinstance(packet, Publish)
            wire.acknowledge(packet)
            got.append(int(packet.payload))
        assert packet == Suback(packet_id, (1,))
    thread.join()
    assert got == list(range(count))


# ---- options and delivery


@normative("MQTT-3.8.3-3")
@pytest.mark.parametrize("qos", [0, 1, 2])
def test_no_local(broker: RunningBroker, topic: str, qos: int) -> None:
    wire, other = broker.client(version=V5), broker.client(version=V5)
    wire.subscribe((topic, 2 | NO_LOCAL))
    other.subscribe((topic, 2))
    wire.publish(topic, b"own", qos)
    other.expect_message(topic, b"own", qos)
    wire.expect_nothing()
    broker.client(version=V5).publish(topic, b"another's", qos)
    wire.expect_message(topic, b"another's", qos)


@normative("MQTT-3.8.3-3")
def test_no_local_knows_the_client_by_its_identifier(start_broker: StartBroker, topic: str) -> None:
    """Not by its connection: published before a reconnect, delivered after it, it would still be its own."""
    broker = start_broker()
    wire = broker.client("local", V5, properties=EXPIRY)
    wire.subscribe((topic, 1 | NO_LOCAL))
    wire.disconnect()
    broker.restart()
    wire = broker.client("local", V5, clean=False, properties=EXPIRY)
    wire.publish(topic, b"own", 1)
    wire.expect_nothing()
    broker.client(version=V5).publish(topic, b"another's", 1)
    wire.expect_message(topic, b"another's", 1)


@normative("MQTT-3.8.3-3")
def test_no_local_counts_for_its_own_subscription_alone(broker: RunningBroker, topic: str) -> None:
    wire = broker.client(version=V5)
    wire.subscribe((f"{topic}/a", 1 | NO_LOCAL), properties={"subscription_identifier": 1})
    wire.subscribe((f"{topic}/#", 0), properties={"subscription_identifier": 2})
    broker.client(version=V5).publish(f"{topic}/a", b"another's", 1)
    both: Any = wire.expect_message(f"{topic}/a", b"another's", 1).properties
    assert sorted(both["subscription_identifier"]) == [1, 2]
    wire.send(Publish(f"{topic}/a", b"own", 1, packet_id=1))
    answers = {type(answer): answer for answer in (wire.take(), wire.take())}
    own = answers[Publish]
    assert own == Publish(f"{topic}/a", b"own", properties={"subscription_identifier": [2]})
    wire.expect_nothing()


@normative("MQTT-3.8.4-8", "MQTT-3.8.4-7")
@pytest.mark.parametrize("qos", [0, 1, 2])
@pytest.mark.parametrize("wanted", [0, 1, 2])
@pytest.mark.parametrize("durable", [False, True])
def test_the_lower_of_both_qos(
    broker: RunningBroker, topic: str, qos: int, wanted: int, durable: bool
) -> None:
    wire = broker.client(version=V5, properties=EXPIRY if durable else {})
    (granted,) = wire.subscribe((topic, wanted)).codes
    assert granted == wanted
    broker.client(version=V5).publish(topic, b"x", qos)
    wire.expect_message(topic, b"x", min(qos, granted))


@normative("MQTT-3.8.4-1")
def test_the_largest_subscription_identifier(broker: RunningBroker, topic: str) -> None:
    wire: Wire = broker.client(version=V5)
    body = b"\0\x01\x05\x0b" + varint(268_435_455) + text(topic) + b"\0"
    wire.send(frame(0x82, body)).expect(Suback(1, (0,)))
    broker.client(version=V5).publish(topic, b"x")
    assert wire.expect_message(topic, b"x").properties == {"subscription_identifier": [268_435_455]}
