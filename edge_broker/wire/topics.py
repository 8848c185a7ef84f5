"""Topic names and topic filters: what may be one, and what matches what [MQTT 5 section 4.7].

`match` is the naive statement of the rule, for tests and cold paths; the broker's own matching is `core.trie`.
"""

from __future__ import annotations

from typing import Final

from edge_broker.errors import MalformedPacket, MqttError
from edge_broker.wire.const import TOPIC_FILTER_INVALID, TOPIC_NAME_INVALID

MAX_TOPIC_BYTES: Final = 65535
SHARE_PREFIX: Final = "$share/"
SYSTEM_PREFIX: Final = "$SYS/"
DEAD_LETTERS_PREFIX: Final = "$dead-letters/"
DELAYED_PREFIX: Final = "$delayed/"
_OWN_PREFIXES: Final = (SYSTEM_PREFIX, DEAD_LETTERS_PREFIX)
_OWN_ROOTS: Final = tuple(prefix[:-1] for prefix in _OWN_PREFIXES)


def decode_utf8(raw: bytes) -> str:
    """An MQTT UTF-8 encoded string's bytes as `str`; `MalformedPacket` where they are none [MQTT-1.5.4-1, -2]."""
    try:
        text = raw.decode("utf-8")
    except UnicodeDecodeError as error:
        raise MalformedPacket(f"a string that is not UTF-8: {error.reason}") from None
    if "\0" in text:
        raise MalformedPacket("a string with U+0000")
    return text


def is_own(topic: str) -> bool:
    """Whether only the broker publishes to `topic`: one that a subscription to `$SYS/#` or `$dead-letters/#` gets."""
    return topic.startswith(_OWN_PREFIXES) or topic in _OWN_ROOTS


def check_topic_name(topic: str) -> None:
    """Refuse what may not be published to: an empty name or one with a wildcard [MQTT-4.7.3-1, MQTT-3.3.2-2]."""
    if not topic:
        raise MqttError(TOPIC_NAME_INVALID, "an empty topic name")
    if "+" in topic or "#" in topic:
        raise MqttError(TOPIC_NAME_INVALID, "a wildcard in a topic name")
    if "\0" in topic:
        raise MqttError(TOPIC_NAME_INVALID, "U+0000 in a topic name")


def check_topic_filter(topic_filter: str) -> None:
    """Refuse what may not be subscribed to [MQTT-4.7.1-1, -2, MQTT-4.8.2-1, -2]; `$share` filters whole."""
    if topic_filter.startswith(SHARE_PREFIX):
        share_name, separator, rest = topic_filter[len(SHARE_PREFIX) :].partition("/")
        if not share_name or not separator:
            raise MqttError(TOPIC_FILTER_INVALID, "a shared subscription without a name or a filter")
        if "+" in share_name or "#" in share_name:
            raise MqttError(TOPIC_FILTER_INVALID, "a wildcard in a share name")
        if "\0" in share_name:
            raise MqttError(TOPIC_FILTER_INVALID, "U+0000 in a share name")
        topic_filter = rest
    if not topic_filter:
        raise MqttError(TOPIC_FILTER_INVALID, "an empty topic filter")
    if "\0" in topic_filter:
        raise MqttError(TOPIC_FILTER_INVALID, "U+0000 in a topic filter")
    if "+" not in topic_filter and "#" not in topic_filter:
        return
    levels = topic_filter.split("/")
    for position, level in enumerate(levels):
        if "#" in level and (level != "#" or position != len(levels) - 1):
            raise MqttError(TOPIC_FILTER_INVALID, "'#' must be the whole last level")
        if "+" in level and level != "+":
            raise MqttError(TOPIC_FILTER_INVALID, "'+' must be a whole level")


def split_share(topic_filter: str) -> tuple[str, str]:
    """`$share/NAME/FILTER` as (NAME, FILTER), any other filter as ("", filter). The filter must have been checked."""
    if not topic_filter.startswith(SHARE_PREFIX):
        return "", topic_filter
    share_name, _, rest = topic_filter[len(SHARE_PREFIX) :].partition("/")
    return share_name, rest


def match(topic_filter: str, topic: str) -> bool:
    """Whether a checked filter (no `$share`) matches a checked topic name."""
    if topic[:1] == "$" and topic_filter[:1] in ("+", "#"):  # [MQTT-4.7.2-1]
        return False
    wanted, have = topic_filter.split("/"), topic.split("/")
    for position, level in enumerate(wanted):
        if level == "#":
            return True
        if position >= len(have) or (level != "+" and level != have[position]):
            return False
    return len(wanted) == len(have)


Likeness = tuple[bytes, int, str, int, int, int, bool]
"""What PUBLISH packets share that begin alike: that beginning, size in bytes, topic, offsets of packet identifier and
payload in the frame, QoS, retain flag. A plain tuple is taken apart in half the time of a named one."""


class TopicCache:
    """What was decoded before, shared by all connections: sensors publish to the same topics again and again.

    `names`: checked topic names by their bytes. `likenesses`: for plain PUBLISH packets, by protocol form (3.x, 5) and
    by all that stands before the packet identifier; a packet that begins with the same bytes needs no second check.
    Both hold at most `capacity` entries; when full they start over, which costs each entry one more check. Longer ones
    than `LONGEST_BYTES` are checked each time, so that no client fills the memory with names of 64 KB.
    """

    LONGEST_BYTES: Final = 256

    __slots__ = ("_capacity", "likenesses", "names")

    def __init__(self, capacity: int = 10_000) -> None:
        self._capacity = capacity
        self.names: dict[bytes, str] = {}  # read by the decoder directly; written by `name` only
        self.likenesses: tuple[dict[bytes, Likeness], dict[bytes, Likeness]] = ({}, {})

    def name(self, raw: bytes) -> str:
        """The topic name that `raw` encodes; raises `MqttError` for what is no valid name."""
        names = self.names
        topic = names.get(raw)
        if topic is None:
            topic = decode_utf8(raw)
            check_topic_name(topic)
            if len(raw) <= self.LONGEST_BYTES:
                if len(names) >= self._capacity:
                    names.clear()
                names[raw] = topic
        return topic

    def remember(self, likenesses: dict[bytes, Likeness], likeness: Likeness) -> None:
        """A plain PUBLISH like that was found to be sound; `likenesses` as bounded as the shared ones."""
        head = likeness[0]
        if len(head) <= self.LONGEST_BYTES:
            if len(likenesses) >= self._capacity:
                likenesses.clear()
            likenesses[head] = likeness
