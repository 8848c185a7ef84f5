"""`verify`: sound where everything is as it was written, and exact where it is not."""

from __future__ import annotations

import sqlite3
from pathlib import Path

import pytest

from edge_broker.core.ops import Batch, QueueWrite, SubscriptionRecord
from edge_broker.errors import StoreError
from edge_broker.store import DATABASE_NAME, verification
from edge_broker.store.inspection import Inspection, Marks
from edge_broker.store.rows import checksum
from edge_broker.store.schema import PAGE_BYTES
from edge_broker.store.segment import tombstone
from edge_broker.store.verification import Verification, verify
from tests.store.sample import (
    look_inside,
    make_message,
    numbered,
    opened,
    queue_batch,
    read_all,
    session_batch,
)

SESSION, OUTBOX = 1, 50
CLOUD = "bridge:cloud"
SEGMENTS, PER_SEGMENT = 40, 25


async def fill(directory: Path) -> None:
    """An outbox of 1,000 messages in 40 segments, a session with holes where messages were acknowledged in time."""
    async with opened(directory) as (store, _):
        batch = session_batch(SESSION, 2)
        batch.outboxes = [(OUTBOX, "cloud")]
        batch.subscriptions = [SubscriptionRecord(n, f"a/{n}", 1, False, False, 0) for n in (1, 2)]
        batch.inbound = {(1, 10): True}
        batch.retained = {f"r/{n}": make_message(f"r/{n}", b"kept", retain=True) for n in range(30)}
        kept = [pair for pair in numbered(1, 20) if pair[0] not in (1, 2, 7, 8, 20)]
        batch.queues = [QueueWrite(SESSION, kept, 3, [7, 8, 20], [9])]
        await store.commit(batch)
        for first in range(1, SEGMENTS * PER_SEGMENT, PER_SEGMENT):
            await store.commit(queue_batch(OUTBOX, numbered(first, PER_SEGMENT, size=200)))


def after(directory: Path, *statements: str) -> Verification:
    """What is found after those changes, made behind the broker's back."""
    database = look_inside(directory)
    for statement in statements:
        database.execute(statement)
    database.close()
    return verify(directory)


async def test_a_sound_store_is_sound(state_dir: Path) -> None:
    await fill(state_dir)
    seen: list[int] = []
    found = verify(state_dir, progress=seen.append)
    assert list(found.lines()) == []
    assert found.sound
    assert found.structure_checked
    assert found.messages == SEGMENTS * PER_SEGMENT + 15
    assert found.queues["session:client-1"].messages == 15
    assert found.rows == {
        "meta": 6, "session": 2, "subscription": 2, "inbound": 1, "outbox": 1, "queue": 1 + 1, "retained": 30,
    }  # fmt: skip
    assert seen == sorted(seen)
    assert seen[-1] == found.messages


async def test_a_wrong_byte_names_its_messages(state_dir: Path) -> None:
    await fill(state_dir)
    change = "UPDATE segment SET body = x'00' || substr(body, 2) WHERE queue_id = 50 AND first_number IN (26, 51, 976)"
    found = after(state_dir, change)
    assert not found.sound
    stretches = [(first, last) for first, last, _ in found.queues[CLOUD].damaged]
    assert stretches == [(26, 50), (51, 75), (976, 1000)]
    assert all("checksum" in why for _, _, why in found.queues[CLOUD].damaged)
    assert found.queues[CLOUD].missing == []
    assert found.queues["session:client-1"].sound


async def test_a_row_that_is_gone_is_missing(state_dir: Path) -> None:
    await fill(state_dir)
    found = after(state_dir, "DELETE FROM segment WHERE queue_id = 50 AND first_number BETWEEN 101 AND 126")
    assert found.queues[CLOUD].missing == [(101, 150)]
    assert list(found.lines()) == ["bridge:cloud: messages 101 to 150 are missing"]


async def test_a_hole_counts_only_where_nothing_was_acknowledged(state_dir: Path) -> None:
    """The marks of the session explain its holes; without them, they are losses."""
    await fill(state_dir)
    async with opened(state_dir) as (store, _):
        await store.commit(Batch(queues=[QueueWrite(SESSION, [], 3, [8, 20], [9])]))
    found = verify(state_dir)
    assert found.queues["session:client-1"].missing == [(7, 7)]


