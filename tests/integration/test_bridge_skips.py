"""What policy lets go is no gap for a real ingester behind a real mosquitto, through an outage and a kill."""

import asyncio
import signal
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import paho.mqtt.client as paho
import pytest

from tests.bridge.real import Mosquitto, Person, running, until
from tests.ingest.running import Ingester
from tests.integration.broker_process import BrokerProcess

pytestmark = pytest.mark.needs("mosquitto")

RULES = """[
  { filter = "s/state/#", keep_latest = true },
  { filter = "s/live/#", max_age_seconds = 0.2 },
  { filter = "s/#" },
]"""


class Gateway(BrokerProcess):
    """With a bridge to `upstream`. `more`: further lines of the bridge."""

    def __init__(self, directory: Path, upstream: str, more: str = "") -> None:
        super().__init__(
            directory,
            f'[[bridges]]\nname = "cloud"\ngateway = "gw/7"\nurls = ["{upstream}"]\nbackoff_initial_seconds = 0.05\n'
            f"backoff_max_seconds = 0.2\nmax_attempts_per_minute = 0\nbreaker_failures = 0\n{more}\nout = {RULES}\n",
        )

    @property
    def url(self) -> str:
        return f"mqtt://127.0.0.1:{self.port}"


@contextmanager
def run(gateway: Gateway) -> Iterator[None]:
    """Until the end of the block."""
    gateway.start()
    try:
        yield
    finally:
        gateway.stop()


class Beside(Ingester):
    """An ingester that ends with the test."""

    def stop(self, number: signal.Signals = signal.SIGTERM) -> None:  # type: ignore[override]
        super().stop(number)


async def write_story(sensor: Person) -> None:
    """Twelve messages of which seven, or a few less, are not worth sending after an outage."""
    short = paho.Properties(paho.PacketTypes.PUBLISH)
    short.MessageExpiryInterval = 1
    await sensor.publish("s/log", "1")
    await sensor.publish("s/state/a", "old", "old", "old", "state")
    await sensor.publish("s/live", "too old", "too old")
    await sensor.publish("s/log", "expires", "expires", properties=short)
    await sensor.publish("s/log", "2", "3", "4")


async def until_missing(ingester: Ingester, wanted: int) -> None:
    """Wait until the ingester reports so many messages as missing."""
    for _ in range(100):
        status = await asyncio.to_thread(ingester.status)
        missing = sum(lane["missing"] for lane in status["lanes"])
        if missing == wanted:
            return
        await asyncio.sleep(0.1)
    raise AssertionError(f"{missing} are missing, not {wanted}")


def payloads_of(ingester: Ingester) -> list[str]:
    return [line["payload"] for line in ingester.lines()]


@pytest.mark.parametrize("announces", [True, False])
async def test_what_an_outage_made_worthless_is_not_missing(tmp_path: Path, announces: bool) -> None:
    upstream = Mosquitto(tmp_path / "upstream", persistent=True)
    ingester = Beside(tmp_path / "ingest", upstream.url)
    gateway = Gateway(tmp_path / "gateway", upstream.url, "" if announces else 'skipped_topic = ""')
    async with running(upstream, ingester):
        with run(gateway):
            sensor = await Person().connect(gateway.url)
            await sensor.publish("s/log", "first")
            await until(lambda: payloads_of(ingester) == ["first"], "nothing came")
            upstream.stop()
            await write_story(sensor)
            await asyncio.sleep(1.5)  # for the messages to expire
            await upstream.start()
            await until(lambda: payloads_of(ingester)[-1:] == ["4"], "not drained")
            assert payloads_of(ingester) == ["first", "1", "state", "2", "3", "4"]
            await until_missing(ingester, 0 if announces else 7)
            sensor.leave()


async def test_a_kill_between_the_end_of_a_message_and_its_announcement(tmp_path: Path) -> None:
    """During the outage what will not be sent goes from the disk; then the gateway is killed, before it could tell."""
    upstream = Mosquitto(tmp_path / "upstream", persistent=True)
    ingester = Beside(tmp_path / "ingest", upstream.url)
    gateway = Gateway(tmp_path / "gateway", upstream.url)
    async with running(upstream, ingester):
        with run(gateway):
            sensor = await Person().connect(gateway.url)
            await sensor.publish("s/log", "first")
            await until(lambda: payloads_of(ingester) == ["first"], "nothing came")
            upstream.stop()
            for _ in range(3):
                await write_story(
                    sensor
                )  # each acknowledged message of the first topic supersedes the one before
            gateway.kill()
            sensor.leave()
            gateway.start()
            sensor = await Person().connect(gateway.url)
            await sensor.publish("s/log", "last")
            await upstream.start()
            await until(lambda: payloads_of(ingester)[-1:] == ["last"], "not drained")
            await until_missing(ingester, 0)
            came = payloads_of(ingester)
            assert came.count("state") + came.count("old") < 12, "nothing was superseded"
            assert [payload for payload in came if payload.isdigit()] == ["1", "2", "3", "4"] * 3
            sensor.leave()


async def test_an_upstream_that_does_not_allow_the_topic_loses_nothing_else(tmp_path: Path) -> None:
    acl = tmp_path / "acl"
    acl.write_text("topic readwrite s/#\ntopic readwrite edge/ingest/lease\n")
    acl.chmod(0o600)
    upstream = Mosquitto(tmp_path / "upstream", f"allow_anonymous true\nacl_file {acl}")
    gateway = Gateway(tmp_path / "gateway", upstream.url)
    async with running(upstream):
        there = await (await Person().connect(upstream.url)).subscribe("s/#")
        with run(gateway):
            sensor = await Person().connect(gateway.url)
            await sensor.publish("s/log", "first")
            await until(lambda: there.payloads == ["first"], "nothing came")
            there.leave()
            upstream.stop()
            await write_story(sensor)
            await upstream.start()
            there = await (await Person().connect(upstream.url)).subscribe("s/#")
            await until(lambda: "does not take the announcement" in gateway.log, "the refusal is not said")
            await sensor.publish("s/log", "after")
            await until(lambda: there.payloads[-1:] == ["after"], "the line does not go on")
            assert gateway.log.count("announcement") == 1
            sensor.leave()
        there.leave()
