"""A real broker with its HTTP port, in this process, and a client of a few lines that speaks MQTT 5 to it."""

from __future__ import annotations

import asyncio
import struct
import time
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import aiohttp
from prometheus_client.parser import text_string_to_metric_families

from bridge import Bridge
from bridge.config import BridgeConfig, RuleConfig
from edge_broker.broker import Broker
from edge_broker.config.http import HttpConfig
from edge_broker.config.listeners import ListenerConfig
from edge_broker.config.model import Config
from edge_broker.config.store import StoreConfig

CONNACK, PUBLISH, PUBACK, SUBACK = 0x20, 0x30, 0x40, 0x90


async def until(condition: Callable[[], Any], why: str, timeout_seconds: float = 10.0) -> None:
    """Wait until `condition` is true; AssertionError with `why` when that takes too long."""
    deadline = time.monotonic() + timeout_seconds
    while not condition():
        assert time.monotonic() < deadline, why
        await asyncio.sleep(0.005)


def bridge_to(url: str, name: str = "cluster") -> Bridge:
    """A bridge that carries `up/#` and loses no time with waiting."""
    return Bridge(
        BridgeConfig(
            name=name,
            urls=(url,),
            client_id=name,
            out=(RuleConfig(filter="up/#", qos=1), RuleConfig(filter="live/#", qos=0)),
            backoff_initial_seconds=0.05,
            backoff_max_seconds=0.1,
        )
    )


@asynccontextmanager
async def gateway(directory: Path, bridges: Sequence[Bridge] = (), **sections: Any) -> AsyncIterator[Broker]:
    """A running broker; its HTTP port is `broker._http.url`, which `Web` takes."""
    config = Config(
        data_dir=directory,
        listeners=(ListenerConfig(bind="127.0.0.1:0"),),
        http=HttpConfig(bind="127.0.0.1:0"),
        store=StoreConfig(commit_delay_ms=1, card_endurance_terabytes=30),
        **sections,
    )
    broker = Broker(config, bridges=bridges)
    await broker.start()
    try:
        yield broker
    finally:
        await broker.stop()


class Web:
    """Whoever asks over HTTP."""

    def __init__(self, broker: Broker, session: aiohttp.ClientSession) -> None:
        assert broker._http is not None
        self.url = broker._http.url
        self.session = session

    async def get(self, path: str) -> tuple[int, Any]:
        """The status, and the JSON that was answered."""
        async with self.session.get(self.url + path) as response:
            return response.status, await response.json()

    async def scrape(self) -> Scrape:
        """All metrics."""
        async with self.session.get(self.url + "/metrics") as response:
            assert response.status == 200
            return Scrape(await response.text())


@asynccontextmanager
async def web_of(broker: Broker) -> AsyncIterator[Web]:
    async with aiohttp.ClientSession() as session:
        yield Web(broker, session)


class Scrape:
    """One answer of `/metrics`, parsed by Prometheus' own parser."""

    def __init__(self, text: str) -> None:
        self.text = text
        self.names = {line.split()[2] for line in text.splitlines() if line.startswith("# TYPE ")}
        self._values: dict[tuple[str, frozenset[tuple[str, str]]], float] = {}
        for family in text_string_to_metric_families(text):
            for sample in family.samples:
                key = (sample.name, frozenset(sample.labels.items()))
                assert key not in self._values, f"{key} twice: Prometheus takes none of the scrape then"
                self._values[key] = sample.value

    def get(self, name: str, **labels: str) -> float | None:
        return self._values.get((f"edge_broker_{name}", frozenset(labels.items())))

    def of(self, name: str, label: str) -> dict[str, float]:
        """The values of one metric by one label."""
        return {
            dict(labels)[label]: value
            for (found, labels), value in self._values.items()
            if found == f"edge_broker_{name}"
        }


class Client:
    """An MQTT 5 client: connects, subscribes, publishes, and reads packet by packet."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._reader = reader
        self._writer = writer
        self._packet_id = 0

    @classmethod
    async def connect(cls, broker: Broker, client_id: str, session_expiry_seconds: int = 0) -> Client:
        """Connected; the session lasts `session_expiry_seconds` longer than the connection, 0 begins it anew."""
        port = int(broker.listening[0].rsplit(":", 1)[1])
        client = cls(*await asyncio.open_connection("127.0.0.1", port))
        flags = 0 if session_expiry_seconds else 2
        properties = b"\x11" + struct.pack(">I", session_expiry_seconds)
        body = _text("MQTT") + bytes((5, flags, 0, 60, len(properties))) + properties + _text(client_id)
        client._send(0x10, body)
        packet = await client.read(CONNACK)
        assert packet[1] == 0, packet
        return client

    async def subscribe(self, topic_filter: str, qos: int = 1) -> Client:
        self._send(0x82, self._next_id() + b"\0" + _text(topic_filter) + bytes((qos,)))
        await self.read(SUBACK)
        return self

    def publish(self, topic: str, payload: bytes = b"21.5", qos: int = 1, expiry_seconds: int = 0) -> None:
        """Send it; `read(PUBACK)` waits for the answer."""
        properties = b"\x02" + struct.pack(">I", expiry_seconds) if expiry_seconds else b""
        packet_id = self._next_id() if qos else b""
        body = _text(topic) + packet_id + bytes((len(properties),)) + properties + payload
        self._send(PUBLISH | qos << 1, body)

    async def publish_all(self, topic: str, messages: int) -> None:
        """At QoS 1, and every one acknowledged."""
        for _ in range(messages):
            self.publish(topic)
        for _ in range(messages):
            await self.read(PUBACK)

    async def read(self, kind: int) -> bytes:
        """The body of the next packet, which must be of `kind`."""
        async with asyncio.timeout(10):
            first = (await self._reader.readexactly(1))[0]
            length = shift = 0
            while True:
                byte = (await self._reader.readexactly(1))[0]
                length |= (byte & 0x7F) << shift
                shift += 7
                if byte < 0x80:
                    break
            body = await self._reader.readexactly(length)
        assert first & 0xF0 == kind, f"{first:#x} came, not {kind:#x}"
        return body

    async def leave(self) -> None:
        """DISCONNECT, and gone."""
        self._send(0xE0, b"")
        await self._writer.drain()
        self._writer.close()
        await self._writer.wait_closed()

    def _next_id(self) -> bytes:
        self._packet_id += 1
        return struct.pack(">H", self._packet_id)

    def _send(self, first: int, body: bytes) -> None:
        length, encoded = len(body), bytearray()
        while True:
            length, digit = divmod(length, 128)
            encoded.append(digit | (0x80 if length else 0))
            if not length:
                break
        self._writer.write(bytes((first,)) + bytes(encoded) + body)


def _text(text: str) -> bytes:
    raw = text.encode()
    return struct.pack(">H", len(raw)) + raw
