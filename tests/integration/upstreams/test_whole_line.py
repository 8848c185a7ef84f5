"""The whole line to a cluster, on every recorded reading: device SDK → edge-broker → bridge → mutual TLS by SPIFFE ID →
Envoy → NATS, three nodes → ingester → files.

On the way the Envoy is killed and started again, a NATS node is killed for good, and all certificates are renewed again and
again while connected. In the files each reading is once: none is missing, none is there twice.

NATS speaks MQTT 3.1.1, which has no place for an origin: readings go in envelopes.
"""

from __future__ import annotations

import json
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

READINGS_PER_SECOND = 800
"""So that something is on its way whatever happens: all of them would be through in five seconds."""
_AT_ONCE = 20


def paced(readings: Iterator[RecordedReading]) -> Iterator[RecordedReading]:
    """The same ones, at that rate."""
    began_at = time.monotonic()
    for number, reading in enumerate(readings):
        if number % _AT_ONCE == 0:
            time.sleep(max(0.0, began_at + number / READINGS_PER_SECOND - time.monotonic()))
        yield reading


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
        cluster_keys='version = "3.1.1"\nconnect_timeout_seconds = 5\nanswer_timeout_seconds = 5',
    )
    renewal = Renewal(domain, tmp_path / "svid", ingress)
    fleet: Fleet | None = None

    def arrived() -> int:
        return sum(
            path.read_bytes().count(b"\n") for path in (tmp_path / "ingest/data/output").glob("*.jsonl")
        )

    def more_arrive(count: int, what: str) -> None:
        wanted = arrived() + count
        until(lambda: arrived() >= wanted, f"{what}\n{gateway.log}\n{ingester.log}", PATIENCE_SECONDS)

    try:
        began_at = time.monotonic()
        nats.start()
        await ingress.start()
        await ingester.start()
        until(lambda: "granted the subscriptions" in ingester.log, ingester.log, PATIENCE_SECONDS)
        renewal.start()
        fleet = Fleet(
            paced(all_readings(tmp_path)),
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
        f"{len(lines)} readings after {timed(began_at)}: {handovers(gateway)} renewals while connected, "
        f"{len(connections(gateway))} connections, {status['counters']}"
    )
    wanted = {(name, number) for name, count in published.items() for number in range(1, count + 1)}
    assert set(counts) == wanted, f"{len(wanted - set(counts))} are missing"
    assert max(counts.values()) == 1, f"{counts.total() - len(counts)} are there twice"
    assert contents(lines) == Counter(as_text(reading.as_dict()) for reading in all_readings(tmp_path))
    assert handovers(gateway) >= 2
    assert exit_codes == (0, 0)


def contents(lines: list[dict[str, Any]]) -> Counter[str]:
    return Counter(as_text(json.loads(line["payload"])) for line in lines)


def as_text(reading: dict[str, Any]) -> str:
    return json.dumps(reading, sort_keys=True)
