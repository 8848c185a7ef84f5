from collections.abc import Iterator
from typing import Any

import pytest

from bridge.config import BridgeConfig
from bridge.places import Upstream
from bridge.policy import Attempt, Policy, Sign
from bridge.policy_config import FailoverConfig
from bridge.upstreams import Member

ONE = Upstream("one", 1883, False)
TWO = Upstream("two", 1883, False)
HOUR = 3600.0


def make(
    *upstreams: Upstream,
    version: str = "auto",
    initial: float = 1.0,
    maximum: float = 60.0,
    chance: float = 1.0,
    **settings: Any,
) -> Policy:
    """Each of `upstreams` as `urls` would have it. Without a word no other pause than the backoff's."""
    settings = {"max_attempts_per_minute": 0, "breaker_failures": 0} | settings
    config = BridgeConfig(
        version=version,  # type: ignore[arg-type]
        backoff_initial_seconds=initial,
        backoff_max_seconds=maximum,
        **settings,
    )
    return Policy(config, [Member(upstream) for upstream in upstreams or (ONE,)], lambda: chance)


def fail(policy: Policy, sign: Sign = "unreachable", now: float = 0.0) -> Attempt:
    policy.on_failed(policy.next_attempt(now), sign, now)
    return policy.next_attempt(now)


def lose(
    policy: Policy,
    lasted: float = 0.0,
    progressed: bool = False,
    sent_away: bool = False,
    now: float = 0.0,
) -> Attempt:
    attempt = policy.next_attempt(now)
    policy.on_online(attempt, now)
    policy.on_lost(attempt.upstream, lasted, progressed, sent_away, now + lasted)
    return policy.next_attempt(now + lasted)


# ---- pauses


def test_the_first_attempt_waits_for_nothing() -> None:
    assert make().next_attempt(0.0) == Attempt(ONE, 5, 0.0)


def test_pauses_double_up_to_the_cap() -> None:
    policy = make(initial=0.5, maximum=10.0)
    assert [fail(policy).delay_seconds for _ in range(8)] == [0.5, 1, 2, 4, 8, 10, 10, 10]


def test_a_pause_is_anything_from_nothing_to_its_whole_length() -> None:
    chances: Iterator[float] = iter([0.0, 0.5, 0.999])
    policy = make()
    policy._random = lambda: next(chances)
    assert [fail(policy).delay_seconds for _ in range(3)] == [0.0, 1.0, pytest.approx(3.996)]


def test_a_thousand_failures_overflow_nothing() -> None:
    policy = make()
    for _ in range(1000):
        attempt = fail(policy)
    assert attempt.delay_seconds == 60.0


def test_a_connection_that_carried_something_starts_the_count_anew() -> None:
    policy = make()
    for _ in range(5):
        fail(policy)
    assert lose(policy, progressed=True).delay_seconds == 1.0


def test_one_that_only_stood_for_long_too() -> None:
    policy = make()
    for _ in range(5):
        fail(policy)
    assert lose(policy, lasted=10.0).delay_seconds == 1.0


def test_being_sent_away_at_once_does_not() -> None:
    policy = make()
    delays = [lose(policy, progressed=True, sent_away=True).delay_seconds for _ in range(4)]
    assert delays == [1.0, 2.0, 4.0, 8.0]


# ---- several URLs


def test_urls_are_tried_in_turn_and_the_pause_follows_the_round() -> None:
    policy = make(ONE, TWO)
    attempts = [fail(policy) for _ in range(4)]
    assert [(a.upstream, a.delay_seconds) for a in attempts] == [
        (TWO, 0.0),
        (ONE, 1.0),
        (TWO, 0.0),
        (ONE, 2.0),
    ]


def test_after_a_loss_the_url_that_worked_comes_first() -> None:
    policy = make(ONE, TWO)
    assert fail(policy).upstream == TWO
    attempt = lose(policy, progressed=True)
    assert (attempt.upstream, attempt.delay_seconds) == (TWO, 1.0)


def test_an_upstream_that_sends_us_away_is_left_after_a_pause() -> None:
    attempt = lose(make(ONE, TWO), progressed=True, sent_away=True)
    assert (attempt.upstream, attempt.delay_seconds) == (TWO, 1.0)


# ---- versions


@pytest.mark.parametrize("sign", ["version", "silent"])
def test_version_3_follows_at_once_where_5_was_refused_or_met_silence(sign: Sign) -> None:
    policy = make()
    assert policy.on_failed(policy.next_attempt(0.0), sign, 0.0)
    assert policy.next_attempt(0.0) == Attempt(ONE, 4, 0.0)


