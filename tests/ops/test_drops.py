"""The log says when messages begin to be lost and when that is over, once each, by queue."""

from __future__ import annotations

import logging
from collections.abc import Iterator
from types import SimpleNamespace
from typing import Any

import pytest

from edge_broker.core.counters import Counters
from edge_broker.core.queue import Queue
from edge_broker.ops import drops
from edge_broker.ops.drops import DropLog


class Watched:
    """A broker's counters, and the log about them. `now` moves with each look."""

    def __init__(self, caplog: pytest.LogCaptureFixture) -> None:
        self.router = SimpleNamespace(sessions={}, counters=Counters())
        self.bridges: list[Any] = []
        self._caplog = caplog
        self._log = DropLog(self)  # type: ignore[arg-type]
        self.now = 0.0

    def session(self, client_id: str) -> Queue:
        queue = Queue(0, None)
        self.router.sessions[client_id] = SimpleNamespace(client_id=client_id, queue=queue)
        return queue

    def look(self, seconds: float = 1.0) -> list[str]:
        """What a look after so many seconds says."""
        self._caplog.clear()
        self.now += seconds
        self._log.look(self.now)
        return [f"{record.levelname} {record.getMessage()}" for record in self._caplog.records]


@pytest.fixture
def watched(caplog: pytest.LogCaptureFixture) -> Iterator[Watched]:
    with caplog.at_level(logging.INFO, "edge_broker.ops"):
        yield Watched(caplog)


def test_a_loss_is_told_when_it_begins_and_when_it_is_over(watched: Watched) -> None:
    queue = watched.session("display")
    assert watched.look() == []
    queue.count_drop("queue_full")
    assert watched.look() == [
        "WARNING session 'display' loses messages: queue_full"
        " (max_queue_messages and max_queue_bytes say how much may wait)"
    ]
    for _ in range(100):
        queue.count_drop("queue_full")
        assert watched.look() == []
    queue.lost += 1
    assert watched.look(59) == []
    assert watched.look(59) == []
    assert watched.look(1) == [
        "INFO session 'display' loses no messages any more; it was 101 queue_full, 1 lost"
    ]
    assert watched.look(1_000) == []
    queue.count_drop("store_limit")
    (line,) = watched.look()
    assert "store_limit" in line
    assert "queue_full" not in line


def test_expiry_alone_is_no_warning(watched: Watched) -> None:
    watched.session("display").expired += 3
    (line,) = watched.look()
    assert line.startswith("INFO session 'display' loses messages: expired (")


def test_queues_are_told_apart_and_bridges_too(watched: Watched) -> None:
    status = SimpleNamespace(dropped={"queue_full": 1, "offline": 5, "superseded": 7}, expired=0, lost=0)
    watched.bridges.append(SimpleNamespace(name="cloud", status=lambda: status))
    watched.session("a").lost += 1
    assert [line.split(" loses")[0] for line in watched.look()] == [
        "WARNING session 'a'",
        "WARNING bridge cloud",
    ]
    status.dropped["offline"] = 6
    assert watched.look() == []


def test_what_was_asked_for_is_no_loss(watched: Watched) -> None:
    for reason in ("offline", "session_ended", "queue_full", "expired"):
        watched.router.counters.drop(reason)  # those of queues are told by queue
    assert watched.look() == []
    watched.router.counters.drop("slow_subscriber")
    assert watched.look() == [
        "WARNING messages are dropped or refused: slow_subscriber"
        " (QoS 0 for clients that read more slowly than messages come)"
    ]
    assert watched.look(60) == ["INFO no more messages are dropped or refused: it was 1 slow_subscriber"]


def test_a_client_identifier_cannot_write_lines(watched: Watched) -> None:
    watched.session("a\nWARNING all is lost").lost += 1
    (line,) = watched.look()
    assert "\n" not in line


def test_many_at_once_are_few_lines(watched: Watched, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(drops, "_MOST_LINES", 3)
    for number in range(10):
        watched.session(f"s{number}").lost += 1
    lines = watched.look()
    assert len(lines) == 4
    assert lines[-1] == "WARNING 7 more begin or cease to lose messages"


def test_a_session_that_ended_is_forgotten(watched: Watched) -> None:
    watched.session("a").lost += 1
    watched.look()
    watched.router.sessions.clear()
    watched.look(61)
    watched.session("a").lost += 1
    assert len(watched.look()) == 1
