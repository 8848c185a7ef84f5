"""The parts of the whole line to a NATS cluster, in processes of their own, and how they stand.

Devices → gateway → Envoy → three NATS nodes → two ingesters, each with a copy of everything: one knows readings by their
origin alone, the other one by the devices' own numbers too.
"""

from __future__ import annotations

import json
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from devices.fleet import MAX_SPEED, Fleet
from devices.recorded import RecordedReading
from tests.bridge.envoy import ClusterIngress
from tests.bridge.svids import TrustDomain
from tests.crash.test_whole_line import DEVICES, READINGS, all_readings
from tests.ingest.running import Ingester
from tests.integration.broker_process import BrokerProcess, until
from tests.integration.foreign import Paho
from tests.integration.upstreams.line import BROKER_PATH, bridge_table, meshed_keys
from tests.integration.upstreams.nats import NatsCluster
from tests.integration.upstreams.renewal import Renewal
from tests.integration.upstreams.traffic import PATIENCE_SECONDS

_AT_ONCE = 20
_FAST, _SLOW = 1_000, 300
_COMMANDS = 'in = [{ filter = "commands/#", remote_prefix = "s/" }]\n'
_ENVELOPES = "[bridges.envelopes]\nenabled = true\ndelay_ms = 100\nmax_messages = 200\n"
_LAST = b'"topic":"s/devices/last"'
_RULE = '{ filter = "devices/#", remote_prefix = "s/", ingested = true }'


class Tap:
    """Lets readings out slowly, so that something is on its way whatever happens; `open` lets all out that are left."""

    def __init__(self, readings: Iterator[RecordedReading]) -> None:
        self._readings = readings
        self._opened = threading.Event()

    def open(self) -> None:
        self._opened.set()

    def __iter__(self) -> Iterator[RecordedReading]:
        for number, reading in enumerate(self._readings):
            if number % _AT_ONCE == 0 and not self._opened.is_set():
                self._opened.wait(_AT_ONCE / (_FAST if number < READINGS // 2 else _SLOW))
            yield reading


class WholeLine:
    """`gateway`, `ingress`, `nats`, `by_origin`, `by_device`: the parts, to be killed and started as a test likes."""

    def __init__(self, directory: Path) -> None:
        self.directory = directory
        domain = TrustDomain("cluster.example")
        self.nats = NatsCluster(directory / "nats")
        ports = self.nats.mqtt_ports
        self.ingress = ClusterIngress(directory / "ingress", domain.issue(BROKER_PATH), domain, ports)
        keys = meshed_keys(directory / "svid", domain) + '\nversion = "3.1.1"\nseparate_uplink = true'
        self.gateway = BrokerProcess(
            directory / "gateway", bridge_table([self.ingress.url], keys, _RULE) + _COMMANDS + _ENVELOPES
        )
        self.by_origin = self._ingester("ingest", "")
        self.by_device = self._ingester("ingest-devices", "[devices]\ndeduplicate = true")
        self._renewal = Renewal(domain, directory / "svid", self.ingress)
        self.tap = Tap(all_readings(directory))
        self.fleet: Fleet | None = None

    def _ingester(self, name: str, more: str) -> Ingester:
        urls = [f"mqtt://127.0.0.1:{port}" for port in self.nats.mqtt_ports]
        keys = 'version = "3.1.1"\nconnect_timeout_seconds = 5\nanswer_timeout_seconds = 5'
        return Ingester(self.directory / name, urls, more, cluster_keys=keys, client_id=name)

    async def start(self) -> Fleet:
        """Start it from its end: NATS keeps nothing for who has not subscribed yet. The devices begin at once."""
        self.nats.start()
        await self.ingress.start()
        for ingester in (self.by_origin, self.by_device):
            await ingester.start()
            log = ingester.log
            until(lambda one=ingester: "granted the subscriptions" in one.log, log, PATIENCE_SECONDS)  # type: ignore[misc]
        self._renewal.start()
        broker = f"mqtt://127.0.0.1:{self.gateway.start().port}"
        self.fleet = Fleet(self.tap, DEVICES, broker, speed=MAX_SPEED, spool_dir=self.directory).start()
        return self.fleet

    def stop(self) -> tuple[int, ...]:
        """The exit codes of the gateway and of the ingesters."""
        if self.fleet is not None:
            self.fleet.stop(flush_seconds=0)
        self._renewal.stop()
        exit_codes = self.gateway.stop(), self.by_origin.stop(), self.by_device.stop()
        self.ingress.stop()
        self.nats.stop()
        return exit_codes

    @property
    def renewals(self) -> int:
        """How often what goes up took a new certificate while connected, since the gateway was started."""
        return self.gateway.log.count("bridge cloud: went over to a new connection")

    @property
    def logs(self) -> str:
        return f"{self.gateway.log}\n{self.by_origin.log}\n{self.by_device.log}"

    def more_arrive(self, count: int, what: str) -> None:
        """Wait until so many more are in the files of both, or all."""
        wanted = min(min(map(_written, (self.by_origin, self.by_device))) + count, READINGS)
        for ingester in (self.by_origin, self.by_device):
            until(
                lambda one=ingester: _written(one) >= wanted,  # type: ignore[misc]
                f"nothing comes: {what}\n{self.logs}",
                PATIENCE_SECONDS,
            )

    def all_arrive(self) -> None:
        """Have a last message follow the readings, and wait until both ingesters have it, and all that was before it."""
        last = Paho(self.gateway.port, "last").connected()
        last.publish("devices/last", b"", 1)
        last.leave()
        for ingester in (self.by_origin, self.by_device):
            until(lambda one=ingester: _LAST in _output(one), self.logs, PATIENCE_SECONDS)  # type: ignore[misc]
            until(
                lambda one=ingester: not any(lane["missing"] for lane in one.status()["lanes"]),  # type: ignore[misc]
                f"numbers of the lane are missing: {self.logs}",
                PATIENCE_SECONDS,
            )


def _output(ingester: Ingester) -> bytes:
    return b"".join(path.read_bytes() for path in (ingester.directory / "data/output").glob("*.jsonl"))


def _written(ingester: Ingester) -> int:
    """How many readings are in its files."""
    return _output(ingester).count(b"\n")


def readings(ingester: Ingester) -> list[dict[str, Any]]:
    """The lines of its files, but for the last message's."""
    return [line for line in ingester.lines() if line["topic"] != "s/devices/last"]


def device_number(line: dict[str, Any]) -> tuple[str, int]:
    """Which device's reading a line of the output is, and which number the device gave it."""
    named = dict(line["properties"]["user_properties"])
    return named["device"], int(named["sequence"])


def as_text(reading: dict[str, Any]) -> str:
    """A reading, so that two can be compared."""
    return json.dumps(reading, sort_keys=True)
