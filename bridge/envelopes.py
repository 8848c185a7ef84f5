"""The envelopes of one queue: what gathers in the next one, which are on their way, and what they saved.

One gathers messages of one lane and epoch until it is full, by count, by bytes or by the room for topics and properties, or
until its first message has waited for the delay. A message goes in one

- while an ingester's lease holds, where envelopes are enabled and its rule does not say no;
- by itself and at once towards MQTT 3.1.1, where its rule says that an ingester listens: origin, trace and properties have
  no other place there;
- never where its packet identifier may be known upstream from a PUBLISH at QoS 2: such a one finishes as it began. After a
  restart that is all that waited, but for what goes by itself: that went so before.

Pure: it sends nothing; `packing` does.
"""

from __future__ import annotations

from typing import Final, Literal, NamedTuple

from bridge.columns import COLUMN_BYTES, Columns
from bridge.envelope import EnvelopeWriter
from bridge.envelopes_config import MOST_BYTES, EnvelopesConfig
from bridge.lease import Lease
from bridge.mapping import RemoteTopic
from bridge.origin import topic_level
from bridge.stamps import Stamp
from edge_broker.core.client import Client
from edge_broker.core.message import Message
from edge_broker.wire import const
from edge_broker.wire.properties import encode_string

Way = Literal["plain", "batched", "alone"]
"""How a message goes."""

_MOST_PACKED_BYTES: Final = 1 << 20
_MOST_ENTRIES: Final = 3_998
"""What an ingester takes by default, see `bridge.envelope.Limits`; a message brings two entries at most."""
_ROOM_FOR_HEADER: Final = 1_024
_LEASE_SECONDS: Final = 1.0
"""How long a new connection waits for the lease: what waits here shall not go plain because that came a moment later."""


class Writers(NamedTuple):
    """For messages that go `together`, with the dictionary where there is one, and for one that goes `alone`.

    Each takes half a megabyte, so the queues of a bridge share them.
    """

    together: EnvelopeWriter
    alone: EnvelopeWriter


class OnItsWay(NamedTuple):
    """An envelope that is sent: the numbers in it, and the bytes of their messages."""

    numbers: list[int]
    size_bytes: int


def topic_of(prefix: str, gateway: str) -> str:
    """Where the envelopes of `gateway` go."""
    return f"{prefix}/{topic_level(gateway)}/envelopes"


