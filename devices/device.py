"""What a person's script uses: a device with a name, its readings and its commands.

    with Device("porch", "mqtt://127.0.0.1:1883", spool="porch.spool") as device:
        device.publish_reading({"temperature_celsius": 21.5})

Invariants: when `publish_reading` returns, the reading is in the spool (with a path: on disk, synced) and has a number
for good; it leaves at the broker's PUBACK, in order. The broker's absence is nobody's error: nothing here blocks on the
network but `flush` and `close`, and both for as long as they are told.

Every reading carries, as MQTT 5 user properties, `device`, `sequence` and `spool`: the sequence is gapless within one
spool, and a new spool (another file, or memory after a restart) has a new id, so that a receiver can tell a duplicate
from a beginning. MQTT 3.1.1 has no place for them.
"""

import logging
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Any, Final

import paho.mqtt.client as paho

from devices.address import BrokerAddress, parse_broker_url
from devices.backoff import Backoff
from devices.bundle import read_bundle
from devices.commands import Command, CommandCallback, CommandInbox
from devices.encoding import EncodedReading, Encoding, Reading, encode_reading
from devices.errors import DeviceError, ReadingError
from devices.link import Link, LinkSettings
from devices.network import NetworkThread
from devices.paho_client import SessionSettings
from devices.protocol_choice import MqttVersion, ProtocolChoice
from devices.session import Session
from devices.spool import Spool, SpoolLimits

_log = logging.getLogger("devices")

_CLOSE_TIMEOUT_SECONDS: Final = 5.0
_TOPIC_BYTES: Final = 65535
_NAME_BYTES: Final = 200


@dataclass(frozen=True)
class Timing:
    """How patient a device is, in seconds.

    The delay before a new attempt doubles from `reconnect_first` to `reconnect_longest`, with jitter.
    """

    keepalive: int = 30
    connect_timeout: float = 10.0
    acknowledge_timeout: float = 30.0
    reconnect_first: float = 0.5
    reconnect_longest: float = 60.0


@dataclass(frozen=True)
class DeviceStats:
    """What a device did and how it stands.

    Since the program started: `published` (accepted by publish_reading), `acknowledged`, `refused` (turned away by a
    full spool), `reconnects`, `commands`, `commands_dropped`. Over the spool's life: `dropped` (by a full spool) and
    `rejected` (by the broker, for good). Now: `spooled` (not acknowledged yet), `in_flight` (of those, sent), `version`
    (None while not connected) and `problem` (why not).
    """

    published: int
    acknowledged: int
    spooled: int
    in_flight: int
    dropped: int
    refused: int
    rejected: int
    reconnects: int
    commands: int
    commands_dropped: int
    version: MqttVersion | None
    problem: str | None

    @property
    def connected(self) -> bool:
        return self.version is not None


