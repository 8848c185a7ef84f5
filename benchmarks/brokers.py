"""The brokers that can be measured, and how one is started, pinned to a core, and stopped.

A broker is a `Kind`: its name, its command, its configuration and what its PUBACK promises. Every start gets a fresh
directory and free loopback ports. A broker that does not start, or does not stop when told, raises with its log.
"""

import importlib.metadata
import os
import shutil
import signal
import socket
import subprocess
import sys
import time
from abc import ABC, abstractmethod
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from benchmarks.links import Address, Link
from benchmarks.wire import MQTT_3_1_1, BrokerMisbehaved

START_TIMEOUT_SECONDS = 20.0
STOP_TIMEOUT_SECONDS = 30.0
LOG_TAIL_BYTES = 2_000


class BrokerUnavailable(Exception):
    """The broker is not installed, did not start or did not stop; the text says what to do."""


@dataclass(frozen=True)
class Certificate:
    """Paths of a certificate and its key, in PEM."""

    certificate: Path
    key: Path


@dataclass(frozen=True)
class Upstream:
    """Where a bridge leads: over TLS if there is a `certificate`, the upstream's own, self-signed.

    `bridges`: edge-broker's bridges in full, TOML, in the place of the usual one. `patience_seconds`: how long each answer
    may take, where that is not to be the broker's default.
    """

    address: Address
    certificate: Path | None = None
    bridges: str = ""
    patience_seconds: float | None = None


@dataclass(frozen=True)
class Setup:
    """What one start needs. `tls` adds a listener with that certificate on `tls_address`, `upstream` a bridge.

    `commit_delay_ms`: where it is not to be the broker's default. `data_dir`: where the store is, if not in `directory`.
    """

    directory: Path
    address: Address
    tls_address: Address
    tls: Certificate | None
    upstream: Upstream | None
    commit_delay_ms: int | None = None
    data_dir: Path | None = None


class Kind(ABC):
    """One broker as it is measured."""

    name: str
    promise: str  # what its PUBACK says about a message for an offline persistent session
    settings: str  # what was configured, in a few words

    @abstractmethod
    def write_config(self, setup: Setup) -> Path:
        """Write the configuration file and return its path."""

    @abstractmethod
    def command(self, config: Path) -> list[str]:
        """What to execute; raises BrokerUnavailable where it is not installed."""

    @abstractmethod
    def version(self) -> str:
        """Its version, as it says itself; raises BrokerUnavailable where it is not installed."""

    def environment(self) -> dict[str, str]:
        return {}


class Mosquitto(Kind):
    name = "mosquitto"
    promise = "the message is in the broker's memory; a restart loses it (persistence false)"
    settings = "max_inflight_messages 0, max_queued_messages 0, persistence false, log_type error, set_tcp_nodelay true"

    def write_config(self, setup: Setup) -> Path:
        lines = [
            "per_listener_settings false",
            "allow_anonymous true",
            "max_inflight_messages 0",
            "max_queued_messages 0",
            "persistence false",
            "log_type error",
            "set_tcp_nodelay true",
            f"listener {setup.address[1]} {setup.address[0]}",
        ]
        if setup.tls:
            lines += [
                f"listener {setup.tls_address[1]} {setup.tls_address[0]}",
                f"certfile {setup.tls.certificate}",
                f"keyfile {setup.tls.key}",
            ]
        if setup.upstream:
            host, port = setup.upstream.address
            lines += [
                "connection bench",
                f"address {host}:{port}",
                "topic # out 1",
            ]
            if setup.upstream.certificate:
                lines.append(f"bridge_cafile {setup.upstream.certificate}")
        if os.geteuid() == 0:
            lines.append("user root")  # it would give root up, and then could not read its directory
        config = setup.directory / "mosquitto.conf"
        config.write_text("\n".join(lines) + "\n")
        return config

    def version(self) -> str:
        usage = subprocess.run(
            [*self.command(Path("any"))[:1], "-h"], capture_output=True, text=True, timeout=10
        )
        return usage.stdout.partition("\n")[0].removeprefix("mosquitto version ")

    def command(self, config: Path) -> list[str]:
        return [mosquitto_program(), "-c", str(config)]


