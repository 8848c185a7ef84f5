"""It always starts: whatever happened to the file, what is readable is there afterwards and the loss is told exactly."""

from __future__ import annotations

import contextlib
import os
import random
import sqlite3
from pathlib import Path

import pytest

from edge_broker.core.ops import Batch, QueueWrite, Snapshot, SubscriptionRecord
from edge_broker.errors import StoreError
from edge_broker.store import DATABASE_NAME, RecoveryReport
from edge_broker.store import recovery as recovery_module
from edge_broker.store.inspection import Inspection
from edge_broker.store.schema import PAGE_BYTES
from edge_broker.store.status import read_status
from tests.store.sample import (
    look_inside,
    make_message,
    numbered,
    opened,
    queue_batch,
    read_all,
    session_batch,
)

SEGMENTS = 40
PER_SEGMENT = 25
MESSAGES = SEGMENTS * PER_SEGMENT
OUTBOX, SESSION = 50, 1


async def fill(directory: Path) -> None:
    """A store with something in every table: an outbox of 1,000 messages in 40 segments, and three sessions."""
    async with opened(directory) as (store, _):
        batch = session_batch(SESSION, 2, 3)
        batch.outboxes = [(OUTBOX, "cloud")]
        batch.subscriptions = [SubscriptionRecord(n, f"a/{n}", 1, False, False, 0) for n in (1, 2, 3)]
        batch.inbound = {(1, 10): True, (3, 30): True}
        batch.retained = {f"r/{n}": make_message(f"r/{n}", b"kept", retain=True) for n in range(30)}
        batch.queues = [QueueWrite(SESSION, numbered(1, 5), 1, [], [])]
        await store.commit(batch)
        for first in range(1, MESSAGES, PER_SEGMENT):
            await store.commit(queue_batch(OUTBOX, numbered(first, PER_SEGMENT, size=200)))


def check_all_is_there(snapshot: Snapshot) -> None:
    assert [record.client_id for record in snapshot.sessions] == ["client-1", "client-2", "client-3"]
    assert [record.topic_filter for record in snapshot.subscriptions] == ["a/1", "a/2", "a/3"]
    assert sorted(snapshot.inbound) == [(1, 10), (3, 30)]
    assert len(snapshot.retained) == 30
    assert snapshot.outboxes == {"cloud": OUTBOX}
    assert snapshot.queues[OUTBOX].next_number == MESSAGES + 1
    assert snapshot.queues[OUTBOX].stored == MESSAGES


def set_aside(directory: Path) -> list[str]:
    """The damaged databases that were kept, without what lies beside them."""
    sides = ("-wal", "-shm", ".first-page", ".report")
    return sorted(f.name for f in directory.iterdir() if ".damaged-" in f.name and not f.name.endswith(sides))


async def reopened(directory: Path) -> tuple[RecoveryReport, Snapshot, list[int], list[int]]:
    """Open after damage: (report, snapshot, numbers of the outbox, numbers of session 1); and once more, undisturbed."""
    async with opened(directory) as (store, snapshot):
        report = store.recovery
        assert report is not None
        assert report.set_aside.exists()
        outbox = [number for number, _ in await read_all(store, OUTBOX)]
        session = [number for number, _ in await read_all(store, SESSION)]
        await store.commit(Batch(retained={"new": make_message("new", retain=True)}))
    async with opened(directory) as (store, again):
        assert store.recovery is None
        with contextlib.closing(look_inside(directory)) as database:
            assert database.execute("PRAGMA integrity_check").fetchall() == [("ok",)]
        assert again.epoch > snapshot.epoch
        assert [number for number, _ in await read_all(store, OUTBOX)] == outbox
    return report, snapshot, outbox, session


def told(report: RecoveryReport, queue_id: int = OUTBOX) -> list[int]:
    """The numbers of a queue that the report calls lost."""
    return [n for first, last in report.lost.get(queue_id, []) for n in range(first, last + 1)]


async def test_a_file_that_is_no_database_is_set_aside(
    state_dir: Path, caplog: pytest.LogCaptureFixture
) -> None:
    (state_dir / DATABASE_NAME).write_bytes(random.Random(1).randbytes(100_000))
    report, snapshot, outbox, _ = await reopened(state_dir)
    assert (snapshot.sessions, snapshot.outboxes, outbox) == ([], {}, [])
    assert report.set_aside.read_bytes()[PAGE_BYTES:] == random.Random(1).randbytes(100_000)[PAGE_BYTES:]
    assert "the store was damaged" in caplog.text
    assert str(report.set_aside) in caplog.text
    with Inspection(report.set_aside.parent) as inspection:
        (told,) = read_status(inspection).set_aside
    assert told.report == list(report.lines()), "and the command tells it later"


