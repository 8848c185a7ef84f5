"""When the journal commits, in what order it settles, and what it does while the disk refuses. In fake time."""

from __future__ import annotations

import asyncio
import functools
import logging
from collections.abc import Awaitable, Callable
from pathlib import Path

import pytest

from edge_broker.core.ops import Batch, QueueWrite
from edge_broker.errors import StoreError
from edge_broker.store import Journal
from edge_broker.store.journal import COMMIT_SECONDS_BOUNDS, acknowledgements, carry_over
from tests.store.fake_time import run_in_fake_time
from tests.store.sample import numbered, opened, queue_batch, read_all


def in_fake_time(test: Callable[..., Awaitable[None]]) -> Callable[..., None]:
    @functools.wraps(test)
    def run(**fixtures: object) -> None:
        run_in_fake_time(lambda: test(**fixtures))

    return run


class Operations:
    """What is pending: operations by name, and those that were settled with the time when."""

    def __init__(self) -> None:
        self.names: list[str] = []
        self.urgent = False
        self.leisurely = False
        self.oldest: float | None = None  # something else than messages
        self.waiting = 0
        self.bytes = 0
        self.settled: list[tuple[float, tuple[str, ...]]] = []
        self.writes: list[QueueWrite] = []
        self.sealed_since: list[float | None] = []

    @property
    def empty(self) -> bool:
        return not self.names

    def oldest_at(self) -> float | None:
        return self.oldest

    def add(self, name: str, size: int = 100, urgent: bool = False) -> None:
        self.names.append(name)
        self.waiting += 1
        self.bytes += size
        self.urgent = self.urgent or urgent

    def seal(self, waiting_since: float | None = None) -> Sealed:
        self.sealed_since.append(waiting_since)
        sealed = Sealed(self, tuple(self.names))
        self.names = []
        self.waiting = self.bytes = 0
        self.urgent = False
        return sealed


class Sealed:
    def __init__(self, operations: Operations, names: tuple[str, ...]) -> None:
        self.operations = operations
        self.batch = Batch(removed_subscriptions=[(1, name) for name in names], queues=operations.writes)
        self.names = names

    def settle(self) -> None:
        self.operations.settled.append((now(), self.names))


class Disk:
    """Takes `seconds` per commit and refuses as long as `broken` says how."""

    def __init__(self, seconds: float = 0.0) -> None:
        self.seconds = seconds
        self.broken = ""
        self.tries: list[tuple[float, tuple[str, ...]]] = []
        self.busy = False
        self.full = False
        self.relief: list[QueueWrite] = []

    async def commit(self, batch: Batch) -> None:
        assert not self.busy, "two commits at once"
        if batch.queues and not batch.removed_subscriptions:
            self.relief += batch.queues
            return
        self.busy = True
        self.tries.append((now(), tuple(name for _, name in batch.removed_subscriptions)))
        await asyncio.sleep(self.seconds)
        self.busy = False
        if self.broken:
            raise StoreError("commit", self.broken)


def now() -> float:
    """Seconds since the test began."""
    return round(asyncio.get_running_loop().time() - 1000.0, 6)


def make(disk: Disk, **options: object) -> tuple[Journal, Operations]:
    operations = Operations()
    arguments: dict[str, object] = {
        "commit_delay_seconds": 0.02,
        "early_messages": 10,
        "early_bytes": 10_000,
        "after_settle": lambda: None,
        "clock": asyncio.get_running_loop().time,
        "jitter": lambda: 1.0,
    }
    return Journal(disk, operations, **(arguments | options)), operations  # type: ignore[arg-type]


@in_fake_time
async def test_a_batch_waits_out_the_delay_from_its_first_operation() -> None:
    disk = Disk()
    journal, pending = make(disk)
    for name in "abc":
        pending.add(name)
        journal.poke()
        await asyncio.sleep(0.006)
    assert disk.tries == []
    await asyncio.sleep(0.01)
    assert disk.tries == [(0.02, ("a", "b", "c"))]
    assert pending.settled == [(0.02, ("a", "b", "c"))]
    await asyncio.sleep(1)
    assert len(disk.tries) == 1
    await journal.close()


@in_fake_time
async def test_while_those_who_came_first_are_served_otherwise_the_delay_counts_from_the_next() -> None:
    disk = Disk()
    journal, pending = make(disk)
    pending.add("a")
    journal.poke()
    began_at = asyncio.get_running_loop().time()
    for milliseconds in (10, 25, 40):
        pending.oldest = began_at + milliseconds / 1000
        await asyncio.sleep(0.015)
        journal.poke()
    assert disk.tries == []
    await asyncio.sleep(0.02)
    assert disk.tries == [(0.06, ("a",))]
    await journal.close()


