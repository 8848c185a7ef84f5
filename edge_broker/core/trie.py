"""A trie of topic filters: which values stand under filters that match a topic, in time that depends on the topic's levels.

Each filter holds a dict of values by key, so that one subscriber has one value per filter. Empty branches are removed.
The reverse question, which topics match a filter, is `TopicTree`'s.
"""

from __future__ import annotations

from collections.abc import Hashable, Iterator
from typing import Generic, TypeVar

Value = TypeVar("Value")


class _Node(Generic[Value]):
    """One level: the values of filters that end here, of those that end in ``#`` here, and what lies below."""

    __slots__ = ("below", "hash_values", "plus", "values")

    def __init__(self) -> None:
        self.below: dict[str, _Node[Value]] = {}
        self.plus: _Node[Value] | None = None
        self.values: dict[Hashable, Value] | None = None
        self.hash_values: dict[Hashable, Value] | None = None

    @property
    def empty(self) -> bool:
        return not (self.below or self.plus or self.values or self.hash_values)


class FilterTrie(Generic[Value]):
    """Topic filters (checked, without ``$share``) to values."""

    __slots__ = ("_count", "_root")

    def __init__(self) -> None:
        self._root: _Node[Value] = _Node()
        self._count = 0

    def __len__(self) -> int:
        return self._count

    def add(self, topic_filter: str, key: Hashable, value: Value) -> None:
        """Set the value of `key` under `topic_filter`."""
        node = self._root
        levels = topic_filter.split("/")
        ends_in_hash = levels[-1] == "#"
        for level in levels[:-1] if ends_in_hash else levels:
            if level == "+":
                if node.plus is None:
                    node.plus = _Node()
                node = node.plus
            else:
                node = node.below.setdefault(level, _Node())
        if ends_in_hash:
            values = node.hash_values = {} if node.hash_values is None else node.hash_values
        else:
            values = node.values = {} if node.values is None else node.values
        self._count += key not in values
        values[key] = value

    def remove(self, topic_filter: str, key: Hashable) -> bool:
        """Take the value of `key` from under `topic_filter`; False if there was none."""
        levels = topic_filter.split("/")
        path: list[tuple[_Node[Value], str]] = []
        node: _Node[Value] | None = self._root
        ends_in_hash = levels[-1] == "#"
        for level in levels[:-1] if ends_in_hash else levels:
            assert node is not None
            path.append((node, level))
            node = node.plus if level == "+" else node.below.get(level)
            if node is None:
                return False
        assert node is not None
        values = node.hash_values if ends_in_hash else node.values
        if values is None or values.pop(key, None) is None:
            return False
        self._count -= 1
        for parent, level in reversed(path):
            child = parent.plus if level == "+" else parent.below[level]
            if child is None or not child.empty:
                break
            if level == "+":
                parent.plus = None
            else:
                del parent.below[level]
        return True

    def match(self, topic: str) -> list[Value]:
        """The values of all filters that match `topic`, in no particular order."""
        found: list[Value] = []
        nodes = [self._root]
        wildcards = topic[:1] != "$"  # [MQTT-4.7.2-1]
        for level in topic.split("/"):
            below = []
            for node in nodes:
                if wildcards:
                    if node.hash_values:
                        found.extend(node.hash_values.values())
                    if node.plus is not None:
                        below.append(node.plus)
                child = node.below.get(level)
                if child is not None:
                    below.append(child)
            if not below:
                return found
            nodes = below
            wildcards = True
        for node in nodes:
            if node.values:
                found.extend(node.values.values())
            if node.hash_values:  # "sport/#" also matches "sport" [4.7.1.2]
                found.extend(node.hash_values.values())
        return found


class TopicTree(Generic[Value]):
    """Topic names to values, asked by filter: the retained messages."""

    __slots__ = ("_root", "_values")

    def __init__(self) -> None:
        self._root: _Node[Value] = _Node()
        self._values: dict[str, Value] = {}

    def __len__(self) -> int:
        return len(self._values)

    def __iter__(self) -> Iterator[Value]:
        return iter(self._values.values())

    def get(self, topic: str) -> Value | None:
        """The value of exactly this topic."""
        return self._values.get(topic)

    def set(self, topic: str, value: Value) -> None:
        """Set the value of `topic`."""
        if topic not in self._values:
            node = self._root
            for level in topic.split("/"):
                node = node.below.setdefault(level, _Node())
            node.values = {}
        self._values[topic] = value

    def remove(self, topic: str) -> Value | None:
        """Take the value of `topic` out and return it."""
        value = self._values.pop(topic, None)
        if value is None:
            return None
        path = []
        node = self._root
        for level in topic.split("/"):
            path.append((node, level))
            node = node.below[level]
        node.values = None
        for parent, level in reversed(path):
            child = parent.below[level]
            if child.below or child.values is not None:
                break
            del parent.below[level]
        return value

    def match(self, topic_filter: str) -> list[Value]:
        """The values of all topics that `topic_filter` (checked, without ``$share``) matches."""
        if "+" not in topic_filter and "#" not in topic_filter:
            value = self._values.get(topic_filter)
            return [] if value is None else [value]
        paths: list[tuple[str, _Node[Value]]] = [("", self._root)]
        for depth, level in enumerate(topic_filter.split("/")):
            if level == "#":
                topics = [topic for prefix, node in paths for topic in _topics_from(prefix, node, depth == 0)]
                return [self._values[topic] for topic in topics]
            paths = _descend(paths, level, depth == 0)
        return [self._values[topic] for topic, node in paths if node.values is not None]


def _descend(
    paths: list[tuple[str, _Node[Value]]], level: str, at_root: bool
) -> list[tuple[str, _Node[Value]]]:
    """One level down every path: by name, or for ``+`` to all, except into ``$`` topics at the root."""
    found = []
    for prefix, node in paths:
        if level == "+":
            children = [(name, child) for name, child in node.below.items() if not at_root or name[:1] != "$"]
        else:
            child = node.below.get(level)
            children = [] if child is None else [(level, child)]
        found += [(name if at_root else f"{prefix}/{name}", child) for name, child in children]
    return found


def _topics_from(prefix: str, node: _Node[Value], at_root: bool) -> list[str]:
    """Every topic at or below `node`, whose own name is `prefix`."""
    topics = []
    stack = [(prefix, node, at_root)]
    while stack:
        name, here, root = stack.pop()
        if here.values is not None and not root:
            topics.append(name)
        stack += [
            (level if root else f"{name}/{level}", child, False)
            for level, child in here.below.items()
            if not root or level[:1] != "$"
        ]
    return topics
