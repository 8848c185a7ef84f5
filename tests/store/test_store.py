"""What a batch says is there after the next start, all of it or nothing; and what an error leaves behind."""

from __future__ import annotations

import asyncio
import os
import resource
import sqlite3
import stat
import subprocess
import sys
import time
from pathlib import Path

import pytest

from edge_broker.core.ops import Batch, QueueState, QueueWrite, SessionRecord, SubscriptionRecord
from edge_broker.errors import StoreError
from edge_broker.store import DATABASE_NAME, Store
from edge_broker.store import store as store_module
from edge_broker.store.lock import LOCK_NAME
from edge_broker.store.reserve import RESERVE_NAME
from edge_broker.store.schema import SCHEMA_VERSION
from edge_broker.wire.topics import TopicCache
from tests.store.sample import (
    essence,
    look_inside,
    make_message,
    numbered,
    opened,
    queue_batch,
    read_all,
    session_batch,
)


async def test_a_new_store_is_empty_and_nobody_elses(state_dir: Path) -> None:
    directory = state_dir / "new" / "data"
    async with opened(directory) as (_, snapshot):
        assert stat.S_IMODE(directory.stat().st_mode) == 0o700
        for file in directory.iterdir():
            assert stat.S_IMODE(file.stat().st_mode) == 0o600, file
        assert (snapshot.sessions, snapshot.queues, snapshot.retained) == ([], {}, [])
        assert snapshot.next_queue_id == 1


async def test_the_file_says_what_it_is(state_dir: Path) -> None:
    async with opened(state_dir):
        database = look_inside(state_dir)
        pragmas = [
            database.execute(f"PRAGMA {name}").fetchone()[0]
            for name in ("application_id", "user_version", "auto_vacuum", "journal_mode", "page_size")
        ]
        database.close()
    assert pragmas == [0x65644252, SCHEMA_VERSION, 2, "wal", 4096]


async def test_each_run_has_a_higher_epoch(state_dir: Path) -> None:
    epochs = []
    for _ in range(3):
        async with opened(state_dir) as (_, snapshot):
            epochs.append(snapshot.epoch)
    assert epochs == [epochs[0], epochs[0] + 1, epochs[0] + 2]


async def test_the_life_after_a_lost_store_has_other_epochs(tmp_path: Path) -> None:
    async with opened(tmp_path / "one", wall_offset=1_800_000_000.0) as (_, first):
        pass
    async with opened(tmp_path / "two", wall_offset=1_800_000_500.0) as (_, second):
        pass
    assert second.epoch >= first.epoch + 499


async def test_sessions_come_back_as_they_were(state_dir: Path) -> None:
    will = make_message("will/topic", b"gone", qos=2, retain=True)
    records = [
        SessionRecord(4, "sensor-ä", "CN=x", 0xFFFFFFFF, None),
        SessionRecord(5, "", "", 60, 123.5, will, 30),
        SessionRecord(6, "g", "anna", 60, None, username="anna", groups=("staff", "", "ä")),
        SessionRecord(7, "h", "CN=x", 60, None, groups=("staff",)),
    ]
    subscriptions = [
        SubscriptionRecord(4, "a/+/c", 2, True, False, 0),
        SubscriptionRecord(5, "#", 0, False, True, 268_435_455),
    ]
    async with opened(state_dir) as (store, _):
        await store.commit(
            Batch(sessions=records, subscriptions=subscriptions, inbound={(4, 1): True, (5, 65535): True})
        )
        await store.commit(Batch(inbound={(4, 1): False, (4, 2): True}))
    async with opened(state_dir) as (_, snapshot):
        assert snapshot.subscriptions == subscriptions
        assert sorted(snapshot.inbound) == [(4, 2), (5, 65535)]
        assert snapshot.next_queue_id > 5
        plain, with_will, *in_groups = snapshot.sessions
        assert (plain, in_groups) == (records[0], records[2:])
        assert with_will.will is not None
        assert essence(with_will.will) == essence(will)
        assert with_will.disconnected_at == pytest.approx(123.5)
        assert (with_will.client_id, with_will.expiry_interval, with_will.will_delay) == ("", 60, 30)


