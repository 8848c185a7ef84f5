"""Clients that nobody here wrote: paho-mqtt wrapped so that a test can wait for things, and mosquitto's command line."""

from __future__ import annotations

import os
import socket
import ssl
import subprocess
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any, Literal

import paho.mqtt.client as paho
from paho.mqtt.enums import CallbackAPIVersion, MQTTProtocolVersion
from paho.mqtt.packettypes import PacketTypes
from paho.mqtt.properties import Properties
from paho.mqtt.subscribeoptions import SubscribeOptions

from tests.integration.broker_process import WAIT_SECONDS, until

V3, V5 = MQTTProtocolVersion.MQTTv311, MQTTProtocolVersion.MQTTv5


class Paho:
    """One paho client on a thread of its own. `messages`: everything received, oldest first.

    `comes_back`: it connects again when it loses its connection. `heard` is called with each message, on that thread.
    """

    def __init__(
        self,
        port: int,
        client_id: str = "",
        version: MQTTProtocolVersion = V5,
        *,
        expiry: int = 0,
        clean: bool | None = None,
        will: tuple[str, bytes, int, bool] | None = None,
        tls: ssl.SSLContext | None = None,
        comes_back: bool = True,
        in_flight: int = 20,
        transport: Literal["tcp", "websockets"] = "tcp",
        heard: Callable[[paho.MQTTMessage], None] | None = None,
    ) -> None:
        clean = (expiry == 0) if clean is None else clean
        options: dict[str, Any] = {"clean_session": clean} if version != V5 else {}
        self.client = paho.Client(
            CallbackAPIVersion.VERSION2,
            client_id=client_id,
            protocol=version,
            transport=transport,
            reconnect_on_failure=comes_back,
            **options,
        )
        self.version = version
        self.messages: list[paho.MQTTMessage] = []
        self.session_present = False
        self.connections = self.losses = 0
        self.acknowledged: set[int] = set()
        self._granted: dict[int, list[Any]] = {}
        self._connected = threading.Event()
        self.client.on_message = self._on_message
        self._heard = heard
        self.client.on_connect = self._on_connect
        self.client.on_disconnect = self._on_disconnect
        self.client.on_subscribe = lambda _c, _d, mid, codes, _p: self._granted.update({mid: codes})
        self.client.on_publish = lambda _c, _d, mid, _code, _p: self.acknowledged.add(mid)
        self.client.max_inflight_messages_set(in_flight)
        self.client.reconnect_delay_set(1, 1)  # paho's least
        if will is not None:
            self.client.will_set(*will)
        if tls is not None:
            self.client.tls_set_context(tls)
        properties = None
        if version == V5:
            properties = Properties(PacketTypes.CONNECT)
            properties.SessionExpiryInterval = expiry
            options = {"clean_start": clean, "properties": properties}
        else:
            options = {}
        self.client.connect("localhost" if tls else "127.0.0.1", port, **options)
        self.client.loop_start()

    def _on_message(self, _client: Any, _data: Any, message: paho.MQTTMessage) -> None:
        self.messages.append(message)
        if self._heard is not None:
            self._heard(message)

    def _on_connect(self, _client: Any, _data: Any, flags: Any, reason: Any, _properties: Any) -> None:
        self.session_present = flags.session_present
        self.reason = reason
        if not reason.is_failure:
            self.connections += 1
            self._connected.set()

    def _on_disconnect(self, *_: Any) -> None:
        self.losses += 1
        self._connected.clear()

    def connected(self, patience_seconds: float = WAIT_SECONDS) -> Paho:
        assert self._connected.wait(patience_seconds), "not connected"
        return self

    def subscribe(self, topic_filter: str, qos: int = 0, **options: Any) -> Paho:
        """SUBSCRIBE, and wait for the SUBACK."""
        if options:
            _, mid = self.client.subscribe(topic_filter, options=SubscribeOptions(qos=qos, **options))
        else:
            _, mid = self.client.subscribe(topic_filter, qos)
        assert mid is not None
        until(lambda: mid in self._granted, "no SUBACK")
        assert [code.value for code in self._granted[mid]] == [qos]
        return self

    def publish(
        self, topic: str, payload: bytes, qos: int = 0, retain: bool = False, **properties: Any
    ) -> None:
        """PUBLISH, and wait until it is acknowledged."""
        packed = None
        if properties:
            packed = Properties(PacketTypes.PUBLISH)
            for name, value in properties.items():
                setattr(packed, name, value)
        info = self.client.publish(topic, payload, qos, retain, packed)
        info.wait_for_publish(WAIT_SECONDS)
        assert info.is_published()

    @property
    def payloads(self) -> list[bytes]:
        return [message.payload for message in self.messages]

    def wait_for(self, count: int) -> list[paho.MQTTMessage]:
        """The first `count` messages, once they are there."""
        until(lambda: len(self.messages) >= count, f"{self.payloads} instead of {count} messages")
        return self.messages[:count]

    def leave(self) -> None:
        """DISCONNECT."""
        self.client.disconnect()
        self.client.loop_stop()

    def vanish(self) -> None:
        """The socket breaks without a word; for a client that does not come back."""
        sock = self.client.socket()
        assert sock is not None
        with socket.socket(fileno=os.dup(sock.fileno())) as raw:  # under TLS and WebSocket
            raw.shutdown(socket.SHUT_RDWR)
        self.client.loop_stop()


def mosquitto(program: str, port: int, *arguments: str, stdin: bytes | None = None) -> bytes:
    """Run `mosquitto_pub`, `_sub` or `_rr` to its end; what it printed."""
    done = subprocess.run(
        [program, "-h", "127.0.0.1", "-p", str(port), *arguments],
        input=stdin,
        capture_output=True,
        timeout=WAIT_SECONDS,
    )
    assert done.returncode == 0, done.stderr.decode()
    return done.stdout


class MosquittoSub:
    """`mosquitto_sub` while it runs; `lines` is what it has printed, one line per message."""

    def __init__(self, port: int, log: Path, *arguments: str) -> None:
        self._log = log
        with log.open("wb") as out:
            self.process = subprocess.Popen(
                ["stdbuf", "-oL", "mosquitto_sub", "-h", "127.0.0.1", "-p", str(port), "-d", *arguments],
                stdout=out,
                stderr=out,
            )
        until(lambda: b"received SUBACK" in log.read_bytes(), "mosquitto_sub did not subscribe")

    @property
    def lines(self) -> list[bytes]:
        noise = (b"Client ", b"Subscribed ")
        return [line for line in self._log.read_bytes().splitlines() if not line.startswith(noise)]

    def stop(self) -> None:
        self.process.terminate()
        self.process.wait(WAIT_SECONDS)
