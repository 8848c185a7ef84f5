"""mosquitto behind a real Envoy that is killed: nothing is lost, and what comes twice is no more than the window."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.bridge.envoy import MeshIngress
from tests.bridge.real import Mosquitto
from tests.bridge.svids import TrustDomain
from tests.integration.broker_process import BrokerProcess
from tests.integration.upstreams.line import BROKER_PATH, WINDOW, bridge_table, connections, meshed_keys
from tests.integration.upstreams.traffic import Reader, Sender


@pytest.mark.needs("mosquitto")
async def test_an_envoy_that_is_killed(tmp_path: Path) -> None:
    domain = TrustDomain("cluster.example")
    broker = await Mosquitto(tmp_path / "broker", persistent=True).start()
    ingress = MeshIngress(tmp_path / "ingress", domain.issue(BROKER_PATH), domain, broker.port)
    gateway = BrokerProcess(
        tmp_path / "gateway", bridge_table([ingress.url], meshed_keys(tmp_path / "svid", domain))
    )
    try:
        await ingress.start()
        reader = Reader(broker.port)
        sender = Sender(gateway.start().port).start()
        reader.reads(500, gateway.log)
        ingress.kill()
        sender.sends(500)
        await ingress.start()
        reader.reads(1_000, gateway.log)
        count = sender.stop()
        reader.has_all(count, gateway.log)
        print(f"{count} messages, {reader.duplicates} came twice, {len(connections(gateway))} connections")
        assert reader.duplicates <= WINDOW
        assert reader.order == sorted(reader.order)
        assert len(connections(gateway)) == 2
        assert gateway.stop() == 0
        reader.leave()
    finally:
        gateway.stop()
        ingress.stop()
        broker.stop()