@pytest.mark.parametrize("sign", ["unreachable", "refused"])
def test_other_failures_are_not_the_versions_fault(sign: Sign) -> None:
    policy = make()
    assert not policy.on_failed(policy.next_attempt(0.0), sign, 0.0)
    assert policy.next_attempt(0.0).version == 5


def test_what_works_is_remembered_per_url() -> None:
    policy = make(ONE, TWO)
    assert fail(policy, "version").version == 4
    attempt = lose(policy, progressed=True)
    assert (attempt.upstream, attempt.version) == (ONE, 4)
    attempt = fail(policy)
    assert (attempt.upstream, attempt.version) == (TWO, 5)
    attempt = fail(policy)
    assert (attempt.upstream, attempt.version) == (ONE, 4)


def test_after_an_hour_version_5_gets_another_chance_and_the_answer_counts_for_the_next_hour() -> None:
    policy = make()
    fail(policy, "version")
    lose(policy, 100.0, True)
    assert policy.next_attempt(HOUR - 1).version == 4
    assert policy.next_attempt(HOUR + 1).version == 5
    assert fail(policy, "version", HOUR + 1).version == 4
    lose(policy, 0.5, True, now=HOUR + 1)
    assert policy.next_attempt(HOUR + 2).version == 4


def test_silence_does_not_lead_away_from_a_version_5_that_worked() -> None:
    policy = make()
    lose(policy, progressed=True)
    attempt = fail(policy, "silent")
    assert (attempt.version, attempt.delay_seconds) == (5, 2.0)
    assert fail(policy, "version").version == 4  # a plain word does


def test_where_neither_version_works_both_are_tried_between_two_pauses() -> None:
    policy = make()
    attempts = [fail(policy, "silent") for _ in range(4)]
    assert [(a.version, a.delay_seconds) for a in attempts] == [(4, 0.0), (5, 1.0), (4, 0.0), (5, 2.0)]


def test_a_remembered_version_3_that_is_refused_is_forgotten() -> None:
    policy = make()
    fail(policy, "version")
    lose(policy, progressed=True)
    attempt = fail(policy, "version")
    assert attempt.version == 5


def test_a_failed_way_to_the_old_version_is_not_its_end() -> None:
    policy = make()
    fail(policy, "version")
    attempt = fail(policy, "unreachable")
    assert (attempt.version, attempt.delay_seconds) == (5, 1.0)


@pytest.mark.parametrize(("version", "level"), [("5", 5), ("3.1.1", 4)])
def test_a_pinned_version_stays(version: str, level: int) -> None:
    policy = make(version=version)
    for sign in ("silent", "version", "refused", "unreachable"):
        attempt = fail(policy, sign)
        assert attempt.version == level
        assert attempt.delay_seconds > 0


# ---- priorities, and what is left alone


FIRST = Member(ONE, priority=0, weight=1)
SECOND = Member(TWO, priority=1, weight=1)


def ranked(**failover: Any) -> Policy:
    """ONE is to be preferred to TWO; chance is always 0."""
    config = BridgeConfig(failover=FailoverConfig(**failover), max_attempts_per_minute=0, breaker_failures=0)
    return Policy(config, [SECOND, FIRST], lambda: 0.0)


def connect(policy: Policy, now: float) -> Upstream:
    attempt = policy.next_attempt(now)
    policy.on_online(attempt, now)
    return attempt.upstream


def fail_over(policy: Policy, now: float = 0.0) -> None:
    """ONE is away, so the bridge is at TWO from `now` on."""
    assert fail(policy, now=now).upstream == TWO
    assert connect(policy, now) == TWO


def test_the_better_priority_comes_first_and_the_other_without_a_pause() -> None:
    policy = ranked()
    assert policy.next_attempt(0.0).upstream == ONE
    attempt = fail(policy)
    assert (attempt.upstream, attempt.delay_seconds) == (TWO, 0.0)


def test_an_upstream_that_failed_three_times_is_left_alone_for_a_while() -> None:
    policy = make(ONE, TWO)
    for now in range(2):
        assert fail(policy, now=now).upstream == TWO
        lose(policy, 10.0, True, now=now)
        policy._round = []
    assert fail(policy, now=2.0).upstream == TWO
    assert policy.ejections == 1
    assert {lose(policy, 10.0, True, True, now=now).upstream for now in (3.0, 20.0, 40.0)} == {TWO}
    assert lose(policy, 10.0, True, True, now=62.0).upstream == ONE


def test_where_all_fail_all_are_tried() -> None:
    policy = make(ONE, TWO)
    assert {fail(policy).upstream for _ in range(40)} == {ONE, TWO}


