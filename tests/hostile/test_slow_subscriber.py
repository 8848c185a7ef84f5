"""A subscriber that reads a byte a second costs no other client anything, and no more memory than its limit."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import contextmanager

from edge_broker.wire import const
from edge_broker.wire.packets import Publish
from tests.hostile.conftest import Start, Watched
from tests.hostile.peer import Pair, Peer

PAYLOAD_BYTES = 8_000
FLOOD_MESSAGES = 6_000
"""48 MB: many times what kernel and broker keep for a connection."""
BATCH = 50
MEMORY_BYTES = 24 << 20
"""What the process may grow by meanwhile: half of what was published, while its limit is 64 KB and the kernel's buffers
are not the process's. The rest is what an interpreter's allocator keeps."""


@contextmanager
def dripping(peer: Peer) -> Iterator[None]:
    """Until the end of the block `peer` reads one byte a second, and drops it."""
    stop = threading.Event()

    def drip() -> None:
        while not stop.wait(1.0):
            peer.sock.recv(1)

    thread = threading.Thread(target=drip)
    thread.start()
    try:
        yield
    finally:
        stop.set()
        thread.join()


def numbered(number: int) -> bytes:
    return b"%06d" % number + bytes(PAYLOAD_BYTES - 6)


def flood(publisher: Peer, quick: Peer, messages: int) -> None:
    """QoS 0, in batches that `quick` gets whole and in order before the next one."""
    for start in range(0, messages, BATCH):
        for number in range(start, start + BATCH):
            publisher.publish("flood", numbered(number))
        for number in range(start, start + BATCH):
            assert quick.expect(Publish).payload == numbered(number)


def test_qos_0_beyond_the_limit_is_dropped_and_counted(start: Start, loop: str) -> None:
    watched = start(loop)
    with (
        Pair(watched.port) as pair,
        Peer(watched.port, little_buffer=True) as slow,
        Peer(watched.port) as quick,
        Peer(watched.port) as publisher,
    ):
        slow.connect("slow")
        slow.subscribe("flood")
        quick.connect("quick")
        quick.subscribe("flood")
        publisher.connect("publisher")
        with dripping(slow):
            flood(publisher, quick, BATCH)
            before = watched.memory_bytes
            flood(publisher, quick, FLOOD_MESSAGES)
            grown = watched.memory_bytes - before
            pair.round_trip()
        dropped = watched.dropped()
        assert set(dropped) == {"slow_subscriber"}
        assert dropped["slow_subscriber"] > FLOOD_MESSAGES / 2
        assert watched.sent(0) + dropped["slow_subscriber"] == 2 * (FLOOD_MESSAGES + BATCH)
        assert watched.refused() == {}
        assert grown < MEMORY_BYTES, f"{grown >> 20} MB more"


def test_it_may_catch_up_again(watched: Watched, pair: Pair) -> None:
    """What was dropped is gone; once it reads again it gets what is published then, and nothing twice."""
    with Peer(watched.port, little_buffer=True) as slow, Peer(watched.port) as publisher:
        slow.connect("slow")
        slow.subscribe("flood")
        publisher.connect("publisher")
        published = 0
        while not watched.dropped():
            assert published < FLOOD_MESSAGES, "nothing is ever dropped"
            for number in range(published, published + BATCH):
                publisher.publish("flood", numbered(number))
            published += BATCH
            publisher.ping()
        numbers = []
        while True:  # until it gets what is published only when all before it has been read
            publisher.publish("flood", numbered(published))
            published += 1
            publisher.ping()
            numbers.append(int(slow.expect(Publish).payload[:6]))
            while slow.has_something:
                numbers.append(int(slow.expect(Publish).payload[:6]))
            if numbers[-1] == published - 1:
                break
        assert numbers == sorted(set(numbers))
        assert len(numbers) + watched.dropped()["slow_subscriber"] == published


def test_qos_1_waits_in_the_durable_queue(start: Start, loop: str) -> None:
    """On disk, and all of it arrives in order when the client reads at last."""
    messages = 3_000
    watched = start(loop, sessions={"window_bytes": 65_536, "send_window": 200})
    with (
        Pair(watched.port) as pair,
        Peer(watched.port, little_buffer=True) as slow,
        Peer(watched.port) as publisher,
    ):
        slow.connect("slow", clean=False, expiry=3600)
        slow.subscribe("flood", 1)
        publisher.connect("publisher")
        publish_all(publisher, BATCH)
        with dripping_after(slow, BATCH):
            before = watched.memory_bytes
            publish_all(publisher, messages)
            grown = watched.memory_bytes - before
            pair.round_trip()
            waiting = watched.get("queue_messages", queue="session:slow")
            assert waiting == messages
            assert watched.dropped() == {}
        assert grown < MEMORY_BYTES / 2, f"{grown >> 20} MB more of {messages * PAYLOAD_BYTES >> 20}"
    with Peer(watched.port) as slow:
        assert slow.connect("slow", clean=False, expiry=3600).session_present
        for number in range(messages):
            publish = slow.expect(Publish)
            assert publish.payload == numbered(number)
            slow.ack(const.PUBACK, publish.packet_id)
        slow.ping()
        watched.until(
            lambda: watched.get("queue_messages", queue="session:slow") == 0, "its queue is not empty"
        )
    assert watched.dropped() == {}


@contextmanager
def dripping_after(slow: Peer, messages: int) -> Iterator[None]:
    """Take and acknowledge so many messages, then drip."""
    for _ in range(messages):
        slow.ack(const.PUBACK, slow.expect(Publish).packet_id)
    slow.ping()
    with dripping(slow):
        yield


def publish_all(publisher: Peer, messages: int) -> None:
    """QoS 1, `BATCH` at a time unacknowledged."""
    for start in range(0, messages, BATCH):
        for number in range(start, start + BATCH):
            publisher.publish("flood", numbered(number), 1, number % 60_000 + 1)
        for number in range(start, start + BATCH):
            assert publisher.expect_ack(const.PUBACK).packet_id == number % 60_000 + 1


def test_qos_1_for_a_session_that_ends_with_its_connection_is_bounded(start: Start) -> None:
    """Up to its limit it waits in memory; what comes on top is dropped and counted, and nobody waits for it."""
    messages, limit = 2_000, 1 << 20
    watched = start(max_queue_bytes_in_memory=limit, sessions={"send_window": 100})
    with (
        Pair(watched.port) as pair,
        Peer(watched.port, little_buffer=True) as slow,
        Peer(watched.port) as publisher,
    ):
        slow.connect("slow")
        slow.subscribe("flood", 1)
        publisher.connect("publisher")
        with dripping(slow):
            publish_all(publisher, messages)
            pair.round_trip()
            dropped, waiting = watched.dropped(), watched.get("queue_messages", queue="session:slow")
        assert set(dropped) == {"queue_full"}
        assert dropped["queue_full"] + waiting == messages
        assert waiting <= 100 + limit / PAYLOAD_BYTES + 1
        assert watched.refused() == {}
