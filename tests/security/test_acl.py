"""What an ACL decides: a table of cases, each asked as the broker asks and as `acl explain` does, and what always holds."""

from __future__ import annotations

import dataclasses
import logging
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from edge_broker.core.ports import NEVER, Principal
from edge_broker.security.acl import ACTIONS, Acl, Role, allowed_filters, denied_filters
from edge_broker.security.acl_decisions import AclAuthorizer, AclPermissions
from edge_broker.wire.topics import match
from tests.security.test_containment import filters, matched, topics

ROLES = {
    "sensor": Role(
        "sensor",
        allow={
            "publish": ("sensors/{identity}/#",),
            "retain": ("sensors/{identity}/state",),
            "subscribe": ("commands/{identity}/#",),
        },
        deny={"publish": ("sensors/{identity}/secret/#",)},
        max_qos=1,
    ),
    "dashboard": Role(
        "dashboard",
        allow={
            "subscribe": ("sensors/#", "$SYS/broker/#"),
            "share": ("sensors/#",),
            "receive": ("sensors/#", "$SYS/broker/uptime"),
        },
        deny={"receive": ("sensors/+/private",)},
    ),
    "operator": Role("operator", allow={"publish": ("commands/#",), "subscribe": ("commands/#",)}),
    "cautious": Role("cautious", deny={"publish": ("commands/+/reboot",), "subscribe": ("commands/+/log",)}),
    "own": Role("own", allow={"publish": ("clients/{client_id}/#",), "subscribe": ("users/{username}",)}),
    "everything": Role("everything", allow=dict.fromkeys(("publish", "subscribe", "retain"), ("#",))),
    "tree": Role("tree", allow={"subscribe": ("tree", "tree/+/#")}),
}
ACL = Acl(
    roles=ROLES,
    identities={
        "cellar": ("sensor",),
        "spiffe://example.org/sensor/*": ("own",),
        "anna": ("dashboard", "operator"),
        "carl": ("operator", "cautious"),
        "root": ("everything",),
        "woody": ("tree",),
        "anonymous": ("own",),
        "mixed": ("sensor", "everything"),
    },
    groups={"staff": ("operator",), "night": ("cautious",)},
    bridges={"cloud": ("dashboard",)},
)
WIDE = dataclasses.replace(ACL, filters_wide=True)


def permissions(who: str, acl: Acl = ACL, **names: Any) -> AclPermissions:
    names = {"client_id": "c", "username": who} | names
    found = AclAuthorizer(acl).permissions_of(Principal(who, **names))
    assert found is not None
    return found


# ---- publishing


@pytest.mark.parametrize(
    ("who", "topic", "qos", "retain"),
    [
        ("cellar", "sensors/cellar/temperature", 1, False),
        ("cellar", "sensors/cellar", 1, False),
        ("cellar", "sensors/cellar/state", 1, True),
        ("cellar", "sensors/cellar/secret", NEVER, False),
        ("cellar", "sensors/cellar/secret/x", NEVER, False),
        ("cellar", "sensors/attic/temperature", NEVER, False),
        ("cellar", "commands/cellar/x", NEVER, False),
        ("anna", "commands/cellar/reboot", 2, False),
        ("carl", "commands/cellar/reboot", NEVER, False),
        ("carl", "commands/cellar/blink", 2, False),
        ("root", "anything/at/all", 2, True),
        ("root", "$SYS/broker/uptime", NEVER, False),
        ("root", "$x", NEVER, False),
        ("mixed", "sensors/mixed/x", 2, True),
        ("mixed", "sensors/mixed/secret", NEVER, False),
        ("nobody", "x", NEVER, False),
    ],
)
def test_publishing(who: str, topic: str, qos: int, retain: bool) -> None:
    asked = permissions(who)
    assert asked.publish_right(topic) == (qos, retain)
    assert asked.publish_right(topic) == (qos, retain)
    assert asked.decide_publish(topic).qos == qos
    assert (asked.decide_publish(topic, retain=True).qos != NEVER) == retain


# ---- subscribing


