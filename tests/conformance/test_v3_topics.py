"""MQTT 3.1.1: topic names, filters and which match (section 4.7)."""

from __future__ import annotations

import unicodedata

import pytest

from tests.conformance.codec import Publish, Suback, Subscribe
from tests.conformance.harness import RunningBroker
from tests.conformance.normative import normative

MATCHES = {
    "/#": ("/", "/a", "/a/b", "//"),
    "a/#": ("a", "a/", "a/b", "a/b/c", "a//"),
    "a/b/#": ("a/b", "a/b/", "a/b/c"),
    "+": ("a", "b c", "ü"),
    "+/+": ("/", "a/b", "/a", "a/"),
    "/+": ("/", "/a"),
    "+/b": ("a/b", "/b"),
    "a/+": ("a/", "a/b"),
    "a/+/c": ("a/b/c", "a//c"),
    "+/b/#": ("a/b", "/b", "a/b/c/d", "x/b/"),
    "+/#": ("a", "a/b", "/", "/a/b"),
    "#": ("a", "/", "a/b/c", "//", "a/$b"),
    "a": ("a",),
    "/": ("/",),
    "a/$b": ("a/$b",),
    "$a/#": ("$a", "$a/b"),
    "$a/+": ("$a/b",),
    "$a": ("$a",),
}
"""By filter, the topic names that it matches, out of all that stand here and below."""

NAMES = sorted({name for names in MATCHES.values() for name in names} | {"A", "a/B", "$a/b/c", "ab", "a b"})


def should_match(topic_filter: str, name: str) -> bool:
    """The specification's rules, level by level."""
    levels, wanted = name.split("/"), topic_filter.split("/")
    if name.startswith("$") and wanted[0] in ("#", "+"):
        return False
    for at, level in enumerate(wanted):
        if level == "#":
            return True
        if at >= len(levels) or level not in ("+", levels[at]):
            return False
    return len(levels) == len(wanted)


@normative("MQTT-3.3.2-3", "MQTT-4.7.1-2", "MQTT-4.7.1-3", "MQTT-4.7.2-1")
@pytest.mark.parametrize("topic_filter", MATCHES)
def test_what_a_filter_matches(broker: RunningBroker, topic_filter: str) -> None:
    wire, publisher = broker.client(), broker.client()
    assert wire.subscribe((topic_filter, 0)).codes == (0,)
    publisher.send(*[Publish(name, name.encode()) for name in NAMES])
    publisher.ping()
    wanted = [name for name in NAMES if should_match(topic_filter, name)]
    assert set(MATCHES[topic_filter]) <= set(wanted)
    assert [wire.expect(Publish).topic for _ in wanted] == wanted
    wire.expect_nothing()


@normative("MQTT-4.7.2-1")
def test_a_leading_wildcard_gets_no_retained_message_of_a_dollar_topic(
    broker: RunningBroker, topic: str
) -> None:
    broker.client().publish(f"$own/{topic}", b"kept", retain=True)
    for topic_filter in ("#", "+/#", f"+/{topic}"):
        wire = broker.client()
        wire.subscribe((topic_filter, 0))
        wire.send(b"\xc0\x00")
        while isinstance(packet := wire.take(), Publish):
            assert not str(packet.topic).startswith("$")
    wire = broker.client()
    wire.subscribe((f"$own/{topic}", 0))
    wire.expect(Publish(f"$own/{topic}", b"kept", retain=True))


def is_refused(broker: RunningBroker, topic_filter: str) -> bool:
    """Whether a SUBSCRIBE to it fails or ends the connection; it is gone as a subscription in any case."""
    wire = broker.client()
    wire.send(Subscribe(1, ((topic_filter, 0),)), b"\xe0\x00")
    return wire.drain() in ([], [Suback(1, (0x80,))])


@normative("MQTT-4.7.1-2")
@pytest.mark.parametrize("topic_filter", ["a#", "#a", "a/#/b", "#/", "##", "a/b#", "a/#b", "+#", "#+"])
def test_a_multi_level_wildcard_out_of_place_is_refused(broker: RunningBroker, topic_filter: str) -> None:
    assert is_refused(broker, topic_filter)


@normative("MQTT-4.7.1-3")
@pytest.mark.parametrize("topic_filter", ["a+", "+a", "a/+b", "a/b+/c", "++", "/a+/"])
def test_a_single_level_wildcard_that_does_not_fill_its_level_is_refused(
    broker: RunningBroker, topic_filter: str
) -> None:
    assert is_refused(broker, topic_filter)


@normative("MQTT-4.7.3-1")
def test_an_empty_filter_is_refused(broker: RunningBroker) -> None:
    assert is_refused(broker, "")


@normative("MQTT-4.7.3-1")
@pytest.mark.parametrize("qos", [0, 1, 2])
def test_an_empty_topic_name_closes(broker: RunningBroker, qos: int) -> None:
    wire = broker.client()
    wire.send(Publish("", b"x", qos, packet_id=1 if qos else None))
    wire.expect_closed()


@normative("MQTT-4.7.3-1")
def test_one_character_is_enough(broker: RunningBroker) -> None:
    wire = broker.client()
    wire.subscribe(("é", 0))
    broker.client().publish("é", b"x")
    wire.expect(Publish("é", b"x"))


@normative("MQTT-4.7.3-3")
def test_a_topic_may_take_65535_bytes(broker: RunningBroker, topic: str) -> None:
    name = topic + "é" * 40_000
    name = name.encode()[:65_535].decode(errors="ignore")
    name += "x" * (65_535 - len(name.encode()))
    wire = broker.client()
    assert wire.subscribe((name, 1)).codes == (1,)
    broker.client().publish(name, b"x", qos=1)
    wire.expect_message(name, b"x", qos=1)
    wire.unsubscribe(name)
    wire.expect_nothing()


@normative("MQTT-4.7.3-4")
def test_nothing_is_normalised(broker: RunningBroker, topic: str) -> None:
    """Names that somebody might take for each other, each with a subscriber of its own."""
    spellings = [
        "a", "A", "a ", " a", "a/", "/a", "a//b", "a/b", "a/./b", "a/../b", "ﬁ", "fi", "\u212b", "\u00c5", "ß", "ss",
        unicodedata.normalize("NFC", "é"), unicodedata.normalize("NFD", "é"), "a\u200b", "a\u00ad", "%61", "\\u0061",
        "\ufffd", "\ue000", "\U000e0041", "\u00a0", "\x7f", "\u0001",
    ]  # fmt: skip
    publisher = broker.client()
    subscribers = {}
    for spelling in spellings:
        subscribers[spelling] = broker.client()
        subscribers[spelling].subscribe((f"{topic}/{spelling}", 0))
    for spelling in spellings:
        publisher.publish(f"{topic}/{spelling}", spelling.encode())
    for spelling, subscriber in subscribers.items():
        subscriber.expect(Publish(f"{topic}/{spelling}", spelling.encode()))
        subscriber.expect_nothing()
