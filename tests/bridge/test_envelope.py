"""Envelopes: what goes in comes out, whatever it is; what is none is refused, whoever made it, and costs little."""

from __future__ import annotations

import time
from typing import Final

import cbor2
import pytest
import zstandard
from hypothesis import example, given, settings
from hypothesis import strategies as st

from bridge.envelope import (
    Enclosed,
    Envelope,
    EnvelopeError,
    EnvelopeReader,
    EnvelopeWriter,
    Limits,
    train_dictionary,
    unpacked,
)
from edge_broker.wire import const
from edge_broker.wire.properties import encode_properties

READER: Final = EnvelopeReader()
WRITER: Final = EnvelopeWriter()
PLAIN, COMPRESSED = 0x11, 0x21

_parts = st.tuples(
    st.integers(1, 1000),
    st.sampled_from(["a", "a/b", "größe/°C", "/", "x" * 300])
    | st.text(min_size=1, max_size=40).filter(lambda topic: not set(topic) & set("+#\0")),
    st.binary(max_size=200),
    st.integers(0, 2),
    st.booleans(),
    st.just(b"\0")
    | st.text(max_size=20).map(lambda said: encode_properties({const.CONTENT_TYPE: said.replace("\0", "")})),
)


@st.composite
def envelopes(draw: st.DrawFn) -> Envelope:
    number = draw(st.integers(1, 1 << 40))
    messages = []
    for step, *rest in draw(st.lists(_parts, min_size=1, max_size=40)):
        number += step
        messages.append(Enclosed(number, *rest))
    return Envelope(
        draw(st.text(min_size=1, max_size=30)),
        draw(st.text(max_size=30)),
        draw(st.integers(0, 1 << 60)),
        messages,
    )


@given(envelopes())
def test_what_goes_in_comes_out(envelope: Envelope) -> None:
    opened = READER.open(WRITER.pack(envelope))
    assert opened == envelope._replace(messages=list(envelope.messages))


@given(envelopes(), st.data())
@settings(max_examples=300)
def test_a_damaged_one_is_an_envelope_or_an_error(envelope: Envelope, data: st.DataObject) -> None:
    payload = bytearray(bytes((PLAIN,)) + unpacked(envelope))
    for _ in range(data.draw(st.integers(1, 4))):
        payload[data.draw(st.integers(0, len(payload) - 1))] = data.draw(st.integers(0, 255))
    with_end = bytes(payload[: data.draw(st.integers(0, len(payload)))])
    for candidate in (bytes(payload), with_end):
        try:
            READER.open(candidate)
        except EnvelopeError:
            pass


@given(st.binary(max_size=300))
@example(b"")
@example(bytes((COMPRESSED,)))
def test_anything_else_is_refused(payload: bytes) -> None:
    for candidate in (payload, bytes((PLAIN,)) + payload, bytes((COMPRESSED,)) + payload):
        with pytest.raises(EnvelopeError):
            READER.open(candidate)


def test_like_messages_take_little_room() -> None:
    messages = [
        Enclosed(
            number,
            f"site/room-{number % 10}/climate",
            b'{"temperature": %d.%d}' % (20 + number % 3, number % 10),
        )
        for number in range(1, 101)
    ]
    assert len(WRITER.pack(Envelope("gateway", "up", 1, messages))) < 100 * 6


def test_a_dictionary_helps_and_must_be_there() -> None:
    def envelope(start: int) -> Envelope:
        messages = [
            Enclosed(
                n,
                f"site/room-{n % 10}/climate",
                b'{"temperature":%d.%d,"humidity":%d}' % (n % 31, n % 7, n % 89),
            )
            for n in range(start, start + 20)
        ]
        return Envelope("gateway", "up", 1, messages)

    dictionary = train_dictionary([unpacked(envelope(20 * n)) for n in range(200)], 4096)
    packed = EnvelopeWriter(dictionary=dictionary).pack(envelope(9000))
    assert len(packed) < len(WRITER.pack(envelope(9000)))
    assert EnvelopeReader(dictionaries=[dictionary]).open(packed).messages == list(envelope(9000).messages)
    with pytest.raises(EnvelopeError, match="dictionary"):
        READER.open(packed)


def test_too_few_samples_make_no_dictionary() -> None:
    with pytest.raises(EnvelopeError, match="no dictionary"):
        train_dictionary([b"one"])


def one(**changes: object) -> list[object]:
    """The items of a sound envelope with one message, some of them replaced."""
    items: dict[str, object] = {
        "gateway": "g",
        "lane": "l",
        "epoch": 1,
        "first": 7,
        "gaps": b"",
        "topics": b"\0\0",
        "blocks": b"\0\0",
        "flags": b"\x01",
        "lengths": b"\x02\0\0\0",
        "entries": ["t", b"\0", 1],
        "payloads": b"hi",
    }
    assert changes.keys() <= items.keys()
    return list((items | changes).values())


