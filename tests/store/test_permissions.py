"""Whatever the umask, what is in the store is for its owner only: every file that the broker or a command makes."""

from __future__ import annotations

import os
import stat
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from edge_broker.core.ops import Batch
from edge_broker.store import DATABASE_NAME
from edge_broker.store.compaction import compact
from edge_broker.store.schema import PAGE_BYTES
from tests.store.sample import numbered, opened, queue_batch
from tests.store.test_write_ahead_log import LOG, commit_frames, fill, flipped, put_back


@pytest.fixture(autouse=True)
def umask() -> Iterator[None]:
    """The most careless one."""
    before = os.umask(0)
    yield
    os.umask(before)


def check(directory: Path, *expected: str) -> None:
    names = sorted(file.name for file in directory.iterdir())
    for part in expected:
        assert any(part in name for name in names), (part, names)
    for name in names:
        assert stat.S_IMODE((directory / name).stat().st_mode) == 0o600, name


async def test_files_of_a_running_store(tmp_path: Path) -> None:
    directory = tmp_path / "new"
    async with opened(directory) as (store, _):
        await store.commit(Batch(outboxes=[(1, "up")]))
        await store.commit(queue_batch(1, numbered(1, 100)))
        check(directory, DATABASE_NAME, "-wal", "-shm", ".lock", ".reserve")
        assert stat.S_IMODE(directory.stat().st_mode) == 0o700
    compact(directory)
    check(directory, DATABASE_NAME)


async def test_what_recovery_sets_aside(state_dir: Path) -> None:
    async with opened(state_dir) as (store, _):
        await store.commit(Batch(outboxes=[(1, "up")]))
        await store.commit(queue_batch(1, numbered(1, 100)))
    with (state_dir / DATABASE_NAME).open("r+b") as file:
        file.write(bytes(PAGE_BYTES))
    async with opened(state_dir) as (store, _):
        assert store.recovery is not None
        check(state_dir, ".damaged-", ".first-page", ".report")


async def test_what_is_kept_of_a_damaged_log(state_dir: Path) -> None:
    database, log = await fill(state_dir)
    os.chmod(put_back(state_dir, database, flipped(log, commit_frames(log)[3] + 1)), 0o600)
    os.chmod(state_dir / LOG, 0o600)
    async with opened(state_dir):
        check(state_dir, f"{LOG}.damaged-", ".report")


async def test_an_export(state_dir: Path) -> None:
    async with opened(state_dir) as (store, _):
        await store.commit(Batch(outboxes=[(1, "up")]))
        await store.commit(queue_batch(1, numbered(1, 5)))
    output = state_dir / "out.jsonl"
    command = [
        sys.executable,
        "-m",
        "edge_broker",
        "store",
        "export",
        "up",
        "--data-dir",
        state_dir,
        "-o",
        output,
    ]
    subprocess.run(command, check=True, timeout=60)
    assert len(output.read_text().splitlines()) == 5
    check(state_dir, "out.jsonl")
