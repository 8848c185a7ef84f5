"""A reconnect storm against a real broker process, and what clients that are connected notice of it.

`python -m tests.security.storm 2000` prints the figures; `test_storm` runs it small. The broker is a process of its own,
and so is the load: this one.
"""

from __future__ import annotations

import asyncio
import re
import resource
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import psutil

from edge_broker.security.hashing import Argon2Hash
from edge_broker.wire import const
from edge_broker.wire.encoder import encode_connect, encode_publish, encode_subscribe
from edge_broker.wire.packets import Connect, SubscriptionRequest
from tests.secrets import secret

PASSWORD = secret("correct horse battery staple").encode()
WAIT_SECONDS = 300.0
_PROBES = 5
_PROBE_SECONDS = 0.01
_CONFIG = """
data_dir = "data"
[[listeners]]
bind = "127.0.0.1:0"
anonymous = false
[security]
password_file = "passwords"
"""


class PasswordBroker:
    """A broker process whose one listener wants passwords: those in `folder`/passwords."""

    def __init__(self, folder: Path) -> None:
        self._log = folder / "log"
        config = folder / "edge-broker.toml"
        config.write_text(_CONFIG)
        with self._log.open("wb") as log:
            self.process = subprocess.Popen(
                [sys.executable, "-m", "edge_broker", "run", "--config", str(config)], stdout=log, stderr=log
            )

    @property
    def log(self) -> str:
        return self._log.read_text(errors="replace")

    async def wait_until_logged(self, pattern: str) -> re.Match[str]:
        """Wait until it says so."""
        deadline = time.monotonic() + WAIT_SECONDS
        while (found := re.search(pattern, self.log)) is None:
            assert self.process.poll() is None, self.log
            assert time.monotonic() < deadline, f"no {pattern!r} in {self.log}"
            await asyncio.sleep(0.01)
        return found

    async def port(self) -> int:
        return int((await self.wait_until_logged(r"listening on mqtt://127.0.0.1:(\d+)\s"))[1])

    @property
    def cpu_seconds(self) -> float:
        times = psutil.Process(self.process.pid).cpu_times()
        return times.user + times.system

    def reload(self) -> None:
        self.process.send_signal(signal.SIGHUP)

    def stop(self) -> int:
        self.process.send_signal(signal.SIGTERM)
        code = self.process.wait(WAIT_SECONDS)
        assert "Traceback" not in self.log, self.log
        return code


def write_passwords(folder: Path, names: int) -> None:
    """As many names as that, with hashes of the full cost; one for all, since nothing is remembered by hash."""
    text = Argon2Hash.from_password(PASSWORD.decode()).text
    file = folder / "passwords"
    file.write_text("".join(f"{name_of(number)}:{text}\n" for number in range(names)))
    file.chmod(0o600)


def name_of(number: int) -> str:
    return f"device-{number}"


class Client(asyncio.Protocol):
    """Sends CONNECT and hands on what comes; `answered` is the CONNACK's reason code."""

    def __init__(self, name: str, heard: Callable[[bytes], None] | None = None) -> None:
        self._connect = encode_connect(Connect(const.MQTT_3_1_1, name, True, 0, name, PASSWORD))
        self._heard = heard
        self.answered: asyncio.Future[int] = asyncio.get_running_loop().create_future()
        self.transport: asyncio.Transport

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        assert isinstance(transport, asyncio.Transport)
        self.transport = transport
        transport.write(self._connect)

    def data_received(self, data: bytes) -> None:
        if not self.answered.done():
            self.answered.set_result(data[3])
        elif self._heard is not None:
            self._heard(data)

    def connection_lost(self, exc: Exception | None) -> None:
        if not self.answered.done():
            self.answered.set_exception(ConnectionError(f"lost before CONNACK: {exc}"))


