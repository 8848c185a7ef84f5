"""MQTT 3.1.1: strings, flags and packet identifiers (sections 1.5 and 2)."""

from __future__ import annotations

import pytest

from tests.conformance.codec import (
    Connack,
    Connect,
    Packet,
    Pingreq,
    Pingresp,
    Puback,
    Pubcomp,
    Publish,
    Pubrec,
    Pubrel,
    Suback,
    Subscribe,
    Unsuback,
    Unsubscribe,
    Will,
    encode,
    frame,
)
from tests.conformance.harness import RunningBroker
from tests.conformance.normative import normative
from tests.conformance.wire import fresh

ILL_FORMED = {
    "surrogate": b"a\xed\xa0\x80",
    "pair of surrogates": b"\xed\xa0\xbd\xed\xb8\x80",
    "cut short": b"a\xe2\x82",
    "overlong": b"a\xc0\xaf",
    "beyond Unicode": b"\xf4\x90\x80\x80",
    "stray": b"a\x80b",
}
ill_formed = pytest.mark.parametrize("text", ILL_FORMED.values(), ids=ILL_FORMED)


def connects_with(text: bytes) -> dict[str, Connect]:
    """A CONNECT for each string in it, with `text` there."""
    return {
        "client identifier": Connect(text),
        "will topic": Connect("c", will=Will(text, b"")),
        "user name": Connect("c", username=text),
    }


def packets_with(text: bytes) -> dict[str, Packet]:
    """Every other packet with a string, with `text` there."""
    return {
        "topic": Publish(text),
        "topic of QoS 1": Publish(text, qos=1, packet_id=1),
        "filter": Subscribe(1, ((text, 0),)),
        "second filter": Subscribe(1, (("a", 0), (text, 0))),
        "unsubscribed": Unsubscribe(1, (text,)),
    }


@normative("MQTT-1.5.3-1", "MQTT-3.1.3-4", "MQTT-3.1.3-10", "MQTT-3.1.3-11")
@pytest.mark.parametrize("place", connects_with(b""))
@ill_formed
def test_a_string_of_connect_that_is_not_utf_8_closes(broker: RunningBroker, place: str, text: bytes) -> None:
    wire = broker.wire()
    wire.send(connects_with(text)[place])
    wire.expect_closed()


@normative("MQTT-1.5.3-1", "MQTT-3.3.2-1", "MQTT-3.8.3-1", "MQTT-3.10.3-1")
@pytest.mark.parametrize("place", packets_with(b""))
@ill_formed
def test_a_string_that_is_not_utf_8_closes(broker: RunningBroker, place: str, text: bytes) -> None:
    wire = broker.client()
    wire.send(packets_with(text)[place])
    wire.expect_closed()


@normative("MQTT-1.5.3-2")
@pytest.mark.parametrize("place", connects_with(b""))
def test_a_nul_in_a_string_of_connect_closes(broker: RunningBroker, place: str) -> None:
    wire = broker.wire()
    wire.send(connects_with(b"a\0b")[place])
    wire.expect_closed()


@normative("MQTT-1.5.3-2", "MQTT-4.7.3-2")
@pytest.mark.parametrize("place", packets_with(b""))
def test_a_nul_in_a_topic_or_filter_closes(broker: RunningBroker, place: str) -> None:
    wire = broker.client()
    wire.send(packets_with(b"a\0b")[place])
    wire.expect_closed()


@normative("MQTT-1.5.3-1")
def test_every_plane_of_unicode_passes(broker: RunningBroker, topic: str) -> None:
    name = f"{topic}/ü\u20ac\U0001f600\U0010ffff\ufffd\ud7ff\ue000"
    wire = broker.client(fresh("ü\U0001f600"))
    wire.subscribe((name, 0))
    broker.client().publish(name, b"x")
    wire.expect(Publish(name, b"x"))