@pytest.mark.parametrize(
    ("who", "topic_filter", "refusing", "filtering"),
    [
        ("cellar", "commands/cellar/#", 1, 1),
        ("cellar", "commands/cellar/x", 1, 1),
        ("cellar", "commands/+/x", NEVER, 1),
        ("cellar", "#", NEVER, 1),
        ("cellar", "commands/attic/#", NEVER, NEVER),
        ("anna", "sensors/#", 2, 2),
        ("anna", "sensors/+/private", 2, 2),
        ("anna", "+/#", NEVER, 2),
        ("anna", "$SYS/#", NEVER, 2),
        ("anna", "$SYS/broker/#", 2, 2),
        ("anna", "$SYS/other", NEVER, NEVER),
        ("carl", "commands/#", NEVER, 2),
        ("carl", "commands/+/x", 2, 2),
        ("carl", "commands/a/+", NEVER, 2),
        ("carl", "commands/a/log", NEVER, NEVER),
        ("root", "#", 2, 2),
        ("root", "$SYS/#", NEVER, NEVER),
        ("woody", "tree/#", 2, 2),
        ("woody", "tree/a", 2, 2),
        ("woody", "+", NEVER, 2),
        ("nobody", "x", NEVER, NEVER),
        ("mixed", "#", 2, 2),
    ],
)
def test_subscribing(who: str, topic_filter: str, refusing: int, filtering: int) -> None:
    assert permissions(who).granted_qos(topic_filter, False) == refusing
    assert permissions(who, WIDE).granted_qos(topic_filter, False) == filtering


def test_a_subscription_is_granted_the_qos_that_all_of_it_may_have() -> None:
    slow = Role("slow", {"subscribe": ("a/#",)}, max_qos=0)
    quick = Role("quick", {"subscribe": ("a/b/#",)}, max_qos=2)
    asked = permissions("x", Acl({"slow": slow, "quick": quick}, {"x": ("slow", "quick")}))
    assert [asked.granted_qos(wanted, False) for wanted in ("a/b/c", "a/b/#", "a/#", "a/+")] == [2, 2, 0, 0]
    assert [asked.delivered_qos(topic, False) for topic in ("a/b/c", "a/c", "c")] == [2, 0, NEVER]


@pytest.mark.parametrize(
    ("topic_filter", "qos"), [("sensors/#", 2), ("sensors/a", 2), ("$SYS/broker/#", NEVER), ("x", NEVER)]
)
def test_sharing_needs_both(topic_filter: str, qos: int) -> None:
    assert permissions("anna").granted_qos(topic_filter, True) == qos


# ---- deliveries


@pytest.mark.parametrize(
    ("who", "topic", "alone", "shared"),
    [
        ("anna", "sensors/a/b", 2, 2),
        ("anna", "sensors/a/private", NEVER, NEVER),
        ("anna", "$SYS/broker/uptime", 2, NEVER),
        ("anna", "$SYS/broker/version", NEVER, NEVER),
        ("anna", "commands/x", 2, NEVER),  # what operators subscribe to, they receive
        ("cellar", "commands/cellar/x", 1, NEVER),
        ("cellar", "sensors/cellar/x", NEVER, NEVER),
        ("carl", "commands/a/log", NEVER, NEVER),
    ],
)
def test_receiving(who: str, topic: str, alone: int, shared: int) -> None:
    for acl in (ACL, WIDE):
        asked = permissions(who, acl)
        for _ in range(2):
            assert (asked.delivered_qos(topic, False), asked.delivered_qos(topic, True)) == (alone, shared)


# ---- whose roles


def roles(**names: Any) -> list[str]:
    return list(ACL.roles_of(Principal(**{"identity": "", "client_id": "c"} | names)))


def test_roles_come_from_identity_and_groups() -> None:
    assert roles(identity="cellar") == ["sensor"]
    assert roles(identity="cellar", groups=("night", "staff", "unheard-of")) == [
        "sensor",
        "cautious",
        "operator",
    ]
    assert roles(identity="spiffe://example.org/sensor/7") == ["own"]
    assert roles(identity="spiffe://example.org/sensor/") == ["own"]
    assert roles(identity="spiffe://example.org/sensors") == []
    assert roles(identity="*") == []


