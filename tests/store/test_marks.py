"""Sets of numbers survive, and are small where numbers come in runs."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from edge_broker.store.faults import Damaged
from edge_broker.store.marks import decode_marks, encode_marks

offsets = st.sets(st.integers(0, 70_000), max_size=200).map(sorted)


@given(st.integers(1, 2**50), offsets, offsets)
def test_what_goes_in_comes_out(head: int, acknowledged: list[int], released: list[int]) -> None:
    acknowledged = [head + n for n in acknowledged]
    released = [head + n for n in released]
    assert decode_marks(head, encode_marks(head, acknowledged, released)) == (acknowledged, released, 0)


def test_no_marks_take_no_bytes() -> None:
    assert encode_marks(5, [], []) == b""


def test_a_long_run_takes_few_bytes() -> None:
    assert len(encode_marks(1, list(range(2, 60_002)), [])) <= 6


@pytest.mark.parametrize("cut", range(1, 4))
def test_marks_that_end_early_are_damaged(cut: int) -> None:
    marks = encode_marks(1, [5, 6, 9], [12])
    with pytest.raises(Damaged):
        decode_marks(1, marks[:-cut])


def test_marks_with_something_behind_them_are_damaged() -> None:
    with pytest.raises(Damaged):
        decode_marks(1, encode_marks(1, [5], []) + b"\0")
