"""Three priorities in envelopes, over a real mosquitto to a real ingester: alarms first, all once, none missing."""

import asyncio
import json
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest

from bridge.canary_config import CanaryConfig
from bridge.envelope import EnvelopeReader
from bridge.envelopes_config import EnvelopesConfig
from tests.bridge.real import Gateway, Mosquitto, Person, bridge_config, rule, running, until
from tests.ingest.running import Ingester
from tests.integration.broker_process import BrokerProcess

pytestmark = pytest.mark.needs("mosquitto")

READINGS = 4_000
TOPICS = 10
ALARMS = 20
STALE = 25
BRIDGE = """[[bridges]]
name = "cloud"
gateway = "gw-1"
urls = ["{url}"]
backoff_initial_seconds = 0.05
backoff_max_seconds = 0.2
max_attempts_per_minute = 0
breaker_failures = 0
window = 8
pacing = {{ drain_messages_per_second = 2000, burst_seconds = 0.1 }}
envelopes = {{ enabled = true, max_messages = 50, delay_ms = 200 }}
out = [
  {{ filter = "s/alarms/#", priority = "high" }},
  {{ filter = "s/logs/stale", priority = "low", max_age_seconds = 0.5 }},
  {{ filter = "s/logs/#", priority = "low" }},
  {{ filter = "s/stale", max_age_seconds = 0.5 }},
  {{ filter = "s/#" }},
]
"""


def numbered(count: int, first: int = 0) -> list[str]:
    return [str(number) for number in range(first, first + count)]


def on(lines: Sequence[dict[str, Any]], topic: str) -> list[str]:
    return [line["payload"] for line in lines if line["topic"] == topic]


