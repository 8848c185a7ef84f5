"""The broker's state as MQTT topics, `$SYS/broker/...`, by the names that mosquitto's users know.

`docs/monitoring.md` says what each one means. Nothing is counted here: what the broker's parts count as plain ints is
read once per interval, and a topic is published only when its value changed. Loads are exponential moving averages, as
mosquitto has them. What is published goes through a function that keeps it in memory alone: it never touches the disk.
There is no clock and no timer here; whoever calls `update` about once a second brings the time.
"""

from __future__ import annotations

import math
import resource
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import Final

from edge_broker import __version__
from edge_broker.ops.observed import Observed, dropped_messages

PREFIX: Final = "$SYS/broker/"

_WINDOWS: Final = (("1min", 60.0), ("5min", 300.0), ("15min", 900.0))
_ASKED_FOR: Final = frozenset(("offline", "expired", "session_ended"))
"""Why a message may be dropped without any limit having been reached: its sender, its recipient or MQTT wants it so."""
_PROCESS_MEMORY: Final = Path("/proc/self/statm")


class Load:
    """How fast a counter rises, per minute: averages over 1, 5 and 15 minutes in which the past fades exponentially.

    `per_minute` has one for each; they begin at 0, so the longer ones take their time to get up.
    """

    __slots__ = ("_count", "per_minute")

    def __init__(self, count: int) -> None:
        self._count = count
        self.per_minute = [0.0 for _ in _WINDOWS]

    def update(self, count: int, elapsed_seconds: float) -> None:
        """The counter stands at `count` now, `elapsed_seconds` (more than 0) after the last look."""
        rate = (count - self._count) * 60.0 / elapsed_seconds
        self._count = count
        self.per_minute = [
            rate + math.exp(-elapsed_seconds / window_seconds) * (average - rate)
            for average, (_, window_seconds) in zip(self.per_minute, _WINDOWS, strict=True)
        ]


class SystemTopics:
    """Publishes the topics of one broker. `publish(topic, payload)` retains in memory only and delivers at QoS 0.

    `now`: the monotonic clock in seconds, here and in `update`.
    """

    def __init__(
        self,
        observed: Observed,
        publish: Callable[[str, bytes], None],
        interval_seconds: float,
        now: float,
    ) -> None:
        self._observed = observed
        self._publish = publish
        self._interval_seconds = interval_seconds
        self._started_at = self._updated_at = self._due_at = now
        self._most_connected = 0
        self._published: dict[str, str] = {}
        self._loads = {name: Load(count) for name, count in _rising(observed).items()}

    def update(self, now: float) -> None:
        """If an interval is over, and the first time: look at the broker, and publish what changed."""
        if now < self._due_at:
            return
        self._due_at += self._interval_seconds
        if self._due_at <= now:  # far behind: one look is enough
            self._due_at = now + self._interval_seconds
        elapsed_seconds = now - self._updated_at
        self._updated_at = now
        for topic, value in list(self._values(now, elapsed_seconds)):
            if self._published.get(topic) != value:
                self._published[topic] = value
                self._publish(PREFIX + topic, value.encode())

    def _values(self, now: float, elapsed_seconds: float) -> Iterator[tuple[str, str]]:
        yield "version", f"edge-broker version {__version__}"
        yield "uptime", f"{int(now - self._started_at)} seconds"
        rising = _rising(self._observed)
        yield from _texts(self._clients())
        yield from _texts(_messages(rising))
        yield from _texts(self._kept())
        yield from _texts(_memory())
        yield from self._load(rising, elapsed_seconds)

    def _clients(self) -> Iterator[tuple[str, int]]:
        sessions = self._observed.router.sessions.values()
        connected = sum(session.online for session in sessions)
        self._most_connected = max(self._most_connected, connected)
        yield "clients/connected", connected
        yield "clients/disconnected", len(sessions) - connected
        yield "clients/total", len(sessions)
        yield "clients/maximum", self._most_connected
        yield "clients/expired", self._observed.router.counters.sessions_expired
        yield "subscriptions/count", sum(len(session.subscriptions) for session in sessions)

    def _kept(self) -> Iterator[tuple[str, int]]:
        observed = self._observed
        retained = observed.router.retained_messages
        waiting = sum(session.queue.depth for session in observed.router.sessions.values())
        waiting += sum(queue.depth for bridge in observed.bridges for queue in bridge.queues.values())
        yield "retained messages/count", retained
        yield "messages/stored", retained + waiting
        yield "store/messages/count", retained + waiting
        try:
            yield "store/messages/bytes", observed.store.file_bytes
        except OSError:  # then it stays at what it was; health says what is wrong with the disk
            return

    def _load(self, rising: dict[str, int], elapsed_seconds: float) -> Iterator[tuple[str, str]]:
        for name, count in rising.items():
            load = self._loads[name]
            if elapsed_seconds > 0:
                load.update(count, elapsed_seconds)
            for (window, _), average in zip(_WINDOWS, load.per_minute, strict=True):
                yield f"load/{name}/{window}", f"{average:.2f}"


def _rising(observed: Observed) -> dict[str, int]:
    """What is counted since the start and never falls, by the names that its loads have."""
    counters = observed.router.counters
    received, sent = sum(counters.received), sum(counters.sent)
    return {
        "messages/received": received,
        "messages/sent": sent,
        "publish/received": received,
        "publish/sent": sent,
        "publish/dropped": _dropped(observed),
        "connections": counters.connects,
        "sockets": counters.connections,
    }


def _messages(rising: dict[str, int]) -> Iterator[tuple[str, int]]:
    yield "messages/received", rising["messages/received"]
    yield "messages/sent", rising["messages/sent"]
    yield "publish/messages/received", rising["publish/received"]
    yield "publish/messages/sent", rising["publish/sent"]
    yield "publish/messages/dropped", rising["publish/dropped"]


def _texts(values: Iterable[tuple[str, int]]) -> Iterator[tuple[str, str]]:
    return ((topic, str(value)) for topic, value in values)


def _dropped(observed: Observed) -> int:
    """Messages that a recipient did not get because a limit was reached, or something failed."""
    return sum(count for reason, count in dropped_messages(observed).items() if reason not in _ASKED_FOR)


def _memory() -> Iterator[tuple[str, int]]:
    """The process' resident bytes, now where the kernel tells, and at most."""
    try:
        pages = int(_PROCESS_MEMORY.read_text().split()[1])
    except OSError:
        pass
    else:
        yield "heap/current", pages * resource.getpagesize()
    yield "heap/maximum", resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024  # Linux counts in KiB
