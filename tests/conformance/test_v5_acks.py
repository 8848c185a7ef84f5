"""MQTT 5.0, chapters 3.4 to 3.7: the four acknowledgements, their form and their reason codes."""

from __future__ import annotations

from typing import Any
from unittest.mock import ANY

import pytest

from edge_broker.core.ports import Principal
from tests.conformance.codec import V5, V311, Puback, Pubcomp, Publish, Pubrec, Pubrel, frame
from tests.conformance.conftest import StartBroker
from tests.conformance.harness import RunningBroker
from tests.conformance.normative import normative
from tests.conformance.properties import varint
from tests.conformance.wire import Wire
from tests.permitting import SimpleRules

MALFORMED, PROTOCOL_ERROR = 0x81, 0x82
NO_MATCHING_SUBSCRIBERS, NOT_AUTHORIZED, NOT_FOUND, QUOTA_EXCEEDED = 0x10, 0x87, 0x92, 0x97
FORMAT_INVALID = 0x99
EXPIRY = {"session_expiry_interval": 10_000}
PUBLISH_CODES = {0x00, 0x10, 0x80, 0x83, 0x87, 0x90, 0x91, 0x97, 0x99}
"""Those of PUBACK and of PUBREC, which are the same."""


class Guard(SimpleRules):
    """An authorizer: nothing may be published to topics beginning with `denied`."""

    def may_publish(self, principal: Principal, topic: str) -> bool:
        return not topic.startswith("denied")

    def may_subscribe(self, principal: Principal, topic_filter: str) -> bool:
        return not topic_filter.startswith("denied")


@pytest.fixture
def guarded(start_broker: StartBroker) -> RunningBroker:
    """A broker where topics may be denied, and payloads must be what they say they are."""
    return start_broker(authorizer=Guard(), protocol={"check_payload_format": True})


# ---- reason codes


@normative("MQTT-3.4.2-1", "MQTT-3.5.2-1", "MQTT-3.3.4-1")
@pytest.mark.parametrize("durable", [False, True])
def test_the_codes_of_puback_and_pubrec(guarded: RunningBroker, topic: str, durable: bool) -> None:
    properties = EXPIRY if durable else {}
    watcher = guarded.client(version=V5, properties=properties)
    watcher.subscribe((topic, 0))
    cases: list[tuple[str, bytes, dict[str, int], set[int]]] = [
        (topic, b"x", {}, {0}),
        ("nobody/there", b"x", {}, {0, NO_MATCHING_SUBSCRIBERS}),
        ("denied/x", b"x", {}, {NOT_AUTHORIZED}),
        (topic, b"\xff", {"payload_format_indicator": 1}, {FORMAT_INVALID}),
        (topic, b"\xff", {"payload_format_indicator": 0}, {0}),
        (topic, b"\xc3\xa9", {"payload_format_indicator": 1}, {0}),
        (topic, b"\xff", {}, {0}),
    ]
    wire = guarded.client(version=V5, properties=properties)
    for qos, kind in ((1, Puback), (2, Pubrec)):
        for number, (name, payload, format_indicator, codes) in enumerate(cases, 1):
            packet = Publish(name, payload, qos, packet_id=number, properties=format_indicator)
            answer: Any = wire.send(packet).expect(kind)
            assert answer.packet_id == number
            assert answer.code in codes
            assert answer.code in PUBLISH_CODES
        got = [watcher.expect(Publish).payload for _ in range(4)]
        assert got == [b"x", b"\xff", b"\xc3\xa9", b"\xff"]
    watcher.expect_nothing()


@normative("MQTT-3.4.2-1", "MQTT-3.5.2-1", "MQTT-3.3.4-1")
def test_what_is_refused_at_qos_0_goes_to_nobody(guarded: RunningBroker) -> None:
    watcher = guarded.client(version=V5)
    watcher.subscribe(("#", 0))
    wire = guarded.client(version=V5)
    wire.publish("denied/x", b"x")
    wire.publish("t", b"\xff", properties={"payload_format_indicator": 1})
    wire.publish("t", b"good")
    watcher.expect_message("t", b"good")