@normative("MQTT-1.5.3-3")
def test_a_byte_order_mark_is_a_character(broker: RunningBroker, topic: str) -> None:
    marked, unmarked = broker.client(), broker.client()
    marked.subscribe((f"\ufeff{topic}", 0))
    unmarked.subscribe((topic, 0))
    broker.client().publish(b"\xef\xbb\xbf" + topic.encode(), b"x")
    assert marked.expect(Publish).topic == f"\ufeff{topic}"
    assert topic.encode() in marked.last_frame
    assert b"\xef\xbb\xbf" in marked.last_frame
    unmarked.expect_nothing()


@normative("MQTT-1.5.3-3")
def test_a_byte_order_mark_makes_another_client(broker: RunningBroker) -> None:
    name = fresh("client-")
    plain, marked = broker.client(name), broker.client(f"\ufeff{name}")
    marked.ping()
    plain.ping()


@normative("MQTT-2.2.2-1")
def test_the_flags_of_what_the_broker_sends(broker: RunningBroker, topic: str) -> None:
    wire = broker.wire()
    seen = []
    for sent, answer in (
        (Connect(fresh("client-")), Connack),
        (Subscribe(1, ((topic, 2),)), Suback),
        (Publish("nobody/" + topic, qos=1, packet_id=2), Puback),
        (Publish("nobody/" + topic, qos=2, packet_id=3), Pubrec),
        (Pubrel(3), Pubcomp),
        (Pingreq(), Pingresp),
        (Unsubscribe(4, ("nothing",)), Unsuback),
    ):
        wire.send(sent).expect(answer)
        seen.append(wire.last_frame[0])
    broker.client().publish(topic, b"x", qos=2)
    wire.send(Pubrec(wire.expect(Publish).packet_id)).expect(Pubrel)
    seen.append(wire.last_frame[0])
    assert bytes(seen).hex() == "209040" + "5070" + "d0" + "b0" + "62"


WRONG_FLAGS = {
    "PUBACK": (0x40, b"\0\1"),
    "PUBREC": (0x50, b"\0\1"),
    "PUBREL": (0x62, b"\0\1"),
    "PUBCOMP": (0x70, b"\0\1"),
    "SUBSCRIBE": (0x82, b"\0\1\0\1a\0"),
    "UNSUBSCRIBE": (0xA2, b"\0\1\0\1a"),
    "PINGREQ": (0xC0, b""),
    "DISCONNECT": (0xE0, b""),
}


@normative("MQTT-2.2.2-1", "MQTT-2.2.2-2", "MQTT-3.6.1-1", "MQTT-3.8.1-1", "MQTT-3.10.1-1", "MQTT-3.14.1-1")
@pytest.mark.parametrize("name", WRONG_FLAGS)
def test_wrong_flags_close(broker: RunningBroker, name: str, topic: str) -> None:
    """Every other value of the four flags. A DISCONNECT that counted would take the will with it."""
    right, body = WRONG_FLAGS[name]
    watcher = broker.client()
    watcher.subscribe((topic, 0))
    for flags in range(16):
        first = right & 0xF0 | flags
        if first != right:
            wire = broker.client(will=Will(topic, bytes((flags,))))
            wire.send(frame(first, body))
            wire.expect_closed()
            watcher.expect(Publish(topic, bytes((flags,))))


@normative("MQTT-2.2.2-2")
def test_wrong_flags_of_connect_close(broker: RunningBroker) -> None:
    connect = encode(Connect("c"), 4)
    for flags in range(1, 16):
        wire = broker.wire()
        wire.send(bytes((connect[0] | flags,)) + connect[1:])
        wire.expect_closed()


@normative("MQTT-2.3.1-1")
@pytest.mark.parametrize(
    "packet",
    [Publish("t", qos=1, packet_id=0), Publish("t", qos=2, packet_id=0), Subscribe(0, (("t", 0),)), Unsubscribe(0, ("t",))],
    ids=["QoS 1", "QoS 2", "SUBSCRIBE", "UNSUBSCRIBE"],
)  # fmt: skip
def test_packet_identifier_0_closes(broker: RunningBroker, packet: Packet) -> None:
    wire = broker.client()
    wire.send(packet)
    wire.expect_closed()


