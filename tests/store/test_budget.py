"""The daily write budget: it widens the commit delay and does nothing else."""

from __future__ import annotations

import pytest

from edge_broker.store import WriteBudget

DAY = 86_400.0


def budget(now: float = 0.0, written_bytes: int = 0) -> WriteBudget:
    return WriteBudget(24_000_000, 0.25, 5.0, now, written_bytes)


def test_within_the_budget_nothing_changes() -> None:
    day = budget(now=500.0, written_bytes=7_000_000)
    assert day.commit_delay(500.0, 7_000_000) == 0.25
    assert day.commit_delay(500.0 + 10 * 3600, 18_000_000) == 0.25


def test_ahead_of_it_the_delay_widens_up_to_its_maximum() -> None:
    day = budget()
    after_an_hour = [day.commit_delay(3600.0, written) for written in (2_000_000, 4_000_000, 100_000_000)]
    assert after_an_hour == [0.25, pytest.approx(1.0), 5.0]


def test_time_catches_up() -> None:
    day = budget()
    delays = [day.commit_delay(hours * 3600.0, 6_000_000) for hours in range(7)]
    assert delays == sorted(delays, reverse=True)
    assert (delays[0], delays[-1]) == (5.0, 0.25)


def test_each_day_begins_anew() -> None:
    day = budget()
    assert day.commit_delay(DAY - 1, 100_000_000) > 0.25
    assert day.commit_delay(DAY, 100_000_000) == 0.25
    assert day.commit_delay(DAY + 3600, 104_000_000) > 0.25


def test_a_maximum_below_the_delay_is_the_delay() -> None:
    assert WriteBudget(1, 0.25, 0.0, 0.0, 0).commit_delay(1.0, 10**9) == 0.25
