"""An ACL in the core: what is refused, what is withheld, and what happens to those who are here when the rules change."""

from __future__ import annotations

from typing import Any

import pytest

from edge_broker.core.ports import Principal
from edge_broker.security.acl import Acl, Role
from edge_broker.security.acl_decisions import AclAuthorizer
from edge_broker.wire import const
from edge_broker.wire.packets import Ack, Connack, Publish, Suback, Will
from tests.pump.pump import Pump, TestClient
from tests.pump.test_authenticating import METHOD, auth

V3, V5 = const.MQTT_3_1_1, const.MQTT_5
DENIED = const.NOT_AUTHORIZED
FREE = ("#", "$SYS/#")
EVERYTHING = dict.fromkeys(("publish", "retain", "subscribe", "share"), FREE)


def rules(filters_wide: bool = False, **roles: Any) -> AclAuthorizer:
    """For each name a role: (allow, deny, maximum QoS), as much of it as is given; `all` may do everything."""
    made = {name: Role(name, *parts) for name, parts in roles.items()} | {"all": Role("all", EVERYTHING)}
    named = {name: (name,) for name in made}
    return AclAuthorizer(Acl(made, named, named, filters_wide=filters_wide))


def pump_with(filters_wide: bool = False, settings: dict[str, Any] | None = None, **roles: Any) -> Pump:
    return Pump(authorizer=rules(filters_wide, **roles), **(settings or {}))


def replace(pump: Pump, authorizer: AclAuthorizer | None) -> int:
    pump.authorizer = authorizer
    removed = pump.router.replace_authorizer(authorizer)
    pump.run()
    return removed


def received(client: TestClient) -> list[tuple[str, int]]:
    packets, client.inbox = client.inbox, []
    assert all(isinstance(packet, Publish) for packet in packets)
    return [(packet.topic, packet.qos) for packet in packets if isinstance(packet, Publish)]


# ---- publishing


@pytest.mark.parametrize(("version", "code"), [(V3, const.SUCCESS), (V5, DENIED)])
def test_publishing(version: int, code: int) -> None:
    pump = pump_with(bob=({"publish": ("a/#",), "retain": ("a/kept",)}, {"publish": ("a/no",)}, 1))
    watcher = pump.client("w", username="all").subscribed("#", 2)
    client = pump.client("c", username="bob", version=version)
    for _ in range(2):  # asked, and remembered
        for topic, qos, retain, expected in [
            ("a/x", 1, False, 0),
            ("a/x", 2, False, code),
            ("a/x", 1, True, code),
            ("a/kept", 1, True, 0),
            ("a/kept", 2, True, code),
            ("a/no", 1, False, code),
            ("b", 1, False, code),
        ]:
            client.publish(topic, qos=qos, packet_id=7, retain=retain)
            pump.commit()
            assert client.take(Ack).reason_code == expected, (topic, qos, retain)
            if qos == 2 and expected == 0 and version == V3:
                assert client.inbox == []
        client.publish("b", qos=0)
        client.publish("a/x", qos=0)
    assert [topic for topic, _ in received(watcher)] == ["a/x", "a/kept", "a/x"] * 2
    assert pump.router.counters.denied == {"qos": 4, "retain": 2, "publish": 6}
    assert pump.router.retained_messages == 1


def test_a_denied_publish_says_why() -> None:
    pump = pump_with(bob=({"publish": ("a",)}, {}, 0))
    client = pump.client("c", username="bob")
    client.publish("a", qos=1)
    assert client.take(Ack).properties[const.REASON_STRING] == "a higher QoS than the client may publish at"


