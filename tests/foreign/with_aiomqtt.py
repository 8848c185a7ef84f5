"""aiomqtt: paho-mqtt's packets on asyncio's own event loop."""

from __future__ import annotations

import asyncio
from contextlib import suppress
from typing import Any, ClassVar

import aiomqtt
from paho.mqtt.packettypes import PacketTypes
from paho.mqtt.properties import Properties

from tests.foreign.port import (
    HOST,
    SESSION_EXPIRY_SECONDS,
    SESSION_PRESENT,
    WAIT_SECONDS,
    WEBSOCKET_PATH,
    Connection,
    ForeignClient,
    Message,
    Wish,
    cut,
)
from tests.foreign.with_paho import received

_VERSIONS = {
    "3.1": aiomqtt.ProtocolVersion.V31,
    "3.1.1": aiomqtt.ProtocolVersion.V311,
    "5.0": aiomqtt.ProtocolVersion.V5,
}


class AiomqttConnection:
    """The client, and the task that empties its iterator of messages."""

    def __init__(self, client: aiomqtt.Client, inbox: asyncio.Queue[Message], with_properties: bool) -> None:
        self.session_present: bool | None = None
        self._client, self._inbox, self._with_properties = client, inbox, with_properties
        self._reading = asyncio.create_task(self._read())

    async def _read(self) -> None:
        async for message in self._client.messages:
            self._inbox.put_nowait(received(message))

    async def publish(self, message: Message) -> None:
        properties = Properties(PacketTypes.PUBLISH)
        if message.response_topic:
            properties.ResponseTopic = message.response_topic
        if message.correlation:
            properties.CorrelationData = message.correlation
        await self._client.publish(
            message.topic,
            message.payload,
            message.qos,
            message.retain,
            properties if self._with_properties else None,
        )

    async def leave(self) -> None:
        self._reading.cancel()
        await asyncio.wait({self._reading})
        await self._client.__aexit__(None, None, None)

    async def vanish(self) -> None:
        sock = self._client._client.socket()
        assert sock is not None
        cut(sock.fileno())
        with suppress(aiomqtt.MqttError):
            await self._reading
        await self._client.__aexit__(None, None, None)


class AiomqttClient(ForeignClient):
    name = "aiomqtt"
    left_out: ClassVar = {SESSION_PRESENT: "aiomqtt keeps the CONNACK's flags to itself"}

    async def connect(self, wish: Wish, inbox: asyncio.Queue[Message]) -> Connection:
        five, will = self.endpoint.version == "5.0", wish.will
        client = aiomqtt.Client(
            HOST,
            self.endpoint.port,
            identifier=wish.client_id,
            protocol=_VERSIONS[self.endpoint.version],
            will=None if will is None else aiomqtt.Will(will.topic, will.payload, will.qos, will.retain),
            transport="websockets" if self.endpoint.websocket else "tcp",
            websocket_path=WEBSOCKET_PATH if self.endpoint.websocket else None,
            tls_context=self.endpoint.context(),
            timeout=WAIT_SECONDS,
            **(_session_of_5(wish) if five else {"clean_session": not wish.durable}),
        )
        await client.__aenter__()
        connection = AiomqttConnection(client, inbox, five)
        if wish.filters:
            granted = await client.subscribe([(topic_filter, wish.qos) for topic_filter in wish.filters])
            assert [getattr(code, "value", code) for code in granted] == [wish.qos] * len(wish.filters)
        return connection


def _session_of_5(wish: Wish) -> dict[str, Any]:
    properties = Properties(PacketTypes.CONNECT)
    properties.SessionExpiryInterval = SESSION_EXPIRY_SECONDS if wish.durable else 0
    return {"clean_start": not wish.durable, "properties": properties}