async def test_an_empty_file_is_damage_and_not_a_new_store(state_dir: Path) -> None:
    (state_dir / DATABASE_NAME).touch()
    report, snapshot, _, _ = await reopened(state_dir)
    assert "missing or empty" in report.reason
    assert snapshot.sessions == []


@pytest.mark.parametrize("count", [100, PAGE_BYTES])
@pytest.mark.parametrize("filler", [0x00, 0xFF])
async def test_all_is_saved_when_the_first_page_is_gone(state_dir: Path, count: int, filler: int) -> None:
    await fill(state_dir)
    with (state_dir / DATABASE_NAME).open("r+b") as file:
        lost_page = file.read(PAGE_BYTES)
        file.seek(0)
        file.write(bytes([filler]) * count)
    report, snapshot, outbox, session = await reopened(state_dir)
    check_all_is_there(snapshot)
    assert outbox == list(range(1, MESSAGES + 1))
    assert session == [1, 2, 3, 4, 5]
    assert (report.lost, report.damaged, report.incomplete, report.open_ended) == ({}, {}, set(), set())
    assert report.saved["session"] == 3
    assert report.saved_messages == {OUTBOX: MESSAGES, SESSION: 5}
    kept = report.set_aside.with_name(report.set_aside.name + ".first-page").read_bytes()
    assert kept == bytes([filler]) * count + lost_page[count:]


@pytest.mark.parametrize("part", [0.9, 0.5, 0.2])
async def test_what_is_before_the_cut_of_a_truncated_file_is_saved(state_dir: Path, part: float) -> None:
    await fill(state_dir)
    path = state_dir / DATABASE_NAME
    os.truncate(path, int(path.stat().st_size * part))
    report, _, outbox, _ = await reopened(state_dir)
    assert not report.set_aside.with_name(report.set_aside.name + ".first-page").exists()
    # rows may be cut, but what was read is in order and what was not is either told or behind an end that is unknown
    assert outbox == sorted(outbox)
    assert OUTBOX in report.open_ended or set(told(report)) | set(outbox) == set(range(1, MESSAGES + 1))
    if part > 0.8:
        assert len(outbox) > MESSAGES // 2
        assert told(report)


def pages_of(directory: Path, table: str) -> list[int]:
    """The pages of a table or index that hold rows, by what SQLite itself says."""
    database = look_inside(directory)
    try:
        found = database.execute(
            "SELECT pageno FROM dbstat WHERE name = ? AND pagetype = 'leaf' ORDER BY pageno", (table,)
        ).fetchall()
    except sqlite3.OperationalError as error:
        pytest.skip(f"this SQLite cannot tell which page is whose: {error}")
    finally:
        database.close()
    return [number for (number,) in found]


def wipe(directory: Path, pages: list[int]) -> None:
    with (directory / DATABASE_NAME).open("r+b") as file:
        for number in pages:
            file.seek((number - 1) * PAGE_BYTES)
            file.write(b"\xaa" * PAGE_BYTES)


