"""Encryption at rest: nothing of a message is on the disk, all is there with the key, and nothing is lost without."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from edge_broker.core.message import Message
from edge_broker.core.ops import Batch, QueueWrite, SessionRecord, Snapshot
from edge_broker.errors import StoreError
from edge_broker.store import DATABASE_NAME, Store, Vault
from edge_broker.store.compaction import compact
from edge_broker.store.exporting import Gaps, export_queue, export_retained
from edge_broker.store.inspection import Inspection
from edge_broker.store.schema import PAGE_BYTES
from edge_broker.store.segment import encode_segments, segment_crc
from edge_broker.store.status import read_status
from edge_broker.store.times import Times
from edge_broker.store.vault import MissingKey
from edge_broker.store.verification import verify
from edge_broker.wire.topics import TopicCache
from tests.store.sample import WALL_OFFSET, essence, look_inside, make_message, queue_batch, read_all

OLD, NEW, OTHER = (bytes([number]) * 32 for number in (1, 2, 3))
SECRET = b"the-secret-payload"
TOPIC = "secret/topic/name"
SESSION, OUTBOX = 1, 2
COUNT = 300
TIMES = Times(WALL_OFFSET)


@asynccontextmanager
async def opened(
    directory: Path, key: bytes | None, *old_keys: bytes
) -> AsyncIterator[tuple[Store, Snapshot]]:
    store, snapshot = await Store.open(
        directory, topics=TopicCache(), wall_offset=lambda: WALL_OFFSET, vault=Vault(key, old_keys)
    )
    try:
        yield store, snapshot
    finally:
        await store.close()


def secrets(first: int, count: int) -> list[tuple[int, Message]]:
    return [(n, make_message(f"{TOPIC}/{n}", SECRET + b" %d" % n)) for n in range(first, first + count)]


async def fill(directory: Path, key: bytes | None) -> None:
    async with opened(directory, key) as (store, _):
        will = make_message(f"{TOPIC}/will", SECRET, qos=2)
        await store.commit(
            Batch(
                sessions=[SessionRecord(SESSION, "client-1", "user", 3600, None, will, 5)],
                outboxes=[(OUTBOX, "cloud")],
                queues=[QueueWrite(OUTBOX, secrets(1, COUNT), 1, [], [], volatile=[])],
                retained={
                    f"{TOPIC}/{n}": make_message(f"{TOPIC}/{n}", SECRET, retain=True) for n in range(20)
                },
            )
        )


async def check_all(directory: Path, key: bytes | None, *old_keys: bytes, count: int = COUNT) -> None:
    """Everything is there, with these keys."""
    async with opened(directory, key, *old_keys) as (store, snapshot):
        assert store.recovery is None
        expected = [(number, essence(message)) for number, message in secrets(1, count)]
        assert [(n, essence(message)) for n, message in await read_all(store, OUTBOX)] == expected
        (session,) = snapshot.sessions
        assert session.will is not None
        assert (session.will.topic, session.will.payload) == (f"{TOPIC}/will", SECRET)
        topics = {f"{TOPIC}/{number}" for number in range(20)}
        assert {message.topic for message in snapshot.retained} == topics
        found = await store.read_retained([*sorted(topics), "not/there"])
        assert {topic: message.payload for topic, message in found.items()} == dict.fromkeys(topics, SECRET)


def on_disk(directory: Path) -> bytes:
    return b"".join(file.read_bytes() for file in directory.iterdir() if file.name.startswith("broker.db"))


def dump(directory: Path) -> list[str]:
    database = look_inside(directory)
    try:
        return list(database.iterdump())
    finally:
        database.close()


def files(directory: Path) -> list[str]:
    return sorted(file.name for file in directory.iterdir())


# ---- what is on the disk


async def test_nothing_of_a_message_is_on_the_disk(state_dir: Path) -> None:
    async with opened(state_dir, NEW) as (store, _):
        await store.commit(Batch(outboxes=[(OUTBOX, "cloud")]))
        await store.commit(queue_batch(OUTBOX, secrets(1, COUNT)))
        assert SECRET not in on_disk(state_dir)  # in its log
    await fill(state_dir, NEW)
    raw = on_disk(state_dir)
    assert SECRET not in raw
    assert TOPIC.encode() not in raw
    assert b"client-1" in raw, "what is not encrypted, as the documentation says"
    assert b"cloud" in raw
    await check_all(state_dir, NEW)


async def test_without_a_key_it_is_as_it_was(state_dir: Path) -> None:
    await fill(state_dir, None)
    assert SECRET in on_disk(state_dir)
    database = look_inside(state_dir)
    assert database.execute("SELECT name FROM meta WHERE name LIKE 'key%'").fetchall() == []
    database.close()
    await check_all(state_dir, None)


async def test_no_two_rows_have_the_same_nonce(state_dir: Path) -> None:
    await fill(state_dir, NEW)
    database = look_inside(state_dir)
    nonces = [row[0] for row in database.execute("SELECT substr(body, 12, 12) FROM retained")]
    database.close()
    assert len(set(nonces)) == 20


# ---- keys that are wrong, missing, changed


@pytest.mark.parametrize("key", [None, OTHER])
async def test_a_wrong_or_missing_key_is_told_before_anything_is_touched(
    state_dir: Path, key: bytes | None
) -> None:
    await fill(state_dir, NEW)
    before, names = (state_dir / DATABASE_NAME).read_bytes(), files(state_dir)
    for _ in range(2):
        with pytest.raises(StoreError, match="encrypted") as caught:
            async with opened(state_dir, key):
                pass
        assert Vault(NEW).key_id in str(caught.value)
        assert "encryption_key_file" in caught.value.hint
    assert (state_dir / DATABASE_NAME).read_bytes() == before
    assert files(state_dir) == names
    await check_all(state_dir, NEW)


async def test_a_key_is_missed_also_where_nothing_says_which(state_dir: Path) -> None:
    """The rows of `meta` are lost: the last message, which cannot be opened, tells, and is not taken for damaged."""
    await fill(state_dir, NEW)
    database = look_inside(state_dir)
    database.execute("DELETE FROM meta")
    database.execute("DELETE FROM retained")
    database.execute("DELETE FROM session")
    database.close()
    with pytest.raises(StoreError, match="encrypted"):
        await check_all(state_dir, None)
    async with opened(state_dir, NEW) as (store, _):
        assert len(await read_all(store, OUTBOX)) == COUNT
        assert store.corrupt_segments == 0


async def test_encryption_is_turned_on_over_a_plain_store_and_off_again(state_dir: Path) -> None:
    await fill(state_dir, None)
    async with opened(state_dir, NEW) as (store, _):
        await store.commit(queue_batch(OUTBOX, secrets(COUNT + 1, 10)))
    await check_all(state_dir, NEW, count=COUNT + 10)
    with pytest.raises(StoreError, match="no key was given"):
        await check_all(state_dir, None)
    await check_all(state_dir, None, NEW, count=COUNT + 10)
    compact(state_dir, vault=Vault(None, [NEW]))
    assert SECRET in on_disk(state_dir)
    await check_all(state_dir, None, count=COUNT + 10)


async def test_a_new_key_takes_over_by_and_by_and_at_once_when_compacted(state_dir: Path) -> None:
    await fill(state_dir, OLD)
    await check_all(state_dir, NEW, OLD)
    with pytest.raises(StoreError, match="another key"):
        await check_all(state_dir, NEW)
    before = dump(state_dir)
    with pytest.raises(StoreError, match="another key"):
        compact(state_dir, vault=Vault(NEW))
    assert dump(state_dir) == before
    compact(state_dir)  # no key is needed to make it small
    await check_all(state_dir, NEW, OLD)
    compact(state_dir, vault=Vault(NEW, [OLD]))
    await check_all(state_dir, NEW)
    assert SECRET not in on_disk(state_dir)


async def test_a_retained_message_has_one_row_whatever_key_it_was_written_with(state_dir: Path) -> None:
    topic = f"{TOPIC}/0"
    keys: Sequence[tuple[bytes | None, tuple[bytes, ...]]] = (
        (None, ()), (OLD, ()), (NEW, (OLD,)), (None, (NEW, OLD)),
    )  # fmt: skip
    for number, (key, old_keys) in enumerate(keys):
        async with opened(state_dir, key, *old_keys) as (store, snapshot):
            assert len(snapshot.retained) == min(number, 1)
            payload = b"%d" % number
            await store.commit(Batch(retained={topic: make_message(topic, payload, retain=True)}))
            assert (await store.read_retained([topic]))[topic].payload == payload
    async with opened(state_dir, NEW, OLD) as (store, snapshot):
        assert [message.payload for message in snapshot.retained] == [b"3"]
        await store.commit(Batch(retained={topic: None}))
    async with opened(state_dir, NEW, OLD) as (_, snapshot):
        assert snapshot.retained == []


# ---- damage, tampering, recovery


async def test_a_row_in_the_place_of_another_is_damaged(state_dir: Path) -> None:
    """With a checksum that fits: only the key tells."""
    await fill(state_dir, NEW)
    vault = Vault(NEW)
    one, other = (
        vault.seal_segments(encode_segments(OUTBOX, [(n, make_message())], TIMES))[0] for n in (1, 2)
    )
    moved = (*one[:4], segment_crc(*one[:4], other[5]), other[5])
    assert vault.open_segment(one)[5] != one[5]
    assert vault.open_segment(moved)[4] == -1
    database = look_inside(state_dir)
    (body,) = database.execute("SELECT body FROM segment WHERE queue_id = ?", (OUTBOX,)).fetchone()
    place = (OUTBOX, 5_000, 5_000 + COUNT - 1, COUNT)
    database.execute(
        "INSERT INTO segment (queue_id, first_number, last_number, count, crc, body) VALUES (?,?,?,?,?,?)",
        (*place, segment_crc(*place, body), body),
    )
    database.close()
    async with opened(state_dir, NEW) as (store, _):
        page = await store.read_page(OUTBOX, 5_000, 1_000, 1 << 20)
        assert (page.messages, page.end) == ([], 5_000 + COUNT)
        assert store.corrupt_segments == 1


async def test_recovery_needs_no_key_and_asks_for_it_afterwards(state_dir: Path) -> None:
    await fill(state_dir, NEW)
    database = look_inside(state_dir)
    database.execute("DELETE FROM meta")
    database.close()
    with (state_dir / DATABASE_NAME).open("r+b") as file:
        file.write(bytes(PAGE_BYTES))
    with pytest.raises(MissingKey):
        async with opened(state_dir, None):
            pass
    await check_all(state_dir, NEW)
    assert verify(state_dir, vault=Vault(NEW)).sound


# ---- looking at it


async def test_looking_at_it_takes_the_key_where_messages_are_read(state_dir: Path) -> None:
    await fill(state_dir, NEW)
    with Inspection(state_dir) as inspection:
        status = read_status(inspection)
        assert status.keys == [Vault(NEW).key_id]
        (queue,) = [one for one in status.queues if one.name == "bridge:cloud"]
        assert (queue.depth, queue.oldest_at) == (COUNT, None)
    for vault in (Vault(), Vault(OTHER)):
        with pytest.raises(StoreError, match="encrypted"):
            verify(state_dir, vault=vault)
    with Inspection(state_dir, Vault(NEW)) as inspection:
        assert read_status(inspection).queues[0].oldest_at is not None
        gaps = Gaps()
        exported = list(export_queue(inspection, OUTBOX, gaps))
        assert [one.message.payload for one in exported] == [SECRET + b" %d" % n for n in range(1, COUNT + 1)]
        assert {one.message.topic for one in export_retained(inspection, gaps)} == {
            f"{TOPIC}/{n}" for n in range(20)
        }
        assert gaps.lines == []
    found = verify(state_dir, vault=Vault(NEW))
    assert found.sound
    assert found.messages == COUNT


# ---- the seam


@given(st.binary(min_size=1, max_size=300), st.integers(0, 10_000), st.integers(0, 7))
def test_any_bit_that_changes_is_noticed(payload: bytes, at: int, bit: int) -> None:
    vault = Vault(NEW)
    (row,) = vault.seal_segments(encode_segments(7, [(1, make_message(payload=payload))], TIMES))
    assert vault.open_segment(row) == encode_segments(7, [(1, make_message(payload=payload))], TIMES)[0]
    body = bytearray(row[5])
    body[11 + at % (len(body) - 11)] ^= 1 << bit
    changed = (*row[:4], segment_crc(*row[:4], bytes(body)), bytes(body))
    assert vault.open_segment(changed)[4] == -1


def test_without_encryption_its_library_is_not_loaded() -> None:
    script = (
        "import sys\nfrom edge_broker.store import Vault\nVault().seal_segments([])\n"
        "assert not [name for name in sys.modules if name.startswith('cryptography')]\n"
    )
    subprocess.run([sys.executable, "-c", script], check=True, timeout=60, env=os.environ)
