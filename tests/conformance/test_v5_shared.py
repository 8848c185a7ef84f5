"""MQTT 5.0, chapter 4.8.2: shared subscriptions."""

from __future__ import annotations

from collections import Counter
from typing import Any
from unittest.mock import ANY

import pytest

from tests.conformance.codec import V5, Pingresp, Puback, Publish, Pubrec, Pubrel, Suback, Subscribe
from tests.conformance.conftest import StartBroker
from tests.conformance.harness import RunningBroker
from tests.conformance.normative import normative
from tests.conformance.wire import Wire

FILTER_INVALID = 0x8F
EXPIRY: dict[str, Any] = {"session_expiry_interval": 10_000}


def member(
    broker: RunningBroker, topic: str, qos: int = 2, name: Any = None, share: str = "g", **properties: Any
) -> Wire:
    """A client in the group `share` of `topic`; `properties` of its CONNECT."""
    wire = broker.client(name, V5, clean=False, properties=properties)
    wire.subscribe((f"$share/{share}/{topic}", qos))
    return wire


def collect(broker: RunningBroker, *wires: Wire) -> list[list[Publish]]:
    """What each has been sent by now, acknowledged."""
    broker.settle()
    got: list[list[Publish]] = []
    for wire in wires:
        wire.send(b"\xc0\x00")
        got.append([])
        while not isinstance(packet := wire.take(), Pingresp):
            assert isinstance(packet, Publish)
            got[-1].append(packet)
    for wire, messages in zip(wires, got, strict=True):
        for message in messages:
            if message.qos:
                wire.acknowledge(message)
    return got


# ---- the filter


@normative("MQTT-4.8.2-1", "MQTT-4.8.2-2")
@pytest.mark.parametrize(
    "topic_filter",
    [
        "$share/",
        "$share//",
        "$share//a",
        "$share/g",
        "$share/g/",
        "$share/+/a",
        "$share/#/a",
        "$share/g+/a",
        "$share/#",
    ],
)
def test_a_shared_filter_that_cannot_be_is_refused(broker: RunningBroker, topic_filter: str) -> None:
    wire = broker.client(version=V5)
    wire.send(Subscribe(1, ((topic_filter, 1),))).expect(Suback(1, (FILTER_INVALID,), ANY))


@normative("MQTT-4.8.2-1", "MQTT-4.8.2-2")
@pytest.mark.parametrize("share", ["g", "a share with spaces", "é\U0001f321", "$share", "a" * 1000])
def test_any_other_share_name_is_good(broker: RunningBroker, topic: str, share: str) -> None:
    wire = member(broker, topic, share=share)
    broker.client(version=V5).publish(topic, b"x", 1)
    wire.expect_message(topic, b"x", 1)
    assert wire.unsubscribe(f"$share/{share}/{topic}").codes == (0,)


@normative("MQTT-4.8.2-1")
@pytest.mark.parametrize("prefix", ["$Share/g/", "$shared/g/", "share/g/", "$share", "/$share/g/"])
def test_only_dollar_share_shares(broker: RunningBroker, topic: str, prefix: str) -> None:
    """Anything else is a topic filter like any other."""
    wire = broker.client(version=V5)
    if wire.subscribe((prefix + topic, 0)).codes == (0,):
        publisher = broker.client(version=V5)
        publisher.publish(topic, b"x")
        publisher.publish(prefix + topic, b"y")
        wire.expect_message(prefix + topic, b"y")
    wire.expect_nothing()


# ---- who gets what


@normative("MQTT-4.5.0-1", "MQTT-4.8.2-3")
@pytest.mark.parametrize("qos", [0, 1, 2])
def test_each_message_goes_to_one_member_of_each_group(broker: RunningBroker, topic: str, qos: int) -> None:
    groups = {share: [member(broker, topic, qos, share=share) for _ in range(3)] for share in ("g", "h")}
    plain = broker.client(version=V5)
    plain.subscribe((topic, qos))
    publisher, payloads = broker.client(version=V5), [b"%d" % number for number in range(30)]
    for payload in payloads:
        publisher.publish(topic, payload, qos)
    for wires in groups.values():
        got = collect(broker, *wires)
        assert sorted(message.payload for messages in got for message in messages) == sorted(payloads)
        assert sum(bool(messages) for messages in got) > 1, "all went to one member"
        assert {message.qos for messages in got for message in messages} == {qos}
    assert [message.payload for message in collect(broker, plain)[0]] == payloads


