"""Messages survive their way through bytes, whatever is in them; a byte that changed is noticed."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from edge_broker.core.message import Message
from edge_broker.store.faults import Damaged
from edge_broker.store.segment import (
    MAX_SEGMENT_BYTES,
    MAX_SEGMENT_MESSAGES,
    decode_record,
    decode_segment,
    decode_volatile,
    encode_record,
    encode_segments,
    is_intact,
    tombstone,
    with_volatile,
)
from edge_broker.store.times import Times
from edge_broker.wire.topics import TopicCache
from tests.store.sample import WALL_OFFSET, essence, make_message, numbered

PLAIN = Times(0.0)
TIMES = Times(WALL_OFFSET, timeline=3, since=0.0)

times = st.floats(min_value=-1e6, max_value=1e9).map(lambda value: round(value, 2))
topics = st.text(st.characters(codec="utf-8", exclude_characters="+#\0"), min_size=1, max_size=300)
messages = st.builds(
    make_message,
    topics,
    st.binary(max_size=300),
    qos=st.integers(0, 2),
    retain=st.booleans(),
    version=st.sampled_from((3, 4, 5)),
    epoch=st.integers(0, 2**32 - 1),
    sequence=st.integers(0, 2**64 - 1),
    received_at=times,
    expires_at=st.none() | times,
)


def decode_all(rows: list[tuple[int, int, int, int, int, bytes]]) -> list[tuple[int, Message]]:
    return [pair for row in rows for pair in decode_segment(row, TopicCache(), TIMES)]


@given(st.lists(st.tuples(st.integers(1, 40_000), messages), max_size=12), st.integers(1, 2**40))
def test_what_goes_in_comes_out(steps: list[tuple[int, Message]], start: int) -> None:
    number = start
    pairs = []
    for step, message in steps:
        number += step
        pairs.append((number, message))
    rows = encode_segments(9, pairs, TIMES)
    assert [(n, essence(m)) for n, m in decode_all(rows)] == [(n, essence(m)) for n, m in pairs]


@given(st.lists(st.tuples(st.integers(1, 40_000), st.integers(0, 3)), min_size=1, max_size=9), messages)
def test_numbers_in_memory_only_are_told_and_disturb_nothing(
    steps: list[tuple[int, int]], message: Message
) -> None:
    """Between the messages, in as many rows as they take; what lies behind the last one waits for the next row."""
    number, pairs, stretches = 1, [], []
    for step, count in steps:
        if count:
            stretches.append((number + 1, number + count))
        number += count + step
        pairs.append((number, message))
    rows = encode_segments(9, pairs, TIMES)
    told = with_volatile(rows, [*stretches, (number + 1, number + 5)])
    assert [stretch for row in told for stretch in decode_volatile(row)] == stretches
    assert [(n, essence(m)) for n, m in decode_all(told)] == [(n, essence(m)) for n, m in pairs]
    assert [row[:4] for row in told] == [row[:4] for row in rows]
    assert all(is_intact(row) for row in told)
    assert [decode_volatile(row) for row in rows] == [[]] * len(rows)


@given(messages)
def test_a_record_alone_survives(message: Message) -> None:
    again = decode_record(encode_record(message, TIMES), TopicCache(), TIMES)
    assert essence(again) == essence(message)


def test_times_follow_the_wall_clock_into_another_run() -> None:
    body = encode_record(make_message(received_at=50.0, expires_at=80.0), Times(1000.0))
    again = decode_record(body, TopicCache(), Times(400.0))  # the monotonic clock started later by 600 s
    assert (again.received_at, again.expires_at) == (650.0, 680.0)


def test_a_message_that_expired_in_1970_still_expires() -> None:
    again = decode_record(encode_record(make_message(expires_at=0.0), PLAIN), TopicCache(), PLAIN)
    assert again.expires_at == pytest.approx(0.0, abs=0.01)


def test_a_variant_keeps_the_identity_of_its_origin() -> None:
    message = make_message(qos=2, epoch=4, sequence=99)
    again = decode_record(encode_record(message.variant(1, False, (7,)), PLAIN), TopicCache(), PLAIN)
    assert (again.epoch, again.sequence, again.qos) == (4, 99, 1)
    assert again.properties


def test_the_packet_identifier_of_the_frame_does_not_matter() -> None:
    message = make_message()
    frame = bytearray(message.frame)
    frame[message.packet_id_at : message.packet_id_at + 2] = b"\xff\xff"
    message.frame = bytes(frame)
    assert essence(decode_record(encode_record(message, PLAIN), TopicCache(), PLAIN)) == essence(message)


@pytest.mark.parametrize("size", [100, 20_000, 3_000_000])
def test_the_topic_is_found_behind_a_remaining_length_of_any_size(size: int) -> None:
    again = decode_record(encode_record(make_message("a/b", bytes(size)), PLAIN), TopicCache(), PLAIN)
    assert again.topic == "a/b"
    assert len(again.payload) == size


def test_segments_stay_within_their_limits() -> None:
    pairs = numbered(1, MAX_SEGMENT_MESSAGES + 1, size=0) + numbered(10_000, 30, size=20_000)
    pairs += [(200_000, make_message()), (300_000, make_message(payload=bytes(2 * MAX_SEGMENT_BYTES)))]
    pairs += numbered(300_001, 2)
    rows = encode_segments(1, pairs, PLAIN)
    assert [number for number, _ in decode_all(rows)] == [number for number, _ in pairs]
    for _, first, last, count, _, body in rows:
        assert count <= MAX_SEGMENT_MESSAGES
        assert last - first <= 0xFFFF
        assert len(body) <= MAX_SEGMENT_BYTES or count == 1
    assert len(rows) == 7  # 2,000; 1 with 12 large; 12; 6; the lone one; the huge one; the last two


def test_nothing_becomes_no_segment() -> None:
    assert encode_segments(1, [], PLAIN) == []


def test_reading_can_begin_inside_a_segment() -> None:
    (row,) = encode_segments(1, numbered(10, 5), PLAIN)
    assert [number for number, _ in decode_segment(row, TopicCache(), PLAIN, 13)] == [13, 14]


@given(st.data())
def test_a_changed_byte_is_noticed(data: st.DataObject) -> None:
    (row,) = encode_segments(5, numbered(1, 3), PLAIN)
    body = bytearray(row[5])
    at = data.draw(st.integers(0, len(body) - 1))
    body[at] ^= data.draw(st.integers(1, 255))
    with pytest.raises(Damaged):
        decode_segment((*row[:5], bytes(body)), TopicCache(), PLAIN)


@pytest.mark.parametrize("column", range(5))
def test_a_changed_place_is_noticed(column: int) -> None:
    row = list(encode_segments(5, numbered(1, 3), PLAIN)[0])
    row[column] += 1
    with pytest.raises(Damaged):
        decode_segment(tuple(row), TopicCache(), PLAIN)  # type: ignore[arg-type]


@pytest.mark.parametrize("body", [None, "text", 7, b""])
def test_a_body_that_is_none_is_noticed(body: object) -> None:
    row = encode_segments(5, numbered(1, 3), PLAIN)[0]
    with pytest.raises(Damaged):
        decode_segment((*row[:5], body), TopicCache(), PLAIN)  # type: ignore[arg-type]


@given(st.binary(max_size=200))
def test_any_bytes_are_a_message_or_damaged(body: bytes) -> None:
    try:
        decode_record(body, TopicCache(), PLAIN)
    except Damaged:
        pass


def test_a_tombstone_is_an_intact_segment_without_messages() -> None:
    assert decode_segment(tombstone(4, 10, 20), TopicCache(), PLAIN) == []