def test_what_was_received_at_qos_2_stays_received() -> None:
    """The rules change between a PUBLISH and its repetition: it went out already, so the answer must not say otherwise."""
    pump = pump_with(bob=({"publish": ("a",)},))
    watcher = pump.client("w", username="all").subscribed("a", 0)
    client = pump.client("c", username="bob", clean=False, expiry=100)
    client.publish("a", qos=2, packet_id=5)
    pump.commit()
    assert client.take_ack(const.PUBREC) == 5
    replace(pump, rules(bob=({},)))
    client.publish("a", qos=2, packet_id=5, dup=True)
    assert client.take_ack(const.PUBREC) == 5
    client.ack(const.PUBREL, 5)
    pump.commit()
    assert client.take_ack(const.PUBCOMP) == 5
    client.publish("a", qos=2, packet_id=5)
    assert client.take(Ack).reason_code == DENIED
    assert received(watcher) == [("a", 0)], "once"
    assert pump.router.counters.denied == {"publish": 1}


# ---- subscribing and receiving


def test_a_subscription_is_granted_the_qos_that_it_may_have() -> None:
    pump = pump_with(bob=({"subscribe": ("a/#",)}, {"subscribe": ("a/no",)}, 1))
    client = pump.client("c", username="bob")
    for topic_filter, expected in [
        ("a/x", 1),
        ("a/x/#", 1),
        ("a/#", DENIED),
        ("b", DENIED),
        ("$share/g/a/x", DENIED),
    ]:
        client.subscribe(topic_filter, 2)
        assert client.take(Suback).reason_codes == [expected]
    assert pump.router.counters.denied == {"subscribe": 2, "share": 1}


def test_version_3_is_told_0x80() -> None:
    client = pump_with(bob=({},)).client("c", username="bob", version=V3)
    client.subscribe("a")
    assert client.take(Suback).reason_codes == [0x80]


def test_a_wide_subscription_gets_what_is_allowed_of_it() -> None:
    pump = pump_with(
        filters_wide=True,
        slow=({"subscribe": ("a/#",)}, {"subscribe": ("a/no",)}, 0),
        quick=({"subscribe": ("b/#",)},),
    )
    pump.door.groups["bob"] = ("slow", "quick")
    publisher = pump.client("p", username="all")
    publisher.publish("a/kept", retain=True)
    publisher.publish("c/kept", retain=True)
    client = pump.client("c", username="bob")
    client.subscribe("#", 2)
    assert client.take(Suback).reason_codes == [2]
    assert received(client) == [("a/kept", 0)]
    for topic in ("a/x", "a/no", "b/x", "c/x"):
        publisher.publish(topic, qos=1)
    assert received(client) == [("a/x", 0), ("b/x", 1)]
    assert pump.router.counters.denied == {"receive": 3}
    client.subscribe("c", 2)
    assert client.take(Suback).reason_codes == [DENIED]


def test_overlapping_subscriptions_are_looked_at_one_by_one() -> None:
    pump = pump_with(True, bob=({"subscribe": ("a/#",), "receive": ("a/x",)},))
    client = pump.client("c", username="bob").subscribed("a/#", 1).subscribed("#", 2)
    publisher = pump.client("p", username="all")
    publisher.publish("a/x", qos=2, packet_id=1)
    publisher.publish("a/y", qos=2, packet_id=2)
    assert received(client) == [("a/x", 2)]


@pytest.mark.parametrize("memory_bytes", [0, 1 << 20])
def test_what_may_not_be_received_is_not_delivered_retained_or_live(memory_bytes: int) -> None:
    """Also where retained messages are on disk only."""
    pump = pump_with(
        bob=({"subscribe": ("a/#",)}, {"receive": ("a/no",)}),
        settings={"retained_memory_bytes": memory_bytes},
    )
    publisher = pump.client("p", username="all")
    for topic in ("a/x", "a/no"):
        publisher.publish(topic, qos=1, retain=True)
        pump.commit()
    client = pump.client("c", username="bob")
    client.subscribe("a/#", 1)
    pump.commit()
    client.take(Suback)
    assert received(client) == [("a/x", 1)]
    publisher.publish("a/no", qos=1, retain=True)
    pump.commit()
    assert received(client) == []
    assert set(pump.router.counters.denied) == {"receive"}


