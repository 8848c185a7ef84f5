"""MQTT 5.0, chapter 3.1: what a CONNECT must be like, and what follows from it.

A CONNECT out of form may be answered with a CONNACK before the close or not at all; what it may never get is a CONNACK of
success, a DISCONNECT, or an effect. Wills are in ``test_v5_wills``, sessions in ``test_v5_sessions``.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

from edge_broker.core.ports import Admission, Credentials
from tests.conformance.codec import (
    V5,
    Auth,
    Connack,
    Connect,
    Disconnect,
    Pingreq,
    Publish,
    Subscribe,
    Unsubscribe,
    Will,
    encode,
    frame,
)
from tests.conformance.conftest import StartBroker
from tests.conformance.harness import RunningBroker
from tests.conformance.normative import normative
from tests.conformance.properties import text
from tests.conformance.wire import Wire, fresh

MALFORMED, PROTOCOL_ERROR, NOT_AUTHORIZED = 0x81, 0x82, 0x87
SESSION_TAKEN_OVER, KEEP_ALIVE_TIMEOUT = 0x8E, 0x8D


def assert_refused(wire: Wire, *codes: int) -> None:
    """The broker closes; all that it may say before is one CONNACK with one of `codes`."""
    answers = wire.drain()
    assert len(answers) <= 1
    for answer in answers:
        assert isinstance(answer, Connack)
        assert not answer.session_present
        assert answer.code in codes


def assert_not_made(broker: RunningBroker, client_id: str) -> None:
    """No session of that client came to be."""
    wire = broker.wire(V5)
    assert not wire.connect(client_id, clean=False).session_present
    wire.disconnect()


# ---- the first packet and the second


@normative("MQTT-3.1.0-1", "MQTT-3.14.0-1", "MQTT-3.2.0-1")
@pytest.mark.parametrize(
    "packet",
    [
        Publish("t", b"x"),
        Subscribe(1, (("t", 0),)),
        Unsubscribe(1, ("t",)),
        Pingreq(),
        Disconnect(),
        Disconnect(0x80),
        Auth(0x18, {"authentication_method": "x"}),
        b"\x20\x03\x00\x00\x00",
        b"\x40\x02\x00\x01",
        b"\xff\xff\xff\xff\xff",
        b"GET / HTTP/1.1\r\n\r\n",
    ],
)
def test_anything_but_connect_first_ends_the_connection(broker: RunningBroker, packet: Any) -> None:
    wire = broker.wire(V5).send(packet, Connect(fresh("late-"), clean=False))
    wire.expect_end()


@normative("MQTT-3.1.0-1", "MQTT-3.1.4-6")
def test_nothing_before_connect_has_an_effect(broker: RunningBroker, topic: str) -> None:
    watcher = broker.client(version=V5)
    watcher.subscribe((topic, 0))
    broker.wire(V5).send(Publish(topic, b"too early"), Connect("c")).expect_end()
    watcher.expect_nothing()


@normative("MQTT-3.1.0-2", "MQTT-3.2.0-2", "MQTT-4.13.1-1")
def test_a_second_connect_is_a_protocol_error(broker: RunningBroker) -> None:
    wire = broker.client(version=V5)
    wire.send(Connect(fresh("again-"))).expect_closed(PROTOCOL_ERROR)


@normative("MQTT-3.1.0-2", "MQTT-3.2.0-2")
def test_a_second_connect_in_the_same_chunk_is_one_too(broker: RunningBroker) -> None:
    wire = broker.wire(V5).send(Connect("twice"), Connect("twice"))
    answers = wire.drain()
    assert sum(isinstance(answer, Connack) and answer.code == 0 for answer in answers) <= 1
    assert isinstance(answers[-1], Disconnect) or len(answers) == 1


# ---- protocol name, version, flags


@normative("MQTT-3.1.2-1")
@pytest.mark.parametrize("name", ["MQIsdp", "mqtt", "MQT", "MQTTX", "", "AMQP"])
def test_another_protocol_name_is_refused(broker: RunningBroker, name: str) -> None:
    client_id = fresh("name-")
    wire = broker.wire(V5).send(
        Connect(client_id, protocol_name=name, properties={"session_expiry_interval": 9})
    )
    _assert_unsupported(wire)
    assert_not_made(broker, client_id)


@normative("MQTT-3.1.2-2")
@pytest.mark.parametrize("level", [0, 1, 2, 3, 6, 7, 127, 128, 133, 255])
def test_another_protocol_version_is_refused(broker: RunningBroker, level: int) -> None:
    wire = broker.wire(V5).send(Connect(fresh("level-"), protocol_level=level))
    _assert_unsupported(wire)


def _assert_unsupported(wire: Wire) -> None:
    """Closed, after nothing or one CONNACK that says why: in MQTT 5's form, or in that of who cannot know it."""
    try:
        answer = wire.take_frame()
    except AssertionError:
        return
    assert (
        answer in (b"\x20\x02\x00\x01", b"\x20\x03\x00\x84\x00")
        or answer[:1] + answer[2:4] == b"\x20\x00\x84"
    )
    wire.expect_end()


