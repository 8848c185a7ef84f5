"""Topic names and topic filters: what may be one, and what matches what [MQTT 5 section 4.7].

`match` is the naive statement of the rule, for tests and cold paths; the broker's own matching is `core.trie`.
"""

from __future__ import annotations

from typing import Final

from edge_broker.errors import MalformedPacket, MqttError
from edge_broker.wire.const import TOPIC_FILTER_INVALID, TOPIC_NAME_INVALID

MAX_TOPIC_BYTES: Final = 65535
SHARE_PREFIX: Final = "$share/"


def decode_utf8(raw: bytes) -> str:
    """An MQTT UTF-8 encoded string's bytes as `str`; `MalformedPacket` where they are none [MQTT-1.5.4-1, -2]."""
    try:
        text = raw.decode("utf-8")
    except UnicodeDecodeError as error:
        raise MalformedPacket(f"a string that is not UTF-8: {error.reason}") from None
    if "\0" in text:
        raise MalformedPacket("a string with U+0000")
    return text


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


class TopicCache:
    """Topic names already checked, by their bytes: a gateway's sensors publish to the same topics again and again.

    Holds at most `capacity` names; when full it starts over, which costs each name one more check. A name of more than
    `LONGEST_BYTES` is checked each time, so that no client fills the memory with names of 64 KB.
    """

    LONGEST_BYTES: Final = 256

    __slots__ = ("_capacity", "names")

    def __init__(self, capacity: int = 10_000) -> None:
        self._capacity = capacity
        self.names: dict[bytes, str] = {}  # read by the decoder directly; written by `name` only

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
