"""The month's bytes: when a month begins, what is kept on disk, and what a crash or a wrong clock does to it."""

import json
from datetime import UTC, datetime
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from bridge.account import Account
from bridge.allowance import Allowance, Kept, month_of
from bridge.policy_config import PacingConfig
from tests.bridge.real import Log, until

MIB = 1 << 20


def at(text: str) -> float:
    return datetime.fromisoformat(text).replace(tzinfo=UTC).timestamp()


@pytest.mark.parametrize(
    ("moment", "starts_on", "month"),
    [
        ("2026-11-01T00:00:00", 1, "2026-11"),
        ("2026-10-31T23:59:59", 1, "2026-10"),
        ("2026-11-14T23:59:59", 15, "2026-10"),
        ("2026-11-15T00:00:00", 15, "2026-11"),
        ("2026-01-05T00:00:00", 28, "2025-12"),
        ("2024-03-01T00:00:00", 2, "2024-02"),
        ("1970-01-01T00:00:00", 1, "1970-01"),
    ],
)
def test_months(moment: str, starts_on: int, month: str) -> None:
    assert month_of(at(moment), starts_on) == month


def test_a_month_is_spent_and_the_next_one_begins_anew() -> None:
    allowance = Allowance(MIB, 1, None)
    allowance.add(MIB - 1, at("2026-11-20"))
    assert not allowance.is_spent
    allowance.add(1, at("2026-11-30T23:59:59"))
    assert allowance.is_spent
    allowance.add(0, at("2026-12-01"))
    assert (allowance.is_spent, allowance.used_bytes) == (False, 0)


def test_a_clock_that_goes_back_gives_no_second_month() -> None:
    allowance = Allowance(MIB, 1, Kept("2026-11", MIB))
    for moment in ("1970-01-01", "2026-10-31", "2026-11-01", "2026-11-30"):
        allowance.add(0, at(moment))
        assert allowance.is_spent
    allowance.add(0, at("2026-12-01"))
    assert not allowance.is_spent


@given(st.lists(st.tuples(st.integers(0, 300_000), st.booleans()), max_size=200), st.integers(1, 50))
def test_after_a_crash_no_less_is_counted_than_was_used(steps: list[tuple[int, bool]], mib: int) -> None:
    """Each step some bytes, and perhaps a crash. What was handed out to be kept is on disk before the next step."""
    disk: Kept | None = None
    allowance = Allowance(mib * MIB, 1, disk)
    used = written = 0
    for size, crashes in steps:
        allowance.add(size, at("2026-11-20"))
        used += size
        kept = allowance.to_keep()
        if kept is not None:
            disk, written = kept, written + 1
            allowance.on_kept(kept)
        assert allowance.used_bytes >= used
        if crashes:
            allowance = Allowance(mib * MIB, 1, disk)
            assert allowance.used_bytes >= used
            used = allowance.used_bytes
    block = max(mib * MIB // 100, 65_536)
    assert written <= 1 + used // (block // 2)


# ---- with a file


def account(path: Path | None, wall: str = "2026-11-20", limit: int = 100 * MIB) -> Account:
    return Account("cloud", path, PacingConfig(monthly_bytes=limit), lambda: at(wall))


async def test_a_restart_does_not_forget(tmp_path: Path) -> None:
    path = tmp_path / "bridge-cloud.json"
    first = account(path)
    first.note(5 * MIB)
    first.note(7 * MIB)
    first.close()
    assert json.loads(path.read_text()) == {"month": "2026-11", "used_bytes": 7 * MIB}
    assert account(path).allowance.used_bytes == 7 * MIB


async def test_a_crash_counts_more_and_never_less(tmp_path: Path) -> None:
    path = tmp_path / "bridge-cloud.json"
    first = account(path)
    first.note(5 * MIB)
    await until(path.exists, "not written")
    assert account(path).allowance.used_bytes == 6 * MIB


async def test_little_traffic_is_not_written_each_second(tmp_path: Path) -> None:
    path = tmp_path / "bridge-cloud.json"
    first = account(path)
    first.note(1000)
    await until(lambda: path.exists() and not first._writing, "not written")
    path.unlink()
    for n in range(100):
        first.note(1000 + n)
        assert not first._writing
    assert not path.exists()


@pytest.mark.parametrize("text", ["", "{}", "[]", '{"month": "2026-11", "used_bytes": "x"}', "\0"])
async def test_a_file_that_cannot_be_read_is_said(tmp_path: Path, text: str) -> None:
    path = tmp_path / "bridge-cloud.json"
    path.write_text(text)
    with Log() as log:
        assert account(path).allowance.used_bytes == 0
    assert "cannot be read" in log.of("WARNING")[0]


async def test_a_disk_that_takes_nothing_is_said_once(tmp_path: Path) -> None:
    path = tmp_path / "gone" / "bridge-cloud.json"
    first = account(path)
    with Log() as log:
        for n in range(1, 4):
            first.note(10 * MIB * n)
            await until(lambda: not first._writing, "still writing")
        first.close()
    (line,) = log.of("WARNING")
    assert "cannot be written" in line
    assert first.allowance.used_bytes == 30 * MIB


async def test_without_a_file_it_counts_all_the_same() -> None:
    first = account(None)
    first.note(100 * MIB)
    assert first.allowance.is_spent
    first.close()


@pytest.mark.parametrize(
    ("when", "withheld"), [("stop", "line"), ("drop", "all"), ("only_priority", "not urgent")]
)
async def test_what_is_withheld_and_what_the_log_says(when: str, withheld: str) -> None:
    moment = "2026-11-20"
    config = PacingConfig(monthly_bytes=MIB, when_month_is_spent=when)  # type: ignore[arg-type]
    month = Account("cloud", None, config, lambda: at(moment))
    with Log() as log:
        assert month.look(MIB - 1) == ""
        assert [month.look(MIB), month.look(MIB + 5)] == [withheld, withheld]
        moment = "2026-12-01"
        assert month.look(MIB + 5) == ""
    spent, begun = log.of("WARNING")
    assert spent == f"bridge cloud: the month's 1048576 bytes are spent (when_month_is_spent = {when})"
    assert "a new month of 1048576 bytes begins" in begun
