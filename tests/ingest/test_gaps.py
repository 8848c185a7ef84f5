"""A gap is told once when it lasts and once when it is over; many at once are told in few lines."""

from __future__ import annotations

from bridge.ingest.gaps import GapWatch, describe
from bridge.ingest.worker import LaneGaps
from bridge.windows import LaneKey

ONE, OTHER = LaneKey("gw", "up"), LaneKey("gw", "alarms")
NONE = LaneGaps(0, [])


def test_a_gap_that_closes_soon_is_not_told() -> None:
    watch = GapWatch(30)
    watch.update({ONE: LaneGaps(1, [(3, 4)])}, 100)
    assert watch.due(129) == []
    watch.update({ONE: NONE}, 129)
    assert watch.due(200) == []
    assert (len(watch), watch.missing) == (0, 0)


def test_one_that_lasts_is_told_once_and_its_end_once() -> None:
    watch = GapWatch(30)
    watch.update({ONE: LaneGaps(1, [(3, 4)]), OTHER: NONE}, 100)
    watch.update({ONE: LaneGaps(4, [(3, 4), (7, 10)])}, 120)
    assert watch.missing == 4
    assert watch.due(130) == ["gateway 'gw', lane 'up': 3, 7-9: 4 messages are missing"]
    assert watch.due(140) == []
    watch.update({ONE: LaneGaps(1, [(9, 10)])}, 150)
    assert watch.due(150) == []
    watch.update({ONE: NONE}, 160)
    assert watch.due(160) == ["gateway 'gw', lane 'up': nothing is missing any more"]
    assert watch.due(170) == []
    watch.update({ONE: LaneGaps(1, [(20, 21)])}, 180)
    assert watch.due(210) == ["gateway 'gw', lane 'up': 20: 1 message is missing"]


def test_what_was_missing_at_the_start_is_known_and_its_end_is_told() -> None:
    watch = GapWatch(0)
    watch.begin({ONE: LaneGaps(2, [(3, 5)]), OTHER: NONE}, 0)
    assert (watch.due(1), len(watch), watch.missing) == ([], 1, 2)
    watch.update({ONE: NONE}, 2)
    assert len(watch.due(2)) == 1


def test_a_thousand_lanes_are_a_few_lines() -> None:
    watch = GapWatch(0)
    keys = [LaneKey(f"gw-{number}", "up") for number in range(1_000)]
    watch.update(dict.fromkeys(keys, LaneGaps(1, [(3, 4)])), 0)
    lines = watch.due(0)
    assert (len(lines), lines[-1]) == (11, "and 990 more lanes miss messages")
    assert watch.due(1) == []
    watch.update(dict.fromkeys(keys, NONE), 2)
    lines = watch.due(2)
    assert (len(lines), lines[-1]) == (11, "and 990 more lanes miss nothing any more")


def test_many_stretches_are_cut_short() -> None:
    stretches = [(number, number + 1) for number in range(1, 20, 2)]
    assert describe(LaneGaps(300, stretches)) == "1, 3, 5, 7, 9, …: 300 messages are"
