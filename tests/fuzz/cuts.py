"""Ways to cut a stream of bytes into the chunks in which a socket could give it."""

from __future__ import annotations


def chunks_of(stream: bytes, pattern: int) -> list[bytes]:
    """`stream` in pieces: `pattern` 0 single bytes, 1 two halves, else lengths that differ and follow from it."""
    if pattern == 0:
        return [stream[at : at + 1] for at in range(len(stream))]
    if pattern == 1:
        return [stream[: len(stream) // 2], stream[len(stream) // 2 :]]
    chunks = []
    at = 0
    state = pattern
    while at < len(stream):
        state = (state * 1103515245 + 12345) & 0x7FFFFFFF
        size = 1 + (state >> 16) % (2 + pattern % 61)
        chunks.append(stream[at : at + size])
        at += size
    return chunks


def cut_at_packets(stream: bytes, pattern: int) -> list[bytes]:
    """`stream` cut where its packets end as far as that can be told, `pattern` % 3 + 1 packets to a chunk."""
    ends = []
    at = 0
    while (end := _end_of_packet(stream, at)) is not None:
        ends.append(end)
        at = end
    kept = [0, *ends[pattern % 3 :: pattern % 3 + 1]]
    return [stream[start:stop] for start, stop in zip(kept, [*kept[1:], len(stream)], strict=True)]


def _end_of_packet(stream: bytes, at: int) -> int | None:
    """Where the packet that begins at `at` ends; None if it is not whole or has no length."""
    length = shift = 0
    for body in range(at + 1, min(at + 5, len(stream))):
        length |= (stream[body] & 0x7F) << shift
        shift += 7
        if stream[body] < 0x80:
            end = body + 1 + length
            return end if end <= len(stream) else None
    return None
