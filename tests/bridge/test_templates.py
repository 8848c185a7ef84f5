"""Templates, exceptions and characters: what a topic is called on the other side, and back again."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from bridge.mapping import InMapping, OutMapping
from bridge.rules import RuleConfig
from edge_broker.wire.topics import match


def up(topic: str, *rules: RuleConfig, gateway: str = "pi") -> str | None:
    found = OutMapping(rules, gateway).find(topic)
    return None if found is None else found.topic


def down(topic: str, *rules: RuleConfig, gateway: str = "pi") -> str | None:
    found = InMapping(rules, gateway).find(topic)
    return None if found is None else found.topic


@pytest.mark.parametrize(
    ("source", "target", "topic", "expected"),
    [
        ("site/+room/+sensor", "plants/7/{room}/{sensor}", "site/a/b", "plants/7/a/b"),
        ("site/+room/+sensor", "plants/{sensor}/of/{room}", "site/a/b", "plants/b/of/a"),
        ("site/+room/+sensor", "{room}-{sensor}", "site/a/b", "a-b"),
        ("site/+room/+", "rooms/{room}", "site/a/b", "rooms/a"),
        ("site/+room/#rest", "p/{room}/{rest}", "site/a/b/c/d", "p/a/b/c/d"),
        ("site/+room/#rest", "p/{room}/{rest}", "site/a", "p/a"),
        ("site/+room/#rest", "{rest}/in/{room}", "site/a/b/c", "b/c/in/a"),
        ("site/+room/#rest", "{rest}{room}", "site/a", "a"),
        ("#rest", "{gateway}/{rest}", "a/b", "pi/a/b"),
        ("of/{gateway}/+x", "{x}", "of/pi/1", "1"),
        ("of/{gateway}/+x", "{x}", "of/po/1", None),
        ("a/+x", "{x}", "a/", None),
        ("a/+x/b", "{x}//b", "a//b", "//b"),
        ("a", "b", "a", "b"),
        ("a/#", "all", "a/b/c", "all"),
        ("+x/y", "{x}/{x}", "é/y", "é/é"),
    ],
)
def test_captures_stand_where_the_other_side_has_them(
    source: str, target: str, topic: str, expected: str | None
) -> None:
    rule = RuleConfig(from_=source, to=target)
    assert up(topic, rule) == expected
    assert down(topic, rule) == expected


_levels = st.text(st.characters(exclude_categories=["Cs"], exclude_characters="/+#\0"), max_size=5)


@given(st.lists(_levels.filter(bool), min_size=3, max_size=3), st.lists(_levels, min_size=1, max_size=4))
def test_what_goes_up_by_a_template_comes_down_by_its_reverse(levels: list[str], rest: list[str]) -> None:
    topic = "/".join(["site", *levels, *rest])
    there = RuleConfig(from_="site/+a/+b/+c/#rest", to="p/{c}/x/{a}/{gateway}/{b}/{rest}")
    back = RuleConfig(from_="p/+c/x/+a/{gateway}/+b/#rest", to="site/{a}/{b}/{c}/{rest}")
    name = up(topic, there, gateway="gate way")
    assert name is not None
    assert down(name, back, gateway="gate way") == topic
    assert match(OutMapping([there], "gate way").remote_filters[0], name)


@pytest.mark.parametrize(
    ("target", "covers"),
    [
        ("p/{a}/{rest}", "p/+/#"),
        ("p/{a}-x/b", "p/+/b"),
        ("p/x{rest}/{a}", "p/#"),
        ("{gateway}/{a}/{rest}", "pi/+/#"),
    ],
)
def test_a_filter_covers_all_that_a_template_makes(target: str, covers: str) -> None:
    source = "+a/#rest" if "rest" in target else "+a"
    source = source if "{a}" in target else "+/#rest"
    assert OutMapping([RuleConfig(from_=source, to=target)], "pi").remote_filters == [covers]


def test_prefixes_may_have_the_gateway_in_them() -> None:
    rule = RuleConfig(filter="a/#", remote_prefix="sites/{gateway}/")
    assert up("a/b", rule) == "sites/pi/a/b"
    assert down("sites/pi/a/b", rule) == "a/b"
    assert list(InMapping([rule], "pi").remote_filters) == ["sites/pi/a/#"]


# ---- exceptions


def test_what_a_rule_excepts_goes_on_to_the_next_rule() -> None:
    first = RuleConfig(filter="site/#", remote_prefix="all/", except_=("site/+/debug/#", "site/{gateway}"))
    second = RuleConfig(filter="site/1/#", remote_prefix="rest/")
    assert up("site/1/temp", first, second) == "all/site/1/temp"
    assert up("site/1/debug", first, second) == "rest/site/1/debug"
    assert up("site/1/debug/x", first, second) == "rest/site/1/debug/x"
    assert up("site/2/debug", first, second) is None
    assert up("site/pi", first, second) is None


def test_an_excepted_topic_is_told_from_one_without_a_name() -> None:
    mapping = OutMapping([RuleConfig(filter="#", local_prefix="home/", except_=("home/x",))])
    assert mapping.find("home/x") is None
    assert mapping.find("home") is None
    assert mapping.excepted == {"home/x"}
    below = InMapping([RuleConfig(filter="#", remote_prefix="home/", except_=("home/x",))])
    assert below.find("home/x") is None
    assert below.excepts("home/x")
    assert not below.excepts("elsewhere")


def test_exceptions_take_no_more_memory_than_other_topics() -> None:
    mapping = OutMapping([RuleConfig(filter="a/#", except_=("a/#",))])
    for number in range(25_000):
        mapping.find(f"a/{number}")
    assert len(mapping.excepted) <= 10_000


# ---- characters


def test_characters_that_the_upstream_cannot_have_are_others_there() -> None:
    rule = RuleConfig(filter="#", remote_prefix="site.7/", characters={".": "_", " ": "~"})
    assert up("a.b/c d/e_f", rule) == "site_7/a_b/c~d/e_f"
    template = RuleConfig(from_="+x/#rest", to="v1.0/{x}/{rest}", characters={".": "_"})
    assert up("a.b/c.d", template) == "v1_0/a_b/c_d"
    assert OutMapping([rule]).remote_filters == ["site_7/#"]


def test_characters_come_back_where_only_one_became_that() -> None:
    rule = RuleConfig(filter="cmd v1/#", remote_prefix="site.7/", characters={".": "_", " ": "_", "é": "~"})
    mapping = InMapping([rule])
    assert list(mapping.remote_filters) == ["site_7/cmd_v1/#"]
    found = mapping.find("site_7/cmd_v1/a_b/~")
    assert found is not None
    assert found.topic == "cmd v1/a_b/é"
    template = RuleConfig(from_="a_b/+x", to="a.b/{x}/_", characters={".": "_"})
    assert down("a_b/1_0", template) == "a.b/1.0/_"


@given(
    st.lists(_levels.map(lambda text: text.translate({0x2E: "x", 0x5F: "y"}) + "."), min_size=1, max_size=4)
)
def test_characters_there_and_back_again(levels: list[str]) -> None:
    topic = "/".join(levels).lstrip("$")  # which no rule matches that begins with a wildcard
    rule = RuleConfig(filter="#", remote_prefix="up/", characters={".": "_"})
    name = up(topic, rule)
    assert name is not None
    assert "." not in name
    assert down(name, rule) == topic
