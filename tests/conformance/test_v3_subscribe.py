"""MQTT 3.1.1: SUBSCRIBE, UNSUBSCRIBE and their answers (sections 3.8 to 3.11)."""

from __future__ import annotations

import pytest

from edge_broker.core.ports import Principal
from tests.conformance.codec import (
    Pubcomp,
    Publish,
    Pubrec,
    Pubrel,
    Suback,
    Subscribe,
    Unsuback,
    Unsubscribe,
    frame,
)
from tests.conformance.conftest import StartBroker
from tests.conformance.harness import RunningBroker
from tests.conformance.normative import normative
from tests.conformance.properties import text
from tests.permitting import SimpleRules


@normative("MQTT-3.8.3-1", "MQTT-3.10.3-1")
@pytest.mark.parametrize(
    "body",
    [b"\0\1\0\5abc", b"\0\1\0", b"\0", b"", b"\0\1" + text("a") + b"\0" + b"\0\4b"],
    ids=["cut short", "half a length", "half an identifier", "nothing", "second cut short"],
)
@pytest.mark.parametrize("first", [0x82, 0xA2], ids=["SUBSCRIBE", "UNSUBSCRIBE"])
def test_filters_that_are_not_whole_strings_close(broker: RunningBroker, first: int, body: bytes) -> None:
    wire = broker.client()
    wire.send(frame(first, body))
    wire.expect_closed()


@normative("MQTT-3.8.3-2")
@pytest.mark.parametrize("suffix", ["#", "+", "+/b", "a/#", "+/#"])
def test_wildcards_are_supported(broker: RunningBroker, topic: str, suffix: str) -> None:
    """So none of them need be refused."""
    wire = broker.client()
    assert wire.subscribe((f"{topic}/{suffix}", 1)).codes == (1,)
    broker.client().publish(f"{topic}/a/b" if "/" in suffix else f"{topic}/a", b"x", qos=1)
    assert wire.expect(Publish).payload == b"x"


@normative("MQTT-3.8.3-3", "MQTT-3.10.3-2", "MQTT-4.8.0-1")
@pytest.mark.parametrize("packet", [Subscribe(1, ()), Unsubscribe(1, ())], ids=["SUBSCRIBE", "UNSUBSCRIBE"])
def test_no_filters_close(broker: RunningBroker, packet: Subscribe | Unsubscribe) -> None:
    wire = broker.client()
    wire.send(packet)
    wire.expect_closed()


@normative("MQTT-3.8.3-4")
@pytest.mark.parametrize("options", [0x03, 0x04, 0x08, 0x10, 0x20, 0x40, 0x80, 0x81, 0xFF])
def test_reserved_bits_and_qos_3_close(broker: RunningBroker, topic: str, options: int) -> None:
    wire = broker.client()
    wire.send(Subscribe(1, ((f"{topic}/fine", 0), (topic, options))))
    wire.expect_closed()


@normative("MQTT-3.8.4-1", "MQTT-3.8.4-5")
@pytest.mark.parametrize("qos", [0, 1, 2])
def test_suback_tells_the_qos_granted(broker: RunningBroker, topic: str, qos: int) -> None:
    wire = broker.client()
    wire.send(Subscribe(300, ((topic, qos),)))
    wire.expect(b"\x90\x03\x01\x2c" + bytes((qos,)))


@normative("MQTT-3.8.4-3")
@pytest.mark.parametrize("clean", [True, False])
def test_the_same_filter_again_replaces(broker: RunningBroker, topic: str, clean: bool) -> None:
    publisher = broker.client()
    publisher.publish(f"{topic}/kept", b"kept", qos=1, retain=True)
    wire = broker.client(clean=clean)
    wire.subscribe((f"{topic}/#", 2))
    wire.expect_message(f"{topic}/kept", b"kept", qos=1, retain=True)
    wire.subscribe((f"{topic}/#", 0))
    wire.expect_message(f"{topic}/kept", b"kept", qos=0, retain=True)
    publisher.publish(f"{topic}/a", b"x", qos=2)
    wire.expect_message(f"{topic}/a", b"x", qos=0)
    wire.expect_nothing()
    wire.unsubscribe(f"{topic}/#")
    publisher.publish(f"{topic}/a", b"y", qos=2)
    wire.expect_nothing()


