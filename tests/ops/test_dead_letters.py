"""Dead letters of a running broker: given to their recipients again, or thrown away."""

from __future__ import annotations

from pathlib import Path

from edge_broker.broker import Broker
from edge_broker.config.dead_letters import DeadLettersConfig
from edge_broker.core.message import build_message
from edge_broker.core.queue import Queue
from edge_broker.core.session import Session, Subscription
from edge_broker.ops.dead_letters import Outcome, drop, retry
from tests.ops.gateway import gateway, until

ENABLED = DeadLettersConfig(enabled=True)


def subscriber(broker: Broker) -> Session:
    """A durable session whose client is away."""
    router = broker.router
    queue = Queue(router.new_queue_id(), router.pending)
    session = Session(router, "display", "anonymous", 3600, queue)
    router.enter(session)
    router.pending.save_session(session.record())
    router.subscribe(session, Subscription(session, "t/#", 1))
    return session


async def bury(broker: Broker, session: Session, count: int) -> Queue:
    """So many messages for `session` die; returns their queue, which is on disk."""
    dead = broker.router.dead_letters
    assert dead is not None
    assert session.queue.burials is not None
    for number in range(1, count + 1):
        session.queue.burials.bury(build_message("t/1", b"%d" % number, qos=1), "queue_full")
    broker.request_tick()
    queue = dead.queue
    assert queue is not None
    await until(lambda: queue.committed == queue.next_number, "the dead letters are not on disk")
    assert not queue.messages, "in the store only"
    return queue


async def payloads(broker: Broker, queue: Queue) -> list[bytes]:
    await until(lambda: broker.router.pending.empty and queue.committed == queue.next_number, "no commit")
    page = await broker.store.read_page(queue.queue_id, queue.head, 1000, 1 << 20)
    return [message.payload for _, message in page.messages]


async def test_all_again(tmp_path: Path) -> None:
    async with gateway(tmp_path, dead_letters=ENABLED) as broker:
        session = subscriber(broker)
        queue = await bury(broker, session, 1_200)
        outcome = await retry(broker, None)
        assert (outcome.done, outcome.failed) == (1_200, {})
        assert await payloads(broker, session.queue) == [b"%d" % number for number in range(1, 1_201)]
        assert queue.depth == 0


async def test_some_again_and_some_not_there(tmp_path: Path) -> None:
    async with gateway(tmp_path, dead_letters=ENABLED) as broker:
        session = subscriber(broker)
        queue = await bury(broker, session, 5)
        assert await retry(broker, [4, 2, 9]) == Outcome(2, {9: "it is not there"})
        assert await payloads(broker, session.queue) == [b"2", b"4"]
        assert queue.depth == 3


async def test_to_nobody(tmp_path: Path) -> None:
    async with gateway(tmp_path, dead_letters=ENABLED) as broker:
        session = subscriber(broker)
        queue = await bury(broker, session, 2)
        broker.router.end_session(session)
        outcome = await retry(broker, None)
        assert outcome == Outcome(0, dict.fromkeys((1, 2), "session:display is not there any more"))
        assert queue.depth == 2


async def test_thrown_away(tmp_path: Path) -> None:
    async with gateway(tmp_path, dead_letters=ENABLED) as broker:
        session = subscriber(broker)
        queue = await bury(broker, session, 5)
        assert await drop(broker, [1, 3, 3, 77]) == Outcome(2, {77: "it is not there"})
        assert await payloads(broker, queue) != []
        assert await drop(broker, None) == Outcome(3)
        assert await payloads(broker, queue) == []
        assert (queue.depth, queue.dropped, session.queue.depth) == (0, 0, 0)


async def test_where_none_are_kept(tmp_path: Path) -> None:
    async with gateway(tmp_path) as broker:
        outcome = await retry(broker, [1])
        assert outcome.failed == {1: "no dead letters are kept ([dead_letters] enabled is false)"}
        assert await drop(broker, None) == Outcome()
    async with gateway(tmp_path, dead_letters=ENABLED) as broker:
        assert await drop(broker, [1]) == Outcome(0, {1: "it is not there"})
