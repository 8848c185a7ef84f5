"""MQTT 3.1.1: PUBLISH and its acknowledgements, both ways (sections 3.3, 4.3, 4.5, 4.6)."""

from __future__ import annotations

from typing import Any

import pytest

from edge_broker.core.ports import Principal
from tests.conformance.codec import (
    Packet,
    Puback,
    Pubcomp,
    Publish,
    Pubrec,
    Pubrel,
    frame,
)
from tests.conformance.conftest import StartBroker
from tests.conformance.harness import RunningBroker
from tests.conformance.normative import normative
from tests.conformance.properties import text
from tests.conformance.wire import Wire
from tests.permitting import SimpleRules


def subscribed(broker: RunningBroker, *filters: tuple[str, int], **fields: Any) -> Wire:
    """A client with these subscriptions."""
    wire = broker.client(**fields)
    wire.subscribe(*filters)
    return wire


# ---- PUBLISH's header


@normative("MQTT-3.3.1-2", "MQTT-4.3.1-1")
def test_qos_0_goes_out_without_dup(broker: RunningBroker, topic: str) -> None:
    """Whatever it came at, and although it was marked as sent again."""
    wire, publisher = subscribed(broker, (topic, 0)), broker.client()
    publisher.publish(topic, b"at 0")
    publisher.send(Publish(topic, b"at 1", qos=1, dup=True, packet_id=1)).expect(Puback(1))
    publisher.send(Publish(topic, b"at 2", qos=2, dup=True, packet_id=2)).expect(Pubrec(2))
    for payload in (b"at 0", b"at 1", b"at 2"):
        wire.expect(frame(0x30, text(topic) + payload))


@normative("MQTT-3.3.1-2")
def test_dup_at_qos_0_closes(broker: RunningBroker, topic: str) -> None:
    watcher, wire = subscribed(broker, (topic, 0)), broker.client()
    wire.send(Publish(topic, b"x", dup=True))
    wire.expect_closed()
    watcher.expect_nothing()


@normative("MQTT-3.3.1-3", "MQTT-4.3.2-1", "MQTT-4.3.3-1")
@pytest.mark.parametrize("qos", [1, 2])
def test_dup_is_not_passed_on(broker: RunningBroker, topic: str, qos: int) -> None:
    wire, publisher = subscribed(broker, (topic, 2)), broker.client()
    publisher.send(Publish(topic, b"x", qos, dup=True, packet_id=7))
    publisher.expect({1: Puback, 2: Pubrec}[qos](7))
    wire.expect_message(topic, b"x", qos, dup=False)


@normative("MQTT-3.3.1-1", "MQTT-3.3.1-3")
def test_dup_out_is_set_by_our_sending_again_alone(broker: RunningBroker, topic: str) -> None:
    wire, publisher = subscribed(broker, (topic, 1), clean=False), broker.client()
    publisher.publish(topic, b"seen", qos=1)
    assert not wire.expect(Publish).dup
    broker.vanish(wire)
    publisher.publish(topic, b"new", qos=1)
    again = broker.client(wire.client_id, clean=False)
    again.expect_message(topic, b"seen", qos=1, dup=True)
    again.expect_message(topic, b"new", qos=1, dup=False)


@normative("MQTT-3.3.1-4")
@pytest.mark.parametrize("first", [0x36, 0x37, 0x3E, 0x3F])
def test_qos_3_closes(broker: RunningBroker, first: int) -> None:
    wire = broker.client()
    wire.send(frame(first, text("t") + b"\0\1x"))
    wire.expect_closed()


@normative("MQTT-3.3.2-1")
@pytest.mark.parametrize(
    "body", [b"", b"\0", b"\0\5abc", text("t")], ids=["none", "half", "short", "no identifier"]
)
def test_a_publish_without_a_whole_header_closes(broker: RunningBroker, body: bytes) -> None:
    wire = broker.client()
    wire.send(frame(0x32, body))
    wire.expect_closed()


@normative("MQTT-3.3.2-2", "MQTT-4.7.1-1")
@pytest.mark.parametrize("name", ["#", "+", "a/#", "a/+/b", "a+", "a#b"])
@pytest.mark.parametrize("qos", [0, 1])
def test_a_wildcard_in_a_topic_name_closes(broker: RunningBroker, name: str, qos: int) -> None:
    wire = broker.client()
    wire.send(Publish(name, qos=qos, packet_id=1 if qos else None))
    wire.expect_closed()


