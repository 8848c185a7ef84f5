"""Another edge-broker as upstream, killed with kill -9: whatever it acknowledged it has."""

from __future__ import annotations

from pathlib import Path

from tests.integration.broker_process import BrokerProcess
from tests.integration.upstreams.line import WINDOW, bridge_table, connections
from tests.integration.upstreams.traffic import Reader, Sender


def test_an_edge_broker_that_is_killed(tmp_path: Path) -> None:
    """What came twice bears the same origin: an ingester would have known it."""
    upstream = BrokerProcess(tmp_path / "upstream").start()
    gateway = BrokerProcess(tmp_path / "gateway", bridge_table([f"mqtt://127.0.0.1:{upstream.port}"]))
    try:
        reader = Reader(upstream.port)
        sender = Sender(gateway.start().port).start()
        reader.reads(500, gateway.log)
        upstream.kill()
        sender.sends(500)
        upstream.start()
        reader.reads(1_000, gateway.log)
        count = sender.stop()
        reader.has_all(count, gateway.log)
        print(f"{count} messages, {reader.duplicates} came twice, {len(connections(gateway))} connections")
        assert reader.duplicates <= 2 * WINDOW  # the bridge's, and what the reader had not acknowledged
        assert reader.order == sorted(reader.order)
        assert len(reader.origins) == count
        assert gateway.stop() == 0
        reader.leave()
        assert upstream.stop() == 0
    finally:
        gateway.stop()
        upstream.stop()
