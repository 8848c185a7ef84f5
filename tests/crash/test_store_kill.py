"""`kill -9` at any instant: every batch whose commit was reported is there afterwards, whole, and none in part."""

from __future__ import annotations

import subprocess
import sys
import time
from pathlib import Path

import pytest

from tests.store.sample import look_inside, opened, read_all

# Commits batches to two queues, a session's and an outbox's, and tells the number of each after its commit.
WRITER = """
import asyncio, sys
from pathlib import Path
from edge_broker.core.ops import Batch, QueueWrite, SessionRecord
from tests.store.sample import make_message, numbered, opened

async def main(directory, start, size):
    async with opened(directory) as (store, snapshot):
        if not snapshot.outboxes:
            await store.commit(Batch(outboxes=[(1, "up")], sessions=[SessionRecord(2, "c", "", 3600, None)]))
        batch = start
        while True:
            first = batch * size + 1
            head = max(1, first - 20 * size)
            await store.commit(Batch(
                queues=[QueueWrite(q, numbered(first, size, size=300), head, [], []) for q in (1, 2)],
                retained={"last": make_message("last", b"%d" % batch, retain=True)},
                inbound={(2, 1 + batch % 100): True, (2, 1 + (batch - 50) % 100): False},
            ))
            sys.stdout.write("%d\\n" % batch)
            sys.stdout.flush()
            batch += 1

asyncio.run(main(Path(sys.argv[1]), int(sys.argv[2]), int(sys.argv[3])))
"""


def run_and_kill(directory: Path, start: int, size: int, seconds: float) -> int:
    """Let the writer run, kill it; the number of the last batch that it reported."""
    child = subprocess.Popen(
        [sys.executable, "-c", WRITER, str(directory), str(start), str(size)],
        stdout=subprocess.PIPE,
        text=True,
    )
    assert child.stdout is not None
    first = child.stdout.readline()
    assert first, "the writer did not start"
    time.sleep(seconds)
    child.kill()
    rest = child.stdout.read()
    child.stdout.close()
    child.wait()
    return int((first + rest).split("\n")[-2])  # a line that was cut has no end


@pytest.mark.parametrize("size", [1, 40])
async def test_everything_reported_is_there_and_nothing_in_part(state_dir: Path, size: int) -> None:
    start = 0
    for round_number in range(6):
        reported = run_and_kill(state_dir, start, size, 0.03 + 0.05 * round_number)
        async with opened(state_dir) as (store, snapshot):
            assert store.recovery is None
            queues = [snapshot.queues[queue_id] for queue_id in (1, 2)]
            last = int(snapshot.retained[0].payload)
            # the one commit that was on its way may have made it, and then all of it
            assert last in (reported, reported + 1)
            for queue in queues:
                assert queue.next_number == (last + 1) * size + 1
                assert queue.head == max(1, (last - 20) * size + 1)
                messages = await read_all(store, queue.queue_id, queue.head)
                assert [number for number, _ in messages] == list(range(queue.head, queue.next_number))
                assert all(message.payload.startswith(b"%d " % number) for number, message in messages)
            assert (2, 1 + last % 100) in snapshot.inbound
        start = last + 1
    database = look_inside(state_dir)
    assert database.execute("PRAGMA integrity_check").fetchall() == [("ok",)]
    database.close()
