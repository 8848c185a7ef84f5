"""The gateway as it is run: a process of its own, read from a file, on its own event loop, killed at any moment."""

import asyncio
import signal
from pathlib import Path

import pytest

from tests.bridge.real import Mosquitto, Person, running, until
from tests.integration.bridge_process import Process

pytestmark = pytest.mark.needs("mosquitto")


def process(directory: Path, upstream: str) -> Process:
    made = Process(directory)
    made.configure(f'urls = ["{upstream}"]\nout = [{{ filter = "s/#" }}]')
    return made


async def test_what_was_acknowledged_arrives_although_everything_is_killed(tmp_path: Path) -> None:
    upstream = Mosquitto(tmp_path / "upstream", persistent=True)
    gateway = process(tmp_path / "gateway", upstream.url)
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
    gateway = process(tmp_path / "gateway", "mqtt://no-such-host.invalid")
    await gateway.start()
    await until(lambda: "cannot be resolved" in gateway.log, "no failure")
    assert gateway.stop() == 0
    assert "Traceback" not in gateway.log
