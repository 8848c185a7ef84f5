"""Streams of golden vectors, damaged on purpose: what Hypothesis draws from, and shrinks when something breaks."""

from __future__ import annotations

from collections.abc import Callable
from typing import Final

from hypothesis import strategies as st

from edge_broker.wire.properties import encode_varint
from tests.golden import MALFORMED, VALID

VERSIONS: Final = (4, 5)
_EVERY: Final = {vector.data for vector in VALID} | {vector.data for vector in MALFORMED}
SEEDS: Final = tuple(sorted(data for data in _EVERY if len(data) <= 200))
"""Every vector, good and bad, but the long ones."""
TELLING: Final = b"\x00\x01\x02\x03\x7f\x80\xff" + bytes(range(0x08, 0x2B))
"""Bytes that mean something nearly anywhere: edges of lengths, and property identifiers."""

Mutation = Callable[[bytes, int, int], bytes]
"""Takes bytes, a position in them, and a byte value."""


def _flip(data: bytes, at: int, value: int) -> bytes:
    return data[:at] + bytes((data[at] ^ (1 << value % 8),)) + data[at + 1 :]


def _set(data: bytes, at: int, value: int) -> bytes:
    return data[:at] + bytes((value,)) + data[at + 1 :]


def _insert(data: bytes, at: int, value: int) -> bytes:
    return data[:at] + bytes((value,)) + data[at:]


def _remove(data: bytes, at: int, value: int) -> bytes:
    return data[:at] + data[at + 1 + value % 4 :]


def _repeat(data: bytes, at: int, value: int) -> bytes:
    stop = at + 1 + value % 16
    return data[:stop] + data[at:stop] + data[stop:]


def _cut(data: bytes, at: int, _value: int) -> bytes:
    return data[:at]


MUTATIONS: Final[tuple[Mutation, ...]] = (_flip, _set, _insert, _remove, _repeat, _cut)


def _seeds(version: int) -> st.SearchStrategy[bytes]:
    """The vectors of `version`: each packet type as likely as any other, good ones far more likely than bad ones."""
    by_type: dict[int, list[bytes]] = {}
    for vector in VALID:
        if version in vector.versions and vector.data in SEEDS:
            by_type.setdefault(vector.data[0] >> 4, []).append(vector.data)
    good = st.sampled_from([st.sampled_from(seeds) for seeds in by_type.values()]).flatmap(
        lambda seeds: seeds
    )
    return good | good | good | st.sampled_from(SEEDS)


_SEEDS_OF: Final = {version: _seeds(version) for version in VERSIONS}


@st.composite
def damaged_packets(draw: st.DrawFn, version: int) -> bytes:
    """A vector after a few mutations; more often than not with a remaining length that is right again.

    Without the last, nearly all would wait for bytes that never come, or fail at the length, and reach nothing deeper.
    """
    data = draw(_SEEDS_OF[version])
    for mutate, place, value in draw(
        st.lists(
            st.tuples(
                st.sampled_from(MUTATIONS),
                st.integers(0, 2**16),
                st.sampled_from(TELLING) | st.integers(0, 255),
            ),
            max_size=3,
        )
    ):
        if data:
            data = mutate(data, place % len(data), value)
    if len(data) >= 2 and draw(st.integers(0, 3)):
        body = data[2:] if data[1] < 0x80 else data[3:]
        return data[:1] + encode_varint(len(body)) + body
    return data


streams: Final = st.sampled_from(
    [st.lists(damaged_packets(version), min_size=1, max_size=4).map(b"".join) for version in VERSIONS]
).flatmap(lambda packets: packets)
