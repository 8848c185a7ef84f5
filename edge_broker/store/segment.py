"""Messages as bytes on disk: many of one queue together in a *segment*, or one alone in a *record*.

A segment is one row of SQLite. A row per message costs a step of SQLite each, and every step gives the interpreter's
lock away and must win it back; a segment costs one step for up to 2,000 messages, and its bytes lie together.

A body is a run of records: a fixed header, then the PUBLISH as it was framed. The checksum of a segment covers its
place too (queue and numbers), so that a row cannot pass for another. Numbers inside a segment rise, but may have gaps:
what was acknowledged before the commit is not written. A record of no version and no length is none of a message: it
says which numbers are in memory only, by choice. Times are stamps here, which `times` explains, and the monotonic clock's
seconds in a `Message`; a message expires as long after it came as it did when it was written.

Pure: bytes in, messages out. It keeps nothing and opens nothing.
"""

from __future__ import annotations

import struct
from typing import Final, Protocol
from zlib import crc32

from edge_broker.core.message import Message
from edge_broker.errors import MqttError
from edge_broker.store.faults import Damaged
from edge_broker.store.times import TIMELINE_BITS, Times

MAX_SEGMENT_BYTES: Final = 256 * 1024
"""A body's size at most, unless one message alone is larger."""
MAX_SEGMENT_MESSAGES: Final = 2_000

_MAX_OFFSET: Final = 0xFFFF
# number minus the segment's first, epoch, sequence, flags, packet_id_at, payload_at, received at and expires at (stamps of
# one timeline, 0 for never), length of the frame
_RECORD: Final = struct.Struct("<HIQBIIqqI")
_RECORD_BYTES: Final = _RECORD.size
_PLACE: Final = struct.Struct("<qqqq")

SegmentRow = tuple[int, int, int, int, int, bytes]
"""queue_id, first_number, last_number, count, crc, body: the columns of table `segment` behind its id."""


class TopicNames(Protocol):
    """Where topic names come from that were seen before: `wire.topics.TopicCache`."""

    def name(self, raw: bytes) -> str:
        """The name that `raw` encodes, or `MqttError`."""


def segment_crc(queue_id: int, first_number: int, last_number: int, count: int, body: bytes) -> int:
    """The checksum of a segment's row."""
    return crc32(body, crc32(_PLACE.pack(queue_id, first_number, last_number, count)))


def is_intact(row: SegmentRow) -> bool:
    """Whether a row that was read is one that was written; its columns may be anything."""
    queue_id, first, last, count, crc, body = row
    return (
        type(body) is bytes
        and all(type(number) is int for number in (queue_id, first, last, count))
        and segment_crc(queue_id, first, last, count, body) == crc
    )


def tombstone(queue_id: int, first_number: int, last_number: int) -> SegmentRow:
    """A segment without messages: it keeps the place of numbers that are lost, so that none is given out twice."""
    return (
        queue_id,
        first_number,
        last_number,
        0,
        segment_crc(queue_id, first_number, last_number, 0, b""),
        b"",
    )


def encode_segments(queue_id: int, messages: list[tuple[int, Message]], times: Times) -> list[SegmentRow]:
    """The rows that hold `messages`, (number, message) in rising order; as few as the limits of a segment allow."""
    rows: list[SegmentRow] = []
    parts: list[bytes] = []
    append, pack = parts.append, _RECORD.pack
    offset, base, since = times.offset, times.base, times.since
    first = last = messages[0][0] if messages else 0
    size = count = 0
    for number, message in messages:
        frame = message.frame
        length = len(frame)
        size += _RECORD_BYTES + length
        if count and (
            size > MAX_SEGMENT_BYTES or count == MAX_SEGMENT_MESSAGES or number - first > _MAX_OFFSET
        ):
            rows.append(_segment(queue_id, first, last, count, parts))
            parts.clear()
            first, count, size = number, 0, _RECORD_BYTES + length
        origin = message.source or message
        received_at, expires_at = message.received_at, message.expires_at
        if received_at >= since:
            received = int((received_at + offset) * 1000) + base
        else:
            received = times.stamp(received_at)
        append(
            pack(
                number - first,
                origin.epoch,
                origin.sequence,
                message.version | message.qos << 3 | message.retain << 5,
                message.packet_id_at,
                message.payload_at,
                received,
                0 if expires_at is None else received + round((expires_at - received_at) * 1000) or 1,
                length,
            )
        )
        append(frame)
        last = number
        count += 1
    if count:
        rows.append(_segment(queue_id, first, last, count, parts))
    return rows


