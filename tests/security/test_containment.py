"""Filters against filters, by example and against all topics of a small alphabet."""

from __future__ import annotations

from functools import cache
from itertools import product

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from edge_broker.security.containment import is_inside, overlap
from edge_broker.wire.topics import match

_NAMES = ("a", "b", "", "$s", "other")
"""`other` stands in no filter, as most names of the world."""
_DEEPEST = 5


@cache
def topics() -> tuple[str, ...]:
    """All topics of up to `_DEEPEST` levels: filters have one level less, so nothing is hidden below."""
    return tuple(
        "/".join(levels)
        for length in range(1, _DEEPEST + 1)
        for levels in product(_NAMES, repeat=length)
        if levels != ("",)
    )


@cache
def matched(topic_filter: str) -> frozenset[str]:
    return frozenset(topic for topic in topics() if match(topic_filter, topic))


@st.composite
def filters(draw: st.DrawFn) -> str:
    levels = draw(st.lists(st.sampled_from(("a", "b", "", "$s", "+", "+")), min_size=0, max_size=3))
    if draw(st.booleans()) or not levels or levels == [""]:
        levels.append("#")
    return "/".join(levels)


def test_every_pair_of_short_filters() -> None:
    """Without luck: all filters of up to three levels, and a `#` behind them, over one name, none and one of `$`."""
    levels = [item for length in range(4) for item in product(("a", "", "$s", "+"), repeat=length)]
    every = {"/".join((*item, *end)) for item in levels for end in ((), ("#",))} - {""}
    assert len(every) > 160
    for one, other in product(every, repeat=2):
        assert overlap(one, other) == bool(matched(one) & matched(other)), (one, other)
        assert is_inside(one, [other]) == (matched(one) <= matched(other)), (one, other)


@settings(max_examples=400, deadline=None)
@given(filters(), st.lists(filters(), max_size=4))
def test_inside_is_what_it_says(wanted: str, allowed: list[str]) -> None:
    covered = frozenset().union(*map(matched, allowed))
    assert is_inside(wanted, allowed) == (matched(wanted) <= covered)


@settings(max_examples=400, deadline=None)
@given(filters(), filters())
def test_an_overlap_is_what_it_says(one: str, other: str) -> None:
    assert overlap(one, other) == bool(matched(one) & matched(other)) == overlap(other, one)


@pytest.mark.parametrize(
    ("wanted", "allowed", "answer"),
    [
        ("a/b", ["a/+"], True),
        ("a/+", ["a/b"], False),
        ("a/#", ["a/+"], False),
        ("a/#", ["a", "a/+/#"], True),
        ("a/#", ["a/+/#"], False),
        ("a/#", ["a", "a/+", "a/+/+/#"], True),
        ("#", ["+/#"], True),
        ("#", ["+", "+/+/#"], True),
        ("#", ["+", "/#"], False),
        ("+/#", ["#"], True),
        ("$SYS/#", ["#"], False),
        ("$SYS/#", ["+/#", "$SYS/#"], True),
        ("$SYS/broker/+", ["$SYS/#"], True),
        ("#", ["#", "$SYS/#"], True),
        ("/#", ["/+/#"], True),
        ("/#", ["+/+/#"], True),
        ("/#", ["/+"], False),
        ("a/b", [], False),
        ("#", [], False),
    ],
)
def test_inside(wanted: str, allowed: list[str], answer: bool) -> None:
    assert is_inside(wanted, allowed) is answer


@pytest.mark.parametrize(
    ("one", "other", "answer"),
    [
        ("a/#", "a", True),
        ("a/+", "a", False),
        ("a/+/c", "a/b/+", True),
        ("+/b", "a/+", True),
        ("a/b", "a/c", False),
        ("a/b/#", "a/+", True),
        ("#", "$SYS/x", False),
        ("+/x", "$SYS/x", False),
        ("$SYS/#", "$SYS/+", True),
        ("a", "a/b/#", False),
        ("/a", "+/a", True),
        ("/#", "+", False),
        ("/#", "#", True),
        ("/#", "+/#", True),
        ("/+", "+/#", True),
    ],
)
def test_overlap(one: str, other: str, answer: bool) -> None:
    assert overlap(one, other) is answer
    assert overlap(other, one) is answer
