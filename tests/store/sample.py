"""What the store's tests share: messages with something in every field, stores in a directory, and how to look inside."""

from __future__ import annotations

import sqlite3
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

from edge_broker.core.message import Message, build_message
from edge_broker.core.ops import Batch, QueueWrite, SessionRecord, Snapshot
from edge_broker.store import DATABASE_NAME, Store
from edge_broker.wire.topics import TopicCache

WALL_OFFSET = 1_800_000_000.0


def make_message(
    topic: str = "plant/line/temperature",
    payload: bytes = b"21.5",
    *,
    qos: int = 1,
    retain: bool = False,
    version: int = 5,
    epoch: int = 3,
    sequence: int = 7,
    received_at: float = 100.25,
    expires_at: float | None = None,
) -> Message:
    """A message as the router has it when it goes to the store."""
    message = build_message(topic, payload, qos=qos, retain=retain, version=version)
    message.epoch, message.sequence = epoch, sequence
    message.received_at, message.expires_at = received_at, expires_at
    return message


def numbered(first: int, count: int, size: int = 20) -> list[tuple[int, Message]]:
    """`count` messages from number `first` on, the number in each payload."""
    return [
        (n, make_message(payload=b"%d " % n + bytes(size), sequence=n)) for n in range(first, first + count)
    ]


def queue_batch(
    queue_id: int, messages: list[tuple[int, Message]], head: int = 1, acknowledged: list[int] | None = None
) -> Batch:
    """A batch that appends to one queue."""
    return Batch(queues=[QueueWrite(queue_id, messages, head, acknowledged or [], [])])


def session_batch(*session_ids: int) -> Batch:
    """A batch with new sessions."""
    return Batch(sessions=[SessionRecord(n, f"client-{n}", f"user-{n}", 3600, None) for n in session_ids])


@asynccontextmanager
async def opened(directory: Path, wall_offset: float = WALL_OFFSET) -> AsyncIterator[tuple[Store, Snapshot]]:
    """The store in `directory`, closed at the end."""
    store, snapshot = await Store.open(directory, topics=TopicCache(), wall_offset=lambda: wall_offset)
    try:
        yield store, snapshot
    finally:
        await store.close()


async def read_all(store: Store, queue_id: int, head: int = 1) -> list[tuple[int, Message]]:
    """Everything in a queue from `head` on, page by page, as a bridge reads it."""
    messages: list[tuple[int, Message]] = []
    number = head
    while True:
        page = await store.read_page(queue_id, number, 1000, 256 << 10)
        messages += page.messages
        if page.end == number:
            return messages
        number = page.end


def look_inside(directory: Path) -> sqlite3.Connection:
    """The database of a store, to read or to break."""
    return sqlite3.connect(directory / DATABASE_NAME, isolation_level=None)


def essence(message: Message) -> tuple[object, ...]:
    """Everything of a message that must survive, times to the millisecond."""
    origin = message.origin
    return (
        message.frame,
        message.version,
        message.topic,
        message.payload,
        message.property_block,
        message.packet_id_at,
        message.payload_at,
        message.qos,
        message.retain,
        origin.epoch,
        origin.sequence,
        round(message.received_at, 2),
        None if message.expires_at is None else round(message.expires_at, 2),
    )
