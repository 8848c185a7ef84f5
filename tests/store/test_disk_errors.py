"""A disk that refuses to read or to sync: waited for, never taken for damage, and nothing assumed of what failed."""

from __future__ import annotations

import asyncio
import errno
import os
from pathlib import Path

import pytest

from edge_broker.core.ops import Batch
from edge_broker.errors import StoreError
from edge_broker.store import DATABASE_NAME, Store
from edge_broker.store import reading_trouble as trouble_module
from edge_broker.store.readback import Unreadable, read_back
from edge_broker.store.schema import PAGE_BYTES
from edge_broker.store.verification import verify
from edge_broker.wire.topics import TopicCache
from tests.store.faulty_disk import FaultyDisk, run_with
from tests.store.sample import look_inside, numbered, opened, queue_batch, read_all

MESSAGES = 2_000
_HERE = __name__


async def fill(directory: Path) -> None:
    """An outbox of 2,000 messages, all in the database and none in its log."""
    async with opened(directory) as (store, _):
        await store.commit(Batch(outboxes=[(1, "up")]))
        for first in range(1, MESSAGES, 100):
            await store.commit(queue_batch(1, numbered(first, 100, size=500)))


def set_aside(directory: Path) -> list[str]:
    return [file.name for file in directory.iterdir() if ".damaged-" in file.name]


@pytest.fixture
def disk(tmp_path: Path) -> FaultyDisk:
    return FaultyDisk(tmp_path)


# ---- in a process of its own, on that disk


async def reads_that_fail_for_a_while(directory: Path, disk: FaultyDisk) -> None:
    trouble_module._FIRST_RETRY_SECONDS = 0.01  # type: ignore[misc]
    for why in (errno.EIO, errno.ENXIO):
        async with opened(directory) as (store, _):
            disk.refuse_reads(why=why)
            for _ in range(3):
                with pytest.raises(StoreError, match="the disk reported an error") as caught:
                    await store.read_page(1, 1, 1000, 1 << 20)
                assert "dmesg" in caught.value.hint
            assert "the disk reported an error" in store.read_problem
            assert store.read_retry_seconds >= 0.01
            disk.heal()
            while store.read_problem:  # it notices by itself
                await asyncio.sleep(0.01)
            assert len(await read_all(store, 1)) == MESSAGES
            assert store.recovery is None


async def one_read_that_fails(directory: Path, disk: FaultyDisk) -> None:
    async with opened(directory) as (store, _):
        disk.refuse_reads(times=1)
        assert len(await read_all(store, 1)) == MESSAGES
        assert disk.count("reads_failed") == 1
        assert (store.recovery, store.read_problem) == (None, "")


