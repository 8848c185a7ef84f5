"""A canary: a part of the topics goes to another real mosquitto, and what happens there costs the bridge nothing."""

from pathlib import Path
from typing import Any

import pytest

from bridge.canary_config import CanaryConfig
from bridge.policy_config import PacingConfig
from bridge.share import Share
from tests.bridge.real import Gateway, Log, Mosquitto, Person, bridge_config, rule, running, until

pytestmark = pytest.mark.needs("mosquitto")

TOPICS = [f"s/{number}" for number in range(40)]


def with_canary(main: Mosquitto, other: Mosquitto, percent: float, **more: Any) -> Any:
    settings = {"name": "cloud", "out": (rule("a/#", priority="high"), rule("#"))} | more
    canary = CanaryConfig(urls=(other.url,), percent=percent)
    return bridge_config(main.url, canary=canary, **settings)


def of_canary(percent: float) -> set[str]:
    share = Share("cloud", percent)
    return {topic for topic in TOPICS if share.takes(topic)}


async def publish(sensor: Person, payload: str) -> None:
    for topic in TOPICS:
        await sensor.publish(topic, payload)


async def test_a_share_of_the_topics_goes_elsewhere_and_it_can_be_changed(tmp_path: Path) -> None:
    main, other = Mosquitto(tmp_path / "main"), Mosquitto(tmp_path / "other")
    gateway = Gateway(tmp_path / "gateway", with_canary(main, other, 25))
    async with running(main, other, gateway):
        await gateway.online()
        there = await (await Person().connect(main.url)).subscribe("#")
        elsewhere = await (await Person().connect(other.url)).subscribe("#")
        sensor = await Person().connect(gateway.url)
        canary = of_canary(25)
        assert 0 < len(canary) < len(TOPICS) / 2
        await publish(sensor, "1")
        await gateway.drained()
        await until(lambda: len(there.messages) + len(elsewhere.messages) == 40, "something is missing")
        assert (set(elsewhere.topics), set(there.topics)) == (canary, set(TOPICS) - canary)
        gateway.bridge.set_canary_percent(0)
        await publish(sensor, "2")
        await until(lambda: there.payloads.count("2") == 40, "it does not come back")
        gateway.bridge.set_canary_percent(100)
        await publish(sensor, "3")
        await until(lambda: elsewhere.payloads.count("3") == 40, "it does not go over")
        assert there.payloads.count("3") == 0
        for person in (there, elsewhere, sensor):
            person.leave()


async def test_a_canary_that_is_away_costs_nothing_and_gets_what_is_its_own(tmp_path: Path) -> None:
    main, other = Mosquitto(tmp_path / "main"), Mosquitto(tmp_path / "other")
    config = with_canary(main, other, 50, max_queue_messages=20)
    gateway = Gateway(tmp_path / "gateway", config)
    canary = of_canary(50)
    async with running(main, gateway):
        there = await (await Person().connect(main.url)).subscribe("#")
        sensor = await Person().connect(gateway.url)
        await until(lambda: gateway.bridge.status().connected, "the bridge does not connect")
        for turn in range(5):
            await publish(sensor, str(turn))
        await until(lambda: len(there.messages) == 5 * (40 - len(canary)), "it waits for the canary")
        bridge, its_canary = gateway.bridges
        assert (bridge.status().dropped, bridge.status().depth) == ({}, 0)
        assert its_canary.status().depth == 20  # a limit of its own
        assert its_canary.status().dropped == {"queue_full": 5 * len(canary) - 20}
        assert its_canary.name == "cloud!canary"
        gateway.bridge.set_canary_percent(0)  # what is queued stays where it is
        await sensor.publish(min(canary), "home")
        await until(lambda: "home" in there.payloads, "it does not come")
        sensor.leave()
        there.leave()
    without = bridge_config(main.url, name="cloud", out=(rule("a/#", priority="high"), rule("#")))
    with Log() as log:
        async with running(main, Gateway(tmp_path / "gateway", without)):
            pass
    assert any("20 messages wait for its canary" in line for line in log.of("WARNING"))
    again = Gateway(tmp_path / "gateway", config)  # the file counts
    async with running(main, other):
        elsewhere = await (await Person().connect(other.url)).subscribe("#")
        async with running(again):
            assert again.bridge.canary_percent == 50
            await again.drained()
            await until(lambda: len(elsewhere.messages) == 20, "something is missing")
        assert set(elsewhere.topics) <= canary
        elsewhere.leave()


async def test_a_canary_has_priorities_and_counts_for_the_months_bytes(tmp_path: Path) -> None:
    main, other = Mosquitto(tmp_path / "main"), Mosquitto(tmp_path / "other")
    pacing = PacingConfig(monthly_bytes=20_000, when_month_is_spent="only_priority")
    gateway = Gateway(tmp_path / "gateway", with_canary(main, other, 100, pacing=pacing))
    async with running(main, other, gateway):
        await gateway.online()
        elsewhere = await (await Person().connect(other.url)).subscribe("#")
        sensor = await Person().connect(gateway.url)
        canary = gateway.bridges[1]
        assert set(canary.queues) == {"normal", "high"}
        await sensor.publish("s/1", *("x" * 1000 for _ in range(25)))
        await until(lambda: gateway.bridge._way_up.forwarders[0].withholds == "not urgent", "it is not spent")
        await until(lambda: canary._way_up.forwarders[0].withholds == "not urgent", "not for the canary")
        assert gateway.bridge.status().policy.month_used_bytes > 25_000
        await sensor.publish("s/1", "late")
        await sensor.publish("a/1", "alarm")
        await until(lambda: "alarm" in elsewhere.payloads, "the alarm does not come")
        assert "late" not in elsewhere.payloads
        assert canary.status().dropped == {"allowance": 1}
        for person in (elsewhere, sensor):
            person.leave()


async def test_origins_tell_the_canarys_messages_apart(tmp_path: Path) -> None:
    from bridge.origin import find_origin

    main, other = Mosquitto(tmp_path / "main"), Mosquitto(tmp_path / "other")
    gateway = Gateway(tmp_path / "gateway", with_canary(main, other, 50))
    async with running(main, other, gateway):
        await gateway.online()
        people = [await (await Person().connect(url)).subscribe("#") for url in (main.url, other.url)]
        sensor = await Person().connect(gateway.url)
        await publish(sensor, "x")
        await until(lambda: sum(len(one.messages) for one in people) == 40, "something is missing")
        lanes = []
        for one in people:
            origins = [find_origin(message.properties.UserProperty) for message in one.messages]
            assert all(origins)
            assert sorted(o.sequence for o in origins if o) == list(range(1, len(origins) + 1))
            lanes.append({o.lane.rpartition("-")[0] for o in origins if o})
        assert lanes == [{"cloud"}, {"cloud!canary"}]
        for person in (*people, sensor):
            person.leave()