@normative("MQTT-3.1.2-3")
def test_the_reserved_connect_flag_is_checked(broker: RunningBroker) -> None:
    for flags in (0x01, 0x03):
        assert_refused(broker.wire(V5).send(Connect(fresh("c"), flags=flags)), MALFORMED)


@normative("MQTT-3.1.2-9")
def test_a_will_flag_without_a_will_is_malformed(broker: RunningBroker) -> None:
    assert_refused(broker.wire(V5).send(Connect(fresh("c"), flags=0x06)), MALFORMED)
    only_topic = encode(Connect("c", flags=0x06), V5)[2:] + b"\0" + text("t")
    assert_refused(broker.wire(V5).send(frame(0x10, only_topic)), MALFORMED)
    no_properties = encode(Connect("c", flags=0x06), V5)[2:] + text("topic") + text("payload")
    assert_refused(broker.wire(V5).send(frame(0x10, no_properties)), MALFORMED)


@normative("MQTT-3.1.2-11", "MQTT-3.1.2-13")
@pytest.mark.parametrize("flags", [0x08, 0x10, 0x18, 0x20, 0x28])
def test_will_qos_and_will_retain_without_a_will_are_malformed(broker: RunningBroker, flags: int) -> None:
    assert_refused(broker.wire(V5).send(Connect(fresh("c"), flags=0x02 | flags)), MALFORMED)


@normative("MQTT-3.1.2-12")
def test_a_will_of_qos_3_is_malformed(broker: RunningBroker) -> None:
    for qos in (0, 1, 2):
        broker.client(version=V5, will=Will("t", b"", qos)).disconnect()
    assert_refused(broker.wire(V5).send(Connect(fresh("c"), will=Will("t", b"", 3))), MALFORMED)


@normative("MQTT-3.1.2-16", "MQTT-3.1.2-17", "MQTT-3.1.2-18", "MQTT-3.1.2-19")
@pytest.mark.parametrize(
    "fields",
    [
        {"flags": 0x02, "username": "u"},
        {"flags": 0x82},
        {"flags": 0x02, "password": b"p"},
        {"flags": 0x42},
        {"flags": 0xC2, "username": "u"},
        {"flags": 0x82, "username": "u", "password": b"p"},
    ],
)
def test_user_name_and_password_are_there_as_the_flags_say(
    broker: RunningBroker, fields: dict[str, Any]
) -> None:
    assert_refused(broker.wire(V5).send(Connect(fresh("c"), **fields)), MALFORMED)


@normative("MQTT-3.1.2-17", "MQTT-3.1.2-19", "MQTT-3.1.3-12")
def test_a_user_name_and_a_password_in_their_places_are_no_mistake(broker: RunningBroker) -> None:
    broker.client(version=V5, username="üser", password=b"\0\xff").ping()
    broker.client(version=V5, username="").ping()


# ---- the payload


@normative("MQTT-3.1.3-1", "MQTT-3.1.3-3", "MQTT-3.1.3-2", "MQTT-3.1.2-9")
def test_the_payloads_fields_are_read_in_their_order(broker: RunningBroker, topic: str) -> None:
    client_id = fresh("all-")
    watcher = broker.client(version=V5)
    watcher.subscribe((topic, 0))
    will = Will(topic, b"will payload", properties={"content_type": "will type"})
    wire = broker.wire(V5)
    fields: dict[str, Any] = {"username": "user name", "password": b"password", "will": will}
    wire.connect(client_id, properties={"session_expiry_interval": 100}, **fields)
    wire.abort()
    watcher.expect(Publish(topic, b"will payload", properties={"content_type": "will type"}))
    again = broker.wire(V5)
    assert again.connect(client_id, clean=False).session_present
    again.disconnect()


@normative("MQTT-3.1.3-3", "MQTT-3.1.4-1")
def test_a_connect_that_is_cut_off_anywhere_is_malformed(broker: RunningBroker) -> None:
    """Its remaining length tells the truth: there is only less in it than its fields need."""
    will = Will("t", b"w", 1, properties={"will_delay_interval": 1})
    whole = Connect("cut", will=will, username="u", password=b"p", properties={"receive_maximum": 5})
    body = encode(whole, V5)[2:]
    for size in range(len(body)):
        assert_refused(broker.wire(V5).send(frame(0x10, body[:size])), MALFORMED, 0x84)


@normative("MQTT-3.1.4-1")
def test_a_connect_that_is_longer_than_its_fields_is_malformed(broker: RunningBroker) -> None:
    body = encode(Connect("long"), V5)[2:]
    assert_refused(broker.wire(V5).send(frame(0x10, body + b"\0")), MALFORMED)