def _segment(queue_id: int, first: int, last: int, count: int, parts: list[bytes]) -> SegmentRow:
    body = b"".join(parts)
    return queue_id, first, last, count, segment_crc(queue_id, first, last, count, body), body


def with_volatile(rows: list[SegmentRow], stretches: list[tuple[int, int]]) -> list[SegmentRow]:
    """`rows` of one queue, which also say that the numbers in `stretches`, (first, last), are in memory only.

    Each stretch stands in the first row that reaches beyond it.
    """
    told: dict[int, list[tuple[int, int]]] = {}
    for stretch in stretches:
        place = next((at for at, row in enumerate(rows) if row[2] > stretch[0]), None)
        if place is not None:
            told.setdefault(place, []).append(stretch)
    rows = list(rows)
    for place, found in told.items():
        queue_id, first, last, count, _, body = rows[place]
        body += b"".join(
            _RECORD.pack(0, 0, end - start + 1, 0, 0, 0, start - first, 0, 0) for start, end in found
        )
        rows[place] = (queue_id, first, last, count, segment_crc(queue_id, first, last, count, body), body)
    return rows


def decode_volatile(row: SegmentRow) -> list[tuple[int, int]]:
    """(first, last) of each stretch of numbers that an intact row says are in memory only."""
    first, body = row[1], row[5]
    stretches = []
    at = 0
    while at + _RECORD_BYTES <= len(body):
        _, _, count, flags, _, _, start, _, length = _RECORD.unpack_from(body, at)
        at += _RECORD_BYTES + length
        if not flags:
            stretches.append((first + start, first + start + count - 1))
    return stretches


def decode_segment(
    row: SegmentRow, topics: TopicNames, times: Times, from_number: int = 0
) -> list[tuple[int, Message]]:
    """(number, message) of what the row holds from `from_number` on; `Damaged` if it is not as it was written."""
    queue_id, first, last, count, _, body = row
    if not is_intact(row):
        raise Damaged(f"the checksum of numbers {first} to {last} of queue {queue_id} is wrong")
    messages = decode_records(body, first, topics, times)
    if len(messages) != count:
        raise Damaged(f"numbers {first} to {last} of queue {queue_id}: not {count} messages")
    if from_number > first:
        return [pair for pair in messages if pair[0] >= from_number]
    return messages


def encode_record(message: Message, times: Times) -> bytes:
    """One message alone: a retained one, a will."""
    return encode_segments(0, [(0, message)], times)[0][5]


def decode_record(body: bytes, topics: TopicNames, times: Times) -> Message:
    """The message of `encode_record`."""
    messages = decode_records(body, 0, topics, times)
    if len(messages) != 1:
        raise Damaged(f"{len(messages)} messages where there should be one")
    return messages[0][1]


def decode_records(body: bytes, first: int, topics: TopicNames, times: Times) -> list[tuple[int, Message]]:
    """All records of a body, in order; `first` is what their offsets count from."""
    messages: list[tuple[int, Message]] = []
    append, unpack, name = messages.append, _RECORD.unpack_from, topics.name
    at, end = 0, len(body)
    timeline = times.timeline
    milliseconds, seconds = times.rule(timeline)
    try:
        while at < end:
            offset, epoch, sequence, flags, packet_id_at, payload_at, received, expires, length = unpack(
                body, at
            )
            at += _RECORD_BYTES
            if not flags:
                continue
            frame = body[at : at + length]
            at += length
            topic_at = 1
            while frame[topic_at] & 0x80:  # the remaining length, of one to four bytes [2.1.4]
                topic_at += 1
            message = Message(
                frame,
                flags & 7,
                name(frame[topic_at + 3 : packet_id_at]),
                packet_id_at,
                payload_at,
                flags >> 3 & 3,
                flags >= 32,
                0,
            )
            message.epoch = epoch
            message.sequence = sequence
            if received >> TIMELINE_BITS != timeline:
                timeline = received >> TIMELINE_BITS
                milliseconds, seconds = times.rule(timeline)
            message.received_at = received_at = (received - milliseconds) / 1000 - seconds
            if expires:
                message.expires_at = received_at + (expires - received) / 1000
            append((first + offset, message))
    except (struct.error, IndexError, MqttError) as error:
        raise Damaged(f"a record that is none: {error}") from error
    if at != end:
        raise Damaged("a record longer than its segment")
    return messages
