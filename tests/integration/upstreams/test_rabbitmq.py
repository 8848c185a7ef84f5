"""A RabbitMQ cluster: the node that the bridge is connected to hangs, and then the one that it went to is killed."""

from __future__ import annotations

import signal
import time
from pathlib import Path

import pytest

from tests.integration.broker_process import BrokerProcess, until
from tests.integration.upstreams.line import WINDOW, bridge_table, connections
from tests.integration.upstreams.rabbitmq import RabbitCluster
from tests.integration.upstreams.traffic import V3, Reader, Sender, timed


def connected_node(cluster: RabbitCluster, gateway: BrokerProcess) -> int:
    return cluster.node_at(int(connections(gateway)[-1].rpartition(":")[2]))


@pytest.mark.needs("rabbitmqctl", "epmd")
@pytest.mark.slow
@pytest.mark.timeout(300)
def test_a_node_that_hangs_and_one_that_is_killed(tmp_path: Path) -> None:
    cluster = RabbitCluster(tmp_path / "rabbitmq")
    # In this order, so that it is never the node that the reader is at.
    ranked = ", ".join(
        f'{{ url = "mqtt://127.0.0.1:{port}", priority = {rank} }}'
        for rank, port in enumerate(cluster.mqtt_ports)
    )
    keys = f'upstreams = [{ranked}]\nversion = "3.1.1"'
    gateway = BrokerProcess(tmp_path / "gateway", bridge_table([], keys))
    try:
        began_at = time.monotonic()
        cluster.start()
        print(f"three nodes after {timed(began_at)}")
        sender = Sender(gateway.start().port)
        until(lambda: connections(gateway), gateway.log)
        assert connected_node(cluster, gateway) == 0
        reader = Reader(cluster.mqtt_ports[2], version=V3)
        sender.start()
        reader.reads(500, gateway.log)
        cluster.send(0, signal.SIGSTOP)
        stopped_at = time.monotonic()
        until(lambda: len(connections(gateway)) > 1, gateway.log)
        reader.reads(500, gateway.log)
        print(f"one hung: 500 more after {timed(stopped_at)}")
        cluster.send(0, signal.SIGCONT)
        assert connected_node(cluster, gateway) == 1
        cluster.kill(1)
        killed_at = time.monotonic()
        reader.reads(500, gateway.log)
        print(f"one killed: 500 more after {timed(killed_at)}")
        count = sender.stop()
        reader.has_all(count, gateway.log)
        came = len(connections(gateway))
        print(f"{count} messages, {reader.duplicates} came twice, {came} connections")
        assert reader.duplicates <= WINDOW * came
        assert gateway.stop() == 0
        reader.leave()
    finally:
        gateway.stop()
        cluster.stop()