def test_the_brokers_own_topics_are_read_by_those_who_may() -> None:
    pump = pump_with(bob=({"subscribe": ("#",)},), carl=({"subscribe": ("$SYS/broker/uptime",)},))
    bob = pump.client("b", username="bob").subscribed("#")
    carl = pump.client("c", username="carl")
    for client in (bob, carl):
        client.subscribe("$SYS/#")
        assert client.take(Suback).reason_codes == [DENIED]
    carl.subscribed("$SYS/broker/uptime")
    pump.router.publish_system("$SYS/broker/uptime", b"1")
    pump.router.publish_system("$SYS/broker/version", b"1")
    pump.run()
    assert (received(bob), received(carl)) == ([], [("$SYS/broker/uptime", 0)])


# ---- shared subscriptions


def test_a_shared_subscription_goes_to_those_who_may() -> None:
    pump = pump_with(
        True,
        one=({"subscribe": ("a/#",), "share": ("#",)},),
        both=({"subscribe": ("a/#", "b/#"), "share": ("#",)},),
    )
    one = pump.client("1", username="one").subscribed("$share/g/#", 1)
    both = pump.client("2", username="both").subscribed("$share/g/#", 1)
    publisher = pump.client("p", username="all")
    for topic in ("a/x", "a/x", "b/x", "b/x", "c/x"):
        publisher.publish(topic, qos=1)
    assert received(one) == [("a/x", 1)]
    assert received(both) == [("a/x", 1), ("b/x", 1), ("b/x", 1)]


def test_what_an_ended_member_leaves_goes_to_one_who_may() -> None:
    """[MQTT-4.8.2-5] Not back to the ended one, and not to who may not have it; also after the rules have changed."""
    roles: dict[str, Any] = {
        "no": ({"subscribe": ("a/#",), "share": ("#",)},),
        "yes": ({"subscribe": ("b/#",), "share": ("#",)},),
    }
    pump = pump_with(True, **roles)
    pump.client("1", username="no").subscribed("$share/g/#", 1)
    first = pump.client("2", username="yes").subscribed("$share/g/#", 1)
    publisher = pump.client("p", username="all")
    publisher.publish("b/1", qos=1)
    assert received(first) == [("b/1", 1)]
    second = pump.client("3", username="yes").subscribed("$share/g/#", 1)
    first.disconnect()
    assert received(second) == [("b/1", 1)]
    third = pump.client("4", username="yes").subscribed("$share/g/#", 1)
    replace(pump, rules(True, **(roles | {"yes": ({"subscribe": ("c",), "share": ("#",)},)})))
    second.disconnect()
    assert received(third) == []
    assert pump.dropped == {"session_ended": 1}


def test_the_rules_change_while_a_message_waits_for_its_commit() -> None:
    """One of QoS 2 goes to a shared subscription when its packet id is on disk: to those who may then."""
    roles: dict[str, Any] = {
        "no": ({"subscribe": ("x",), "share": ("#",)},),
        "yes": ({"subscribe": ("a",), "share": ("#",)},),
    }
    pump = pump_with(True, **roles)
    members = [pump.client(name, username=name).subscribed("$share/g/#", 2) for name in ("no", "yes")]
    publisher = pump.client("p", username="all", clean=False, expiry=100)
    publisher.publish("a", qos=2)
    replace(pump, rules(True, **(roles | {"yes": roles["no"], "no": roles["yes"]})))
    pump.commit()
    assert [received(member) for member in members] == [[("a", 2)], []]


# ---- wills

WILL = Will("will/x", b"gone", 1, True, 0, {})


