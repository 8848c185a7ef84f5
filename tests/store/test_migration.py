"""A store of an earlier schema is taken over as it is, from a file that the broker of then wrote."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest

from edge_broker.core.ops import QueueWrite
from edge_broker.store import DATABASE_NAME
from edge_broker.store.inspection import Inspection
from edge_broker.store.schema import SCHEMA_VERSION
from edge_broker.store.status import read_status
from edge_broker.store.verification import verify
from tests.store.sample import look_inside, numbered, opened, queue_batch, read_all

DATA = Path(__file__).parent.parent / "data"
SESSION, OUTBOX = 1, 2


def version_of(directory: Path) -> int:
    database = look_inside(directory)
    try:
        return int(database.execute("PRAGMA user_version").fetchone()[0])
    finally:
        database.close()


@pytest.fixture
def of_schema_1(state_dir: Path) -> Path:
    """A session with a will, a bridge's outbox of which the last commit is in the log only, a retained message."""
    for file in (DATA / "store-v1-queues").iterdir():
        shutil.copy(file, state_dir / file.name)
    return state_dir


async def test_everything_of_schema_1_is_there(of_schema_1: Path) -> None:
    async with opened(of_schema_1) as (store, snapshot):
        (session,) = snapshot.sessions
        assert (session.client_id, session.will_delay) == ("display", 5)
        assert session.will is not None
        assert session.will.payload == b"gone"
        assert [record.topic_filter for record in snapshot.subscriptions] == ["plant/#"]
        assert snapshot.outboxes == {"cloud": OUTBOX}
        assert snapshot.inbound == [(SESSION, 7)]
        assert [message.payload for message in snapshot.retained] == [b"running"]
        assert (snapshot.queues[OUTBOX].head, snapshot.queues[OUTBOX].acknowledged) == (5, [9])
        assert [number for number, _ in await read_all(store, SESSION)] == list(range(1, 11))
        assert [number for number, _ in await read_all(store, OUTBOX, 5)] == list(range(5, 36))
        assert store.recovery is None
        await store.commit(queue_batch(OUTBOX, numbered(36, 5), head=5, acknowledged=[9]))
    assert version_of(of_schema_1) == SCHEMA_VERSION
    assert verify(of_schema_1).sound


async def test_it_takes_what_only_the_new_schema_has(of_schema_1: Path) -> None:
    async with opened(of_schema_1) as (store, _):
        write = QueueWrite(OUTBOX, numbered(40, 2), 5, [9], [], volatile=[(36, 39)])
        await store.commit(queue_batch(SESSION, []))
        batch = queue_batch(OUTBOX, [])
        batch.queues = [write]
        await store.commit(batch)
    found = verify(of_schema_1)
    assert found.sound
    assert found.queues["bridge:cloud"].not_on_disk == [(36, 39)]


def test_looking_at_it_changes_nothing(of_schema_1: Path) -> None:
    before = {file.name: file.read_bytes() for file in of_schema_1.iterdir()}
    with Inspection(of_schema_1) as inspection:
        assert read_status(inspection).schema_version == 1
    assert verify(of_schema_1).sound
    after = {file.name: file.read_bytes() for file in of_schema_1.iterdir() if not file.name.endswith("-shm")}
    assert after == before
    assert (of_schema_1 / DATABASE_NAME).exists()
