"""The write-ahead log as SQLite takes it, and what it drops of one that is damaged: counted, kept and told."""

from __future__ import annotations

import random
import sqlite3
import struct
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from edge_broker.core.ops import Batch
from edge_broker.store import DATABASE_NAME
from edge_broker.store.inspection import Inspection
from edge_broker.store.schema import PAGE_BYTES
from edge_broker.store.status import read_status
from edge_broker.store.verification import verify
from edge_broker.store.write_ahead_log import LogState, examine
from tests.store.sample import look_inside, numbered, opened, queue_batch, read_all

COMMITS = 12
FRAME_BYTES = 24 + PAGE_BYTES
LOG = f"{DATABASE_NAME}-wal"


async def fill(directory: Path, earlier: int = 0) -> tuple[bytes, bytes]:
    """A database and its log of 12 commits, as after a kill; `earlier` commits went into the database before."""
    async with opened(directory) as (store, _):
        await store.commit(Batch(outboxes=[(1, "up")]))
        for number in range(1, earlier + 1):
            await store.commit(queue_batch(1, numbered(number, 1, size=6000)))
        await store._writing.run(lambda c: c.execute("PRAGMA wal_checkpoint(RESTART)").fetchone())
        for number in range(earlier + 1, earlier + COMMITS + 1):
            await store.commit(queue_batch(1, numbered(number, 1, size=3000)))
        return (directory / DATABASE_NAME).read_bytes(), (directory / LOG).read_bytes()


def put_back(directory: Path, database: bytes, log: bytes) -> Path:
    for file in directory.iterdir():
        if file.name.startswith(f"{DATABASE_NAME}-"):
            file.unlink()
    (directory / DATABASE_NAME).write_bytes(database)
    (directory / LOG).write_bytes(log)
    return directory / DATABASE_NAME


def taken_by_sqlite(directory: Path) -> int:
    """The frames that SQLite itself takes; spoils the files."""
    database = look_inside(directory)
    try:
        return max(0, int(database.execute("PRAGMA wal_checkpoint(PASSIVE)").fetchone()[1]))
    finally:
        database.close()


def commit_frames(log: bytes) -> list[int]:
    """Which frames end a commit, counted from 1."""
    places = enumerate(range(32, len(log) - 23, FRAME_BYTES), 1)
    return [number for number, at in places if struct.unpack_from(">I", log, at + 4)[0]]


def flipped(log: bytes, frame: int, at: int = 24 + 100) -> bytes:
    place = 32 + (frame - 1) * FRAME_BYTES + at
    return log[:place] + bytes([log[place] ^ 0x10]) + log[place + 1 :]


