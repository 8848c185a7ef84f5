"""Sets of message numbers in few bytes: of a queue's, which are acknowledged, which released, and how far it was sent.

Numbers come in runs (a subscriber acknowledges in order, more or less), so a set is written as the lengths of gaps and
runs, each a variable-length integer: one run of 60,000 numbers takes five bytes.
"""

from __future__ import annotations

from edge_broker.store.faults import Damaged


def encode_marks(head: int, acknowledged: list[int], released: list[int], sent: int = 0) -> bytes:
    """Both sets, sorted numbers from `head` on, and the number `sent` if it is above `head`; no bytes for none of them."""
    if not acknowledged and not released and sent <= head:
        return b""
    out = bytearray()
    for numbers in (acknowledged, released):
        runs = _runs(numbers)
        _append_varint(out, len(runs))
        end = head
        for start, stop in runs:
            _append_varint(out, start - end)
            _append_varint(out, stop - start)
            end = stop
    if sent > head:
        _append_varint(out, sent - head)
    return bytes(out)


def decode_marks(head: int, marks: bytes) -> tuple[list[int], list[int], int]:
    """(acknowledged, released, sent) as given to `encode_marks`, `sent` 0 if not above `head`; `Damaged` for others."""
    if not marks:
        return [], [], 0
    sent = 0
    sets: list[list[int]] = []
    at = 0
    try:
        for _ in range(2):
            numbers: list[int] = []
            count, at = _read_varint(marks, at)
            end = head
            for _ in range(count):
                gap, at = _read_varint(marks, at)
                length, at = _read_varint(marks, at)
                numbers.extend(range(end + gap, end + gap + length))
                end += gap + length
            sets.append(numbers)
        if at < len(marks):
            above, at = _read_varint(marks, at)
            sent = head + above
    except IndexError:
        raise Damaged("the marks of a queue end too early") from None
    if at != len(marks) or sent == head:
        raise Damaged("the marks of a queue do not end where they should")
    return sets[0], sets[1], sent


def _runs(numbers: list[int]) -> list[tuple[int, int]]:
    """Sorted numbers as (first, one after the last) of each stretch without gaps."""
    runs: list[tuple[int, int]] = []
    start = stop = None
    for number in numbers:
        if number == stop:
            stop = number + 1
            continue
        if start is not None and stop is not None:
            runs.append((start, stop))
        start, stop = number, number + 1
    if start is not None and stop is not None:
        runs.append((start, stop))
    return runs


def _append_varint(out: bytearray, value: int) -> None:
    while value > 0x7F:
        out.append(value & 0x7F | 0x80)
        value >>= 7
    out.append(value)


def _read_varint(raw: bytes, at: int) -> tuple[int, int]:
    value = shift = 0
    while True:
        byte = raw[at]
        at += 1
        value |= (byte & 0x7F) << shift
        if byte < 0x80:
            return value, at
        shift += 7
