"""`compact`: a smaller file with the same in it, or the old one untouched and the reason."""

from __future__ import annotations

import os
import sqlite3
import stat
from pathlib import Path

import pytest

from edge_broker.core.ops import Batch, QueueWrite
from edge_broker.errors import StoreError
from edge_broker.store import DATABASE_NAME, compaction
from edge_broker.store.compaction import compact
from edge_broker.store.lock import LOCK_NAME, DirectoryLock
from edge_broker.store.verification import verify
from tests.store.sample import look_inside, make_message, numbered, opened, queue_batch, read_all

OUTBOX = 50
MESSAGES = 3000


async def fill_and_drain(directory: Path) -> None:
    """A backlog that has drained but for its last ten messages, with most of the file free."""
    async with opened(directory) as (store, _):
        retained = {f"r/{n}": make_message(f"r/{n}", b"kept", retain=True) for n in range(30)}
        await store.commit(Batch(outboxes=[(OUTBOX, "cloud")], retained=retained))
        for first in range(1, MESSAGES, 100):
            await store.commit(queue_batch(OUTBOX, numbered(first, 100, size=1000)))
        await store.commit(Batch(queues=[QueueWrite(OUTBOX, [], MESSAGES - 9, [], [])]))


def layout(directory: Path) -> tuple[object, ...]:
    """What must be as in any other store: roots of the tables, and the numbers in the header."""
    database = look_inside(directory)
    roots = database.execute("SELECT name, rootpage FROM sqlite_schema ORDER BY name").fetchall()
    numbers = [
        database.execute(f"PRAGMA {name}").fetchone()[0]
        for name in ("application_id", "user_version", "auto_vacuum", "page_size")
    ]
    database.close()
    return roots, numbers


async def test_the_file_shrinks_and_holds_the_same(state_dir: Path) -> None:
    await fill_and_drain(state_dir)
    path = state_dir / DATABASE_NAME
    before, as_made = path.stat().st_size, layout(state_dir)
    shares: list[float] = []
    assert verify(state_dir).sound  # which leaves its side files
    done = compact(state_dir, shares.append)
    assert sorted(file.name for file in state_dir.iterdir()) == [DATABASE_NAME, "broker.reserve", LOCK_NAME]
    assert done.before_bytes == before
    assert done.after_bytes == path.stat().st_size < before / 10
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    assert layout(state_dir) == as_made  # what recovery of a lost first page depends on
    assert shares[-1] == 1.0
    assert verify(state_dir).sound
    async with opened(state_dir) as (store, snapshot):
        assert store.recovery is None
        assert len(snapshot.retained) == 30
        assert [n for n, _ in await read_all(store, OUTBOX, MESSAGES - 9)] == list(
            range(MESSAGES - 9, MESSAGES + 1)
        )
    assert sorted(file.name for file in state_dir.iterdir()) == [DATABASE_NAME, "broker.reserve", LOCK_NAME]


async def test_what_is_only_in_the_log_yet_is_kept(state_dir: Path) -> None:
    """A broker that was killed leaves its last commits in the write-ahead log."""
    await fill_and_drain(state_dir)
    reader = look_inside(state_dir)
    reader.execute("SELECT count(*) FROM meta").fetchone()
    async with opened(state_dir) as (store, _):
        await store.commit(queue_batch(OUTBOX, numbered(MESSAGES + 1, 5), head=MESSAGES - 9))
    log = state_dir / f"{DATABASE_NAME}-wal"
    assert log.stat().st_size > 0
    copies = {file: file.read_bytes() for file in (state_dir / DATABASE_NAME, log)}
    reader.close()
    for file, content in copies.items():
        file.write_bytes(content)
    compact(state_dir)
    async with opened(state_dir) as (store, _):
        assert len(await read_all(store, OUTBOX, MESSAGES - 9)) == 15


async def test_not_beside_a_broker(state_dir: Path) -> None:
    await fill_and_drain(state_dir)
    lock = DirectoryLock(state_dir)
    with pytest.raises(StoreError, match=rf"compact: another broker uses .* \(process {os.getpid()}\)"):
        compact(state_dir)
    lock.release()


