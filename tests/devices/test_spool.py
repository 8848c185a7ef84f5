"""The spool: numbers, order, what leaves when, bounds, and what happens to the file."""

import logging
import os
import shutil
import sqlite3
import stat
import subprocess
import sys
import threading
from pathlib import Path

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule

from devices.encoding import EncodedReading
from devices.errors import ReadingError, SpoolError, SpoolFullError, SpoolInUseError
from devices.spool import Spool, SpoolLimits
from tests.devices.mosquitto import wait_until


def readings(count: int, size: int = 10) -> list[EncodedReading]:
    return [EncodedReading("t", b"x" * size, "application/json", 1) for _ in range(count)]


def take_all(spool: Spool) -> list[int]:
    taken = []
    while (spooled := spool.take()) is not None:
        taken.append(spooled.sequence)
    return taken


def rows(path: Path) -> list[int]:
    """What another program sees in the file."""
    with sqlite3.connect(path) as db:
        return [row[0] for row in db.execute("SELECT sequence FROM readings ORDER BY sequence")]


def crash(spool: Spool) -> None:
    """End as a kill -9 does: nothing is committed, the lock dies with its owner."""
    spool._file.close()


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "porch.spool"


# ---------------------------------------------------------------------- numbers and order


@pytest.mark.parametrize("in_file", [True, False])
def test_readings_come_out_as_they_went_in(path: Path, in_file: bool) -> None:
    spool = Spool(path if in_file else None, "porch")
    first = EncodedReading("a/b", b'{"v":1}', "application/json", 1)
    second = EncodedReading("c", b"\xa1", "application/cbor", 0)
    assert spool.append([first]) == range(1, 2)
    assert spool.append([second, first]) == range(2, 4)
    assert spool.append([]) == range(0)
    taken = [spool.take() for _ in range(4)]
    assert [(one.sequence, one.reading) for one in taken if one] == [(1, first), (2, second), (3, first)]
    assert taken[3] is None
    assert (spool.waiting, spool.in_flight) == (3, 3)
    spool.close()


def test_append_returns_after_the_commit(path: Path) -> None:
    spool = Spool(path, "porch")
    for number in range(1, 5):
        spool.append(readings(1))
        assert rows(path) == list(range(1, number + 1))
    with sqlite3.connect(path) as db:
        assert db.execute("PRAGMA journal_mode").fetchone() == ("wal",)
    assert spool._db.execute("PRAGMA synchronous").fetchone() == (2,)  # FULL
    spool.close()


def test_the_acknowledged_leave_with_the_next_commit(path: Path) -> None:
    spool = Spool(path, "porch")
    spool.append(readings(3))
    take_all(spool)
    assert spool.acknowledge(1)
    assert spool.acknowledge(2)
    assert not spool.acknowledge(2)
    assert (spool.waiting, spool.settled_in_file, rows(path)) == (1, 2, [1, 2, 3])
    spool.append(readings(1))
    assert (spool.waiting, spool.settled_in_file, rows(path)) == (2, 0, [3, 4])
    spool.acknowledge(3)
    spool.commit_settled()
    assert rows(path) == [4]
    spool.close()


def test_a_rewind_begins_with_the_oldest_unsettled(path: Path) -> None:
    spool = Spool(path, "porch")
    spool.append(readings(6))
    assert take_all(spool) == [1, 2, 3, 4, 5, 6]
    for sequence in (1, 2, 4):
        spool.acknowledge(sequence)
    spool.append(readings(1))
    spool.rewind()
    assert spool.in_flight == 0
    assert take_all(spool) == [3, 5, 6, 7]
    spool.acknowledge(3)
    spool.rewind()  # 3 is still in the file, and settled
    assert take_all(spool) == [5, 6, 7]
    spool.close()


@pytest.mark.parametrize("end", [Spool.close, crash])
def test_numbers_go_on_after_the_last_one_left(path: Path, end: object) -> None:
    for number in range(1, 4):
        spool = Spool(path, "porch")
        assert spool.append(readings(1)) == range(number, number + 1)
        for sequence in take_all(spool):
            spool.acknowledge(sequence)
        if number == 2:
            spool.commit_settled()
            assert rows(path) == []
        end(spool)  # type: ignore[operator]


def test_a_crash_sends_again_what_was_settled_since_the_last_commit(path: Path) -> None:
    spool = Spool(path, "porch")
    spool.append(readings(3))
    take_all(spool)
    spool.acknowledge(1)
    crash(spool)
    spool = Spool(path, "porch")
    assert take_all(spool) == [1, 2, 3]
    spool.close()


