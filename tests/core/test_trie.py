"""The tries, where a random test would seldom look; against the naive rule they are held in `properties/test_trie.py`."""

from __future__ import annotations

from edge_broker.core.trie import FilterTrie, TopicTree


def test_one_value_for_each_key_under_a_filter() -> None:
    trie: FilterTrie[str] = FilterTrie()
    trie.add("a/+", 1, "first")
    trie.add("a/+", 1, "second")
    trie.add("a/+", 2, "third")
    assert sorted(trie.match("a/b")) == ["second", "third"]
    assert len(trie) == 2
    assert trie.remove("a/+", 1)
    assert not trie.remove("a/+", 1)
    assert not trie.remove("a/b", 2)
    assert not trie.remove("x/y/z", 2)
    assert trie.match("a/b") == ["third"]


def test_removing_leaves_nothing_behind() -> None:
    trie: FilterTrie[int] = FilterTrie()
    filters = ["a/b/c", "a/+/c", "a/#", "#", "+", "a", "/", "a/b/c/d/e"]
    for topic_filter in filters:
        trie.add(topic_filter, "key", 1)
    for topic_filter in filters:
        assert trie.remove(topic_filter, "key")
    assert len(trie) == 0
    assert trie._root.empty


def test_a_falsy_value_is_a_value() -> None:
    trie: FilterTrie[int] = FilterTrie()
    trie.add("a", "key", 0)
    assert trie.match("a") == [0]
    assert trie.remove("a", "key")
    assert len(trie) == 0


def test_a_topic_of_very_many_levels() -> None:
    trie: FilterTrie[int] = FilterTrie()
    tree: TopicTree[int] = TopicTree()
    topic = "/" * 20_000
    trie.add("#", "key", 1)
    trie.add(topic, "key", 2)
    tree.set(topic, 3)
    assert sorted(trie.match(topic)) == [1, 2]
    assert tree.match("#") == tree.match("/#") == tree.match(topic) == [3]
    assert tree.remove(topic) == 3
    assert not tree._root.below


def test_a_retained_topic_above_another() -> None:
    tree: TopicTree[str] = TopicTree()
    tree.set("a/b/c", "low")
    tree.set("a", "high")
    assert tree.remove("a") == "high"
    assert tree.match("a/#") == ["low"]
    tree.set("a", "again")
    assert tree.remove("a/b/c") == "low"
    assert tree.match("#") == ["again"]
    assert tree.remove("a/b/c") is None
    assert tree.get("a") == "again"
    assert tree.get("a/b") is None
