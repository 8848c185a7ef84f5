"""Commands that waited at the upstream that the bridge had to leave: all of them come on return, once, and marked."""

import signal
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import paho.mqtt.client as paho
import pytest

from bridge.config import BridgeConfig
from bridge.policy_config import FailoverConfig, UpstreamConfig
from tests.bridge.real import Gateway, Mosquitto, Person, bridge_config, rule, running, until

pytestmark = pytest.mark.needs("mosquitto")

MANY_AT_ONCE = "allow_anonymous true"
FEW_AT_ONCE = "allow_anonymous true\nmax_inflight_messages 7"
"""At QoS 1. At QoS 2 mosquitto 2.0.11 with such a limit sends some of what waits, and then no more."""


@pytest.fixture
async def pair(tmp_path: Path, request: pytest.FixtureRequest) -> AsyncIterator[tuple[Mosquitto, Mosquitto]]:
    """The first one with the lines of configuration that the test asks for."""
    first = Mosquitto(tmp_path / "first", getattr(request, "param", "allow_anonymous true"))
    second = Mosquitto(tmp_path / "second")
    async with running(first, second):
        yield first, second


def to(first: str, second: str, qos: int, version: str = "auto", **more: Any) -> BridgeConfig:
    """`first` is preferred to `second`."""
    return bridge_config(
        upstream_tables=(UpstreamConfig(url=first, priority=0), UpstreamConfig(url=second, priority=1)),
        failover=FailoverConfig(
            min_dwell_seconds=0.2, return_after_seconds=1.0, probe_interval_seconds=0.1, eject_seconds=0.3
        ),
        version=version,
        out=(rule("readings", 2),),
        in_=(rule("commands/#", qos, **({"late_after_seconds": 0.1} | more)),),
    )


async def at(gateway: Gateway, url: str) -> None:
    await until(
        lambda: gateway.bridge.status().connected and gateway.bridge.status().upstream == url,
        f"the bridge is not at {url}",
    )


async def subscribed(upstream: Mosquitto, device: Person) -> None:
    """Wait until the bridge is subscribed there: a retained command comes, whenever that is."""
    cloud = await Person().connect(upstream.url)
    payload = f"ready {upstream.port}"
    await cloud.publish("commands/ready", payload, retain=True)
    await until(lambda: payload in device.payloads, "not subscribed")
    cloud.leave()


async def away_from(gateway: Gateway, first: Mosquitto, second: Mosquitto) -> None:
    """The first upstream stands still until the bridge has left it; it keeps what it has."""
    first.send(signal.SIGSTOP)
    gateway.bridge._line._conversation._link.abort()  # type: ignore[union-attr]
    await at(gateway, second.url)
    first.send(signal.SIGCONT)


def mark_of(message: paho.MQTTMessage) -> str | None:
    properties = getattr(message, "properties", None)
    return dict(getattr(properties, "UserProperty", [])).get("edge-late")


@pytest.mark.parametrize("version", ["5", "3.1.1"])
@pytest.mark.parametrize(
    ("pair", "qos"), [(MANY_AT_ONCE, 1), (FEW_AT_ONCE, 1), (MANY_AT_ONCE, 2)], indirect=["pair"]
)
async def test_commands_that_waited_come_on_return_once_and_marked(
    tmp_path: Path, pair: tuple[Mosquitto, Mosquitto], qos: int, version: str
) -> None:
    first, second = pair
    wanted = [str(number) for number in range(40)]
    gateway = Gateway(tmp_path, to(first.url, second.url, qos, version))
    async with running(gateway):
        device = await (await Person().connect(gateway.url)).subscribe("commands/#")
        await at(gateway, first.url)
        await subscribed(first, device)
        await away_from(gateway, first, second)
        await subscribed(second, device)
        here, there = await Person().connect(first.url), await Person().connect(second.url)
        await here.publish("commands/valve", *wanted, qos=qos)
        await there.publish("commands/valve", "from the second", qos=qos)
        await until(lambda: "from the second" in device.payloads, "the second's commands do not come")
        await at(gateway, first.url)
        await until(lambda: device.payloads.count("39") > 0, "what waited does not come")
        await until(lambda: gateway_is_quiet(gateway), "still looking")
        await here.publish("commands/valve", "now", qos=qos)
        await until(lambda: "now" in device.payloads, "the line does not go on")
        commands = [message for message in device.messages if message.topic == "commands/valve"]
        assert [message.payload.decode() for message in commands] == ["from the second", *wanted, "now"]
        marks = [mark_of(message) for message in commands]
        assert marks[0] is None
        assert marks[-1] is None
        assert all(mark is not None and 1 <= int(mark) < 15 for mark in marks[1:-1]), marks
        assert gateway.bridge.status().late == 40
        for person in (device, here, there):
            person.leave()


def gateway_is_quiet(gateway: Gateway) -> bool:
    """Whether the bridge knows that nothing waits any more."""
    arrears = gateway.bridge._downlink._arrears
    return arrears is None or arrears.is_over


@pytest.mark.parametrize("pair", [FEW_AT_ONCE], indirect=True)
async def test_what_may_not_come_late_is_dropped(tmp_path: Path, pair: tuple[Mosquitto, Mosquitto]) -> None:
    first, second = pair
    gateway = Gateway(tmp_path, to(first.url, second.url, 1, when_late="drop"))
    async with running(gateway):
        device = await (await Person().connect(gateway.url)).subscribe("commands/#")
        await at(gateway, first.url)
        await subscribed(first, device)
        await away_from(gateway, first, second)
        here = await Person().connect(first.url)
        await here.publish("commands/valve", *(str(number) for number in range(20)))
        await until(lambda: gateway.bridge.status().dropped == {"late": 20}, "not dropped")
        await until(lambda: gateway_is_quiet(gateway), "still looking")
        await here.publish("commands/valve", "now")
        await until(lambda: "now" in device.payloads, "the line does not go on")
        assert [message.payload for message in device.messages if message.topic == "commands/valve"] == [
            b"now"
        ]
        device.leave()
        here.leave()


async def test_a_command_cut_off_in_the_middle_comes_once(
    tmp_path: Path, pair: tuple[Mosquitto, Mosquitto], monkeypatch: pytest.MonkeyPatch
) -> None:
    """At QoS 2 the first upstream's messages are published here, and no PUBREC reaches it before the bridge leaves.

    The second upstream has no session of ours, which voids what is known of its own identifiers and of no other's.
    """
    first, second = pair
    gateway = Gateway(tmp_path, to(first.url, second.url, 2))
    async with running(gateway):
        device = await (await Person().connect(gateway.url)).subscribe("commands/#")
        await at(gateway, first.url)
        await subscribed(first, device)
        here = await Person().connect(first.url)
        link = gateway.bridge._line._conversation._link  # type: ignore[union-attr]
        monkeypatch.setattr(link, "write", lambda data: None)
        await here.publish("commands/valve", *map(str, range(100)), qos=2)
        await until(lambda: "99" in device.payloads, "nothing comes")
        first.send(signal.SIGSTOP)
        link.abort()
        await at(gateway, second.url)
        await subscribed(second, device)
        first.send(signal.SIGCONT)
        await at(gateway, first.url)
        await here.publish("commands/valve", "100", qos=2)
        await until(lambda: "100" in device.payloads, "not all came")
        came = [message.payload.decode() for message in device.messages if message.topic == "commands/valve"]
        assert came == [str(number) for number in range(101)]
        device.leave()
        here.leave()
