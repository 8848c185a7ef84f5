"""A store on a card that is mounted read-only, as it is taken from a dead gateway: everything in it can be looked at."""

from __future__ import annotations

import asyncio
import os
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from edge_broker.core.ops import Batch
from edge_broker.errors import StoreError
from edge_broker.ops.health import assess
from edge_broker.ops.http import gather
from edge_broker.store import DATABASE_NAME, Store
from edge_broker.store.exporting import Gaps, export_queue
from edge_broker.store.inspection import Inspection
from edge_broker.store.status import read_status
from edge_broker.store.verification import verify
from edge_broker.wire.topics import TopicCache
from tests.conftest import do_without
from tests.integration.foreign import Paho
from tests.ops.gateway import gateway, until
from tests.store.sample import numbered, opened, queue_batch, read_all

MESSAGES = 100
ReadOnly = Callable[[], Path]


@pytest.fixture
def read_only(state_dir: Path) -> Iterator[ReadOnly]:
    """Mounts the state directory read-only, and says where."""
    if os.geteuid() != 0:
        do_without("mounting read-only needs root")
    view = state_dir.with_name("read-only")
    view.mkdir()
    mounted = False

    def mount() -> Path:
        nonlocal mounted
        done = subprocess.run(["mount", "--bind", state_dir, view], capture_output=True, text=True)
        if done.returncode:
            do_without(f"nothing can be mounted here: {done.stderr.strip()}")
        mounted = True
        subprocess.run(["mount", "-o", "remount,ro,bind", view], check=True)
        return view

    yield mount
    if mounted:
        subprocess.run(["umount", "-l", view], check=True)


async def write_in(directory: Path, end: str) -> None:
    """100 messages: `closed` properly, or `killed`, so that they are in the log only."""
    async with opened(directory) as (store, _):
        await store.commit(Batch(outboxes=[(1, "up")]))
        await store.commit(queue_batch(1, numbered(1, MESSAGES)))
        files = [file for file in directory.iterdir() if file.name.startswith(DATABASE_NAME)]
        copies = {file: file.read_bytes() for file in files}
    if end != "closed":
        for file, content in copies.items():
            file.write_bytes(content)
    if end == "killed, its index gone":
        (directory / f"{DATABASE_NAME}-shm").unlink()


@pytest.mark.parametrize("end", ["closed", "killed", "killed, its index gone"])
async def test_everything_can_be_looked_at(state_dir: Path, read_only: ReadOnly, end: str) -> None:
    await write_in(state_dir, end)
    view = read_only()
    before = {file.name: file.stat().st_mtime_ns for file in view.iterdir()}
    with Inspection(view) as inspection:
        (queue,) = read_status(inspection).queues
        assert (queue.name, queue.depth) == ("bridge:up", MESSAGES)
        gaps = Gaps()
        found = [one.number for one in export_queue(inspection, 1, gaps)]
        assert (found, gaps.lines) == (list(range(1, MESSAGES + 1)), [])
    verified = verify(view)
    assert verified.sound
    assert verified.structure_checked
    assert verified.messages == MESSAGES
    assert {file.name: file.stat().st_mtime_ns for file in view.iterdir()} == before


async def test_beside_a_broker_that_may_write(state_dir: Path, read_only: ReadOnly) -> None:
    async with opened(state_dir) as (store, _):
        await store.commit(Batch(outboxes=[(1, "up")]))
        view = read_only()
        for first in range(1, MESSAGES, 10):
            await store.commit(queue_batch(1, numbered(first, 10)))
            with Inspection(view) as inspection:
                assert inspection.holder is not None
                assert read_status(inspection).queues[0].depth == first + 9


def make_writable(view: Path) -> None:
    subprocess.run(["mount", "-o", "remount,rw,bind", view], check=True)


