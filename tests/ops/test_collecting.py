"""What is logged about one piece of work goes to whoever asked for it, and nothing of what others log meanwhile."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Iterator

import pytest

from edge_broker.ops.collecting import collected
from edge_broker.ops.logging import configure_logging


@pytest.fixture
def restored_logging() -> Iterator[None]:
    """Handlers and levels as they were."""
    loggers = [logging.getLogger(name) for name in ("", "edge_broker", "bridge", "edge_broker.x")]
    before = [(logger, logger.handlers[:], logger.level) for logger in loggers]
    yield
    for logger, handlers, level in before:
        logger.handlers[:] = handlers
        logger.setLevel(level)


@pytest.mark.usefixtures("restored_logging")
async def test_what_the_block_logs_is_collected_and_nothing_else() -> None:
    ours, bridges = logging.getLogger("edge_broker.x"), logging.getLogger("bridge")
    ours.setLevel(logging.INFO)
    other_may, other_did = asyncio.Event(), asyncio.Event()

    async def other() -> None:
        await other_may.wait()
        ours.warning("of another task")
        other_did.set()

    task = asyncio.create_task(other())
    with collected() as lines:
        ours.info("one %d", 1)
        await asyncio.to_thread(ours.error, "in a thread")
        other_may.set()
        await other_did.wait()
        configure_logging("info", "text")  # as a reload does
        bridges.warning("two")
    ours.warning("afterwards")
    assert lines == [
        {"level": "info", "message": "one 1"},
        {"level": "error", "message": "in a thread"},
        {"level": "warning", "message": "two"},
    ]
    await task
