"""Who sends to the gateway without a pause, and who reads at the upstream and counts."""

from __future__ import annotations

import threading
import time
from collections import Counter

import paho.mqtt.client as paho
from paho.mqtt.enums import MQTTProtocolVersion

from tests.integration.broker_process import until
from tests.integration.foreign import V3, V5, Paho

PATIENCE_SECONDS = 150.0
"""A NATS cluster that lost a node may be without a quorum for a minute."""
_AT_ONCE = 5
_PAUSE_SECONDS = 0.01
_MOST_UNACKNOWLEDGED = 300


class Sender:
    """Publishes numbers to the gateway at QoS 1, some 400 a second, until it is told to stop. `published`: so many."""

    def __init__(self, port: int, topic: str = "s") -> None:
        self._paho = Paho(port, "sender", in_flight=_MOST_UNACKNOWLEDGED).connected()
        self._paho.client.on_publish = self._on_published
        self._topic = topic
        self.published = self.acknowledged = 0
        self._stopping = threading.Event()
        self._thread = threading.Thread(target=self._send, name="sender", daemon=True)

    def start(self) -> Sender:
        self._thread.start()
        return self

    def stop(self) -> int:
        """Send no more; how many the gateway has acknowledged: all of them."""
        self._stopping.set()
        self._thread.join()
        until(lambda: self.acknowledged == self.published, "the gateway did not acknowledge everything")
        self._paho.leave()
        return self.acknowledged

    def sends(self, count: int) -> None:
        """Wait until the gateway has acknowledged so many more."""
        wanted = self.acknowledged + count
        until(lambda: self.acknowledged >= wanted, "the gateway does not go on", PATIENCE_SECONDS)

    def _send(self) -> None:
        while not self._stopping.wait(_PAUSE_SECONDS):
            if self.published - self.acknowledged < _MOST_UNACKNOWLEDGED:
                for number in range(self.published, self.published + _AT_ONCE):
                    self._paho.client.publish(f"{self._topic}/{number % 20}", str(number), 1)
                self.published += _AT_ONCE

    def _on_published(self, *_: object) -> None:
        self.acknowledged += 1


class Reader:
    """A persistent session at the upstream. `arrivals`: by payload, how often; `order`: as they came, duplicates out."""

    def __init__(self, port: int, topic_filter: str = "s/#", version: MQTTProtocolVersion = V5) -> None:
        self.arrivals: Counter[str] = Counter()
        self.origins: Counter[str] = Counter()
        self.order: list[int] = []
        expiry = {"expiry": 3600} if version == V5 else {"clean": False}
        self._paho = Paho(port, "reader", version, heard=self._count, **expiry)  # type: ignore[arg-type]
        self._paho.connected(
            PATIENCE_SECONDS
        )  # a cluster that has just begun may have nobody yet who decides
        self._paho.subscribe(topic_filter, qos=1)

    def _count(self, message: paho.MQTTMessage) -> None:
        payload = message.payload.decode()
        if not self.arrivals[payload]:
            self.order.append(int(payload))
        self.arrivals[payload] += 1
        for name, value in getattr(message.properties, "UserProperty", ()):
            if name == "edge-origin":
                self.origins[value] += 1

    @property
    def duplicates(self) -> int:
        return self.arrivals.total() - len(self.arrivals)

    def reads(self, count: int, what: str) -> None:
        """Wait until so many more have come."""
        wanted = len(self.order) + count
        until(lambda: len(self.order) >= wanted, f"nothing comes: {what}", PATIENCE_SECONDS)

    def has_all(self, count: int, what: str) -> None:
        """Wait for the numbers below `count`, of which none may be missing; then some more for what comes again."""
        until(
            lambda: len(self.order) >= count, f"{count - len(self.order)} are lost: {what}", PATIENCE_SECONDS
        )
        assert set(self.order) == set(range(count)), "something came that nobody sent"

    def leave(self) -> None:
        self._paho.leave()


def timed(since: float) -> str:
    """For what a test prints."""
    return f"{time.monotonic() - since:.1f} s"


__all__ = ["PATIENCE_SECONDS", "V3", "V5", "Reader", "Sender", "timed"]
