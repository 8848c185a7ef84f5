"""What waits for a commit, and its release."""

from __future__ import annotations

import pytest

from edge_broker.core.acknowledging import HeldAcknowledgements
from edge_broker.core.message import Message, build_message
from edge_broker.core.pending import Pending
from edge_broker.core.queue import Queue


def held_message(pending: Pending, held: HeldAcknowledgements) -> Message:
    message = build_message("t", b"x", qos=1)
    Queue(1, pending).append(message)
    held.hold(message)
    return message


def test_a_fault_with_one_who_waited_holds_up_none_of_the_others() -> None:
    pending = Pending(epoch=1, window_bytes=1000)
    released: list[str] = []

    def fail(message: Message) -> None:
        raise RuntimeError("a fault of ours")

    held_message(pending, HeldAcknowledgements(fail))
    held_message(pending, HeldAcknowledgements(lambda message: released.append("message")))
    pending.after_commit(lambda: fail(build_message("t", b"")))
    pending.after_commit(lambda: released.append("callback"))
    with pytest.raises(ExceptionGroup) as raised:
        pending.seal().settle()
    assert len(raised.value.exceptions) == 2
    assert released == ["message", "callback"]
    assert pending.uncommitted_bytes == 0


def test_an_ended_session_is_told_of_until_its_end_is_on_disk() -> None:
    pending = Pending(epoch=1, window_bytes=1000)
    pending.remove_session(7)
    sealed = pending.seal()
    assert pending.removals == 1, "on its way is not there"
    sealed.settle()
    assert pending.removals == 0


def test_what_was_acknowledged_before_the_commit_leaves_nothing_to_write() -> None:
    pending = Pending(epoch=1, window_bytes=1000)
    queue = Queue(1, pending)
    queue.rewind()
    queue.append(build_message("t", b"x", qos=1))
    assert queue.next_to_send(0.0) is not None
    queue.complete(1)
    assert not pending.leisurely, "its publisher may wait for another recipient of it"
    assert pending.seal().batch.queues == []
    assert pending.empty


def test_acknowledgements_of_what_is_on_disk_are_leisurely_until_something_else_comes() -> None:
    pending = Pending(epoch=1, window_bytes=1000)
    queue = Queue(1, pending)
    queue.rewind()
    queue.append(build_message("t", b"x", qos=1))
    pending.seal().settle()
    assert queue.next_to_send(0.0) is not None
    queue.complete(1)
    assert pending.leisurely
    assert not pending.empty
    queue.append(build_message("t", b"y", qos=1))
    assert not pending.leisurely
    (write,) = pending.seal().batch.queues
    assert (write.head, [number for number, _ in write.messages]) == (2, [2])
    assert pending.empty


def came(second: float) -> Message:
    message = build_message("t", b"x" * 50, qos=1)
    message.received_at = second
    return message


def test_queues_whose_messages_are_young_stay_where_only_waiting_makes_a_batch_due() -> None:
    pending = Pending(epoch=1, window_bytes=1000)
    slow, quick = Queue(1, pending), Queue(2, pending)
    slow.append(came(10.0))
    both = came(10.2)
    slow.append(both)
    quick.append(both)
    quick.rewind()
    sealed = pending.seal(waiting_since=10.1)
    assert [(write.queue_id, len(write.messages)) for write in sealed.batch.queues] == [(1, 2)]
    assert (pending.waiting, pending.bytes) == (1, len(both.frame))
    assert not pending.empty
    assert pending.oldest_at() == 10.2
    sealed.settle()
    assert both.unsafe == 1, "its other recipient has neither acknowledged it, nor is it on the disk there"
    assert pending.uncommitted_bytes == len(both.frame)
    assert quick.next_to_send(10.2) is not None
    quick.complete(1)
    assert both.unsafe == 0
    assert (pending.waiting, pending.bytes, pending.uncommitted_bytes) == (0, 0, 0)
    assert pending.seal(waiting_since=10.3).batch.queues == []
    assert pending.empty


def test_with_somebody_who_waits_for_more_everything_goes() -> None:
    for make_wait in (
        lambda pending, queue: pending.after_commit(lambda: None),
        lambda pending, queue: pending.hold(came(10.2)),
        lambda pending, queue: pending.receive_id(7, 1),
        lambda pending, queue: setattr(queue, "moved", True),
        lambda pending, queue: pending.touch(queue),
    ):
        pending = Pending(epoch=1, window_bytes=1000)
        queue = Queue(1, pending)
        queue.append(came(10.2))
        make_wait(pending, queue)
        assert [len(write.messages) for write in pending.seal(waiting_since=10.1).batch.queues] == [1]
        assert pending.empty