def mosquitto_program() -> str:
    """Its path; BrokerUnavailable where it is not installed."""
    program = shutil.which("mosquitto") or shutil.which("mosquitto", path="/usr/sbin:/usr/local/sbin")
    if program is None:
        raise BrokerUnavailable("mosquitto is not installed (Debian: apt-get install mosquitto)")
    return program


class EdgeBroker(Kind):
    promise = "the message is committed and synced to disk; a power cut does not lose it"

    def __init__(self, name: str, event_loop: str, acl: str = "") -> None:
        self.name = name
        self.settings = f"defaults, on the {event_loop} event loop{', with an ACL' if acl else ''}"
        self._event_loop = event_loop
        self._acl = acl

    def write_config(self, setup: Setup) -> Path:
        lines = [f'data_dir = "{setup.data_dir or setup.directory / "data"}"']
        if self._acl:
            acl_file = setup.directory / "acl.toml"
            acl_file.write_text(self._acl)
            lines += ["[security]", f'acl_file = "{acl_file}"']
        lines += _listener("tcp", setup.address)
        if setup.tls:
            lines += [
                *_listener("tls", setup.tls_address),
                f'certificate = "{setup.tls.certificate}"',
                f'key = "{setup.tls.key}"',
            ]
        if setup.upstream:
            lines += [setup.upstream.bridges] if setup.upstream.bridges else _bridge(setup.upstream)
        if setup.commit_delay_ms is not None:
            lines += ["[store]", f"commit_delay_ms = {setup.commit_delay_ms}"]
        config = setup.directory / "edge-broker.toml"
        config.write_text("\n".join(lines) + "\n")
        return config

    def command(self, config: Path) -> list[str]:
        program = Path(sys.executable).parent / "edge-broker"
        if not program.exists():
            raise BrokerUnavailable(f"{program} is missing: install the project (make setup)")
        return [str(program), "run", "--config", str(config)]

    def version(self) -> str:
        return importlib.metadata.version("edge-broker")

    def environment(self) -> dict[str, str]:
        return {"EDGE_BROKER_LOOP": self._event_loop}


def _listener(transport: str, address: Address) -> list[str]:
    return [
        "[[listeners]]",
        f'transport = "{transport}"',
        f'bind = "{address[0]}:{address[1]}"',
        "anonymous = true",
    ]


def _bridge(upstream: Upstream) -> list[str]:
    host, port = upstream.address
    scheme = "mqtts" if upstream.certificate else "mqtt"
    lines = ["[[bridges]]", f'urls = ["{scheme}://{host}:{port}"]', 'out = [{ filter = "#" }]']
    if upstream.certificate:
        lines.append(f'ca = "{upstream.certificate}"')
    if upstream.patience_seconds is not None:
        waits = ("connect", "handshake", "connack", "puback")
        lines += [f"{wait}_timeout_seconds = {upstream.patience_seconds}" for wait in waits]
    return lines


_ACL = """
[roles.bench]
allow.publish = ["bench/#", "flood/#", "steady/#"]
allow.subscribe = ["bench/#", "steady/#"]
deny.publish = ["bench/+/private"]
deny.receive = ["bench/+/private"]
[identities]
anonymous = ["bench"]
"""

KINDS: dict[str, Kind] = {
    "edge-broker": EdgeBroker("edge-broker", "uvloop"),
    "edge-broker-asyncio": EdgeBroker("edge-broker-asyncio", "asyncio"),
    "mosquitto": Mosquitto(),
    "edge-broker-acl": EdgeBroker("edge-broker-acl", "uvloop", _ACL),
}
USUAL = ("edge-broker", "edge-broker-asyncio", "mosquitto")
"""Those that are compared unless others are asked for."""


