"""What encryption at rest costs: `python -m benchmarks.encryption` writes and reads a queue with and without a key.

Batches as the broker makes them under load, 64 messages of 200 bytes each, and as small as they get, one message alone.
Only the processor's time counts, and the bytes in bodies: how long a sync takes is the disk's, with a key and without. The
two take turns, and the best of five rounds counts.
"""

import asyncio
import secrets
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path

from edge_broker.core.message import Message, build_message
from edge_broker.core.ops import Batch, QueueWrite
from edge_broker.store import Store, Vault
from edge_broker.wire.topics import TopicCache

PAYLOAD_BYTES = 200
ROUNDS = 5
BATCHES = {64: 300, 1: 2_000}
"""So many batches of so many messages."""


@dataclass
class Cost:
    """Microseconds of the processor, and bytes in bodies, per message."""

    write_us: float
    read_us: float
    body_bytes: float


async def measure(directory: Path, vault: Vault, size: int, batches: int) -> Cost:
    """Write `batches` of `size` messages, and read them back."""
    message = build_message("plant/line/temperature", secrets.token_bytes(PAYLOAD_BYTES), qos=1)
    store, _ = await Store.open(directory, topics=TopicCache(), wall_offset=lambda: 0.0, vault=vault)
    await store.commit(Batch(outboxes=[(1, "cloud")]))
    started = time.process_time()
    for first in range(1, batches * size + 1, size):
        numbered: list[tuple[int, Message]] = [(first + n, message) for n in range(size)]
        await store.commit(Batch(queues=[QueueWrite(1, numbered, 1, [], [])]))
    written = time.process_time()
    number = 1
    while number <= batches * size:
        number = (await store.read_page(1, number, 1_000, 256 << 10)).end
    read = time.process_time()
    count = batches * size
    cost = Cost(
        (written - started) / count * 1e6, (read - written) / count * 1e6, store.segment_bytes_written / count
    )
    await store.close()
    return cost


async def main() -> None:
    key = secrets.token_bytes(32)
    for size, batches in BATCHES.items():
        best: dict[str, Cost] = {}
        for _ in range(ROUNDS):
            for name, vault in (("plain", Vault()), ("encrypted", Vault(key))):
                with tempfile.TemporaryDirectory() as directory:
                    cost = await measure(Path(directory, "data"), vault, size, batches)
                before = best.get(name, cost)
                best[name] = Cost(
                    min(cost.write_us, before.write_us), min(cost.read_us, before.read_us), cost.body_bytes
                )
        for name, cost in best.items():
            print(
                f"{size:2} in a batch, {name:9}: write {cost.write_us:6.2f} µs, read {cost.read_us:5.2f} µs,"
                f" {cost.body_bytes:.1f} bytes per message"
            )


if __name__ == "__main__":
    asyncio.run(main())