async def test_no_broker_starts_meanwhile(state_dir: Path) -> None:
    await fill_and_drain(state_dir)
    refused: list[str] = []

    def start_one(_: float) -> None:
        if not refused:
            try:
                DirectoryLock(state_dir).release()
            except StoreError as error:
                refused.append(str(error))

    compact(state_dir, start_one)
    assert f"edge-broker store compact works on {state_dir} (process {os.getpid()})" in refused[0]
    assert "wait until it is done" in refused[0]


async def test_not_while_anything_else_has_it_open(state_dir: Path) -> None:
    await fill_and_drain(state_dir)
    reader = look_inside(state_dir)
    reader.execute("SELECT count(*) FROM meta").fetchone()
    before = (state_dir / DATABASE_NAME).read_bytes()
    with pytest.raises(StoreError, match="another process holds the store"):
        compact(state_dir)
    reader.close()
    assert (state_dir / DATABASE_NAME).read_bytes() == before
    compact(state_dir)


async def test_not_without_room_for_a_second_copy(state_dir: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    await fill_and_drain(state_dir)

    class NoSpace:
        f_bavail, f_frsize = 100, 4096

    monkeypatch.setattr(compaction.os, "statvfs", lambda _: NoSpace)
    with pytest.raises(StoreError, match=r"the disk has 0\.4 MB free, and a second copy takes 0\.\d MB"):
        compact(state_dir)
    monkeypatch.undo()
    assert verify(state_dir).sound


async def test_a_damaged_store_is_left_to_the_broker(state_dir: Path) -> None:
    await fill_and_drain(state_dir)
    database = look_inside(state_dir)
    database.execute("PRAGMA writable_schema=ON")
    database.execute("UPDATE sqlite_schema SET rootpage = 4 WHERE name = 'retained'")
    database.close()
    with pytest.raises(StoreError, match="damaged"):
        compact(state_dir)
    (state_dir / DATABASE_NAME).write_bytes(b"rubbish" * 10_000)
    with pytest.raises(StoreError, match="is not a database"):
        compact(state_dir)


async def test_what_fails_half_way_leaves_the_old_file(
    state_dir: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    await fill_and_drain(state_dir)

    def fail(*_: Path) -> None:
        raise OSError(5, "Input/output error")

    monkeypatch.setattr(compaction, "move_into_place", fail)
    with pytest.raises(StoreError, match="Input/output error"):
        compact(state_dir)
    assert not (state_dir / f"{DATABASE_NAME}.salvaging").exists()
    assert verify(state_dir).sound
    async with opened(state_dir) as (store, _):
        assert len(await read_all(store, OUTBOX, MESSAGES - 9)) == 10


async def test_what_a_crash_left_is_thrown_away_by_the_next_start(state_dir: Path) -> None:
    await fill_and_drain(state_dir)
    (state_dir / f"{DATABASE_NAME}.salvaging").write_bytes(b"half")
    async with opened(state_dir) as (store, _):
        assert store.recovery is None
    assert not (state_dir / f"{DATABASE_NAME}.salvaging").exists()


def test_where_there_is_no_store_nothing_is_made(state_dir: Path) -> None:
    with pytest.raises(StoreError, match="there is no store"):
        compact(state_dir)
    assert list(state_dir.iterdir()) == []


@pytest.mark.skipif(os.geteuid() != 0, reason="needs root, to give files away")
async def test_the_owner_stays(state_dir: Path) -> None:
    await fill_and_drain(state_dir)
    os.chown(state_dir / DATABASE_NAME, 1234, 1235)
    compact(state_dir)
    status = (state_dir / DATABASE_NAME).stat()
    assert (status.st_uid, status.st_gid) == (1234, 1235)


def test_the_exclusive_lock_is_sqlites(state_dir: Path) -> None:
    """The test above relies on it: a reader that is only connected, and in no transaction, is in the way too."""
    path = state_dir / "probe"
    one = sqlite3.connect(path, isolation_level=None)
    one.execute("PRAGMA journal_mode=WAL")
    one.execute("CREATE TABLE t (x)")
    two = sqlite3.connect(path, isolation_level=None, timeout=0.0)
    two.execute("SELECT * FROM t").fetchall()
    with pytest.raises(sqlite3.OperationalError, match="locked"):
        one.execute("PRAGMA journal_mode=DELETE")
    one.close()
    two.close()
