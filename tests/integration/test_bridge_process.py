"""The gateway as it is run: a process of its own, read from a file, on its own event loop, killed at any moment."""

import asyncio
import os
import re
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from tests.bridge.real import Mosquitto, Person, running, until

pytestmark = pytest.mark.needs("mosquitto")


class Process:
    """`edge-broker run` with a bridge to `upstream`, on uvloop where that is installed."""

    def __init__(self, directory: Path, upstream: str) -> None:
        directory.mkdir(parents=True, exist_ok=True)
        self._log = directory / "log"
        self._config = directory / "edge-broker.toml"
        self._config.write_text(
            f'data_dir = "{directory}/data"\n[[listeners]]\nbind = "127.0.0.1:0"\n'
            f'[[bridges]]\nname = "cloud"\nurls = ["{upstream}"]\nbackoff_initial_seconds = 0.05\n'
            'backoff_max_seconds = 0.2\nout = [{ filter = "s/#" }]\n'
        )
        self._process: subprocess.Popen[bytes] | None = None
        self.url = ""

    async def start(self) -> None:
        self._log.unlink(missing_ok=True)
        with self._log.open("wb") as log:
            self._process = subprocess.Popen(
                [sys.executable, "-m", "edge_broker", "run", "--config", self._config],
                stderr=log,
                env=os.environ | {"PYTHONUNBUFFERED": "1"},
            )
        await until(lambda: re.search(r"listening on (mqtt://\S+)", self.log), f"did not start: {self._log}")
        found = re.search(r"listening on (mqtt://\S+)", self.log)
        assert found is not None
        self.url = found[1].rstrip(",")

    @property
    def log(self) -> str:
        return self._log.read_text()

    def stop(self, number: signal.Signals = signal.SIGTERM) -> int:
        process, self._process = self._process, None
        if process is None:
            return 0
        process.send_signal(number)
        return process.wait(20)


async def test_what_was_acknowledged_arrives_although_everything_is_killed(tmp_path: Path) -> None:
    upstream = Mosquitto(tmp_path / "upstream", persistent=True)
    gateway = Process(tmp_path / "gateway", upstream.url)
    wanted = [str(number) for number in range(1200)]
    async with running(upstream):
        keeper = await Person("keeper", keeps_session=True).connect(upstream.url)
        await keeper.subscribe("s/#", qos=1)
        for at in range(0, 1200, 300):
            await gateway.start()
            sensor = await Person().connect(gateway.url)
            half = asyncio.ensure_future(sensor.publish("s/1", *wanted[at : at + 300]))
            if at == 300:
                upstream.stop()
            await half
            if at == 600:
                await upstream.start()
            gateway.stop(signal.SIGKILL)
            sensor.leave()
        await gateway.start()
        await until(lambda: len(set(keeper.payloads)) == 1200, "something is missing")
        assert list(dict.fromkeys(keeper.payloads)) == wanted
        assert gateway.stop() == 0
        keeper.leave()
    assert "Traceback" not in gateway.log


async def test_stopping_takes_no_time_while_the_upstream_is_away(tmp_path: Path) -> None:
    gateway = Process(tmp_path / "gateway", "mqtt://no-such-host.invalid")
    await gateway.start()
    await until(lambda: "cannot be resolved" in gateway.log, "no failure")
    assert gateway.stop() == 0
    assert "Traceback" not in gateway.log
