import random
from collections import Counter

import pytest
from hypothesis import given
from hypothesis import strategies as st

from bridge.places import Upstream
from bridge.policy_config import FailoverConfig
from bridge.upstreams import Member, Upstreams

A, B, C, D = (Upstream(name, 1883, False) for name in "abcd")


def make(*members: Member, seed: int = 1, **config: float) -> Upstreams:
    return Upstreams(members, FailoverConfig(**config), random.Random(seed).random)  # type: ignore[arg-type]


def test_priority_comes_first_then_weight_then_the_written_order() -> None:
    upstreams = make(Member(A, 1, 5), Member(B, 0, 0), Member(C, 0, 0), Member(D, 0, 1))
    assert upstreams.order(0.0) == [D, B, C, A]


def test_weights_are_shares_of_the_first_places() -> None:
    upstreams = make(Member(A, 0, 1), Member(B, 0, 3), Member(C, 0, 0), seed=7)
    orders = [upstreams.order(0.0) for _ in range(4000)]
    first = Counter(order[0] for order in orders)
    assert 0.22 < first[A] / 4000 < 0.28
    assert 0.72 < first[B] / 4000 < 0.78
    assert {order[2] for order in orders} == {C}


def test_first_and_last_whatever_they_rank() -> None:
    upstreams = make(Member(A, 0), Member(B, 1), Member(C, 2))
    assert upstreams.order(0.0, first=C) == [C, A, B]
    assert upstreams.order(0.0, last=A) == [B, C, A]
    assert upstreams.order(0.0, first=D) == [A, B, C], "a stranger is not tried"
    assert upstreams.order(0.0, last=D) == [A, B, C]


def test_ejection_grows_and_ends() -> None:
    upstreams = make(Member(A), Member(B), eject_after_failures=2, eject_seconds=10.0)
    assert [upstreams.on_failed(A, 0.0) for _ in range(2)] == [False, True]
    assert upstreams.order(9.9) == [B]
    assert upstreams.order(10.0) == [A, B]
    assert upstreams.on_failed(A, 10.0), "once more is enough now"
    assert upstreams.is_ejected(A, 29.9)
    assert not upstreams.is_ejected(A, 30.0)
    upstreams.on_lasting(A)
    assert not upstreams.on_failed(A, 31.0)


def test_the_last_one_is_never_ejected() -> None:
    upstreams = make(Member(A), Member(B), eject_after_failures=1)
    assert upstreams.on_failed(A, 0.0)
    assert not upstreams.on_failed(B, 0.0)
    assert upstreams.order(0.0) == [A, B], "where all fail, none is left out"
    alone = make(Member(A), eject_after_failures=1)
    assert not alone.on_failed(A, 0.0)


def test_no_ejection_where_it_is_off() -> None:
    upstreams = make(Member(A), Member(B), eject_after_failures=0)
    assert not any(upstreams.on_failed(A, 0.0) for _ in range(100))
    assert upstreams.order(0.0) == [A, B]


def test_a_moving_average_follows() -> None:
    health = make(Member(A)).health(A)
    health.time("puback", 1.0)
    assert health.seconds["puback"] == 1.0
    for _ in range(30):
        health.time("puback", 0.1)
    assert health.seconds["puback"] == pytest.approx(0.1, rel=0.05)


def test_health_outlives_dns_and_stays_bounded() -> None:
    upstreams = make(Member(A), Member(B), eject_after_failures=1)
    upstreams.on_failed(A, 0.0)
    upstreams.replace([Member(B)])
    upstreams.replace([Member(A), Member(B)])
    assert upstreams.is_ejected(A, 1.0)
    for port in range(1000):
        other = Upstream("x", port, False)
        upstreams.replace([Member(other)])
        upstreams.on_failed(other, 0.0)
    assert len(upstreams._health) < 100


@given(
    st.lists(st.tuples(st.integers(0, 3), st.integers(0, 3)), min_size=1, max_size=6),
    st.lists(st.tuples(st.integers(0, 5), st.sampled_from(["fail", "last"]), st.floats(0, 50)), max_size=40),
    st.integers(0, 9),
)
def test_there_is_always_somebody_to_try(
    ranks: list[tuple[int, int]], events: list[tuple[int, str, float]], seed: int
) -> None:
    members = [Member(Upstream("h", port, False), *rank) for port, rank in enumerate(ranks)]
    upstreams = make(*members, seed=seed)
    now = 0.0
    for at, what, seconds in events:
        now += seconds
        upstream = members[at % len(members)].upstream
        if what == "fail":
            upstreams.on_failed(upstream, now)
        else:
            upstreams.on_lasting(upstream)
        order = upstreams.order(now)
        assert order
        assert len(set(order)) == len(order)
        assert set(order) <= {member.upstream for member in members}
        priorities = [next(m.priority for m in members if m.upstream == each) for each in order]
        assert priorities == sorted(priorities)