@normative("MQTT-3.8.4-3")
def test_replacing_interrupts_nothing(broker: RunningBroker, topic: str) -> None:
    """Publications run on while the subscription is replaced over and over: each comes once, in order."""
    wire, publisher = broker.client(), broker.client()
    wire.subscribe((topic, 1))
    for packet_id in range(1, 201):
        publisher.send(Publish(topic, b"%d" % packet_id, qos=1, packet_id=packet_id))
        if packet_id % 20 == 0:
            wire.send(Subscribe(packet_id, ((topic, 1),)))
    got = [wire.take() for _ in range(210)]
    assert [int(packet.payload) for packet in got if isinstance(packet, Publish)] == list(range(1, 201))
    assert [packet for packet in got if isinstance(packet, Suback)] == [
        Suback(packet_id, (1,)) for packet_id in range(20, 201, 20)
    ]


@normative("MQTT-3.8.4-4", "MQTT-3.9.3-1", "MQTT-3.8.4-5")
def test_several_filters_are_several_subscriptions(broker: RunningBroker, topic: str) -> None:
    wire, publisher = broker.client(), broker.client()
    filters = tuple((f"{topic}/{number}", number % 3) for number in range(9))
    assert wire.subscribe(*filters).codes == (0, 1, 2) * 3
    for name, qos in filters:
        publisher.publish(name, b"x", qos=2)
        wire.expect_message(name, b"x", qos)
    wire.expect_nothing()


@normative("MQTT-3.8.4-4")
def test_the_same_filter_twice_in_one_packet_replaces(broker: RunningBroker, topic: str) -> None:
    wire = broker.client()
    assert wire.subscribe((topic, 2), (topic, 1)).codes == (2, 1)
    broker.client().publish(topic, b"x", qos=2)
    wire.expect_message(topic, b"x", qos=1)
    wire.expect_nothing()


@normative("MQTT-3.8.4-6")
@pytest.mark.parametrize("granted", [0, 1, 2])
@pytest.mark.parametrize("published", [0, 1, 2])
def test_delivered_at_the_lower_qos(broker: RunningBroker, topic: str, published: int, granted: int) -> None:
    wire = broker.client()
    wire.subscribe((topic, granted))
    broker.client().publish(topic, b"x", published)
    wire.expect_message(topic, b"x", min(published, granted))
    wire.expect_nothing()


class Forbidding(SimpleRules):
    """An authorizer under which nobody may subscribe to what begins with `forbidden`."""

    def may_publish(self, principal: Principal, topic: str) -> bool:
        return True

    def may_subscribe(self, principal: Principal, topic_filter: str) -> bool:
        return not topic_filter.startswith("forbidden")


@normative("MQTT-3.8.4-5", "MQTT-3.9.3-1", "MQTT-3.9.3-2")
def test_a_subscription_that_is_not_allowed_fails_with_0x80(start_broker: StartBroker) -> None:
    broker = start_broker(authorizer=Forbidding())
    wire = broker.client()
    wire.send(Subscribe(1, (("a", 1), ("forbidden/a", 2), ("b", 2), ("forbidden/#", 0))))
    wire.expect(b"\x90\x06\x00\x01\x01\x80\x02\x80")
    broker.client().publish("forbidden/a", b"x")
    wire.expect_nothing()
    broker.client().publish("b", b"x")
    wire.expect(Publish("b", b"x"))


@normative("MQTT-3.8.4-5", "MQTT-3.9.3-2")
def test_a_subscription_too_many_fails_with_0x80(start_broker: StartBroker) -> None:
    broker = start_broker(limits={"max_subscriptions_per_client": 2})
    wire = broker.client()
    assert wire.subscribe(("a", 0), ("b", 1), ("c", 2), ("a", 2)).codes == (0, 1, 0x80, 2)
    broker.client().publish("c", b"x")
    wire.expect_nothing()


@normative("MQTT-3.9.3-2")
@pytest.mark.parametrize("topic_filter", ["a#", "a/#/b", "+a", "", "$share/g"])
def test_whatever_is_wrong_with_a_filter_has_a_code_of_this_version(
    broker: RunningBroker, topic_filter: str
) -> None:
    """Or closes the connection; never is such a filter granted, nor refused with a code of MQTT 5."""
    wire = broker.client()
    wire.send(Subscribe(1, ((topic_filter, 1),)))
    assert wire.send(b"\xe0\x00").drain() in ([], [Suback(1, (0x80,))])


