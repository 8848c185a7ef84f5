"""The demo's stage: a gateway broker and a stand-in cluster broker, two processes with a bridge between them over mTLS.

Everything lives in one directory made for the demo, certificates included. Both are the real `edge-broker run`.
"""

from __future__ import annotations

import signal
import socket
import subprocess
import sys
import time
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Final

from edge_broker.security.authority import Authority

START_TIMEOUT_SECONDS: Final = 20.0
STOP_TIMEOUT_SECONDS: Final = 10.0
REMOTE_PREFIX: Final = "gateways/demo/"


class DemoError(Exception):
    """The demo cannot go on; the text says why and what to do."""


class BrokerProcess:
    """One `edge-broker run` with its configuration file, log and port."""

    def __init__(self, name: str, config: Path, log: Path, port: int) -> None:
        self.name = name
        self.port = port
        self._config = config
        self._log = log
        self._process: subprocess.Popen[bytes] | None = None

    @property
    def running(self) -> bool:
        """Whether the process lives."""
        return self._process is not None and self._process.poll() is None

    def start(self) -> None:
        """Start it and wait until its port answers."""
        command = [sys.executable, "-m", "edge_broker", "run", "--config", str(self._config)]
        with self._log.open("ab") as log:
            self._process = subprocess.Popen(  # noqa: S603 - this program itself, with files that it wrote
                command, stdin=subprocess.DEVNULL, stdout=log, stderr=log, start_new_session=True
            )
        deadline = time.monotonic() + START_TIMEOUT_SECONDS
        while time.monotonic() < deadline:
            if not self.running:
                raise DemoError(f"the {self.name} did not start:\n{self.log_tail()}")
            try:
                socket.create_connection(("127.0.0.1", self.port), 1.0).close()
                return
            except OSError:
                time.sleep(0.05)
        raise DemoError(f"the {self.name} does not answer on port {self.port}:\n{self.log_tail()}")

    def stop(self) -> None:
        """Stop it, kindly first."""
        process, self._process = self._process, None
        if process is None or process.poll() is not None:
            return
        process.send_signal(signal.SIGTERM)
        try:
            process.wait(STOP_TIMEOUT_SECONDS)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()

    def log_tail(self) -> str:
        """The last lines of its log."""
        text = self._log.read_text(errors="replace") if self._log.exists() else ""
        return "\n".join(text.splitlines()[-8:]) or "(it logged nothing)"


class Stage:
    """The two brokers, their certificates and configuration in `directory`; `port` is the gateway's."""

    def __init__(self, directory: Path, port: int) -> None:
        require_free(port)
        self.http_port, upstream_port = free_ports(2)
        self.directory = directory
        now = datetime.now(UTC)
        lifetime = timedelta(days=1)
        authority = Authority("edge-broker demo CA", now, lifetime)
        self.ca = directory / "ca.crt"
        self.ca.write_bytes(authority.certificate)
        authority.issue("cluster", now, lifetime, hosts=("127.0.0.1", "localhost")).write(
            directory, "cluster"
        )
        authority.issue("gateway-1", now, lifetime).write(directory, "gateway")
        authority.issue("operator", now, lifetime).write(directory, "operator")
        self.gateway = self._broker("gateway", port, self._gateway_config(port, upstream_port))
        self.upstream = self._broker("upstream", upstream_port, self._upstream_config(upstream_port))

    def start(self) -> None:
        """Start both, the upstream first."""
        self.upstream.start()
        self.gateway.start()

    def stop(self) -> None:
        """Stop both, the gateway first."""
        self.gateway.stop()
        self.upstream.stop()

    def _broker(self, name: str, port: int, config: str) -> BrokerProcess:
        path = self.directory / f"{name}.toml"
        path.write_text(config)
        return BrokerProcess(name, path, self.directory / f"{name}.log", port)

    def _gateway_config(self, port: int, upstream_port: int) -> str:
        return f"""\
data_dir = "{self.directory}/gateway-data"

[[listeners]]
bind = "127.0.0.1:{port}"

[http]
bind = "127.0.0.1:{self.http_port}"

[[bridges]]
name = "cluster"
urls = ["mqtts://127.0.0.1:{upstream_port}"]
ca = "{self.ca}"
certificate = "{self.directory}/gateway.crt"
key = "{self.directory}/gateway.key"
backoff_max_seconds = 2
out = [{{ filter = "devices/#", remote_prefix = "{REMOTE_PREFIX}" }}]
"""

    def _upstream_config(self, port: int) -> str:
        return f"""\
data_dir = "{self.directory}/upstream-data"

[[listeners]]
transport = "tls"
bind = "127.0.0.1:{port}"
certificate = "{self.directory}/cluster.crt"
key = "{self.directory}/cluster.key"
client_ca = "{self.ca}"
"""


def require_free(port: int) -> None:
    """Raise `DemoError` if `port` on loopback is taken."""
    with socket.socket() as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind(("127.0.0.1", port))
        except OSError as error:
            raise DemoError(
                f"port {port} on 127.0.0.1 cannot be used ({error.strerror}): stop what uses it (often another MQTT "
                f"broker), or choose another one with --port, as in: make run ARGS='--port {port + 10_000}'"
            ) from None


def free_ports(count: int) -> list[int]:
    """Ports on loopback that nobody listens on now."""
    probes = [socket.create_server(("127.0.0.1", 0)) for _ in range(count)]
    try:
        return [int(probe.getsockname()[1]) for probe in probes]
    finally:
        for probe in probes:
            probe.close()