@normative("MQTT-2.3.1-1", "MQTT-2.3.1-4", "MQTT-4.3.2-1", "MQTT-4.3.3-1")
def test_the_brokers_identifiers_are_free_ones(broker: RunningBroker, topic: str) -> None:
    wire, publisher = broker.client(), broker.client()
    wire.subscribe((topic, 2))
    for number in range(60):
        publisher.publish(topic, b"%d" % number, qos=1 + number % 2)
    messages: list[Publish] = [wire.expect(Publish) for _ in range(60)]
    assert len({message.packet_id for message in messages}) == 60
    assert all(message.packet_id and not message.dup for message in messages)
    wire.acknowledge(messages[0])  # the others are still in use
    for number in range(60):
        publisher.publish(topic, b"%d" % number, qos=1)
    in_use = {message.packet_id for message in messages[1:]}
    assert not in_use & {wire.expect(Publish).packet_id for _ in range(60)}


@normative("MQTT-2.3.1-4")
def test_an_identifier_does_not_depend_on_the_clients(broker: RunningBroker, topic: str) -> None:
    """Both ways at once with the same identifier: two spaces."""
    wire = broker.client()
    wire.subscribe((topic, 1))
    wire.send(Publish(topic, b"first", qos=1, packet_id=1))
    got = {type(packet): packet for packet in (wire.take(), wire.take())}
    assert got[Puback] == Puback(1)
    message = got[Publish]
    assert isinstance(message, Publish)
    assert message.packet_id is not None
    wire.send(Publish("nobody/" + topic, qos=2, packet_id=message.packet_id)).expect(
        Pubrec(message.packet_id)
    )
    wire.send(Puback(message.packet_id), Pubrel(message.packet_id)).expect(Pubcomp(message.packet_id))


@normative("MQTT-2.3.1-5")
def test_qos_0_has_no_packet_identifier(broker: RunningBroker, topic: str) -> None:
    wire, publisher = broker.client(), broker.client()
    wire.subscribe((topic, 0))
    publisher.publish(topic, b"at 0", qos=0)
    publisher.publish(topic, b"at 1", qos=1)
    for payload in (b"at 0", b"at 1"):
        name = topic.encode()
        wire.expect(frame(0x30, len(name).to_bytes(2, "big") + name + payload))


@normative("MQTT-2.3.1-6", "MQTT-3.3.4-1")
@pytest.mark.parametrize("packet_id", [1, 2, 255, 256, 65535])
def test_acknowledgements_name_their_publish(broker: RunningBroker, packet_id: int, topic: str) -> None:
    wire = broker.client()
    wire.send(Publish(topic, qos=1, packet_id=packet_id)).expect(Puback(packet_id))
    wire.send(Publish(topic, qos=2, packet_id=packet_id)).expect(Pubrec(packet_id))
    wire.send(Pubrel(packet_id)).expect(Pubcomp(packet_id))


@normative("MQTT-2.3.1-6")
def test_pubrel_names_the_brokers_publish(broker: RunningBroker, topic: str) -> None:
    wire = broker.client()
    wire.subscribe((topic, 2))
    broker.client().publish(topic, qos=2)
    message = wire.expect(Publish)
    wire.send(Pubrec(message.packet_id)).expect(Pubrel(message.packet_id))


@normative("MQTT-2.3.1-7", "MQTT-3.8.4-1", "MQTT-3.8.4-2", "MQTT-3.10.4-4")
@pytest.mark.parametrize("packet_id", [1, 255, 256, 65535])
def test_suback_and_unsuback_name_their_request(broker: RunningBroker, packet_id: int, topic: str) -> None:
    wire = broker.client()
    wire.send(Subscribe(packet_id, ((topic, 1),))).expect(Suback(packet_id, (1,)))
    wire.send(Unsubscribe(packet_id, (topic,))).expect(Unsuback(packet_id))
