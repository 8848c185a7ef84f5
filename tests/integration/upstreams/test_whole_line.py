"""The whole line to a cluster, on every recorded reading: device SDK → edge-broker → bridge → mutual TLS by SPIFFE ID →
Envoy → NATS, three nodes → ingester → files.

On the way the Envoy is killed and started again, a NATS node is killed for good, the gateway is killed and started
again, and all certificates are renewed again and again while connected. In the files each reading is once: none is
missing, none is there twice. What the line sends twice is known by its origin, what a device sends twice by the device's
own number.

NATS speaks MQTT 3.1.1, which has no place for an origin: readings go in envelopes.
"""

from __future__ import annotations

import json
import time
from collections import Counter
from pathlib import Path

import pytest

from devices.fleet import Fleet
from tests.crash.test_whole_line import READINGS, all_readings
from tests.integration.broker_process import until
from tests.integration.upstreams.line import connections
from tests.integration.upstreams.traffic import PATIENCE_SECONDS, timed
from tests.integration.upstreams.whole_line import WholeLine, as_text, device_number, readings


@pytest.mark.needs("nats-server")
@pytest.mark.slow
@pytest.mark.timeout(400)
async def test_every_reading_is_once_in_the_ingesters_files(tmp_path: Path) -> None:
    line = WholeLine(tmp_path)
    began_at = time.monotonic()
    try:
        fleet = await line.start()
        line.more_arrive(1_000, "the first readings")
        until(lambda: line.renewals >= 1, line.logs, PATIENCE_SECONDS)
        await lose_the_envoy(line, fleet)
        before = line.renewals
        until(lambda: line.renewals > before, line.logs, PATIENCE_SECONDS)
        lose_a_nats_node(line)
        renewals, came = line.renewals, len(connections(line.gateway))
        line.gateway.kill()
        line.gateway.start()
        line.tap.open()
        assert fleet.wait(PATIENCE_SECONDS), f"the devices' readings are not acknowledged: {fleet.stats}"
        line.all_arrive()
        told = line.by_origin.status()["counters"], line.by_device.status()["counters"]
    finally:
        exit_codes = line.stop()
    print(
        f"{READINGS} readings after {timed(began_at)}; before the gateway was killed {renewals} certificates were renewed "
        f"while connected, and the bridge connected {came} times; {told[0]['duplicates']} duplicates known by their "
        f"origin, {told[1]['device_duplicates']} by the device's number"
    )
    check_what_came(line, fleet, told[1]["device_duplicates"])
    assert renewals >= 2
    assert exit_codes == (0, 0, 0)


async def lose_the_envoy(line: WholeLine, fleet: Fleet) -> None:
    """The gateway takes on meanwhile."""
    line.ingress.kill()
    acknowledged = fleet.stats.acknowledged
    until(lambda: fleet.stats.acknowledged > acknowledged + 500, "the devices have to wait")
    await line.ingress.start()
    line.more_arrive(1_000, "the Envoy came back")


def lose_a_nats_node(line: WholeLine) -> None:
    """For good: the one that the bridge is connected to."""
    until(lambda: line.nats.node_of("gateway") is not None, line.logs)
    node = line.nats.node_of("gateway")
    assert node is not None
    line.nats.kill(node)
    killed_at = time.monotonic()
    line.more_arrive(1_000, "a NATS node was killed")
    print(f"1,000 more {timed(killed_at)} after a node was killed")


def check_what_came(line: WholeLine, fleet: Fleet, repeated: int) -> None:
    """`repeated`: readings that devices handed to the gateway twice, as the ingester that knows their numbers tells."""
    published = {name: stats.published for name, stats in fleet.stats_by_device.items()}
    assert sum(published.values()) == READINGS
    wanted = {(name, number) for name, count in published.items() for number in range(1, count + 1)}
    origins = Counter(line.by_origin.keys())
    assert max(origins.values()) == 1, f"{origins.total() - len(origins)} are there twice"
    by_origin = Counter(map(device_number, readings(line.by_origin)))
    assert set(by_origin) == wanted, f"{len(wanted - set(by_origin))} are missing"
    assert by_origin.total() - READINGS == repeated
    lines = readings(line.by_device)
    by_device = Counter(map(device_number, lines))
    assert set(by_device) == wanted, f"{len(wanted - set(by_device))} are missing"
    assert max(by_device.values()) == 1, f"{by_device.total() - len(by_device)} are there twice"
    sent = Counter(as_text(reading.as_dict()) for reading in all_readings(line.directory))
    assert Counter(as_text(json.loads(one["payload"])) for one in lines) == sent
