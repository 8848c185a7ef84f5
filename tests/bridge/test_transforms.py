"""JSON to CBOR and back: what is meant stays, what cannot be written stays out, and nobody can make it dear."""

from __future__ import annotations

import math
import time
from typing import Any

import cbor2
import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from bridge.transforms import MAX_BYTES, MAX_DEPTH, TRANSFORMS, Transform

to_cbor = TRANSFORMS["json_to_cbor"].convert
to_json = TRANSFORMS["cbor_to_json"].convert

_texts = st.text(st.characters(exclude_categories=["Cs"]), max_size=20)
_floats = st.floats(allow_nan=False, allow_infinity=False)
_values: st.SearchStrategy[Any] = st.recursive(
    st.none() | st.booleans() | st.integers(-(1 << 100), 1 << 100) | _floats | _texts,
    lambda inner: st.lists(inner, max_size=5) | st.dictionaries(_texts, inner, max_size=5),
    max_leaves=30,
)  # fmt: skip


@given(_values)
def test_there_and_back_again(value: object) -> None:
    payload = msgspec.json.encode(value)
    there = to_cbor(payload)
    assert there is not None
    assert cbor2.loads(there) == msgspec.json.decode(payload)
    assert to_json(there) == payload


@pytest.mark.parametrize(
    ("cbor", "json"),
    [
        (cbor2.dumps({"t": 21.5, "ok": True, "n": None}), b'{"t":21.5,"ok":true,"n":null}'),
        (cbor2.dumps(b"\x00\xff"), b'"AP8="'),
        (cbor2.dumps(math.nan), b"null"),
        (cbor2.dumps(math.inf), b"null"),
        (bytes.fromhex("f7"), b"null"),  # undefined
        (bytes.fromhex("f0"), b"null"),  # a simple value that means nothing
        (cbor2.dumps({1: 2}), b'{"1":2}'),
        (cbor2.dumps(2**70), b"1180591620717411303424"),
        (bytes.fromhex("c11a514b67b0"), b"1363896240"),  # a point in time: what is in the tag
        (bytes.fromhex("c074") + b"2013-03-21T20:04:00Z", b'"2013-03-21T20:04:00Z"'),
        (bytes.fromhex("d9d9f7f5"), b"true"),  # "this is CBOR"
        (bytes.fromhex("d90bb88101"), b"[1]"),  # a tag that nobody knows
        (bytes.fromhex("c48221196ab3"), b"[-2,27315]"),  # a decimal fraction
        (bytes.fromhex("d9010283010203"), b"[1,2,3]"),  # a set
        (bytes.fromhex("9f0102ff"), b"[1,2]"),  # of indefinite length
        (b"\x43\xd8\x1c\x00", b'"2BwA"'),  # looks like sharing, and is a byte string
        (bytes.fromhex("82d81c8101d81d00"), b"[[1],[1]]"),  # shared, and harmless
    ],
)
def test_what_only_cbor_has(cbor: bytes, json: bytes) -> None:
    assert to_json(cbor) == json


@pytest.mark.parametrize(
    "payload",
    [
        b"",
        b"\xff",
        b"\x01\x02",  # two items
        b"\x82\x01",  # cut off
        bytes.fromhex("a201020103"),  # a key twice
        bytes.fromhex("a18001"),  # a list as a key
        b"\x81" * (MAX_DEPTH + 1) + b"\x01",
        b"\x81" * 100_000,
        b"\xc6" * 100_000 + b"\x01",
        b"\x9b\x00\x00\x00\xff\xff\xff\xff\xff",  # a list of so many, it says
        b"\x5b\x7f\xff\xff\xff\xff\xff\xff\xff",
        bytes.fromhex("d81c81d81d00"),  # a list that is in itself
        b"\x62\xff\xff",  # text that is not UTF-8
        b"\x5a" + MAX_BYTES.to_bytes(4, "big") + bytes(MAX_BYTES),
    ],
)
def test_what_is_no_cbor_is_left_alone(payload: bytes) -> None:
    assert to_json(payload) is None


@pytest.mark.parametrize(
    "payload",
    [
        b"",
        b"21.5 C",
        b"{",
        b"[1] 2",
        b"\xff",
        b'"\\ud800"',
        b"[" * (MAX_DEPTH + 1) + b"]" * (MAX_DEPTH + 1),
        b"[" * 100_000,
        b"[" * 100_000 + b"]" * 100_000,
        b'"' + b"x" * MAX_BYTES + b'"',
    ],
)
def test_what_is_no_json_is_left_alone(payload: bytes) -> None:
    assert to_cbor(payload) is None


def test_as_deep_as_allowed_is_allowed() -> None:
    deep = b"[" * MAX_DEPTH + b"]" * MAX_DEPTH
    cbor = to_cbor(deep)
    assert cbor is not None
    assert to_json(cbor) == deep
    wide = b"[" + b",".join([b"[1]"] * 100) + b"]"
    assert to_cbor(wide) == cbor2.dumps([[1]] * 100)


def _laughs(doublings: int) -> bytes:
    """Lists in lists, each with the one before it twice: short here, 2 ** `doublings` items where they are written out."""
    lists = b"\xd8\x1c\x81\x01"
    for number in range(doublings):
        lists += b"\xd8\x1c\x82" + (b"\xd8\x1d" + cbor2.dumps(number)) * 2
    return b"\x98" + bytes((doublings + 1,)) + lists


def _repeats() -> bytes:
    """One long text and very many references to it."""
    text = b"\x79\xff\x00" + b"x" * 0xFF00
    return b"\xd9\x01\x00\x82" + text + b"\x99\xc0\x00" + b"\xd8\x19\x00" * 0xC000


@pytest.mark.parametrize(
    "payload", [_laughs(60), _repeats(), _laughs(60).replace(b"\xd8\x1d", b"\xd9\x00\x1d")]
)
def test_shared_values_cannot_make_a_small_payload_large(payload: bytes) -> None:
    assert len(payload) < MAX_BYTES
    started = time.process_time()
    assert to_json(payload) is None
    assert (
        time.process_time() - started < 2
    )  # it takes milliseconds; written out, the first would take for ever


@given(st.binary(max_size=200))
def test_anything_is_taken_or_left(payload: bytes) -> None:
    json = to_json(payload)
    assert json is None or len(json) <= 8 * len(payload) + 8
    if json is not None:
        msgspec.json.decode(json)
    cbor = to_cbor(payload)
    assert cbor is None or len(cbor) <= 9 * len(payload)


def test_the_same_payload_is_written_once() -> None:
    asked: list[bytes] = []

    def convert(payload: bytes) -> bytes:
        asked.append(payload)
        return payload.upper()

    transform = Transform("text/plain", True, convert)
    assert [transform.convert(payload) for payload in (b"a", b"a", b"b", b"b", b"a")] == [
        b"A",
        b"A",
        b"B",
        b"B",
        b"A",
    ]
    assert asked == [b"a", b"b", b"a"]
