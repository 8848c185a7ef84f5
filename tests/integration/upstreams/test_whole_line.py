"""The whole line to a cluster, on every recorded reading: device SDK → edge-broker → bridge → mutual TLS by SPIFFE ID →
Envoy → NATS, three nodes → ingester → files.

On the way the Envoy is killed and started again, a NATS node is killed for good, the gateway is killed and started
again, and all certificates are renewed again and again while connected. In the files each reading is once: none is
missing, none is there twice. What the line sends twice is known by its origin, what a device sent twice by the device's
own number.

NATS speaks MQTT 3.1.1, which has no place for an origin: readings go in envelopes.
"""

from __future__ import annotations

import json
import threading
import time
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from devices.fleet import MAX_SPEED, Fleet
from devices.recorded import RecordedReading
from tests.bridge.envoy import ClusterIngress
from tests.bridge.svids import TrustDomain
from tests.crash.test_whole_line import DEVICES, READINGS, all_readings
from tests.ingest.running import Ingester
from tests.integration.broker_process import BrokerProcess, until
from tests.integration.upstreams.line import BROKER_PATH, bridge_table, connections, meshed_keys
from tests.integration.upstreams.nats import NatsCluster
from tests.integration.upstreams.renewal import Renewal
from tests.integration.upstreams.traffic import PATIENCE_SECONDS, timed


class Tap:
    """Lets the readings out no faster than this, so that something is on its way whatever happens; `open` lets all out."""

    def __init__(self, readings: Iterator[RecordedReading]) -> None:
        self._readings = readings
        self._opened = threading.Event()

    def open(self) -> None:
        self._opened.set()

    def __iter__(self) -> Iterator[RecordedReading]:
        for number, reading in enumerate(self._readings):
            if number % _AT_ONCE == 0 and not self._opened.is_set():
                self._opened.wait(_AT_ONCE / (1_000 if number < READINGS // 2 else 300))
            yield reading


_AT_ONCE = 20


def handovers(gateway: BrokerProcess) -> int:
    """How often a new certificate was taken while connected."""
    return gateway.log.count("went over to a new connection")


def device_number(line: dict[str, Any]) -> tuple[str, int]:
    """Which device's reading a line of the output is, and which number the device gave it."""
    named = dict(line["properties"]["user_properties"])
    return named["device"], int(named["sequence"])


@pytest.mark.needs("nats-server")
@pytest.mark.slow
@pytest.mark.timeout(400)
async def test_every_reading_is_once_in_the_ingesters_files(tmp_path: Path) -> None:
    domain = TrustDomain("cluster.example")
    nats = NatsCluster(tmp_path / "nats")
    ingress = ClusterIngress(tmp_path / "ingress", domain.issue(BROKER_PATH), domain, nats.mqtt_ports)
    keys = meshed_keys(tmp_path / "svid", domain)
    rule = '{ filter = "devices/#", remote_prefix = "s/", ingested = true }'
    gateway = BrokerProcess(
        tmp_path / "gateway",
        bridge_table([ingress.url], f'{keys}\nversion = "3.1.1"', rule)
        + "[bridges.envelopes]\nenabled = true\ndelay_ms = 100\nmax_messages = 200\n",
    )
    ingester = Ingester(
        tmp_path / "ingest",
        [f"mqtt://127.0.0.1:{port}" for port in nats.mqtt_ports],
        "[devices]\ndeduplicate = true",
        cluster_keys='version = "3.1.1"\nconnect_timeout_seconds = 5\nanswer_timeout_seconds = 5',
    )
    renewal = Renewal(domain, tmp_path / "svid", ingress)
    tap = Tap(all_readings(tmp_path))
    fleet: Fleet | None = None

    def arrived() -> int:
        return sum(
            path.read_bytes().count(b"\n") for path in (tmp_path / "ingest/data/output").glob("*.jsonl")
        )

    def more_arrive(count: int, what: str) -> None:
        wanted = min(arrived() + count, READINGS)
        until(lambda: arrived() >= wanted, f"{what}\n{gateway.log}\n{ingester.log}", PATIENCE_SECONDS)

    try:
        began_at = time.monotonic()
        nats.start()
        await ingress.start()
        await ingester.start()
        until(lambda: "granted the subscriptions" in ingester.log, ingester.log, PATIENCE_SECONDS)
        renewal.start()
        fleet = Fleet(
            tap,
            DEVICES,
            f"mqtt://127.0.0.1:{gateway.start().port}",
            speed=MAX_SPEED,
            spool_dir=tmp_path,
        ).start()
        more_arrive(1_000, "the first readings")
        until(lambda: handovers(gateway) >= 1, gateway.log)
        ingress.kill()
        acknowledged = fleet.stats.acknowledged
        until(lambda: fleet.stats.acknowledged > acknowledged + 500, "the devices have to wait")
        await ingress.start()
        more_arrive(1_000, "after the Envoy came back")
        taken = handovers(gateway)
        until(lambda: handovers(gateway) > taken, gateway.log)
        node = nats.node_of("gateway")
        assert node is not None
        nats.kill(node)
        killed_at = time.monotonic()
        more_arrive(1_000, "after a NATS node was killed")
        print(f"1,000 more {timed(killed_at)} after a node was killed")
        taken, came = handovers(gateway), len(connections(gateway))
        gateway.kill()
        gateway.start()
        tap.open()
        assert fleet.wait(PATIENCE_SECONDS), f"the devices' readings are not acknowledged: {fleet.stats}"
        published = {name: stats.published for name, stats in fleet.stats_by_device.items()}
        assert sum(published.values()) == READINGS
        until(lambda: arrived() >= READINGS, f"{arrived()}: {gateway.log}{ingester.log}", PATIENCE_SECONDS)
        status = ingester.status()
    finally:
        if fleet is not None:
            fleet.stop(flush_seconds=0)
        renewal.stop()
        exit_codes = gateway.stop(), ingester.stop()
        ingress.stop()
        nats.stop()
    lines = ingester.lines()
    counts = Counter(map(device_number, lines))
    print(
        f"{len(lines)} readings after {timed(began_at)}: {taken} renewals while connected, {came} connections before the "
        f"gateway was killed, {status['counters']}"
    )
    wanted = {(name, number) for name, count in published.items() for number in range(1, count + 1)}
    assert set(counts) == wanted, f"{len(wanted - set(counts))} are missing"
    assert max(counts.values()) == 1, f"{counts.total() - len(counts)} are there twice"
    assert contents(lines) == Counter(as_text(reading.as_dict()) for reading in all_readings(tmp_path))
    assert taken >= 2
    assert exit_codes == (0, 0)


def contents(lines: list[dict[str, Any]]) -> Counter[str]:
    return Counter(as_text(json.loads(line["payload"])) for line in lines)


def as_text(reading: dict[str, Any]) -> str:
    return json.dumps(reading, sort_keys=True)