@pytest.mark.parametrize(
    ("allow", "highest_qos", "code"),
    [
        ({"publish": ("will/#",), "retain": ("will/#",)}, 1, 0),
        ({"publish": ("will/#",), "retain": ("will/#",)}, 0, DENIED),
        ({"publish": ("will/#",)}, 2, DENIED),
        ({"retain": ("will/#",)}, 2, DENIED),
    ],
)
def test_a_will_is_looked_at_when_it_is_left(allow: dict[str, Any], highest_qos: int, code: int) -> None:
    pump = pump_with(bob=(allow, {}, highest_qos))
    client = TestClient(pump)
    client.connect("c", username="bob", will=WILL)
    assert client.take(Connack).reason_code == code
    assert pump.router.counters.denied == ({"will": 1} if code else {})


@pytest.mark.parametrize(("target", "code"), [("will/x", 0), ("other", DENIED)])
def test_a_delayed_will_is_one_for_the_topic_behind_the_delay(target: str, code: int) -> None:
    """`$delayed/#` in a rule opens nothing."""
    pump = pump_with(bob=({"publish": ("will/#", "$delayed/#")},))
    client = TestClient(pump)
    client.connect("c", username="bob", will=Will(f"$delayed/1/{target}", b"gone", 0, False, 0, {}))
    assert client.take(Connack).reason_code == code
    if not code:
        watcher = pump.client("w", username="all").subscribed("#")
        client.vanish()
        pump.wait(2)
        assert received(watcher) == [("will/x", 0)]


@pytest.mark.parametrize("delay", [0, 10])
def test_and_again_when_it_is_published(delay: int) -> None:
    roles = {"bob": (EVERYTHING,)}
    pump = pump_with(**roles)
    watcher = pump.client("w", username="all").subscribed("will/#", 1)
    will = Will("will/x", b"gone", 1, False, delay, {})
    client = pump.client("c", username="bob", will=will, expiry=100)
    if delay:
        client.vanish()
    replace(pump, rules(bob=({},)))
    client.vanish()
    pump.wait(delay + 1)
    pump.commit()
    assert received(watcher) == []
    assert pump.router.counters.denied == {"will": 1}
    assert pump.dropped == {"will_refused": 1}


# ---- the rules change


def test_new_rules_are_for_those_who_are_here(caplog: pytest.LogCaptureFixture) -> None:
    pump = pump_with(bob=(EVERYTHING,))
    publisher = pump.client("p", username="all")
    client = pump.client("c", username="bob", expiry=100)
    for topic_filter in ("a", "b", "$share/g/b", "c/#"):
        client.subscribed(topic_filter, 2)
    client.publish("a", qos=0)
    pump.commit()
    assert received(client) == [("a", 0)]
    assert replace(pump, rules(bob=({"subscribe": ("a", "c/#")}, {}, 1))) == 2
    pump.commit()
    assert client.connection.end is None
    assert set(pump.session("c").subscriptions) == {"a", "c/#"}
    assert {key[1]: saved.qos for key, saved in pump.store.subscriptions.items()} == {"a": 1, "c/#": 1}
    assert pump.router.counters.denied == {"removed": 2}
    assert len([line for line in caplog.messages if "removed" in line]) == 1
    publisher.publish("a", qos=2)
    publisher.publish("b", qos=2, packet_id=2)
    pump.commit()
    assert received(client) == [("a", 1)]
    client.publish("a", qos=1, packet_id=9)
    assert client.take(Ack).reason_code == DENIED, "what it was allowed before is forgotten"
    replace(pump, None)
    client.publish("a", qos=1, packet_id=9)
    pump.commit()
    assert [type(packet) for packet in client.inbox].count(Ack) == 1
    client.subscribe("b", 2)
    pump.commit()
    assert client.inbox[-1].reason_codes == [2]  # type: ignore[union-attr]


def test_wide_subscriptions_stay_and_get_what_is_allowed_now() -> None:
    pump = pump_with(True, bob=({"subscribe": ("a",)},))
    client = pump.client("c", username="bob").subscribed("#")
    publisher = pump.client("p", username="all")
    for topic in ("a", "b"):
        publisher.publish(topic)
    assert received(client) == [("a", 0)]
    assert replace(pump, rules(True, bob=({"subscribe": ("b",)},))) == 0
    for topic in ("a", "b"):
        publisher.publish(topic)
    assert received(client) == [("b", 0)]