@normative("MQTT-3.3.2-3")
def test_what_is_delivered_has_its_own_topic_name(broker: RunningBroker, topic: str) -> None:
    wire, publisher = subscribed(broker, (f"{topic}/+/c", 0)), broker.client()
    for name in (f"{topic}/a/c", f"{topic}/b/c", f"{topic}/a/d", f"{topic}/a", topic):
        publisher.publish(name, name.encode())
    wire.expect(Publish(f"{topic}/a/c", f"{topic}/a/c".encode()))
    wire.expect(Publish(f"{topic}/b/c", f"{topic}/b/c".encode()))
    wire.expect_nothing()


# ---- its acknowledgement


@normative("MQTT-3.3.4-1")
def test_each_qos_has_its_answer(broker: RunningBroker, topic: str) -> None:
    wire = broker.client()
    wire.send(Publish(topic, b"0"))
    wire.expect_nothing()
    wire.send(Publish(topic, b"1", qos=1, packet_id=1)).expect(b"\x40\x02\x00\x01")
    wire.send(Publish(topic, b"2", qos=2, packet_id=2)).expect(b"\x50\x02\x00\x02")
    wire.send(Pubrel(2)).expect(b"\x70\x02\x00\x02")
    wire.expect_nothing()


@normative("MQTT-3.3.5-1")
@pytest.mark.parametrize("qos", [0, 1, 2])
def test_overlapping_subscriptions_get_the_highest_qos(broker: RunningBroker, topic: str, qos: int) -> None:
    """One copy or one for each subscription, as the specification leaves open: the best of them is what counts."""
    wire = subscribed(broker, (f"{topic}/+", 1), (f"{topic}/a", 0), (f"{topic}/#", 2), ("end/" + topic, 0))
    publisher = broker.client()
    publisher.publish(f"{topic}/a", b"x", qos)
    broker.settle()
    publisher.publish("end/" + topic)
    copies = []
    while (message := wire.expect(Publish)).topic == f"{topic}/a":
        copies.append(message)
    assert max(copy.qos for copy in copies) == qos
    assert all(copy.payload == b"x" for copy in copies)


class Forbidding(SimpleRules):
    """An authorizer under which nobody may publish to topics that begin with `forbidden`."""

    def may_publish(self, principal: Principal, topic: str) -> bool:
        return not topic.startswith("forbidden")

    def may_subscribe(self, principal: Principal, topic_filter: str) -> bool:
        return True


@normative("MQTT-3.3.5-2")
@pytest.mark.parametrize("qos", [0, 1, 2])
def test_a_publish_that_is_not_allowed_is_acknowledged_all_the_same(
    start_broker: StartBroker, qos: int
) -> None:
    broker = start_broker(authorizer=Forbidding())
    watcher = subscribed(broker, ("#", 2))
    broker.client().publish("forbidden/a", b"x", qos, retain=True)
    watcher.expect_nothing()
    subscribed(broker, ("#", 2)).expect_nothing()
    broker.client().publish("allowed", b"x", qos)
    watcher.expect_message("allowed", b"x", qos)


# ---- QoS 1 and 2, the broker receiving


@normative("MQTT-4.3.2-2")
@pytest.mark.parametrize("dup", [False, True])
def test_a_qos_1_identifier_used_again_is_a_new_message(broker: RunningBroker, topic: str, dup: bool) -> None:
    watcher, wire = subscribed(broker, (topic, 1)), broker.client()
    wire.send(Publish(topic, b"first", qos=1, packet_id=3)).expect(Puback(3))
    wire.send(Publish(topic, b"second", qos=1, packet_id=3, dup=dup)).expect(Puback(3))
    watcher.expect_message(topic, b"first", qos=1)
    watcher.expect_message(topic, b"second", qos=1)