async def test_a_removed_session_takes_everything_of_it_along(state_dir: Path) -> None:
    async with opened(state_dir) as (store, _):
        batch = session_batch(1, 2)
        batch.subscriptions = [SubscriptionRecord(n, "a", 1, False, False, 0) for n in (1, 2)]
        batch.inbound = {(1, 9): True, (2, 9): True}
        batch.queues = [QueueWrite(n, numbered(1, 3), 1, [], []) for n in (1, 2)]
        await store.commit(batch)
        # the same client again: the old session goes before the new one comes
        again = session_batch(3)
        again.removed_sessions = [1]
        await store.commit(again)
    async with opened(state_dir) as (store, snapshot):
        assert sorted(record.session_id for record in snapshot.sessions) == [2, 3]
        assert [record.session_id for record in snapshot.subscriptions] == [2]
        assert snapshot.inbound == [(2, 9)]
        assert set(snapshot.queues) == {2}
        assert await read_all(store, 1) == []
        assert len(await read_all(store, 2)) == 3
        database = look_inside(state_dir)
        for table, column in (
            ("subscription", "session_id"),
            ("inbound", "session_id"),
            ("queue", "queue_id"),
        ):
            assert database.execute(f"SELECT {column} FROM {table}").fetchall() == [(2,)], table
        database.close()


async def test_an_identifier_is_not_given_out_again_after_a_restart(state_dir: Path) -> None:
    async with opened(state_dir) as (store, _):
        await store.commit(session_batch(1, 8))
        await store.commit(Batch(removed_sessions=[8]))
    for _ in range(3):
        async with opened(state_dir) as (_, snapshot):
            next_id = snapshot.next_queue_id
            assert 8 < next_id < 2000
    async with opened(state_dir) as (store, _):
        await store.commit(session_batch(next_id))
        await store.commit(Batch(removed_sessions=[next_id]))
    async with opened(state_dir) as (_, snapshot):
        assert snapshot.next_queue_id > next_id


async def test_subscriptions_are_removed_before_they_are_added(state_dir: Path) -> None:
    async with opened(state_dir) as (store, _):
        batch = session_batch(1)
        batch.subscriptions = [SubscriptionRecord(1, f, 0, False, False, 0) for f in ("a", "b", "c")]
        await store.commit(batch)
        new = SubscriptionRecord(1, "b", 2, False, False, 5)
        await store.commit(Batch(removed_subscriptions=[(1, "a"), (1, "b")], subscriptions=[new]))
    async with opened(state_dir) as (_, snapshot):
        assert sorted(record.topic_filter for record in snapshot.subscriptions) == ["b", "c"]
        assert new in snapshot.subscriptions


async def test_retained_messages_are_replaced_and_removed(state_dir: Path) -> None:
    async with opened(state_dir) as (store, _):
        old = {f"t/{n}": make_message(f"t/{n}", b"old", retain=True) for n in range(200)}
        await store.commit(Batch(retained=dict(old)))
        await store.commit(Batch(retained={"t/1": None, "t/2": make_message("t/2", b"new", retain=True)}))
    async with opened(state_dir) as (_, snapshot):
        payloads = {message.topic: message.payload for message in snapshot.retained}
    assert len(payloads) == 199
    assert "t/1" not in payloads
    assert payloads["t/2"] == b"new"
    assert payloads["t/3"] == b"old"


async def test_outboxes_are_found_by_their_name(state_dir: Path) -> None:
    async with opened(state_dir) as (store, _):
        await store.commit(Batch(outboxes=[(7, "cloud")]))
    async with opened(state_dir) as (store, snapshot):
        assert snapshot.outboxes == {"cloud": 7}
        assert snapshot.queues == {}
        assert snapshot.next_queue_id > 7
        await store.commit(queue_batch(7, numbered(1, 2)))
    async with opened(state_dir) as (_, snapshot):
        assert snapshot.queues[7] == QueueState(7, 1, 3, [], [], 2)


async def test_a_queue_comes_back_with_its_marks(state_dir: Path) -> None:
    async with opened(state_dir) as (store, _):
        await store.commit(Batch(outboxes=[(1, "up")]))
        await store.commit(Batch(queues=[QueueWrite(1, numbered(1, 10), 3, [5, 6, 12], [4, 7])]))
    async with opened(state_dir) as (store, snapshot):
        # 12 was acknowledged before it was written: the next number is above it all the same
        assert snapshot.queues[1] == QueueState(1, 3, 13, [5, 6, 12], [4, 7], 7)
        assert [number for number, _ in await read_all(store, 1, 3)] == list(range(3, 11))