async def come_in(port: int, names: range) -> tuple[float, list[Client]]:
    """All of them at once; how long until the last one is in, and the clients."""
    loop = asyncio.get_running_loop()
    clients = [Client(name_of(number)) for number in names]
    began_at = time.monotonic()
    async with asyncio.timeout(WAIT_SECONDS):
        for client in clients:
            await loop.create_connection(lambda client=client: client, "127.0.0.1", port)  # type: ignore[misc]
        codes = await asyncio.gather(*(client.answered for client in clients))
    assert set(codes) <= {0}, f"refused: {sorted(codes)[-1]}"
    return time.monotonic() - began_at, clients


class Probe:
    """A connected client that sends itself a message of QoS 0 now and then, and knows how long each took."""

    def __init__(self) -> None:
        self.seconds: list[float] = []
        self._sent_at = 0.0
        self._back = asyncio.Event()

    async def run(self, port: int, number: int) -> None:
        name = name_of(number)
        client = Client(name, self._on_data)
        await asyncio.get_running_loop().create_connection(lambda: client, "127.0.0.1", port)
        assert await client.answered == 0
        client.transport.write(encode_subscribe(const.MQTT_3_1_1, 1, [SubscriptionRequest(name, 0)]))
        await self._back.wait()
        message = encode_publish(const.MQTT_3_1_1, name, b"x")
        while True:
            self._back.clear()
            self._sent_at = time.monotonic()
            client.transport.write(message)
            await self._back.wait()
            self.seconds.append(time.monotonic() - self._sent_at)
            await asyncio.sleep(_PROBE_SECONDS)

    def _on_data(self, _data: bytes) -> None:
        self._back.set()


@dataclass
class Figures:
    """In seconds, before the storm, with nothing remembered, and with everything remembered.

    `quiet`, `cold`, `warm`: what the probes waited at the 99th percentile; `_all`: until all were in; `_cpu`: what of that
    the broker worked, which does not depend on what else the machine does.
    """

    quiet: float
    cold: float
    cold_all: float
    cold_cpu: float
    warm: float
    warm_all: float
    warm_cpu: float


def p99(seconds: list[float]) -> float:
    return sorted(seconds)[int(len(seconds) * 0.99)]


async def measure(folder: Path, count: int, quiet_probes: int = 500) -> Figures:
    """`count` clients come in at once to a broker that has just started, leave, and come again."""
    write_passwords(folder, count + _PROBES)
    broker = PasswordBroker(folder)
    try:
        port = await broker.port()
        probes = [Probe() for _ in range(_PROBES)]
        tasks = [asyncio.create_task(probe.run(port, count + n)) for n, probe in enumerate(probes)]

        def taken() -> list[float]:
            waits = [wait for probe in probes for wait in probe.seconds]
            for probe in probes:
                probe.seconds.clear()
            return waits

        async def wait_for_probes(least: int) -> None:
            while sum(len(probe.seconds) for probe in probes) < least:
                assert not any(task.done() for task in tasks), "a probe was cut off"
                await asyncio.sleep(0.01)

        await wait_for_probes(quiet_probes)
        quiet = p99(taken())
        cpu = [broker.cpu_seconds]
        cold_all, clients = await come_in(port, range(count))
        await wait_for_probes(_PROBES)
        cold = p99(taken())
        cpu.append(broker.cpu_seconds)
        for client in clients:
            client.transport.close()
        taken()
        cpu.append(broker.cpu_seconds)
        warm_all, clients = await come_in(port, range(count))
        await wait_for_probes(_PROBES)  # a small storm is over before a probe is back
        warm = p99(taken())
        cpu.append(broker.cpu_seconds)
        for client in clients:
            client.transport.close()
        for task in tasks:
            assert not task.done(), task.exception()
            task.cancel()
        return Figures(quiet, cold, cold_all, cpu[1] - cpu[0], warm, warm_all, cpu[3] - cpu[2])
    finally:
        assert broker.stop() == 0


def main() -> None:
    count = int(sys.argv[1]) if len(sys.argv) > 1 else 2_000
    _soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
    with tempfile.TemporaryDirectory() as folder:
        print(asyncio.run(measure(Path(folder), count)))


if __name__ == "__main__":
    main()
