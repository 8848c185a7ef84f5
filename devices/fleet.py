"""A simulated fleet: many devices in one process that replay recorded readings to a real broker.

Row after row is dealt to the devices in turn, as a dealer deals cards, so every device has its share in order. Two
threads do it all: one deals (and waits until each reading is due), the network thread serves every connection. Each
device is a real `Device` with a connection, a spool and a sequence of its own.

Memory: at `MAX_SPEED` the dealer waits for each device's acknowledgements, so no more than a few windows are spooled
while the broker is there or away. At a chosen speed it does not wait; then the spools hold what an outage costs.
"""

import itertools
import logging
import threading
import time
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from math import inf
from pathlib import Path
from types import TracebackType
from typing import Final

from devices.address import BrokerAddress, parse_broker_url
from devices.device import Device, DeviceStats, Timing
from devices.encoding import Encoding
from devices.errors import DeviceError
from devices.network import NetworkThread
from devices.pacing import Pace
from devices.protocol_choice import MqttVersion
from devices.recorded import RecordedReading
from devices.spool import SpoolLimits

_log = logging.getLogger("devices")

MAX_SPEED: Final = inf  # as fast as the broker acknowledges
_DEALT_PER_DEVICE: Final = 20  # readings per commit at MAX_SPEED
_SPOOLED_PER_DEVICE: Final = 40  # beyond which the dealer waits at MAX_SPEED
_STOP_POLL_SECONDS: Final = 0.2


@dataclass(frozen=True)
class FleetStats:
    """The sums over all devices, and how many of them are connected. `dealt` counts this run's readings."""

    devices: int
    connected: int
    dealt: int
    published: int
    acknowledged: int
    spooled: int
    dropped: int
    rejected: int
    reconnects: int
    problem: str | None


class Fleet:
    """`start` deals and sends, `wait` waits for the last acknowledgement, `stop` disconnects."""

    def __init__(
        self,
        readings: Iterable[RecordedReading],
        devices: int = 10,
        broker: str | BrokerAddress = "mqtt://127.0.0.1:1883",
        *,
        speed: float = 1.0,
        name_prefix: str = "sensor-",
        topic_prefix: str = "devices",
        qos: int = 1,
        encoding: Encoding = "json",
        window: int = 20,
        spool_dir: Path | str | None = None,
        limits: SpoolLimits | None = None,
        timing: Timing | None = None,
        mqtt_version: MqttVersion | None = None,
    ) -> None:
        """Open the devices' spools: one file each in `spool_dir`, or in memory without it.

        The names are `name_prefix` and a number from 1. `readings` may be endless; they are taken one at a time.
        """
        if devices < 1:
            raise ValueError("a fleet has at least one device")
        if isinstance(broker, str):
            broker = parse_broker_url(broker)
        self._readings = iter(readings)
        self._qos = qos
        self._speed = speed
        self._pace = Pace(speed)
        self._network = NetworkThread("fleet-network")
        self._dealer = threading.Thread(target=self._deal_all, name="fleet-dealer", daemon=True)
        self._stopping = threading.Event()
        self._finished = threading.Event()
        self.error: DeviceError | None = None
        self.dealt = 0
        self.devices: list[Device] = []
        width = len(str(devices))
        try:
            for number in range(1, devices + 1):
                name = f"{name_prefix}{number:0{width}d}"
                self.devices.append(
                    Device(
                        name,
                        broker,
                        spool=Path(spool_dir) / f"{name}.spool" if spool_dir is not None else None,
                        topic_prefix=topic_prefix,
                        encoding=encoding,
                        window=window,
                        limits=limits,
                        timing=timing,
                        mqtt_version=mqtt_version,
                        network=self._network,
                    )
                )
        except BaseException:
            self._close_all()
            raise

    # ------------------------------------------------------------------ life

    def start(self) -> "Fleet":
        """Connect every device and begin to deal; returns at once."""
        self._network.start()
        for device in self.devices:
            device.start()
        self._dealer.start()
        return self

    @property
    def finished(self) -> bool:
        """Whether everything is dealt; `error` says if it ended before the readings did."""
        return self._finished.is_set()

    def wait(self, timeout_seconds: float | None = None) -> bool:
        """Wait until everything is dealt and acknowledged; False when time ran out."""
        deadline = None if timeout_seconds is None else time.monotonic() + timeout_seconds
        if not self._finished.wait(timeout_seconds):
            return False
        return all(device.flush(_remaining(deadline)) for device in self.devices)

    def stop(self, flush_seconds: float = 5.0) -> None:
        """Deal no more, give what is spooled so much time in all, and disconnect."""
        self._stopping.set()
        if self._dealer.ident is not None:
            self._dealer.join()
        deadline = time.monotonic() + flush_seconds
        for device in self.devices:
            device.flush(_remaining(deadline))
        self._close_all()

    def _close_all(self) -> None:
        for device in self.devices:
            device.close(timeout_seconds=0)
        self._network.stop()

    def __enter__(self) -> "Fleet":
        return self.start()

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.stop()

    # ------------------------------------------------------------------ dealing

    def _deal_all(self) -> None:
        try:
            if self._speed == MAX_SPEED:
                self._deal_as_acknowledged()
            else:
                self._deal_as_recorded()
        except DeviceError as error:
            self.error = error
            _log.error("the replay ended: %s", error)
        finally:
            self._finished.set()

    def _deal_as_recorded(self) -> None:
        started_at = time.monotonic()
        for device, reading in zip(itertools.cycle(self.devices), self._readings, strict=False):
            due_at = started_at + self._pace.due_seconds(reading.recorded_at)
            if self._stopping.wait(max(0.0, due_at - time.monotonic())):
                return
            device.publish_reading(reading.as_dict(), qos=self._qos)
            self.dealt += 1

    def _deal_as_acknowledged(self) -> None:
        for hand in _batches(self._readings, len(self.devices) * _DEALT_PER_DEVICE):
            for number, device in enumerate(self.devices):
                share = hand[number :: len(self.devices)]
                if not share:
                    break
                while not device.wait_for_room(_SPOOLED_PER_DEVICE, _STOP_POLL_SECONDS):
                    if self._stopping.is_set():
                        return
                device.publish_readings([reading.as_dict() for reading in share], qos=self._qos)
                self.dealt += len(share)
            if self._stopping.is_set():
                return

    # ------------------------------------------------------------------ looking

    @property
    def stats(self) -> FleetStats:
        """How the fleet stands at this moment."""
        each = [device.stats for device in self.devices]
        return FleetStats(
            devices=len(each),
            connected=sum(stats.connected for stats in each),
            dealt=self.dealt,
            published=sum(stats.published for stats in each),
            acknowledged=sum(stats.acknowledged for stats in each),
            spooled=sum(stats.spooled for stats in each),
            dropped=sum(stats.dropped for stats in each),
            rejected=sum(stats.rejected for stats in each),
            reconnects=sum(stats.reconnects for stats in each),
            problem=next((stats.problem for stats in each if stats.problem is not None), None),
        )

    @property
    def stats_by_device(self) -> dict[str, DeviceStats]:
        return {device.name: device.stats for device in self.devices}


def _batches(readings: Iterator[RecordedReading], size: int) -> Iterator[list[RecordedReading]]:
    while batch := list(itertools.islice(readings, size)):
        yield batch


def _remaining(deadline: float | None) -> float | None:
    return None if deadline is None else max(0.0, deadline - time.monotonic())