@normative("MQTT-3.4.2-1", "MQTT-3.5.2-1")
@pytest.mark.parametrize("durable", [False, True])
def test_refusals_are_answered_in_their_turn(guarded: RunningBroker, topic: str, durable: bool) -> None:
    """Behind a message that waits for the disk, a refusal waits as well."""
    sleeper = guarded.client(version=V5, properties=EXPIRY)
    sleeper.subscribe((topic, 1))
    guarded.vanish(sleeper)
    wire = guarded.client(version=V5, properties=EXPIRY if durable else {})
    names = [(topic, 0), ("denied/x", NOT_AUTHORIZED)] * 5
    wire.send(*(Publish(name, b"x", 1, packet_id=number) for number, (name, _) in enumerate(names, 1)))
    for number, (_, code) in enumerate(names, 1):
        wire.expect(Puback(number, code, ANY))


@normative("MQTT-4.3.3-9")
def test_after_a_refusing_pubrec_the_identifier_is_a_new_message(guarded: RunningBroker, topic: str) -> None:
    watcher = guarded.client(version=V5)
    watcher.subscribe((topic, 2))
    for properties in ({}, EXPIRY):
        wire = guarded.client(version=V5, properties=properties)
        for _ in range(2):
            refused: Pubrec = wire.send(Publish("denied/x", b"x", 2, packet_id=5)).expect(Pubrec)
            assert refused.code == NOT_AUTHORIZED
        wire.send(Publish(topic, b"new", 2, packet_id=5)).expect(Pubrec(5))
        watcher.expect_message(topic, b"new", 2)
        wire.send(Pubrel(5)).expect(Pubcomp(5))


@normative("MQTT-3.6.2-1", "MQTT-3.7.2-1")
def test_the_codes_of_pubrel_and_pubcomp(broker: RunningBroker, topic: str) -> None:
    wire, publisher = broker.client(version=V5), broker.client(version=V5)
    wire.subscribe((topic, 2))
    publisher.publish(topic, b"x", 2)  # PUBCOMP of success is in it
    packet_id = wire.expect(Publish).packet_id
    wire.send(Pubrec(packet_id)).expect(Pubrel(packet_id, 0))
    wire.send(Pubcomp(packet_id)).ping()
    pubrel: Pubrel = wire.send(Pubrec(packet_id)).expect(Pubrel)
    assert (pubrel.packet_id, pubrel.code) == (packet_id, NOT_FOUND)
    pubcomp: Pubcomp = wire.send(Pubrel(4321)).expect(Pubcomp)
    assert (pubcomp.packet_id, pubcomp.code) == (4321, NOT_FOUND)


@normative("MQTT-3.4.2-1")
def test_a_version_3_publisher_is_told_no_code_that_it_cannot_know(guarded: RunningBroker) -> None:
    wire = guarded.client(version=V311)
    wire.send(Publish("denied/x", b"x", 1, packet_id=5)).expect(b"\x40\x02\x00\x05")
    wire.send(Publish("denied/x", b"x", 2, packet_id=6)).expect(b"\x50\x02\x00\x06")


@normative("MQTT-3.4.2-1", "MQTT-3.3.1-5")
def test_a_retained_message_too_many_is_refused(start_broker: StartBroker, topic: str) -> None:
    broker = start_broker(limits={"max_retained_messages": 1})
    wire = broker.client(version=V5)
    wire.publish(topic, b"kept", 1, retain=True)
    puback: Puback = wire.send(Publish("another", b"x", 1, True, packet_id=9)).expect(Puback)
    assert (puback.packet_id, puback.code) == (9, QUOTA_EXCEEDED)
    wire.publish(topic, b"replaced", 1, retain=True)


# ---- form

FORMS = {
    "puback": (0x40, Puback),
    "pubrec": (0x50, Pubrec),
    "pubrel": (0x62, Pubrel),
    "pubcomp": (0x70, Pubcomp),
}


