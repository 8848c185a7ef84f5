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
