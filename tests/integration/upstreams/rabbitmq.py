"""A real RabbitMQ cluster of three nodes with the MQTT plugin, each a process that can be killed.

The nodes are this test's alone: files in its directory, ports of loopback, a cookie and an epmd of their own. Debian's
service is not touched. Their configuration is the one that `docs/upstreams.md` has.
"""

from __future__ import annotations

import os
import re
import secrets
import signal
import socket
import subprocess
from pathlib import Path

from edge_broker.cli.demo.stage import free_ports
from tests.conftest import do_without
from tests.deploy.conftest import CHECKOUT
from tests.integration.broker_process import until

NODES = 3
_START_SECONDS = 120.0
_SERVER = "/usr/lib/rabbitmq/bin/rabbitmq-server"  # the one in the PATH steps down to the service's own user


def documented_config() -> str:
    """The configuration of a node, as the page about upstreams has it."""
    page = (CHECKOUT / "docs" / "upstreams.md").read_text()
    found = re.search(r"^```ini\n(# rabbitmq\.conf.*?)^```$", page, re.MULTILINE | re.DOTALL)
    assert found is not None, "docs/upstreams.md has no configuration for RabbitMQ"
    return found[1]


class RabbitCluster:
    """`mqtt_ports`: by node, where it speaks MQTT 3.1.1."""

    def __init__(self, directory: Path) -> None:
        directory.mkdir(parents=True)
        self._directory = directory
        ports = free_ports(3 * NODES + 1)
        self.mqtt_ports, self._amqp_ports, self._distribution_ports = ports[:3], ports[3:6], ports[6:9]
        self._epmd_port = ports[9]
        cookie = directory / ".erlang.cookie"
        cookie.write_text(secrets.token_hex(16))
        cookie.chmod(0o400)
        self._epmd: subprocess.Popen[bytes] | None = None
        self._processes: list[subprocess.Popen[bytes] | None] = [None] * NODES

    def start(self) -> RabbitCluster:
        """Start all of them and wait until each speaks MQTT: then they are one cluster."""
        if not Path(_SERVER).exists():
            do_without(f"needs RabbitMQ as Debian installs it, at {_SERVER}")
        log = (self._directory / "epmd.log").open("ab")
        with log:
            command = ["epmd", "-port", str(self._epmd_port), "-address", "127.0.0.1"]
            self._epmd = subprocess.Popen(command, env=self._environ(), stdout=log, stderr=log)
        until(lambda: _answers(self._epmd_port), "epmd did not start")
        for node in range(NODES):
            self._start_node(node)
            # Three that ask for the cluster's lock at once wait for each other for many seconds.
            until(lambda one=node: self._has_loaded(one), self.logs(), _START_SECONDS)  # type: ignore[misc]
        until(lambda: all(map(self._is_up, range(NODES))), self.logs(), _START_SECONDS)
        return self

    def _start_node(self, node: int) -> None:
        directory = self._directory / f"node-{node}"
        directory.mkdir()
        text = documented_config()
        for old, new in {
            "0.0.0.0:1883": f"127.0.0.1:{self.mqtt_ports[node]}",
            "rabbit@mq-1.example.com": _name(0),
            "rabbit@mq-2.example.com": _name(1),
            "rabbit@mq-3.example.com": _name(2),
        }.items():
            assert old in text, f"docs/upstreams.md has no {old}"
            text = text.replace(old, new)
        config = directory / "rabbitmq.conf"
        config.write_text(f"{text}listeners.tcp.1 = 127.0.0.1:{self._amqp_ports[node]}\n")
        (directory / "enabled_plugins").write_text("[rabbitmq_mqtt].\n")
        own = {
            "RABBITMQ_NODENAME": _name(node),
            "RABBITMQ_USE_LONGNAME": "true",
            "RABBITMQ_DIST_PORT": str(self._distribution_ports[node]),
            "RABBITMQ_CONF_ENV_FILE": os.devnull,
            "RABBITMQ_CONFIG_FILE": str(config),
            "RABBITMQ_ADVANCED_CONFIG_FILE": str(directory / "advanced.config"),
            "RABBITMQ_ENABLED_PLUGINS_FILE": str(directory / "enabled_plugins"),
            "RABBITMQ_FEATURE_FLAGS_FILE": str(directory / "feature_flags"),
            "RABBITMQ_MNESIA_BASE": str(directory / "mnesia"),
            "RABBITMQ_LOG_BASE": str(directory / "log"),
            "RABBITMQ_PID_FILE": str(directory / "pid"),
            "RABBITMQ_ALLOW_INPUT": "1",  # has the script become the node, so that its pid is ours
        }
        with (directory / "output").open("ab") as out:
            self._processes[node] = subprocess.Popen(
                [_SERVER, "-noinput", "-noshell"],
                env=self._environ() | own,
                stdin=subprocess.DEVNULL,
                stdout=out,
                stderr=out,
            )

    def node_at(self, port: int) -> int:
        """The node that speaks MQTT there."""
        return self.mqtt_ports.index(port)

    def send(self, node: int, number: signal.Signals) -> None:
        """A signal to one node."""
        process = self._processes[node]
        assert process is not None
        process.send_signal(number)

    def kill(self, node: int) -> None:
        """kill -9."""
        process, self._processes[node] = self._processes[node], None
        if process is not None:
            process.kill()
            process.wait(20)

    def stop(self) -> None:
        """Whatever of it runs."""
        for node in range(NODES):
            self.kill(node)
        epmd, self._epmd = self._epmd, None
        if epmd is not None:
            epmd.kill()
            epmd.wait(20)

    def logs(self) -> str:
        """Where they are."""
        return f"RabbitMQ: see {self._directory}/node-*/log"

    def _has_loaded(self, node: int) -> bool:
        """Whether it begins to boot: loading its code is what takes longest."""
        self._check_that_it_runs(node)
        log = self._directory / f"node-{node}" / "log" / f"{_name(node)}.log"
        return log.exists() and "Running boot step" in log.read_text(errors="replace")

    def _check_that_it_runs(self, node: int) -> None:
        process = self._processes[node]
        assert process is not None
        assert process.poll() is None, (self._directory / f"node-{node}" / "output").read_text()

    def _is_up(self, node: int) -> bool:
        self._check_that_it_runs(node)
        return _answers(self.mqtt_ports[node])

    def _environ(self) -> dict[str, str]:
        """Of the machine's settings only the way to programs: no other node's, no other cookie."""
        return {
            "PATH": os.environ["PATH"],
            "HOME": str(self._directory),
            "LANG": "C.UTF-8",
            "ERL_EPMD_PORT": str(self._epmd_port),
            "ERL_EPMD_ADDRESS": "127.0.0.1",
        }


def _name(node: int) -> str:
    return f"edge-test-{node}@127.0.0.1"


def _answers(port: int) -> bool:
    with socket.socket() as probe:
        return probe.connect_ex(("127.0.0.1", port)) == 0