def test_retained_messages_under_way_are_looked_at_again() -> None:
    pump = pump_with(True, bob=({"subscribe": ("a/#",)},), settings={"work_budget_retained": 1})
    publisher = pump.client("p", username="all")
    for number in range(5):
        publisher.publish(f"a/{number}", retain=True)
    client = pump.client("c", username="bob")
    client.block()
    client.subscribe("a/#")
    replace(pump, rules(True, bob=({"subscribe": ("a/0",)},)))
    client.unblock()
    client.take(Suback)
    assert [topic for topic, _ in received(client)] == ["a/0"]


# ---- sessions that are away


def test_what_a_client_may_have_holds_while_it_is_away() -> None:
    """Its groups are kept with the session: also after a crash nothing is queued that it may not have, and the rest is."""
    roles = {"night": ({"subscribe": ("a/#",)}, {"receive": ("a/no",)})}
    pump = pump_with(**roles)
    pump.door.groups["bob"] = ("night", "unheard-of")
    pump.client("c", username="bob", clean=False, expiry=100).subscribed("a/#", 1).vanish()
    pump.commit()
    record = next(iter(pump.store.sessions.values()))
    assert (record.identity, record.username, record.groups) == ("bob", "bob", ("night", "unheard-of"))
    for _ in range(2):
        publisher = pump.client("p", username="all")
        publisher.publish("a/x", qos=1)
        publisher.publish("a/no", qos=1, packet_id=2)
        pump.commit()
        pump.crash()
        assert list(pump.session("c").subscriptions) == ["a/#"]
    pump.door.groups["bob"] = ("night",)
    client = pump.client("c", username="bob", clean=False, expiry=100)
    pump.commit()
    assert received(client) == [("a/x", 1)] * 2


def test_rules_that_changed_while_the_broker_was_down() -> None:
    pump = pump_with(bob=({"subscribe": ("a", "b")},))
    pump.client("c", username="bob", clean=False, expiry=100).subscribed("a", 1).subscribed("b", 1)
    pump.authorizer = rules(bob=({"subscribe": ("b",)},))
    pump.crash()
    assert list(pump.session("c").subscriptions) == ["b"]
    pump.commit()
    assert [key[1] for key in pump.store.subscriptions] == ["b"]


def test_who_comes_back_in_other_groups_has_their_permissions() -> None:
    pump = pump_with(day=({"subscribe": ("a", "b"), "publish": ("p",)},), night=({"subscribe": ("b",)},))
    pump.door.groups["bob"] = ("day",)
    client = pump.client("c", username="bob", clean=False, expiry=100).subscribed("a").subscribed("b")
    client.publish("p", qos=1)
    assert client.take_ack(const.PUBACK) == 1
    client.vanish()
    publisher = pump.client("p", username="all")
    pump.door.groups["bob"] = ("night",)
    client = pump.client("c", username="bob", clean=False, expiry=100)
    publisher.publish("a")
    publisher.publish("b")
    assert received(client) == [("b", 0)]
    client.publish("p", qos=1)
    assert client.take(Ack).reason_code == DENIED
    assert next(s for s in pump.store.sessions.values() if s.client_id == "c").groups == ("night",)


def test_who_comes_back_in_other_groups_gets_other_topics_of_a_wide_subscription() -> None:
    pump = pump_with(True, day=({"subscribe": ("a",)},), night=({"subscribe": ("b",)},))
    publisher = pump.client("p", username="all")
    for group, topic in (("day", "a"), ("night", "b")):
        pump.door.groups["bob"] = (group,)
        client = pump.client("c", username="bob", clean=False, expiry=100)
        if group == "day":
            client.subscribed("#")
        publisher.publish("a")
        publisher.publish("b")
        assert received(client) == [(topic, 0)]
        client.vanish()