async def test_a_torn_page_in_the_middle_costs_only_what_was_on_it(state_dir: Path) -> None:
    await fill(state_dir)
    pages = pages_of(state_dir, "segment")
    wipe(state_dir, [pages[len(pages) // 2]])
    # the small tables are whole, so the damage is met when the queue is read, and mended while running
    async with opened(state_dir) as (store, snapshot):
        assert store.recovery is None
        check_all_is_there(snapshot)
        outbox = [number for number, _ in await read_all(store, OUTBOX)]
        report = store.recovery
        assert report is not None
        assert told(report)
        assert sorted([*outbox, *told(report)]) == list(range(1, MESSAGES + 1))
        assert len(outbox) > MESSAGES * 3 // 4
        assert report.open_ended == set()
        await store.commit(queue_batch(OUTBOX, numbered(MESSAGES + 1, 5)))
        assert len(await read_all(store, OUTBOX)) == len(outbox) + 5


async def test_a_commit_that_meets_damage_leads_to_recovery_too(state_dir: Path) -> None:
    await fill(state_dir)
    pages = pages_of(state_dir, "segment")
    wipe(state_dir, pages[:1])
    async with opened(state_dir) as (store, _):
        acknowledge = queue_batch(OUTBOX, [], head=MESSAGES // 2)
        with pytest.raises(StoreError, match="damaged"):
            await store.commit(acknowledge)
        assert store.recovery is not None
        await store.commit(acknowledge)  # as the journal does
        outbox = [number for number, _ in await read_all(store, OUTBOX, MESSAGES // 2)]
        assert outbox == list(range(MESSAGES // 2, MESSAGES + 1))
    assert len(set_aside(state_dir)) == 1


async def test_recovery_while_running_is_not_repeated_at_once(state_dir: Path) -> None:
    await fill(state_dir)
    async with opened(state_dir) as (store, _):
        for _ in range(2):
            pages = pages_of(state_dir, "segment")
            database = look_inside(state_dir)
            database.execute("PRAGMA wal_checkpoint(TRUNCATE)")
            database.close()
            wipe(state_dir, pages[1:2])
            await store._reading.release(lambda: None)
            try:
                await read_all(store, OUTBOX)
            except StoreError:
                break
        else:
            pytest.fail("recovered twice within seconds")
    assert len(set_aside(state_dir)) == 1


async def test_a_lost_end_keeps_its_numbers(state_dir: Path) -> None:
    await fill(state_dir)
    pages = pages_of(state_dir, "segment")
    wipe(state_dir, pages[-1:])
    async with opened(state_dir) as (store, _):
        outbox = [number for number, _ in await read_all(store, OUTBOX)]
        report = store.recovery
        assert report is not None
        assert told(report)[-1] == MESSAGES
        assert outbox == list(range(1, told(report)[0]))
    async with opened(state_dir) as (_, snapshot):
        assert snapshot.queues[OUTBOX].next_number == MESSAGES + 1


@pytest.mark.parametrize(
    "table", ["session", "subscription", "retained", "meta", "outbox", "queue", "inbound"]
)
async def test_a_table_that_is_gone_does_not_take_the_others_along(state_dir: Path, table: str) -> None:
    await fill(state_dir)
    wipe(state_dir, pages_of(state_dir, table))
    report, snapshot, outbox, _ = await reopened(state_dir)
    assert table in report.incomplete
    assert len(snapshot.sessions) == (0 if table == "session" else 3)
    assert len(snapshot.subscriptions) == (0 if table in ("session", "subscription") else 3)
    assert len(snapshot.retained) == (0 if table == "retained" else 30)
    if table == "outbox":
        assert report.ownerless == {OUTBOX: MESSAGES}
        assert outbox == []
        assert snapshot.next_queue_id > 3
    else:
        assert outbox == list(range(1, MESSAGES + 1))
        assert report.lost == {}
        assert report.unmarked == ({OUTBOX: 1, SESSION: 1} if table == "queue" else {})


async def test_the_index_of_the_segments_is_not_needed(state_dir: Path) -> None:
    await fill(state_dir)
    wipe(state_dir, pages_of(state_dir, "segment_place"))
    report, snapshot, outbox, _ = await reopened(state_dir)
    check_all_is_there(snapshot)
    assert outbox == list(range(1, MESSAGES + 1))
    assert report.lost == {}


async def test_rows_with_a_wrong_checksum_are_not_taken_over(state_dir: Path) -> None:
    await fill(state_dir)
    database = look_inside(state_dir)
    database.execute(
        "UPDATE segment SET body = zeroblob(9) WHERE queue_id = ? AND first_number = 26", (OUTBOX,)
    )
    database.execute("UPDATE session SET identity = 'root' WHERE session_id = 2")
    database.close()
    with (state_dir / DATABASE_NAME).open("r+b") as file:
        file.write(bytes(16))
    report, snapshot, outbox, _ = await reopened(state_dir)
    assert report.damaged == {"segment": 1, "session": 1}
    assert [record.session_id for record in snapshot.sessions] == [1, 3]
    assert report.lost == {OUTBOX: [(26, 50)]}
    assert report.lost_messages == 25
    assert f"queue {OUTBOX}: lost 26 to 50" in "\n".join(report.lines())
    assert outbox == [*range(1, 26), *range(51, MESSAGES + 1)]


async def test_acknowledged_numbers_are_not_called_lost(state_dir: Path) -> None:
    async with opened(state_dir) as (store, _):
        await store.commit(Batch(outboxes=[(OUTBOX, "cloud")]))
        await store.commit(queue_batch(OUTBOX, [*numbered(1, 5), *numbered(9, 2)], 3, [6, 7, 8, 11]))
        await store.commit(
            queue_batch(OUTBOX, numbered(20, 2), 3, [6, 7, 8, 11, *range(13, 20)])
        )  # 12 is lost
    with (state_dir / DATABASE_NAME).open("r+b") as file:
        file.write(bytes(16))
    report, snapshot, _, _ = await reopened(state_dir)
    assert report.lost == {OUTBOX: [(12, 12)]}
    assert snapshot.queues[OUTBOX].next_number == 22


async def test_segments_below_the_head_are_not_taken_over(state_dir: Path) -> None:
    async with opened(state_dir) as (store, _):
        await store.commit(Batch(outboxes=[(OUTBOX, "cloud")]))
        await store.commit(queue_batch(OUTBOX, numbered(11, 5), head=11))
        await store.commit(queue_batch(OUTBOX, numbered(1, 5), head=11))  # overtaken by its acknowledgements
    with (state_dir / DATABASE_NAME).open("r+b") as file:
        file.write(bytes(16))
    report, snapshot, _, _ = await reopened(state_dir)
    assert report.saved["segment"] == 1
    assert report.saved_messages == {OUTBOX: 5}
    assert report.lost == {}
    assert snapshot.queues[OUTBOX].stored == 5


async def test_a_log_without_its_database_is_not_taken_for_the_log_of_a_new_one(state_dir: Path) -> None:
    other = state_dir / "other"
    async with opened(other) as (store, _):
        await store.commit(Batch(outboxes=[(OUTBOX, "cloud")]))
        await store.commit(queue_batch(OUTBOX, numbered(1, 100)))
        log = (other / f"{DATABASE_NAME}-wal").read_bytes()  # as after a kill
    (state_dir / f"{DATABASE_NAME}-wal").write_bytes(log)
    report, _, outbox, _ = await reopened(state_dir)
    assert outbox == list(range(1, 101))  # all of it was in the log
    assert report.set_aside.with_name(report.set_aside.name + "-wal").read_bytes() == log
    assert not (state_dir / f"{DATABASE_NAME}-wal").exists()


@pytest.mark.parametrize("step", range(6))
async def test_a_crash_during_recovery_loses_nothing(
    state_dir: Path, step: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The power goes at each of the renames in turn; the next start completes what was begun."""
    await fill(state_dir)
    async with opened(state_dir) as (store, _):
        await store.commit(queue_batch(OUTBOX, numbered(MESSAGES + 1, 1)))
        copies = {name: (state_dir / name).read_bytes() for name in (DATABASE_NAME, f"{DATABASE_NAME}-wal")}
    for name, content in copies.items():  # with its log, as after a kill
        (state_dir / name).write_bytes(content)
    with (state_dir / DATABASE_NAME).open("r+b") as file:
        file.write(bytes(100))

    calls = 0
    real = os.replace

    def replace(source: Path, target: Path) -> None:
        nonlocal calls
        if calls == step:
            raise KeyboardInterrupt
        calls += 1
        real(source, target)

    monkeypatch.setattr(os, "replace", replace)
    try:
        async with opened(state_dir):
            pass
    except KeyboardInterrupt:
        pass
    monkeypatch.setattr(os, "replace", real)
    async with opened(state_dir) as (store, snapshot):
        assert len(snapshot.sessions) == 3
        assert [number for number, _ in await read_all(store, OUTBOX)] == list(range(1, MESSAGES + 2))
    assert not [file.name for file in state_dir.iterdir() if "salvag" in file.name]


async def test_without_room_for_what_was_saved_it_starts_empty_and_keeps_the_file(
    state_dir: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    await fill(state_dir)
    with (state_dir / DATABASE_NAME).open("r+b") as file:
        file.write(bytes(100))
    real = recovery_module.build_empty
    first = True

    def small(path: Path) -> sqlite3.Connection:
        nonlocal first
        connection = real(path)
        if first:
            first = False
            connection.execute("PRAGMA max_page_count=30")
        return connection

    monkeypatch.setattr(recovery_module, "build_empty", small)
    report, snapshot, _, _ = await reopened(state_dir)
    assert snapshot.sessions == []
    assert "could not be written anew" in report.reason
    assert report.set_aside.stat().st_size > 200_000


async def test_two_recoveries_in_one_second_keep_both_files(state_dir: Path) -> None:
    for _ in range(2):
        (state_dir / DATABASE_NAME).write_bytes(b"garbage" * 1000)
        async with opened(state_dir):
            pass
    assert len(set_aside(state_dir)) == 2


@pytest.mark.parametrize("seed", range(12))
async def test_it_starts_whatever_is_overwritten(state_dir: Path, seed: int) -> None:
    """Random damage in random places: it starts, and says of every message that it has it or has lost it."""
    await fill(state_dir)
    chance = random.Random(seed)
    path = state_dir / DATABASE_NAME
    size = path.stat().st_size
    with path.open("r+b") as file:
        for _ in range(chance.randint(1, 4)):
            file.seek(chance.randrange(size))
            file.write(chance.randbytes(chance.choice((1, 16, 512, 5000))))
    async with opened(state_dir) as (store, snapshot):
        if "cloud" not in snapshot.outboxes:
            return
        state = snapshot.queues.get(OUTBOX)
        outbox = await read_all(store, OUTBOX, state.head if state else 1)
        numbers = [number for number, _ in outbox]
        assert numbers == sorted(set(numbers))
        for number, message in outbox:
            assert message.payload.startswith(b"%d " % number)
        for report in [store.recovery] if store.recovery else []:
            for number in set(range(1, MESSAGES + 1)) - set(numbers):
                assert (
                    number in told(report)
                    or number < report.unmarked.get(OUTBOX, 0)
                    or OUTBOX in report.open_ended
                    or store.corrupt_segments
                ), number
