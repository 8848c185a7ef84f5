"""Stretches are a set of numbers; a message is new once; what is missing is told, what is too old is forgotten safely."""

from __future__ import annotations

from itertools import pairwise

from hypothesis import given
from hypothesis import strategies as st

from bridge.windows import Lane, LaneKey, Stretches, Windows

_stretches = st.lists(st.tuples(st.integers(0, 60), st.integers(0, 12)).map(lambda s: (s[0], s[0] + s[1])))


def numbers(stretches: Stretches) -> set[int]:
    return {number for start, end in stretches for number in range(start, end)}


def take(lane: Lane, epoch: int, number: int) -> bool:
    return bool(lane.take(epoch, number, number + 1))


@given(_stretches)
def test_stretches_are_a_set_of_numbers(added: list[tuple[int, int]]) -> None:
    stretches, expected = Stretches(), set()
    for start, end in added:
        stretches.add(start, end)
        expected |= set(range(start, end))
        assert numbers(stretches) == expected
    assert all((number in stretches) == (number in expected) for number in range(-1, 80))
    found = list(stretches)
    assert all(one[1] < other[0] for one, other in pairwise(found))
    missing = {number for start, end in stretches.holes() for number in range(start, end)}
    assert missing == set(range(min(expected, default=0), max(expected, default=-1) + 1)) - expected


@given(st.lists(st.tuples(st.integers(1, 3), st.integers(1, 30))))
def test_a_message_is_new_once(arrivals: list[tuple[int, int]]) -> None:
    lane, before = Lane(), set()
    for arrival in arrivals:
        epoch, number = arrival
        assert bool(lane.take(epoch, number, number + 1)) == (arrival not in before)
        before.add(arrival)


def test_a_number_may_have_a_message_in_each_epoch() -> None:
    lane = Lane()
    assert [take(lane, epoch, 7) for epoch in (1, 2, 1, 2)] == [True, True, False, False]


def test_what_is_missing_in_all_epochs_and_not_skipped_is_a_gap() -> None:
    lane = Lane()
    for epoch, number in [(1, 10), (1, 11), (1, 14), (2, 12), (2, 20)]:
        take(lane, epoch, number)
    assert lane.gaps() == [(13, 14), (15, 20)]
    lane.skip(15, 18)
    assert lane.gaps() == [(13, 14), (18, 20)]
    take(lane, 2, 13)
    assert lane.gaps() == [(18, 20)]


def test_many_holes_take_bounded_memory_and_what_is_forgotten_comes_twice_rather_than_never() -> None:
    lane = Lane()
    for number in range(1, 5_001):
        assert take(lane, 1, 2 * number)
    assert len(lane.epochs[1]) <= 1_000
    assert len(lane.past) <= 1_000
    assert take(lane, 1, 3)
    assert not take(lane, 1, 10_000)


def test_many_epochs_take_bounded_memory_and_leave_no_gaps() -> None:
    lane = Lane()
    for epoch in range(1, 201):
        assert take(lane, epoch, epoch)
    assert len(lane.epochs) <= 64
    assert lane.gaps() == []
    assert take(lane, 300, 150)


def test_windows_count_and_know_what_has_changed() -> None:
    windows = Windows()
    key = LaneKey("gateway", "up")
    taken = [windows.take(key, 1, number) for number in (1, 2, 2, 3)]
    assert taken == [True, True, False, True]
    assert (windows.taken, windows.duplicates, windows.changed) == (3, 1, {key})
    windows.changed.clear()
    windows.take(key, 1, 3)
    assert not windows.changed
    windows.skip(LaneKey("other", "up"), 4, 6)
    assert windows.changed == {LaneKey("other", "up")}


@given(_stretches)
def test_a_run_is_split_into_what_is_new(added: list[tuple[int, int]]) -> None:
    stretches, known = Stretches(), set()
    for start, end in added:
        new = stretches.add_new(start, end)
        assert [number for one in new for number in range(*one)] == sorted(set(range(start, end)) - known)
        known |= set(range(start, end))
        assert numbers(stretches) == known


@given(st.lists(st.tuples(st.integers(1, 90), st.integers(1, 400)), max_size=300), st.integers(1, 20))
def test_what_is_written_is_all_that_there_is_and_bounded(arrivals: list[tuple[int, int]], most: int) -> None:
    lane, disk = Lane(), {}
    for epoch, number in arrivals:
        lane.take(epoch, number, number + 1, most)
        for changed in lane.changed:
            disk[changed] = lane.written(changed)
        lane.changed.clear()
        assert lane.stretches == sum(map(len, lane.epochs.values())) <= most
        assert len(lane.past) <= max(most, 1)
    again = Lane()
    for epoch, stretches in disk.items():
        if stretches is not None:
            again.restore(epoch, stretches)
    assert {epoch: list(seen) for epoch, seen in again.epochs.items()} == {
        epoch: list(seen) for epoch, seen in lane.epochs.items()
    }
    assert (list(again.past), again.stretches) == (list(lane.past), lane.stretches)


def test_a_flood_of_lanes_costs_only_its_own_gateway_and_one_of_gateways_only_newcomers() -> None:
    windows = Windows(max_gateways=2, max_lanes_per_gateway=2)
    for number, key in enumerate([LaneKey("a", "1"), LaneKey("b", "1"), LaneKey("b", "2")]):
        windows.now = number
        assert windows.take(key, 1, 1)
    windows.now = 10
    assert windows.take(LaneKey("b", "3"), 1, 1)
    assert set(windows.lanes) == {LaneKey("a", "1"), LaneKey("b", "2"), LaneKey("b", "3")}
    assert (windows.forgotten, windows.untracked) == (1, 0)
    assert LaneKey("b", "1") in windows.changed
    assert windows.take_run(LaneKey("c", "1"), 1, 5, 8) == [(5, 8)]
    assert windows.take_run(LaneKey("c", "1"), 1, 5, 8) == [(5, 8)]
    windows.skip(LaneKey("d", "1"), 1, 2)
    assert (windows.untracked, windows.gateways) == (6, 2)
    assert not windows.take(LaneKey("a", "1"), 1, 1)