async def test_what_was_kept_in_memory_only_is_told_from_what_is_missing(state_dir: Path) -> None:
    """Numbers before, between and inside segments; only the row that says so makes them no fault."""
    async with opened(state_dir) as (store, _):
        await store.commit(Batch(outboxes=[(OUTBOX, "cloud")]))
        kept = [pair for pair in numbered(1, 100) if pair[0] not in (1, 2, 10, 11, 12, 50, 60)]
        first, second = kept[:30], kept[30:]
        await store.commit(
            Batch(queues=[QueueWrite(OUTBOX, first, 1, [11], [], volatile=[(1, 2), (10, 12)])])
        )
        await store.commit(Batch(queues=[QueueWrite(OUTBOX, second, 1, [11], [], volatile=[(50, 50)])]))
        far = numbered(200_000, 2)
        await store.commit(Batch(queues=[QueueWrite(OUTBOX, far, 1, [11], [], volatile=[(101, 199_990)])]))
        assert [number for number, _ in await read_all(store, OUTBOX)] == [n for n, _ in kept + far]
    found = verify(state_dir)
    assert found.queues[CLOUD].not_on_disk == [(1, 2), (10, 10), (12, 12), (50, 50), (101, 199_990)]
    assert found.queues[CLOUD].missing == [(60, 60), (199_991, 199_999)]
    assert found.messages == len(kept) + 2
    assert not found.sound


async def test_what_was_lost_before_is_told_and_is_no_fault(state_dir: Path) -> None:
    await fill(state_dir)
    database = look_inside(state_dir)
    _, _, _, count, crc, body = tombstone(OUTBOX, 26, 50)
    database.execute(
        "UPDATE segment SET count = ?, crc = ?, body = ? WHERE queue_id = 50 AND first_number = 26",
        (count, crc, body),
    )
    database.close()
    found = verify(state_dir)
    assert found.sound
    assert list(found.lines()) == ["bridge:cloud: messages 26 to 50 were lost before, and reported then"]


@pytest.mark.parametrize(
    ("statement", "said"),
    [
        ("UPDATE session SET expiry_interval = 1 WHERE session_id = 2", "table session: the row 2 is damaged"),
        ("UPDATE session SET expiry_interval = x'00' WHERE session_id = 2", "table session: the row 2 is damaged"),
        ("UPDATE subscription SET qos = 2 WHERE session_id = 2", "table subscription: the row 2, a/2 is damaged"),
        ("UPDATE retained SET body = x'00' WHERE topic = 'r/7'", "table retained: the row r/7 is damaged"),
        ("UPDATE meta SET value = 9 WHERE name = 'epoch'", "table meta: the row epoch is damaged"),
        ("UPDATE outbox SET name = 'clout'", "table outbox: the row 50 is damaged"),
        ("UPDATE queue SET marks = x'01' WHERE queue_id = 1", "table queue: the row 1 is damaged"),
        ("UPDATE inbound SET packet_id = 11", "table inbound: the row 1, 11 is damaged"),
        ("DELETE FROM session WHERE session_id = 2", "table subscription: 1 rows belong to no session"),
        ("DELETE FROM session WHERE session_id = 1", "queue 1 holds 15 messages, but whose it was is not there"),
        ("DELETE FROM outbox", "queue 50 holds 1000 messages, but whose it was is not there"),
    ],
)  # fmt: skip
async def test_small_rows_are_checked_too(state_dir: Path, statement: str, said: str) -> None:
    await fill(state_dir)
    found = after(state_dir, statement)
    assert not found.sound
    assert any(said in line for line in found.lines()), list(found.lines())


async def test_a_page_of_rubbish_costs_its_own_messages_only(state_dir: Path) -> None:
    """A page of bodies: the segments in it are named, the others are read."""
    await fill(state_dir)
    path = state_dir / DATABASE_NAME
    raw = bytearray(path.read_bytes())
    at = raw.index(b"500 " + bytes(100)) // PAGE_BYTES * PAGE_BYTES
    raw[at : at + PAGE_BYTES] = b"\xee" * PAGE_BYTES
    path.write_bytes(raw)
    found = verify(state_dir)
    damaged = found.queues[CLOUD].damaged
    assert damaged
    hit = {n for first, last, _ in damaged for n in range(first, last + 1)}
    assert 500 in hit
    assert len(hit) <= 4 * PER_SEGMENT
    assert found.queues[CLOUD].messages == SEGMENTS * PER_SEGMENT - len(hit)
    assert found.queues[CLOUD].missing == []


