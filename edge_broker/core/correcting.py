"""The one moment when times in memory change: the clock has come right, and it is known how long nobody ran.

Everything here is on the monotonic clock, and what came in this run needs nothing. What was restored from before had its
time from a clock that was behind; it lies further back than was thought, and so do its deadlines. What has expired by
that goes the usual ways, at the next sweep or when somebody wants it.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import TYPE_CHECKING

from edge_broker.core.message import Message

if TYPE_CHECKING:
    from edge_broker.core.connection import Connection
    from edge_broker.core.queue import Queue
    from edge_broker.core.router import Router


def correct_times(router: Router, outboxes: Iterable[Queue], before: float, seconds: float) -> None:
    """Move every time in memory that lies before `before` back by `seconds`: sessions, wills, queues, retained messages.

    `outboxes`: queues of bridges; the broker's own durable queues are moved too, and what is timed by them.
    """
    for client_id, (due_at, session) in list(router._delayed_wills.items()):
        if session.disconnected_at is not None and session.disconnected_at < before:
            router._delayed_wills[client_id] = (due_at - seconds, session)
    done: set[int] = set()
    for session in router.sessions.values():
        if session.disconnected_at is not None and session.disconnected_at < before:
            session.disconnected_at -= seconds
        _correct(() if session.will is None else (session.will,), before, seconds, done)
        _correct_queue(session.queue, before, seconds, done)
    for queue in (*outboxes, *router._outboxes):
        _correct_queue(queue, before, seconds, done)
    router.delayed.correct_times(before, seconds)
    for entry in router.retained:
        if isinstance(entry, Message):
            _correct((entry,), before, seconds, done)
        elif entry.expires_at is not None and entry.received_at < before:
            entry.expires_at -= seconds


def shift_expiry(connections: Iterable[Connection], seconds: float) -> None:
    """The wall clock that the ends of tokens were counted on moved ahead by `seconds`: they are nearer by as much."""
    for connection in connections:
        if connection.expires_at is not None:
            connection.expires_at -= seconds


def _correct_queue(queue: Queue, before: float, seconds: float, done: set[int]) -> None:
    _correct(queue.messages.values(), before, seconds, done)
    queue.looked_head = -1  # when its head expires, on disk too, was worked out with the times of before


def _correct(messages: Iterable[Message], before: float, seconds: float, done: set[int]) -> None:
    """Each once, also where several queues share it."""
    for message in messages:
        for one in (message, message.origin):
            if id(one) in done:
                continue
            done.add(id(one))
            if one.received_at < before:
                one.received_at -= seconds
                if one.expires_at is not None:
                    one.expires_at -= seconds