async def test_what_lies_below_the_head_is_deleted(state_dir: Path) -> None:
    async with opened(state_dir) as (store, _):
        await store.commit(Batch(outboxes=[(1, "up"), (2, "other")]))
        for first in range(1, 100, 10):
            await store.commit(Batch(queues=[QueueWrite(q, numbered(first, 10), 1, [], []) for q in (1, 2)]))
        await store.commit(queue_batch(1, [], head=95))
        database = look_inside(state_dir)
        left = database.execute(
            "SELECT queue_id, count(*), min(first_number) FROM segment GROUP BY 1"
        ).fetchall()
        database.close()
        assert left == [(1, 1, 91), (2, 10, 1)]
        await store.commit(queue_batch(1, [], head=101))
    async with opened(state_dir) as (_, snapshot):
        assert snapshot.queues[1] == QueueState(1, 101, 101, [], [], 0)


async def test_appending_does_not_write_the_queue_again(state_dir: Path) -> None:
    async with opened(state_dir) as (store, _):
        await store.commit(queue_batch(1, numbered(1, 1)))
        traced: list[str] = []
        await store._writing.run(lambda connection: connection.set_trace_callback(traced.append))
        await store.commit(queue_batch(1, numbered(2, 1)))
        assert [statement.split()[0] for statement in traced] == ["BEGIN", "REPLACE", "COMMIT"]


async def test_a_batch_that_changes_nothing_is_no_transaction(state_dir: Path) -> None:
    async with opened(state_dir) as (store, _):
        await store.commit(queue_batch(1, numbered(1, 1)))
        traced: list[str] = []
        await store._writing.run(lambda connection: connection.set_trace_callback(traced.append))
        await store.commit(Batch())
        await store.commit(queue_batch(1, []))
        assert traced == []


async def test_the_head_of_a_queue_that_nothing_is_stored_of_is_not_written_with_others(
    state_dir: Path,
) -> None:
    """A subscriber that is there and quick costs no page at each commit that somebody else needs."""

    def heads() -> dict[int, int]:
        return dict(look_inside(state_dir).execute("SELECT queue_id, head FROM queue"))

    async with opened(state_dir) as (store, _):
        await store.commit(Batch(outboxes=[(1, "slow"), (2, "quick")]))
        for number in range(1, 6):
            quick = QueueWrite(2, [], 10 * number, [], [])
            await store.commit(Batch(queues=[quick, QueueWrite(1, numbered(number, 1), 1, [], [])]))
        assert heads() == {1: 1, 2: 10}
        await store.commit(Batch(queues=[QueueWrite(2, numbered(51, 2), 51, [], [])]))
        assert heads() == {1: 1, 2: 51}
        await store.commit(Batch(queues=[QueueWrite(2, [], 53, [], [])]))
        assert heads() == {1: 1, 2: 53}, "two messages go, so it says something"
        await store.commit(
            Batch(queues=[QueueWrite(2, [], 60, [], []), QueueWrite(1, numbered(6, 1), 1, [], [])])
        )
        await store.commit(
            Batch(queues=[QueueWrite(2, [], 70, [], [75]), QueueWrite(1, numbered(7, 1), 1, [], [])])
        )
        assert heads() == {1: 1, 2: 70}, "and so does a PUBREC"
    async with opened(state_dir) as (store, snapshot):
        assert snapshot.queues[2].head == 70
        for number in range(8, 14):
            quick = QueueWrite(2, [], 70 + number, [], [])
            await store.commit(Batch(queues=[quick, QueueWrite(1, numbered(number, 1), 1, [], [])]))
        assert heads()[2] < 84


async def test_many_queues_take_few_statements(state_dir: Path) -> None:
    async with opened(state_dir) as (store, _):
        traced: list[str] = []
        await store._writing.run(lambda connection: connection.set_trace_callback(traced.append))
        await store.commit(Batch(queues=[QueueWrite(q, numbered(1, 1), 1, [], []) for q in range(1, 301)]))
        assert len(traced) < 40
    async with opened(state_dir) as (store, _):
        assert [number for q in range(1, 301) for number, _ in await read_all(store, q)] == [1] * 300


