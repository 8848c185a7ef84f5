"""How many subscriptions there are, over all sessions: so that many sessions with many filters do not fill the memory.

What a subscription takes is estimated from its filter, as if it shared no level with another one: measured are 600 bytes
for one level and 250 for each further one (CPython 3.11).
"""

from __future__ import annotations

from typing import Final

from edge_broker.core.settings import Settings

_OF_ITSELF: Final = 350
_OF_A_LEVEL: Final = 250


class Subscribed:
    """`count` and `size_bytes` of all; what is added and removed is told one by one."""

    __slots__ = ("_of_identity", "count", "size_bytes")

    def __init__(self) -> None:
        self.count = self.size_bytes = 0
        self._of_identity: dict[str, int] = {}

    def add(self, identity: str, topic_filter: str) -> None:
        """`identity` has one more."""
        self.count += 1
        self.size_bytes += size_of(topic_filter)
        self._of_identity[identity] = self._of_identity.get(identity, 0) + 1

    def remove(self, identity: str, topic_filter: str) -> None:
        """`identity` has one less."""
        self.count -= 1
        self.size_bytes -= size_of(topic_filter)
        left = self._of_identity[identity] - 1
        if left:
            self._of_identity[identity] = left
        else:
            del self._of_identity[identity]

    def has_room(self, identity: str, topic_filter: str, settings: Settings) -> bool:
        """Whether `identity` may have one more; 0 is no limit."""
        if 0 < settings.max_subscriptions <= self.count:
            return False
        if 0 < settings.max_subscriptions_per_identity <= self._of_identity.get(identity, 0):
            return False
        most_bytes = settings.max_subscription_bytes
        return not most_bytes or self.size_bytes + size_of(topic_filter) <= most_bytes


def size_of(topic_filter: str) -> int:
    """What a subscription takes, in bytes, about."""
    return _OF_ITSELF + _OF_A_LEVEL * (1 + topic_filter.count("/")) + len(topic_filter.encode())
