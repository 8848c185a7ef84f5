from collections.abc import Iterator

import pytest

from bridge.config import Upstream
from bridge.policy import Attempt, Policy, Sign

ONE = Upstream("one", 1883, False)
TWO = Upstream("two", 1883, False)
HOUR = 3600.0


def make(
    *upstreams: Upstream,
    version: str = "auto",
    initial: float = 1.0,
    maximum: float = 60.0,
    chance: float = 1.0,
) -> Policy:
    return Policy(upstreams or (ONE,), version, initial, maximum, lambda: chance)  # type: ignore[arg-type]


def fail(policy: Policy, sign: Sign = "unreachable", now: float = 0.0) -> Attempt:
    policy.on_failed(policy.next_attempt(now), sign)
    return policy.next_attempt(now)


def lose(policy: Policy, lasted: float = 0.0, progressed: bool = False, sent_away: bool = False) -> Attempt:
    policy.on_online(policy.next_attempt(0.0), 0.0)
    policy.on_lost(lasted, progressed, sent_away)
    return policy.next_attempt(0.0)


# ---- pauses


def test_the_first_attempt_waits_for_nothing() -> None:
    assert make().next_attempt(0.0) == Attempt(ONE, 5, 0.0)


def test_pauses_double_up_to_the_cap() -> None:
    policy = make(initial=0.5, maximum=10.0)
    assert [fail(policy).delay_seconds for _ in range(8)] == [0.5, 1, 2, 4, 8, 10, 10, 10]


def test_a_pause_is_anything_from_nothing_to_its_whole_length() -> None:
    chances: Iterator[float] = iter([0.0, 0.5, 0.999])
    policy = Policy((ONE,), "auto", 1.0, 60.0, lambda: next(chances))
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
    assert policy.on_failed(policy.next_attempt(0.0), sign)
    assert policy.next_attempt(0.0) == Attempt(ONE, 4, 0.0)


@pytest.mark.parametrize("sign", ["unreachable", "refused"])
def test_other_failures_are_not_the_versions_fault(sign: Sign) -> None:
    policy = make()
    assert not policy.on_failed(policy.next_attempt(0.0), sign)
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
    policy.on_online(policy.next_attempt(0.0), 0.0)
    policy.on_lost(100.0, True, False)
    assert policy.next_attempt(HOUR - 1).version == 4
    assert policy.next_attempt(HOUR + 1).version == 5
    assert fail(policy, "version", HOUR + 1).version == 4
    policy.on_online(policy.next_attempt(HOUR + 1), HOUR + 1)
    policy.on_lost(100.0, True, False)
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