async def a_commit_that_cannot_read(directory: Path, disk: FaultyDisk) -> None:
    async with opened(directory) as (store, _):
        disk.refuse_reads()
        with pytest.raises(StoreError, match="the disk reported an error"):
            await store.commit(queue_batch(1, [], head=MESSAGES // 2))
        disk.heal()
        await store.commit(queue_batch(1, [], head=MESSAGES // 2))
        assert len(await read_all(store, 1, MESSAGES // 2)) == MESSAGES // 2 + 1
        assert store.recovery is None


async def a_start_that_fails_for_a_moment(directory: Path, disk: FaultyDisk) -> None:
    disk.refuse_reads(times=5)
    async with opened(directory) as (store, _):
        assert disk.count("reads_failed") == 5
        assert store.recovery is None
        assert len(await read_all(store, 1)) == MESSAGES


async def a_start_on_a_broken_disk(directory: Path, disk: FaultyDisk) -> None:
    disk.refuse_reads()
    with pytest.raises(StoreError, match="the disk reported an error"):
        await Store.open(directory, topics=TopicCache(), wall_offset=lambda: 0.0)


def page_of(directory: Path, table: str) -> int:
    """Where in the file the first page of a table is."""
    database = look_inside(directory)
    root: int = database.execute("SELECT rootpage FROM sqlite_schema WHERE name = ?", (table,)).fetchone()[0]
    database.close()
    return (root - 1) * PAGE_BYTES


async def a_start_with_a_bad_sector(directory: Path, disk: FaultyDisk) -> None:
    place = page_of(directory, "inbound")
    disk.break_sectors(directory / DATABASE_NAME, place, place + PAGE_BYTES)
    async with opened(directory) as (store, _):
        assert store.recovery is not None
        assert f"cannot be read at byte {place}" in store.recovery.reason
        assert store.recovery.set_aside.exists()
        assert store.recovery.incomplete == {"inbound"}
        assert store.recovery.lost_messages == 0
        assert len(await read_all(store, 1)) == MESSAGES


async def bad_sectors_met_while_running(directory: Path, disk: FaultyDisk) -> None:
    middle = (directory / DATABASE_NAME).stat().st_size // 2 // PAGE_BYTES * PAGE_BYTES
    async with opened(directory) as (store, _):
        disk.break_sectors(directory / DATABASE_NAME, middle, middle + 2 * PAGE_BYTES)
        with pytest.raises(StoreError, match="the disk reported an error"):
            await read_all(store, 1)
        assert store.recovery is None, "for a moment it is waited for"
        trouble_module._LOST_SECONDS = 0.0  # type: ignore[misc]
        kept = await read_all(store, 1)
        assert store.recovery is not None
        assert len(kept) + store.recovery.lost_messages == MESSAGES
        assert 0 < store.recovery.lost_messages <= 400
        assert store.read_problem == ""


async def syncs_that_fail(directory: Path, disk: FaultyDisk) -> None:
    """What was written before the sync is not assumed to be there: the log is emptied, the batch written anew."""
    async with opened(directory) as (store, _):
        before = store._writing._conn
        disk.refuse_syncs()
        for _ in range(3):
            with pytest.raises(StoreError, match="the disk reported an error"):
                await store.commit(queue_batch(1, numbered(MESSAGES + 1, 10)))
        assert disk.count("syncs_failed") >= 3
        assert len(await read_all(store, 1)) == MESSAGES, "nobody sees what may not be on the disk"
        disk.heal()
        statements: list[str] = []
        await store._writing.run(lambda connection: connection.set_trace_callback(statements.append))
        assert store._writing._conn is not before
        log = directory / f"{DATABASE_NAME}-wal"
        assert log.stat().st_size == 0, "nothing builds on a log that may have holes"
        await store.commit(queue_batch(1, numbered(MESSAGES + 1, 10)))
        assert sum("REPLACE INTO segment" in one for one in statements) == 1
        assert [number for number, _ in await read_all(store, 1)] == list(range(1, MESSAGES + 11))


async def slow_syncs(directory: Path, disk: FaultyDisk) -> None:
    async with opened(directory) as (store, _):
        disk.slow_syncs(30)
        syncs = disk.count("syncs")
        await asyncio.gather(
            *(store.commit(queue_batch(1, numbered(MESSAGES + 1 + n * 10, 10))) for n in range(5)),
        )
        assert store.total_commit_seconds >= 5 * 0.03
        assert disk.count("syncs") >= syncs + 5
        assert len(await read_all(store, 1)) == MESSAGES + 50


async def a_look_at_a_broken_disk(directory: Path, disk: FaultyDisk) -> None:
    middle = (directory / DATABASE_NAME).stat().st_size // 2 // PAGE_BYTES * PAGE_BYTES
    disk.refuse_reads(middle, middle + PAGE_BYTES)
    found = verify(directory)
    assert not found.sound
    assert f"the disk refuses to give broker.db at byte {middle}: Input/output error" in found.problems[-1]
    disk.refuse_reads()
    with pytest.raises(StoreError, match="the disk reported an error"):
        verify(directory)


# ---- the tests


@pytest.mark.parametrize(
    "coroutine",
    [
        reads_that_fail_for_a_while,
        one_read_that_fails,
        a_commit_that_cannot_read,
        a_start_that_fails_for_a_moment,
        a_start_on_a_broken_disk,
        syncs_that_fail,
        slow_syncs,
        a_look_at_a_broken_disk,
    ],
    ids=lambda coroutine: coroutine.__name__,
)
async def test_a_good_file_is_never_set_aside(state_dir: Path, disk: FaultyDisk, coroutine: object) -> None:
    await fill(state_dir)
    run_with(disk, _HERE, coroutine.__name__, state_dir)  # type: ignore[attr-defined]
    assert set_aside(state_dir) == []
    assert verify(state_dir).sound


@pytest.mark.parametrize(
    "coroutine",
    [a_start_with_a_bad_sector, bad_sectors_met_while_running],
    ids=lambda coroutine: coroutine.__name__,
)
async def test_what_lies_beside_bad_sectors_is_saved(
    state_dir: Path, disk: FaultyDisk, coroutine: object
) -> None:
    await fill(state_dir)
    run_with(disk, _HERE, coroutine.__name__, state_dir)  # type: ignore[attr-defined]
    assert set_aside(state_dir)
    assert verify(state_dir).problems == []


async def test_what_is_refused_is_told_once_and_when_it_is_over(state_dir: Path, disk: FaultyDisk) -> None:
    await fill(state_dir)
    told = run_with(disk, _HERE, reads_that_fail_for_a_while.__name__, state_dir).stderr
    assert told.count("is not delivered until the store can be read again") == 2
    assert told.count("the store can be read again\n") == 2


def test_a_file_that_can_be_read_is_not_complained_of(state_dir: Path) -> None:
    path = state_dir / DATABASE_NAME
    assert read_back(path).refused == ()  # not even one that is not there
    path.write_bytes(os.urandom(1_000_001))
    path.with_name(f"{DATABASE_NAME}-wal").write_bytes(b"x")
    assert read_back(path).refused == ()


def test_what_cannot_be_read_is_named(state_dir: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = state_dir / DATABASE_NAME
    path.write_bytes(bytes(100 * PAGE_BYTES))
    real, asked = os.pread, []

    def pread(descriptor: int, count: int, offset: int) -> bytes:
        asked.append(offset)
        if offset <= 50 * PAGE_BYTES < offset + count:
            raise OSError(errno.EIO, "Input/output error")
        return real(descriptor, count, offset)

    monkeypatch.setattr(os, "pread", pread)
    found = read_back(path)
    assert found.refused == ((path, 50 * PAGE_BYTES),)
    assert not found.hopeless
    assert isinstance(found.error(), Unreadable)
    assert str(found.error()) == f"broker.db cannot be read at byte {50 * PAGE_BYTES}: Input/output error"
    asked.clear()
    assert read_back(path, found.refused[0], 1) == found
    assert set(asked) == {50 * PAGE_BYTES}, "where it was refused the last time is asked first"


async def test_damage_in_the_bytes_is_still_damage(state_dir: Path) -> None:
    await fill(state_dir)
    database = look_inside(state_dir)
    root = database.execute("SELECT rootpage FROM sqlite_schema WHERE name = 'segment_place'").fetchone()[0]
    database.close()
    with (state_dir / DATABASE_NAME).open("r+b") as file:
        file.seek((root - 1) * PAGE_BYTES)
        file.write(os.urandom(PAGE_BYTES))
    async with opened(state_dir) as (store, _):
        assert store.recovery is not None
        assert len(await read_all(store, 1)) == MESSAGES
    assert set_aside(state_dir)
