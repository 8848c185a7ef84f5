import random

import pytest

from devices.backoff import Backoff


def test_delays_double_up_to_the_longest_and_are_drawn_from_the_upper_half() -> None:
    backoff = Backoff(1.0, 10.0, random.Random(7))
    for interval in (1.0, 2.0, 4.0, 8.0, 10.0, 10.0):
        assert interval / 2 <= backoff.next_delay_seconds() <= interval


def test_no_two_devices_come_back_in_step() -> None:
    delays = {Backoff(1.0, 10.0).next_delay_seconds() for _ in range(50)}
    assert len(delays) == 50


def test_a_reset_begins_anew() -> None:
    backoff = Backoff(1.0, 60.0)
    for _ in range(10):
        backoff.next_delay_seconds()
    backoff.reset()
    assert backoff.next_delay_seconds() <= 1.0


@pytest.mark.parametrize(("first", "longest"), [(0.0, 1.0), (-1.0, 1.0), (2.0, 1.0)])
def test_delays_that_make_no_sense(first: float, longest: float) -> None:
    with pytest.raises(ValueError, match="first delay"):
        Backoff(first, longest)