async def test_a_failed_batch_leaves_nothing_behind(state_dir: Path) -> None:
    async with opened(state_dir) as (store, _):
        await store.commit(session_batch(1))
        before = list(look_inside(state_dir).iterdump())
        bad = session_batch(2)
        bad.queues = [QueueWrite(2, numbered(1, 5), 1, [], [])]
        bad.retained = {"a": make_message("a", retain=True)}
        bad.subscriptions = [SubscriptionRecord(2, "b", None, False, False, 0)]  # type: ignore[arg-type]
        with pytest.raises(StoreError, match="commit"):
            await store.commit(bad)
        assert list(look_inside(state_dir).iterdump()) == before
        assert (store.commits, store.commit_errors) == (1, 1)
        await store.commit(session_batch(3))


async def test_the_same_batch_twice_is_as_good_as_once(state_dir: Path) -> None:
    """After an error it can be unknown whether a commit reached the disk; the journal then gives the batch again."""
    batch = session_batch(1, 2)
    batch.removed_sessions = [9]
    batch.outboxes = [(3, "up")]
    batch.subscriptions = [SubscriptionRecord(1, "a", 1, False, False, 0)]
    batch.queues = [QueueWrite(q, numbered(5, 2500), 4, [8, 9], [10]) for q in (1, 3)]
    batch.retained = {"a": make_message("a", retain=True), "b": None}
    batch.inbound = {(1, 5): True, (1, 6): False}
    async with opened(state_dir) as (store, _):
        await store.commit(session_batch(9))
        await store.commit(batch)
        once = sorted(line for line in look_inside(state_dir).iterdump() if 'INTO "segment"' not in line)
        store._writer.forget()
        await store.commit(batch)
        twice = sorted(line for line in look_inside(state_dir).iterdump() if 'INTO "segment"' not in line)
        assert twice == once
        assert [number for number, _ in await read_all(store, 3, 4)] == list(range(5, 2505))


async def test_after_an_error_of_the_disk_the_connection_is_made_anew_and_the_batch_kept(
    state_dir: Path,
) -> None:
    async with opened(state_dir) as (store, _):
        await store.commit(queue_batch(1, numbered(1, 10)))
        old = store._writing._conn
        limits = resource.getrlimit(resource.RLIMIT_FSIZE)
        size = (state_dir / f"{DATABASE_NAME}-wal").stat().st_size
        resource.setrlimit(resource.RLIMIT_FSIZE, (size + 100, limits[1]))  # write() fails beyond that
        try:
            with pytest.raises(StoreError) as caught:
                await store.commit(queue_batch(1, numbered(11, 10)))
        finally:
            resource.setrlimit(resource.RLIMIT_FSIZE, limits)
        assert "the disk reported an error" in str(caught.value)
        assert "dmesg" in caught.value.hint
        await store._writing.run(lambda _: None)
        # what the log held is in the database, and no later commit builds on a log that may have holes
        assert (state_dir / f"{DATABASE_NAME}-wal").stat().st_size == 0
        await store.commit(queue_batch(1, numbered(11, 10)))
        assert store._writing._conn is not old
        assert [number for number, _ in await read_all(store, 1)] == list(range(1, 21))


async def test_a_full_disk_is_said_and_survived(state_dir: Path) -> None:
    async with opened(state_dir) as (store, _):
        pages = await store._writing.run(lambda c: c.execute("PRAGMA page_count").fetchone()[0])
        await store._writing.run(lambda c: c.execute(f"PRAGMA max_page_count={pages + 4}").fetchone())
        batch = queue_batch(1, numbered(1, 200, size=500))
        with pytest.raises(StoreError, match="the disk is full") as caught:
            await store.commit(batch)
        assert "free some space" in caught.value.hint
        assert await read_all(store, 1) == []
        await store.commit(queue_batch(2, numbered(1, 1)))  # what fits is still written
        await store._writing.run(lambda c: c.execute("PRAGMA max_page_count=1000000").fetchone())
        await store.commit(batch)
        assert len(await read_all(store, 1)) == 200