@normative("MQTT-3.1.4-1", "MQTT-4.13.1-1")
@pytest.mark.parametrize(
    ("properties", "code"),
    [
        ({"receive_maximum": 0}, PROTOCOL_ERROR),
        ({"maximum_packet_size": 0}, PROTOCOL_ERROR),
        ({"request_problem_information": 2}, PROTOCOL_ERROR),
        ({"request_response_information": 2}, PROTOCOL_ERROR),
        ({"authentication_data": b"x"}, PROTOCOL_ERROR),
        ({"session_expiry_interval": [1, 1]}, PROTOCOL_ERROR),
        ({"receive_maximum": [1, 1]}, PROTOCOL_ERROR),
        ({"maximum_packet_size": [100, 100]}, PROTOCOL_ERROR),
        ({"topic_alias_maximum": [1, 1]}, PROTOCOL_ERROR),
        ({"request_problem_information": [1, 1]}, PROTOCOL_ERROR),
        ({"request_response_information": [1, 1]}, PROTOCOL_ERROR),
        ({"authentication_method": ["x", "x"]}, PROTOCOL_ERROR),
        ({"topic_alias": 1}, MALFORMED),
        ({"message_expiry_interval": 1}, MALFORMED),
        ({"will_delay_interval": 1}, MALFORMED),
        ({"server_keep_alive": 1}, MALFORMED),
        (b"\x7f\x00", MALFORMED),
        (b"\x11\x00\x00", MALFORMED),
    ],
)
def test_properties_that_cannot_be_are_refused(broker: RunningBroker, properties: Any, code: int) -> None:
    codes = {code, MALFORMED, PROTOCOL_ERROR}
    assert_refused(broker.wire(V5).send(Connect(fresh("c"), properties=properties)), *codes)


@normative("MQTT-3.1.4-1", "MQTT-4.13.1-1")
@pytest.mark.parametrize(
    "properties",
    [
        {"will_delay_interval": [1, 1]},
        {"message_expiry_interval": [1, 1]},
        {"payload_format_indicator": 2},
        {"receive_maximum": 1},
        {"topic_alias": 1},
        {"response_topic": "a/#"},
    ],
)
def test_will_properties_that_cannot_be_are_refused(broker: RunningBroker, properties: Any) -> None:
    will = Will("t", b"", properties=properties)
    wire = broker.wire(V5).send(Connect(fresh("c"), will=will))
    assert_refused(wire, MALFORMED, PROTOCOL_ERROR, 0x90)


@normative("MQTT-4.7.0-1", "MQTT-4.7.3-1", "MQTT-3.1.4-1")
@pytest.mark.parametrize("will_topic", ["", "#", "a/+/b"])
def test_a_will_topic_is_a_topic_name(broker: RunningBroker, will_topic: str) -> None:
    wire = broker.wire(V5).send(Connect(fresh("c"), will=Will(will_topic, b"")))
    assert_refused(wire, MALFORMED, PROTOCOL_ERROR, 0x90)


def test_a_connect_of_version_5_that_is_malformed_is_told_why(broker: RunningBroker) -> None:
    """The specification leaves the CONNACK open [4.13]; a client that gets none takes it for a fault of the network."""
    broker.wire(V5).send(Connect(fresh("c"), flags=0x03)).expect_refused(MALFORMED)
    wire = broker.wire(V5).send(Connect(fresh("c"), properties={"receive_maximum": 0}))
    wire.expect_refused(PROTOCOL_ERROR)


# ---- further checks


class Door:
    """An authenticator: everybody may come in but strangers."""

    def authenticate(self, credentials: Credentials, answer: Callable[[Admission], None]) -> None:
        is_stranger = credentials.client_id.startswith("stranger")
        answer(Admission(NOT_AUTHORIZED, detail="a stranger") if is_stranger else Admission(0, "somebody"))

    def begin(self, credentials: Credentials, method: str) -> None:
        return None


@normative("MQTT-3.1.4-2", "MQTT-3.2.2-6", "MQTT-3.2.2-7", "MQTT-3.1.4-6", "MQTT-4.13.2-1")
def test_who_may_not_come_in_is_refused_and_nothing_of_it_is_done(
    start_broker: StartBroker, topic: str
) -> None:
    broker = start_broker(authenticator=Door())
    watcher = broker.client(version=V5)
    watcher.subscribe((topic, 0))
    properties = {"session_expiry_interval": 99}
    connect = Connect("stranger", clean=False, will=Will(topic, b"will"), properties=properties)
    wire = broker.wire(V5).send(connect, Publish(topic, b"behind it"), Pingreq())
    assert_refused(wire, 0x86, NOT_AUTHORIZED)
    watcher.expect_nothing()


@normative("MQTT-3.1.4-6", "MQTT-4.12.0-1")
def test_what_comes_behind_a_refused_connect_has_no_effect(broker: RunningBroker, topic: str) -> None:
    watcher = broker.client(version=V5)
    watcher.subscribe((topic, 0))
    refused = [
        Connect("c", flags=0x03),
        Connect("c", properties={"receive_maximum": 0}),
        Connect("c", properties={"authentication_method": "nobody's"}),
        Connect("c", protocol_level=6),
    ]
    for connect in refused:
        wire = broker.wire(V5).send(connect, Publish(topic, b"behind it"), Subscribe(1, ((topic, 0),)))
        wire.take_frame() if connect.protocol_level else assert_refused(wire, *range(0x80, 0xA3))
    watcher.expect_nothing()
