"""A real broker with more retained messages than it may keep in memory: they come from the disk, nobody waits for it."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import paho.mqtt.client as paho
import pytest

from edge_broker.broker import Broker
from edge_broker.config.limits import LimitsConfig
from edge_broker.core.message import Message
from edge_broker.core.retained import Stub
from edge_broker.errors import StoreError
from edge_broker.store import reading_trouble as trouble_module
from tests.bridge.real import Person
from tests.integration.foreign import V5, Paho
from tests.ops.gateway import bridge_to, gateway, until

MESSAGES = 300
MESSAGE_BYTES = 20_000
LIMITS = LimitsConfig(retained_memory_bytes=1_000_000)
TOPICS = {f"up/{number}" for number in range(MESSAGES)}


def port_of(broker: Broker) -> int:
    return int(broker.listening[0].rsplit(":", 1)[1])


def payload_of(topic: str) -> bytes:
    number = int(topic.rsplit("/", 1)[1])
    return b"%d " % number + bytes((number % 256,)) * MESSAGE_BYTES


async def fill(broker: Broker) -> None:
    """Every topic has its retained message, on disk."""
    publisher = await asyncio.to_thread(lambda: Paho(port_of(broker)).connected())
    for topic in sorted(TOPICS):
        publisher.client.publish(topic, payload_of(topic), 1, retain=True)
    await until(lambda: len(publisher.acknowledged) == MESSAGES, "not all were acknowledged")
    await asyncio.to_thread(publisher.leave)


def check_memory(broker: Broker) -> None:
    """All are retained, and no more of them are in the tree than the budget has room for."""
    router = broker.router
    entries = router.retained.match("up/#")
    in_memory = [entry for entry in entries if isinstance(entry, Message)]
    assert len(entries) == router.retained_messages == MESSAGES
    assert router.retained_bytes > MESSAGES * MESSAGE_BYTES
    assert 40 < len(in_memory) < 50
    assert sum(len(message.frame) for message in in_memory) < router.retained.memory_bytes <= 1_000_000
    assert router.retained.on_disk_only == MESSAGES - len(in_memory)


async def read_all(broker: Broker, topic_filter: str, qos: int, version: Any = V5) -> None:
    """A new subscriber gets every one, as it was published."""
    reader = await asyncio.to_thread(lambda: Paho(port_of(broker), version=version).connected())
    await asyncio.to_thread(reader.subscribe, topic_filter, qos)
    await until(lambda: len(reader.messages) >= MESSAGES, f"only {len(reader.messages)} came")
    assert {message.topic for message in reader.messages} == TOPICS
    assert len(reader.messages) == MESSAGES
    for message in reader.messages:
        assert message.payload == payload_of(message.topic)
        assert (message.retain, message.qos) == (True, qos)
    await asyncio.to_thread(reader.leave)


async def test_they_come_from_the_disk_also_after_a_restart(state_dir: Path) -> None:
    async with gateway(state_dir, limits=LIMITS, sys_interval_seconds=0) as broker:
        await fill(broker)
        check_memory(broker)
        await read_all(broker, "#", 0)
        await read_all(broker, "up/+", 1, paho.MQTTv311)
        check_memory(broker)
    async with gateway(state_dir, limits=LIMITS, sys_interval_seconds=0) as broker:
        check_memory(broker)
        await read_all(broker, "#", 1)
        assert not any(broker.router.counters.dropped.values())
        assert broker.read_errors == 0


async def test_the_others_go_on_while_the_disk_is_slow(
    state_dir: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with gateway(state_dir, limits=LIMITS) as broker:
        await fill(broker)
        works, asked, go_on = broker.store.read_retained, asyncio.Event(), asyncio.Event()

        async def slow(topics: Sequence[str]) -> dict[str, Message]:
            asked.set()
            await go_on.wait()
            return await works(topics)

        monkeypatch.setattr(broker.store, "read_retained", slow)
        reader = await Person("reader").connect(broker.listening[0])
        await reader.subscribe("up/#")
        await asyncio.wait_for(asked.wait(), 10)
        other = await asyncio.to_thread(lambda: Paho(port_of(broker)).connected())
        await asyncio.to_thread(other.subscribe, "live", 1)
        await asyncio.to_thread(other.publish, "live", b"1", 1)
        await until(lambda: other.payloads == [b"1"], "the other one waits for the disk")
        topic = next(e.topic for e in broker.router.retained.match("up/#") if isinstance(e, Stub))
        await asyncio.to_thread(other.publish, topic, b"new", 1, True)
        go_on.set()
        await until(lambda: len(reader.messages) >= MESSAGES, "not all came")
        assert sorted(message.topic for message in reader.messages) == sorted(TOPICS)
        by_topic = {message.topic: message.payload for message in reader.messages}
        assert by_topic == {topic: payload_of(topic) for topic in TOPICS} | {topic: b"new"}
        await asyncio.to_thread(other.leave)
        reader.leave()


async def test_a_disk_that_fails_is_tried_again_and_counted(
    state_dir: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(trouble_module, "_FIRST_RETRY_SECONDS", 0.01)
    async with gateway(state_dir, limits=LIMITS) as broker:
        await fill(broker)
        works = broker.store.read_retained
        failures = 3

        async def fail(topics: Sequence[str]) -> dict[str, Message]:
            nonlocal failures
            failures -= 1
            if failures >= 0:
                raise StoreError("read", "the card is gone")
            return await works(topics)

        monkeypatch.setattr(broker.store, "read_retained", fail)
        await read_all(broker, "up/#", 1)
        assert broker.read_errors == 3


async def test_the_client_leaves_while_its_page_is_read(
    state_dir: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with gateway(state_dir, limits=LIMITS) as broker:
        await fill(broker)
        works, asked, go_on = broker.store.read_retained, asyncio.Event(), asyncio.Event()

        async def slow(topics: Sequence[str]) -> dict[str, Message]:
            asked.set()
            await go_on.wait()
            return await works(topics)

        with monkeypatch.context() as patch:
            patch.setattr(broker.store, "read_retained", slow)
            reader = await Person("reader").connect(broker.listening[0])
            await reader.subscribe("up/#")
            await asyncio.wait_for(asked.wait(), 10)
            reader.leave()
            await until(lambda: not broker.connections, "it is still connected")
            go_on.set()
            await until(lambda: not broker.reading.under_way, "the read is never over")
        await read_all(broker, "up/#", 0)


async def test_a_new_bridge_takes_them_all(state_dir: Path) -> None:
    async with gateway(state_dir, limits=LIMITS) as broker:
        await fill(broker)
    async with gateway(state_dir, [bridge_to("mqtt://127.0.0.1:1")], limits=LIMITS) as broker:
        check_memory(broker)
        assert broker.bridges[0].queue.depth == MESSAGES
        queue = broker.bridges[0].queue
        await until(lambda: queue.committed > MESSAGES, "not committed")
        page = await broker.store.read_page(queue.queue_id, 1, 2 * MESSAGES, 64 << 20)
        assert {message.topic: message.payload for _, message in page.messages} == {
            topic: payload_of(topic) for topic in TOPICS
        }
