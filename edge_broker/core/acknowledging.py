"""Acknowledgements that wait: each leaves when its message is safe, and none before one that came earlier [4.6].

Serves whoever receives at QoS > 0: a client's connection, and a bridge's downlink.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable

from edge_broker.core.message import Message


class HeldAcknowledgements:
    """The messages received and not acknowledged yet, in order. `acknowledge` is called for each one, in that order."""

    __slots__ = ("_acknowledge", "_held")

    def __init__(self, acknowledge: Callable[[Message], None]) -> None:
        self._acknowledge = acknowledge
        self._held: deque[Message] = deque()

    def __len__(self) -> int:
        return len(self._held)

    def __contains__(self, packet_id: object) -> bool:
        """Whether a QoS 2 message with this packet identifier waits for its PUBREC."""
        return any(message.qos == 2 and message.packet_id == packet_id for message in self._held)

    def call(self, acknowledge: Callable[[Message], None]) -> None:
        """Call `acknowledge` from now on."""
        self._acknowledge = acknowledge

    def hold(self, message: Message) -> None:
        """Acknowledge `message` later, after what came before it."""
        self._held.append(message)
        message.publisher = self

    def on_safe(self, message: Message) -> None:
        """Acknowledge what is safe now, up to the first message that is not."""
        held = self._held
        while held and not held[0].unsafe:
            first = held.popleft()
            first.publisher = None
            self._acknowledge(first)