class Envelopes:
    """One queue's. `lease` None: only what goes alone.

    Since the start: `sent` envelopes, `messages` in them, `bytes_before` and `bytes_after` packing, `fallen_apart`:
    envelopes whose messages went another way. Of this connection: `on_their_way` by the first number in each,
    `size_bytes` of all of these; `gathering`, empty or not, and when it `closes_at`. `plain_below`: numbers below it
    may be known upstream at QoS 2, from an earlier run; `sent_plain_below` those from this one.
    """

    def __init__(
        self,
        config: EnvelopesConfig,
        gateway: str,
        lane: str,
        epoch: int,
        stamp: Stamp,
        lease: Lease | None,
        writers: Writers,
    ) -> None:
        self.config = config
        self.lease = lease
        self.topic = encode_string(topic_of(config.topic_prefix, gateway))
        self.stamp = stamp
        self.sent = self.messages = self.bytes_before = self.bytes_after = self.fallen_apart = 0
        self.plain_below = self.sent_plain_below = 0
        self._gateway = gateway
        self._lane = lane
        self._epoch = epoch
        self._writers = writers
        self.begin(None, 0.0)

    # ---- the connection

    def begin(self, client: Client | None, now: float) -> None:
        """Another connection, or none: nothing is on its way."""
        self.on_their_way: dict[int, OnItsWay] = {}
        self.size_bytes = 0
        self.gathering_epoch = 0
        self.closes_at = 0.0
        self._begin_gathering()
        self.is_refused = False
        self._decided_at = now + _LEASE_SECONDS
        self.max_bytes = self.config.max_bytes
        self._is_old = client is not None and client.version < const.MQTT_5
        if client is not None and client.max_packet_bytes:
            self.max_bytes = min(self.max_bytes, max(0, client.max_packet_bytes - _ROOM_FOR_HEADER))

    def seconds_undecided(self, now: float) -> float:
        """For how long to wait for the lease; 0 is not at all."""
        if self.lease is None or self.lease.is_decided:
            return 0.0
        return max(0.0, self._decided_at - now)

    def batches(self, now: float) -> bool:
        """Whether envelopes of many messages may go."""
        return self.lease is not None and not self.is_refused and self.lease.holds(now)

    # ---- gathering

    def _begin_gathering(self) -> None:
        self.gathering = Columns()
        self.gathering_bytes = 0
        self._is_closed = False

    def way_of(self, message: Message, number: int, remote: RemoteTopic, batches: bool) -> Way:
        """How `message` goes. `batches`: what `batches` says now."""
        if message.qos == 2 and number < self.sent_plain_below:
            return "plain"
        is_known = message.qos == 2 and number < self.plain_below
        if batches and not is_known and remote.in_envelopes and self._size(message, remote) <= self.max_bytes:
            return "batched"
        if remote.is_ingested and self._is_old and self._size(message, remote) <= MOST_BYTES:
            return "alone"
        return "plain"

    @staticmethod
    def _size(message: Message, remote: RemoteTopic) -> int:
        return len(message.frame) + len(remote.encoded) + COLUMN_BYTES

    @property
    def is_full(self) -> bool:
        """Whether what gathers is to leave, however young."""
        return self._is_closed or len(self.gathering.numbers) >= self.config.max_messages

    def close(self) -> None:
        """What gathers takes no more."""
        self._is_closed = True
        self.closes_at = 0.0

    def gather(self, message: Message, number: int, remote: RemoteTopic, now: float) -> bool:
        """Put `message` into what gathers; False where it has no place there."""
        gathering = self.gathering
        frame = message.frame
        epoch = (message.source or message).epoch or self._epoch
        if self.is_full or gathering.size_bytes + self._size(message, remote) > self.max_bytes:
            return False
        if not gathering.numbers:
            self.gathering_epoch = epoch
            self.closes_at = now + self.config.delay_ms / 1000
        elif epoch != self.gathering_epoch or gathering.entries >= _MOST_ENTRIES:
            return False
        block = self._block(message, now)
        gathering.add(number, remote.topic, frame[message.payload_at :], message.qos, message.retain, block)
        self.gathering_bytes += len(frame)
        return True

    def _block(self, message: Message, now: float) -> bytes:
        """The properties of `message`. Most have none: then identifier and length at most stand before the payload."""
        if message.expires_at is None and message.payload_at - message.packet_id_at <= 3:
            return b"\0"
        return self.stamp.block(message, now)

    def pack_gathered(self) -> tuple[bytes, Columns, int]:
        """The payload of what gathered, its columns and its messages' bytes; the next one is empty."""
        columns, size_bytes = self.gathering, self.gathering_bytes
        self._begin_gathering()
        plain = columns.lay_out(self._gateway, self._lane, self.gathering_epoch)
        return self._writers.together.compress(plain), columns, size_bytes

    def pack_alone(
        self, message: Message, number: int, remote: RemoteTopic, now: float
    ) -> tuple[bytes, Columns, int]:
        """The same for one message by itself. No dictionary: nobody has said that it is there."""
        columns = Columns()
        payload = message.frame[message.payload_at :]
        columns.add(number, remote.topic, payload, message.qos, message.retain, self._block(message, now))
        epoch = (message.source or message).epoch or self._epoch
        plain = columns.lay_out(self._gateway, self._lane, epoch)
        return self._writers.alone.compress(plain), columns, len(message.frame)

    def drop_gathered(self) -> list[int]:
        """What gathered goes another way: its numbers."""
        numbers = self.gathering.numbers
        self._begin_gathering()
        return numbers

    @staticmethod
    def is_small_enough(payload: bytes) -> bool:
        """Whether an ingester would open it."""
        return len(payload) <= _MOST_PACKED_BYTES

    # ---- on their way

    def note_sent(self, payload: bytes, columns: Columns, size_bytes: int) -> None:
        """One has left."""
        numbers = columns.numbers
        self.on_their_way[numbers[0]] = OnItsWay(numbers, size_bytes)
        self.size_bytes += size_bytes
        self.sent += 1
        self.messages += len(numbers)
        self.bytes_before += columns.size_bytes - COLUMN_BYTES * len(numbers)
        self.bytes_after += len(payload)

    def take_answered(self, number: int) -> list[int] | None:
        """The numbers of the envelope whose first one is `number`, which has its answer; None where it is no envelope."""
        found = self.on_their_way.pop(number, None)
        if found is None:
            return None
        self.size_bytes -= found.size_bytes
        return found.numbers
