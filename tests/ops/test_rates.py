"""Speeds over the last ten seconds, and what was written today."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import pytest

from edge_broker.ops import disk
from edge_broker.ops.rates import Rates

DAY_SECONDS = 86_400.0
NOON = 1_750_000_000.0 // DAY_SECONDS * DAY_SECONDS + DAY_SECONDS / 2


def observed() -> Any:
    counters = SimpleNamespace(received=[0, 0, 0], sent=[0, 0, 0])
    bridge = SimpleNamespace(name="up", queues={"normal": SimpleNamespace(depth=0)})
    return SimpleNamespace(router=SimpleNamespace(counters=counters), bridges=[bridge])


def test_nothing_is_known_before_the_second_look() -> None:
    rates = Rates(observed())
    assert (rates.received, rates.sent, rates.drain("up")) == (0, 0, 0)
    rates.note(5.0)
    assert (rates.received, rates.sent, rates.drain("up")) == (0, 0, 0)


def test_the_last_ten_seconds_count() -> None:
    broker = observed()
    rates = Rates(broker)
    broker.bridges[0].queues["normal"].depth = 1000
    for second in range(30):
        rates.note(float(second))
        broker.router.counters.received[1] += 2 if second < 19 else 7
        broker.router.counters.sent[0] += 3
        broker.bridges[0].queues["normal"].depth -= 20
    assert (rates.received, rates.sent, rates.drain("up")) == (7, 3, 20)
    assert rates.drain("another") == 0


def test_a_queue_that_grows() -> None:
    broker = observed()
    rates = Rates(broker)
    rates.note(0.0)
    broker.bridges[0].queues["normal"].depth = 10
    rates.note(2.0)
    assert rates.drain("up") == -5


def test_written_today_begins_anew_at_midnight(monkeypatch: pytest.MonkeyPatch) -> None:
    written: list[int | None] = [1000]
    monkeypatch.setattr(disk, "written_bytes", lambda: written[0])
    monkeypatch.setattr(disk.time, "localtime", disk.time.gmtime)
    today = disk.WrittenToday(NOON)
    today.note(NOON + 1)
    assert today.bytes() == 1000
    written[0] = 5000
    today.note(NOON + DAY_SECONDS)
    assert today.bytes() == 0
    written[0] = 5500
    today.note(NOON + DAY_SECONDS + 1)
    assert today.bytes() == 500
    written[0] = None
    assert today.bytes() is None


def test_a_cards_life() -> None:
    year = 365.25 * DAY_SECONDS
    assert disk.card_years(10e12, 10**12, year) == pytest.approx(10)
    assert disk.card_years(0, 10**12, year) is None
    assert disk.card_years(10e12, 10**12, 0) is None
