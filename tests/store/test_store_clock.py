"""The clock in a real store: what goes to the disk and when, and what is read before and after the time is known."""

from __future__ import annotations

import asyncio
import gzip
import logging
import sqlite3
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path

import pytest

from edge_broker.core.ops import Batch, SessionRecord, Snapshot
from edge_broker.store import DATABASE_NAME, Store
from edge_broker.store import clock_keeper as keeper_module
from edge_broker.store.clock import Correction
from edge_broker.store.inspection import Inspection
from edge_broker.store.schema import SCHEMA_VERSION
from edge_broker.store.status import read_status
from edge_broker.wire.topics import TopicCache
from tests.store.sample import WALL_OFFSET, look_inside, make_message, queue_batch, read_all, session_batch

HOUR = 3600.0
OLD_STORE = Path(__file__).parent.parent / "data" / "store-schema-1.db.gz"
OLD_OFFSET = 1_780_000_000.0


@dataclass
class Clocks:
    """Both clocks of a machine; `wall_offset` is wall minus monotonic."""

    wall_offset: float = WALL_OFFSET
    now: float = 1000.0

    @asynccontextmanager
    async def opened(self, directory: Path) -> AsyncIterator[tuple[Store, Snapshot]]:
        store, snapshot = await Store.open(
            directory,
            topics=TopicCache(),
            wall_offset=lambda: self.wall_offset,
            monotonic=lambda: self.now,
            clock_confirmed=lambda: False,
        )
        try:
            yield store, snapshot
        finally:
            await store.close()


@pytest.fixture
def clocks() -> Clocks:
    return Clocks()


def meta(directory: Path) -> dict[str, int]:
    database = look_inside(directory)
    try:
        return dict(database.execute("SELECT name, value FROM meta").fetchall())
    finally:
        database.close()


async def until_written(store: Store) -> None:
    for _ in range(500):
        if not store.clock.is_due:
            return
        await asyncio.sleep(0.01)
    raise AssertionError("it was not written")


async def test_the_newest_time_rides_along_with_commits_once_a_minute(
    state_dir: Path, clocks: Clocks
) -> None:
    async with clocks.opened(state_dir) as (store, _):
        started = meta(state_dir)["newest_ms"]
        clocks.now += 59
        await store.commit(session_batch(1))
        assert meta(state_dir)["newest_ms"] == started
        clocks.now += 1
        await store.commit(Batch())  # nothing to write: that alone is no reason
        assert meta(state_dir)["newest_ms"] == started
        await store.commit(session_batch(2))
        assert meta(state_dir)["newest_ms"] == started + 60_000
        clocks.now += 7
    assert meta(state_dir)["newest_ms"] == started + 67_000


async def test_an_idle_store_writes_it_once_an_hour(state_dir: Path, clocks: Clocks) -> None:
    async with clocks.opened(state_dir) as (store, _):
        started = meta(state_dir)["newest_ms"]
        clocks.now += HOUR - 1
        assert store.look_at_clock() is None
        await asyncio.sleep(0.05)
        assert meta(state_dir)["newest_ms"] == started
        clocks.now += 2
        store.look_at_clock()
        for _ in range(500):
            if meta(state_dir)["newest_ms"] == started + 3_601_000:
                break
            await asyncio.sleep(0.01)
        assert meta(state_dir)["newest_ms"] == started + 3_601_000
        assert store.commits == 0


async def test_pages_retained_messages_and_sessions_before_and_after_the_time_is_known(
    state_dir: Path, clocks: Clocks
) -> None:
    old = make_message("t", b"old", received_at=1000.0, expires_at=1000.0 + HOUR)
    async with clocks.opened(state_dir) as (store, _):
        batch = queue_batch(1, [(1, old)])
        batch.sessions = [SessionRecord(1, "c", "", 7200, 1000.0)]
        batch.retained = {"t": old}
        await store.commit(batch)
    clocks.wall_offset, clocks.now = 0.0, 50.0
    async with clocks.opened(state_dir) as (store, snapshot):
        assert store.clock.unsynced
        new = make_message("t", b"new", received_at=60.0, expires_at=60.0 + HOUR)
        clocks.now = 60.0
        await store.commit(queue_batch(1, [(2, new)]))
        ages = [60.0 - message.received_at for _, message in await read_all(store, 1)]
        assert ages == pytest.approx([10.0, 0.0], abs=0.02)
        assert snapshot.sessions[0].disconnected_at == pytest.approx(50.0, abs=0.02)
        clocks.wall_offset = WALL_OFFSET + 1000.0 - 60.0 + 2 * HOUR + 10  # two hours were nobody's
        correction = store.look_at_clock()
        assert correction == Correction(pytest.approx(50.0, abs=0.02), pytest.approx(2 * HOUR, abs=0.02))
        ages = [60.0 - message.received_at for _, message in await read_all(store, 1)]
        assert ages == pytest.approx([2 * HOUR + 10, 0.0], abs=0.02)
        (retained,) = (await store.read_retained(["t"])).values()
        assert retained.expires_at == pytest.approx(60.0 - HOUR - 10, abs=0.02)
        await until_written(store)
        with Inspection(state_dir) as inspection:
            queue = read_status(inspection).queues[0]
        assert queue.oldest_at == pytest.approx(WALL_OFFSET + 1000.0, abs=0.02)
        assert queue.newest_at == pytest.approx(WALL_OFFSET + 1010.0 + 2 * HOUR, abs=0.02)