@in_fake_time
async def test_when_nobody_is_left_to_wait_nothing_is_committed() -> None:
    disk = Disk()
    journal, pending = make(disk)
    pending.add("a")
    journal.poke()
    pending.names.clear()
    await asyncio.sleep(1)
    assert disk.tries == []
    pending.add("b")
    journal.poke()
    await asyncio.sleep(0.021)
    assert disk.tries == [(1.02, ("b",))]
    await journal.close()


@in_fake_time
async def test_what_nobody_waits_for_waits_for_longer() -> None:
    disk = Disk()
    journal, pending = make(disk, leisurely_delay_seconds=1.0)
    pending.add("acknowledgements")
    pending.leisurely = True
    journal.poke()
    await asyncio.sleep(0.5)
    assert disk.tries == []
    await asyncio.sleep(0.6)
    assert disk.tries == [(1.0, ("acknowledgements",))]
    await journal.close()


@in_fake_time
async def test_what_nobody_waits_for_goes_along_with_the_first_that_somebody_waits_for() -> None:
    disk = Disk()
    journal, pending = make(disk, leisurely_delay_seconds=1.0)
    pending.add("acknowledgements")
    pending.leisurely = True
    journal.poke()
    await asyncio.sleep(0.5)
    pending.add("message")
    pending.leisurely = False
    journal.poke()
    await asyncio.sleep(0.1)
    assert disk.tries == [(0.52, ("acknowledgements", "message"))]
    await journal.close()


@in_fake_time
async def test_what_is_urgent_goes_at_once_and_takes_the_rest_along() -> None:
    disk = Disk()
    journal, pending = make(disk)
    pending.add("a")
    journal.poke()
    await asyncio.sleep(0.005)
    pending.add("connect", urgent=True)
    journal.poke()
    await asyncio.sleep(0.001)
    assert disk.tries == [(0.005, ("a", "connect"))]
    await asyncio.sleep(1)  # the timer of the delay is gone
    assert len(disk.tries) == 1
    await journal.close()


@pytest.mark.parametrize(("count", "size", "early"), [(9, 100, False), (10, 100, True), (2, 5_000, True)])
@in_fake_time
async def test_enough_of_it_goes_at_once(count: int, size: int, early: bool) -> None:
    disk = Disk()
    journal, pending = make(disk)
    for n in range(count):
        pending.add(str(n), size)
    journal.poke()
    await asyncio.sleep(0.001)
    assert bool(disk.tries) is early
    await asyncio.sleep(0.1)
    assert len(disk.tries) == 1
    await journal.close()


@in_fake_time
async def test_no_delay_means_at_once() -> None:
    disk = Disk()
    journal, pending = make(disk, commit_delay_seconds=0.0)
    pending.add("a")
    journal.poke()
    await asyncio.sleep(0)
    await asyncio.sleep(0.000001)
    assert [names for _, names in disk.tries] == [("a",)]
    await journal.close()


@in_fake_time
async def test_the_next_batch_gathers_meanwhile_and_follows_at_once_if_it_is_due() -> None:
    disk = Disk(seconds=0.05)
    journal, pending = make(disk)
    pending.add("a", urgent=True)
    journal.poke()
    await asyncio.sleep(0.01)
    pending.add("b")
    journal.poke()
    await asyncio.sleep(0.01)
    pending.add("c", urgent=True)  # urgent, and still one commit at a time
    journal.poke()
    await asyncio.sleep(0.2)
    assert disk.tries == [(0.0, ("a",)), (0.05, ("b", "c"))]
    assert pending.settled == [(0.05, ("a",)), (0.1, ("b", "c"))]
    await journal.close()


@in_fake_time
async def test_what_came_late_during_a_commit_waits_for_the_rest_of_its_delay() -> None:
    disk = Disk(seconds=0.05)
    journal, pending = make(disk)
    pending.add("a", urgent=True)
    journal.poke()
    await asyncio.sleep(0.04)
    pending.add("b")
    journal.poke()
    await asyncio.sleep(0.005)
    pending.add("c")
    journal.poke()
    await asyncio.sleep(0.2)
    assert disk.tries == [(0.0, ("a",)), (0.06, ("b", "c"))]
    await journal.close()


@pytest.mark.parametrize(("count", "size", "urgent"), [(1, 100, True), (10, 100, False), (2, 5_000, False)])
@in_fake_time
async def test_what_came_late_and_is_not_to_wait_follows_at_once(count: int, size: int, urgent: bool) -> None:
    disk = Disk(seconds=0.05)
    journal, pending = make(disk)
    pending.add("a", urgent=True)
    journal.poke()
    await asyncio.sleep(0.045)
    for _ in range(count):
        pending.add("b", size, urgent)
    journal.poke()
    await asyncio.sleep(0.2)
    assert [when for when, _ in disk.tries] == [0.0, 0.05]
    await journal.close()


