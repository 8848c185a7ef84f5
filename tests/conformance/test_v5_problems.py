"""MQTT 5.0: what a client is told of problems, within its maximum packet size and if it wants to know [3.1.2.11.4, .7].

`PROVOKE` makes the broker send each packet that may have a reason string; the size without a limit tells where to set one.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

from tests.conformance.codec import (
    V5,
    Connack,
    Connect,
    Packet,
    Pingreq,
    Pingresp,
    Puback,
    Publish,
    Pubrec,
    Pubrel,
    Subscribe,
    Unsubscribe,
    encode,
)
from tests.conformance.conftest import StartBroker
from tests.conformance.harness import RunningBroker
from tests.conformance.normative import normative
from tests.conformance.test_v5_acks import Guard
from tests.conformance.wire import Closed, Wire, fresh

PROVOKE: dict[str, Callable[[Wire], Wire]] = {
    "PUBACK": lambda wire: wire.send(Publish("denied", b"", 1, packet_id=1)),
    "PUBREC": lambda wire: wire.send(Publish("denied", b"", 2, packet_id=1)),
    "PUBREL": lambda wire: wire.send(Pubrec(99)),
    "PUBCOMP": lambda wire: wire.send(Pubrel(99)),
    "SUBACK": lambda wire: wire.send(Subscribe(1, (("a/#/b", 0), ("denied", 0)))),
    "UNSUBACK": lambda wire: wire.send(Unsubscribe(1, ("never",))),
    "DISCONNECT": lambda wire: wire.send(Connect("again")),
}
REFUSED = {"authentication_method": "nobody's"}


@pytest.fixture
def guarded(start_broker: StartBroker) -> RunningBroker:
    """A broker where topics beginning with `denied` are."""
    return start_broker(authorizer=Guard())


def provoke(broker: RunningBroker, name: str, **properties: int) -> tuple[Any, bytes]:
    """The answer, and its bytes, for a client that connected with `properties`."""
    wire = broker.client(version=V5, properties=properties)
    packet: Packet = PROVOKE[name](wire).take()
    assert type(packet).__name__.upper() == name
    return packet, wire.last_frame


# ---- reason strings


def test_a_refusal_says_why(guarded: RunningBroker) -> None:
    """Without this the limits below would prove nothing. PUBREL, PUBCOMP and UNSUBACK say all with their code."""
    for name in ("PUBACK", "PUBREC", "SUBACK", "DISCONNECT"):
        packet, _ = provoke(guarded, name)
        assert packet.properties.get("reason_string"), name
    connack = guarded.wire(V5).connect(properties=REFUSED, code=0x8C)
    assert connack.properties.get("reason_string")


@normative(
    "MQTT-3.4.2-2", "MQTT-3.4.2-3", "MQTT-3.5.2-2", "MQTT-3.5.2-3", "MQTT-3.6.2-2", "MQTT-3.6.2-3",
    "MQTT-3.7.2-2", "MQTT-3.7.2-3", "MQTT-3.9.2-1", "MQTT-3.9.2-2", "MQTT-3.11.2-1", "MQTT-3.11.2-2",
    "MQTT-3.14.2-3", "MQTT-3.14.2-4", "MQTT-3.1.2-24",
)  # fmt: skip
@pytest.mark.parametrize("name", PROVOKE)
def test_no_reason_string_or_user_property_makes_it_too_large(guarded: RunningBroker, name: str) -> None:
    ample, whole = provoke(guarded, name)
    smallest = len(connack_bytes(guarded))
    for limit in {len(whole), len(whole) - 1, (len(whole) + smallest) // 2, smallest}:
        if limit < smallest:
            continue  # no client could connect with it
        packet, got = provoke(guarded, name, maximum_packet_size=limit)
        assert len(got) <= limit
        assert _codes(packet) == _codes(ample)
        if limit < len(whole):
            assert packet.properties != ample.properties


def _codes(packet: Any) -> Any:
    return packet.codes if hasattr(packet, "codes") else packet.code


def connack_bytes(broker: RunningBroker, **properties: Any) -> bytes:
    """What an accepted client is answered."""
    wire = broker.wire(V5)
    wire.connect(properties={"maximum_packet_size": 1000} | properties)
    return wire.last_frame


@normative("MQTT-3.2.2-19", "MQTT-3.2.2-20", "MQTT-3.1.2-24")
def test_no_reason_string_or_user_property_makes_connack_too_large(guarded: RunningBroker) -> None:
    wire = guarded.wire(V5)
    wire.connect(properties=REFUSED, code=0x8C)
    whole = wire.last_frame
    for limit in range(1, len(whole) + 1):
        wire = guarded.wire(V5).send(Connect(fresh("c"), properties=REFUSED | {"maximum_packet_size": limit}))
        answers = wire.drain()
        assert len(wire.last_frame) <= limit
        if answers:
            assert isinstance(answers[0], Connack)
            assert answers[0].code == 0x8C
    assert wire.last_frame == whole


@normative("MQTT-3.1.2-24", "MQTT-3.2.0-1")
@pytest.mark.parametrize("client_id", ["", "c"])
def test_a_connack_that_does_not_fit_is_not_sent(guarded: RunningBroker, client_id: str) -> None:
    """What it says the client must know, so there is no connection without it."""
    wire = guarded.wire(V5)
    wire.connect(client_id)
    whole = wire.last_frame
    for limit in range(1, len(whole)):
        wire = guarded.wire(V5).send(Connect(client_id, properties={"maximum_packet_size": limit}))
        assert all(isinstance(answer, Connack) for answer in wire.drain())
        assert len(wire.last_frame) <= limit
    wire = guarded.wire(V5)
    wire.connect(client_id, properties={"maximum_packet_size": len(whole)})


# ---- request problem information


@normative("MQTT-3.1.2-29")
@pytest.mark.parametrize("name", [name for name in PROVOKE if name != "DISCONNECT"])
def test_who_does_not_want_to_know_is_told_the_code_alone(guarded: RunningBroker, name: str) -> None:
    packet, _ = provoke(guarded, name, request_problem_information=0)
    assert "reason_string" not in packet.properties
    assert "user_property" not in packet.properties
    ample, _ = provoke(guarded, name, request_problem_information=1)
    assert _codes(packet) == _codes(ample)


@normative("MQTT-3.1.2-29", "MQTT-3.3.2-17")
def test_user_properties_of_messages_are_no_problem_information(guarded: RunningBroker, topic: str) -> None:
    wire = guarded.client(version=V5, properties={"request_problem_information": 0})
    wire.subscribe((topic, 0))
    guarded.client(version=V5).publish(topic, b"x", properties={"user_property": [("a", "b")]})
    assert wire.expect_message(topic, b"x").properties == {"user_property": [("a", "b")]}


# ---- messages beyond the client's maximum packet size


@normative("MQTT-3.1.2-24", "MQTT-3.1.2-25")
@pytest.mark.parametrize("qos", [0, 1, 2])
@pytest.mark.parametrize("durable", [False, True])
def test_a_message_too_large_counts_as_delivered(
    broker: RunningBroker, topic: str, qos: int, durable: bool
) -> None:
    exact = Publish(topic, bytes(60), qos, packet_id=1 if qos else None)
    limit = len(encode(exact, V5))
    properties = {"maximum_packet_size": limit, "receive_maximum": 1}
    properties |= {"session_expiry_interval": 100} if durable else {}
    wire, publisher = broker.client(version=V5, properties=properties), broker.client(version=V5)
    wire.subscribe((topic, 2))
    for size in (61, 60, 61, 5000, 1, 61):
        publisher.publish(topic, bytes(size), qos)
        if size <= 60:
            wire.expect_message(topic, bytes(size), qos)
            assert len(wire.last_frame) <= limit
    wire.expect_nothing()


@normative("MQTT-3.1.2-24", "MQTT-3.1.2-25")
def test_properties_and_identifiers_count_too(broker: RunningBroker, topic: str) -> None:
    limit = len(encode(Publish(topic, bytes(60)), V5))
    wire = broker.client(version=V5, properties={"maximum_packet_size": limit})
    wire.subscribe((topic, 0), properties={"subscription_identifier": 200})
    publisher = broker.client(version=V5)
    publisher.publish(topic, bytes(60))
    publisher.publish(topic, bytes(57), properties={"user_property": [("a", "b")]})
    publisher.publish(topic, bytes(57))
    wire.expect(Publish(topic, bytes(57), properties={"subscription_identifier": [200]}))
    wire.expect_nothing()


@normative("MQTT-3.1.2-24", "MQTT-3.1.2-25")
def test_a_message_too_large_that_waited_is_passed_over(start_broker: StartBroker, topic: str) -> None:
    broker = start_broker()
    properties = {"session_expiry_interval": 10_000}
    sleeper = broker.client("sleeper", V5, properties=properties)
    sleeper.subscribe((topic, 2))
    sleeper.disconnect()
    publisher = broker.client(version=V5)
    for number, size in enumerate((10, 500, 10, 500, 10)):
        publisher.publish(topic, b"%d" % number + bytes(size), 1 + number % 2)
    broker.restart()
    limit = {"maximum_packet_size": 200}
    sleeper = broker.client("sleeper", V5, clean=False, properties=properties | limit)
    for number in (0, 2, 4):
        sleeper.expect_message(topic, b"%d" % number + bytes(10), 1 + number % 2)
    sleeper.expect_nothing()
    sleeper.disconnect()
    sleeper = broker.client("sleeper", V5, clean=False, properties=properties)
    sleeper.expect_nothing()


@normative("MQTT-3.1.2-24", "MQTT-3.1.2-25", "MQTT-3.3.1-9")
def test_a_retained_message_too_large_is_passed_over(broker: RunningBroker, topic: str) -> None:
    publisher = broker.client(version=V5)
    publisher.publish(f"{topic}/large", bytes(500), 1, retain=True)
    publisher.publish(f"{topic}/small", b"x", 1, retain=True)
    wire = broker.client(version=V5, properties={"maximum_packet_size": 200, "receive_maximum": 1})
    wire.subscribe((f"{topic}/#", 1))
    wire.expect_message(f"{topic}/small", b"x", 1, retain=True)
    wire.expect_nothing()


@normative("MQTT-3.1.2-24")
@pytest.mark.parametrize("kind", ["SUBACK", "UNSUBACK"])
def test_an_answer_too_large_is_not_sent(broker: RunningBroker, kind: str) -> None:
    """A code for each filter is what makes it large. What else a broker does about it is its own affair."""
    wire = broker.client(version=V5, properties={"maximum_packet_size": 100})
    names = [f"{number}" for number in range(200)]
    packet = (
        Subscribe(1, tuple((name, 0) for name in names)) if kind == "SUBACK" else Unsubscribe(1, tuple(names))
    )
    wire.send(packet, Pingreq())
    try:
        while not isinstance(wire.take(), Pingresp):
            assert len(wire.last_frame) <= 100
    except Closed:
        assert len(wire.last_frame) <= 100


@normative("MQTT-3.1.2-24", "MQTT-3.3.4-1")
def test_acknowledgements_still_fit(broker: RunningBroker, topic: str) -> None:
    wire = broker.client(version=V5, properties={"maximum_packet_size": 30})
    wire.publish("t", bytes(1000), 1)
    wire.publish("t", bytes(1000), 2)
    puback: Puback = wire.send(Publish("t", b"", 1, packet_id=9)).expect(Puback)
    assert puback.packet_id == 9
