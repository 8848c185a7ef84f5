"""An envelope as it gathers: columns, a value of each message behind the other, and what they share once.

What it is made into is CBOR [RFC 8949], as `bridge.envelope` reads it.
"""

from __future__ import annotations

import sys
from array import array
from collections.abc import Sequence
from typing import Final

import cbor2

RETAIN: Final = 0x04
COLUMN_BYTES: Final = 13
"""What a message takes beside topic, properties and payload, before compression."""

IS_SWAPPED: Final = sys.byteorder == "big"


class Columns:
    """What will be an envelope, as it gathers: a message after the other, their numbers rising.

    `size_bytes`: of what was given, so that what becomes of it can be bounded beforehand.
    """

    __slots__ = ("block_at", "blocks", "flags", "numbers", "payloads", "size_bytes", "topic_at", "topics")

    def __init__(self) -> None:
        self.numbers: list[int] = []
        self.topics: dict[str, int] = {}
        self.blocks: dict[bytes, int] = {}
        self.topic_at: list[int] = []
        self.block_at: list[int] = []
        self.flags = bytearray()
        self.payloads: list[bytes] = []
        self.size_bytes = 0

    def add(self, number: int, topic: str, payload: bytes, qos: int, retain: bool, block: bytes) -> None:
        """One message more; as `Enclosed`."""
        self.numbers.append(number)
        self.topic_at.append(self.topics.setdefault(topic, len(self.topics)))
        self.block_at.append(self.blocks.setdefault(block, len(self.blocks)))
        self.flags.append(qos | RETAIN if retain else qos)
        self.payloads.append(payload)
        self.size_bytes += len(topic) + len(payload) + len(block) + COLUMN_BYTES

    @property
    def entries(self) -> int:
        """Different topics and property blocks."""
        return len(self.topics) + len(self.blocks)

    def count_qos_2(self) -> int:
        """How many of the messages are of QoS 2."""
        return self.flags.count(2) + self.flags.count(2 | RETAIN)

    def lay_out(self, gateway: str, lane: str, epoch: int) -> bytes:
        """The CBOR: what is compressed, and what dictionaries are trained on."""
        numbers = self.numbers
        first = numbers[0]
        has_gaps = numbers[-1] - first != len(numbers) - 1
        items = [
            gateway,
            lane,
            epoch,
            first,
            _column("I", [number - first for number in numbers]) if has_gaps else b"",
            _column("H", self.topic_at),
            _column("H", self.block_at),
            bytes(self.flags),
            _column("I", list(map(len, self.payloads))),
            [*self.topics, *self.blocks, len(self.topics)],
            b"".join(self.payloads),
        ]
        return cbor2.dumps(items)


def _column(kind: str, values: Sequence[int]) -> bytes:
    """Numbers as little-endian bytes, all low bytes first, then all next ones: high bytes are alike."""
    column = array(kind, values)
    if IS_SWAPPED:
        column.byteswap()
    raw = column.tobytes()
    size = column.itemsize
    return b"".join([raw[at::size] for at in range(size)])