@in_fake_time
async def test_what_settling_makes_pending_is_not_forgotten() -> None:
    disk = Disk()
    done: list[str] = []

    def after() -> None:
        if not done:
            done.append("once")
            pending.add("b")  # without a poke

    journal, pending = make(disk, after_settle=after)
    pending.add("a", urgent=True)
    journal.poke()
    await asyncio.sleep(0.1)
    assert [names for _, names in pending.settled] == [("a",), ("b",)]
    await journal.close()


@in_fake_time
async def test_a_refused_batch_is_tried_again_and_settled_once(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO)
    disk = Disk()
    disk.broken = "the disk is full"
    journal, pending = make(disk)
    pending.add("a", urgent=True)
    journal.poke()
    await asyncio.sleep(0.05)
    assert (journal.healthy, journal.problem) == (False, "commit: the disk is full")
    pending.add("b")
    journal.poke()
    await asyncio.sleep(3)
    assert pending.settled == []
    assert {names for _, names in disk.tries} == {("a",)}, "the batch changed between tries"
    assert [when for when, _ in disk.tries] == [0.0, 0.1, 0.3, 0.7, 1.5]
    disk.broken = ""
    await asyncio.sleep(2)
    assert [names for _, names in pending.settled] == [("a",), ("b",)]
    assert (journal.healthy, journal.problem, journal.retries) == (True, "", 5)
    assert [record.levelname for record in caplog.records] == ["ERROR", "WARNING"]
    await journal.close()


@in_fake_time
async def test_retries_come_to_a_steady_pace_with_jitter() -> None:
    disk = Disk()
    disk.broken = "no"
    journal, pending = make(disk, jitter=lambda: 0.0)
    pending.add("a", urgent=True)
    journal.poke()
    await asyncio.sleep(60)
    times = [when for when, _ in disk.tries]
    assert round(times[1] - times[0], 6) == 0.05
    assert round(times[-1] - times[-2], 6) == 2.5
    await journal.close()


@in_fake_time
async def test_on_a_full_disk_acknowledgements_overtake_and_nothing_is_settled_out_of_order() -> None:
    disk = Disk()
    disk.broken, disk.full = "the disk is full", True
    journal, pending = make(disk)
    pending.writes = [QueueWrite(7, [], 10, [], [])]
    pending.add("a", urgent=True)
    journal.poke()
    await asyncio.sleep(0.05)
    pending.writes = [QueueWrite(7, [], 20, [], [])]
    pending.add("b")
    journal.poke()
    await asyncio.sleep(1)
    assert [write.head for write in disk.relief][:2] == [10, 20]
    assert pending.settled == []
    disk.broken, disk.full = "", False
    pending.add("c")
    journal.poke()
    await asyncio.sleep(1)
    assert [names for _, names in pending.settled] == [("a",), ("b",), ("c",)]
    await journal.close()


def test_only_acknowledgements_of_stored_messages_overtake() -> None:
    first = Batch(queues=[QueueWrite(1, numbered(20, 5), 5, [7], [8]), QueueWrite(2, [], 3, [], [])])
    second = Batch(
        queues=[
            QueueWrite(1, numbered(25, 5), 9, [12, 21, 26], [11, 22]),  # 20 to 29 are not on the disk
            QueueWrite(3, numbered(1, 5), 4, [5], []),
        ]
    )
    assert acknowledgements([first, second]).queues == [
        QueueWrite(1, [], 9, [12], [11]),
        QueueWrite(2, [], 3, [], []),
        QueueWrite(3, [], 1, [], []),
    ]


def test_what_has_moved_into_other_queues_does_not_overtake_them() -> None:
    """A delayed message that fell due is in its recipients' queues, which are not on the disk yet."""
    first = Batch(queues=[QueueWrite(1, [], 5, [7], []), QueueWrite(2, [], 3, [], [])])
    second = Batch(
        queues=[QueueWrite(1, [], 8, [], [], moved=True), QueueWrite(2, numbered(20, 1), 4, [], [])]
    )
    third = Batch(queues=[QueueWrite(1, [], 9, [11], [])])
    overtaking = acknowledgements([first, second, third])
    assert overtaking.queues == [QueueWrite(1, [], 5, [7], []), QueueWrite(2, [], 4, [], [])]
    carry_over(overtaking, [first, second, third])
    assert [write for batch in (first, second, third) for write in batch.queues if write.queue_id == 1] == [
        QueueWrite(1, [], 5, [7], []),
        QueueWrite(1, [], 8, [], [], moved=True),
        QueueWrite(1, [], 9, [11], []),
    ]


