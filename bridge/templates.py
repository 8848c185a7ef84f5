"""A topic taken apart by one template and put together by another: what a rule's `from` and `to` say.

`site/+room/+sensor` is a topic filter whose wildcards may have names: `+room` is one level, `#rest`, which can only come
last, all that follow. `plants/7/{room}/{sensor}` is a topic with these in it, anywhere. `{gateway}` stands in either for
this gateway's name. A rule that has a filter and prefixes is the same thing with wildcards that need no names. Pure:
no rule's options, no messages.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import Final, NamedTuple

from edge_broker.errors import ConfigError, MqttError
from edge_broker.wire.topics import MAX_TOPIC_BYTES, SHARE_PREFIX, check_topic_filter, match

GATEWAY: Final = "{gateway}"
_NAME: Final = re.compile(r"[A-Za-z_][A-Za-z0-9_]*")
_BRACES: Final = re.compile(r"(\{[^{}]*\})")


class Source(NamedTuple):
    """`from`, taken apart. `captures`: the name of each wildcard in order, "" where it has none."""

    topic_filter: str
    captures: tuple[str, ...]
    has_rest: bool


def parse_source(text: str, key: str) -> Source:
    """`text` as a filter with named wildcards; `ConfigError` for `key` where it is none."""
    plain: list[str] = []
    captures: list[str] = []
    for level in text.split("/"):
        kind, name = level[:1], level[1:]
        if kind not in ("+", "#"):
            plain.append(level)
            continue
        if name and not _NAME.fullmatch(name):
            raise ConfigError(
                key, f"{level!r} is no capture: {name!r} is no name", "a letter, then letters, digits and _"
            )
        if name and (name in captures or f"{{{name}}}" == GATEWAY):
            problem = "is the gateway's own name" if f"{{{name}}}" == GATEWAY else "is captured twice"
            raise ConfigError(key, f"{name!r} {problem}", "give each capture a name of its own")
        captures.append(name)
        plain.append(kind)
    topic_filter = "/".join(plain)
    _check_braces(text, key, (GATEWAY,))
    _check_filter(topic_filter, key)
    return Source(topic_filter, tuple(captures), plain[-1] == "#")


def parse_target(text: str, source: Source, key: str) -> tuple[str | int, ...]:
    """`text` as literals and the places of captures among `source.captures`; `ConfigError` where it is no topic."""
    named = [f"{{{name}}}" for name in source.captures if name]
    _check_braces(text, key, (GATEWAY, *named))
    if "+" in text or "#" in text:
        raise ConfigError(
            key, "may not have wildcards", "name them in from (+room), and write the name here: {room}"
        )
    if not text or "\0" in text:
        raise ConfigError(key, "is no topic", 'for instance to = "plants/7/{room}"')
    for placeholder in named:
        if placeholder not in text:
            name = placeholder[1:-1]
            raise ConfigError(
                key,
                f"does not have {placeholder}, which from captures",
                f"write {placeholder} here, or a plain wildcard there instead of {name!r}",
            )
    pieces: list[str | int] = []
    for piece in _BRACES.split(text):
        if piece in named:
            pieces.append(source.captures.index(piece[1:-1]))
        elif piece:
            pieces.append(piece)
    return tuple(pieces)


def _check_braces(text: str, key: str, known: Sequence[str]) -> None:
    for piece in _BRACES.split(text):
        if _BRACES.fullmatch(piece) and piece not in known:
            raise ConfigError(key, f"{piece} is not captured by from", f"there are {', '.join(known)}")
        if piece not in known and ("{" in piece or "}" in piece):
            raise ConfigError(key, f"{piece!r} has a brace alone", "a placeholder is written {room}")


def _check_filter(topic_filter: str, key: str) -> None:
    if topic_filter.startswith(SHARE_PREFIX):
        raise ConfigError(key, "may not be a shared subscription", "leave $share/… out")
    try:
        check_topic_filter(topic_filter)
    except MqttError as error:
        raise ConfigError(
            key, f"{topic_filter!r} is no filter: {error.detail}", "for instance site/+room/#rest"
        ) from None


def check_filter(text: str, key: str) -> None:
    """Refuse what is no filter, but for `{gateway}` in it."""
    _check_braces(text, key, (GATEWAY,))
    _check_filter(text, key)


def same_filter(prefix: str, other: str, topic_filter: str) -> tuple[Source, tuple[str | int, ...]]:
    """A rule with prefixes as a template and its target: `topic_filter` behind `prefix` on the one side, `other` there."""
    count = sum(level in ("+", "#") for level in (prefix + topic_filter).split("/"))
    source = Source(prefix + topic_filter, ("",) * count, topic_filter.endswith("#"))
    pieces: list[str | int] = []
    place = 0
    for piece in re.split("([+#])", other + topic_filter):
        if piece in ("+", "#"):
            pieces.append(place)
            place += 1
        elif piece:
            pieces.append(piece)
    return source, tuple(pieces)


class Crossing:
    """The way of topics from one side to the other. `source_filter` matches those that take it, `target_filter` at least
    everything that they are called there.

    `before`: characters (as for `str.translate`) that are replaced in what was captured; `after`: in the whole result.
    """

    __slots__ = ("_after", "_before", "_has_rest", "_levels", "_pieces", "source_filter", "target_filter")

    def __init__(
        self,
        source: Source,
        pieces: Sequence[str | int],
        gateway: str,
        before: dict[int, str] | None = None,
        after: dict[int, str] | None = None,
    ) -> None:
        self.source_filter = source.topic_filter.replace(GATEWAY, gateway)
        self._levels = self.source_filter.split("/")
        self._has_rest = source.has_rest
        self._pieces = [
            piece.replace(GATEWAY, gateway) if isinstance(piece, str) else piece for piece in pieces
        ]
        self._before = before or {}
        self._after = after or {}
        self.target_filter = self._cover(len(source.captures) - 1)

    def _cover(self, last: int) -> str:
        """A filter that matches every result."""
        text = "".join(
            piece.translate(self._after)
            if isinstance(piece, str)
            else "\1"
            if self._has_rest and piece == last
            else "\0"
            for piece in self._pieces
        )
        levels: list[str] = []
        for level in text.split("/"):
            if (
                "\1" in level
            ):  # as many levels as there are; of something before it in its level nobody can tell
                return "/".join([*levels, "#"])
            levels.append("+" if "\0" in level else level)
        return "/".join(levels)

    def cross(self, topic: str) -> str | None:
        """What `topic`, which `source_filter` matches, is called on the other side; None where it may not be called so.

        That is where it would be no topic name, or one beginning with `$` where the rule itself names none: nobody reaches
        `$SYS`, or an upstream's `$aws`, by publishing below a prefix.

        Of the parent that `a/#` matches too, `a`, the rest is nothing, and the slash before its place goes with it.
        """
        captured = self._capture(topic)
        name = ""
        for piece in self._pieces:
            if isinstance(piece, str):
                name += piece
            elif captured[piece] is None:
                name = name.removesuffix("/")
            else:
                name += captured[piece] or ""
        name = name.translate(self._after) if self._after else name
        if not name or len(name.encode()) > MAX_TOPIC_BYTES:
            return None
        if name[0] == "$" and self.target_filter[0] != "$":
            return None  # only uncovered by what was taken off; a wildcard does not match it there [MQTT-4.7.2-1]
        return name

    def _capture(self, topic: str) -> list[str | None]:
        captured: list[str | None] = []
        levels = topic.split("/")
        for position, wanted in enumerate(self._levels):
            if wanted == "#":
                rest = levels[position:]
                captured.append("/".join(rest) if rest else None)
            elif wanted == "+":
                captured.append(levels[position])
        if self._before:
            return [None if text is None else text.translate(self._before) for text in captured]
        return captured

    def takes(self, topic: str) -> bool:
        """Whether `topic` goes this way."""
        return match(self.source_filter, topic)


def forward_table(characters: dict[str, str]) -> dict[int, str]:
    """`characters` as `str.translate` wants them."""
    return {ord(character): other for character, other in characters.items()}


def backward_table(characters: dict[str, str]) -> dict[int, str]:
    """The way back, for those that are the only ones to become what they become."""
    targets = list(characters.values())
    return {
        ord(other): character
        for character, other in characters.items()
        if len(other) == 1 and targets.count(other) == 1
    }
