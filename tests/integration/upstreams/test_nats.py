"""A NATS cluster behind a real Envoy: the node that the bridge is connected to is killed."""

from __future__ import annotations

import time
from pathlib import Path

import pytest

from tests.bridge.envoy import ClusterIngress
from tests.bridge.svids import TrustDomain
from tests.integration.broker_process import BrokerProcess, until
from tests.integration.upstreams.line import BROKER_PATH, WINDOW, bridge_table, connections, meshed_keys
from tests.integration.upstreams.nats import NODES, NatsCluster
from tests.integration.upstreams.traffic import V3, Reader, Sender, timed


@pytest.mark.needs("nats-server")
@pytest.mark.slow
@pytest.mark.timeout(300)
async def test_a_node_that_is_killed(tmp_path: Path) -> None:
    domain = TrustDomain("cluster.example")
    nats = NatsCluster(tmp_path / "nats")
    ingress = ClusterIngress(tmp_path / "ingress", domain.issue(BROKER_PATH), domain, nats.mqtt_ports)
    keys = meshed_keys(tmp_path / "svid", domain) + '\nversion = "3.1.1"'
    gateway = BrokerProcess(tmp_path / "gateway", bridge_table([ingress.url], keys))
    try:
        nats.start()
        await ingress.start()
        sender = Sender(gateway.start().port)
        until(lambda: bool(connections(gateway)), gateway.log)  # an attempt that fails has a node too
        until(lambda: nats.node_of("gateway") is not None, gateway.log)
        node = nats.node_of("gateway")
        assert node is not None
        reader = Reader(nats.mqtt_ports[(node + 1) % NODES], version=V3)
        sender.start()
        reader.reads(500, gateway.log)
        nats.kill(node)
        killed_at = time.monotonic()
        reader.reads(1_000, gateway.log)
        away = timed(killed_at)
        count = sender.stop()
        reader.has_all(count, gateway.log)
        came = len(connections(gateway))
        print(
            f"{count} messages, {reader.duplicates} came twice, {came} connections, 1,000 more after {away}"
        )
        assert reader.duplicates <= WINDOW * came
        assert came >= 2
        assert gateway.stop() == 0
        reader.leave()
    finally:
        gateway.stop()
        ingress.stop()
        nats.stop()