class Device:
    """A device that speaks MQTT. Use it as a context manager, or call `start` and `close`."""

    def __init__(
        self,
        name: str,
        broker: str | BrokerAddress = "mqtt://127.0.0.1:1883",
        *,
        spool: Path | str | None = None,
        topic_prefix: str = "devices",
        encoding: Encoding = "json",
        username: str | None = None,
        password: str | None = None,
        ca: Path | str | None = None,
        certificate: Path | str | None = None,
        key: Path | str | None = None,
        window: int = 20,
        limits: SpoolLimits | None = None,
        timing: Timing | None = None,
        mqtt_version: MqttVersion | None = None,
        keep_commands_seconds: int = 0,
        network: NetworkThread | None = None,
    ) -> None:
        """Open the spool; nothing connects before `start` or the `with`.

        `spool`: a file of the device's own; None keeps readings in memory only. `window`: how many readings may be
        unacknowledged on the wire. `mqtt_version`: "5" or "3.1.1" to insist on one. `keep_commands_seconds`: how long
        the broker keeps commands while the device is away (0: not at all). `network`: a started thread to share.
        Raises BrokerUrlError, SpoolError, and ValueError for a name or topic that MQTT does not allow.
        """
        _check_options(name, topic_prefix, window, encoding)
        timing = timing or Timing()
        backoff = Backoff(timing.reconnect_first, timing.reconnect_longest)  # it may refuse: before the spool
        if not isinstance(broker, BrokerAddress):
            broker = parse_broker_url(
                broker, username=username, password=password, ca=ca, certificate=certificate, key=key
            )
        if broker.shows_password:
            _log.warning("%s: the password travels unencrypted to %s; use mqtts://", name, broker)
        self.name = name
        self.readings_topic = f"{topic_prefix}/{name}/readings"
        self._commands_prefix = f"{topic_prefix}/{name}/commands/"
        self._encoding: Encoding = encoding
        self._published = 0
        self._spool = Spool(Path(spool) if spool is not None else None, name, limits)
        self._inbox = CommandInbox(name)
        self._owns_network = network is None
        self._network = network or NetworkThread(f"device-{name}")
        self._started = False
        self._closed = False
        session = SessionSettings(
            broker, name, timing.keepalive, timing.connect_timeout, keep_commands_seconds
        )
        self._link = self._make_link(session, window, timing, backoff, ProtocolChoice(mqtt_version))

    def _make_link(
        self, session: SessionSettings, window: int, timing: Timing, backoff: Backoff, choice: ProtocolChoice
    ) -> Link:
        settings = LinkSettings(
            session,
            window,
            timing.acknowledge_timeout,
            f"{self._commands_prefix}#",
            [("device", self.name), ("spool", self._spool.spool_id)],
        )
        return Link(self._network, settings, self._spool, backoff, choice, self._on_command_message)

    @classmethod
    def from_bundle(cls, path: Path | str, **options: Any) -> "Device":
        """The device of a bundle, a folder with its certificate (`devices.bundle`); `options` as for a new one."""
        bundle = read_bundle(path)
        return cls(bundle.name, bundle.broker, **options)

    # ------------------------------------------------------------------ life

    def start(self) -> "Device":
        """Begin to connect. Returns at once, connected or not."""
        if self._closed:
            raise DeviceError("a closed device cannot be started again; make a new one")
        if not self._started:
            self._started = True
            if self._owns_network:
                self._network.start()
            self._network.call(self._link.start)
        return self

    def close(self, timeout_seconds: float = _CLOSE_TIMEOUT_SECONDS) -> None:
        """Give a running callback, and readings that are still spooled, a moment; then disconnect and close the spool.

        Without a spool file what is not acknowledged by then is lost; that is logged with its number.
        """
        if self._closed:
            return
        self._closed = True
        deadline = time.monotonic() + timeout_seconds
        self._inbox.close(timeout_seconds)  # first, for a callback may have readings to send
        if self._started:
            self._spool.wait_until_at_most(0, max(0.0, deadline - time.monotonic()))
            self._network.run(self._link.stop()).result()
        if self._owns_network:
            self._network.stop()
        if self._spool.path is None and self._spool.waiting:
            _log.warning(
                "%s: %d readings are lost: unacknowledged, and no spool file", self.name, self._spool.waiting
            )
        self._spool.close()

    def __enter__(self) -> "Device":
        return self.start()

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    # ------------------------------------------------------------------ readings

    def publish_reading(
        self, reading: Reading, topic: str | None = None, qos: int = 1, *, encoding: Encoding | None = None
    ) -> int:
        """Put a reading into the spool and return its sequence number; it is sent as soon as the broker is there.

        ReadingError: it cannot be encoded or sent. SpoolFullError: only with `when_full="refuse"`. SpoolError: the disk
        refused. In all of these the reading was not accepted.
        """
        return self.publish_readings([reading], topic, qos, encoding=encoding)[0]

    def publish_readings(
        self,
        readings: Sequence[Reading],
        topic: str | None = None,
        qos: int = 1,
        *,
        encoding: Encoding | None = None,
    ) -> range:
        """Like `publish_reading` for many at once, in one commit: all are accepted, or none."""
        if topic is None:
            topic = self.readings_topic
        else:
            _check_topic(topic)
        if qos not in (0, 1):
            raise ReadingError("the QoS is 0 or 1; instead of QoS 2, receivers drop duplicates by sequence")
        encoded = []
        for reading in readings:
            payload, content_type = encode_reading(reading, encoding or self._encoding)
            encoded.append(EncodedReading(topic, payload, content_type, qos))
        sequences = self._spool.append(encoded)
        self._published += len(sequences)
        if self._started:
            self._network.call(self._link.pump_soon)
        return sequences

    def flush(self, timeout_seconds: float | None = None) -> bool:
        """Wait until every reading is acknowledged; False when time ran out. They stay spooled then."""
        return self.wait_for_room(0, timeout_seconds)

    def wait_for_room(self, spooled: int, timeout_seconds: float | None = None) -> bool:
        """Wait until at most so many readings are spooled: for those who produce faster than the broker takes."""
        return self._spool.wait_until_at_most(spooled, timeout_seconds)

    # ------------------------------------------------------------------ commands

    def on_command(self, callback: CommandCallback) -> CommandCallback:
        """Have every command given to the callback, on a thread of its own; works as a decorator."""
        self._inbox.on_command(callback)
        self._network.call(self._link.want_commands)
        return callback

    def _on_command_message(self, session: Session, message: paho.MQTTMessage) -> None:
        command = Command(
            message.topic.removeprefix(self._commands_prefix), bytes(message.payload), message.topic
        )
        packet_id, qos = message.mid, message.qos

        def acknowledge() -> None:
            self._network.call(session.acknowledge_command, packet_id, qos)

        self._inbox.put(command, acknowledge)

    # ------------------------------------------------------------------ looking

    @property
    def stats(self) -> DeviceStats:
        """How the device stands at this moment."""
        return DeviceStats(
            published=self._published,
            acknowledged=self._link.acknowledged,
            spooled=self._spool.waiting,
            in_flight=self._spool.in_flight,
            dropped=self._spool.dropped,
            refused=self._spool.refused,
            rejected=self._spool.rejected,
            reconnects=max(0, self._link.connections - 1),
            commands=self._inbox.received,
            commands_dropped=self._inbox.dropped,
            version=self._link.version,
            problem=self._link.problem,
        )