@pytest.mark.parametrize("end", ["closed", "killed, its index gone"])
async def test_it_opens_reads_and_refuses_to_commit_until_it_can(
    state_dir: Path, read_only: ReadOnly, end: str
) -> None:
    await write_in(state_dir, end)
    async with opened(state_dir) as (_, snapshot):
        before = snapshot.epoch
    if end != "closed":
        await write_in(state_dir, end)
    view = read_only()
    async with opened(view) as (store, snapshot):
        assert store.unwritable
        assert snapshot.epoch > before or end != "closed"
        assert len(await read_all(store, 1)) == MESSAGES
        for _ in range(2):
            with pytest.raises(StoreError, match="mounted read-only") as caught:
                await store.commit(queue_batch(1, numbered(MESSAGES + 1, 5)))
            assert "not mounted read-only" in caught.value.hint
        assert len(await read_all(store, 1)) == MESSAGES
        with pytest.raises(StoreError, match="another broker"):
            await Store.open(view, topics=TopicCache(), wall_offset=lambda: 0.0)
        make_writable(view)
        await store.commit(queue_batch(1, numbered(MESSAGES + 1, 5)))
        assert not store.unwritable
        assert len(await read_all(store, 1)) == MESSAGES + 5
    async with opened(view) as (store, again):
        assert again.epoch == snapshot.epoch + 1
        assert len(await read_all(store, 1)) == MESSAGES + 5
        assert store.recovery is None


async def test_without_a_store_on_it_there_is_nothing_to_begin_with(
    state_dir: Path, read_only: ReadOnly
) -> None:
    with pytest.raises(StoreError, match="Read-only file system") as caught:
        await Store.open(read_only(), topics=TopicCache(), wall_offset=lambda: 0.0)
    assert "may write" in caught.value.hint


async def test_a_broker_on_it_starts_and_says_what_is_wrong(state_dir: Path, read_only: ReadOnly) -> None:
    """Health is red; who needs no disk is served; what must be kept is acknowledged when it can be, not before."""
    async with gateway(state_dir) as broker:
        port = int(broker.listening[0].rsplit(":", 1)[1])
        await asyncio.to_thread(leave_a_session, port)
    view = read_only()
    async with gateway(view) as broker:
        await until(lambda: not broker.journal.healthy, "nothing is said")
        health = assess(gather(broker, time.monotonic()))
        assert (health.live, health.ready) == (True, False)
        assert "mounted read-only" in health.problems[0].problem
        port = int(broker.listening[0].rsplit(":", 1)[1])
        reader = await asyncio.to_thread(lambda: Paho(port, "reader").connected().subscribe("live", 1))
        writer = await asyncio.to_thread(lambda: Paho(port, "writer").connected())
        await asyncio.to_thread(writer.publish, "live", b"1", 1)
        await until(lambda: reader.payloads == [b"1"], "live traffic waits for the disk")
        kept = asyncio.create_task(asyncio.to_thread(writer.publish, "kept", b"2", 1))
        await until(lambda: broker.router.pending.uncommitted_bytes > 0, "it did not come")
        assert not kept.done()
        make_writable(view)
        await kept
        assert broker.journal.healthy
        assert assess(gather(broker, time.monotonic())).ready
        keeper = await asyncio.to_thread(lambda: Paho(port, "keeper", expiry=3600, clean=False).connected())
        await until(lambda: keeper.payloads == [b"2"], "it was acknowledged and is not there")
        for client in (reader, writer, keeper):
            await asyncio.to_thread(client.leave)


def leave_a_session(port: int) -> None:
    Paho(port, "keeper", expiry=3600, clean=False).connected().subscribe("kept", 1).leave()


async def test_the_command_says_no_to_what_would_write(state_dir: Path, read_only: ReadOnly) -> None:
    await write_in(state_dir, "closed")
    command = [sys.executable, "-m", "edge_broker", "store", "compact", "--data-dir", read_only()]
    done = subprocess.run(command, capture_output=True, text=True, timeout=60)
    assert done.returncode == 1
    assert "Read-only file system" in done.stderr
    assert "Traceback" not in done.stderr
