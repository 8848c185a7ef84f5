"""A subscriber that keeps what it received: a paho client of its own, unlike anything the devices use."""

import threading
from collections import defaultdict
from collections.abc import Callable
from dataclasses import dataclass

import paho.mqtt.client as paho
from paho.mqtt.enums import CallbackAPIVersion, MQTTProtocolVersion
from paho.mqtt.packettypes import PacketTypes
from paho.mqtt.properties import Properties


@dataclass(frozen=True)
class Received:
    topic: str
    payload: bytes
    device: str | None
    sequence: int | None
    spool: str | None
    content_type: str | None


class Collector:
    """Subscribes to a filter; `kept=True` has the broker keep what comes while it is away."""

    def __init__(self, port: int, topic_filter: str = "#", *, qos: int = 1, kept: bool = False) -> None:
        self.received: list[Received] = []
        self._filter = topic_filter
        self._qos = qos
        self._changed = threading.Condition()
        self._subscribed = threading.Event()
        self._client = paho.Client(
            CallbackAPIVersion.VERSION2, client_id="collector", protocol=MQTTProtocolVersion.MQTTv5
        )
        self._client.reconnect_delay_set(min_delay=1, max_delay=1)
        self._client.on_connect = self._on_connect
        self._client.on_subscribe = lambda *_: self._subscribed.set()
        self._client.on_message = self._on_message
        self._client.on_disconnect = lambda *_: self._subscribed.clear()
        properties = Properties(PacketTypes.CONNECT)
        if kept:
            properties.SessionExpiryInterval = 3600
        self._client.connect("127.0.0.1", port, 30, clean_start=not kept, properties=properties)
        self._client.loop_start()
        self.wait_until_subscribed()

    def wait_until_subscribed(self) -> None:
        assert self._subscribed.wait(20), "the collector could not subscribe"

    @property
    def subscribed(self) -> bool:
        return self._subscribed.is_set()

    def _on_connect(self, client: paho.Client, *_: object) -> None:
        client.subscribe(self._filter, self._qos)

    def _on_message(self, client: paho.Client, userdata: object, message: paho.MQTTMessage) -> None:
        user = dict(getattr(message.properties, "UserProperty", []))
        received = Received(
            message.topic,
            bytes(message.payload),
            user.get("device"),
            int(user["sequence"]) if "sequence" in user else None,
            user.get("spool"),
            getattr(message.properties, "ContentType", None),
        )
        with self._changed:
            self.received.append(received)
            self._changed.notify_all()

    def publish(self, topic: str, payload: bytes, qos: int = 1) -> None:
        self._client.publish(topic, payload, qos).wait_for_publish(10)

    def wait(self, condition: Callable[[list[Received]], bool], timeout_seconds: float = 30.0) -> None:
        with self._changed:
            met = self._changed.wait_for(lambda: condition(self.received), timeout_seconds)
        assert met, f"waited in vain with {len(self.received)} messages received"

    def wait_for_sequences(self, device: str, last: int, timeout_seconds: float = 30.0) -> None:
        """Until every sequence number up to `last` came at least once."""
        wanted = set(range(1, last + 1))
        with self._changed:
            met = self._changed.wait_for(lambda: wanted <= set(self.sequences(device)), timeout_seconds)
        missing = sorted(wanted - set(self.sequences(device)))
        assert met, f"{device}: {len(missing)} missing, the first {missing[:10]}"

    def sequences(self, device: str) -> list[int]:
        return [one.sequence for one in self.received if one.device == device and one.sequence is not None]

    def sequences_by_device(self) -> dict[str, list[int]]:
        by_device: dict[str, list[int]] = defaultdict(list)
        for one in self.received:
            if one.device is not None and one.sequence is not None:
                by_device[one.device].append(one.sequence)
        return by_device

    def close(self) -> None:
        self._client.disconnect()
        self._client.loop_stop()


def without_duplicates(sequences: list[int]) -> list[int]:
    """The first arrivals, in their order."""
    return list(dict.fromkeys(sequences))
