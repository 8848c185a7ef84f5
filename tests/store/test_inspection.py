"""Looking into a store from outside: what it says, and that it neither creates, changes nor disturbs anything."""

from __future__ import annotations

import os
import sqlite3
from pathlib import Path

import pytest

from edge_broker.core.ops import Batch, QueueWrite, SessionRecord, SubscriptionRecord
from edge_broker.errors import StoreError
from edge_broker.store import DATABASE_NAME, rows
from edge_broker.store.inspection import Inspection
from edge_broker.store.lock import LOCK_NAME, DirectoryLock, holder_of
from edge_broker.store.schema import SCHEMA_VERSION, create
from edge_broker.store.segment import tombstone
from edge_broker.store.status import QueueStatus, StoreStatus, read_status
from tests.store.sample import WALL_OFFSET, look_inside, make_message, numbered, opened, queue_batch

SESSION, OUTBOX = 1, 50


async def fill(directory: Path) -> None:
    """A session with 4 of 10 messages acknowledged, an outbox with 20 in two segments, something in every table."""
    async with opened(directory) as (store, _):
        will = make_message("will", b"gone")
        batch = Batch(
            sessions=[
                SessionRecord(SESSION, "sensor", "pi", 3600, None, will, 0, "pi", ("staff",)),
                SessionRecord(2, "display", "", 60, 123.5),
            ],
            subscriptions=[SubscriptionRecord(SESSION, topic, 1, False, False, 0) for topic in ("a", "b")],
            inbound={(SESSION, 7): True},
            outboxes=[(OUTBOX, "cloud")],
            retained={f"r/{n}": make_message(f"r/{n}", b"kept", retain=True) for n in range(3)},
        )
        batch.queues = [QueueWrite(SESSION, numbered(1, 10), 1, [], [])]
        await store.commit(batch)
        await store.commit(Batch(queues=[QueueWrite(SESSION, [], 3, [3, 5], [4])]))
        old, new = make_message(received_at=10.0), make_message(received_at=90.5)
        await store.commit(queue_batch(OUTBOX, [(n, old) for n in range(1, 11)]))
        await store.commit(queue_batch(OUTBOX, [(n, new) for n in range(11, 21)]))


def status_of(directory: Path) -> StoreStatus:
    with Inspection(directory) as inspection:
        return read_status(inspection)


def queue_in(status: StoreStatus, name: str) -> QueueStatus:
    (found,) = [queue for queue in status.queues if queue.name == name]
    return found


async def test_the_status_of_a_stopped_store(state_dir: Path) -> None:
    await fill(state_dir)
    status = status_of(state_dir)
    assert status.holder is None
    assert status.schema_version == SCHEMA_VERSION
    select = "SELECT value FROM meta WHERE name = 'epoch'"
    assert status.epoch == look_inside(state_dir).execute(select).fetchone()[0]
    assert (status.retained, status.damaged, status.set_aside) == (3, [], [])
    assert [queue.name for queue in status.queues] == ["bridge:cloud", "session:sensor", "session:display"]
    cloud = queue_in(status, "bridge:cloud")
    assert (cloud.depth, cloud.first, cloud.last, cloud.segments, cloud.lost) == (20, 1, 20, 2, 0)
    assert (cloud.oldest_at, cloud.newest_at) == (WALL_OFFSET + 10.0, WALL_OFFSET + 90.5)
    sensor = queue_in(status, "session:sensor")
    assert (sensor.depth, sensor.first, sensor.last) == (6, 4, 10)  # 4 to 10 without 5; 3 is acknowledged
    empty = queue_in(status, "session:display")
    assert (empty.depth, empty.first, empty.last, empty.oldest_at, empty.bytes) == (0, None, None, None, 0)
    display, sensor_session = status.sessions
    assert (display.client_id, display.disconnected_at, display.has_will) == (
        "display",
        WALL_OFFSET + 123.5,
        False,
    )
    assert (sensor_session.subscriptions, sensor_session.inbound, sensor_session.has_will) == (2, 1, True)
    assert sensor_session.disconnected_at is None


async def test_beside_an_open_store_its_holder_is_named_and_sizes_are_told(state_dir: Path) -> None:
    await fill(state_dir)
    async with opened(state_dir) as (store, _):
        await store.commit(queue_batch(OUTBOX, numbered(21, 5)))
        status = status_of(state_dir)
        assert (status.holder, status.holder_is) == (str(os.getpid()), "a broker")
        assert (state_dir / LOCK_NAME).read_text().split() == [str(os.getpid()), "a", "broker"]
        assert queue_in(status, "bridge:cloud").depth == 25
        assert status.wal_bytes > 0
        assert status.reserve_bytes == 16 << 20
        assert status.database_bytes == (state_dir / DATABASE_NAME).stat().st_size
    assert holder_of(state_dir) is None


