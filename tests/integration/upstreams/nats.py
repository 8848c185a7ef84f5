"""A real NATS cluster of three nodes with JetStream and MQTT, each a process that can be killed and started again.

Its configuration is the one that `docs/upstreams.md` has; only names, ports and paths are the test's own.
"""

from __future__ import annotations

import json
import re
import signal
import subprocess
import urllib.error
import urllib.request
from pathlib import Path
from typing import Any

from edge_broker.cli.demo.stage import free_ports
from tests.conftest import find_program
from tests.deploy.conftest import CHECKOUT
from tests.integration.broker_process import until

NODES = 3
_START_SECONDS = 60.0


def documented_config() -> str:
    """The configuration of a node, as the page about upstreams has it."""
    page = (CHECKOUT / "docs" / "upstreams.md").read_text()
    found = re.search(r"^```conf\n(# nats-server\.conf.*?)^```$", page, re.MULTILINE | re.DOTALL)
    assert found is not None, "docs/upstreams.md has no configuration for NATS"
    return found[1]


class NatsCluster:
    """`mqtt_ports`: by node, where it speaks MQTT 3.1.1."""

    def __init__(self, directory: Path) -> None:
        directory.mkdir(parents=True)
        self._directory = directory
        ports = free_ports(4 * NODES)
        self.mqtt_ports, self._http_ports = ports[:NODES], ports[NODES : 2 * NODES]
        self._processes: list[subprocess.Popen[bytes] | None] = [None] * NODES
        clients, routes = ports[2 * NODES : 3 * NODES], ports[3 * NODES :]
        for node in range(NODES):
            text = documented_config()
            for old, new in {
                "nats-1\n": f"nats-{node}\n",
                "/var/lib/nats": f"{directory}/nats-{node}",
                "0.0.0.0:1883": f"127.0.0.1:{self.mqtt_ports[node]}",
                "0.0.0.0:4222": f"127.0.0.1:{clients[node]}",
                "0.0.0.0:6222": f"127.0.0.1:{routes[node]}",
                "127.0.0.1:8222": f"127.0.0.1:{self._http_ports[node]}",
                "nats://nats-2.example.com:6222": f"nats://127.0.0.1:{routes[(node + 1) % NODES]}",
                "nats://nats-3.example.com:6222": f"nats://127.0.0.1:{routes[(node + 2) % NODES]}",
            }.items():
                assert old in text, f"docs/upstreams.md has no {old}"
                text = text.replace(old, new)
            self._config(node).write_text(text)

    def start(self) -> NatsCluster:
        """Start all and wait until they have found each other."""
        for node in range(NODES):
            self.start_node(node)
        until(lambda: all(map(self._is_well, range(NODES))), self.logs(), _START_SECONDS)
        return self

    def start_node(self, node: int) -> None:
        """Start one, without waiting for anything."""
        program = find_program("nats-server")
        assert program is not None
        with self._log(node).open("ab") as log:
            self._processes[node] = subprocess.Popen(
                [program, "-c", self._config(node)], stdout=log, stderr=log
            )

    def node_of(self, client_id: str) -> int | None:
        """Which node that client of MQTT is connected to now."""
        for node in range(NODES):
            if self._processes[node] is not None:
                clients = self._ask(node, "/connz")["connections"]
                if any(client.get("mqtt_client") == client_id for client in clients):
                    return node
        return None

    def kill(self, node: int) -> None:
        """kill -9."""
        self._end(node, signal.SIGKILL)

    def stop(self) -> None:
        """Whatever of it runs."""
        for node in range(NODES):
            self._end(node, signal.SIGKILL)

    def logs(self) -> str:
        """Where they are."""
        return f"NATS: see {self._directory}/*.log"

    def _end(self, node: int, number: signal.Signals) -> None:
        process, self._processes[node] = self._processes[node], None
        if process is not None:
            process.send_signal(number)
            process.wait(20)

    def _is_well(self, node: int) -> bool:
        process = self._processes[node]
        assert process is not None
        assert process.poll() is None, self._log(node).read_text()
        try:
            return self._ask(node, "/healthz")["status"] == "ok"
        except (urllib.error.URLError, ConnectionError):
            return False

    def _ask(self, node: int, path: str) -> dict[str, Any]:
        with urllib.request.urlopen(f"http://127.0.0.1:{self._http_ports[node]}{path}", timeout=5) as answer:
            return json.load(answer)  # type: ignore[no-any-return]

    def _config(self, node: int) -> Path:
        return self._directory / f"nats-{node}.conf"

    def _log(self, node: int) -> Path:
        return self._directory / f"nats-{node}.log"
