"""Lines that take turns, and whose newest gives way."""

from __future__ import annotations

from edge_broker.security.fair_queue import FairQueue


def drained(queue: FairQueue[str]) -> str:
    items = []
    while (item := queue.take()) is not None:
        items.append(item)
    assert len(queue) == 0
    return " ".join(items)


def filled(limit: int, *items: str) -> FairQueue[str]:
    """Each item's first letter is its owner."""
    queue: FairQueue[str] = FairQueue(limit)
    for item in items:
        assert queue.put(item[0], item) is None
    return queue


def test_in_order_and_in_turns() -> None:
    assert drained(filled(9, "a1", "a2", "a3")) == "a1 a2 a3"
    assert drained(filled(9, "a1", "a2", "a3", "b1", "c1", "c2")) == "a1 b1 c1 a2 c2 a3"
    assert drained(filled(9)) == ""


def test_who_comes_again_goes_to_the_end_of_the_round() -> None:
    queue = filled(9, "a1", "a2", "b1")
    assert queue.take() == "a1"
    queue.put("c", "c1")
    assert drained(queue) == "b1 a2 c1"


def test_a_full_queue_turns_the_newest_of_the_longest_line_away() -> None:
    queue = filled(4, "a1", "a2", "a3", "b1")
    assert queue.put("a", "a4") == "a4"
    assert queue.put("c", "c1") == "a3"
    assert queue.put("c", "c2") == "c2", "it would be as long as the longest"
    assert len(queue) == 4
    assert drained(queue) == "a1 b1 c1 a2"


def test_a_full_queue_of_single_ones_takes_nobody_else() -> None:
    queue = filled(2, "a1", "b1")
    assert queue.put("c", "c1") == "c1"
    assert drained(queue) == "a1 b1"


def test_there_is_room_again() -> None:
    queue = filled(1, "a1")
    assert queue.put("b", "b1") == "b1"
    assert queue.take() == "a1"
    assert queue.put("b", "b1") is None
    assert len(queue) == 1
