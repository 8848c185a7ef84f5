"""gmqtt: asyncio, with packets of its own making; TCP and TLS, 3.1.1 and 5.0."""

from __future__ import annotations

import asyncio
import ssl
from typing import Any, ClassVar

import gmqtt
from gmqtt.mqtt.constants import MQTTv50, MQTTv311
from gmqtt.storage import PersistentStorage

from tests.foreign.port import HOST, SESSION_EXPIRY_SECONDS, Connection, ForeignClient, Message, Wish

_VERSIONS = {"3.1.1": MQTTv311, "5.0": MQTTv50}
_NO_WEBSOCKET = "gmqtt speaks over TCP and TLS only"


class GmqttConnection:
    """gmqtt acknowledges through callbacks; its store of unacknowledged messages tells when one is done."""

    def __init__(self, wish: Wish, inbox: asyncio.Queue[Message], version: str) -> None:
        five, will = version == "5.0", wish.will
        session = {"session_expiry_interval": SESSION_EXPIRY_SECONDS if wish.durable else 0} if five else {}
        self.session_present: bool | None = None
        self._with_properties, self._version, self._inbox = five, _VERSIONS[version], inbox
        self._unacknowledged = PersistentStorage()
        self._granted: asyncio.Queue[list[int]] = asyncio.Queue()
        self._client = gmqtt.Client(
            wish.client_id,
            clean_session=not wish.durable,
            will_message=None
            if will is None
            else gmqtt.Message(will.topic, will.payload, will.qos, will.retain),
            persistent_storage=self._unacknowledged,
            **session,
        )
        self._client.set_config({"reconnect_retries": 0, "reconnect_delay": 0})
        self._client.on_connect = self._on_connect
        self._client.on_message = self._on_message
        self._client.on_subscribe = lambda _client, _mid, codes, _properties: self._granted.put_nowait(
            list(codes)
        )

    async def open(self, port: int, context: Any, wish: Wish) -> None:
        await self._client.connect(HOST, port, ssl=context or False, version=self._version)
        if wish.filters:
            self._client.subscribe([gmqtt.Subscription(each, qos=wish.qos) for each in wish.filters])
            assert await self._granted.get() == [wish.qos] * len(wish.filters)

    def _on_connect(self, _client: Any, flags: int, _code: int, _properties: Any) -> None:
        self.session_present = bool(flags & 1)

    def _on_message(
        self, _client: Any, topic: str, payload: bytes, qos: int, properties: dict[str, Any]
    ) -> int:
        (response_topic,) = properties.get("response_topic", [""])
        (correlation,) = properties.get("correlation_data", [b""])
        retain = bool(properties["retain"])
        self._inbox.put_nowait(Message(topic, payload, qos, retain, response_topic, correlation))
        return 0

    async def publish(self, message: Message) -> None:
        properties: dict[str, Any] = {}
        if self._with_properties and message.response_topic:
            properties["response_topic"] = message.response_topic
        if self._with_properties and message.correlation:
            properties["correlation_data"] = message.correlation
        self._client.publish(message.topic, message.payload, message.qos, message.retain, **properties)
        await self._unacknowledged.wait_empty()

    async def leave(self) -> None:
        try:
            await self._client.disconnect()
        except ssl.SSLError as error:
            # The broker's last packets crossed with our end of TLS, which asyncio reports; DISCONNECT had left before.
            if error.reason != "APPLICATION_DATA_AFTER_CLOSE_NOTIFY":
                raise

    async def vanish(self) -> None:
        self._client._is_active = False  # it would connect again otherwise, whatever its retries
        protocol = self._client._connection._protocol
        self._client._connection._transport.abort()
        await asyncio.wait({protocol.closed})


class GmqttClient(ForeignClient):
    name = "gmqtt"
    left_out: ClassVar = {
        "3.1": "gmqtt has no MQTT 3.1",
        "ws": _NO_WEBSOCKET,
        "wss": _NO_WEBSOCKET,
    }

    async def connect(self, wish: Wish, inbox: asyncio.Queue[Message]) -> Connection:
        connection = GmqttConnection(wish, inbox, self.endpoint.version)
        await connection.open(self.endpoint.port, self.endpoint.context(), wish)
        return connection
