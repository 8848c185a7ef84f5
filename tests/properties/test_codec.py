"""Encode, then decode: the same packet, for every type, version and property; and however the stream is cut."""

from __future__ import annotations

from itertools import pairwise
from typing import Any, Final

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from edge_broker.wire.decoder import Decoder
from edge_broker.wire.properties import decode_properties, encode_properties
from edge_broker.wire.topics import TopicCache
from tests.golden.packets import describe, encode
from tests.golden.properties import PACKETS, PROPERTIES
from tests.properties.strategies import (
    VERSIONS,
    control_packets,
    packet_bytes,
    properties_of,
    publish_bytes,
    quick,
)

PLACES: Final = ("WILL", *(name for name in PACKETS if not name.startswith("PING")))
"""Where properties may stand."""


def decode_all(decoder: Decoder, chunks: list[bytes]) -> list[tuple[str, dict[str, Any]]]:
    """Every packet in the stream that `chunks` make, each described before the next is asked for."""
    packets = []
    for chunk in chunks:
        decoder.feed(chunk)
        while (packet := decoder.next_packet()) is not None:
            packets.append(describe(packet))
    assert decoder.buffered_bytes == 0
    return packets


def decoder_at(version: int) -> Decoder:
    return Decoder(TopicCache(), 1_000_000, version, from_server=True)


@pytest.mark.parametrize(
    ("version", "name"), [(version, name) for version in VERSIONS for name in control_packets(version)]
)
@quick
@given(data=st.data())
def test_round_trip(version: int, name: str, data: st.DataObject) -> None:
    packet = data.draw(control_packets(version)[name])
    decoder = decoder_at(0 if name == "CONNECT" else version)
    assert decode_all(decoder, [encode(packet, version)]) == [describe(packet)]
    assert decoder.version == version


@settings(quick, max_examples=120)
@given(place=st.sampled_from(PLACES), data=st.data())
def test_properties_round_trip(place: str, data: st.DataObject) -> None:
    """In any place of the buffer, and with bytes behind it that are not its own."""
    properties = data.draw(properties_of(place))
    before, after = data.draw(st.binary(max_size=3)), data.draw(st.binary(max_size=3))
    block = encode_properties(properties)
    at, end = len(before), len(before) + len(block)
    packet_type = 0 if place == "WILL" else PACKETS.index(place) + 1
    assert decode_properties(before + block + after, at, end + len(after), packet_type) == (properties, end)


def test_every_property_is_drawn_somewhere() -> None:
    """The strategy above takes its places from the table, so the table has to be whole: 27 properties [table 2-4]."""
    assert len(PROPERTIES) == 27
    assert {place for entry in PROPERTIES.values() for place in entry.places} == set(PLACES)


@st.composite
def chunked_streams(draw: st.DrawFn, version: int) -> tuple[bytes, list[bytes]]:
    """Some packets in a row, and the same bytes cut anywhere, empty chunks included."""
    stream = b"".join(draw(st.lists(packet_bytes(version), min_size=1, max_size=6)))
    near_heads = st.integers(0, min(len(stream), 30))
    cuts = sorted(draw(st.lists(near_heads | st.integers(0, len(stream)), max_size=12)))
    edges = [0, *cuts, len(stream)]
    return stream, [stream[start:stop] for start, stop in pairwise(edges)]


@pytest.mark.parametrize("version", [4, 5])
@quick
@given(data=st.data())
def test_chunks_do_not_matter(version: int, data: st.DataObject) -> None:
    stream, chunks = data.draw(chunked_streams(version))
    whole = decode_all(decoder_at(version), [stream])
    assert decode_all(decoder_at(version), chunks) == whole


@pytest.mark.parametrize("version", [4, 5])
@quick
@given(data=st.data())
def test_asking_in_between_does_not_matter(version: int, data: st.DataObject) -> None:
    """All chunks fed before the first packet is asked for; and a packet asked for now and then, as a budget does."""
    stream, chunks = data.draw(chunked_streams(version))
    expected = decode_all(decoder_at(version), [stream])
    lazy = decoder_at(version)
    packets = []
    for chunk in chunks:
        lazy.feed(chunk)
        for _ in range(data.draw(st.integers(0, 2))):
            packet = lazy.next_packet()
            if packet is not None:
                packets.append(describe(packet))
    assert packets + decode_all(lazy, [b""]) == expected


@pytest.mark.parametrize("version", [4, 5])
@quick
@given(data=st.data())
def test_buffered_bytes_are_what_is_not_handed_out(version: int, data: st.DataObject) -> None:
    packets = data.draw(st.lists(publish_bytes(version), min_size=1, max_size=4))
    rest = data.draw(publish_bytes(version))
    cut = data.draw(st.integers(0, len(rest) - 1))
    decoder = decoder_at(version)
    decoder.feed(b"".join(packets) + rest[:cut])
    left = sum(map(len, packets)) + cut
    for packet in packets:
        assert decoder.buffered_bytes == left
        assert decoder.next_packet() is not None
        left -= len(packet)
    assert decoder.next_packet() is None
    assert decoder.buffered_bytes == cut