def test_a_pattern_is_not_for_anonymous_clients() -> None:
    acl = Acl({"own": ROLES["own"]}, {"*": ("own",)})
    assert acl.roles_of(Principal("anyone", "c")) == {"own": "identity '*'"}
    assert acl.roles_of(Principal("anonymous", "c")) == {}


def test_nobody_becomes_a_bridge_by_his_name() -> None:
    for identity in ("bridge:cloud", "cloud"):
        assert roles(identity=identity, groups=("cloud", "bridge:cloud")) == []
    assert roles(identity="bridge:cloud", bridge="cloud") == ["dashboard"]
    named = AclAuthorizer(ACL).permissions_of(Principal("bridge:cloud", "", bridge="cloud"))
    assert named is not None
    assert named.delivered_qos("commands/x", False) == NEVER
    assert AclAuthorizer(ACL).permissions_of(Principal("bridge:x", "", bridge="x")) is None


# ---- names in rules

STRANGE = ["", "a/b", "+", "#", "a+", "/", "$SYS", "$SYS/broker", "a\0b", "a/#", "+/+"]


def test_a_name_is_put_in() -> None:
    who = Principal("anna", "c-1", "anna")
    assert allowed_filters("x/{identity}/{client_id}/y-{username}/#", who) == ("x/anna/c-1/y-anna/#",)
    assert denied_filters("x/{identity}/+", who) == ("x/anna/+",)


@pytest.mark.parametrize("name", [name for name in STRANGE if name != "$SYS"])
def test_a_strange_name_allows_nothing_and_denies_more(name: str) -> None:
    who = Principal("anna", name)
    assert allowed_filters("x/{client_id}/#", who) == ()
    assert allowed_filters("x/y-{client_id}", who) == ()
    assert denied_filters("x/{client_id}/y", who) == ("x/#",)
    assert denied_filters("x/y/{client_id}", who) == ("x/y/#",)


def test_a_name_does_not_become_a_topic_of_the_broker() -> None:
    who = Principal("anna", "$SYS")
    assert allowed_filters("{client_id}/#", who) == ()
    assert denied_filters("{client_id}/#", who) == ("#", "$SYS/#")
    assert denied_filters("{client_id}S/#", Principal("anna", "$SY")) == ("#", "$SYS/#")
    assert denied_filters("{client_id}/#", Principal("anna", "$SYS/broker")) == ("#", "$SYS/#")
    assert allowed_filters("x/{client_id}", who) == ("x/$SYS",)
    assert allowed_filters("a{client_id}", who) == ("a$SYS",)


@pytest.mark.parametrize("name", [*STRANGE, "a", "b"])
@pytest.mark.parametrize(
    "pattern", ["{client_id}", "{client_id}/#", "x/{client_id}", "x/{client_id}/y", "a{client_id}/#"]
)
def test_no_name_makes_a_denial_weaker_or_a_permission_wider(name: str, pattern: str) -> None:
    """Against the plain reading: the topics that the rule would be about, if the name stood there as it is."""
    who = Principal("anna", name)
    literal = pattern.removesuffix("/#").replace("{client_id}", name)
    for topic in (literal, f"{literal}/z"):
        means = topic == literal or pattern.endswith("/#")
        if means and topic and not set(topic) & set("+#\0"):
            assert any(match(one, topic) for one in denied_filters(pattern, who)), topic
    for one in allowed_filters(pattern, who):
        assert one == pattern.replace("{client_id}", name)
        assert one.count("/") == pattern.count("/")
        assert one.count("+") + one.count("#") == pattern.count("#")


def test_who_has_no_user_name_is_allowed_nothing_by_it() -> None:
    assert permissions("anonymous", username="bob").granted_qos("users/bob", False) == 2
    assert permissions("anonymous", username="").granted_qos("users/+", False) == NEVER


# ---- what always holds


def right_lists() -> st.SearchStrategy[dict[str, tuple[str, ...]]]:
    return st.dictionaries(st.sampled_from(ACTIONS), st.lists(filters(), max_size=3).map(tuple), max_size=5)