@normative("MQTT-4.8.2-3")
def test_each_member_gets_it_at_its_own_granted_qos(broker: RunningBroker, topic: str) -> None:
    wires = [member(broker, topic, qos) for qos in (0, 1, 2)]
    publisher = broker.client(version=V5)
    for qos in (0, 1, 2):
        for _ in range(9):
            publisher.publish(topic, b"%d" % qos, qos)
    seen: Counter[int] = Counter()
    for granted, messages in enumerate(collect(broker, *wires)):
        for message in messages:
            assert message.qos == min(granted, int(message.payload))
            seen[granted] += 1
    assert sum(seen.values()) == 27
    assert set(seen) == {0, 1, 2}


@normative("MQTT-4.8.2-3", "MQTT-3.8.4-3")
def test_a_member_that_subscribes_again_is_one_member_still(broker: RunningBroker, topic: str) -> None:
    wire, other = member(broker, topic, 2), member(broker, topic, 2)
    wire.subscribe((f"$share/g/{topic}", 0))
    publisher = broker.client(version=V5)
    for _ in range(10):
        publisher.publish(topic, b"x", 1)
    mine, others = collect(broker, wire, other)
    assert (len(mine) + len(others), {message.qos for message in mine}) == (10, {0})
    assert len(mine) == len(others)


@normative("MQTT-4.8.2-3")
def test_who_left_the_group_gets_nothing_more(broker: RunningBroker, topic: str) -> None:
    wire, other = member(broker, topic), member(broker, topic)
    wire.unsubscribe(f"$share/g/{topic}")
    publisher = broker.client(version=V5)
    for _ in range(4):
        publisher.publish(topic, b"x", 1)
    mine, others = collect(broker, wire, other)
    assert (len(mine), len(others)) == (0, 4)


def test_a_member_that_is_away_is_passed_over(broker: RunningBroker, topic: str) -> None:
    """[4.8.2] leaves the choice to the server; a message for a group with somebody there should not wait for who is not."""
    away, here = member(broker, topic, **EXPIRY), member(broker, topic)
    broker.vanish(away)
    publisher = broker.client(version=V5)
    for _ in range(4):
        publisher.publish(topic, b"x", 1)
    assert len(collect(broker, here)[0]) == 4


@normative("MQTT-4.5.0-1", "MQTT-4.8.2-3")
def test_with_nobody_there_it_waits_for_a_member(start_broker: StartBroker, topic: str) -> None:
    broker = start_broker()
    away = member(broker, topic, name="away", **EXPIRY)
    away.disconnect()
    publisher = broker.client(version=V5)
    for number in range(3):
        publisher.publish(topic, b"%d" % number, 1)
    broker.restart()
    back = broker.client("away", V5, clean=False, properties=EXPIRY)
    for number in range(3):
        back.expect_message(topic, b"%d" % number, 1)


# ---- what happens to a message whose member goes


def _chosen(topic: str, qos: int, *wires: Wire) -> tuple[Wire, Wire, Publish]:
    """Who of two members got the one message; the other one; the message."""
    messages = {}
    for wire in wires:
        wire.send(b"\xc0\x00")
        packet = wire.take()
        if isinstance(packet, Publish):
            assert (packet.topic, packet.qos, packet.dup) == (topic, qos, False)
            messages[wire] = packet
            wire.expect(Pingresp)
    ((chosen, message),) = messages.items()
    (other,) = set(wires) - {chosen}
    return chosen, other, message


@normative("MQTT-4.8.2-4", "MQTT-4.3.3-3")
@pytest.mark.parametrize("released", [False, True])
def test_qos_2_is_completed_with_the_same_member(broker: RunningBroker, topic: str, released: bool) -> None:
    wires = [member(broker, topic, **EXPIRY) for _ in range(2)]
    broker.client(version=V5).publish(topic, b"x", 2)
    broker.settle()
    first, other, message = _chosen(topic, 2, *wires)
    packet_id = message.packet_id or 0
    if released:
        first.send(Pubrec(packet_id)).expect(Pubrel(packet_id))
    broker.vanish(first)
    other.expect_nothing()
    back = broker.client(first.client_id, V5, clean=False, properties=EXPIRY)
    if not released:
        back.expect(Publish(topic, b"x", 2, dup=True, packet_id=packet_id))
        back.send(Pubrec(packet_id))
    back.expect(Pubrel(packet_id))
    other.expect_nothing()


