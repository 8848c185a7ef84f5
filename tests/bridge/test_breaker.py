from collections.abc import Callable

import pytest
from hypothesis import given
from hypothesis import strategies as st

from bridge.breaker import Breaker

Step = tuple[str, float]


def make(threshold: int = 3, seconds: float = 10.0, chance: float = 1.0) -> Breaker:
    return Breaker(threshold, seconds, lambda: chance)


def fail(breaker: Breaker, times: int, now: float = 0.0) -> None:
    for _ in range(times):
        breaker.on_failure(now)


@pytest.mark.parametrize(
    ("before", "act", "now", "after"),
    [
        (0, lambda b: None, 0.0, "closed"),
        (2, lambda b: None, 0.0, "closed"),
        (3, lambda b: None, 0.0, "open"),
        (3, lambda b: None, 9.9, "open"),
        (3, lambda b: None, 10.0, "half-open"),
        (3, lambda b: b.on_failure(10.0), 19.9, "open"),
        (3, lambda b: b.on_failure(10.0), 20.0, "half-open"),
        (3, lambda b: b.on_connected(), 10.0, "closed"),
        (3, lambda b: b.on_success(), 10.0, "closed"),
    ],
)
def test_states(before: int, act: Callable[[Breaker], None], now: float, after: str) -> None:
    breaker = make()
    fail(breaker, before)
    act(breaker)
    assert breaker.state(now) == after


def test_a_success_forgives_and_a_connection_that_did_not_last_does_not() -> None:
    breaker = make()
    fail(breaker, 2)
    breaker.on_success()
    fail(breaker, 2)
    assert breaker.state(0.0) == "closed"
    breaker.on_connected()
    fail(breaker, 1)
    assert breaker.state(0.0) == "open"
    assert breaker.opened == 1


def test_up_to_half_of_the_time_is_chance() -> None:
    breaker = make(chance=0.0)
    fail(breaker, 3)
    assert breaker.wait_seconds(0.0) == 5.0
    assert breaker.wait_seconds(7.0) == 0.0


def test_a_threshold_of_none_never_opens() -> None:
    breaker = make(threshold=0)
    fail(breaker, 1000)
    assert breaker.state(0.0) == "closed"


@given(
    st.lists(st.tuples(st.sampled_from(["failure", "connected", "success"]), st.floats(0, 20)), max_size=60),
    st.integers(1, 5),
    st.floats(0, 0.999),
)
def test_whatever_happens(steps: list[Step], threshold: int, chance: float) -> None:
    """It is open only after enough failures with no success between them, and never for longer than its time."""
    breaker = make(threshold, 10.0, chance)
    now, failures = 0.0, 0
    for what, seconds in steps:
        now += seconds
        if what == "failure":
            failures += 1
            breaker.on_failure(now)
        elif what == "connected":
            breaker.on_connected()
        else:
            failures = 0
            breaker.on_success()
        state = breaker.state(now)
        assert 0.0 <= breaker.wait_seconds(now) <= 10.0
        assert (breaker.wait_seconds(now) > 0) == (state == "open")
        assert breaker.state(now + 10.0) != "open"
        if state == "open":
            assert failures >= threshold
        if what == "failure" and failures >= threshold:
            assert state == "open"
            assert breaker.wait_seconds(now) >= 5.0 - 1e-9
        elif what != "failure":
            assert state == "closed"