def test_a_backlog_is_read_in_pages(path: Path) -> None:
    spool = Spool(path, "porch")
    spool.append(readings(1000))
    taken = []
    while (spooled := spool.take()) is not None:
        taken.append(spooled.sequence)
        assert len(spool._ahead) <= 256
        if spooled.sequence == 500:
            spool.append(readings(10))
    assert taken == list(range(1, 1011))
    spool.close()


def test_large_readings_are_read_one_by_one(path: Path) -> None:
    spool = Spool(path, "porch")
    spool.append(readings(5, 900_000))
    assert sum(one.size_bytes for one in spool._ahead) <= 1 << 20
    assert take_all(spool) == [1, 2, 3, 4, 5]
    spool.close()


class SpoolAgainstAList(RuleBasedStateMachine):
    """Whatever happens in whatever order, the spool is the list of what was accepted and not settled."""

    CAPACITY = 12

    def __init__(self) -> None:
        super().__init__()
        import tempfile

        self.directory = Path(tempfile.mkdtemp())
        self.limits = SpoolLimits(max_readings=self.CAPACITY)
        self.spool = Spool(self.directory / "spool", "porch", self.limits)
        self.last = 0
        self.waiting: list[int] = []
        self.in_flight: list[int] = []
        self.settled_since_commit: set[int] = set()

    @rule(count=st.integers(1, 20))
    def append(self, count: int) -> None:
        new = list(range(self.last + 1, self.last + count + 1))
        assert list(self.spool.append(readings(count))) == new
        self.last += count
        self.settled_since_commit.clear()
        excess = max(0, len(self.waiting) + count - self.CAPACITY)
        idle = [sequence for sequence in self.waiting if sequence not in self.in_flight]
        dropped = (idle + self.in_flight + new)[:excess]
        self.waiting += new
        self.waiting = [sequence for sequence in self.waiting if sequence not in dropped]
        self.in_flight = [sequence for sequence in self.in_flight if sequence not in dropped]

    @rule()
    def take(self) -> None:
        spooled = self.spool.take()
        behind = max(self.in_flight, default=0)
        expected = [s for s in self.waiting if s not in self.in_flight and s > behind]
        if spooled is None:
            assert not [s for s in self.waiting if s not in self.in_flight]
        else:
            assert spooled.sequence == expected[0]
            self.in_flight.append(spooled.sequence)

    @precondition(lambda self: self.in_flight)
    @rule(data=st.data(), rejects=st.booleans())
    def settle(self, data: st.DataObject, rejects: bool) -> None:
        sequence = data.draw(st.sampled_from(self.in_flight))
        assert self.spool.reject(sequence, "no") if rejects else self.spool.acknowledge(sequence)
        self.in_flight.remove(sequence)
        self.waiting.remove(sequence)
        self.settled_since_commit.add(sequence)

    @rule()
    def rewind(self) -> None:
        self.spool.rewind()
        self.in_flight.clear()

    @rule()
    def commit(self) -> None:
        self.spool.commit_settled()
        self.settled_since_commit.clear()

    @rule(crashes=st.booleans())
    def reopen(self, crashes: bool) -> None:
        if crashes:
            crash(self.spool)
            self.waiting = sorted({*self.waiting, *self.settled_since_commit})
        else:
            self.spool.close()
        self.settled_since_commit.clear()
        self.spool = Spool(self.directory / "spool", "porch", self.limits)
        self.in_flight.clear()

    @invariant()
    def counts(self) -> None:
        assert self.spool.waiting == len(self.waiting)
        assert self.spool.in_flight == len(self.in_flight)
        assert self.spool.last_sequence == self.last
        assert self.spool._waiting_bytes == 10 * len(self.waiting)

    def teardown(self) -> None:
        self.spool.rewind()
        assert take_all(self.spool) == self.waiting
        self.spool.close()
        shutil.rmtree(self.directory)


SpoolAgainstAList.TestCase.settings = settings(max_examples=40, stateful_step_count=30, deadline=None)
test_whatever_happens = SpoolAgainstAList.TestCase


# ---------------------------------------------------------------------- bounds


def test_the_oldest_are_dropped_but_not_those_on_their_way() -> None:
    spool = Spool(None, "porch", SpoolLimits(max_readings=5))
    spool.append(readings(5))
    assert [spool.take().sequence for _ in range(2)] == [1, 2]  # type: ignore[union-attr]
    spool.append(readings(2))
    assert (spool.waiting, spool.dropped) == (5, 2)
    assert spool.acknowledge(1)
    assert take_all(spool) == [5, 6, 7]
    spool.append(readings(10))  # more than fits: some of them are dropped at once
    assert (spool.waiting, spool.dropped) == (5, 11)
    assert take_all(spool) == [13, 14, 15, 16, 17]
    spool.append(readings(1))
    spool.rewind()  # nothing is on its way any more
    spool.append(readings(2))
    assert take_all(spool) == [16, 17, 18, 19, 20]
    spool.close()


