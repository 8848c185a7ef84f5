"""The command `trace`: follows messages through the running broker, for a bounded time, and tells each step.

One trace runs at a time. It ends with its time, with as many messages as were asked for, or with its client; whichever it
is, the core is as it was before. Sizes are told, never payloads.
"""

from __future__ import annotations

import asyncio
import time
from collections import deque
from collections.abc import AsyncGenerator, Collection, Mapping
from typing import TYPE_CHECKING, Any, Final

from edge_broker.core.queue import Queue
from edge_broker.errors import CommandError, MqttError
from edge_broker.ops.control import Answer, Request, wanted
from edge_broker.ops.observed import Observed, ObservedBridge
from edge_broker.wire.topics import check_topic_filter, split_share

if TYPE_CHECKING:
    from edge_broker.core.trace_events import Event
    from edge_broker.core.tracing import Tracer

MAX_EVENTS_PER_SECOND: Final = 200
DEFAULT_SECONDS: Final = 60
MAX_SECONDS: Final = 3_600
MAX_MESSAGES: Final = 10_000
_LOOK_SECONDS: Final = 0.2
_GRACE_SECONDS: Final = 0.05
"""After the last message came to rest: what the same turn of the event loop still brings is told too."""


class TraceCommand:
    """`run` is the handler. In the request: `client` or `topic` (a filter) or both, `seconds`, `count`."""

    def __init__(self, observed: Observed) -> None:
        self._observed = observed
        self._since: float | None = None

    async def run(self, request: Request) -> AsyncGenerator[Answer, None]:
        """First that it began, then each event, at the end how many there were."""
        client_id, topic_filter, seconds, messages = _read(request)
        if self._since is not None:
            ago = time.monotonic() - self._since
            raise CommandError(f"a trace is running since {ago:.0f} s", "one at a time: end that one first")
        # only while somebody traces are these in memory
        from edge_broker.core.traced import begin_trace, end_trace
        from edge_broker.core.tracing import Tracer

        router = self._observed.router
        events: deque[Event] = deque()
        tracer = Tracer(
            router,
            events.append,
            client_id=client_id,
            topic_filter=topic_filter,
            messages=messages,
            max_events_per_second=MAX_EVENTS_PER_SECOND,
            bridges=[_TracedBridge(bridge) for bridge in self._observed.bridges],
        )
        self._since = time.monotonic()
        begin_trace(router, tracer)
        self._observed.record_action(
            "trace", request["by"], client_id=client_id or None, topic=topic_filter or None, seconds=seconds
        )
        try:
            yield {
                "tracing": {"client": client_id, "topic": topic_filter, "seconds": seconds, "count": messages}
            }
            async for answer in _follow(tracer, events, self._since + seconds):
                yield answer
        finally:
            end_trace(router)
            self._since = None
        yield {
            "ended": "enough messages" if tracer.is_over else "its time is over",
            "messages": tracer.shown,
            "skipped": tracer.skipped,
        }


async def _follow(tracer: Tracer, events: deque[Event], until: float) -> AsyncGenerator[Answer, None]:
    """The events as they come, and once a second what had to be left out, until `until` or enough messages."""
    wall_offset = time.time() - time.monotonic()
    skipped, told_at, over_at = 0, time.monotonic(), None
    while True:
        tracer.tell_sent()
        now = time.monotonic()
        while events:
            yield describe(events.popleft(), wall_offset)
        if tracer.skipped > skipped and now - told_at >= 1:
            yield {"skipped": tracer.skipped - skipped}
            skipped, told_at = tracer.skipped, now
        if not tracer.is_over:
            over_at = None
        elif over_at is None:
            over_at = now
        elif now - over_at >= _GRACE_SECONDS:
            return
        if now >= until:
            return
        await asyncio.sleep(min(_GRACE_SECONDS if over_at else _LOOK_SECONDS, until - now))


def describe(event: Event, wall_offset: float) -> dict[str, Any]:
    """`event` as the socket tells it; `wall_offset` is the wall clock minus the monotonic one, in seconds."""
    described: dict[str, Any] = {
        "at": round(event.at + wall_offset, 6),
        "message": event.message,
        "event": event.what,
        "client": event.client,
        "topic": event.topic,
        "qos": event.qos,
        "payload_bytes": event.payload_bytes,
    }
    if event.queue_number:
        described["queue_number"] = event.queue_number
    if event.detail:
        described["detail"] = event.detail
    return described


def _read(request: Request) -> tuple[str, str, int, int]:
    """Client, topic filter, seconds and messages of the request; `CommandError` for what cannot be."""
    client_id = wanted(request, "client", str, "")
    topic_filter = wanted(request, "topic", str, "")
    if not client_id and not topic_filter:
        raise CommandError("nothing to trace", "give a client or a topic filter; # is every topic")
    if topic_filter:
        try:
            check_topic_filter(topic_filter)
        except MqttError as error:
            raise CommandError(f"{topic_filter} is no topic filter: {error.detail}") from None
        topic_filter = split_share(topic_filter)[1]
    seconds = wanted(request, "seconds", int, DEFAULT_SECONDS)
    messages = wanted(request, "count", int, 0)
    if not 1 <= seconds <= MAX_SECONDS:
        raise CommandError(f"seconds must be 1 to {MAX_SECONDS}")
    if not 0 <= messages <= MAX_MESSAGES:
        raise CommandError(f"count must be 0 (no limit) to {MAX_MESSAGES}")
    return client_id, topic_filter, seconds, messages


class _TracedBridge:
    """A bridge as events name it."""

    def __init__(self, bridge: ObservedBridge) -> None:
        self._bridge = bridge
        self.name = f"bridge:{bridge.name}"

    @property
    def queues(self) -> Collection[Queue]:
        return self._bridge.queues.values()

    def not_taken(self) -> Mapping[str, int]:
        return self._bridge.status().dropped

    def given_up(self) -> Mapping[str, int]:
        return self._bridge.status().refused
