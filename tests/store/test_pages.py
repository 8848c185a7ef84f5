"""Reading in pages skips nothing, repeats nothing, and stays within its limits."""

from __future__ import annotations

import asyncio
import tempfile
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from edge_broker.core.ops import Batch
from edge_broker.store import Store
from tests.store.sample import look_inside, make_message, numbered, opened, queue_batch, read_all


async def fill(store: Store, *sizes: int, queue_id: int = 1) -> int:
    """One segment of each size, in messages; returns the number after the last."""
    number = 1
    for size in sizes:
        await store.commit(queue_batch(queue_id, numbered(number, size)))
        number += size
    return number


async def test_an_empty_queue_gives_an_empty_page(state_dir: Path) -> None:
    async with opened(state_dir) as (store, _):
        page = await store.read_page(1, 17, 10, 1000)
        assert (page.queue_id, page.messages, page.end) == (1, [], 17)
        await fill(store, 5)
        for number in (6, 10):
            page = await store.read_page(1, number, 10, 1000)
            assert (page.messages, page.end) == ([], number)


async def test_a_page_may_begin_inside_a_segment(state_dir: Path) -> None:
    async with opened(state_dir) as (store, _):
        await fill(store, 10, 10)
        page = await store.read_page(1, 4, 7, 1 << 20)
        assert ([n for n, _ in page.messages], page.end) == ([4, 5, 6, 7, 8, 9, 10], 11)
        page = await store.read_page(1, 10, 100, 1 << 20)
        assert ([n for n, _ in page.messages], page.end) == (list(range(10, 21)), 21)


async def test_small_segments_share_a_page_up_to_its_messages(state_dir: Path) -> None:
    async with opened(state_dir) as (store, _):
        await fill(store, *[3] * 20)
        page = await store.read_page(1, 1, 10, 1 << 20)
        assert page.end == 13
        assert len(page.messages) == 12


async def test_small_segments_share_a_page_up_to_its_bytes(state_dir: Path) -> None:
    async with opened(state_dir) as (store, _):
        for n in range(1, 11):
            await store.commit(queue_batch(1, [(n, make_message(payload=bytes(1000)))]))
        page = await store.read_page(1, 1, 100, 5000)
        assert page.end == 5
        page = await store.read_page(1, 1, 100, 10)  # one at least, whatever its size
        assert page.end == 2


async def test_a_message_larger_than_a_page_is_a_page(state_dir: Path) -> None:
    async with opened(state_dir) as (store, _):
        messages = [(n, make_message(payload=bytes(600_000))) for n in range(1, 4)]
        await store.commit(queue_batch(1, messages))
        pages = [await store.read_page(1, n, 100, 256 << 10) for n in (1, 2, 3)]
        assert [(page.end, len(page.messages)) for page in pages] == [(2, 1), (3, 1), (4, 1)]


async def test_queues_do_not_mix(state_dir: Path) -> None:
    async with opened(state_dir) as (store, _):
        for queue_id in (3, 1, 2):
            await fill(store, 5, 5, queue_id=queue_id)
        for queue_id in (1, 2, 3):
            assert [n for n, _ in await read_all(store, queue_id)] == list(range(1, 11))
        assert (await store.read_page(1, 11, 10, 1000)).messages == []


async def test_numbers_that_were_never_written_are_passed_over(state_dir: Path) -> None:
    async with opened(state_dir) as (store, _):
        await store.commit(queue_batch(1, [(n, make_message()) for n in (2, 5)]))
        await store.commit(queue_batch(1, [(n, make_message()) for n in (9, 12)]))
        page = await store.read_page(1, 1, 1, 1000)
        assert ([n for n, _ in page.messages], page.end) == ([2, 5], 6)
        page = await store.read_page(1, 6, 1, 1000)
        assert ([n for n, _ in page.messages], page.end) == ([9, 12], 13)
        assert [n for n, _ in (await store.read_page(1, 10, 9, 1000)).messages] == [12]


@settings(max_examples=15, deadline=None)
@given(
    st.lists(st.lists(st.integers(1, 400), min_size=1, max_size=8), min_size=1, max_size=12),
    st.integers(1, 20),
    st.integers(1, 3000),
    st.data(),
)
def test_pages_from_anywhere_give_each_number_once(
    commits: list[list[int]], max_messages: int, max_bytes: int, data: st.DataObject
) -> None:
    number = 0
    numbers = [[number := number + step for step in steps] for steps in commits]
    start = data.draw(st.integers(1, number + 2))

    async def check(directory: Path) -> list[int]:
        seen: list[int] = []
        async with opened(directory) as (store, _):
            for commit in numbers:
                await store.commit(queue_batch(1, [(n, make_message()) for n in commit]))
            at = start
            while True:
                page = await store.read_page(1, at, max_messages, max_bytes)
                assert all(at <= n < page.end for n, _ in page.messages)
                seen += [n for n, _ in page.messages]
                if page.end == at:
                    return seen
                at = page.end

    with tempfile.TemporaryDirectory() as directory:
        seen = asyncio.run(check(Path(directory)))
    assert seen == [n for commit in numbers for n in commit if n >= start]


async def test_a_damaged_segment_is_passed_over_counted_and_put_aside(
    state_dir: Path, caplog: pytest.LogCaptureFixture
) -> None:
    async with opened(state_dir) as (store, _):
        await store.commit(Batch(outboxes=[(1, "up")]))
        await fill(store, 5, 5, 5)
        database = look_inside(state_dir)
        database.execute("UPDATE segment SET body = zeroblob(length(body)) WHERE first_number = 6")
        for _ in range(2):  # counted once, however often it is met
            page = await store.read_page(1, 1, 100, 1 << 20)
            assert ([n for n, _ in page.messages], page.end) == ([*range(1, 6), *range(11, 16)], 16)
        assert store.corrupt_segments == 1
        assert "queue 1: messages 6 to 10 are damaged and lost" in caplog.text
        await store.commit(queue_batch(1, numbered(16, 1)))
        assert database.execute("SELECT first_number, last_number, count FROM damaged").fetchall() == [
            (6, 10, 5)
        ]
        await store.commit(queue_batch(1, numbered(17, 1)))
        assert database.execute("SELECT count(*) FROM damaged").fetchone() == (1,)
        assert database.execute("SELECT count FROM segment WHERE first_number = 6").fetchone() == (0,)
        database.close()
    async with opened(state_dir) as (store, snapshot):
        assert snapshot.queues[1].next_number == 18
        assert [n for n, _ in await read_all(store, 1)] == [*range(1, 6), *range(11, 18)]
        assert store.corrupt_segments == 0


async def test_numbers_of_a_damaged_last_segment_are_not_given_out_again(state_dir: Path) -> None:
    async with opened(state_dir) as (store, _):
        await store.commit(Batch(outboxes=[(1, "up")]))
        await fill(store, 5, 5)
        database = look_inside(state_dir)
        database.execute("UPDATE segment SET body = x'00' WHERE first_number = 6")
        database.close()
        assert (await store.read_page(1, 6, 100, 1 << 20)).end == 11
        await store.commit(queue_batch(2, numbered(1, 1)))
    async with opened(state_dir) as (_, snapshot):
        assert snapshot.queues[1].next_number == 11
