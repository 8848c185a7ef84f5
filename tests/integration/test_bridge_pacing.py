"""Rates and the month's bytes against a real mosquitto, on a real line."""

import asyncio
import json
import time
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest

from bridge.config import BridgeConfig
from bridge.policy_config import PacingConfig
from tests.bridge.real import Gateway, Mosquitto, Person, bridge_config, free_port, rule, running, until

pytestmark = pytest.mark.needs("mosquitto")


@pytest.fixture
async def upstream(tmp_path: Path) -> AsyncIterator[Mosquitto]:
    upstream = Mosquitto(tmp_path / "upstream")
    yield upstream
    upstream.stop()


class Relay:
    """A port in front of a mosquitto, open from its start on. `carried_bytes`: both directions."""

    def __init__(self, target: Mosquitto) -> None:
        self._target = target
        self._port = free_port()
        self.url = f"mqtt://127.0.0.1:{self._port}"
        self.carried_bytes = 0

    async def start(self) -> None:
        self._server = await asyncio.start_server(self._serve, "127.0.0.1", self._port)

    def stop(self) -> None:
        self._server.close()

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        there, to = await asyncio.open_connection("127.0.0.1", self._target.port)
        await asyncio.gather(self._pump(reader, to), self._pump(there, writer))

    async def _pump(self, source: asyncio.StreamReader, sink: asyncio.StreamWriter) -> None:
        while data := await source.read(65_536):
            self.carried_bytes += len(data)
            sink.write(data)
        sink.close()


def paced(upstream: Mosquitto | Relay, **pacing: Any) -> BridgeConfig:
    return bridge_config(
        upstream.url,
        out=(rule("alarms/#", priority="high"), rule("#")),
        in_=(rule("commands/#"),),
        pacing=PacingConfig(**pacing),
    )


async def test_the_drain_keeps_its_rate_and_ends(tmp_path: Path, upstream: Mosquitto) -> None:
    """120 messages waited; at 40 a second with a burst of 10 that is 2.75 s, and the live ones behind them at once."""
    await upstream.start()
    relay = Relay(upstream)
    gateway = Gateway(tmp_path, paced(relay, drain_messages_per_second=40.0, burst_seconds=0.25))
    async with running(gateway):
        cloud = await (await Person().connect(upstream.url)).subscribe("a")
        device = await Person().connect(gateway.url)
        await device.publish("a", *(str(n) for n in range(120)))
        began = time.monotonic()
        await relay.start()
        await until(lambda: len(cloud.messages) >= 10, "nothing comes")
        policy = gateway.bridge.status().policy
        assert policy.draining > 50
        assert policy.drain_seconds == pytest.approx(policy.draining / 40)
        await until(lambda: len(cloud.messages) == 120, "not all")
        assert time.monotonic() - began > (120 - 10) / 40 - 0.1, "quicker than its rate"
        assert cloud.payloads == [str(n) for n in range(120)]
        await gateway.drained()
        await device.publish("a", *(str(n) for n in range(100)))
        await until(lambda: len(cloud.messages) == 220, "live messages are paced too", 2.0)
        relay.stop()
        device.leave()
        cloud.leave()


async def test_a_spent_month_stops_the_line_and_a_restart_does_not_forget(
    tmp_path: Path, upstream: Mosquitto
) -> None:
    config = paced(upstream, monthly_bytes=20_000)
    gateway = Gateway(tmp_path, config)
    await upstream.start()
    async with running(gateway):
        device = await Person().connect(gateway.url)
        await gateway.online()
        await device.publish("a", "x" * 20_000)
        await until(lambda: gateway.bridge.status().state == "month-spent", "it goes on")
        await device.publish("a", "kept")
        status = gateway.bridge.status()
        assert (status.depth, status.policy.month_bytes) == (1, 20_000)
        assert status.last_error.startswith("the month's 20000 bytes are spent")
        assert "monthly_bytes" in status.last_hint
        assert status.policy.month_used_bytes > 20_000
        device.leave()
    kept = json.loads((tmp_path / "bridge-upstream.json").read_text())
    assert kept["used_bytes"] == gateway.bridge.status().policy.month_used_bytes
    again = Gateway(tmp_path, config)
    async with running(again):
        await until(lambda: again.bridge.status().state == "month-spent", "it has forgotten")
        assert again.bridge.status().connects == 0
        account = again.bridge.account
        assert account is not None
        account._wall = lambda: time.time() + 40 * 86_400  # the next month comes
        cloud = await (await Person().connect(upstream.url)).subscribe("a")
        await until(lambda: cloud.payloads == ["kept"], "what was kept is not sent")
        cloud.leave()


async def test_beyond_the_month_alarms_go_and_commands_come(tmp_path: Path, upstream: Mosquitto) -> None:
    gateway = Gateway(tmp_path, paced(upstream, monthly_bytes=20_000, when_month_is_spent="only_priority"))
    await upstream.start()
    async with running(gateway):
        device = await (await Person().connect(gateway.url)).subscribe("commands/#")
        cloud = await (await Person().connect(upstream.url)).subscribe("alarms/#", "late")
        await gateway.online()
        await device.publish("a", "x" * 20_000)
        await until(
            lambda: gateway.bridge._way_up.forwarders[0].withholds == "not urgent", "the month is not spent"
        )
        await device.publish("late", "no more")
        await device.publish("alarms/fire", "now")
        await until(lambda: cloud.payloads == ["now"], "no alarm")
        await cloud.publish("commands/valve", "close")
        await until(lambda: device.payloads == ["close"], "no command")
        status = gateway.bridge.status()
        assert (status.connected, status.depth, status.dropped) == (True, 0, {"allowance": 1})
        device.leave()
        cloud.leave()


async def test_all_that_crosses_the_socket_is_counted(tmp_path: Path) -> None:
    """A relay between bridge and upstream counts too, and comes to the same."""
    target = Mosquitto(tmp_path / "upstream")
    relay = Relay(target)
    config = bridge_config(relay.url, out=(rule("#"),), pacing=PacingConfig(monthly_bytes=1 << 30))
    (tmp_path / "gateway").mkdir()
    gateway = Gateway(tmp_path / "gateway", config)
    async with running(target, relay):
        async with running(gateway):
            device = await Person().connect(gateway.url)
            await gateway.online()
            await device.publish("a", *("x" * n for n in range(200)))
            await gateway.drained()
            device.leave()
        await until(
            lambda: gateway.bridge.status().policy.month_used_bytes == relay.carried_bytes, "other figures"
        )
        assert relay.carried_bytes > 20_000
