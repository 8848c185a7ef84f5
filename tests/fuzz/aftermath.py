"""What must be true of a broker core whatever its clients did: bounded, counted, consistent; and empty when all is over."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

from edge_broker.core.queue import LARGE_FRAME_BYTES, Queue
from tests.fuzz.honest import Honest
from tests.fuzz.keeper import Keeper
from tests.fuzz.stranger import Stranger
from tests.pump.pump import Pump

MESSAGE_OVERHEAD_BYTES: Final = 500
"""As ``core.queue`` counts it."""
LARGEST_INPUT_BYTES: Final = 70_000
"""More than one step of a script sends at once."""


def assert_consistent(pump: Pump, strangers: Sequence[Stranger], honest: Honest, keeper: Keeper) -> None:
    """At any time between two steps."""
    router = pump.router
    assert all(client.connection.end is None for client in (*honest.clients, keeper.writer)), (
        "an honest client was cut off"
    )
    for stranger in strangers:
        connection = stranger.connection
        assert connection.buffered_bytes <= pump.settings.max_packet_bytes + LARGEST_INPUT_BYTES
        assert connection.output == [], "output is left that nobody flushes"
        assert not stranger.incomplete_bytes, "it was sent a piece of a packet"
        if connection.end is not None:
            assert connection.session is None
            assert stranger.closed, "a connection has ended and is not closed"
    for session in router.sessions.values():
        assert_queue_adds_up(session.queue)
        if session.connection is not None:
            assert session.connection is session.claimed_by
            assert session.connection.session is session
            assert session.queue.in_flight <= session.connection.send_window
        if session.queue.pending is None:
            in_memory = session.queue.bytes_in_memory
            assert in_memory <= pump.settings.max_queue_bytes_in_memory + LARGEST_INPUT_BYTES
        assert len(session.subscriptions) <= pump.settings.max_subscriptions_per_client
    assert all(count > 0 for count in (*pump.dropped.values(), *pump.refused.values()))
    _assert_ends_are_counted(pump, strangers)
    _assert_deliveries_are_counted(pump, strangers, honest.publishes + keeper.publishes)


def _assert_ends_are_counted(pump: Pump, strangers: Sequence[Stranger]) -> None:
    """Each connection that we ended is counted under one reason; those that left or were lost are not."""
    ended_by_us = 0
    for stranger in strangers:
        end = stranger.connection.end
        if end is not None and end[0] >= 0x80 and end[1] != "the connection was lost":
            ended_by_us += 1
    assert sum(pump.refused.values()) == ended_by_us, pump.refused


def _assert_deliveries_are_counted(pump: Pump, strangers: Sequence[Stranger], honest: int) -> None:
    """Every PUBLISH that was sent is one that somebody got, but for what a blocked socket still holds."""
    if any(stranger.blocked and stranger.unread for stranger in strangers):
        return
    received = honest + sum(stranger.publishes for stranger in strangers)
    assert sum(pump.router.counters.sent) == received


def assert_queue_adds_up(queue: Queue) -> None:
    """What a queue counts is what is in it."""
    done = queue.acknowledged or set()
    assert 1 <= queue.head <= queue.cursor <= queue.next_number
    assert queue.depth >= 0
    assert all(queue.head < number < queue.next_number for number in done)
    assert all(queue.head <= number < queue.next_number for number in queue.messages)
    if queue.online:
        in_flight = sum(number not in done for number in range(queue.head, queue.cursor))
        assert queue.in_flight == in_flight
        large = sum(
            len(message.frame)
            for number, message in queue.messages.items()
            if number < queue.cursor and len(message.frame) > LARGE_FRAME_BYTES
        )
        assert queue.large_in_flight_bytes == large
    first = queue.cursor if queue.pending is None else 0
    waiting = [message for number, message in queue.messages.items() if number >= first]
    assert queue.bytes_in_memory == sum(len(m.frame) + MESSAGE_OVERHEAD_BYTES for m in waiting)


def assert_nothing_left(pump: Pump, honest: Honest, keeper: Keeper) -> None:
    """After everybody has gone, all is committed and all sessions are over: no trace but what was retained."""
    router, pending, store = pump.router, pump.pending, pump.store
    pump.seal()
    pump.settle()
    assert set(router.sessions) == {
        client.connection.client_id for client in (*honest.clients, keeper.writer)
    }
    assert len(router.table) == 1, "subscriptions of nobody"
    assert router._delayed_wills == {}
    assert not router.stalled
    assert router.connects_waiting == 0
    assert (pending.uncommitted_bytes, pending.waiting, pending.bytes) == (0, 0, 0)
    assert pending.empty
    assert pending.reads == []
    assert (store.sessions, store.subscriptions, store.queues) == ({}, {}, {})
    assert store.inbound == set()
    now = {message.topic: message.payload for message in router.retained.match("#")}
    kept = {topic: message.payload for topic, message in store.retained.items() if topic[:1] != "$"}
    assert now == kept