@in_fake_time
async def test_flush_commits_everything_without_delay() -> None:
    disk = Disk(seconds=0.03)
    journal, pending = make(disk)
    pending.add("a")
    journal.poke()
    await asyncio.sleep(0.025)  # "a" is being committed
    pending.add("b")
    journal.poke()
    await journal.flush()
    assert pending.settled == [(0.05, ("a",)), (0.08, ("b",))]
    await journal.flush()
    pending.add("c")
    await journal.flush()
    assert pending.settled[-1] == (0.11, ("c",))
    await journal.close()


@in_fake_time
async def test_flush_waits_for_a_disk_that_refuses_and_can_be_given_up() -> None:
    disk = Disk()
    disk.broken = "no"
    journal, pending = make(disk)
    pending.add("a")
    with pytest.raises(TimeoutError):
        await asyncio.wait_for(journal.flush(), 10)
    assert now() == 10.0
    await asyncio.wait_for(journal.close(), 1)
    assert pending.settled == []


@in_fake_time
async def test_close_ends_the_waiting_between_tries_at_once() -> None:
    disk = Disk()
    disk.broken = "no"
    journal, pending = make(disk)
    pending.add("a", urgent=True)
    journal.poke()
    await asyncio.sleep(30)
    before = now()
    await journal.close()
    assert now() == before
    assert pending.settled == []
    tries = len(disk.tries)
    pending.add("b", urgent=True)
    journal.poke()
    await asyncio.sleep(30)
    assert len(disk.tries) == tries


@in_fake_time
async def test_close_waits_for_the_commit_in_progress() -> None:
    disk = Disk(seconds=0.5)
    journal, pending = make(disk)
    pending.add("a", urgent=True)
    journal.poke()
    await asyncio.sleep(0.1)
    pending.add("b", urgent=True)
    journal.poke()
    await journal.close()
    assert pending.settled == [(0.5, ("a",))]


@in_fake_time
async def test_a_fault_in_settling_does_not_stop_the_next_batches(caplog: pytest.LogCaptureFixture) -> None:
    faults = [ValueError("a recipient's fault")]

    def after() -> None:
        if faults:
            raise faults.pop()

    disk = Disk()
    journal, pending = make(disk, after_settle=after)
    for name in "ab":
        pending.add(name, urgent=True)
        journal.poke()
        await asyncio.sleep(0.1)
    assert [names for _, names in pending.settled] == [("a",), ("b",)]
    assert "a recipient's fault" in caplog.text
    await journal.close()


@in_fake_time
async def test_the_time_that_commits_take_is_counted() -> None:
    disk = Disk()
    journal, pending = make(disk)
    for seconds in (0.0005, 0.03, 0.03, 7.0):
        disk.seconds = seconds
        pending.add("x", urgent=True)
        journal.poke()
        await asyncio.sleep(10)
    counted = dict(zip((*COMMIT_SECONDS_BOUNDS, "more"), journal.commit_seconds_buckets, strict=True))
    assert {bound: count for bound, count in counted.items() if count} == {0.001: 1, 0.05: 2, "more": 1}
    assert journal.commit_seconds_sum == pytest.approx(7.0605)
    assert journal.batches == 4
    await journal.close()


@in_fake_time
async def test_only_what_waited_long_enough_is_asked_for_unless_the_batch_is_due_early() -> None:
    journal, operations = make(Disk())
    operations.add("patient")
    journal.poke()
    await asyncio.sleep(1)
    assert operations.sealed_since == [pytest.approx(1000.0)], "from 0.02 s before now on"
    operations.add("urgent", urgent=True)
    journal.poke()
    await asyncio.sleep(1)
    assert operations.sealed_since[1:] == [None]
    operations.add("last")
    await journal.flush()
    assert operations.sealed_since[2:] == [None]


async def test_with_a_real_store_what_is_settled_is_on_the_disk(state_dir: Path) -> None:
    class Queue(Operations):
        """Each operation is one message of queue 1."""

        next_number = 1

        def seal(self, waiting_since: float | None = None) -> Sealed:
            sealed = super().seal(waiting_since)
            sealed.batch = queue_batch(1, numbered(self.next_number, len(sealed.names)))
            self.next_number += len(sealed.names)
            return sealed

    async with opened(state_dir) as (store, _):
        pending = Queue()
        journal = Journal(
            store,
            pending,
            commit_delay_seconds=0.005,
            early_messages=20,
            early_bytes=1 << 20,
            after_settle=lambda: None,
        )
        for n in range(200):
            pending.add(str(n))
            journal.poke()
            if n % 7 == 0:
                await asyncio.sleep(0)
        await journal.flush()
        assert [name for _, names in pending.settled for name in names] == [str(n) for n in range(200)]
        assert len(await read_all(store, 1)) == 200
        assert journal.batches == store.commits
        await journal.close()
