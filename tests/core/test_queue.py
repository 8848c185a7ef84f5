"""The queue, case by case; its behaviour in every order of events is `properties/test_queue_machine.py`'s."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from edge_broker.core.message import Message, build_message
from edge_broker.core.ops import Page, QueueState
from edge_broker.core.pending import Pending
from edge_broker.core.queue import LARGE_FRAME_BYTES, Queue
from edge_broker.wire.const import MAX_PACKET_ID


class Owner:
    """Counts how often it is told that more may be due."""

    def __init__(self) -> None:
        self.pumped = 0

    def pump(self) -> None:
        self.pumped += 1


def message(payload: bytes = b"x", qos: int = 1) -> Message:
    return build_message("t", payload, qos=qos)


def pending(window_bytes: int = 100_000) -> Pending:
    return Pending(epoch=1, window_bytes=window_bytes)


def durable(window_bytes: int = 100_000) -> Queue:
    return Queue(7, pending(window_bytes))


def online(queue: Queue, count: int, qos: int = 1) -> Queue:
    """With a recipient that has been sent `count` messages."""
    queue.rewind()
    for number in range(1, count + 1):
        queue.append(message(b"%d" % number, qos))
    commit(queue)
    for _ in range(count):
        assert queue.next_to_send(0.0) is not None
    return queue


def commit(queue: Queue) -> None:
    if queue.pending is not None:
        queue.pending.seal().settle()


def state(head: int, next_number: int, acknowledged: tuple[int, ...] = (), released: tuple[int, ...] = ()):  # type: ignore[no-untyped-def]
    return QueueState(7, head, next_number, list(acknowledged), list(released), 0)


# ---- numbers and packet identifiers


@pytest.mark.parametrize("number", [1, 2, 65534, 65535, 65536, 65537, 131070, 131071, 10**9])
def test_a_packet_identifier_leads_back_to_its_number(number: int) -> None:
    queue = Queue(1, None)
    for head in (number, max(1, number - 1), max(1, number - 65534)):
        queue.head, queue.cursor = head, number + 1
        packet_id = (number - 1) % MAX_PACKET_ID + 1
        assert 1 <= packet_id <= MAX_PACKET_ID
        assert queue.number_of(packet_id) == number


def test_a_packet_identifier_of_nothing_in_flight_leads_nowhere() -> None:
    queue = online(durable(), 3)
    assert [queue.number_of(packet_id) for packet_id in (0, 4, 65535)] == [0, 0, 0]
    assert not queue.complete(0)


def test_numbers_in_flight_never_span_more_than_there_are_identifiers() -> None:
    """One message that is never acknowledged, and everything behind it that is."""
    queue = Queue(1, None)
    queue.rewind()
    for number in range(1, MAX_PACKET_ID + 11):
        queue.append(message())
        sent = queue.next_to_send(0.0)
        if number > MAX_PACKET_ID:
            assert sent is None
        elif number > 1:
            assert queue.complete(number)
    queue.complete(1)
    assert queue.next_to_send(0.0) is not None


# ---- acknowledging


def test_the_head_moves_over_what_was_acknowledged_before() -> None:
    queue = online(durable(), 5)
    for number, head in ((3, 1), (2, 1), (5, 1), (1, 4), (4, 6)):
        assert queue.complete(number)
        assert queue.head == head
    assert queue.depth == queue.in_flight == 0
    assert not queue.acknowledged


def test_nothing_is_acknowledged_twice() -> None:
    queue = online(durable(), 3)
    assert queue.complete(2)
    assert not queue.complete(2)
    assert queue.complete(1)
    assert not queue.complete(1)
    assert queue.depth == 1


@given(
    in_memory=st.booleans(),
    large=st.booleans(),
    before=st.lists(st.tuples(st.booleans(), st.integers(1, 8)), max_size=4),
    sent_again=st.integers(0, 8),
    first=st.integers(1, 10),
    count=st.integers(2, 10),
)
def test_a_run_is_the_same_as_one_after_the_other(
    in_memory: bool,
    large: bool,
    before: list[tuple[bool, int]],
    sent_again: int,
    first: int,
    count: int,
) -> None:
    at_once, one_by_one = (
        Queue(7, None if in_memory else pending()),
        Queue(7, None if in_memory else pending()),
    )
    for queue in (at_once, one_by_one):
        queue.rewind()
        for number in range(1, 9):
            queue.append(message(bytes(5000 if large and number == 4 else 1), qos=1 + (number == 6)))
            commit(queue)
            queue.next_to_send(0.0)
        for is_puback, number in before:
            (queue.complete if is_puback else queue.release)(number)
        if sent_again:
            queue.rewind()
            for _ in range(sent_again):
                queue.next_to_send(0.0)
    done = [one_by_one.complete(one_by_one.number_of(packet_id)) for packet_id in range(first, first + count)]
    assert at_once.complete_run(first, count) == any(done)
    for field in ("head", "cursor", "in_flight", "large_in_flight_bytes", "bytes_in_memory", "depth"):
        assert getattr(at_once, field) == getattr(one_by_one, field), field
    assert list(at_once.messages) == list(one_by_one.messages)
    assert (at_once.acknowledged or set()) == (one_by_one.acknowledged or set())
    assert (at_once.released or set()) == (one_by_one.released or set())


@given(
    large=st.booleans(),
    volatile=st.booleans(),
    uncommitted=st.booleans(),
    before=st.lists(st.tuples(st.booleans(), st.integers(1, 8)), max_size=3),
    first=st.integers(1, 10),
    count=st.integers(1, 10),
)
def test_a_range_is_the_same_as_one_after_the_other(
    large: bool,
    volatile: bool,
    uncommitted: bool,
    before: list[tuple[bool, int]],
    first: int,
    count: int,
) -> None:
    at_once, one_by_one = Queue(7, pending()), Queue(7, pending())
    for queue in (at_once, one_by_one):
        queue.rewind()
        for number in range(1, 9):
            new = message(bytes(5000 if large and number == 4 else 1), qos=1 + (number == 6))
            new.volatile = volatile and number == 5
            queue.append(new)
            if not uncommitted or number == 6:
                commit(queue)
            queue.next_to_send(0.0)
        for is_puback, number in before:
            (queue.complete if is_puback else queue.release)(number)
    done = [one_by_one.complete(number) for number in range(first, first + count)]
    assert at_once.complete_range(first, count) == sum(done)
    for field in (
        "head",
        "cursor",
        "in_flight",
        "large_in_flight_bytes",
        "bytes_in_memory",
        "packet_bytes",
        "depth",
    ):
        assert getattr(at_once, field) == getattr(one_by_one, field), field
    assert list(at_once.messages) == list(one_by_one.messages)
    assert (at_once.acknowledged or set()) == (one_by_one.acknowledged or set())
    assert (at_once.released or set()) == (one_by_one.released or set())
    assert at_once.touched == one_by_one.touched
    assert at_once.unwritten.keys() == one_by_one.unwritten.keys()


def test_released_it_needs_no_message_any_more() -> None:
    queue = online(durable(), 2, qos=2)
    assert queue.release(1)
    assert queue.release(1)
    assert list(queue.messages) == [2]
    assert queue.in_flight == 2
    queue.rewind()
    assert queue.next_to_send(0.0) == (1, None)
    assert queue.complete(1)
    assert not queue.release(1)
    assert not queue.released


def test_what_was_not_sent_again_yet_cannot_be_acknowledged() -> None:
    queue = online(durable(), 3)
    queue.suspend()
    queue.rewind()
    assert queue.number_of(1) == 0


@pytest.mark.parametrize("queue", [Queue(1, None), durable()], ids=["in memory", "durable"])
def test_bytes_are_counted_down_to_nothing(queue: Queue) -> None:
    queue.rewind()
    for size in (0, 100, LARGE_FRAME_BYTES, 100_000):
        queue.append(message(b"x" * size))
    assert queue.bytes_in_memory > 104_000
    commit(queue)
    while (due := queue.next_to_send(0.0)) is not None:
        queue.complete(due[0])
    assert (queue.bytes_in_memory, queue.large_in_flight_bytes, queue.in_flight) == (0, 0, 0)


# ---- memory and disk


def test_offline_nothing_committed_stays_in_memory() -> None:
    queue = durable()
    for _ in range(5):
        queue.append(message())
    assert len(queue.messages) == 5
    commit(queue)
    assert not queue.messages
    assert (queue.gap_from, queue.gap_to) == (1, 6)
    queue.append(message())
    assert list(queue.messages) == [6]


def test_online_a_window_stays_in_memory() -> None:
    queue = durable(window_bytes=2000)
    queue.rewind()
    for _ in range(3):
        queue.append(message())
    commit(queue)
    assert len(queue.messages) == 3, "what fits the window"
    for _ in range(10):
        queue.append(message())
    commit(queue)
    assert list(queue.messages) == [1, 2, 3]
    assert (queue.gap_from, queue.gap_to) == (4, 14)


def test_pages_are_asked_for_before_they_are_needed_and_one_at_a_time() -> None:
    queue = durable(window_bytes=0)
    queue.rewind()
    for _ in range(300):
        queue.append(message())
    for _ in range(50):
        queue.next_to_send(0.0)
    commit(queue)
    assert queue.pending is not None
    assert (queue.gap_from, queue.gap_to) == (51, 301)
    assert queue.next_to_send(0.0) is None
    assert queue.pending.reads == [queue]
    queue.next_to_send(0.0)
    assert queue.pending.reads == [queue]
    page = [(number, message()) for number in range(51, 261)]
    queue.take_page(Page(7, page, 261))
    queue.next_to_send(0.0)
    assert queue.reading is None, "a page of 210 is enough for now"
    for _ in range(15):
        queue.next_to_send(0.0)
    assert queue.reading == (261, 301)


def test_a_page_for_a_recipient_that_left_is_dropped() -> None:
    queue = Queue.restore(state(1, 4), pending())
    queue.rewind()
    queue.next_to_send(0.0)
    queue.suspend()
    queue.take_page(Page(7, [(1, message())], 2))
    assert not queue.messages
    assert queue.gap_from == 1


def test_a_page_for_another_stretch_makes_the_owner_ask_again() -> None:
    queue = Queue.restore(state(1, 10), pending())
    queue.owner = owner = Owner()
    queue.rewind()
    queue.next_to_send(0.0)
    queue.take_page(Page(7, [(n, message()) for n in (1, 2, 3)], 4))
    for _ in range(3):
        queue.next_to_send(0.0)
    assert queue.reading == (4, 10)
    queue.suspend()
    queue.rewind()
    before = owner.pumped
    assert queue.next_to_send(0.0) is None
    queue.take_page(Page(7, [(n, message()) for n in (4, 5)], 6))
    assert owner.pumped == before + 1
    queue.next_to_send(0.0)
    assert queue.reading == (1, 10)


@pytest.mark.parametrize("lost", [(1,), (1, 2, 3), (2,), (4,), (1, 3), (1, 2, 3, 4)])
def test_lost_numbers_are_counted_and_passed_over(lost: tuple[int, ...]) -> None:
    queue = Queue.restore(state(1, 5), pending())
    queue.rewind()
    assert queue.next_to_send(0.0) is None
    queue.take_page(Page(7, [(n, message()) for n in range(1, 5) if n not in lost], 5))
    sent = []
    while (due := queue.next_to_send(0.0)) is not None:
        sent.append(due[0])
        queue.complete(due[0])
    assert sent == [n for n in range(1, 5) if n not in lost]
    assert queue.lost == len(lost)
    assert (queue.head, queue.cursor, queue.depth) == (5, 5, 0)


def test_an_empty_page_means_that_all_of_it_is_lost() -> None:
    queue = Queue.restore(state(3, 6), pending())
    queue.rewind()
    queue.next_to_send(0.0)
    queue.take_page(Page(7, [], 3))
    assert (queue.lost, queue.depth, queue.head) == (3, 0, 6)


# ---- after a restart


def test_restored_it_has_nothing_in_memory_and_everything_before_it() -> None:
    queue = Queue.restore(state(5, 12, acknowledged=(7, 8), released=(6,)), pending())
    assert (queue.head, queue.cursor, queue.next_number, queue.committed) == (5, 5, 12, 12)
    assert (queue.gap_from, queue.gap_to) == (5, 12)
    assert queue.depth == 5
    queue.rewind()
    queue.next_to_send(0.0)
    queue.take_page(Page(7, [(n, message()) for n in (5, 6, 7, 8, 9, 10, 11)], 12))
    sent = []
    while (due := queue.next_to_send(0.0)) is not None:
        sent.append((due[0], due[1] is None))
    assert sent == [(5, False), (6, True), (9, False), (10, False), (11, False)]
    assert queue.lost == 0


@pytest.mark.parametrize(
    ("head", "next_number", "acknowledged", "released"),
    [(9, 3, (), ()), (1, 3, (2, 3, 8), ()), (1, 2, (), (8,))],
    ids=["below the head", "acknowledged and never written", "released"],
)
def test_restored_it_gives_no_number_twice(
    head: int, next_number: int, acknowledged: tuple[int, ...], released: tuple[int, ...]
) -> None:
    """A message under a number that counts as acknowledged would never be sent."""
    queue = Queue.restore(state(head, next_number, acknowledged, released), pending())
    assert queue.append(message()) == 9


def test_restored_it_may_have_sent_everything() -> None:
    """How far the window had moved on acknowledgements that were not committed, nobody knows: DUP goes on all of it."""
    queue = Queue.restore(state(1, 5000), pending())
    assert queue.sent_before == 5000
    queue.append(message())
    assert queue.sent_before == 5000


def test_a_queue_that_ends_frees_its_messages() -> None:
    queue = online(durable(), 3)
    queue.append(message())
    assert queue.pending is not None
    queue.discard()
    assert not queue.messages
    assert queue.bytes_in_memory == 0
    sealed = queue.pending.seal()
    assert [number for write in sealed.batch.queues for number, _ in write.messages] == []
    sealed.settle()
    assert queue.pending.uncommitted_bytes == 0


# ---- numbers of what is in memory only


def volatile() -> Message:
    one = message()
    one.volatile = True
    return one


def test_the_store_hears_with_the_next_message_which_numbers_are_in_memory_only() -> None:
    queue = durable()
    for one in (message(), volatile(), volatile(), message(), volatile()):
        queue.append(one)
    first = queue.seal()
    assert first is not None
    assert [number for number, _ in first.messages] == [1, 4]
    assert first.volatile == [(2, 3)]
    for one in (volatile(), message()):
        queue.append(one)
    second = queue.seal()
    assert second is not None
    assert second.volatile == [(5, 6)], "what had no message behind it yet comes now"
    queue.append(message())
    third = queue.seal()
    assert third is not None
    assert third.volatile == []


def test_what_is_in_memory_only_causes_no_commit_and_gathers_nothing() -> None:
    """A quick recipient of both kinds: the disk hears of nothing, and no memory of it stays."""
    queue = durable()
    queue.rewind()
    for number in range(1, 2_001):
        queue.append(volatile() if number % 2 else message())
        assert queue.next_to_send(0.0) is not None
        queue.complete(number)
    assert queue.seal() is None
    assert queue.untold is not None
    assert len(queue.untold) <= 1
