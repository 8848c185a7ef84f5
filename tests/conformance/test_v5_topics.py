"""MQTT 5.0, chapter 4.7: topic names and topic filters: what may be one, what matches what, what is never changed."""

from __future__ import annotations

from unittest.mock import ANY

import pytest

from tests.conformance.codec import V5, Publish, Suback, Subscribe, encode
from tests.conformance.conftest import StartBroker
from tests.conformance.harness import RunningBroker
from tests.conformance.normative import normative

FILTER_INVALID = 0x8F
EXPIRY = {"session_expiry_interval": 10_000}

MATCHES = {
    "sport/tennis/player1/#": (
        ["sport/tennis/player1", "sport/tennis/player1/ranking", "sport/tennis/player1/score/wimbledon"],
        ["sport/tennis/player2", "sport/tennis", "sport/tennis/player10"],
    ),
    "sport/#": (["sport", "sport/", "sport/a/b/c"], ["sports", "/sport", "Sport"]),
    "sport/tennis/+": (
        ["sport/tennis/player1", "sport/tennis/"],
        ["sport/tennis", "sport/tennis/player1/ranking"],
    ),
    "sport/+": (["sport/", "sport/x"], ["sport", "sport/x/", "sport//"]),
    "+/+": (["/finance", "a/b", "/"], ["finance", "a/b/c", "//"]),
    "/+": (["/finance", "/"], ["finance", "//", "a/finance"]),
    "+": (["finance", "a b", "é"], ["/finance", "a/", "/"]),
    "+/tennis/#": (["sport/tennis", "/tennis/x", "a/tennis/b/c"], ["tennis", "tennis/x"]),
    "sport/+/player1": (["sport/tennis/player1", "sport//player1"], ["sport/player1", "sport/a/b/player1"]),
    "#": (["a", "/", "a//b", " "], []),
    "/": (["/"], ["a", "//", "a/", "/a"]),
    "a//b": (["a//b"], ["a/b", "a/ /b", "a///b"]),
    "a/": (["a/"], ["a", "a//", "A/"]),
    "with space/and é": (["with space/and é"], ["withspace/and é", "with space/and e\u0301"]),
}


@normative("MQTT-3.3.2-3", "MQTT-4.7.1-1", "MQTT-4.7.1-2", "MQTT-4.7.3-4")
@pytest.mark.parametrize("topic_filter", MATCHES)
@pytest.mark.parametrize("shared", [False, True])
def test_a_filter_matches_just_these(start_broker: StartBroker, topic_filter: str, shared: bool) -> None:
    broker = start_broker()
    matching, others = MATCHES[topic_filter]
    wire, publisher = broker.client(version=V5), broker.client(version=V5)
    wire.subscribe((f"$share/g/{topic_filter}" if shared else topic_filter, 0))
    for turn in range(2):  # the second time the answer may be a remembered one
        for name in others:
            publisher.publish(name, b"another")
        for name in matching:
            publisher.publish(name, b"%d" % turn)
            wire.expect(Publish(name, b"%d" % turn))
        wire.expect_nothing()


@normative("MQTT-4.7.1-1", "MQTT-4.7.1-2", "MQTT-4.7.3-1")
@pytest.mark.parametrize(
    "topic_filter",
    [
        "",
        "a#",
        "#a",
        "a/#/b",
        "#/",
        "a/b#",
        "##",
        "#/#",
        "+#",
        "a+",
        "+a",
        "a/+b",
        "a/b+/c",
        "++",
        "+/++",
        "a/#+",
    ],
)
def test_a_filter_that_cannot_be_is_refused(broker: RunningBroker, topic_filter: str) -> None:
    wire = broker.client(version=V5)
    for name in (topic_filter, f"$share/g/{topic_filter}"):
        packet = Subscribe(wire.packet_id(), ((name, 0),))
        wire.send(packet).expect(Suback(packet.packet_id, (FILTER_INVALID,), ANY))
    publisher = broker.client(version=V5)
    for topic in ("a", "a/b", "a/b/c", "ab", "b"):
        publisher.publish(topic, b"x")
    wire.expect_nothing()


# ---- topics beginning with $