@dataclass(frozen=True)
class RunningBroker:
    """`start_seconds`: from the start of its process until it answered a CONNECT."""

    pid: int
    address: Address
    tls_address: Address
    start_seconds: float = 0.0


@contextmanager
def running(
    kind: Kind,
    directory: Path,
    core: int | None,
    tls: Certificate | None = None,
    upstream: Upstream | None = None,
    commit_delay_ms: int | None = None,
    data_dir: Path | None = None,
) -> Iterator[RunningBroker]:
    """A fresh broker, answering CONNECT, on `core` (None: anywhere); stopped at the end, whatever happens."""
    directory.mkdir(parents=True)
    address, tls_address = _free_addresses()
    setup = Setup(directory, address, tls_address, tls, upstream, commit_delay_ms, data_dir)
    command = kind.command(kind.write_config(setup))
    if core is not None:
        command = ["taskset", "--cpu-list", str(core), *command]  # before its first thread begins
    log = directory / "log"
    began = time.monotonic()
    with log.open("wb") as sink:
        process = subprocess.Popen(
            command,
            stdin=subprocess.DEVNULL,
            stdout=sink,
            stderr=sink,
            env=_environment(kind),
        )
    try:
        _wait_until_ready(kind, process, setup, log)
        start_seconds = time.monotonic() - began
        yield RunningBroker(process.pid, setup.address, setup.tls_address, start_seconds)
        _stop(kind, process, log)
    except (BrokerMisbehaved, OSError) as error:
        state = "runs still" if process.poll() is None else f"ended with code {process.returncode}"
        raise BrokerMisbehaved(
            f"{error or type(error).__name__}; {kind.name} {state}. Its log: {_tail(log)}"
        ) from error
    finally:
        if process.poll() is None:
            process.kill()
            process.wait()


def _environment(kind: Kind) -> dict[str, str]:
    """This process's, without what would win over the configuration that was just written."""
    inherited = {name: value for name, value in os.environ.items() if not name.startswith("EDGE_BROKER_")}
    return {**inherited, **kind.environment()}


def _free_addresses() -> tuple[Address, Address]:
    with socket.create_server(("127.0.0.1", 0)) as first, socket.create_server(("127.0.0.1", 0)) as second:
        return first.getsockname(), second.getsockname()


def _wait_until_ready(kind: Kind, process: subprocess.Popen[bytes], setup: Setup, log: Path) -> None:
    deadline = time.monotonic() + START_TIMEOUT_SECONDS
    problem: Exception | None = None
    while time.monotonic() < deadline:
        if process.poll() is not None:
            raise BrokerUnavailable(f"{kind.name} did not start, code {process.returncode}:\n{_tail(log)}")
        try:
            Link(setup.address, "ready", MQTT_3_1_1).close()
            if setup.tls:
                socket.create_connection(setup.tls_address, 1).close()
            return
        except (OSError, BrokerMisbehaved) as error:
            problem = error
            time.sleep(0.02)
    raise BrokerUnavailable(f"{kind.name} does not answer CONNECT ({problem}):\n{_tail(log)}")


def _stop(kind: Kind, process: subprocess.Popen[bytes], log: Path) -> None:
    if process.poll() is not None:
        raise BrokerUnavailable(f"{kind.name} ended by itself, code {process.returncode}:\n{_tail(log)}")
    process.send_signal(signal.SIGTERM)
    try:
        process.wait(STOP_TIMEOUT_SECONDS)
    except subprocess.TimeoutExpired:
        raise BrokerUnavailable(f"{kind.name} did not stop on SIGTERM:\n{_tail(log)}") from None


def _tail(log: Path) -> str:
    return log.read_bytes()[-LOG_TAIL_BYTES:].decode(errors="replace").strip() or "(it logged nothing)"
