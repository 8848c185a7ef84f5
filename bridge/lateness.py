"""Which messages waited upstream while the bridge was away, and what is written on them.

MQTT does not say when a message was published. But an upstream sends what waits in a session as soon as the client is back,
and answers what the client asks in order: so what comes before the PINGRESP to a PINGREQ sent right after CONNACK has
waited. More may wait than an upstream sends at once. So when all of that is acknowledged another PINGREQ follows, until
fewer messages come before its answer than an upstream has shown to send at once; then nothing waits any more. It takes a
message that came a round trip too early for one that waited, and an upstream that sends what waits later than it answers
goes unnoticed. Bounded: after a minute nothing counts as late any more.

What is retained is no command that comes late: it was published to be read later. What came at QoS 0 has not waited.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Final

from edge_broker.core.client import Client
from edge_broker.core.message import Message
from edge_broker.wire import const
from edge_broker.wire.properties import decode_varint, encode_properties, encode_varint

NAME: Final = "edge-late"
UNKNOWN: Final = "unknown"
"""Its value where it is not known for how long the bridge was away: after a start of the broker."""

_LONGEST_SECONDS: Final = 60.0
_MARK: Final = NAME.encode()


class Arrears:
    """What waited in one session, from the connection on. `absent_seconds`: since the last one ended, None after a start.

    `all_answered()`: whether all that came is acknowledged. `is_over`: nothing of what waited comes any more.
    """

    def __init__(
        self, client: Client, absent_seconds: float | None, all_answered: Callable[[], bool], now: float
    ) -> None:
        self.absent_seconds = absent_seconds
        self.is_over = False
        self._client = client
        self._all_answered = all_answered
        self._until = now + _LONGEST_SECONDS
        self._most = 0  # messages that came before the answer to a PINGREQ
        self._came = 0  # since the last one was sent
        self._is_asking = True
        client.on_pong = self._on_pong
        self._ping_number = client.ping(now)

    def takes(self, message: Message, now: float) -> bool:
        """Whether `message`, which came now, has waited."""
        if self.is_over or not message.qos:
            return False
        if now > self._until:
            self._end()
            return False
        self._came += 1
        return not message.retain

    def _on_pong(self) -> None:
        if not self._is_asking or self._client.pongs < self._ping_number:
            return
        if self._came == 0 or self._came < self._most:
            self._end()
            return
        self._most = self._came
        self._is_asking = False
        self.go_on(self._client.last_received_at)

    def go_on(self, now: float) -> None:
        """Something that came may have been acknowledged: once all is, the upstream has room for more of what waits."""
        if not self._is_asking and not self.is_over and self._all_answered():
            self._is_asking = True
            self._came = 0
            self._ping_number = self._client.ping(now)

    def _end(self) -> None:
        self.is_over = True
        self._client.on_pong = None

    def is_longer_than(self, seconds: float) -> bool:
        """Whether the bridge was away for so long, as far as that is known."""
        return self.absent_seconds is None or self.absent_seconds >= seconds

    @property
    def mark(self) -> str:
        """What is written on such a message: for how many seconds the bridge was away."""
        return UNKNOWN if self.absent_seconds is None else str(math.ceil(self.absent_seconds))


def with_mark(block: bytes, mark: str) -> bytes:
    """The property block with `mark` in it; as it is where an earlier bridge has marked the message."""
    if _MARK in block:
        return block
    own = encode_properties({const.USER_PROPERTY: [(NAME, mark)]})
    _, own_at = decode_varint(own, 0, len(own))
    _, at = decode_varint(block, 0, len(block))
    body = block[at:] + own[own_at:]
    return encode_varint(len(body)) + body
