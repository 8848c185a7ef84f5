"""Real brokers and clients around a bridge: mosquitto upstream, paho on both sides, the gateway in this process."""

import asyncio
import inspect
import logging
import signal
import socket
import subprocess
import threading
import time
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import paho.mqtt.client as paho

from bridge import Bridge, make_bridges
from bridge.config import BridgeConfig, RuleConfig
from edge_broker.broker import Broker
from edge_broker.config.listeners import ListenerConfig
from edge_broker.config.model import Config
from tests.conftest import find_program


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


async def until(condition: Callable[[], Any], why: str, timeout_seconds: float = 15.0) -> None:
    """Wait until `condition` is true; AssertionError with `why` when that takes too long."""
    deadline = time.monotonic() + timeout_seconds
    while not condition():
        assert time.monotonic() < deadline, why
        await asyncio.sleep(0.005)


def rule(topic_filter: str, qos: int = 1, local: str = "", remote: str = "", **more: Any) -> RuleConfig:
    return RuleConfig(filter=topic_filter, qos=qos, local_prefix=local, remote_prefix=remote, **more)


def bridge_config(*urls: str, **settings: Any) -> BridgeConfig:
    """A bridge that loses no time: short pauses, short patience."""
    values: dict[str, Any] = {
        "client_id": "gateway",
        "backoff_initial_seconds": 0.05,
        "backoff_max_seconds": 0.2,
        "connect_timeout_seconds": 2.0,
        "connack_timeout_seconds": 2.0,
        "max_attempts_per_minute": 0,
    }
    return BridgeConfig(urls=urls, **(values | settings))


class Mosquitto:
    """A real mosquitto that starts, stops and starts again on one port. `lines`: more of its configuration."""

    def __init__(
        self, directory: Path, lines: str = "allow_anonymous true", persistent: bool = False
    ) -> None:
        directory.mkdir(parents=True, exist_ok=True)
        self.port = free_port()
        self.url = f"mqtt://127.0.0.1:{self.port}"
        self._log = directory / "mosquitto.log"
        self._config = directory / "mosquitto.conf"
        store = f"persistence {str(persistent).lower()}\npersistence_location {directory}/\n"
        # As root it would step down to a user that may not read the test's files.
        self._config.write_text(
            f"listener {self.port} 127.0.0.1\nuser root\nmax_inflight_messages 0\nmax_queued_messages 1000000\n"
            f"set_tcp_nodelay true\n{store}{lines}\n"
        )
        self._process: subprocess.Popen[bytes] | None = None

    async def start(self) -> "Mosquitto":
        program = find_program("mosquitto")
        assert program is not None
        with self._log.open("ab") as log:
            self._process = subprocess.Popen([program, "-c", self._config], stdout=log, stderr=log)
        await until(self._listens, f"mosquitto did not start: {self._log}")
        return self

    def _listens(self) -> bool:
        assert self._process is not None
        assert self._process.poll() is None, self.log
        with socket.socket() as probe:
            return probe.connect_ex(("127.0.0.1", self.port)) == 0

    @property
    def log(self) -> str:
        return self._log.read_text()

    def stop(self, number: signal.Signals = signal.SIGTERM) -> None:
        process, self._process = self._process, None
        if process is not None:
            process.send_signal(signal.SIGCONT)
            process.send_signal(number)
            process.wait(10)

    def send(self, number: signal.Signals) -> None:
        assert self._process is not None
        self._process.send_signal(number)


