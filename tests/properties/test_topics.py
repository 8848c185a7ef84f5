"""Topics against definitions of their own: matching by recursion, the form of filters and names by grammar."""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import Final

from hypothesis import example, given
from hypothesis import strategies as st

from edge_broker.errors import MqttError
from edge_broker.wire.topics import TopicCache, check_topic_filter, check_topic_name, match, split_share
from tests.properties.strategies import quick, texts

LEVELS: Final = st.sampled_from(("", "a", "b", "$a", "$", "é"))
TOPICS: Final = st.lists(LEVELS, min_size=1, max_size=5).map("/".join).filter(bool)
SOUP: Final = st.text("a/+#$\0", max_size=8)
"""Short texts of the characters that matter: half of them are no filter."""

_PLAIN: Final = r"(?:(?:\+|[^+#/\0]*)/)*(?:\+|\#|[^+#/\0]*)"
_NAME: Final = re.compile(r"[^+#\0]+", re.DOTALL)
_FILTER: Final = re.compile(rf"(?!\$share/)(?=.)(?:{_PLAIN})|\$share/[^+#/\0]+/(?=.)(?:{_PLAIN})", re.DOTALL)


@st.composite
def filters(draw: st.DrawFn) -> str:
    """Filters of the same few levels as `TOPICS`, so that many of them match."""
    levels = draw(st.lists(LEVELS | st.just("+"), max_size=5))
    if not levels or draw(st.booleans()):
        levels.append("#")
    return "/".join(levels) or "+"


def matches(levels: list[str], topic: list[str]) -> bool:
    """The rule of section 4.7.1, a level at a time."""
    if not levels:
        return not topic
    if levels == ["#"]:
        return True
    if not topic:
        return False
    return levels[0] in ("+", topic[0]) and matches(levels[1:], topic[1:])


def reason_code(check: Callable[[str], None], text: str) -> int | None:
    """The code with which `check` refuses `text`, None where it does not."""
    try:
        check(text)
    except MqttError as error:
        return error.reason_code
    return None


@quick
@example(topic_filter="#", topic="$a")
@example(topic_filter="+/a", topic="$/a")
@example(topic_filter="$a/#", topic="$a")
@example(topic_filter="a/+", topic="a")
@example(topic_filter="a/#", topic="a")
@given(topic_filter=filters(), topic=TOPICS)
def test_match(topic_filter: str, topic: str) -> None:
    levels = topic_filter.split("/")
    hidden = topic.startswith("$") and levels[0] in ("+", "#")
    assert match(topic_filter, topic) == (not hidden and matches(levels, topic.split("/")))


@quick
@given(topic=TOPICS, data=st.data())
def test_a_generalised_topic_still_matches(topic: str, data: st.DataObject) -> None:
    """Any level made '+', any tail made '#': it matches, except where a '$' topic loses its first level."""
    levels = topic.split("/")
    wild = [data.draw(st.sampled_from((level, "+"))) for level in levels]
    kept = data.draw(st.integers(0, len(wild)))
    topic_filter = "/".join([*wild[:kept], "#"]) if data.draw(st.booleans()) else "/".join(wild)
    loses_first = topic.startswith("$") and topic_filter[0:1] in ("+", "#")
    assert match(topic_filter, topic) == (not loses_first)


@quick
@given(text=SOUP | SOUP.map("$share/".__add__) | texts | filters())
def test_filters_against_their_grammar(text: str) -> None:
    assert reason_code(check_topic_filter, text) == (None if _FILTER.fullmatch(text) else 0x8F)


@quick
@given(text=SOUP | texts | TOPICS)
def test_names_against_their_grammar(text: str) -> None:
    assert reason_code(check_topic_name, text) == (None if _NAME.fullmatch(text) else 0x90)


@quick
@given(name=st.text("ag$ é", min_size=1, max_size=4), rest=filters())
def test_a_share_splits_into_what_it_was_made_of(name: str, rest: str) -> None:
    shared = f"$share/{name}/{rest}"
    check_topic_filter(shared)
    assert split_share(shared) == (name, rest)
    assert split_share(rest) == ("", rest)


@quick
@given(names=st.lists(TOPICS | SOUP | texts, max_size=30), capacity=st.integers(1, 4))
def test_the_cache_answers_as_the_check_does(names: list[str], capacity: int) -> None:
    """However small it is, and however often a name comes again."""
    topics = TopicCache(capacity)
    for name in names:
        try:
            assert topics.name(name.encode()) == name
        except MqttError:
            assert _NAME.fullmatch(name) is None
        else:
            assert _NAME.fullmatch(name) is not None
        assert len(topics.names) <= capacity
        assert all(raw.decode() == topic for raw, topic in topics.names.items())