def test_the_layout_is_this() -> None:
    assert READER.open(bytes((PLAIN,)) + cbor2.dumps(one())) == Envelope(
        "g", "l", 1, [Enclosed(7, "t", b"hi")]
    )


@pytest.mark.parametrize(
    "items",
    [
        one(gaps=b"\x01\0\0\0"),
        one(gaps=b"\0"),
        one(topics=b"\x01\0"),
        one(topics=b"\0"),
        one(blocks=b"\x05\0"),
        one(flags=b""),
        one(lengths=b"\x03\0\0\0"),
        one(entries=["t", b"", 0]),
        one(entries=["t", b"", 3]),
        one(entries=["t", b""]),
        one(entries=[b"", "t", 1]),
        one(entries=[]),
        one(first=(1 << 64) - 1),
        one(first=-1),
        one(epoch=1 << 63),
        one(gateway=""),
        one(gateway="g" * 251),
        one(lane="l" * 251),
        one(flags=b"\x03"),
        one(flags=b"\x08"),
        one(entries=["a/+", b"\0", 1]),
        one(entries=["", b"\0", 1]),
        one(entries=["t" * 65_536, b"\0", 1]),
        one(entries=["t", b"", 1]),
        one(entries=["t", b"\x05", 1]),
        one(entries=["t", b"\0\0", 1]),
        one(entries=["t", b"\x03\x23\0\1", 1]),
        one(gateway=b"g"),
        one(epoch="1"),
        one(gateway=cbor2.CBORTag(35, "(a+)+$")),
        one(epoch=cbor2.CBORTag(4, [10**9, 1])),
        [*one(), 1],
        one()[:-1],
        {"gateway": "g"},
    ],
)
def test_other_layouts_are_refused(items: object) -> None:
    with pytest.raises(EnvelopeError):
        READER.open(bytes((PLAIN,)) + cbor2.dumps(items))


@pytest.mark.parametrize(
    "payload",
    [
        bytes((PLAIN,)) + b"\x9b" + b"\xff" * 8,  # an array of 2^64 - 1 items
        bytes((PLAIN,)) + b"\x8b\x7b" + b"\xff" * 8,  # a text as long
        bytes((PLAIN,)) + b"\x81" * 100_000,  # nested as deep as it is long
        bytes((PLAIN,)) + b"\x9f" * 1_000,
        bytes((COMPRESSED,)) + zstandard.compress(bytes(200 << 20)),  # 200 MB of nothing
        bytes((COMPRESSED,)) + zstandard.ZstdCompressor(write_content_size=False).compress(bytes(1 << 20)),
        bytes(2 << 20),
    ],
)
def test_a_bomb_does_not_go_off(payload: bytes) -> None:
    began = time.process_time()
    with pytest.raises(EnvelopeError):
        READER.open(payload)
    assert time.process_time() - began < 0.2


def test_the_limits_are_kept() -> None:
    envelope = Envelope("g", "l", 1, [Enclosed(n, f"t/{n}", b"x" * 100) for n in range(1, 101)])
    packed = WRITER.pack(envelope)
    assert len(READER.open(packed).messages) == 100
    for limits in (
        Limits(packed_bytes=50),
        Limits(unpacked_bytes=5_000),
        Limits(messages=99),
        Limits(entries=99),
        Limits(spread_bytes=10_000),
    ):
        with pytest.raises(EnvelopeError):
            EnvelopeReader(limits).open(packed)


def test_a_long_topic_that_all_messages_share_is_bounded_too() -> None:
    """Some 200 bytes that would be more than a gigabyte of output."""
    messages = [Enclosed(number, "t" * 65_000, b"") for number in range(1, 20_001)]
    packed = WRITER.pack(Envelope("g", "l", 1, messages))
    assert len(packed) < 10_000
    with pytest.raises(EnvelopeError, match="more than it may hold"):
        READER.open(packed)


def test_numbers_beyond_the_largest_are_refused_with_gaps_too() -> None:
    last = (1 << 63) - 1
    envelope = Envelope("g", "l", 1, [Enclosed(last - 5, "t", b""), Enclosed(last, "t", b"")])
    assert [message.sequence for message in READER.open(WRITER.pack(envelope)).messages] == [last - 5, last]
    with pytest.raises(EnvelopeError, match="too large"):
        READER.open(
            WRITER.pack(
                envelope._replace(messages=[Enclosed(last - 5, "t", b""), Enclosed(last + 1, "t", b"")])
            )
        )
