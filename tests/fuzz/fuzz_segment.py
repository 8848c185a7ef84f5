"""What the store finds on a disk that went bad: a segment's body is messages or `Damaged`, whatever it is.

`fuzz_segment` takes a body of records. The checksum before it would keep nearly everything out, so it is made right: the
body has to stand by itself. What decodes is encoded and decoded once more, and must be the same messages.
"""

from __future__ import annotations

from typing import Final

from edge_broker.core.message import Message
from edge_broker.store.faults import Damaged
from edge_broker.store.segment import (
    SegmentRow,
    decode_record,
    decode_segment,
    encode_segments,
    segment_crc,
)
from edge_broker.store.times import Times
from edge_broker.wire.topics import TopicCache

QUEUE_ID: Final = 5
FIRST: Final = 1000
TIMES: Final = Times(0.0)
_EXACT_MS: Final = 1 << 50
"""Times beyond this, 35,000 years, do not survive their way through a float."""

Essence = tuple[int, bytes, int, str, int, int, int, bool, int, int]


def fuzz_segment(data: bytes) -> None:
    """One body; AssertionError where a promise is broken, any other exception as it is."""
    for count in (1, 2, 3):
        row = (QUEUE_ID, FIRST, FIRST + 9, count, segment_crc(QUEUE_ID, FIRST, FIRST + 9, count, data), data)
        try:
            messages = decode_segment(row, TopicCache(4), TIMES)
        except Damaged:
            continue
        assert len(messages) == count
        _encode_again(messages)
        later = decode_segment(row, TopicCache(4), TIMES, FIRST + 3)
        assert [number for number, _ in later] == [number for number, _ in messages if number >= FIRST + 3]
    try:
        decode_record(data, TopicCache(4), TIMES)
    except Damaged:
        pass


def _encode_again(messages: list[tuple[int, Message]]) -> None:
    numbers = [number for number, _ in messages]
    if numbers != sorted(set(numbers)) or not all(_has_exact_times(message) for _, message in messages):
        return  # whole, but nothing that `encode_segments` would have written
    rows: list[SegmentRow] = encode_segments(QUEUE_ID, messages, TIMES)
    again = [pair for row in rows for pair in decode_segment(row, TopicCache(4), TIMES)]
    assert [_essence(*pair) for pair in again] == [_essence(*pair) for pair in messages]


def _has_exact_times(message: Message) -> bool:
    times = (message.received_at, message.expires_at or 0.0)
    return all(abs(seconds) * 1000 < _EXACT_MS for seconds in times)


def _essence(number: int, message: Message) -> Essence:
    return (
        number,
        message.frame,
        message.version,
        message.topic,
        message.packet_id_at,
        message.payload_at,
        message.qos,
        message.retain,
        message.epoch,
        message.sequence,
    )