async def write_backlog(sensor: Person) -> None:
    """Readings, logs and what will be too old; after them the alarms."""
    for topic in range(TOPICS):
        await sensor.publish(f"s/r/{topic}", *numbered(READINGS // TOPICS))
    await sensor.publish("s/logs/1", *numbered(ALARMS))
    await sensor.publish("s/logs/stale", *numbered(STALE))
    await sensor.publish("s/logs/1", *numbered(ALARMS, ALARMS))
    await sensor.publish("s/stale", *numbered(STALE))
    await sensor.publish("s/r/0", "last")
    await asyncio.sleep(0.6)  # until what is to be too old is
    await sensor.publish("s/alarms/1", *numbered(ALARMS))


async def until_nothing_is_missing(ingester: Ingester) -> list[dict[str, Any]]:
    """Wait until the ingester reports so; its lanes."""
    for _ in range(100):
        lanes: list[dict[str, Any]] = (await asyncio.to_thread(ingester.status))["lanes"]
        if not sum(lane["missing"] for lane in lanes):
            return lanes
        await asyncio.sleep(0.1)
    raise AssertionError(f"missing: {lanes}")


def status_of(broker: BrokerProcess) -> dict[str, Any]:
    """What `edge-broker bridge status` says of the bridge."""
    config = broker.directory / "edge-broker.toml"
    done = subprocess.run(
        [sys.executable, "-m", "edge_broker", "bridge", "status", "-c", config, "--json"],
        capture_output=True,
        text=True,
        timeout=30,
    )
    assert done.returncode == 0, done.stderr
    [bridge] = json.loads(done.stdout)["bridges"]
    return dict(bridge)


async def test_alarms_go_first_and_after_a_kill_each_message_is_there_once(tmp_path: Path) -> None:
    upstream = Mosquitto(tmp_path / "up", persistent=True)
    ingester = Ingester(tmp_path / "ingest", upstream.url)
    broker = BrokerProcess(tmp_path / "gateway", BRIDGE.format(url=upstream.url))
    await asyncio.to_thread(broker.start)
    try:
        sensor = await Person().connect(f"mqtt://127.0.0.1:{broker.port}")
        await write_backlog(sensor)
        sensor.leave()
        async with running(upstream, ingester):
            await until(lambda: len(on(ingester.lines(), "s/r/3")) > 20, "it does not drain", 30)
            came = ingester.lines()
            assert len(on(came, "s/alarms/1")) == ALARMS
            alarms = [at for at, line in enumerate(came) if line["topic"] == "s/alarms/1"]
            assert alarms[-1] < 3 * ALARMS + 100, "the alarms waited behind the backlog"
            await asyncio.to_thread(broker.kill)
            assert len(came) < READINGS / 2, "the backlog was gone before the kill"
            await asyncio.to_thread(broker.start)
            sensor = await Person().connect(f"mqtt://127.0.0.1:{broker.port}")
            before = len(ingester.lines())
            await sensor.publish("s/alarms/1", *numbered(ALARMS, ALARMS))
            await until(lambda: len(on(ingester.lines(), "s/alarms/1")) == 2 * ALARMS, "alarms are missing")
            assert len(on(ingester.lines(), "s/r/9")) == 0, f"the backlog went first, {before} were there"
            wanted = READINGS + 1 + 4 * ALARMS
            await until(lambda: len(ingester.lines()) >= wanted, "something is missing", 40)
            lanes = await until_nothing_is_missing(ingester)
            bridge = await asyncio.to_thread(status_of, broker)
            sensor.leave()
        check_what_came(ingester, wanted)
        assert {lane["lane"].rpartition("-")[0]: lane["highest"] for lane in lanes} == {
            "cloud": READINGS + 1 + STALE,
            "cloud!high": 2 * ALARMS,
            "cloud!low": 2 * ALARMS + STALE,
        }
        envelopes = bridge["envelopes"]
        assert envelopes["lease"] == "held"
        assert envelopes["sent"] < envelopes["messages"] / 5, "they went nearly alone"
        assert bridge["dropped"]["too_old"] >= STALE, "those of normal, at the end of the backlog"
    finally:
        broker.stop()


def check_what_came(ingester: Ingester, wanted: int) -> None:
    lines, keys = ingester.lines(), ingester.keys()
    assert (len(lines), len(set(keys))) == (wanted, wanted)
    assert on(lines, "s/r/0") == [*numbered(READINGS // TOPICS), "last"]
    for topic in range(1, TOPICS):
        assert on(lines, f"s/r/{topic}") == numbered(READINGS // TOPICS)
    assert on(lines, "s/alarms/1") == on(lines, "s/logs/1") == numbered(2 * ALARMS)
    assert on(lines, "s/stale") == on(lines, "s/logs/stale") == []


async def test_a_canary_has_envelopes_and_announcements_of_its_own(tmp_path: Path) -> None:
    main, other = Mosquitto(tmp_path / "main"), Mosquitto(tmp_path / "other", persistent=True)
    ingester = Ingester(tmp_path / "ingest", other.url)
    config = bridge_config(
        main.url,
        name="cloud",
        out=(rule("s/a", priority="high"), rule("s/old", max_age_seconds=0.1), rule("s/#")),
        envelopes=EnvelopesConfig(enabled=True, delay_ms=50),
        canary=CanaryConfig(urls=(other.url,), percent=100),
    )
    gateway = Gateway(tmp_path / "gateway", config)
    async with running(main, gateway):
        its_canary = gateway.bridges[1]
        sensor = await Person().connect(gateway.url)
        await sensor.publish("s/1", *numbered(30))
        await sensor.publish("s/old", *numbered(5))
        await sensor.publish("s/1", "last")
        await sensor.publish("s/a", "alarm")
        await asyncio.sleep(0.2)  # until what is to be too old is
        async with running(other):
            watcher = await (await Person().connect(other.url)).subscribe("#")
            async with running(ingester):
                await until(lambda: len(ingester.lines()) == 32, "something is missing")
                lanes = await until_nothing_is_missing(ingester)
                assert sorted(lane["lane"].rpartition("-")[0] for lane in lanes) == [
                    "cloud!canary",
                    "cloud!canary!high",
                ]
                await sensor.publish("s/1", "packed")
                await until(lambda: on(ingester.lines(), "s/1")[-1] == "packed", "it does not come")
                await until(lambda: its_canary.status().skipped_announced == 5, "nothing was announced")
                packed = [m.payload for m in watcher.messages if m.topic == "edge/gateway/envelopes"]
                assert EnvelopeReader().open(packed[-1]).lane.startswith("cloud!canary-")
                envelopes = its_canary.status().envelopes
                assert envelopes is not None
                assert envelopes.lease == "held"
                assert gateway.bridge.status().envelopes.sent == 0  # type: ignore[union-attr]
            watcher.leave()
        sensor.leave()
