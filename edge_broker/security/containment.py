"""Topic filters against topic filters: whether one lies wholly inside others, and whether two have a topic in common.

Both answers are exact, for checked filters without `$share`. Level names are without end, so a filter is represented by a
few topics: a name that stands in no filter takes the place of each `+`, and of `#` come as many such levels as tell the
filters apart. `a/#` lies inside `a` and `a/+/#` together, though in neither alone.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

from edge_broker.wire.topics import match

_ANY_NAME: Final = "\0"
"""A level name that no filter and no topic has: what matches it, matches every name."""


def is_inside(topic_filter: str, others: Sequence[str]) -> bool:
    """Whether every topic that `topic_filter` matches is matched by one of `others`."""
    return all(
        any(match(other, topic) for other in others) for topic in _representatives(topic_filter, others)
    )


def _representatives(topic_filter: str, others: Sequence[str]) -> list[str]:
    """Topics of `topic_filter` that are matched by as many of `others` as any of its topics is at least."""
    levels = [_ANY_NAME if level == "+" else level for level in topic_filter.split("/")]
    if levels[-1] != "#":
        return ["/".join(levels)]
    del levels[-1]
    deepest = max((other.count("/") + 1 for other in others), default=0)
    shortest = max(len(levels), 1)  # "a/#" matches "a" too [4.7.1.2], "#" no topic without a level
    if levels == [""]:
        shortest = 2  # what "/#" would match too is no topic: an empty one [MQTT-4.7.3-1]
    longest = max(shortest, deepest) + 1  # one level more than any of them names
    return [
        "/".join(levels + [_ANY_NAME] * (length - len(levels))) for length in range(shortest, longest + 1)
    ]


def overlap(one: str, other: str) -> bool:
    """Whether a topic exists that both filters match."""
    if (one[:1] == "$" and other[:1] in ("+", "#")) or (other[:1] == "$" and one[:1] in ("+", "#")):
        return False  # [MQTT-4.7.2-1]
    first, second = one.split("/"), other.split("/")
    for mine, its in zip(first, second, strict=False):
        if "#" in (mine, its):
            return True
        if mine != its and "+" not in (mine, its):
            return False
    shared = min(len(first), len(second))
    rest = first[shared:] or second[shared:]
    if shared == 1 and "" in (first[0], second[0]):
        return False  # "/#" and "+" would have only the empty topic in common, which is none [MQTT-4.7.3-1]
    return not rest or rest == ["#"]