class Person:
    """A paho client: who publishes to one broker and reads from it. `messages`: what came, in order."""

    def __init__(self, client_id: str = "", version: int = paho.MQTTv5, keeps_session: bool = False) -> None:
        self.messages: list[paho.MQTTMessage] = []
        self._keeps_session = keeps_session
        self._version = version
        clean = None if version == paho.MQTTv5 else not keeps_session
        self._paho = paho.Client(
            paho.CallbackAPIVersion.VERSION2, client_id, clean_session=clean, protocol=version
        )
        self._paho.max_inflight_messages_set(1000)
        self._connected = threading.Event()
        self._subscribed = threading.Event()
        self._paho.on_connect = lambda *_: self._connected.set()
        self._paho.on_subscribe = lambda *_: self._subscribed.set()
        self._paho.on_message = lambda _client, _data, message: self.messages.append(message)
        self.paho = self._paho

    async def connect(self, url: str) -> "Person":
        return await asyncio.to_thread(self._connect, int(url.rsplit(":", 1)[1]))

    def _connect(self, port: int) -> "Person":
        more: dict[str, Any] = {}
        if self._version == paho.MQTTv5:
            more["clean_start"] = not self._keeps_session
            more["properties"] = paho.Properties(paho.PacketTypes.CONNECT)
            more["properties"].SessionExpiryInterval = 3600 if self._keeps_session else 0
        self._paho.connect("127.0.0.1", port, **more)
        self._paho.loop_start()
        assert self._connected.wait(10), "no CONNACK"
        return self

    async def subscribe(self, *filters: str, qos: int = 2) -> "Person":
        def ask() -> None:
            self._subscribed.clear()
            self._paho.subscribe([(topic_filter, qos) for topic_filter in filters] if self._version != paho.MQTTv5 else
                                 [(f, paho.SubscribeOptions(qos=qos)) for f in filters])  # fmt: skip
            assert self._subscribed.wait(10), "no SUBACK"

        await asyncio.to_thread(ask)
        return self

    async def publish(
        self, topic: str, *payloads: str, qos: int = 1, retain: bool = False, properties: Any = None
    ) -> None:
        """Publish each payload; returns when the broker has acknowledged them all."""

        def send() -> None:
            sent = [
                self._paho.publish(topic, payload, qos=qos, retain=retain, properties=properties)
                for payload in payloads
            ]
            for each in sent:
                each.wait_for_publish(20)
                assert each.is_published(), "no acknowledgement"

        await asyncio.to_thread(send)

    @property
    def payloads(self) -> list[str]:
        return [message.payload.decode() for message in self.messages]

    @property
    def topics(self) -> list[str]:
        return [message.topic for message in self.messages]

    def leave(self) -> None:
        self._paho.disconnect()
        self._paho.loop_stop()


class Gateway:
    """The broker with its bridges, in this process."""

    def __init__(
        self, directory: Path, *bridges: BridgeConfig, bind: str = "127.0.0.1:0", **sections: Any
    ) -> None:
        self._config = Config(
            data_dir=directory, listeners=(ListenerConfig(bind=bind),), bridges=bridges, **sections
        )
        self.bridges: list[Bridge] = []
        self.broker: Broker

    async def start(self) -> "Gateway":
        self.bridges = make_bridges(self._config.bridges, data_dir=self._config.data_dir)
        self.broker = Broker(self._config, bridges=self.bridges)
        await self.broker.start()
        return self

    async def stop(self) -> None:
        await self.broker.stop()

    @property
    def url(self) -> str:
        return self.broker.listening[0]

    @property
    def bridge(self) -> Bridge:
        return self.bridges[0]

    async def online(self) -> "Gateway":
        for bridge in self.bridges:
            await until(lambda b=bridge: b.status().connected, "the bridge did not connect")  # type: ignore[misc]
        return self

    async def drained(self, timeout_seconds: float = 15.0) -> None:
        await until(
            lambda: all(bridge.status().depth == 0 for bridge in self.bridges),
            "the outbox did not empty",
            timeout_seconds,
        )


@asynccontextmanager
async def running(*parts: Any) -> AsyncIterator[None]:
    """Start what has a `start`, and stop it all again, last first."""
    started: list[Any] = []
    try:
        for part in parts:
            await part.start()
            started.append(part)
        yield
    finally:
        for part in reversed(started):
            stopped = part.stop()
            if inspect.isawaitable(stopped):
                await stopped


class Log(logging.Handler):
    """What the bridge logs."""

    def __init__(self) -> None:
        super().__init__()
        self.lines: list[tuple[str, str]] = []

    def emit(self, record: logging.LogRecord) -> None:
        if record.levelno > logging.DEBUG:
            self.lines.append((record.levelname, record.getMessage()))

    def __enter__(self) -> "Log":
        logging.getLogger("bridge").addHandler(self)
        return self

    def __exit__(self, *_: object) -> None:
        logging.getLogger("bridge").removeHandler(self)

    def of(self, level: str) -> Sequence[str]:
        return [line for name, line in self.lines if name == level]
