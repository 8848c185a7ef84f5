from __future__ import annotations

import pytest

from edge_broker.core.histogram import SECONDS, Histogram


@pytest.mark.parametrize(("value", "place"), [(0.0, 0), (1.0, 0), (1.1, 1), (2.0, 1), (5.0, 2), (5.1, 3)])
def test_a_value_on_a_bound_belongs_below_it(value: float, place: int) -> None:
    histogram = Histogram((1.0, 2.0, 5.0))
    histogram.observe(value)
    assert histogram.counts == [int(position == place) for position in range(4)]
    assert histogram.total == value


def test_the_bounds_rise() -> None:
    assert list(SECONDS) == sorted(set(SECONDS))
    assert len(Histogram().counts) == len(SECONDS) + 1
