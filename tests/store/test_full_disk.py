"""A backlog that fills the disk: said, nothing lost, and once it is sent on the store finds its way out by itself."""

from __future__ import annotations

import asyncio
import contextlib
import os
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from edge_broker.core.ops import Batch
from edge_broker.core.pending import Pending
from edge_broker.core.queue import Queue
from edge_broker.errors import StoreError
from edge_broker.store import Journal, Store
from edge_broker.store import reserve as reserve_module
from edge_broker.store import store as store_module
from edge_broker.store.reserve import RESERVE_NAME, Reserve
from edge_broker.store.verification import verify
from tests.conftest import do_without
from tests.store.sample import make_message, numbered, opened, queue_batch, read_all

RESERVE_BYTES = 4 << 20


@contextlib.contextmanager
def disk_of(megabytes: int, path: Path) -> Iterator[Path]:
    """A tmpfs at `path`."""
    if os.geteuid() != 0:
        do_without("mounting a small disk needs root")
    path.mkdir()
    command = ["mount", "-t", "tmpfs", "-o", f"size={megabytes}m", "small", str(path)]
    mounted = subprocess.run(command, capture_output=True)
    if mounted.returncode:
        do_without(f"a small disk cannot be mounted here: {mounted.stderr.decode().strip()}")
    try:
        yield path
    finally:
        subprocess.run(["umount", "-l", path], check=True)


@pytest.fixture
def small_disk(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """A disk of 16 MB, of which the store keeps 4 MB in reserve."""
    monkeypatch.setattr(reserve_module, "RESERVE_BYTES", RESERVE_BYTES)
    monkeypatch.setattr(store_module, "RESERVE_BYTES", RESERVE_BYTES)
    with disk_of(16, tmp_path / "disk") as path:
        yield path


async def fill_up(store: Store) -> int:
    """Append to queue 1 until the disk is full; returns the number after the last one stored."""
    number = 1
    with contextlib.suppress(StoreError):
        while True:
            await store.commit(queue_batch(1, numbered(number, 100, size=1000)))
            number += 100
    assert store.full
    return number


async def test_acknowledgements_get_through_and_make_room(small_disk: Path) -> None:
    async with opened(small_disk / "data") as (store, _):
        await store.commit(Batch(outboxes=[(1, "up")]))
        assert (small_disk / "data" / RESERVE_NAME).stat().st_size == RESERVE_BYTES
        end = await fill_up(store)
        assert end > 5000
        assert not (small_disk / "data" / RESERVE_NAME).exists()
        with pytest.raises(StoreError, match="the disk is full"):  # the reserve is not for messages
            await store.commit(queue_batch(1, numbered(end, 100, size=1000)))
        assert len(await read_all(store, 1)) == end - 1
        await store.commit(queue_batch(1, [], head=end))
        # nobody freed anything on the disk: the room is inside the database
        await store.commit(queue_batch(1, numbered(end, 1000, size=1000), head=end))
        assert [number for number, _ in await read_all(store, 1, end)] == list(range(end, end + 1000))
        assert not store.full
    async with opened(small_disk / "data") as (store, snapshot):
        assert snapshot.queues[1].stored == 1000


async def test_it_opens_on_a_full_disk_and_goes_on_when_there_is_room(small_disk: Path) -> None:
    data = small_disk / "data"
    async with opened(data) as (store, _):
        await store.commit(Batch(outboxes=[(1, "up")]))
        await store.commit(queue_batch(1, numbered(1, 10)))
    ballast = small_disk / "somebody-elses"
    with contextlib.suppress(OSError), ballast.open("wb", buffering=0) as file:
        while file.write(bytes(4096)):
            pass
    assert os.statvfs(small_disk).f_bavail == 0
    async with opened(data) as (store, snapshot):
        assert snapshot.queues[1].stored == 10
        assert len(await read_all(store, 1)) == 10
        assert not (data / RESERVE_NAME).exists()
        ballast.unlink()
        await fill_up(store)
    async with opened(data) as (store, _):
        assert len(await read_all(store, 1)) > 1000


async def test_the_journal_finds_its_way_out_while_the_backlog_drains(small_disk: Path) -> None:
    """With the core's own queue: a recipient drains the backlog while publishers wait, and in the end nobody waits."""
    async with opened(small_disk / "data") as (store, snapshot):
        pending = Pending(snapshot.epoch, 256 << 10)
        queue = Queue(1, pending)
        pending.batch.outboxes.append((1, "up"))
        journal = Journal(
            store,
            pending,
            commit_delay_seconds=0.0,
            early_messages=1,
            early_bytes=1,
            after_settle=lambda: None,
        )
        appended = 0
        while journal.healthy:
            if pending.uncommitted_bytes < 500_000:  # as the router does: publishers are paused
                for _ in range(100):
                    queue.append(make_message(payload=bytes(1000)))
                appended += 100
                journal.poke()
            await asyncio.sleep(0)
        assert store.full
        waiting = pending.uncommitted_bytes
        assert waiting > 0

        queue.rewind()
        sent = 0
        while queue.depth:
            due = queue.next_to_send(0.0)
            if due is not None:
                sent += 1
                queue.complete(due[0])
            else:
                while pending.reads:
                    wanted = pending.reads.pop()
                    assert wanted.reading is not None
                    wanted.take_page(await store.read_page(1, wanted.reading[0], 1000, 256 << 10))
                journal.poke()
                await asyncio.sleep(0.001)
        assert sent == appended
        assert queue.lost == 0
        await asyncio.wait_for(journal.flush(), 20)
        assert journal.healthy
        assert pending.uncommitted_bytes == 0
        await journal.close()
    async with opened(small_disk / "data") as (_, snapshot):
        assert snapshot.queues[1].stored == 0
        assert snapshot.queues[1].next_number == appended + 1


def test_a_disk_that_is_small_anyway_keeps_nothing_back(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(reserve_module, "RESERVE_BYTES", 1 << 20)
    monkeypatch.setattr(Reserve, "_free_bytes", lambda _: 3 << 19)
    reserve = Reserve(tmp_path)
    assert not reserve.take()
    assert not reserve.held
    assert list(tmp_path.iterdir()) == []


def test_a_reserve_is_found_again(tmp_path: Path) -> None:
    assert Reserve(tmp_path).take()
    reserve = Reserve(tmp_path)
    assert reserve.held
    assert reserve.give_up()
    assert not reserve.give_up()
    assert list(tmp_path.iterdir()) == []


async def test_a_disk_of_two_megabytes_keeps_what_it_took(tmp_path: Path) -> None:
    """Too small for any reserve: what was committed before it was full is there, whatever failed after."""
    with disk_of(2, tmp_path / "tiny") as disk:
        ballast = disk / "somebody-elses"
        ballast.write_bytes(bytes(200_000))
        async with opened(disk / "data") as (store, _):
            assert not (disk / "data" / RESERVE_NAME).exists()
            await store.commit(Batch(outboxes=[(1, "up")]))
            end = await fill_up(store)
            assert end > 200
            for _ in range(3):
                with pytest.raises(StoreError, match="the disk is full"):
                    await store.commit(queue_batch(1, numbered(end, 20, size=1000)))
            assert [number for number, _ in await read_all(store, 1)] == list(range(1, end))
        ballast.unlink()
        async with opened(disk / "data") as (store, snapshot):
            assert (store.recovery, snapshot.queues[1].stored) == (None, end - 1)
            assert len(await read_all(store, 1)) == end - 1
        assert verify(disk / "data").sound