def test_bytes_are_bounded_too(path: Path) -> None:
    spool = Spool(path, "porch", SpoolLimits(max_bytes=1000))
    for _ in range(20):
        spool.append(readings(1, 300))
        assert spool._waiting_bytes <= 1000
    assert (spool.waiting, spool.dropped) == (3, 17)
    with pytest.raises(ReadingError, match="larger than the whole spool"):
        spool.append(readings(1, 1001))
    assert spool.append(readings(1)) == range(21, 22)
    spool.close()
    spool = Spool(path, "porch")
    assert spool.dropped == 17  # over the spool's life
    spool.close()


def test_the_file_does_not_grow_with_what_passed_through(path: Path) -> None:
    spool = Spool(path, "porch", SpoolLimits(max_readings=100))
    spool.append(readings(100, 1000))
    for _ in range(100):
        spool.append(readings(100, 1000))
    assert path.stat().st_size + path.with_name("porch.spool-wal").stat().st_size < 6_000_000  # 10 MB went in
    spool.close()


def test_refusing_uses_no_number() -> None:
    spool = Spool(None, "porch", SpoolLimits(max_readings=3, when_full="refuse"))
    spool.append(readings(2))
    with pytest.raises(SpoolFullError, match="2 readings"):
        spool.append(readings(2))
    assert (spool.waiting, spool.refused, spool.dropped) == (2, 2, 0)
    assert spool.append(readings(1)) == range(3, 4)
    spool.close()


@pytest.mark.parametrize("limits", [{"max_readings": 0}, {"max_bytes": 0}, {"when_full": "explode"}])
def test_limits_that_make_no_sense(limits: dict[str, object]) -> None:
    with pytest.raises(ValueError, match=r"spool|when_full"):
        SpoolLimits(**limits)  # type: ignore[arg-type]


def test_the_rejected_are_set_aside_with_the_reason(path: Path) -> None:
    spool = Spool(path, "porch")
    spool.append(readings(1200))
    for sequence in take_all(spool):
        assert spool.reject(sequence, f"reason {sequence}")
    rejected = spool.rejected_readings()
    assert [spooled.sequence for spooled, _ in rejected] == list(range(201, 1201))  # the newest thousand
    assert rejected[-1][1] == "reason 1200"
    spool.close()
    spool = Spool(path, "porch")
    assert (spool.waiting, spool.rejected, spool.last_sequence) == (0, 1200, 1200)
    spool.close()


# ---------------------------------------------------------------------- threads


def test_threads_that_meet_share_a_commit(path: Path) -> None:
    spool = Spool(path, "porch")
    statements: list[str] = []
    spool._db.set_trace_callback(statements.append)
    results: list[range] = []
    threads = [threading.Thread(target=lambda: results.append(spool.append(readings(2)))) for _ in range(8)]
    with spool._disk:  # as during a sync
        for thread in threads:
            thread.start()
        wait_until(lambda: len(spool._pending) == 8, "the threads did not come")
    for thread in threads:
        thread.join()
    assert statements.count("COMMIT") == 1
    assert sorted(sequence for result in results for sequence in result) == list(range(1, 17))
    spool.close()


def test_many_threads_append_while_one_takes(path: Path) -> None:
    spool = Spool(path, "porch")
    numbers: dict[int, list[int]] = {thread: [] for thread in range(4)}

    def append(thread: int) -> None:
        for _ in range(100):
            numbers[thread] += spool.append(readings(2))

    threads = [threading.Thread(target=append, args=(thread,)) for thread in numbers]
    for thread in threads:
        thread.start()
    taken: list[int] = []

    def take_what_is_there() -> bool:
        while (spooled := spool.take()) is not None:
            taken.append(spooled.sequence)
            spool.acknowledge(spooled.sequence)
        return len(taken) == 800

    wait_until(take_what_is_there, "not all came out")
    for thread in threads:
        thread.join()
    assert taken == list(range(1, 801))
    assert all(mine == sorted(mine) for mine in numbers.values())
    assert spool.waiting == 0
    spool.close()


