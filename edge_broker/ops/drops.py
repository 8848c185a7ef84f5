"""Says in the log that messages are lost: once when it begins, once when it has stopped.

Each queue is a matter of its own, with all its reasons together; what is dropped outside of queues is one by reason. What
was asked for is no loss: QoS 0 for who is away, a session that its client ended. Nothing is logged per message, and in one
look no more than `_MOST_LINES` lines: the log may be on an SD card.
"""

from __future__ import annotations

import logging
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Final

from edge_broker.core.queue import Queue
from edge_broker.ops.observed import Observed

_log: Final = logging.getLogger("edge_broker.ops")

_QUIET_SECONDS: Final = 60.0
"""So long nothing is lost before it counts as over."""

_MOST_LINES: Final = 10
_ASKED_FOR: Final = frozenset(("offline", "session_ended", "superseded"))
_AGED: Final = frozenset(("expired", "too_old"))
_OF_QUEUES: Final = frozenset(("queue_full", "store_limit", "killed_subscriber", "expired", "lost"))
"""Reasons in the router's counters that are told queue by queue."""

_HINTS: Final = {
    "queue_full": "max_queue_messages and max_queue_bytes say how much may wait",
    "store_limit": "[store] max_messages and max_bytes say how much may wait in all queues",
    "expired": "they were older than their senders, or max_queue_age_seconds, allow",
    "too_old": "max_age_seconds of their rule says how long they may wait",
    "paced": "QoS 0, and pacing lets no more out",
    "allowance": "the month's bytes are spent, see pacing",
    "lost": "the store could not give them back: look at the disk",
    "slow_subscriber": "QoS 0 for clients that read more slowly than messages come",
    "killed_subscriber": "three connections broke with the same message under way",
}


@dataclass(slots=True)
class _Loss:
    """One that goes on. `before`: what was counted when it began, by reason; `now`: what is counted now."""

    before: Mapping[str, int]
    now: Mapping[str, int]
    last_at: float

    def __str__(self) -> str:
        lost = {reason: count - self.before.get(reason, 0) for reason, count in self.now.items()}
        return ", ".join(f"{count} {reason}" for reason, count in lost.items() if count)


class DropLog:
    """Looks at the counters of one broker, about once a second."""

    def __init__(self, observed: Observed) -> None:
        self._observed = observed
        self._known: dict[str, Mapping[str, int]] = {}  # what was counted of those that ever lost something
        self._losses: dict[str, _Loss] = {}
        self._lines = self._untold = 0

    def look(self, now: float) -> None:
        """Tell what has begun and what is over. `now` by the monotonic clock."""
        self._lines = self._untold = 0
        current: dict[str, Mapping[str, int]] = {}
        for name, counted in self._counted():
            before = self._known.get(name, {})
            if isinstance(counted, Queue):
                is_new = counted.dropped + counted.expired + counted.lost != sum(before.values())
                counted = _of_queue(counted) if is_new else before
            current[name] = counted
            if counted != before:
                self._note(name, before, counted, now)
        self._known = current
        for name, loss in list(self._losses.items()):
            if now - loss.last_at >= _QUIET_SECONDS:
                del self._losses[name]
                if name in loss.now:  # a reason, and nobody's queue
                    self._tell(logging.INFO, "no more messages are dropped or refused: it was %s", str(loss))
                else:
                    self._tell(logging.INFO, "%s loses no messages any more; it was %s", name, str(loss))
        if self._untold:
            _log.warning("%d more begin or cease to lose messages", self._untold)

    def _note(self, name: str, before: Mapping[str, int], counted: Mapping[str, int], now: float) -> None:
        loss = self._losses.get(name)
        if loss is not None:
            loss.now, loss.last_at = counted, now
            return
        self._losses[name] = _Loss(before, counted, now)
        reasons = [reason for reason, count in counted.items() if count > before.get(reason, 0)]
        level = logging.INFO if _AGED.issuperset(reasons) else logging.WARNING
        hints = "; ".join(_HINTS[reason] for reason in reasons if reason in _HINTS)
        if name in reasons:
            self._tell(level, "messages are dropped or refused: %s (%s)", name, hints or "docs/monitoring.md")
            return
        self._tell(
            level, "%s loses messages: %s (%s)", name, ", ".join(reasons), hints or "docs/monitoring.md"
        )

    def _tell(self, level: int, text: str, *values: str) -> None:
        if self._lines < _MOST_LINES:
            self._lines += 1
            _log.log(level, text, *values)
        else:
            self._untold += 1

    def _counted(self) -> Iterator[tuple[str, Queue | Mapping[str, int]]]:
        """Who ever lost something, and where that is counted, or how many messages by reason."""
        router = self._observed.router
        for session in router.sessions.values():
            queue = session.queue
            if queue.dropped or queue.expired or queue.lost:
                yield f"session {session.client_id!a}", queue
        for bridge in self._observed.bridges:
            status = bridge.status()
            lost = {reason: count for reason, count in status.dropped.items() if reason not in _ASKED_FOR}
            lost |= {"expired": status.expired, "lost": status.lost}
            if any(lost.values()):
                yield f"bridge {bridge.name}", lost
        for reason, count in router.counters.dropped.items():
            if count and reason not in _ASKED_FOR and reason not in _OF_QUEUES:
                yield reason, {reason: count}


def _of_queue(queue: Queue) -> Mapping[str, int]:
    return (queue.drops or {}) | {"expired": queue.expired, "lost": queue.lost}