@normative("MQTT-4.3.3-2")
@pytest.mark.parametrize("clean", [True, False])
def test_a_qos_2_message_sent_again_is_not_delivered_again(
    broker: RunningBroker, topic: str, clean: bool
) -> None:
    watcher, wire = subscribed(broker, (topic, 2)), broker.client(clean=clean)
    for dup in (False, True, True):
        wire.send(Publish(topic, b"once", qos=2, dup=dup, packet_id=4)).expect(Pubrec(4))
    wire.send(Pubrel(4)).expect(Pubcomp(4))
    wire.send(Publish(topic, b"new", qos=2, packet_id=4)).expect(Pubrec(4))
    watcher.expect_message(topic, b"once", qos=2)
    watcher.expect_message(topic, b"new", qos=2)
    watcher.expect_nothing()


@normative("MQTT-4.3.3-2")
def test_every_pubrel_is_answered(broker: RunningBroker, topic: str) -> None:
    """Also one whose PUBCOMP got lost, which the client therefore sends again, and one of nothing."""
    wire = broker.client()
    wire.send(Publish(topic, b"x", qos=2, packet_id=4)).expect(Pubrec(4))
    wire.send(Pubrel(4)).expect(Pubcomp(4))
    wire.send(Pubrel(4)).expect(Pubcomp(4))
    wire.send(Pubrel(77)).expect(Pubcomp(77))


@normative("MQTT-4.3.3-2", "MQTT-4.3.2-2")
def test_many_identifiers_at_once(broker: RunningBroker, topic: str) -> None:
    """As many as a client may have under way, released in another order than they came."""
    watcher, wire = subscribed(broker, (topic, 2)), broker.client()
    ids = list(range(1, 201))
    wire.send(*[Publish(topic, b"%d" % packet_id, qos=2, packet_id=packet_id) for packet_id in ids])
    for packet_id in ids:
        wire.expect(Pubrec(packet_id))
    wire.send(*[Pubrel(packet_id) for packet_id in reversed(ids)])
    assert {wire.expect(Pubcomp).packet_id for _ in ids} == set(ids)
    for packet_id in ids:
        watcher.expect_message(topic, b"%d" % packet_id, qos=2)


# ---- QoS 1 and 2, the broker sending


@normative("MQTT-4.3.2-1")
def test_qos_1_is_sent_until_puback(broker: RunningBroker, topic: str) -> None:
    wire = subscribed(broker, (topic, 1), clean=False)
    broker.client().publish(topic, b"x", qos=1)
    first = wire.expect(Publish)
    assert (first.qos, first.dup) == (1, False)
    for _ in range(2):
        broker.vanish(wire)
        wire = broker.client(wire.client_id, clean=False)
        wire.expect(Publish(topic, b"x", qos=1, dup=True, packet_id=first.packet_id))
    wire.send(Puback(first.packet_id))
    wire.expect_nothing()
    wire.disconnect()
    broker.client(wire.client_id, clean=False).expect_nothing()


@normative("MQTT-4.3.3-1")
def test_qos_2_is_sent_until_pubrec_and_pubrel_until_pubcomp(broker: RunningBroker, topic: str) -> None:
    wire = subscribed(broker, (topic, 2), clean=False)
    broker.client().publish(topic, b"x", qos=2)
    first = wire.expect(Publish)
    assert (first.qos, first.dup) == (2, False)
    packet_id = first.packet_id
    for _ in range(2):
        broker.vanish(wire)
        wire = broker.client(wire.client_id, clean=False)
        wire.expect(Publish(topic, b"x", qos=2, dup=True, packet_id=packet_id))
    wire.send(Pubrec(packet_id)).expect(Pubrel(packet_id))
    for _ in range(2):
        broker.vanish(wire)
        wire = broker.client(wire.client_id, clean=False)
        wire.expect(Pubrel(packet_id))
    wire.send(Pubcomp(packet_id))
    wire.expect_nothing()
    wire.disconnect()
    broker.client(wire.client_id, clean=False).expect_nothing()


# ---- to all who subscribed, in order


@normative("MQTT-4.5.0-1")
def test_a_message_goes_to_every_session_that_subscribed(broker: RunningBroker, topic: str) -> None:
    here = [subscribed(broker, (topic, qos)) for qos in (0, 1, 2)]
    away = [subscribed(broker, (topic, qos), clean=False) for qos in (1, 2)]
    for wire in away:
        wire.disconnect()
    broker.client().publish(topic, b"x", qos=2)
    for qos, wire in enumerate(here):
        wire.expect_message(topic, b"x", qos)
    for qos, wire in enumerate(away, 1):
        broker.client(wire.client_id, clean=False).expect_message(topic, b"x", qos)


