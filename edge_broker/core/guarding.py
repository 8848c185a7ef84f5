"""What a message must pass beyond its form, where the configuration asks for it: how fast it may come, what it may be."""

from __future__ import annotations

from edge_broker.core.message import Message
from edge_broker.core.settings import Settings
from edge_broker.wire import const


class Allowance:
    """How much one client may still publish in this second; a limit of 0 is none. A message larger than that is a debt."""

    __slots__ = ("_bytes", "_bytes_per_second", "_messages", "_messages_per_second")

    def __init__(self, settings: Settings) -> None:
        self._messages = self._messages_per_second = settings.max_publishes_per_second
        self._bytes = self._bytes_per_second = settings.max_publish_bytes_per_second

    @property
    def is_spent(self) -> bool:
        """Whether nothing more may come in this second."""
        return (self._messages_per_second > 0 and self._messages <= 0) or (
            self._bytes_per_second > 0 and self._bytes <= 0
        )

    def spend(self, size_bytes: int) -> bool:
        """Take one message off; True if it was the last one for now."""
        self._messages -= 1
        self._bytes -= size_bytes
        return self.is_spent

    def renew(self) -> bool:
        """Another second has begun; True if more may come now, and could not before."""
        was_spent = self.is_spent
        self._messages = min(self._messages, 0) + self._messages_per_second
        self._bytes = min(self._bytes, 0) + self._bytes_per_second
        return was_spent and not self.is_spent


def is_as_its_format_says(message: Message) -> bool:
    """Whether the payload is UTF-8 where the payload format indicator says so [3.3.2.3.2]."""
    if len(message.property_block) == 1 or not message.properties.get(const.PAYLOAD_FORMAT_INDICATOR):
        return True
    try:
        message.payload.decode("utf-8")
    except UnicodeDecodeError:
        return False
    return True
