import pytest

from bridge.config import RuleConfig
from bridge.mapping import InMapping, OutMapping, may_echo, overlap
from edge_broker.wire.topics import match


def rule(topic_filter: str, local: str = "", remote: str = "", qos: int = 1) -> RuleConfig:
    return RuleConfig(filter=topic_filter, local_prefix=local, remote_prefix=remote, qos=qos)


def remote_name(mapping: OutMapping, topic: str) -> str | None:
    found = mapping.find(topic)
    return None if found is None else found.topic


def local_name(mapping: InMapping, topic: str) -> str | None:
    found = mapping.find(topic)
    return None if found is None else found.topic


@pytest.mark.parametrize(
    ("local", "remote", "topic", "expected"),
    [
        ("", "", "temp", "temp"),
        ("", "site/7/", "temp", "site/7/temp"),
        ("home/", "", "home/temp", "temp"),
        ("home/", "site/7/", "home/a/b", "site/7/a/b"),
        ("home/", "site/7/", "other/a", None),
        ("home/", "site/7/", "home", "site/7"),  # the parent, which home/# matches too
        ("home/", "", "home", None),  # it has no name upstream
    ],
)
def test_one_prefix_takes_the_place_of_the_other(
    local: str, remote: str, topic: str, expected: str | None
) -> None:
    assert remote_name(OutMapping([rule("#", local, remote)]), topic) == expected
    if expected is not None:
        assert local_name(InMapping([rule("#", local, remote)]), expected) == topic


def test_the_first_rule_that_matches_counts() -> None:
    rules = [rule("temp/+", remote="first/", qos=2), rule("#", remote="second/", qos=0)]
    mapping = OutMapping(rules)
    assert remote_name(mapping, "temp/1") == "first/temp/1"
    assert remote_name(mapping, "temp/1/x") == "second/temp/1/x"
    found = mapping.find("temp/1")
    assert found is not None
    assert found.qos == 2
    assert found.encoded == b"\x00\x0cfirst/temp/1"


def test_filters_to_subscribe_to_stand_once_each() -> None:
    out = OutMapping([rule("a/#", remote="x/"), rule("a/#", remote="y/"), rule("b", qos=2)])
    assert out.local_filters == ["a/#", "b"]
    assert out.highest_qos == 2
    assert OutMapping([]).highest_qos == -1
    down = InMapping([rule("a/#", qos=0), rule("a/#", "x/", qos=2), rule("#", remote="cmd/")])
    assert down.remote_filters == {"a/#": 2, "cmd/#": 1}


def test_a_name_too_long_for_mqtt_is_none() -> None:
    assert remote_name(OutMapping([rule("#", remote="x/" * 3000)]), "é" * 30_000) is None
    assert remote_name(OutMapping([rule("#", remote="x/" * 2000)]), "é" * 30_000) is not None


def test_what_starts_with_dollar_needs_a_rule_that_says_so() -> None:
    assert remote_name(OutMapping([rule("#", remote="up/")]), "$SYS/uptime") is None
    assert remote_name(OutMapping([rule("#", "$SYS/", "up/")]), "$SYS/uptime") == "up/uptime"


def test_memory_for_topics_is_bounded() -> None:
    out, down = OutMapping([rule("#")]), InMapping([rule("#")])
    for number in range(25_000):
        assert out.find(str(number)) is not None
        assert down.find(str(number)) is not None
    assert len(out.known) <= 10_000
    assert len(down._known) <= 10_000


FILTERS = [
    "#",
    "+",
    "a",
    "a/#",
    "a/+",
    "+/b",
    "a/b",
    "a/b/#",
    "a/b/c",
    "+/+/c",
    "b/#",
    "$SYS/#",
    "$SYS/a",
    "/",
    "+/#",
]
TOPICS = [
    "a",
    "b",
    "a/b",
    "a/c",
    "b/b",
    "a/b/c",
    "b/x/c",
    "x/y/c",
    "/",
    "a/",
    "/c",
    "$SYS",
    "$SYS/a",
    "$SYS/b",
    "x",
]


@pytest.mark.parametrize("one", FILTERS)
@pytest.mark.parametrize("other", FILTERS)
def test_filters_overlap_where_a_topic_matches_both(one: str, other: str) -> None:
    assert overlap(one, other) == any(match(one, topic) and match(other, topic) for topic in TOPICS)


def test_an_echo_is_possible_only_where_up_and_down_share_names_upstream() -> None:
    def echoes(out: list[RuleConfig], in_: list[RuleConfig]) -> bool:
        return may_echo(OutMapping(out, "pi"), InMapping(in_, "pi"))

    assert echoes([rule("a/#")], [rule("a/+")])
    assert not echoes([rule("a/#", remote="up/")], [rule("a/#", remote="down/")])
    assert echoes([rule("a/#", remote="up/")], [rule("#")])
    assert not echoes([rule("#")], [])
    template = RuleConfig(from_="a/+x/#rest", to="up/{gateway}/b-{x}/{rest}")
    assert echoes([template], [rule("up/pi/+/c")])
    assert not echoes([template], [rule("up/other/#")])
    assert echoes([RuleConfig(filter="a.b", characters={".": "_"})], [rule("a_b")])


@pytest.mark.parametrize("topic", ["$SYS/uptime", "$aws/things/x", "$delayed/5/x", "$"])
def test_a_prefix_taken_off_uncovers_no_dollar(topic: str) -> None:
    """Else anybody who may publish below it speaks to what is beside it, or has an upstream end the connection for ever."""
    assert remote_name(OutMapping([rule("#", "home/", "")]), f"home/{topic}") is None
    assert InMapping([rule("#", "", "site/")]).find(f"site/{topic}") is None
    meant = OutMapping([rule("#", "shadow/", "$aws/things/x/")])
    assert remote_name(meant, "shadow/update") == "$aws/things/x/update", (
        "what the rule itself names is meant"
    )
    named = InMapping([rule("$x/#", "", "site/")]).find("site/$x/y")
    assert named is not None
    assert named.topic == "$x/y"