@normative("MQTT-4.6.0-2", "MQTT-4.6.0-3")
@pytest.mark.parametrize("qos", [1, 2])
def test_acknowledgements_in_the_order_of_the_publishes(broker: RunningBroker, topic: str, qos: int) -> None:
    """Although some of the messages must be stored first and others need not be."""
    keeper = subscribed(broker, (f"{topic}/kept", 2), clean=False)
    keeper.disconnect()
    wire = broker.client()
    ids = [(7 * number) % 101 + 1 for number in range(100)]
    wire.send(
        *[
            Publish(f"{topic}/kept" if packet_id % 3 else f"{topic}/nobody", b"", qos, packet_id=packet_id)
            for packet_id in ids
        ]
    )
    assert [wire.expect({1: Puback, 2: Pubrec}[qos]).packet_id for _ in ids] == ids


@normative("MQTT-4.6.0-4")
@pytest.mark.parametrize("clean", [True, False])
def test_pubrels_in_the_order_of_the_pubrecs(broker: RunningBroker, topic: str, clean: bool) -> None:
    wire, publisher = subscribed(broker, (topic, 2), clean=clean), broker.client()
    for number in range(10):
        publisher.publish(topic, b"%d" % number, qos=2)
    ids = [wire.expect(Publish).packet_id for _ in range(10)]
    mixed = ids[5:] + ids[:5]
    wire.send(*[Pubrec(packet_id) for packet_id in mixed])
    for packet_id in mixed:
        wire.expect(Pubrel(packet_id))


@normative("MQTT-4.6.0-1")
def test_sent_again_in_the_first_order(broker: RunningBroker, topic: str) -> None:
    wire, publisher = subscribed(broker, (topic, 2), clean=False), broker.client()
    payloads = [b"%d" % number for number in range(50)]
    for number, payload in enumerate(payloads):
        publisher.publish(topic, payload, qos=1 + number % 2)
    for _ in range(3):
        assert [wire.expect(Publish).payload for _ in payloads] == payloads
        broker.vanish(wire)
        wire = broker.client(wire.client_id, clean=False)


@normative("MQTT-4.6.0-5", "MQTT-4.6.0-6")
@pytest.mark.parametrize("qos", [0, 1, 2])
def test_each_subscriber_gets_a_clients_messages_in_order(
    broker: RunningBroker, topic: str, qos: int
) -> None:
    """Two publishers at once on two topics; a subscriber by name, one by wildcard, one that was away."""
    named = subscribed(broker, (f"{topic}/a", qos))
    wild = subscribed(broker, (f"{topic}/#", qos))
    absent = subscribed(broker, (f"{topic}/a", qos), clean=False)
    absent.disconnect()
    publishers = {b"p": broker.client(), b"q": broker.client()}
    for mark, publisher in publishers.items():
        publisher.send(*_run_of(topic, mark, qos))
    for publisher in publishers.values():
        _finish(publisher, qos)
    broker.settle()
    absent = broker.client(absent.client_id, clean=False)
    readers = {named: 100, wild: 200} | ({absent: 100} if qos else {})
    for reader, count in readers.items():
        got = [reader.expect(Publish) for _ in range(count)]
        for mark in publishers:
            for name in {message.topic for message in got}:
                numbers = [int(m.payload[1:]) for m in got if m.topic == name and m.payload[:1] == mark]
                assert numbers == sorted(numbers)
                assert len(numbers) == 50


def _run_of(topic: str, mark: bytes, qos: int) -> list[Packet | bytes]:
    """100 messages, every other one to another topic."""
    return [
        Publish(
            f"{topic}/{'ab'[number % 2]}",
            b"%s%d" % (mark, number),
            qos,
            packet_id=number + 1 if qos else None,
        )
        for number in range(100)
    ]


def _finish(publisher: Wire, qos: int) -> None:
    """Take the answers to `_run_of`."""
    if not qos:
        publisher.ping()
        return
    for number in range(100):
        publisher.expect({1: Puback, 2: Pubrec}[qos](number + 1))
