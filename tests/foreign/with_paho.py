"""paho-mqtt on its own thread: every version, every transport."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Any

import paho.mqtt.client as paho
from paho.mqtt.enums import MQTTProtocolVersion

from tests.foreign.port import SESSION_EXPIRY_SECONDS, Connection, Endpoint, ForeignClient, Message, Wish
from tests.integration.foreign import Paho

PAHO_VERSIONS = {
    "3.1": MQTTProtocolVersion.MQTTv31,
    "3.1.1": MQTTProtocolVersion.MQTTv311,
    "5.0": MQTTProtocolVersion.MQTTv5,
}


class PahoConnection:
    """Everything that blocks runs on a thread of asyncio's."""

    def __init__(self, endpoint: Endpoint, wish: Wish, heard: Callable[[paho.MQTTMessage], None]) -> None:
        will = wish.will
        self._with_properties = endpoint.version == "5.0"
        self._paho = Paho(
            endpoint.port,
            wish.client_id,
            PAHO_VERSIONS[endpoint.version],
            expiry=SESSION_EXPIRY_SECONDS if wish.durable else 0,
            clean=not wish.durable,
            will=None if will is None else (will.topic, will.payload, will.qos, will.retain),
            tls=endpoint.context(),
            comes_back=False,
            transport="websockets" if endpoint.websocket else "tcp",
            heard=heard,
        )
        self._paho.connected()
        self.session_present: bool | None = self._paho.session_present
        for topic_filter in wish.filters:
            self._paho.subscribe(topic_filter, wish.qos)

    async def publish(self, message: Message) -> None:
        properties: dict[str, Any] = {}
        if self._with_properties and message.response_topic:
            properties["ResponseTopic"] = message.response_topic
        if self._with_properties and message.correlation:
            properties["CorrelationData"] = message.correlation
        plain = (message.topic, message.payload, message.qos, message.retain)
        await asyncio.to_thread(self._paho.publish, *plain, **properties)

    async def leave(self) -> None:
        await asyncio.to_thread(self._paho.leave)

    async def vanish(self) -> None:
        await asyncio.to_thread(self._paho.vanish)


class PahoClient(ForeignClient):
    name = "paho-mqtt"

    async def connect(self, wish: Wish, inbox: asyncio.Queue[Message]) -> Connection:
        loop = asyncio.get_running_loop()

        def heard(message: paho.MQTTMessage) -> None:
            loop.call_soon_threadsafe(inbox.put_nowait, received(message))

        return await asyncio.to_thread(PahoConnection, self.endpoint, wish, heard)


def received(message: Any) -> Message:
    """A message of paho's, or one like it, as the script knows it."""
    properties = message.properties
    return Message(
        str(message.topic),
        message.payload,
        message.qos,
        bool(message.retain),
        getattr(properties, "ResponseTopic", ""),
        getattr(properties, "CorrelationData", b""),
    )