async def test_numbers_of_what_was_written(state_dir: Path) -> None:
    async with opened(state_dir) as (store, _):
        await store.commit(queue_batch(1, numbered(1, 3000)))
        assert (store.commits, store.messages_written, store.segments_written) == (1, 3000, 2)
        assert store.segment_bytes_written > 3000 * 60
        assert 0 < store.last_commit_seconds <= store.total_commit_seconds < 10
        assert store.file_bytes > store.segment_bytes_written


async def test_space_of_a_drained_backlog_is_given_back(
    state_dir: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(store_module, "_TIDY_SECONDS", 0.001)
    async with opened(state_dir) as (store, _):
        for first in range(1, 8001, 1000):
            await store.commit(queue_batch(1, numbered(first, 1000, size=1000)))
        await store.commit(queue_batch(2, numbered(1, 1)))
        await store._writing.run(lambda c: c.execute("PRAGMA wal_checkpoint(TRUNCATE)").fetchone())
        size = (state_dir / DATABASE_NAME).stat().st_size
        await store.commit(queue_batch(1, [], head=8001))
        deadline = time.monotonic() + 10
        while (state_dir / DATABASE_NAME).stat().st_size > 3 * size // 4:  # the least that is worth it stays
            assert time.monotonic() < deadline
            await asyncio.sleep(0.01)
        assert len(await read_all(store, 2)) == 1


async def test_a_row_that_was_tampered_with_is_left_out_and_told(
    state_dir: Path, caplog: pytest.LogCaptureFixture
) -> None:
    batch = session_batch(1, 2, 3)
    batch.subscriptions = [SubscriptionRecord(n, "a", 1, False, False, 0) for n in (1, 2)]
    batch.inbound = {(1, 5): True, (2, 5): True}
    batch.retained = {t: make_message(t, retain=True) for t in ("x", "y")}
    batch.queues = [QueueWrite(n, numbered(4, 3), 3, [9], []) for n in (2, 3)]
    batch.outboxes = [(4, "up"), (5, "down")]
    async with opened(state_dir) as (store, _):
        await store.commit(batch)
    database = look_inside(state_dir)
    for statement in (
        "UPDATE session SET expiry_interval = 1 WHERE session_id = 1",
        "UPDATE subscription SET qos = 2 WHERE session_id = 2",
        "UPDATE inbound SET packet_id = 6 WHERE session_id = 2",
        "UPDATE retained SET body = body || x'00' WHERE topic = 'x'",
        "UPDATE queue SET head = 6 WHERE queue_id = 2",
        "UPDATE outbox SET name = CAST(x'ff' AS TEXT) WHERE queue_id = 4",
    ):
        database.execute(statement)
    database.close()
    async with opened(state_dir) as (_, snapshot):
        assert [record.session_id for record in snapshot.sessions] == [2, 3]
        assert snapshot.subscriptions == []
        assert snapshot.inbound == []
        assert [message.topic for message in snapshot.retained] == ["y"]
        assert snapshot.outboxes == {"down": 5}
        # from its oldest segment on: seen twice rather than lost
        assert snapshot.queues == {2: QueueState(2, 4, 7, [], [], 3), 3: QueueState(3, 3, 10, [9], [], 6)}
    for table in ("session", "subscription", "inbound", "retained", "queue", "outbox"):
        assert f"of table {table} is damaged" in caplog.text


async def test_what_belongs_to_nobody_is_told_and_left_out(
    state_dir: Path, caplog: pytest.LogCaptureFixture
) -> None:
    async with opened(state_dir) as (store, _):
        batch = session_batch(1, 2)
        batch.subscriptions = [SubscriptionRecord(1, "a", 1, False, False, 0)]
        batch.inbound = {(1, 9): True}
        batch.queues = [QueueWrite(1, numbered(1, 3), 1, [], [])]
        await store.commit(batch)
    database = look_inside(state_dir)
    database.execute("DELETE FROM session WHERE session_id = 1")
    database.close()
    async with opened(state_dir) as (_, snapshot):
        assert (snapshot.subscriptions, snapshot.inbound, snapshot.queues) == ([], [], {})
    assert "queue 1 holds messages, but whose it was is lost" in caplog.text


async def test_two_brokers_do_not_share_a_directory(state_dir: Path) -> None:
    async with opened(state_dir):
        with pytest.raises(StoreError, match=f"process {os.getpid()}"):
            await Store.open(state_dir, topics=TopicCache(), wall_offset=lambda: 0.0)
    async with opened(state_dir):
        pass


async def test_the_lock_of_another_process_is_seen_and_ends_with_it(state_dir: Path) -> None:
    script = (
        "import asyncio, sys\nfrom pathlib import Path\nfrom tests.store.sample import opened\n"
        "async def main():\n    async with opened(Path(sys.argv[1])):\n        print('open', flush=True)\n"
        "        await asyncio.sleep(60)\nasyncio.run(main())\n"
    )
    child = subprocess.Popen([sys.executable, "-c", script, str(state_dir)], stdout=subprocess.PIPE)
    try:
        assert child.stdout is not None
        assert child.stdout.readline() == b"open\n"
        with pytest.raises(StoreError, match=f"process {child.pid}"):
            await Store.open(state_dir, topics=TopicCache(), wall_offset=lambda: 0.0)
    finally:
        child.kill()
        child.wait()
        assert child.stdout is not None
        child.stdout.close()
    async with opened(state_dir):
        pass


@pytest.mark.parametrize(
    ("statements", "problem"),
    [
        ([f"PRAGMA user_version={SCHEMA_VERSION + 1}"], "newer edge-broker"),
        (["DROP TABLE meta", "PRAGMA user_version=7"], "newer edge-broker"),
    ],
)
async def test_a_newer_store_is_left_alone(state_dir: Path, statements: list[str], problem: str) -> None:
    async with opened(state_dir):
        pass
    database = look_inside(state_dir)
    for statement in statements:
        database.execute(statement)
    database.close()
    with pytest.raises(StoreError, match=problem):
        await Store.open(state_dir, topics=TopicCache(), wall_offset=lambda: 0.0)
    assert sorted(file.name for file in state_dir.iterdir()) == [DATABASE_NAME, RESERVE_NAME, LOCK_NAME]


async def test_another_programs_database_is_left_alone(state_dir: Path) -> None:
    database = sqlite3.connect(state_dir / DATABASE_NAME)
    database.execute("CREATE TABLE recipes (name)")
    database.commit()
    database.close()
    with pytest.raises(StoreError, match="another program's database"):
        await Store.open(state_dir, topics=TopicCache(), wall_offset=lambda: 0.0)
    assert (state_dir / DATABASE_NAME).exists()


async def test_a_directory_that_cannot_be_used_is_said(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(StoreError, match="cannot use") as caught:
        await Store.open(tmp_path / "file", topics=TopicCache(), wall_offset=lambda: 0.0)
    assert "data_dir" in caught.value.hint


async def test_pages_are_not_disturbed_by_commits(state_dir: Path) -> None:
    async with opened(state_dir) as (store, _):
        written = 0
        reading = True

        async def write() -> None:
            nonlocal written, reading
            for first in range(1, 3001, 50):
                await store.commit(queue_batch(1, numbered(first, 50)))
                written = first + 49
            reading = False

        async def read() -> None:
            number = 1
            while reading or number <= written:
                page = await store.read_page(1, number, 1000, 256 << 10)
                assert [n for n, _ in page.messages] == list(range(number, page.end))
                number = page.end
            assert number == 3001

        await asyncio.gather(write(), read())


@pytest.mark.parametrize("fails", [False, True])
def test_an_unclosed_store_does_not_keep_the_interpreter(state_dir: Path, fails: bool) -> None:
    script = (
        "import asyncio, sys\nfrom pathlib import Path\nfrom edge_broker.store import Store\n"
        "from edge_broker.wire.topics import TopicCache\n"
        "async def main():\n"
        "    kept = await Store.open(Path(sys.argv[1]), topics=TopicCache(), wall_offset=lambda: 0.0)\n"
        "    print('open', flush=True)\n    sys.exit(3)\n"
        "asyncio.run(main())\n"
    )
    path = state_dir
    if fails:
        sqlite3.connect(state_dir / DATABASE_NAME).execute("CREATE TABLE x (y)").connection.close()
    done = subprocess.run([sys.executable, "-c", script, str(path)], capture_output=True, timeout=20)
    assert done.returncode == (1 if fails else 3), done.stderr
