"""amqtt's client (MQTT 3.1.1 only) against the broker as it is run."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from uuid import uuid4

import pytest
from amqtt.client import MQTTClient

from tests.integration.broker_process import BrokerProcess

WAIT_SECONDS = 20.0


@pytest.fixture(autouse=True)
def _quiet() -> None:
    logging.getLogger("amqtt").setLevel(logging.ERROR)
    logging.getLogger("transitions").setLevel(logging.ERROR)


@asynccontextmanager
async def connected(
    broker: BrokerProcess, client_id: str = "", *, clean: bool = True, **config: object
) -> AsyncIterator[MQTTClient]:
    """A client that leaves in due form."""
    client = MQTTClient(client_id or uuid4().hex, config={"auto_reconnect": False, **config})
    await client.connect(f"mqtt://127.0.0.1:{broker.port}", cleansession=clean)
    try:
        yield client
    finally:
        await client.disconnect()


async def receive(client: MQTTClient) -> tuple[str, bytes, int]:
    """Topic, payload and QoS of the next message."""
    message = await client.deliver_message(timeout_duration=WAIT_SECONDS)
    assert message is not None
    assert message.publish_packet is not None
    return message.topic, bytes(message.data), message.qos


@pytest.mark.parametrize("qos", [0, 1, 2])
async def test_every_qos(broker: BrokerProcess, qos: int) -> None:
    topic = f"q/{uuid4().hex}"
    async with connected(broker) as subscriber, connected(broker) as publisher:
        assert await subscriber.subscribe([(f"{topic}/#", qos)]) == [qos]
        for number in range(20):
            await publisher.publish(f"{topic}/{number}", b"%d" % number, qos)
        for number in range(20):
            assert await receive(subscriber) == (f"{topic}/{number}", b"%d" % number, qos)


async def test_retained(broker: BrokerProcess) -> None:
    topic = f"q/{uuid4().hex}"
    async with connected(broker) as client:
        await client.publish(topic, b"state", 1, retain=True)
        await client.subscribe([(topic, 1)])
        assert await receive(client) == (topic, b"state", 1)
        await client.publish(topic, b"", 1, retain=True)


async def test_a_session_is_kept(broker: BrokerProcess) -> None:
    topic, client_id = f"q/{uuid4().hex}", uuid4().hex
    async with connected(broker, client_id, clean=False) as client:
        await client.subscribe([(topic, 1)])
    async with connected(broker) as publisher:
        for number in range(20):
            await publisher.publish(topic, b"%d" % number, 1)
    async with connected(broker, client_id, clean=False) as client:
        for number in range(20):
            assert await receive(client) == (topic, b"%d" % number, 1)


async def test_a_will(broker: BrokerProcess) -> None:
    topic = f"q/{uuid4().hex}"
    will = {"will": {"topic": topic, "message": "gone", "qos": 1, "retain": False}}
    async with connected(broker) as watcher:
        await watcher.subscribe([(topic, 1)])
        client = MQTTClient(uuid4().hex, config={"auto_reconnect": False, **will})
        await client.connect(f"mqtt://127.0.0.1:{broker.port}")
        assert client._handler is not None
        assert client._handler.writer is not None
        await client._handler.writer.close()
        assert await receive(watcher) == (topic, b"gone", 1)
        await asyncio.gather(client.cancel_tasks(), return_exceptions=True)
