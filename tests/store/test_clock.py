"""What a run takes for the time, and what it learns: a `StoreClock` alone, with both clocks in the test's hand."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from edge_broker.store.clock import (
    MOST_AHEAD_OF_NOTHING_SECONDS,
    MOST_AHEAD_SECONDS,
    NOT_BEFORE,
    Correction,
    StoreClock,
    kept_deltas,
)
from edge_broker.store.times import MAX_TIMELINE, TIMELINE_BITS, Times, wall_times

NOON = NOT_BEFORE + 40 * 86_400.0
HOUR = 3600.0


def yes() -> bool:
    return True


def no() -> bool:
    return False


class Machine:
    """A board with a disk of `meta` rows; each `boot` starts its monotonic clock anew."""

    def __init__(self) -> None:
        self.kept: dict[str, int] = {}
        self.clock: StoreClock

    def boot(
        self,
        wall: float,
        monotonic: float = 10.0,
        newest: float | None = None,
        confirmed: Callable[[], bool] = no,
    ) -> StoreClock:
        self.clock = StoreClock(self.kept, newest, wall, monotonic, confirmed)
        self.save(monotonic)
        return self.clock

    def save(self, monotonic: float) -> None:
        changes = self.clock.changes(monotonic, alone=True)
        for name, value in changes.items():
            if value is None:
                del self.kept[name]
            else:
                self.kept[name] = value
        self.clock.written(changes, monotonic)
        assert not self.clock.is_due

    def outside(self, stamp: int) -> float:
        """What somebody who looks at the disk makes of a stamp, in wall seconds."""
        return wall_times(kept_deltas(self.kept)).read(stamp)


def about(before: float, seconds: float) -> Correction:
    return Correction(pytest.approx(before, abs=0.02), pytest.approx(seconds, abs=0.02))


@pytest.fixture
def machine() -> Machine:
    return Machine()


def test_with_a_right_clock_all_is_wall_time(machine: Machine) -> None:
    clock = machine.boot(NOON, 10.0)
    assert not clock.unsynced
    assert clock.look(NOON + 100, 110.0) is None
    stamp = clock.times.stamp(110.0)
    assert machine.outside(stamp) == pytest.approx(NOON + 100, abs=0.02)
    later = machine.boot(NOON + HOUR, 5.0)
    assert not later.unsynced
    assert later.times.read(stamp) == pytest.approx(5.0 - (HOUR - 100), abs=0.02)


def test_a_boot_in_1970_goes_on_from_the_newest_time(machine: Machine) -> None:
    stamp = machine.boot(NOON, 10.0).times.stamp(10.0)
    machine.save(70.0)
    clock = machine.boot(12.0, 12.0)
    assert clock.unsynced
    assert clock.wall(12.0) == pytest.approx(NOON + 60, abs=0.02)
    assert clock.times.read(stamp) == pytest.approx(
        12.0 - 60, abs=0.02
    )  # the minute that it ran, and no downtime


def test_a_clock_an_hour_behind_the_store_is_not_believed(machine: Machine) -> None:
    machine.boot(NOON)
    clock = machine.boot(NOON - HOUR)
    assert clock.unsynced
    assert clock.look(NOON - HOUR + 100, 110.0) is None
    assert clock.unsynced
    assert clock.wall(110.0) == pytest.approx(NOON + 100, abs=0.02)


def test_a_message_in_a_segment_is_as_good_as_a_row(machine: Machine) -> None:
    machine.boot(NOON)
    assert machine.boot(NOON + 50, newest=NOON + 100).unsynced
    assert not machine.boot(NOON + 150, newest=NOON + 100).unsynced


def test_when_the_clock_comes_right_everything_is_corrected_once(machine: Machine) -> None:
    before = machine.boot(NOON, 10.0).times.stamp(10.0)
    clock = machine.boot(0.0, 12.0)
    meanwhile = clock.times.stamp(20.0)
    # the truth: two hours passed before the boot
    assert clock.look(NOON + 2 * HOUR + 18, 30.0) == about(12.0, 2 * HOUR)
    assert not clock.unsynced
    assert clock.corrections == 1
    assert clock.times.read(meanwhile) == pytest.approx(
        20.0, abs=0.02
    )  # nothing changes for what came in this run
    assert clock.times.read(before) == pytest.approx(12.0 - 2 * HOUR, abs=0.02)
    assert clock.look(NOON + 2 * HOUR + 19, 31.0) is None
    machine.save(31.0)
    assert machine.outside(meanwhile) == pytest.approx(NOON + 2 * HOUR + 8, abs=0.02)
    assert machine.outside(before) == pytest.approx(NOON, abs=0.02)
    assert machine.outside(clock.times.stamp(40.0)) == pytest.approx(NOON + 2 * HOUR + 28, abs=0.02)


def test_what_is_written_again_keeps_its_time_through_the_correction(machine: Machine) -> None:
    before = machine.boot(NOON, 10.0).times.stamp(10.0)
    clock = machine.boot(0.0, 12.0)
    again = clock.times.stamp(clock.times.read(before))  # a session's row, while nothing is known
    assert clock.look(NOON + HOUR, 30.0) is not None
    machine.save(30.0)
    assert machine.outside(again) == pytest.approx(NOON, abs=0.02)
    once_more = clock.times.stamp(clock.times.read(again))
    assert machine.outside(once_more) == pytest.approx(NOON, abs=0.02)


def test_several_runs_without_a_clock_are_one_stretch(machine: Machine) -> None:
    first = machine.boot(0.0, 10.0).times.stamp(10.0)
    assert machine.outside(first) == pytest.approx(NOT_BEFORE, abs=0.02)
    machine.save(40.0)
    clock = machine.boot(0.0, 5.0)
    second = clock.times.stamp(5.0)
    assert clock.look(NOON, 15.0) is not None
    machine.save(15.0)
    assert machine.outside(second) == pytest.approx(NOON - 10, abs=0.02)
    assert machine.outside(first) == pytest.approx(NOON - 40, abs=0.02)


def test_a_run_that_never_learned_the_time_ended_when_the_next_one_began(machine: Machine) -> None:
    stamp = machine.boot(0.0, 10.0).times.stamp(10.0)
    machine.save(40.0)
    clock = machine.boot(NOON, 5.0)
    assert not clock.unsynced
    assert clock.times.read(stamp) == pytest.approx(5.0 - 30, abs=0.02)
    assert machine.outside(stamp) == pytest.approx(NOON - 30, abs=0.02)


def test_what_is_learned_after_that_holds_for_the_run_before_too(machine: Machine) -> None:
    """It ended when this one began, by whatever clock: so both are off by the same."""
    older = machine.boot(NOON, 10.0).times.stamp(10.0)
    stamp = machine.boot(0.0, 10.0).times.stamp(10.0)
    machine.save(40.0)
    confirmed = False
    clock = machine.boot(NOON + HOUR, 50.0, confirmed=lambda: confirmed)  # and that is still two hours behind
    assert clock.look(NOON + 3 * HOUR + 10, 60.0) is None
    confirmed = True
    assert clock.look(NOON + 3 * HOUR + 11, 61.0) == about(20.0, 2 * HOUR)  # of what is older than both
    assert clock.times.read(stamp) == pytest.approx(20.0, abs=0.02)
    assert clock.times.read(older) == pytest.approx(50.0 - 3 * HOUR, abs=0.02)
    machine.save(61.0)
    assert machine.outside(stamp) == pytest.approx(NOON + 3 * HOUR - 30, abs=0.02)


@pytest.mark.parametrize("step", [-40 * 365 * 86_400.0, -HOUR, -2.0, 2.0, HOUR, 400 * 86_400.0, 1e9])
def test_a_step_changes_nothing_in_its_run(machine: Machine, step: float) -> None:
    older = machine.boot(NOON, 10.0).times.stamp(10.0)
    clock = machine.boot(NOON + 60, 10.0)
    stamp = clock.times.stamp(15.0)
    assert clock.look(NOON + 70 + step, 20.0) is None
    assert clock.times.read(older) == pytest.approx(-50.0, abs=0.02)
    assert clock.times.read(stamp) == pytest.approx(15.0, abs=0.02)


@pytest.mark.parametrize(
    ("step", "followed"),
    [(-HOUR, False), (-30.0, True), (HOUR, True), (MOST_AHEAD_SECONDS + 100, False), (-NOON, False)],
)
def test_which_steps_are_followed(machine: Machine, step: float, followed: bool) -> None:
    clock = machine.boot(NOON, 10.0)
    clock.look(NOON + 10 + step, 20.0)
    assert clock.unsynced is not followed
    assert clock.corrections == followed
    assert clock.wall(20.0) == pytest.approx(NOON + 10 + (step if followed else 0.0), abs=0.02)
    clock.look(NOON + 20 + (step if followed else 0.0), 30.0)  # and a doubt ends with the step undone
    assert not clock.unsynced


def test_a_step_that_the_kernel_confirms_later_counts_as_downtime(machine: Machine) -> None:
    """A clock that was restored from the last shutdown seems right until the network comes."""
    before = machine.boot(NOON, 10.0).times.stamp(10.0)
    confirmed = False
    clock = machine.boot(NOON + 1, 10.0, confirmed=lambda: confirmed)
    assert clock.look(NOON + 11 + 8 * HOUR, 20.0) is None
    confirmed = True
    assert clock.look(NOON + 12 + 8 * HOUR, 21.0) == about(10.0, 8 * HOUR)
    assert clock.corrections == 2
    assert clock.look(NOON + 13 + 8 * HOUR, 22.0) is None
    assert clock.times.read(before) == pytest.approx(9.0 - 8 * HOUR, abs=0.02)


def test_a_clock_years_ahead_expires_nothing_and_is_forgotten(machine: Machine) -> None:
    before = machine.boot(NOON, 10.0).times.stamp(10.0)
    future = NOON + MOST_AHEAD_SECONDS + 86_400
    clock = machine.boot(future, 10.0)
    assert clock.unsynced
    assert clock.times.read(before) == pytest.approx(10.0, abs=0.02)
    clock.look(future + 5, 15.0)
    assert clock.unsynced
    assert clock.look(NOON + HOUR, 20.0) is not None
    assert not clock.unsynced
    assert clock.times.read(before) == pytest.approx(20.0 - HOUR, abs=0.02)


def test_a_clock_years_ahead_is_believed_if_the_kernel_says_so(machine: Machine) -> None:
    machine.boot(NOON)
    clock = machine.boot(NOON + MOST_AHEAD_SECONDS + 86_400, confirmed=yes)
    assert not clock.unsynced


def test_an_empty_store_takes_a_clock_of_decades_ahead_but_no_more(machine: Machine) -> None:
    assert not machine.boot(NOT_BEFORE + MOST_AHEAD_OF_NOTHING_SECONDS - 10).unsynced
    assert Machine().boot(NOT_BEFORE + MOST_AHEAD_OF_NOTHING_SECONDS + 10).unsynced
    late = Machine()
    late.boot(0.0)
    assert not late.boot(NOT_BEFORE + MOST_AHEAD_SECONDS + 86_400).unsynced


def test_a_store_from_the_future_is_pulled_back_when_the_kernel_confirms_the_present(
    machine: Machine,
) -> None:
    machine.boot(NOON + 4 * 365 * 86_400.0)
    first = machine.boot(NOON + 4 * 365 * 86_400.0 + 50, 10.0)
    stamp = first.times.stamp(10.0)
    clock = machine.boot(NOON, 10.0)
    assert clock.unsynced
    confirmed = StoreClock(dict(machine.kept), None, NOON, 10.0, yes)
    assert not confirmed.unsynced
    assert confirmed.times.read(stamp) == pytest.approx(10.0, abs=0.02)


@pytest.mark.parametrize("at_start", [True, False])
def test_the_present_confirmed_while_it_runs(machine: Machine, at_start: bool) -> None:
    """The wrong clock was that of the run before, or of this one until the network came."""
    ahead = 300 * 86_400.0
    earlier = machine.boot(NOON + ahead, 10.0).times.stamp(10.0)
    confirmed = False
    clock = machine.boot(NOON if at_start else NOON + ahead, 10.0, confirmed=lambda: confirmed)
    assert clock.unsynced is at_start
    stamp = clock.times.stamp(15.0)
    confirmed = True
    correction = clock.look(NOON + 10, 20.0)
    assert correction is not None
    assert correction.before <= 10.0
    assert clock.times.read(earlier) == pytest.approx(10.0, abs=0.02)
    assert clock.wall(20.0) == pytest.approx(NOON + 10, abs=0.02)
    machine.save(20.0)
    assert machine.outside(stamp) == pytest.approx(NOON + 5, abs=0.02)
    assert not machine.boot(NOON + 30).unsynced


def test_nothing_from_before_the_software_is_believed_whoever_says_so(machine: Machine) -> None:
    clock = machine.boot(NOT_BEFORE - 86_400, 10.0, confirmed=yes)
    assert clock.unsynced
    assert clock.look(NOT_BEFORE - 86_400 + 50, 60.0) is None
    assert clock.unsynced


def test_the_newest_time_is_written_once_a_minute(machine: Machine) -> None:
    clock = machine.boot(NOON, 10.0)
    assert clock.changes(69.0) == {}
    assert set(clock.changes(70.0)) == {"newest_ms"}
    assert not clock.is_due
    assert clock.newest_written_before(11.0)
    assert not clock.newest_written_before(10.0)


def test_what_was_not_written_comes_again(machine: Machine) -> None:
    machine.boot(NOON)
    clock = machine.boot(0.0, 10.0)
    clock.look(NOON + HOUR, 20.0)
    changes = clock.changes(20.0)
    assert any(name.startswith("timeline_delta:") for name in changes)
    assert clock.changes(20.0) == changes
    clock.write_again()
    machine.save(21.0)
    assert kept_deltas(machine.kept)


def test_the_rows_are_bounded_and_numbers_begin_again(machine: Machine) -> None:
    for number in range(300):
        machine.boot(NOON + number)
    assert len([name for name in machine.kept if name.startswith("timeline_start:")]) == 256
    machine.kept["timeline"] = MAX_TIMELINE
    machine.kept["timeline_delta:1"] = 5
    clock = machine.boot(NOON + 301)
    assert clock.times.timeline == 1
    assert "timeline_delta:1" not in machine.kept
    stamp = Times(NOON, timeline=MAX_TIMELINE).stamp(1.5)
    assert stamp < 1 << 63
    assert Times(NOON, timeline=MAX_TIMELINE).read(stamp) == pytest.approx(1.5, abs=0.02)
    assert stamp >> TIMELINE_BITS == MAX_TIMELINE


def test_a_store_that_lost_its_rows_uses_no_number_twice(machine: Machine) -> None:
    machine.boot(NOON)
    number = machine.boot(NOON + 1).times.timeline
    del machine.kept["timeline"]
    assert machine.boot(NOON + 2).times.timeline == number + 1