@normative("MQTT-4.7.2-1")
@pytest.mark.parametrize("topic_filter", ["#", "+/x", "+/#", "+/+", "+"])
@pytest.mark.parametrize("shared", [False, True])
def test_a_leading_wildcard_does_not_reach_dollar_topics(
    start_broker: StartBroker, topic_filter: str, shared: bool
) -> None:
    broker = start_broker()
    publisher = broker.client(version=V5)
    publisher.publish("$own/x", b"retained", 1, retain=True)
    wire, explicit = broker.client(version=V5), broker.client(version=V5)
    wire.subscribe((f"$share/g/{topic_filter}" if shared else topic_filter, 1))
    explicit.subscribe(("$own/#", 1))
    explicit.expect_message("$own/x", b"retained", 1)
    for name in ("$own/x", "$own", "$own/x/y"):
        publisher.publish(name, b"live", 1)
        explicit.expect_message(name, b"live", 1)
    wire.expect_nothing()


@normative("MQTT-4.7.2-1")
def test_a_dollar_elsewhere_is_a_character_like_any_other(broker: RunningBroker, topic: str) -> None:
    wire = broker.client(version=V5)
    wire.subscribe((f"{topic}/+", 0))
    broker.client(version=V5).publish(f"{topic}/$x", b"x")
    wire.expect_message(f"{topic}/$x", b"x")


# ---- length


@normative("MQTT-4.7.3-3")
@pytest.mark.parametrize("qos", [0, 1])
def test_the_longest_topic_there_can_be(broker: RunningBroker, topic: str, qos: int) -> None:
    longest = (topic + "/" + "é" * 40_000).encode()[:65_535].decode(errors="ignore")
    longest += "x" * (65_535 - len(longest.encode()))
    assert len(longest.encode()) == 65_535
    wire, all_of_it = broker.client(version=V5), broker.client(version=V5)
    assert wire.subscribe((longest, 1)).codes == (1,)
    all_of_it.subscribe((f"{topic}/#", 1))
    broker.client(version=V5).publish(longest, b"x", qos)
    for client in (wire, all_of_it):
        client.expect_message(longest, b"x", qos)
    wire.unsubscribe(longest)


@normative("MQTT-4.7.3-1")
def test_a_topic_of_one_character(broker: RunningBroker) -> None:
    wire = broker.client(version=V5)
    wire.subscribe(("/", 0))
    broker.client(version=V5).publish("/", b"x")
    wire.expect_message("/", b"x")


# ---- nothing is normalized

ALIKE = [
    "é",
    "e\u0301",
    "É",
    "\u212b",
    "\u00c5",
    "A\u030a",
    "a",
    "A",
    "a ",
    " a",
    "a\u200b",
    "ａ",
    "a.",
    "a%2F",
    "../a",
    "./a",
]


@normative("MQTT-4.7.3-4", "MQTT-1.5.4-3")
def test_what_looks_alike_is_not_the_same(start_broker: StartBroker, topic: str) -> None:
    broker = start_broker()
    names = [f"{topic}/{name}" for name in ALIKE]
    wires = {name: broker.client(version=V5) for name in names}
    for name, wire in wires.items():
        wire.subscribe((name, 0))
    publisher = broker.client(version=V5)
    for name in names:
        publisher.send(Publish(name, name.encode(), retain=True))
    publisher.ping()
    for name, wire in wires.items():
        wire.expect(Publish(name, name.encode()))
        wire.expect_nothing()
    broker.restart()
    late = broker.client(version=V5)
    for name in names:
        late.subscribe((name, 0))
        late.expect(Publish(name, name.encode(), retain=True))
        late.expect_nothing()


@normative("MQTT-4.7.3-4", "MQTT-3.1.3-2")
def test_client_identifiers_that_look_alike_are_not_the_same(broker: RunningBroker, topic: str) -> None:
    wires = [broker.client(f"{topic}{name}", V5, properties=EXPIRY) for name in ALIKE]
    for wire in wires:
        wire.ping()


@normative("MQTT-4.7.3-4")
def test_a_topic_goes_out_in_the_bytes_it_came_in(broker: RunningBroker, topic: str) -> None:
    wire = broker.client(version=V5)
    wire.subscribe((f"{topic}/#", 0))
    for name in ("a//b/", "\u0001\u001f\u007f\u0085", "\ufdd0\uffff", "e\u0301"):
        packet = Publish(f"{topic}/{name}", b"x")
        broker.client(version=V5).send(packet)
        wire.expect(encode(packet, V5))
