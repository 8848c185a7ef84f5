"""Messages come out as they went in, oldest first, in short reads, whatever happens to the queue meanwhile."""

from __future__ import annotations

import sqlite3
from pathlib import Path

import pytest

from edge_broker.core.ops import Batch, QueueWrite
from edge_broker.store import DATABASE_NAME, exporting
from edge_broker.store.exporting import Gaps, export_queue, export_retained
from edge_broker.store.inspection import Inspection
from tests.store.sample import WALL_OFFSET, look_inside, make_message, numbered, opened, queue_batch

OUTBOX = 50


async def fill(directory: Path, segments: int = 20) -> None:
    """An outbox with 10 messages in each segment; 3 and 4 are acknowledged."""
    async with opened(directory) as (store, _):
        await store.commit(Batch(outboxes=[(OUTBOX, "cloud/1a2b3c4d")]))
        for first in range(1, 10 * segments, 10):
            await store.commit(queue_batch(OUTBOX, numbered(first, 10)))
        await store.commit(Batch(queues=[QueueWrite(OUTBOX, [], 3, [3, 4], [])]))


def numbers(directory: Path, from_number: int = 0, to_number: int | None = None) -> list[int | None]:
    gaps = Gaps()
    with Inspection(directory) as inspection:
        found = [one.number for one in export_queue(inspection, OUTBOX, gaps, from_number, to_number)]
    assert gaps.lines == []
    return found


async def test_everything_that_waits_comes_in_order(state_dir: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    await fill(state_dir)
    assert numbers(state_dir) == list(range(5, 201))
    monkeypatch.setattr(exporting, "_PLACES_AT_ONCE", 1)
    assert numbers(state_dir) == list(range(5, 201))
    monkeypatch.setattr(exporting, "_PAGE_BYTES", 10)
    assert numbers(state_dir) == list(range(5, 201))


@pytest.mark.parametrize(
    ("first", "last", "expected"),
    [
        (7, 7, [7]),
        (28, 32, [28, 29, 30, 31, 32]),
        (199, 500, [199, 200]),
        (0, 5, [5]),
        (201, None, []),
        (9, 8, []),
    ],
)
async def test_a_range_of_numbers(state_dir: Path, first: int, last: int | None, expected: list[int]) -> None:
    await fill(state_dir)
    assert numbers(state_dir, first, last) == expected


async def test_a_message_comes_out_as_it_went_in(state_dir: Path) -> None:
    message = make_message("a/b", b"\xff\x00", qos=2, retain=True, expires_at=200.5)
    async with opened(state_dir) as (store, _):
        await store.commit(Batch(outboxes=[(OUTBOX, "cloud")]))
        await store.commit(queue_batch(OUTBOX, [(1, message)]))
    with Inspection(state_dir) as inspection:
        (found,) = export_queue(inspection, OUTBOX, Gaps())
    got = found.message
    assert (got.topic, got.payload, got.qos, got.retain) == ("a/b", b"\xff\x00", 2, True)
    assert (got.epoch, got.sequence) == (3, 7)
    assert got.received_at == WALL_OFFSET + 100.25
    assert got.expires_at == WALL_OFFSET + 200.5


async def test_the_end_is_where_it_was_when_the_export_began(
    state_dir: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A running broker appends and its recipient acknowledges: the export ends, and gives nothing acknowledged."""
    await fill(state_dir)
    monkeypatch.setattr(exporting, "_PLACES_AT_ONCE", 1)
    async with opened(state_dir) as (store, _):
        with Inspection(state_dir) as inspection:
            export = export_queue(inspection, OUTBOX, Gaps())
            got = [next(export).number for _ in range(6)]
            await store.commit(queue_batch(OUTBOX, numbered(201, 10), head=100))
            got += [one.number for one in export]
    assert got == [*range(5, 11), *range(100, 201)]


async def test_a_slow_reader_does_not_hold_the_log(state_dir: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    await fill(state_dir)
    monkeypatch.setattr(exporting, "_PLACES_AT_ONCE", 1)
    async with opened(state_dir) as (store, _):
        with Inspection(state_dir) as inspection:
            export = export_queue(inspection, OUTBOX, Gaps())
            next(export)
            await store.commit(Batch(retained={"r": make_message("r", retain=True)}))
            writer = sqlite3.connect(state_dir / DATABASE_NAME, timeout=0.0)
            assert writer.execute("PRAGMA wal_checkpoint(TRUNCATE)").fetchone()[0] == 0
            writer.close()
            retained = export_retained(inspection, Gaps())
            assert next(retained).message.topic == "r"
            writer = sqlite3.connect(state_dir / DATABASE_NAME, timeout=0.0)
            await store.commit(Batch(retained={"s": make_message("s", retain=True)}))
            assert writer.execute("PRAGMA wal_checkpoint(TRUNCATE)").fetchone()[0] == 0
            writer.close()


async def test_what_cannot_be_read_is_told_and_the_rest_comes(state_dir: Path) -> None:
    await fill(state_dir)
    database = look_inside(state_dir)
    database.execute("UPDATE segment SET body = x'00' WHERE first_number = 21")
    database.close()
    gaps = Gaps()
    with Inspection(state_dir) as inspection:
        got = [one.number for one in export_queue(inspection, OUTBOX, gaps)]
    assert got == [*range(5, 21), *range(31, 201)]
    assert len(gaps.lines) == 1
    assert gaps.lines[0].startswith("messages 21 to 30 cannot be read: the checksum")


async def test_retained_messages_come_by_topic(state_dir: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    topics = [f"r/{n:03}" for n in range(450)]
    async with opened(state_dir) as (store, _):
        await store.commit(Batch(retained={topic: make_message(topic, retain=True) for topic in topics}))
    database = look_inside(state_dir)
    database.execute("UPDATE retained SET body = x'00' WHERE topic = 'r/449'")
    database.close()
    for page_bytes in (1 << 20, 10):
        monkeypatch.setattr(exporting, "_PAGE_BYTES", page_bytes)
        gaps = Gaps()
        with Inspection(state_dir) as inspection:
            found = list(export_retained(inspection, gaps))
        assert [one.message.topic for one in found] == topics[:-1]
        assert {one.number for one in found} == {None}
        assert [line for line in gaps.lines if "'r/449'" in line] == gaps.lines
        assert len(gaps.lines) == 1
