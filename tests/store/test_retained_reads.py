"""Retained messages read back by topic: as they were kept, committed ones only, whatever is damaged beside them."""

from __future__ import annotations

import sqlite3
from pathlib import Path

import pytest

from edge_broker.core.ops import Batch
from edge_broker.errors import StoreError
from edge_broker.store import Store
from tests.store.sample import essence, look_inside, make_message, opened
from tests.store.test_recovery import pages_of, wipe


async def fill(store: Store, messages: int = 30, size: int = 20) -> None:
    """Retained messages `r/0` and so on."""
    kept = {
        f"r/{n}": make_message(f"r/{n}", b"%d " % n + bytes(size), retain=True, expires_at=500.0 + n)
        for n in range(messages)
    }
    await store.commit(Batch(retained=dict(kept)))


async def test_as_they_were_kept(state_dir: Path) -> None:
    async with opened(state_dir) as (store, _):
        await fill(store)
        found = await store.read_retained(["r/3", "r/17", "r/999"])
        assert sorted(found) == ["r/17", "r/3"]
        expected = make_message("r/3", b"3 " + bytes(20), retain=True, expires_at=503.0)
        assert essence(found["r/3"]) == essence(expected)
        assert await store.read_retained([f"x/{n}" for n in range(300)]) == {}


async def test_replaced_and_removed(state_dir: Path) -> None:
    async with opened(state_dir) as (store, _):
        await fill(store)
        new = make_message("r/1", b"new", retain=True)
        await store.commit(Batch(retained={"r/0": None, "r/1": new}))
        found = await store.read_retained(["r/0", "r/1"])
        assert {topic: message.payload for topic, message in found.items()} == {"r/1": b"new"}


async def test_a_damaged_row_is_left_out_and_named(state_dir: Path, caplog: pytest.LogCaptureFixture) -> None:
    async with opened(state_dir) as (store, _):
        await fill(store)
        database = look_inside(state_dir)
        database.execute("UPDATE retained SET body = zeroblob(length(body)) WHERE topic = 'r/7'")
        database.execute("UPDATE retained SET body = 7 WHERE topic = 'r/8'")
        database.close()
        assert sorted(await store.read_retained(["r/6", "r/7", "r/8"])) == ["r/6"]
        for topic in ("r/7", "r/8"):
            assert f"the retained message of '{topic}' is damaged and lost" in caplog.text
        assert store.recovery is None


async def test_damage_in_the_structure_leads_to_recovery(state_dir: Path) -> None:
    async with opened(state_dir) as (store, _):
        await fill(store, 200, 1000)
        database = look_inside(state_dir)
        database.execute("PRAGMA wal_checkpoint(TRUNCATE)")
        database.close()
        pages = pages_of(state_dir, "retained")
        assert len(pages) > 10
        wipe(state_dir, pages[5:6])
        await store._reading.release(lambda: None)
        topics = [f"r/{n}" for n in range(200)]
        found = await store.read_retained(topics)
        assert store.recovery is not None
        assert 100 < len(found) < 200
        assert sorted(await store.read_retained(topics)) == sorted(found)


async def test_what_cannot_be_read_is_an_error_of_the_store(
    state_dir: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with opened(state_dir) as (store, _):
        await fill(store)

        def broken(*_: object, **__: object) -> None:
            raise sqlite3.OperationalError("disk I/O error")

        with monkeypatch.context() as patch:
            patch.setattr("edge_broker.store.store.read_retained", broken)
            with pytest.raises(StoreError, match="disk I/O error"):
                await store.read_retained(["r/1"])
        assert list(await store.read_retained(["r/1"])) == ["r/1"]