def test_a_connection_that_is_cut_at_once_counts_as_a_failure() -> None:
    policy = make(ONE, TWO)
    assert [lose(policy).upstream for _ in range(3)] == [ONE, ONE, TWO]


def test_what_worked_last_comes_first_after_a_cut_whatever_it_ranks() -> None:
    policy = ranked()
    fail_over(policy)
    policy.on_lost(TWO, 20.0, True, False, 20.0)
    assert policy.next_attempt(20.0).upstream == TWO


# ---- returning


def test_a_better_upstream_is_returned_to_after_it_was_stable_for_the_period() -> None:
    policy = ranked(return_after_seconds=100.0, probe_interval_seconds=10.0, min_dwell_seconds=0.0)
    fail_over(policy)
    returning = policy.returning
    assert returning.due(TWO, 9.9) is None
    assert returning.due(TWO, 10.0) == ONE
    assert returning.due(TWO, 10.1) is None, "once per interval"
    returning.on_tested(ONE, 0.01, 10.1)
    assert policy.should_leave_for(110.0) is None
    assert policy.should_leave_for(110.2) == ONE
    policy.on_left(TWO, ONE, 110.2)
    assert policy.next_attempt(110.2) == Attempt(ONE, 5, 0.0)
    assert connect(policy, 110.2) == ONE
    assert policy.failovers == 2 - 1, "the first connection is none"
    assert policy.should_leave_for(1e6) is None


def test_a_fleet_does_not_return_in_one_second() -> None:
    policy = ranked(return_after_seconds=100.0, min_dwell_seconds=0.0)
    fail_over(policy)
    policy.returning._random = lambda: 0.8
    policy.returning.on_tested(ONE, 0.01, 0.0)
    assert policy.should_leave_for(139.9) is None
    assert policy.should_leave_for(140.0) == ONE


def test_a_failed_test_starts_the_period_anew() -> None:
    policy = ranked(return_after_seconds=100.0, min_dwell_seconds=0.0)
    fail_over(policy)
    policy.returning.on_tested(ONE, 0.01, 10.0)
    policy.returning.on_tested(ONE, None, 60.0)
    policy.returning.on_tested(ONE, 0.01, 90.0)
    assert policy.should_leave_for(189.0) is None
    assert policy.should_leave_for(190.0) == ONE


def test_nothing_is_left_before_the_dwell() -> None:
    policy = ranked(return_after_seconds=1.0, min_dwell_seconds=500.0)
    fail_over(policy)
    policy.returning.on_tested(ONE, 0.01, 10.0)
    assert policy.should_leave_for(499.0) is None
    assert policy.should_leave_for(500.0) == ONE


@pytest.mark.parametrize("how", ["fails at once", "does not last"])
def test_a_return_that_does_not_last_makes_the_next_one_wait_twice_as_long(how: str) -> None:
    policy = ranked(return_after_seconds=100.0, min_dwell_seconds=0.0)
    fail_over(policy)
    policy.returning.on_tested(ONE, 0.01, 0.0)
    policy.on_left(TWO, ONE, 100.0)
    if how == "fails at once":
        assert fail(policy, now=100.0).upstream == TWO
    else:
        assert connect(policy, 100.0) == ONE
        policy.on_lost(ONE, 20.0, True, False, 120.0)
        assert fail(policy, now=120.0).upstream == TWO
    assert connect(policy, 120.0) == TWO
    policy.returning.on_tested(ONE, 0.01, 130.0)
    assert policy.should_leave_for(300.0) is None
    assert policy.should_leave_for(330.0) == ONE


def test_a_return_that_lasted_is_trusted_again() -> None:
    policy = ranked(return_after_seconds=100.0, min_dwell_seconds=0.0)
    fail_over(policy)
    policy.returning._test(ONE).patience = 8
    policy.on_left(TWO, ONE, 1000.0)
    connect(policy, 1000.0)
    policy.on_lost(ONE, 100.0, True, False, 1100.0)
    assert policy.returning._test(ONE).patience == 1


def test_without_a_period_nothing_is_tested_and_nothing_returned_to() -> None:
    policy = ranked(return_after_seconds=0.0, min_dwell_seconds=0.0)
    fail_over(policy)
    policy.returning.on_tested(ONE, 0.01, 0.0)
    assert policy.returning.due(TWO, 1e6) is None
    assert policy.should_leave_for(1e6) is None


def test_urls_of_one_rank_are_not_returned_to() -> None:
    policy = make(ONE, TWO)
    fail_over(policy)
    assert policy.returning.due(TWO, 1e6) is None


# ---- slow upstreams


