"""The variable byte integer against its definition: seven bits a byte, least significant first, the fewest bytes."""

from __future__ import annotations

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from edge_broker.errors import MalformedPacket
from edge_broker.wire.properties import decode_varint, encode_varint
from tests.properties.strategies import quick

EDGES = (0, 127, 128, 16_383, 16_384, 2_097_151, 2_097_152, 268_435_455)


@quick
@given(value=st.sampled_from(EDGES) | st.integers(0, EDGES[-1]), around=st.binary(max_size=3))
def test_round_trip_in_the_fewest_bytes(value: int, around: bytes) -> None:
    encoded = encode_varint(value)
    assert sum((byte & 0x7F) * 128**place for place, byte in enumerate(encoded)) == value
    assert [byte >= 0x80 for byte in encoded] == [True] * (len(encoded) - 1) + [False]
    assert len(encoded) == 1 + sum(value >= limit for limit in (128, 128**2, 128**3))
    at, end = len(around), len(around) + len(encoded)
    assert decode_varint(around + encoded + around, at, end + len(around)) == (value, end)


@quick
@given(value=st.sampled_from(EDGES) | st.integers(0, EDGES[-1]), data=st.data())
def test_cut_off(value: int, data: st.DataObject) -> None:
    """The end given is kept to, even where the buffer goes on."""
    encoded = encode_varint(value)
    cut = data.draw(st.integers(0, len(encoded) - 1))
    with pytest.raises(MalformedPacket):
        decode_varint(encoded + b"\0", 0, cut)


@quick
@example(encoded=b"\x80\x00")
@example(encoded=b"\xff\xff\xff\xff\x00")
@given(encoded=st.binary(max_size=6) | st.lists(st.integers(0x80, 0xFF), max_size=5).map(bytes))
def test_any_bytes_are_one_value_or_malformed(encoded: bytes) -> None:
    """What is accepted is exactly what the encoder writes: no value has a second spelling."""
    try:
        value, at = decode_varint(encoded, 0, len(encoded))
    except MalformedPacket:
        whole = [place for place in range(min(4, len(encoded))) if encoded[place] < 0x80][:1]
        assert not whole or (whole != [0] and encoded[whole[0]] == 0), "it was well-formed"
    else:
        assert encode_varint(value) == encoded[:at]
