"""Whose turn it is: those with more weight first and more often, nobody never."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from bridge.lanes import WEIGHTS
from bridge.priorities import HIGH, LOW, NORMAL
from bridge.turns import Turns

ALL = (HIGH, NORMAL, LOW)


def serve(turns: Turns, waiting: tuple[int, ...], messages: int) -> list[int]:
    """Who sends, a message at a time, while `waiting` all have something to send."""
    served = []
    for _ in range(messages):
        member = turns.next_of(waiting)
        turns.note(member, 1)
        served.append(member)
    return served


def test_the_first_is_the_one_with_most_weight() -> None:
    assert Turns(WEIGHTS).next_of((LOW, NORMAL, HIGH)) == HIGH
    assert Turns(WEIGHTS).next_of((LOW, NORMAL)) == NORMAL


def test_each_gets_the_share_of_its_weight() -> None:
    served = serve(Turns(WEIGHTS), ALL, 3700)
    assert [served.count(member) for member in ALL] == [3200, 400, 100]


def test_nobody_saves_up_turns_while_it_has_nothing_to_send() -> None:
    turns = Turns(WEIGHTS)
    serve(turns, (HIGH, NORMAL), 1000)
    served = serve(turns, ALL, 37)
    assert served.count(LOW) <= 2
    turns.rest(HIGH)
    serve(turns, (NORMAL, LOW), 1000)
    served = serve(turns, ALL, 37)
    assert 31 <= served.count(HIGH) <= 34


def test_who_comes_back_goes_before_those_who_sent_meanwhile() -> None:
    turns = Turns(WEIGHTS)
    turns.rest(HIGH)
    serve(turns, (NORMAL, LOW), 100)
    assert serve(turns, ALL, 20).count(HIGH) >= 19


def test_who_could_not_send_keeps_one_turn_and_no_more() -> None:
    turns = Turns(WEIGHTS)
    turns.next_of(ALL)
    for _ in range(1000):  # they wait all the time, and have no room
        assert turns.next_of((HIGH,)) == HIGH
        turns.note(HIGH, 1)
    served = serve(turns, ALL, 40)
    assert {NORMAL, LOW} <= set(served[:3])
    assert served.count(LOW) <= 3


@given(st.lists(st.sets(st.sampled_from(ALL), min_size=1), min_size=1, max_size=300))
def test_whoever_waits_is_served_within_a_round(waits: list[set[int]]) -> None:
    turns = Turns(WEIGHTS)
    hungry = dict.fromkeys(ALL, 0)
    for waiting in waits:
        for member in set(ALL) - waiting:
            turns.rest(member)
            hungry[member] = 0
        served = turns.next_of(waiting)
        turns.note(served, 1)
        for member in waiting:
            hungry[member] = 0 if member == served else hungry[member] + 1
        assert max(hungry.values()) <= 2 * sum(WEIGHTS.values())