def test_a_slow_upstream_is_left_for_a_quick_one() -> None:
    policy = ranked(eject_slow_factor=5.0, eject_slow_ms=500, min_dwell_seconds=60.0, eject_seconds=30.0)
    assert connect(policy, 0.0) == ONE
    policy.on_answer(TWO, "connack", 0.1)
    policy.on_answer(ONE, "connack", 0.6)
    assert policy.should_leave_for(59.0) is None, "not before the dwell"
    assert policy.should_leave_for(60.0) == TWO
    policy.on_left(ONE, TWO, 60.0)
    assert policy.next_attempt(60.0).upstream == TWO
    assert policy.ejections == 1
    assert policy.upstreams.is_ejected(ONE, 89.0)
    assert not policy.upstreams.is_ejected(ONE, 90.0)


@pytest.mark.parametrize(
    ("here", "there", "answers"),
    [(0.49, 0.01, 9), (0.6, 0.13, 9), (0.6, 0.1, 4)],
    ids=["quicker than any limit", "not five times as slow", "too few answers"],
)
def test_who_is_not_slow(here: float, there: float, answers: int) -> None:
    policy = ranked()
    assert connect(policy, 0.0) == ONE
    policy.on_answer(TWO, "puback", there)
    for _ in range(answers):
        policy.on_answer(ONE, "puback", here)
    assert policy.should_leave_for(1e6) is None


def test_only_answers_of_one_kind_are_compared() -> None:
    policy = ranked()
    assert connect(policy, 0.0) == ONE
    policy.on_answer(TWO, "connack", 0.001)
    for _ in range(9):
        policy.on_answer(ONE, "puback", 9.0)
    assert policy.should_leave_for(1e6) is None


def test_a_slow_upstream_without_another_one_is_kept() -> None:
    policy = make(ONE)
    assert connect(policy, 0.0) == ONE
    policy.on_answer(ONE, "connack", 30.0)
    assert policy.should_leave_for(1e6) is None


def test_what_answers_tests_slowly_is_not_returned_to() -> None:
    policy = ranked(return_after_seconds=1.0, min_dwell_seconds=0.0)
    fail_over(policy)
    policy.upstreams.on_lasting(ONE)
    policy.on_answer(TWO, "connack", 0.05)
    for now in range(10):
        policy.returning.on_tested(ONE, 2.0, now)
    assert policy.should_leave_for(100.0) is None


# ---- breaker and budget


def test_the_breaker_lets_one_try_through_at_a_time() -> None:
    policy = make(ONE, TWO, initial=0.01, maximum=0.02, breaker_failures=4, breaker_open_seconds=100.0)
    for _ in range(4):
        attempt = fail(policy, now=0.0)
    assert (attempt.delay_seconds, policy.breaker.state(0.0)) == (100.0, "open")
    assert policy.breaker.state(100.0) == "half-open"
    assert policy.next_attempt(100.0).delay_seconds <= 0.02
    assert fail(policy, now=100.0).delay_seconds == 100.0
    lose(policy, 20.0, True, now=200.0)
    assert policy.breaker.state(220.0) == "closed"
    assert fail(policy, now=220.0).delay_seconds <= 0.02


def test_the_budget_of_attempts_holds_whatever_the_pauses() -> None:
    policy = make(initial=0.01, maximum=0.01, max_attempts_per_minute=6)
    now, attempts = 0.0, 0
    while now < 600.0:
        attempt = policy.next_attempt(now)
        now += attempt.delay_seconds + 0.01
        policy.on_failed(attempt, "unreachable", now)
        attempts += 1
    assert 60 <= attempts <= 60 + 6 + 1


def test_arrivals_are_spread_at_the_start_and_after_a_loss() -> None:
    policy = make(arrival_spread_seconds=40.0, chance=0.5)
    assert policy.next_attempt(0.0).delay_seconds == 20.0
    assert lose(policy, 100.0, True).delay_seconds == 20.0
    assert fail(policy).delay_seconds == 1.0, "a failure has pauses of its own"


def test_without_an_answer_from_dns_the_pauses_count_too() -> None:
    config = BridgeConfig(backoff_initial_seconds=1.0, breaker_failures=3, breaker_open_seconds=50.0)
    policy = Policy(config, [], lambda: 1.0)
    assert not policy.has_upstreams
    waits = []
    for _ in range(3):
        policy.on_unresolved(0.0)
        waits.append(policy.wait_seconds(0.0))
    assert waits == [1.0, 2.0, 50.0]


def test_an_upstream_that_dns_took_away_is_not_tried() -> None:
    policy = make(ONE, TWO)
    assert fail(policy).upstream == TWO
    policy.upstreams.replace([Member(ONE)])
    assert policy.next_attempt(0.0).upstream == ONE