async def test_a_page_that_is_under_way_when_the_time_is_known_is_read_again(
    state_dir: Path, clocks: Clocks
) -> None:
    async with clocks.opened(state_dir) as (store, _):
        await store.commit(queue_batch(1, [(1, make_message(received_at=1000.0))]))
    clocks.wall_offset, clocks.now = 0.0, 50.0
    async with clocks.opened(state_dir) as (store, _):
        reading = asyncio.create_task(store.read_page(1, 1, 10, 1000))
        await asyncio.sleep(0)
        clocks.wall_offset = WALL_OFFSET + 950.0 + HOUR
        assert store.look_at_clock() is not None
        page = await reading
        assert store.pages_read == 2
        assert page.messages[0][1].received_at == pytest.approx(50.0 - HOUR, abs=0.02)


async def test_what_the_clock_found_out_is_tried_again_where_the_disk_refuses(
    state_dir: Path, clocks: Clocks, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    async with clocks.opened(state_dir) as (store, _):
        clocks.wall_offset += HOUR

        def refuse(*_: object) -> None:
            raise sqlite3.OperationalError("disk I/O error")

        with monkeypatch.context() as patched:
            patched.setattr(keeper_module, "write_meta", refuse)
            with caplog.at_level(logging.WARNING):
                store.look_at_clock()
                while "could not be written" not in caplog.text:
                    await asyncio.sleep(0.01)
        assert store.clock.is_due
        clocks.now += 5
        store.look_at_clock()  # too early
        clocks.now += 6
        store.look_at_clock()
        await until_written(store)
        assert any(name.startswith("timeline_delta:") for name in meta(state_dir))


async def test_a_commit_takes_it_along(state_dir: Path, clocks: Clocks) -> None:
    async with clocks.opened(state_dir) as (store, _):
        clocks.wall_offset += HOUR
        assert store.clock.look(clocks.now + clocks.wall_offset, clocks.now) is None
        await store.commit(session_batch(1))
        assert not store.clock.is_due
        assert any(name.startswith("timeline_delta:") for name in meta(state_dir))


# ---- a store of the version before


@pytest.fixture
def old_store(state_dir: Path) -> Path:
    state_dir.mkdir(exist_ok=True)
    (state_dir / DATABASE_NAME).write_bytes(gzip.decompress(OLD_STORE.read_bytes()))
    return state_dir


async def test_a_store_of_schema_1_is_taken_over(old_store: Path, clocks: Clocks) -> None:
    clocks.wall_offset = OLD_OFFSET
    async with clocks.opened(old_store) as (store, snapshot):
        assert not store.clock.unsynced
        sensor, panel = snapshot.sessions
        assert (sensor.client_id, sensor.expiry_interval, panel.client_id) == ("sensor", 86_400, "panel")
        assert sensor.disconnected_at == pytest.approx(123.5, abs=0.01)
        assert sensor.will is not None
        assert sensor.will.expiry_interval == 10
        assert snapshot.outboxes == {"cloud": 3}
        assert len(snapshot.subscriptions) == 2
        assert snapshot.inbound == [(1, 9)]
        expiries = {message.topic: message.expires_at for message in snapshot.retained}
        assert expiries == {"r/plain": None, "r/expires": pytest.approx(7300.25, abs=0.01)}
        queued = await read_all(store, 1)
        assert [number for number, _ in queued] == [1, 2, 3]
        assert queued[0][1].received_at == pytest.approx(100.25, abs=0.01)
        assert queued[0][1].expires_at == pytest.approx(3700.25, abs=0.01)
        assert [number for number, _ in await read_all(store, 3, 3)] == [3, 4, 5]
    database = look_inside(old_store)
    assert database.execute("PRAGMA user_version").fetchone() == (SCHEMA_VERSION,)
    database.close()
    async with clocks.opened(old_store) as (_, again):
        assert len(again.sessions) == 2


async def test_a_store_of_schema_1_protects_itself_from_a_boot_in_1970(
    old_store: Path, clocks: Clocks
) -> None:
    clocks.wall_offset, clocks.now = 0.0, 50.0
    async with clocks.opened(old_store) as (store, _):
        assert store.clock.unsynced
        assert (await read_all(store, 1))[0][1].received_at == pytest.approx(50.0, abs=0.02)


def test_a_store_of_schema_1_can_be_looked_into(old_store: Path) -> None:
    with Inspection(old_store) as inspection:
        status = read_status(inspection)
    assert status.schema_version == 1
    assert status.sessions[1].disconnected_at == pytest.approx(OLD_OFFSET + 123.5)
    assert {queue.name: queue.depth for queue in status.queues} == {
        "session:sensor": 3,
        "session:panel": 0,
        "bridge:cloud": 2,
    }