@st.composite
def acls(draw: st.DrawFn) -> Acl:
    names = ("r", "s")
    made = {
        name: Role(name, draw(right_lists()), draw(right_lists()), draw(st.integers(0, 2))) for name in names
    }
    return Acl(made, {"x": names}, filters_wide=draw(st.booleans()))


def everything_that(asked: AclPermissions, topic: str, wanted: str) -> list[int]:
    """What it may do, as numbers: the higher, the more."""
    qos, retain = asked.publish_right(topic)
    granted = [asked.granted_qos(wanted, shared) for shared in (False, True)]
    return [qos, int(retain), *granted, *(asked.delivered_qos(topic, shared) for shared in (False, True))]


@settings(max_examples=200, deadline=None)
@given(acls(), st.sampled_from(ACTIONS), filters(), st.sampled_from(topics()), filters())
def test_another_denial_never_allows_more(
    acl: Acl, action: str, denied: str, topic: str, wanted: str
) -> None:
    role = acl.roles["r"]
    stricter = dataclasses.replace(role, deny=role.deny | {action: (*role.deny.get(action, ()), denied)})
    before = everything_that(permissions("x", acl), topic, wanted)
    after = everything_that(
        permissions("x", dataclasses.replace(acl, roles=acl.roles | {"r": stricter})), topic, wanted
    )
    assert all(now <= earlier for now, earlier in zip(after, before, strict=True))


@settings(max_examples=200, deadline=None)
@given(acls(), filters())
def test_what_is_granted_is_what_each_topic_may_have(acl: Acl, wanted: str) -> None:
    """Refusing: granted is the least that any topic of the filter may have. Filtering: some topic may have it."""
    asked = permissions("x", acl)
    of_topics = [asked._decide("subscribe", topic).qos for topic in matched(wanted)]
    granted = asked.granted_qos(wanted, False)
    if acl.filters_wide:
        assert granted >= max(of_topics)
    else:
        assert granted == min(of_topics)


@settings(max_examples=100, deadline=None)
@given(acls(), st.sampled_from(topics()))
def test_nothing_is_delivered_that_may_not_be_subscribed_to(acl: Acl, topic: str) -> None:
    asked = permissions("x", acl)
    assert asked.delivered_qos(topic, False) <= asked._decide("subscribe", topic).qos
    assert asked.delivered_qos(topic, True) <= asked.delivered_qos(topic, False)


# ---- what is said


def test_the_log_explains_each_decision_once(caplog: pytest.LogCaptureFixture) -> None:
    asked = permissions("cellar")
    with caplog.at_level(logging.DEBUG, "edge_broker.security.acl"):
        for _ in range(3):
            asked.publish_right("sensors/cellar/x")
            asked.delivered_qos("x", False)
        asked.granted_qos("#", False)
    assert caplog.messages == [
        "client 'c' as 'cellar' may publish to 'sensors/cellar/x' at QoS 1 at most: "
        "role sensor, allow.publish 'sensors/{identity}/#', which is 'sensors/cellar/#' here",
        "client 'c' as 'cellar' may not publish a retained message to 'sensors/cellar/x': "
        "no allow.retain of role sensor matches",
        "client 'c' as 'cellar' may not receive 'x': no allow.subscribe of role sensor matches",
        "client 'c' as 'cellar' may not subscribe to '#': it is wider than 'commands/cellar/#'",
    ]


def test_the_memory_of_answers_is_bounded() -> None:
    asked = permissions("root")
    for number in range(3_000):
        asked.publish_right(f"t/{number}")
        asked.delivered_qos(f"t/{number}", False)
    asked.publish_right("long" * 100)
    assert len(asked._published) <= 1_000
    assert len(asked._delivered) <= 1_000
    assert "long" * 100 not in asked._published


def test_what_was_removed_is_told_in_one_line(caplog: pytest.LogCaptureFixture) -> None:
    AclAuthorizer(ACL).on_removed(Principal("anna", "c"), [f"t/{number}" for number in range(7)])
    (line,) = caplog.messages
    assert line == (
        "client 'c' as 'anna' may not have 7 of its subscriptions any more, they were removed: "
        "'t/0', 't/1', 't/2', 't/3', 't/4' and 2 more"
    )
