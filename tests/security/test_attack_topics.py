"""Topics as an attack: names that look like the broker's, that mean something elsewhere, or that break what shows them.

What the protocol itself says of topics is in `conformance/test_v5_topics` and `test_v5_strings`: U+0000, surrogates,
overlong UTF-8, wildcards in names, filters that cannot be. Here is what is left: what is sound MQTT and meant ill.
"""

from __future__ import annotations

import json
import logging

import pytest

from edge_broker.core.message import build_message
from edge_broker.ops.audit import encode_line
from edge_broker.ops.logging import TextFormatter
from edge_broker.wire import const
from edge_broker.wire.packets import Ack, Connack, Disconnect, Publish, Suback, Will
from tests.pump.pump import Pump, TestClient
from tests.security.rules import ONLY_PUBLIC, impose

ODD = {
    "control characters": "door\x01\x1b[31m\x7f\x85/state",
    "a line of its own": "door\n2025-05-01 error store: lost everything",
    "right to left": "door/\u202egpj.exe\u2066",
    "no characters": "door/\ufffe\uffff\U0001fffe\ufdd0",
    "zero width": "do\u200bor/sta\u2060te\ufeff",
    "above the first plane": "door/\U0001f6aa\U000e0041",
}


@pytest.fixture
def pump() -> Pump:
    return Pump()


# ---- the broker's own


@pytest.mark.parametrize(
    "topic", ["$SYS", "$SYS/", "$SYS/broker/uptime", "$SYS/broker/clients/connected", "$SYS//x"]
)
@pytest.mark.parametrize("retain", [False, True])
def test_nobody_speaks_for_the_broker(pump: Pump, topic: str, retain: bool) -> None:
    watcher = pump.client("watcher").subscribed("$SYS/#")
    attacker = pump.client("attacker")
    for qos in (0, 1, 2):
        attacker.publish(topic, b"forged", qos, packet_id=qos, retain=retain)
    assert attacker.take(Ack, const.PUBACK).reason_code == const.NOT_AUTHORIZED
    assert attacker.take(Ack, const.PUBREC).reason_code == const.NOT_AUTHORIZED
    pump.commit()
    assert watcher.inbox == []
    assert pump.client("later").subscribed("$SYS/#").inbox == [], "nothing was retained"
    assert pump.router.counters.denied == {"publish": 3}


@pytest.mark.parametrize("topic", ["$SYS", "$SYS/broker/uptime"])
@pytest.mark.parametrize("delay", [0, 10])
def test_nor_as_a_last_word(pump: Pump, topic: str, delay: int) -> None:
    watcher = pump.client("watcher").subscribed("$SYS/#")
    attacker = TestClient(pump)
    attacker.connect("attacker", expiry=60, will=Will(topic, b"forged", 0, True, delay, {}))
    assert attacker.take(Connack).reason_code == const.TOPIC_NAME_INVALID
    attacker.vanish()
    pump.wait(61)
    assert watcher.inbox == []


def test_nor_by_a_topic_alias(pump: Pump) -> None:
    watcher = pump.client("watcher").subscribed("$SYS/#")
    attacker = pump.client("attacker")
    attacker.publish("$SYS/x", b"forged", 1, properties={const.TOPIC_ALIAS: 1})
    attacker.publish("", b"forged", 1, packet_id=2, properties={const.TOPIC_ALIAS: 1})
    assert [attacker.take(Ack).reason_code for _ in range(2)] == [const.NOT_AUTHORIZED] * 2
    assert watcher.inbox == []


def test_nor_where_the_broker_has_just_published(pump: Pump) -> None:
    """What is remembered of a topic is no way past the look at it."""
    watcher = pump.client("watcher").subscribed("$SYS/#")
    pump.router.publish_system("$SYS/broker/uptime", b"1")
    pump.router.publish(build_message("$SYS", b"a bridge's"), None)
    attacker = pump.client("attacker")
    for topic in ("$SYS", "$SYS/broker/uptime") * 2:
        attacker.publish(topic, b"forged", 1)
        assert attacker.take(Ack).reason_code == const.NOT_AUTHORIZED
    pump.run()
    assert watcher.take_payloads() == [b"1", b"a bridge's"]


@pytest.mark.parametrize(
    "topic", ["$sys/x", "$SYSTEM/x", " $SYS/x", "/$SYS/x", "$SYS\u200b/x", "\u202d$SYS/x"]
)
def test_what_only_looks_like_it_is_not_its(pump: Pump, topic: str) -> None:
    watcher = pump.client("watcher").subscribed("$SYS/#")
    attacker = pump.client("attacker")
    attacker.publish(topic, b"not forged", 1)
    assert attacker.take(Ack).reason_code in (const.SUCCESS, const.NO_MATCHING_SUBSCRIBERS)
    assert watcher.inbox == []


# ---- shared subscriptions


def test_a_message_for_a_shared_subscriptions_name_is_nobodys(pump: Pump) -> None:
    member = pump.client("member").subscribed("$share/g/door")
    everybody = pump.client("everybody").subscribed("#")
    attacker = pump.client("attacker")
    attacker.publish("$share/g/door", b"past the rules for door?", 1)
    assert attacker.take(Ack).reason_code in (const.SUCCESS, const.NO_MATCHING_SUBSCRIBERS)
    assert (member.inbox, everybody.inbox) == ([], [])


