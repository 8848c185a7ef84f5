"""Priorities with a real mosquitto: alarms overtake a backlog that drains, and a gateway that is killed loses nothing."""

import signal
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest

from bridge.policy_config import PacingConfig, UpstreamConfig
from bridge.rules import RuleConfig
from tests.bridge.real import Gateway, Mosquitto, Person, bridge_config, rule, running, until
from tests.integration.bridge_process import Process

pytestmark = pytest.mark.needs("mosquitto")

BACKLOG = 10_000
TOPICS = 10
ALARMS = 30
RULES = (rule("alarms/#", priority="high"), rule("logs/#", priority="low"), rule("s/#"))
EXACT = (rule("alarms/#", 2, priority="high"), rule("logs/#", 2, priority="low"), rule("s/#", 2))


async def publish_backlog(sensor: Person, count: int = BACKLOG) -> None:
    """`count` readings on several topics, each with numbers that rise."""
    for topic in range(TOPICS):
        await sensor.publish(f"s/{topic}", *(str(number) for number in range(count // TOPICS)))


async def cut(gateway: Gateway) -> None:
    """Cut the line, and wait until there is another one."""
    bridge = gateway.bridge
    connects = bridge.status().connects
    assert bridge._line._conversation is not None
    bridge._line._conversation._link.abort()
    await until(lambda: bridge.status().connects > connects, "it does not come back")


def of(person: Person, topic: str) -> list[int]:
    """What came on `topic`, in its order, each once."""
    numbers = [int(message.payload) for message in person.messages if message.topic == topic]
    return list(dict.fromkeys(numbers))


def check_order(person: Person, backlog: int = BACKLOG) -> None:
    for topic in range(TOPICS):
        assert of(person, f"s/{topic}") == list(range(backlog // TOPICS))


@pytest.mark.parametrize("held_up_by", ["the pace", "the window"])
async def test_alarms_overtake_a_backlog_that_drains(tmp_path: Path, held_up_by: str) -> None:
    upstream = Mosquitto(tmp_path / "upstream")
    urls: tuple[str, ...] = (upstream.url,)
    more: dict[str, Any] = {"pacing": PacingConfig(drain_messages_per_second=2000, burst_seconds=0.02)}
    if held_up_by == "the window":  # and a slow line
        there = UpstreamConfig(url=upstream.url, fault_delay_ms=10)
        urls, more = (), {"window": 20, "upstream_tables": (there,)}
    gateway = Gateway(tmp_path / "gateway", bridge_config(*urls, out=RULES, **more))
    async with running(gateway):
        sensor = await Person().connect(gateway.url)
        await publish_backlog(sensor)
        await sensor.publish("logs/1", *(str(number) for number in range(ALARMS)))
        assert gateway.bridge.status().depth == BACKLOG + ALARMS
        async with running(upstream):
            keeper = await (await Person("keeper").connect(upstream.url)).subscribe("#")
            for number in range(ALARMS):
                seen = len(keeper.messages)
                await until(lambda seen=seen: len(keeper.messages) > seen + 20, "nothing comes")  # type: ignore[misc]
                before = len(keeper.messages)
                await sensor.publish("alarms/1", str(number))
                await until(
                    lambda number=number: len(of(keeper, "alarms/1")) > number,  # type: ignore[misc]
                    "the alarm does not come",
                )
                assert keeper.topics.index("alarms/1", before) - before < 1500, "it waited for the backlog"
            assert gateway.bridge.status().depth > BACKLOG / 4, "the backlog was gone before the alarms"
            await gateway.drained(30)
            await until(lambda: len(keeper.messages) == BACKLOG + 2 * ALARMS, "something is missing")
            check_order(keeper)
            assert of(keeper, "alarms/1") == of(keeper, "logs/1") == list(range(ALARMS))
            keeper.leave()
        sensor.leave()


async def test_at_qos_2_everything_comes_once_although_the_line_is_cut(tmp_path: Path) -> None:
    upstream = Mosquitto(tmp_path / "upstream", persistent=True)
    gateway = Gateway(tmp_path / "gateway", bridge_config(upstream.url, out=EXACT, window=60))
    async with running(gateway):
        sensor = await Person().connect(gateway.url)
        await publish_backlog(sensor, 2000)
        async with running(upstream):
            keeper = await (await Person("keeper", keeps_session=True).connect(upstream.url)).subscribe("#")
            for number in range(6):
                await sensor.publish("alarms/1", str(number))
                await sensor.publish("logs/1", str(number))
                await until(lambda n=number: len(keeper.messages) > 150 * n + 20, "nothing comes")  # type: ignore[misc]
                await cut(gateway)
            await gateway.drained(30)
            await until(lambda: len(keeper.messages) >= 2012, "something is missing")
            check_order(keeper, 2000)
            assert len(keeper.messages) == 2012, "something came twice"
            assert of(keeper, "alarms/1") == of(keeper, "logs/1") == list(range(6))
            keeper.leave()
        sensor.leave()


def configure(process: Process, upstream: str, rules: str) -> None:
    process.configure(
        f'client_id = "gateway"\nurls = ["{upstream}"]\nwindow = 50\nmax_attempts_per_minute = 0\n'
        f"pacing = {{ drain_messages_per_second = 2000 }}\nout = [{rules}]"
    )


def as_toml(rules: Sequence[RuleConfig]) -> str:
    return ", ".join(
        f'{{ filter = "{one.filter}", qos = {one.qos}, priority = "{one.priority}" }}' for one in rules
    )


@pytest.mark.parametrize("qos", [1, 2])
async def test_a_gateway_that_is_killed_loses_nothing_of_any_lane(tmp_path: Path, qos: int) -> None:
    rules = RULES if qos == 1 else EXACT
    upstream = Mosquitto(tmp_path / "upstream", persistent=True)
    gateway = Process(tmp_path / "gateway")
    configure(gateway, upstream.url, as_toml(rules[2:]))  # one queue, as before
    await gateway.start()
    sensor = await Person().connect(gateway.url)
    await publish_backlog(sensor, 3000)
    gateway.stop(signal.SIGKILL)
    sensor.leave()
    configure(gateway, upstream.url, as_toml(rules))
    async with running(upstream):
        keeper = await (await Person("keeper", keeps_session=True).connect(upstream.url)).subscribe("#")
        for turn in range(5):
            await gateway.start()
            sensor = await Person().connect(gateway.url)
            for lane in ("logs/1", "alarms/1"):
                await sensor.publish(lane, *(str(10 * turn + number) for number in range(10)))
            enough = 400 * (turn + 1)
            await until(lambda enough=enough: len(keeper.messages) >= enough, "nothing comes")  # type: ignore[misc]
            gateway.stop(signal.SIGKILL)
            sensor.leave()
        await gateway.start()
        await until(
            lambda: len({(m.topic, m.payload) for m in keeper.messages}) == 3100, "it loses something", 30
        )
        check_order(keeper, 3000)
        assert of(keeper, "alarms/1") == of(keeper, "logs/1") == list(range(50))
        if qos == 2:
            assert len(keeper.messages) == 3100, "something came twice"
        assert gateway.stop() == 0
        keeper.leave()
    assert "Traceback" not in gateway.log


async def test_what_waits_under_a_priority_that_is_gone_goes_up_all_the_same(tmp_path: Path) -> None:
    upstream = Mosquitto(tmp_path / "upstream")
    gateway = Gateway(tmp_path / "gateway", bridge_config(upstream.url, out=RULES))
    async with running(gateway):
        sensor = await Person().connect(gateway.url)
        for topic in ("alarms/1", "logs/1", "s/1"):
            await sensor.publish(topic, *(str(number) for number in range(20)))
        sensor.leave()
    again = Gateway(tmp_path / "gateway", bridge_config(upstream.url, out=(rule("#"),)))
    async with running(upstream):
        keeper = await (await Person("keeper").connect(upstream.url)).subscribe("#")
        async with running(again):
            await again.drained()
            await until(lambda: len(keeper.messages) == 60, "something is missing")
            for topic in ("alarms/1", "logs/1", "s/1"):
                assert of(keeper, topic) == list(range(20))
            assert set(again.bridge.queues) == {"normal", "high", "low"}
        keeper.leave()