def test_waiting_for_room_and_closing(path: Path) -> None:
    spool = Spool(path, "porch")
    spool.append(readings(2))
    assert spool.wait_until_at_most(2, 0)
    assert not spool.wait_until_at_most(1, 0.01)
    outcome: list[bool] = []
    waiter = threading.Thread(target=lambda: outcome.append(spool.wait_until_at_most(1)))
    waiter.start()
    spool.take()
    spool.acknowledge(1)
    waiter.join(10)
    assert outcome == [True]
    waiter = threading.Thread(target=lambda: outcome.append(spool.wait_until_at_most(0)))
    waiter.start()
    spool.close()
    waiter.join(10)
    assert outcome == [True, False]
    assert spool.take() is None
    with pytest.raises(SpoolError, match="closed"):
        spool.append(readings(1))
    spool.commit_settled()
    spool.close()


# ---------------------------------------------------------------------- the file


def test_a_full_disk_accepts_nothing_and_loses_nothing(path: Path) -> None:
    spool = Spool(path, "porch")
    spool.append(readings(2))
    pages = spool._db.execute("PRAGMA page_count").fetchone()[0]
    spool._db.execute(f"PRAGMA max_page_count={pages + 2}")
    with pytest.raises(SpoolError, match="full"):
        spool.append(readings(50, 10_000))
    assert (spool.waiting, spool.last_sequence, rows(path)) == (2, 2, [1, 2])
    spool._db.execute("PRAGMA max_page_count=100000")
    assert spool.append(readings(1)) == range(3, 4)
    assert take_all(spool) == [1, 2, 3]
    spool.close()


def test_one_owner_at_a_time(path: Path) -> None:
    spool = Spool(path, "porch")
    with pytest.raises(SpoolInUseError, match="spool of its own"):
        Spool(path, "porch")
    other = f"from devices.spool import Spool; from pathlib import Path; Spool(Path({str(path)!r}), 'porch')"
    result = subprocess.run([sys.executable, "-c", other], capture_output=True, text=True)
    assert "SpoolInUseError" in result.stderr
    spool.close()
    Spool(path, "porch").close()


def test_a_spool_belongs_to_one_device(path: Path) -> None:
    Spool(path, "porch").close()
    with pytest.raises(SpoolError, match="belongs to the device 'porch'"):
        Spool(path, "cellar")
    Spool(path, "porch").close()  # the failed attempt holds no lock


def test_every_spool_has_an_id_of_its_own(path: Path) -> None:
    spool = Spool(path, "porch")
    first = spool.spool_id
    spool.close()
    spool = Spool(path, "porch")
    assert spool.spool_id == first
    spool.close()
    assert Spool(None, "porch").spool_id != Spool(None, "porch").spool_id != first


def test_only_its_owner_may_read_it(path: Path) -> None:
    spool = Spool(path, "porch")
    spool.append(readings(1))
    for suffix in ("", "-wal", "-shm", "-lock"):
        mode = path.with_name(path.name + suffix).stat().st_mode
        assert stat.S_IMODE(mode) == 0o600
    spool.close()


def test_another_programs_file_is_left_alone(path: Path) -> None:
    with sqlite3.connect(path) as db:
        db.execute("CREATE TABLE notes (text)")
    with pytest.raises(SpoolError, match="another program"):
        Spool(path, "porch")
    with sqlite3.connect(path) as db:
        assert db.execute("SELECT name FROM sqlite_schema").fetchall() == [("notes",)]


def test_a_newer_schema_is_left_alone(path: Path) -> None:
    Spool(path, "porch").close()
    with sqlite3.connect(path) as db:
        db.execute("PRAGMA user_version=2")
    with pytest.raises(SpoolError, match="newer version"):
        Spool(path, "porch")


def test_a_directory_that_is_not_there(tmp_path: Path) -> None:
    with pytest.raises(SpoolError, match="is its directory there"):
        Spool(tmp_path / "missing" / "spool", "porch")


@pytest.mark.parametrize("damage", ["no database at all", "a torn page", "a missing table row"])
def test_a_damaged_file_is_set_aside(path: Path, damage: str, caplog: pytest.LogCaptureFixture) -> None:
    spool = Spool(path, "porch")
    old_id = spool.spool_id
    spool.append(readings(200, 100))
    spool.close()
    if damage == "no database at all":
        path.write_bytes(os.urandom(20_000))
    elif damage == "a torn page":
        content = bytearray(path.read_bytes())
        content[4096 : 4096 * 3] = bytes(8192)
        path.write_bytes(content)
    else:
        with sqlite3.connect(path) as db:
            db.execute("DELETE FROM meta WHERE name = 'spool_id'")
    broken = path.read_bytes()
    with caplog.at_level(logging.ERROR):
        spool = Spool(path, "porch")
    assert spool.append(readings(1)) == range(1, 2)
    assert spool.spool_id != old_id
    assert path.with_name("porch.spool.damaged-1").read_bytes() == broken
    assert "set aside" in caplog.text
    spool.close()