def _check_options(name: str, topic_prefix: str, window: int, encoding: str) -> None:
    _check_name(name)
    _check_topic(f"{topic_prefix}/{name}/readings")
    if not 1 <= window <= 1000:
        raise ValueError("the window is between 1 and 1000 readings")
    if encoding not in ("json", "cbor"):
        raise ValueError(f"the encoding is 'json' or 'cbor', not {encoding!r}")


def _check_name(name: str) -> None:
    """A name is a topic level, the MQTT client identifier, and often a file's name."""
    if not name or len(name.encode()) > _NAME_BYTES:
        raise ValueError(f"a device's name has between 1 and {_NAME_BYTES} bytes")
    if any(character in "/+#" or not character.isprintable() for character in name):
        raise ValueError(
            f"the device's name {name!r} has a character that a topic level cannot hold (/, +, # or unprintable)"
        )


def _check_topic(topic: str) -> None:
    if not topic or len(topic.encode()) > _TOPIC_BYTES:
        raise ReadingError(f"a topic has between 1 and {_TOPIC_BYTES} bytes")
    if "+" in topic or "#" in topic or "\0" in topic:
        raise ReadingError(
            f"the topic {topic!r} has a wildcard or a zero character; readings go to one topic"
        )
    if topic.startswith("$"):
        raise ReadingError(f"the topic {topic!r} begins with $, which is the broker's own")
