"""Topic aliases that we give to one client: a number in place of a topic that it gets again and again [3.3.2.3.4].

The client says how many it takes. A topic gets an alias when it comes a second time; once all are given away, one that
comes a second time takes the alias of the topic that was not sent for longest. What was seen once is remembered for as
many topics as there are aliases, so a stream of topics that never return takes none away.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Final

_SHORTEST_BYTES: Final = 4
"""An alias takes three bytes of its own."""


class TopicAliases:
    """`maximum` aliases at most, more than 0."""

    __slots__ = ("_aliases", "_free", "_maximum", "_seen_once")

    def __init__(self, maximum: int) -> None:
        self._maximum = maximum
        self._aliases: dict[str, int] = {}  # the topic sent last is the last
        self._free: list[int] = []  # given back
        self._seen_once: dict[str, None] = {}

    def take(self, topic: str) -> tuple[int, bool] | None:
        """How `topic` goes out: (alias, whether the client knows it already), or None for the topic alone."""
        aliases = self._aliases
        alias = aliases.pop(topic, 0)
        if alias:
            aliases[topic] = alias
            return alias, True
        if len(topic) < _SHORTEST_BYTES:
            return None
        seen_once = self._seen_once
        if topic not in seen_once:
            seen_once[topic] = None
            if len(seen_once) > self._maximum:
                del seen_once[_first(seen_once)]
            return None
        del seen_once[topic]
        if self._free:
            alias = self._free.pop()
        elif len(aliases) < self._maximum:
            alias = len(aliases) + 1
        else:
            alias = aliases.pop(_first(aliases))
        aliases[topic] = alias
        return alias, False

    def give_back(self, topic: str) -> None:
        """The packet that was to tell the client of the alias of `topic` is not sent: nobody has it."""
        self._free.append(self._aliases.pop(topic))


def _first(topics: Iterable[str]) -> str:
    return next(iter(topics))