async def test_a_whole_log_loses_nothing(state_dir: Path) -> None:
    database, log = await fill(state_dir)
    path = put_back(state_dir, database, log)
    state = examine(path)
    assert state == LogState(committed_frames=len(log) // FRAME_BYTES)
    assert list(state.lines()) == []
    assert taken_by_sqlite(state_dir) == state.committed_frames


async def test_frames_of_an_earlier_log_are_not_missed(state_dir: Path) -> None:
    database, log = await fill(state_dir, earlier=40)
    path = put_back(state_dir, database, log)
    state = examine(path)
    assert state.committed_frames < len(log) // FRAME_BYTES - 20, "there are some behind"
    assert (state.tail_frames, state.dropped_frames) == (0, 0)
    assert taken_by_sqlite(state_dir) == state.committed_frames


def test_without_a_log_nothing_is_said(state_dir: Path) -> None:
    assert examine(state_dir / DATABASE_NAME) == LogState()
    (state_dir / LOG).touch()
    assert examine(state_dir / DATABASE_NAME) == LogState()
    (state_dir / LOG).unlink()
    (state_dir / LOG).mkdir()
    assert examine(state_dir / DATABASE_NAME) == LogState()


@pytest.mark.parametrize("at", [24 + 100, 16, 0, 8], ids=["page", "checksum", "page number", "salt"])
async def test_a_flipped_bit_takes_all_that_follows(state_dir: Path, at: int) -> None:
    database, log = await fill(state_dir)
    frames, marks = len(log) // FRAME_BYTES, commit_frames(log)
    bad = marks[3] + 1
    path = put_back(state_dir, database, flipped(log, bad, at))
    state = examine(path)
    left = len(marks) - 4
    assert state == LogState(marks[3], frames - marks[3], frames - marks[3], left, bad)
    assert state.lost_commits == left - 1
    assert f"damaged in frame {bad}" in next(state.lines())
    assert taken_by_sqlite(state_dir) == state.committed_frames


async def test_two_wild_pages_do_not_hide_what_follows(state_dir: Path) -> None:
    database, log = await fill(state_dir)
    bad = commit_frames(log)[3] + 1
    place = 32 + (bad - 1) * FRAME_BYTES
    wild = random.Random(1).randbytes(3 * FRAME_BYTES)
    path = put_back(state_dir, database, log[:place] + wild + log[place + len(wild) :])
    assert examine(path).dropped_frames == len(log) // FRAME_BYTES - bad + 1


async def test_a_damaged_header_takes_all(state_dir: Path) -> None:
    database, log = await fill(state_dir)
    path = put_back(state_dir, database, bytes([log[0] ^ 1]) + log[1:4] + bytes([log[4] ^ 1]) + log[5:])
    state = examine(path)
    assert (state.dropped_frames, state.bad_frame) == (len(log) // FRAME_BYTES, 0)
    assert "damaged in its header" in next(state.lines())
    assert taken_by_sqlite(state_dir) == 0


async def test_a_commit_that_was_cut_off_was_acknowledged_to_nobody(state_dir: Path) -> None:
    database, log = await fill(state_dir)
    last = commit_frames(log)[-1]
    for end in (32 + last * FRAME_BYTES - 1, 32 + (last - 1) * FRAME_BYTES + 24):
        state = examine(put_back(state_dir, database, log[:end]))
        assert (state.dropped_commits, state.lost_commits) == (1, 0)
        assert "acknowledged to nobody" in "".join(state.lines())
        assert verify(state_dir).sound
    cut = log[: 32 + commit_frames(log)[-2] * FRAME_BYTES]
    assert examine(put_back(state_dir, database, cut)).dropped_frames == 0


async def test_the_beginning_of_a_commit_is_none(state_dir: Path) -> None:
    database, log = await fill(state_dir)
    marks = commit_frames(log)
    begun = (
        next(n for n, m in zip(marks[1:], marks, strict=False) if n > m + 1) - 1
    )  # not the last frame of its commit
    state = examine(put_back(state_dir, database, log[: 32 + begun * FRAME_BYTES]))
    assert state.tail_frames > 0
    assert state.dropped_frames == 0


async def test_what_a_checkpoint_brought_into_the_database_is_not_missed(state_dir: Path) -> None:
    async with opened(state_dir) as (store, _):
        await store.commit(Batch(outboxes=[(1, "up")]))
        for number in range(1, COMMITS):
            await store.commit(queue_batch(1, numbered(number, 1, size=3000)))
        await store._writing.run(lambda c: c.execute("PRAGMA wal_checkpoint(PASSIVE)").fetchone())
        database, log = (state_dir / DATABASE_NAME).read_bytes(), (state_dir / LOG).read_bytes()
    path = put_back(state_dir, database, flipped(log, commit_frames(log)[3] + 1))
    assert examine(path) == LogState()


async def test_a_log_beyond_all_measure_is_left_alone(
    state_dir: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("edge_broker.store.write_ahead_log.MOST_BYTES", 1000)
    database, log = await fill(state_dir)
    assert examine(put_back(state_dir, database, flipped(log, 3))) == LogState(checked=False)


# ---- as the store tells it


async def test_the_loss_is_told_everywhere(state_dir: Path, caplog: pytest.LogCaptureFixture) -> None:
    database, log = await fill(state_dir)
    marks = commit_frames(log)
    damaged = flipped(log, marks[5] + 1)
    put_back(state_dir, database, damaged)
    with Inspection(state_dir) as inspection:
        before = read_status(inspection)
    assert before.log_problems[0].startswith(f"the write-ahead log is damaged in frame {marks[5] + 1}")
    assert any("the write-ahead log is damaged" in problem for problem in verify(state_dir).problems)
    put_back(state_dir, database, damaged)
    async with opened(state_dir) as (store, _):
        assert store.recovery is None
        assert store.log_state.lost_commits == len(marks) - 6 - 1
        kept = [number for number, _ in await read_all(store, 1)]
        assert kept == list(range(1, len(kept) + 1))
        assert len(kept) < COMMITS
    assert "the write-ahead log is damaged" in caplog.text
    assert "had been acknowledged" in caplog.text
    with Inspection(state_dir) as inspection:
        after = read_status(inspection)
    assert after.log_problems == []
    (aside,) = after.set_aside
    assert aside.file.startswith(f"{LOG}.damaged-")
    assert (state_dir / aside.file).read_bytes() == damaged
    assert aside.report == list(store.log_state.lines())


async def test_leftovers_of_a_cut_off_commit_are_never_taken_for_damage(state_dir: Path) -> None:
    """The next run writes over some of them only, and is killed too."""
    database, log = await fill(state_dir)
    last = commit_frames(log)[-1]
    put_back(state_dir, database, flipped(log, last - 1))
    async with opened(state_dir) as (store, _):
        assert store.log_state.dropped_commits >= 1
        await store.commit(queue_batch(1, numbered(500, 1)))
        again = (state_dir / DATABASE_NAME).read_bytes(), (state_dir / LOG).read_bytes()
    assert examine(put_back(state_dir, *again)).tail_frames == 0


# ---- properties


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, bytes, bytes]:
    """A directory, and a database and its log with leftovers of an earlier one behind it."""
    import asyncio

    directory = tmp_path_factory.mktemp("whole")
    return directory, *asyncio.run(fill(directory, earlier=20))


@settings(max_examples=150, deadline=None)
@given(data=st.data())
def test_it_counts_as_sqlite_does_whatever_is_wrong(
    whole: tuple[Path, bytes, bytes], data: st.DataObject
) -> None:
    directory, database, log = whole
    for _ in range(data.draw(st.integers(1, 3))):
        at = data.draw(st.integers(0, len(log) - 1))
        if data.draw(st.booleans()):
            wild = data.draw(st.binary(min_size=1, max_size=40))
            log = log[:at] + wild + log[at + len(wild) :]
        else:
            log = log[: max(at, 1)]
    path = put_back(directory, database, log)
    state = examine(path)
    assert 0 <= state.dropped_commits <= state.dropped_frames <= len(log) // FRAME_BYTES + 1
    try:
        taken = taken_by_sqlite(directory)
    except sqlite3.DatabaseError:
        return
    if state != LogState():  # an unharmed database may hide what is lost of its log
        assert state.committed_frames == taken