@pytest.mark.parametrize(
    "topic_filter",
    [
        "$share",
        "$share/",
        "$share//door",
        "$share/g",
        "$share/g/",
        "$share/+/door",
        "$share/#",
        "$share/g#/door",
    ],
)
def test_half_a_shared_subscription_is_none(pump: Pump, topic_filter: str) -> None:
    attacker = pump.client("attacker")
    attacker.subscribe(topic_filter)
    (code,) = attacker.take(Suback).reason_codes
    if topic_filter == "$share":
        assert code == 0, "a topic like any other"
        pump.client("c").publish("door", b"x")
        assert attacker.inbox == []
    else:
        assert code == const.TOPIC_FILTER_INVALID


@pytest.mark.parametrize(
    "topic_filter", ["$share/public/secret", "$share/g/secret", "$share/public/$share/public/x"]
)
def test_a_share_name_is_no_way_around_permissions(topic_filter: str) -> None:
    pump = Pump(authorizer=ONLY_PUBLIC)
    attacker = pump.client("attacker")
    attacker.subscribe(topic_filter)
    assert attacker.take(Suback).reason_codes == [const.NOT_AUTHORIZED]


def test_what_was_retained_before_needs_permission_too() -> None:
    pump = Pump()
    pump.client("owner").publish("secret/plan", b"hidden", retain=True)
    impose(pump, ONLY_PUBLIC)
    attacker = pump.client("attacker")
    for topic_filter in ("secret/plan", "#", "secret/#", "+/plan", "$share/g/secret/plan"):
        attacker.subscribe(topic_filter)
        assert attacker.take(Suback).reason_codes == [const.NOT_AUTHORIZED]
    pump.run()
    assert attacker.inbox == []


def test_an_alias_is_its_connections_own(pump: Pump) -> None:
    """One client's alias names nothing for another, nor for itself in its next connection."""
    watcher = pump.client("watcher").subscribed("door")
    owner = pump.client("owner", expiry=60)
    owner.publish("door", b"mine", properties={const.TOPIC_ALIAS: 1})
    assert watcher.take_payloads() == [b"mine"]
    owner.vanish()
    for client_id in ("attacker", "owner"):
        other = pump.client(client_id, expiry=60)
        other.publish("", b"forged", properties={const.TOPIC_ALIAS: 1})
        assert other.take(Disconnect).reason_code == const.PROTOCOL_ERROR
    assert watcher.inbox == []


# ---- empty levels, and names that break what shows them


@pytest.mark.parametrize("topic", ["/", "//", "a//b", "/a", "a/", "a/ /b"])
def test_empty_levels_are_levels(pump: Pump, topic: str) -> None:
    """Nobody may reach `a/b` by `a//b`, or the other way round."""
    plain = pump.client("plain").subscribed("a/b")
    exact = pump.client("exact").subscribed(topic)
    pump.client("attacker").publish(topic, b"x")
    assert (plain.inbox, exact.take_payloads()) == ([], [b"x"])


@pytest.mark.parametrize("topic", ODD.values(), ids=ODD.keys())
def test_odd_names_arrive_as_they_are_and_break_no_log(pump: Pump, topic: str) -> None:
    """The protocol lets them through, and so do we: to change a name is worse. Whoever shows them escapes them."""
    watcher = pump.client("watcher").subscribed("#")
    pump.client(topic, username=topic).publish(topic, b"x")
    assert watcher.take(Publish).topic == topic
    record = logging.makeLogRecord({"name": "edge_broker", "levelname": "INFO", "msg": f"{topic} said"})
    shown = TextFormatter(journal=False).format(record)
    assert "\n" not in shown
    assert "\x1b" not in shown
    line = encode_line({"event": "denied", "topic": topic, "client_id": topic})
    assert all(0x20 <= byte < 0x7F for byte in line[:-1])
    assert json.loads(line)["topic"] == topic


@pytest.mark.parametrize(
    "name", ["+", "#", "+/+", "a/#", "$SYS", "$share/g/x", "%u", "{client_id}", "../../etc"]
)
def test_wildcards_in_the_names_of_clients_are_letters(pump: Pump, name: str) -> None:
    """A client identifier or user name is never taken for a filter or a path."""
    bystander = pump.client("bystander", username="bystander", expiry=60).subscribed("a/b", 1)
    attacker = pump.client(name, username=name, expiry=60)
    attacker.disconnect()
    pump.client("publisher").publish("a/b", b"x", 1)
    pump.commit()
    assert bystander.take_payloads() == [b"x"]
    assert {session.client_id for session in pump.router.sessions.values()} == {
        "bystander",
        name,
        "publisher",
    }
    assert pump.session(name).identity == name
    pump.crash()
    assert pump.session(name).identity == name


def test_a_long_topic_costs_its_sender_and_nobody_else() -> None:
    pump = Pump(max_topic_bytes=100)
    attacker, bystander = pump.client("attacker"), pump.client("bystander").subscribed("#")
    attacker.publish("\U0001f6aa" * 26, b"x")
    assert attacker.take(Disconnect).reason_code == const.TOPIC_NAME_INVALID
    other = pump.client("other")
    other.publish("\U0001f6aa" * 25, b"x")
    assert bystander.take_payloads() == [b"x"]