async def test_lost_numbers_do_not_count_as_waiting(state_dir: Path) -> None:
    await fill(state_dir)
    database = look_inside(state_dir)
    row = tombstone(OUTBOX, 11, 20)
    database.execute(
        "UPDATE segment SET count = ?, crc = ?, body = ? WHERE queue_id = ? AND first_number = 11",
        (*row[3:], OUTBOX),
    )
    database.close()
    cloud = queue_in(status_of(state_dir), "bridge:cloud")
    assert (cloud.depth, cloud.lost, cloud.first, cloud.last) == (10, 10, 1, 20)
    assert cloud.newest_at is None
    database = look_inside(state_dir)
    # The recipient has passed the stretch in part, and one before it wholly, whose row is still there.
    database.execute("REPLACE INTO queue VALUES (?, ?, ?, ?)", rows.sealed(OUTBOX, 13, b""))
    database.execute(
        "UPDATE segment SET count = 0, body = x'' WHERE queue_id = ? AND first_number = 1", (OUTBOX,)
    )
    database.close()
    cloud = queue_in(status_of(state_dir), "bridge:cloud")
    assert (cloud.depth, cloud.lost, cloud.first, cloud.last) == (0, 8, 13, 20)


async def test_what_was_set_aside_is_listed_with_its_side_files(state_dir: Path) -> None:
    await fill(state_dir)
    (state_dir / f"{DATABASE_NAME}.damaged-20260102-030405").write_bytes(bytes(100))
    (state_dir / f"{DATABASE_NAME}.damaged-20260102-030405-wal").write_bytes(bytes(20))
    (state_dir / f"{DATABASE_NAME}.damaged-20260102-030405-2").write_bytes(bytes(7))
    database = look_inside(state_dir)
    database.execute(
        "INSERT INTO damaged (queue_id, first_number, last_number) VALUES (?, 3, 4), (99, 1, 2)", (OUTBOX,)
    )
    database.close()
    status = status_of(state_dir)
    assert [(aside.at, aside.bytes) for aside in status.set_aside] == [(1767323045.0, 120), (1767323045.0, 7)]
    assert [(one.queue, one.first, one.last) for one in status.damaged] == [
        ("bridge:cloud", 3, 4),
        ("lost:99", 1, 2),
    ]


async def test_queues_are_found_by_name(state_dir: Path) -> None:
    await fill(state_dir)
    database = look_inside(state_dir)
    database.execute("INSERT INTO outbox VALUES (60, 'sensor', 0)")
    database.execute("UPDATE segment SET queue_id = 77 WHERE first_number = 11")
    database.close()
    with Inspection(state_dir) as inspection:
        assert inspection.find_queue("cloud") == inspection.find_queue("bridge:cloud") == OUTBOX
        assert inspection.find_queue("session:sensor") == SESSION
        assert inspection.find_queue("lost:77") == 77
        with pytest.raises(StoreError, match=r"more than one queue \(say bridge:sensor or session:sensor\)"):
            inspection.find_queue("sensor")
        with pytest.raises(StoreError, match=r"no queue nobody \(there is bridge:cloud"):
            inspection.find_queue("nobody")


def test_where_there_is_no_store_none_is_made(state_dir: Path) -> None:
    with pytest.raises(StoreError, match="there is no store in"):
        Inspection(state_dir)
    (state_dir / f"{DATABASE_NAME}.salvaged").touch()
    with pytest.raises(StoreError, match="starting the broker completes it"):
        Inspection(state_dir)
    assert [file.name for file in state_dir.iterdir()] == [f"{DATABASE_NAME}.salvaged"]


def test_what_is_not_ours_is_refused(state_dir: Path) -> None:
    database = look_inside(state_dir)
    database.execute("CREATE TABLE recipes (name)")
    database.close()
    with pytest.raises(StoreError, match="another program's database"):
        Inspection(state_dir)


def test_a_write_that_was_interrupted_is_left_to_the_broker(state_dir: Path) -> None:
    """A hot rollback journal: the broker was cut off while it switched a new database to its write-ahead log."""
    path = state_dir / DATABASE_NAME
    create(path)
    database = sqlite3.connect(path, isolation_level=None)
    database.execute("PRAGMA cache_size = 1")  # so that the journal is written before the commit
    database.execute("BEGIN")
    database.executemany("INSERT INTO outbox VALUES (?, ?, 0)", [(n, "x" * 500) for n in range(200)])
    journal, torn = (state_dir / f"{DATABASE_NAME}-journal").read_bytes(), path.read_bytes()
    database.close()
    path.write_bytes(torn)
    (state_dir / f"{DATABASE_NAME}-journal").write_bytes(journal)
    with pytest.raises(StoreError, match="starting the broker does that"):
        Inspection(state_dir)


async def test_looking_whether_a_broker_runs_keeps_none_from_starting(state_dir: Path) -> None:
    lock = DirectoryLock(state_dir)
    looking = [holder_of(state_dir) for _ in range(3)]
    assert looking == [(str(os.getpid()), "a broker")] * 3
    lock.release()
    assert holder_of(state_dir) is None
    DirectoryLock(state_dir).release()