async def test_a_damaged_index_is_told(state_dir: Path) -> None:
    await fill(state_dir)
    with look_inside(state_dir) as database:
        root = database.execute("SELECT rootpage FROM sqlite_schema WHERE name = 'segment_place'").fetchone()[
            0
        ]
    database.close()
    with (state_dir / DATABASE_NAME).open("r+b") as file:
        file.seek((root - 1) * PAGE_BYTES)
        file.write(b"\xee" * PAGE_BYTES)
    found = verify(state_dir)
    assert not found.sound
    assert any("queues cannot be listed" in line or "nothing is known from" in line for line in found.lines())


@pytest.mark.parametrize("content", [b"", b"no database at all" * 1000])
def test_a_file_that_is_no_database_is_unsound(state_dir: Path, content: bytes) -> None:
    (state_dir / DATABASE_NAME).write_bytes(content)
    found = verify(state_dir)
    assert not found.sound
    assert "cannot be opened" in next(found.lines())


def test_where_there_is_nothing_nothing_is_verified(state_dir: Path) -> None:
    with pytest.raises(StoreError, match="there is no store"):
        verify(state_dir)


async def test_the_structure_of_a_large_file_waits_for_the_broker_to_stop(
    state_dir: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    await fill(state_dir)
    monkeypatch.setattr(verification, "WHOLE_CHECK_BYTES", 1000)
    async with opened(state_dir):
        assert not verify(state_dir).structure_checked
        assert verify(state_dir, whole=True).structure_checked
    assert verify(state_dir).structure_checked
    assert not verify(state_dir, whole=False).structure_checked


async def test_no_read_outlasts_a_page(state_dir: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Between two pages the write-ahead log can be emptied: nobody holds a snapshot of it."""
    await fill(state_dir)
    monkeypatch.setattr(verification, "_PLACES_AT_ONCE", 3)
    async with opened(state_dir) as (store, _):
        busy = []

        def checkpoint(_: int) -> None:
            writer = sqlite3.connect(state_dir / DATABASE_NAME, isolation_level=None, timeout=0.0)
            busy.append(writer.execute("PRAGMA wal_checkpoint(TRUNCATE)").fetchone()[0])
            writer.close()

        await store.commit(queue_batch(OUTBOX, numbered(1001, 10)))
        assert verify(state_dir, progress=checkpoint).sound
        assert len(busy) > SEGMENTS / 3
        assert set(busy) == {0}


async def test_a_head_that_moves_meanwhile_is_no_loss(
    state_dir: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    await fill(state_dir)
    monkeypatch.setattr(verification, "_PLACES_AT_ONCE", 2)
    writes = []

    def drain(read: int) -> None:
        """The recipient acknowledges more than has been verified: rows vanish in front of the reader."""
        if read and len(writes) < 3:
            writes.append(read)
            database = look_inside(state_dir)
            head = 200 * len(writes)
            database.execute("DELETE FROM segment WHERE queue_id = 50 AND last_number < ?", (head,))
            database.execute("REPLACE INTO queue VALUES (50, ?, x'', ?)", (head, _crc(50, head)))
            database.close()

    found = verify(state_dir, whole=False, progress=drain)
    assert len(writes) == 3
    assert list(found.lines()) == []


async def test_marks_and_messages_are_of_one_moment(state_dir: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The recipient acknowledges between the two reads of one stretch."""
    await fill(state_dir)
    read_marks = Inspection.marks
    drained = []

    def marks_and_then_drain(inspection: Inspection, queue_id: int) -> Marks:
        found = read_marks(inspection, queue_id)
        if queue_id == OUTBOX and not drained:
            database = look_inside(state_dir)
            drained.append(
                database.execute("DELETE FROM segment WHERE queue_id = 50 AND last_number < 500").rowcount
            )
            database.execute("REPLACE INTO queue VALUES (50, 500, x'', ?)", (_crc(50, 500),))
            database.close()
        return found

    monkeypatch.setattr(Inspection, "marks", marks_and_then_drain)
    found = verify(state_dir, whole=False)
    assert drained == [19]
    assert list(found.lines()) == []


def _crc(queue_id: int, head: int) -> int:
    return checksum(queue_id, head, b"")
