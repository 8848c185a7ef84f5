"""The tries against the naive rule: whatever was added and removed, they match what `wire.topics.match` says."""

from __future__ import annotations

from hypothesis import given, settings
from hypothesis import strategies as st

from edge_broker.core.trie import FilterTrie, TopicTree
from edge_broker.wire.topics import match

LEVELS = st.sampled_from(("", "a", "b", "$a", "c d", "é"))
TOPICS = st.lists(LEVELS, min_size=1, max_size=4).map("/".join).filter(bool)
many = settings(max_examples=150, deadline=None)


@st.composite
def filters(draw: st.DrawFn) -> str:
    levels = draw(st.lists(LEVELS | st.just("+"), max_size=4))
    if not levels or draw(st.booleans()):
        levels.append("#")
    return "/".join(levels) or "+"


CHANGES = st.lists(st.tuples(st.booleans(), filters(), st.integers(0, 2)), max_size=30)
"""(added or removed, filter, key)"""


@many
@given(CHANGES, st.lists(TOPICS, max_size=8))
def test_filters_match_as_the_rule_says(changes: list[tuple[bool, str, int]], topics: list[str]) -> None:
    trie: FilterTrie[tuple[str, int]] = FilterTrie()
    standing: set[tuple[str, int]] = set()
    for added, topic_filter, key in changes:
        pair = (topic_filter, key)
        if added:
            trie.add(topic_filter, key, pair)
            standing.add(pair)
        else:
            assert trie.remove(topic_filter, key) == (pair in standing)
            standing.discard(pair)
        assert len(trie) == len(standing)
    for topic in topics:
        found = trie.match(topic)
        assert len(found) == len(set(found))
        assert set(found) == {pair for pair in standing if match(pair[0], topic)}
    for topic_filter, key in standing:
        assert trie.remove(topic_filter, key)
    assert trie._root.empty


@many
@given(st.lists(st.tuples(st.booleans(), TOPICS), max_size=30), st.lists(filters() | TOPICS, max_size=8))
def test_topics_are_found_as_the_rule_says(changes: list[tuple[bool, str]], topic_filters: list[str]) -> None:
    tree: TopicTree[str] = TopicTree()
    standing: set[str] = set()
    for added, topic in changes:
        if added:
            tree.set(topic, topic)
            standing.add(topic)
        else:
            assert tree.remove(topic) == (topic if topic in standing else None)
            standing.discard(topic)
    assert set(tree) == standing
    assert len(tree) == len(standing)
    for topic_filter in topic_filters:
        found = tree.match(topic_filter)
        assert len(found) == len(set(found))
        assert set(found) == {topic for topic in standing if match(topic_filter, topic)}
    for topic in standing:
        tree.remove(topic)
    assert not tree._root.below