@normative("MQTT-4.8.2-5")
@pytest.mark.parametrize("how", ["expired", "clean start", "never outlived its connection"])
def test_qos_2_of_a_member_whose_session_ended_goes_to_nobody(
    start_broker: StartBroker, topic: str, how: str
) -> None:
    broker = start_broker()
    properties: dict[str, Any] = {} if how.startswith("never") else {"session_expiry_interval": 100}
    wires = [member(broker, topic, **properties) for _ in range(2)]
    broker.client(version=V5).publish(topic, b"x", 2)
    broker.settle()
    first, other, _ = _chosen(topic, 2, *wires)
    broker.vanish(first)
    if how == "expired":
        broker.pass_time(101)
    elif how == "clean start":
        broker.client(first.client_id, V5).expect_nothing()
    other.expect_nothing()


@pytest.mark.parametrize("how", ["expired", "clean start", "never outlived its connection"])
def test_qos_1_of_a_member_whose_session_ended_goes_to_another(
    start_broker: StartBroker, topic: str, how: str
) -> None:
    """[4.8.2]: should the session end before the acknowledgement, another member should have the message."""
    broker = start_broker()
    properties: dict[str, Any] = {} if how.startswith("never") else {"session_expiry_interval": 100}
    wires = [member(broker, topic, 1, **properties) for _ in range(2)]
    broker.client(version=V5).publish(topic, b"x", 1)
    broker.settle()
    first, other, _ = _chosen(topic, 1, *wires)
    broker.vanish(first)
    if how == "expired":
        broker.pass_time(101)
    elif how == "clean start":
        broker.client(first.client_id, V5).expect_nothing()
    other.expect_message(topic, b"x", 1)
    other.expect_nothing()


def test_qos_1_of_a_member_that_comes_back_is_not_given_twice(broker: RunningBroker, topic: str) -> None:
    wires = [member(broker, topic, 1, **EXPIRY) for _ in range(2)]
    broker.client(version=V5).publish(topic, b"x", 1)
    broker.settle()
    first, other, _ = _chosen(topic, 1, *wires)
    broker.vanish(first)
    back = broker.client(first.client_id, V5, clean=False, properties=EXPIRY)
    back.expect_message(topic, b"x", 1, dup=True)
    back.disconnect(session_expiry_interval=0)
    other.expect_nothing()


@normative("MQTT-4.8.2-6", "MQTT-4.4.0-2")
@pytest.mark.parametrize("qos", [1, 2])
@pytest.mark.parametrize("code", [0x80, 0x83, 0x87, 0x97])
@pytest.mark.parametrize("durable", [False, True])
def test_what_a_member_refused_goes_to_nobody(
    broker: RunningBroker, topic: str, qos: int, code: int, durable: bool
) -> None:
    wires = [member(broker, topic, **(EXPIRY if durable else {})) for _ in range(2)]
    broker.client(version=V5).publish(topic, b"x", qos)
    broker.settle()
    first, other, message = _chosen(topic, qos, *wires)
    refusal = Puback if qos == 1 else Pubrec
    first.send(refusal(message.packet_id or 0, code)).expect_nothing()
    other.expect_nothing()
    first.disconnect(session_expiry_interval=0) if durable else first.disconnect()
    other.expect_nothing()


@normative("MQTT-4.9.0-2", "MQTT-4.8.2-3")
def test_a_member_whose_quota_is_used_up_is_passed_over(broker: RunningBroker, topic: str) -> None:
    slow, other = member(broker, topic, 1, receive_maximum=1), member(broker, topic, 1)
    publisher = broker.client(version=V5)
    for number in range(6):
        publisher.publish(topic, b"%d" % number, 1)
    mine, others = collect(broker, slow, other)
    assert len(mine) == 1
    assert len(others) == 5
