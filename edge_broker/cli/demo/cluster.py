"""Whoever reads at the cluster: an MQTT client with a persistent session that keeps account of every reading.

A reading is known by its device and the sequence number that the device gave it; the account says what is missing, what
came twice, and whether each device's readings came in order.
"""

from __future__ import annotations

import threading
import time
from pathlib import Path
from typing import Any

from paho.mqtt import client as paho
from paho.mqtt.enums import CallbackAPIVersion
from paho.mqtt.packettypes import PacketTypes
from paho.mqtt.properties import Properties

from edge_broker.cli.demo.stage import REMOTE_PREFIX


class Account:
    """What has arrived, by device: pure bookkeeping."""

    def __init__(self) -> None:
        self.arrived = 0
        self.duplicates = 0
        self.out_of_order = 0
        self._seen: dict[str, set[int]] = {}
        self._last: dict[str, int] = {}

    def enter(self, device: str, sequence: int) -> None:
        """One reading more."""
        seen = self._seen.setdefault(device, set())
        if sequence in seen:
            self.duplicates += 1
            return
        if sequence < self._last.get(device, 0):
            self.out_of_order += 1
        seen.add(sequence)
        self._last[device] = sequence
        self.arrived += 1

    def missing(self, published: dict[str, int]) -> int:
        """How many of the readings 1 to `published[device]` of each device have not arrived."""
        return sum(
            count - len(self._seen.get(device, set()) & set(range(1, count + 1)))
            for device, count in published.items()
        )


class ClusterReader:
    """The subscriber at the upstream, on paho's own thread."""

    def __init__(self, port: int, ca: Path, certificate: Path, key: Path) -> None:
        self.account = Account()
        self.last_arrival_at = 0.0
        self._lock = threading.Lock()
        self._port = port
        self._subscribed = threading.Event()
        client = paho.Client(CallbackAPIVersion.VERSION2, client_id="cluster-reader", protocol=paho.MQTTv5)
        client.tls_set(ca_certs=str(ca), certfile=str(certificate), keyfile=str(key))
        client.reconnect_delay_set(min_delay=1, max_delay=1)
        client.on_connect = self._on_connect
        client.on_subscribe = self._on_subscribe
        client.on_message = self._on_message
        self._client = client

    def start(self, timeout_seconds: float) -> bool:
        """Connect and subscribe; whether that was done in time."""
        properties = Properties(PacketTypes.CONNECT)  # type: ignore[no-untyped-call]
        properties.SessionExpiryInterval = 3600
        self._client.connect_async("127.0.0.1", self._port, clean_start=False, properties=properties)
        self._client.loop_start()
        return self._subscribed.wait(timeout_seconds)

    def stop(self) -> None:
        """Disconnect."""
        self._client.disconnect()
        self._client.loop_stop()

    def missing(self, published: dict[str, int]) -> int:
        """As `Account.missing`."""
        with self._lock:
            return self.account.missing(published)

    def _on_connect(self, client: paho.Client, *_: Any) -> None:
        client.subscribe(f"{REMOTE_PREFIX}#", qos=1)

    def _on_subscribe(self, *_: Any) -> None:
        self._subscribed.set()

    def _on_message(self, _client: paho.Client, _userdata: Any, message: paho.MQTTMessage) -> None:
        named = dict(getattr(message.properties, "UserProperty", []))
        with self._lock:
            self.account.enter(named.get("device", message.topic), int(named.get("sequence", 0)))
            self.last_arrival_at = time.monotonic()