@normative("MQTT-3.10.4-1")
def test_filters_are_compared_byte_for_byte(broker: RunningBroker, topic: str) -> None:
    wire, publisher = broker.client(), broker.client()
    wire.subscribe((f"{topic}/+", 0))
    for other in (f"{topic}/a", f"{topic}/#", f"{topic.upper()}/+", f"{topic}/+/", f"/{topic}/+", "#", "+/+"):
        wire.unsubscribe(other)
    publisher.publish(f"{topic}/a", b"x")
    wire.expect(Publish(f"{topic}/a", b"x"))
    wire.unsubscribe(f"{topic}/+")
    publisher.publish(f"{topic}/a", b"y")
    wire.expect_nothing()


@normative("MQTT-3.10.4-1", "MQTT-3.10.4-2")
def test_a_removed_wildcard_leaves_the_others(broker: RunningBroker, topic: str) -> None:
    wire = broker.client()
    wire.subscribe((f"{topic}/#", 0), (f"{topic}/a", 0))
    wire.unsubscribe(f"{topic}/#")
    publisher = broker.client()
    for name in ("a", "b"):
        publisher.publish(f"{topic}/{name}", name.encode())
    wire.expect(Publish(f"{topic}/a", b"a"))
    wire.expect_nothing()


@normative("MQTT-3.10.4-2")
@pytest.mark.parametrize("qos", [0, 1, 2])
@pytest.mark.parametrize("clean", [True, False])
def test_nothing_new_after_unsubscribe(broker: RunningBroker, topic: str, qos: int, clean: bool) -> None:
    wire, publisher = broker.client(clean=clean), broker.client()
    wire.subscribe((topic, qos))
    wire.unsubscribe(topic)
    publisher.publish(topic, b"x", qos)
    wire.expect_nothing()
    wire.disconnect()
    publisher.publish(topic, b"x", qos)
    broker.client(wire.client_id, clean=clean).expect_nothing()


@normative("MQTT-3.10.4-3")
def test_what_had_begun_is_brought_to_its_end(broker: RunningBroker, topic: str) -> None:
    wire, publisher = broker.client(clean=False), broker.client()
    wire.subscribe((topic, 2))
    publisher.publish(topic, b"1", qos=1)
    publisher.publish(topic, b"2", qos=2)
    publisher.publish(topic, b"3", qos=2)
    one, two, three = (wire.expect(Publish) for _ in range(3))
    wire.send(Pubrec(two.packet_id)).expect(Pubrel(two.packet_id))
    wire.unsubscribe(topic)
    wire.send(Pubrec(three.packet_id)).expect(Pubrel(three.packet_id))
    wire.send(Pubcomp(three.packet_id))
    broker.settle()
    broker.vanish(wire)
    again = broker.client(wire.client_id, clean=False)
    got = {type(packet): packet for packet in (again.take(), again.take())}
    assert got == {
        Publish: Publish(topic, b"1", qos=1, dup=True, packet_id=one.packet_id),
        Pubrel: Pubrel(two.packet_id),
    }
    again.expect_nothing()


@normative("MQTT-3.10.4-4", "MQTT-3.10.4-5")
def test_unsuback_comes_where_nothing_was_removed_too(broker: RunningBroker, topic: str) -> None:
    wire = broker.client()
    wire.subscribe((topic, 0))
    wire.send(Unsubscribe(5, ("nothing/" + topic,)))
    wire.expect(b"\xb0\x02\x00\x05")
    wire.send(Unsubscribe(6, (topic,)))
    wire.expect(b"\xb0\x02\x00\x06")


@normative("MQTT-3.10.4-6")
def test_several_filters_are_several_removals(broker: RunningBroker, topic: str) -> None:
    wire, publisher = broker.client(), broker.client()
    wire.subscribe(*((f"{topic}/{name}", 0) for name in "abcd"))
    wire.send(Unsubscribe(9, (f"{topic}/a", f"{topic}/none", f"{topic}/c", f"{topic}/a"))).expect(Unsuback(9))
    for name in "abcd":
        publisher.publish(f"{topic}/{name}", name.encode())
    wire.expect(Publish(f"{topic}/b", b"b"))
    wire.expect(Publish(f"{topic}/d", b"d"))
    wire.expect_nothing()
