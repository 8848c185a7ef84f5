from datetime import datetime, timedelta
from math import inf

import pytest

from devices.pacing import Pace

START = datetime(2015, 2, 2, 14, 19)


@pytest.mark.parametrize(
    ("speed", "expected"), [(1.0, [0, 59, 120]), (60.0, [0, 59 / 60, 2]), (inf, [0, 0, 0])]
)
def test_gaps_as_recorded_divided_by_the_speed(speed: float, expected: list[float]) -> None:
    pace = Pace(speed)
    due = [pace.due_seconds(START + timedelta(seconds=seconds)) for seconds in (0, 59, 120)]
    assert due == pytest.approx(expected)


def test_a_jump_into_the_past_is_due_at_once_and_time_goes_on_from_there() -> None:
    pace = Pace(1.0)
    due = [pace.due_seconds(START + timedelta(seconds=seconds)) for seconds in (0, 60, 0, 60)]
    assert due == [0, 60, 60, 120]


@pytest.mark.parametrize("speed", [0.0, -1.0, float("nan")])
def test_speeds_that_make_no_sense(speed: float) -> None:
    with pytest.raises(ValueError, match="above 0"):
        Pace(speed)
