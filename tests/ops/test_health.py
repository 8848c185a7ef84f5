"""The verdict on facts: what makes the broker dead, what unready, and what is only worth saying."""

from __future__ import annotations

from dataclasses import replace

from edge_broker.ops.health import BridgeFacts, Facts, Problem, assess

WELL = Facts(
    store_healthy=True,
    store_problem="",
    store_full=False,
    listening=["mqtt://127.0.0.1:1883"],
    not_listening=[],
    bridges=[
        BridgeFacts("cluster", "online", "mqtts://cluster:8883", connected=True, waiting=0, in_flight=0)
    ],
    since_sweep_seconds=1.0,
    loop_lag_seconds=0.002,
)


def only_problem(facts: Facts) -> Problem:
    (problem,) = assess(facts).problems
    return problem


def test_all_is_well() -> None:
    health = assess(WELL)
    assert (health.live, health.ready, health.problems) == (True, True, [])


def test_a_store_that_refuses_makes_unready() -> None:
    facts = replace(WELL, store_healthy=False, store_problem="commit: input/output error")
    health = assess(facts)
    assert (health.live, health.ready) == (True, False)
    problem = only_problem(facts)
    assert problem.component == "store"
    assert problem.problem == "commit: input/output error"
    assert "dmesg" in problem.hint


def test_a_full_disk_has_its_own_hint() -> None:
    facts = replace(WELL, store_healthy=False, store_problem="commit: full", store_full=True)
    assert "make room" in only_problem(facts).hint


def test_a_store_that_was_full_and_works_is_no_problem() -> None:
    assert assess(replace(WELL, store_full=True)).problems == []


def test_a_listener_that_is_down_makes_unready() -> None:
    facts = replace(WELL, not_listening=["mqtts://0.0.0.0:8883"])
    health = assess(facts)
    assert (health.live, health.ready) == (True, False)
    assert "mqtts://0.0.0.0:8883" in only_problem(facts).problem


def test_a_broker_that_listens_nowhere_is_unready() -> None:
    facts = replace(WELL, listening=[])
    assert not assess(facts).ready
    assert only_problem(facts).component == "listeners"


def test_a_bridge_that_is_away_is_shown_and_no_more() -> None:
    away = replace(
        WELL.bridges[0],
        state="backing-off",
        connected=False,
        last_error="mqtts://cluster:8883 cannot be reached: timed out",
        last_hint="is the line up?",
    )
    facts = replace(WELL, bridges=[away])
    health = assess(facts)
    assert (health.live, health.ready) == (True, True)
    assert only_problem(facts) == Problem(
        "bridge cluster", "backing-off: mqtts://cluster:8883 cannot be reached: timed out", "is the line up?"
    )


def test_a_bridge_that_has_not_failed_yet_says_whom_it_waits_for() -> None:
    facts = replace(WELL, bridges=[replace(WELL.bridges[0], state="connecting", connected=False)])
    problem = only_problem(facts)
    assert problem.problem == "connecting: mqtts://cluster:8883 is not connected yet"
    assert problem.hint


def test_an_error_of_the_past_is_no_problem_of_a_bridge_that_is_online() -> None:
    facts = replace(WELL, bridges=[replace(WELL.bridges[0], last_error="it was away", last_hint="wait")])
    assert assess(facts).problems == []


def test_every_second_work_that_stopped_means_dead() -> None:
    health = assess(replace(WELL, since_sweep_seconds=31.0))
    assert (health.live, health.ready) == (False, False)
    assert "31 s" in only_problem(replace(WELL, since_sweep_seconds=31.0)).problem


def test_a_late_event_loop_is_said_and_no_more() -> None:
    facts = replace(WELL, loop_lag_seconds=0.75)
    health = assess(facts)
    assert (health.live, health.ready) == (True, True)
    assert "0.8 s late" in only_problem(facts).problem


def test_several_problems_are_all_told() -> None:
    facts = replace(
        WELL,
        store_healthy=False,
        store_problem="commit: no",
        not_listening=["mqtt://127.0.0.1:1884"],
        since_sweep_seconds=60.0,
    )
    assert [problem.component for problem in assess(facts).problems] == ["event loop", "store", "listeners"]


def test_a_clock_that_is_not_believed_is_a_warning_and_no_more() -> None:
    facts = replace(WELL, clock_unsynced=True)
    health = assess(facts)
    assert (health.live, health.ready) == (True, True)
    problem = only_problem(facts)
    assert problem.component == "clock_unsynced"
    assert "timedatectl" in problem.hint