def _under_way(broker: RunningBroker, topic: str, qos: int) -> tuple[Wire, bytes]:
    """A client with a message that it has not acknowledged, and that message's identifier."""
    wire = broker.client(version=V5, properties={"receive_maximum": 1})
    wire.subscribe((topic, qos))
    publisher = broker.client(version=V5)
    publisher.publish(topic, b"first", qos)
    publisher.publish(topic, b"second", qos)
    message: Publish = wire.expect(Publish)
    return wire, (message.packet_id or 0).to_bytes(2, "big")


@normative("MQTT-4.3.2-3", "MQTT-3.4.2-1", "MQTT-2.2.2-1")
@pytest.mark.parametrize(
    "rest",
    [
        b"",
        b"\x00",
        b"\x10",
        b"\x00\x00",
        b"\x10\x00",
        b"\x80\x00",
        b"\x00" + varint(7) + b"\x1f\x00\x04good",
        b"\x97" + varint(14) + b"\x26\x00\x01a\x00\x01b\x26\x00\x01a\x00\x01c",
    ],
    ids=lambda rest: rest.hex() or "short",
)
def test_every_form_of_puback_is_understood(broker: RunningBroker, topic: str, rest: bytes) -> None:
    wire, packet_id = _under_way(broker, topic, 1)
    wire.send(frame(0x40, packet_id + rest))
    assert wire.expect(Publish).payload == b"second"


@normative("MQTT-4.3.3-4", "MQTT-3.5.2-1", "MQTT-3.7.2-1", "MQTT-2.2.2-1")
@pytest.mark.parametrize("rest", [b"", b"\x00", b"\x00\x00", b"\x00" + varint(7) + b"\x1f\x00\x04good"])
def test_every_form_of_pubrec_pubrel_and_pubcomp_is_understood(
    broker: RunningBroker, topic: str, rest: bytes
) -> None:
    wire, packet_id = _under_way(broker, topic, 2)
    number = int.from_bytes(packet_id, "big")
    wire.send(frame(0x50, packet_id + rest)).expect(Pubrel(number))
    wire.send(frame(0x70, packet_id + rest))
    assert wire.expect(Publish).payload == b"second"
    wire.send(Publish("t", b"x", 2, packet_id=3)).expect(Pubrec)
    wire.send(frame(0x62, b"\x00\x03" + rest)).expect(Pubcomp(3))


@normative("MQTT-4.13.1-1", "MQTT-3.6.1-1")
@pytest.mark.parametrize("kind", FORMS)
@pytest.mark.parametrize(
    "body",
    [
        b"",
        b"\x00",
        b"\x00\x00",
        b"\x00\x01\x00\x05",
        b"\x00\x01\x00\x01\x1f",
        b"\x00\x01\x00\x00\x00",
        b"\x00\x01\x00\x02\x01\x00",
    ],
    ids=lambda body: body.hex() or "empty",
)
def test_an_acknowledgement_out_of_form_ends_the_connection(
    broker: RunningBroker, kind: str, body: bytes
) -> None:
    first_byte, _ = FORMS[kind]
    broker.client(version=V5).send(frame(first_byte, body)).expect_closed()


@normative("MQTT-3.6.1-1", "MQTT-2.1.3-1", "MQTT-4.13.1-1")
def test_the_flags_of_pubrel_are_checked(broker: RunningBroker) -> None:
    for flags in [flags for flags in range(16) if flags != 2]:
        wire = broker.client(version=V5)
        wire.send(Publish("t", b"x", 2, packet_id=1)).expect(Pubrec)
        wire.send(bytes((0x60 | flags,)) + b"\x02\x00\x01").expect_closed(MALFORMED)


@normative("MQTT-2.2.1-5", "MQTT-4.3.2-3")
@pytest.mark.parametrize("qos", [1, 2])
def test_an_acknowledgement_of_another_packet_is_none(broker: RunningBroker, topic: str, qos: int) -> None:
    wire, packet_id = _under_way(broker, topic, qos)
    other = int.from_bytes(packet_id, "big") + 77
    wire.send(Puback(other), Pubcomp(other)).expect_nothing()
    number = int.from_bytes(packet_id, "big")
    if qos == 1:
        wire.send(Puback(number))
    else:
        wire.send(Pubrec(number)).expect(Pubrel(number))
        wire.send(Pubcomp(number))
    assert wire.expect(Publish).payload == b"second"