def test_who_comes_back_as_before_keeps_all_routes() -> None:
    pump = pump_with(bob=({"subscribe": ("a",)},))
    pump.client("c", username="bob", clean=False, expiry=100).subscribed("a").vanish()
    pump.client("p", username="all").publish("a")
    route = pump.router.table.routes["a"]
    pump.client("c", username="bob", clean=False, expiry=100)
    assert pump.router.table.routes["a"] is route


def test_authenticating_anew_may_change_groups() -> None:
    pump = pump_with(day=({"subscribe": ("a",)},))
    pump.door.groups["bob"] = ("day",)
    client = TestClient(pump)
    client.connect("c", expiry=100, properties=METHOD | {const.AUTHENTICATION_DATA: b"bob"})
    client.inbox.clear()
    client.send(auth(b"bob"[::-1]))
    pump.commit()
    assert client.take(Connack).reason_code == 0
    client.subscribed("a")
    pump.door.groups["bob"] = ()
    client.send(auth(b"bob", const.REAUTHENTICATE))
    client.send(auth(b"bob"[::-1]))
    pump.commit()
    assert pump.session("c").subscriptions == {}
    assert next(iter(pump.store.sessions.values())).groups == ()
    assert client.connection.end is None


# ---- whose session, whose name


@pytest.mark.parametrize(("version", "code"), [(V5, const.CLIENT_IDENTIFIER_NOT_VALID), (V3, 0x02)])
@pytest.mark.parametrize("clean", [True, False])
@pytest.mark.parametrize("online", [True, False])
def test_a_session_is_its_creators(version: int, code: int, clean: bool, online: bool) -> None:
    """Whoever else comes with its client identifier is turned away, and nothing of it changes."""
    pump = Pump()
    client = pump.client("c", username="bob", clean=False, expiry=100, will=Will("w", b"", 0, False, 0, {}))
    client.subscribed("a", 1)
    if not online:
        client.disconnect(const.DISCONNECT_WITH_WILL)
    pump.client("p").publish("a", qos=1)
    pump.commit()
    session, before = pump.session("c"), pump.store.snapshot()
    thief = TestClient(pump)
    thief.connect("c", username="mallory", version=version, clean=clean, expiry=0 if version == V5 else None)
    pump.commit()
    answer = thief.take(Connack)
    assert (answer.reason_code, answer.session_present) == (code, False)
    assert thief.closed
    assert pump.session("c") is session
    assert (client.connection.end is None) == online
    after = pump.store.snapshot()
    assert (after.sessions, after.subscriptions, after.queues) == (
        before.sessions,
        before.subscriptions,
        before.queues,
    )
    if not online:
        client = pump.client("c", username="bob", clean=False, expiry=100)
    assert received(client) == [("a", 1)]


def test_a_user_name_counts_where_it_was_proved() -> None:
    """By certificate or token one comes in as somebody, and may say any user name beside."""
    pump = pump_with(device=({"publish": ("users/{username}/#", "clients/{client_id}")},))
    pump.door.identities["bob"] = "device"
    client = pump.client("c", username="bob")
    client.publish("users/bob/x", qos=1)
    assert client.take(Ack).reason_code == DENIED
    client.publish("clients/c", qos=1)
    assert client.take(Ack).reason_code == 0
    proved = pump.client("d", username="device")
    proved.publish("users/device/x", qos=1)
    assert proved.take(Ack).reason_code == 0


def test_an_identity_with_a_nul_stays_out() -> None:
    """It would read as somebody else's user name and groups when it comes back from the store."""
    pump = Pump()
    pump.door.identities["x"] = "bob\0bob\0admins"
    client = TestClient(pump)
    client.connect("c", username="x")
    assert client.take(Connack).reason_code == DENIED
    pump.door.groups["y"] = ("a\0b", "c")
    pump.client("d", username="y", expiry=100)
    assert pump.session("d").principal == Principal("y", "d", "y", ("c",))
