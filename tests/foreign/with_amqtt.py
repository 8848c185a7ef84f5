"""amqtt's client: MQTT 3.1.1 only, over every transport."""

from __future__ import annotations

import asyncio
import logging
from contextlib import suppress
from typing import Any, ClassVar

from amqtt.client import MQTTClient

from tests.foreign.port import SESSION_PRESENT, Connection, ForeignClient, Message, Wish


class AmqttConnection:
    """The client, and the task that takes message after message from it."""

    def __init__(self, client: MQTTClient, inbox: asyncio.Queue[Message]) -> None:
        self.session_present: bool | None = None
        self._client, self._inbox = client, inbox
        self._reading = asyncio.create_task(self._read())

    async def _read(self) -> None:
        while (
            message := await self._client.deliver_message()
        ) is not None:  # None at the end of the connection
            assert message.qos is not None
            self._inbox.put_nowait(Message(message.topic, bytes(message.data), message.qos, message.retain))

    async def publish(self, message: Message) -> None:
        await self._client.publish(message.topic, message.payload, message.qos, message.retain)

    async def leave(self) -> None:
        await self._client.disconnect()
        await self._end()

    async def vanish(self) -> None:
        assert self._client._handler is not None
        writer: Any = self._client._handler.writer
        stream = writer._protocol if hasattr(writer, "_protocol") else writer._writer  # WebSocket or plain
        stream.transport.abort()
        await self._end()

    async def _end(self) -> None:
        await self._client.cancel_tasks()
        for task in (self._reading, self._client._disconnect_task):
            if task is not None:
                task.cancel()
                with suppress(asyncio.CancelledError):
                    await task
        assert self._client._handler is not None
        await self._client._handler.stop()


class AmqttClient(ForeignClient):
    name = "amqtt"
    left_out: ClassVar = {
        "3.1": "amqtt's client has no MQTT 3.1",
        "5.0": "amqtt's client has no MQTT 5.0",
        SESSION_PRESENT: "amqtt's client keeps the CONNACK's flags to itself",
    }

    async def connect(self, wish: Wish, inbox: asyncio.Queue[Message]) -> Connection:
        for name in ("amqtt", "transitions"):
            logging.getLogger(name).setLevel(logging.ERROR)
        config: dict[str, Any] = {"auto_reconnect": False}
        if wish.will is not None:
            will = wish.will
            config["will"] = {
                "topic": will.topic,
                "message": will.payload.decode(),
                "qos": will.qos,
                "retain": will.retain,
            }
        client = MQTTClient(wish.client_id, config=config)
        trust = str(self.endpoint.ca) if self.endpoint.secure else None
        await client.connect(self.endpoint.url("mqtt", "mqtts"), cleansession=not wish.durable, cafile=trust)
        connection = AmqttConnection(client, inbox)
        if wish.filters:
            granted = await client.subscribe([(topic_filter, wish.qos) for topic_filter in wish.filters])
            assert granted == [wish.qos] * len(wish.filters)
        return connection
