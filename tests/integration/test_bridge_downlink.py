"""From a real mosquitto down through the bridge: commands arrive, also those sent while nobody was there; no loops."""

import asyncio
from pathlib import Path

import paho.mqtt.client as paho
import pytest

from edge_broker.core.ports import Principal
from tests.bridge.real import Gateway, Log, Mosquitto, Person, bridge_config, rule, running, until
from tests.permitting import SimpleRules

pytestmark = pytest.mark.needs("mosquitto")

VERSIONS = pytest.mark.parametrize("version", ["5", "3.1.1"])


@VERSIONS
@pytest.mark.parametrize("qos", [0, 1, 2])
async def test_commands_come_down_under_their_local_name(tmp_path: Path, version: str, qos: int) -> None:
    upstream = Mosquitto(tmp_path / "upstream")
    config = bridge_config(upstream.url, version=version, in_=(rule("cmd/#", qos, remote="site/7/"),))
    gateway = Gateway(tmp_path / "data", config)
    async with running(upstream, gateway):
        await gateway.online()
        device = await (await Person("device", keeps_session=True).connect(gateway.url)).subscribe("cmd/#")
        cloud = await Person().connect(upstream.url)
        await until(lambda: "site/7" in upstream_filters(gateway), "not subscribed")
        wanted = [str(number) for number in range(200)]
        await cloud.publish("site/7/cmd/valve", *wanted, qos=2)
        await until(lambda: len(device.messages) >= 200, "not all came down")
        assert device.payloads == wanted
        assert {(message.topic, message.qos) for message in device.messages} == {("cmd/valve", qos)}
        assert gateway.bridge.status().received[qos] == 200
        device.leave()
        cloud.leave()


def upstream_filters(gateway: Gateway) -> str:
    """What the bridge has subscribed to and been granted."""
    downlink = gateway.bridge._downlink
    return " ".join(downlink._mapping.remote_filters) if downlink.is_subscribed else ""


@VERSIONS
async def test_commands_sent_while_the_gateway_is_down_come_when_it_is_back(
    tmp_path: Path, version: str
) -> None:
    upstream = Mosquitto(tmp_path / "upstream")
    config = bridge_config(upstream.url, version=version, in_=(rule("cmd/#", 2),))
    async with running(upstream):
        gateway = Gateway(tmp_path / "data", config)
        async with running(gateway):
            await gateway.online()
            device = await (await Person("device", keeps_session=True).connect(gateway.url)).subscribe(
                "cmd/#"
            )
            await until(lambda: upstream_filters(gateway), "not subscribed")
            device.leave()
        cloud = await Person().connect(upstream.url)
        await cloud.publish("cmd/valve", "open", qos=1)
        await cloud.publish("cmd/valve", "close", qos=2)
        gateway = Gateway(tmp_path / "data", config)
        async with running(gateway):
            device = await Person("device", keeps_session=True).connect(gateway.url)
            await until(lambda: len(device.messages) >= 2, "the commands did not come")
            assert device.payloads == ["open", "close"]
            device.leave()
        cloud.leave()


async def test_each_command_comes_once_although_the_gateway_restarts_in_the_midst_of_them(
    tmp_path: Path,
) -> None:
    """QoS 2 from end to end. The device is away meanwhile: what it gets in the end is what the gateway kept."""
    upstream = Mosquitto(tmp_path / "upstream")
    config = bridge_config(upstream.url, in_=(rule("cmd/#", 2),))
    wanted = [str(number) for number in range(400)]
    async with running(upstream):
        cloud = await Person().connect(upstream.url)
        gateway = Gateway(tmp_path / "data", config)
        async with running(gateway):
            device = await (await Person("device", keeps_session=True).connect(gateway.url)).subscribe(
                "cmd/#"
            )
            await until(lambda: upstream_filters(gateway), "not subscribed")
            device.leave()
        for restart in range(5):
            await cloud.publish("cmd/valve", *wanted[80 * restart :][:80], qos=2)
            gateway = Gateway(tmp_path / "data", config)
            async with running(gateway):
                await until(lambda: gateway.bridge.status().received[2] > 10, "no progress")  # noqa: B023
        gateway = Gateway(tmp_path / "data", config)
        async with running(gateway):
            device = await Person("device", keeps_session=True).connect(gateway.url)
            await until(lambda: len(device.messages) >= 400, "something is missing")
            await cloud.publish("cmd/valve", "end", qos=2)
            await until(lambda: "end" in device.payloads, "the last one is missing")
            device.leave()
        cloud.leave()
    assert device.payloads == [*wanted, "end"]


async def test_a_command_is_acknowledged_upstream_only_when_it_is_kept_here(tmp_path: Path) -> None:
    """The store does not commit: the upstream hears nothing, and sends it again to whoever comes next."""
    upstream = Mosquitto(tmp_path / "upstream")
    config = bridge_config(upstream.url, in_=(rule("cmd/#", 1),))
    async with running(upstream):
        gateway = Gateway(tmp_path / "data", config)
        async with running(gateway):
            await gateway.online()
            device = await (await Person("device", keeps_session=True).connect(gateway.url)).subscribe(
                "cmd/#"
            )
            await until(lambda: upstream_filters(gateway), "not subscribed")
            device.leave()
            gateway.broker.journal.poke = lambda: None  # type: ignore[method-assign]
            cloud = await Person().connect(upstream.url)
            await cloud.publish("cmd/valve", "open", qos=1)
            await until(lambda: gateway.bridge.status().received[1] == 1, "it did not come")
            assert gateway.bridge._downlink.waiting == 1
            del gateway.broker.journal.poke  # type: ignore[attr-defined]
            gateway.broker.request_tick()
            await until(lambda: gateway.bridge._downlink.waiting == 0, "it was not acknowledged")
        cloud.leave()


async def test_nothing_goes_round_where_both_directions_have_the_same_topics(tmp_path: Path) -> None:
    upstream = Mosquitto(tmp_path / "upstream")
    config = bridge_config(upstream.url, out=(rule("#"),), in_=(rule("#"),))
    gateway = Gateway(tmp_path / "data", config)
    async with running(upstream, gateway):
        await gateway.online()
        await until(lambda: upstream_filters(gateway), "not subscribed")
        cloud = await (await Person().connect(upstream.url)).subscribe("#")
        device = await (await Person().connect(gateway.url)).subscribe("#")
        await device.publish("t", "from here")
        await cloud.publish("t", "from there")
        await until(lambda: "from there" in device.payloads and "from here" in cloud.payloads, "not crossed")
        await device.publish("end", "1")
        await cloud.publish("end", "2")
        await until(lambda: "2" in device.payloads and "1" in cloud.payloads, "not crossed")
        assert sorted(device.payloads) == ["1", "2", "from here", "from there"]
        assert sorted(cloud.payloads) == ["1", "2", "from here", "from there"]
        device.leave()
        cloud.leave()


async def test_version_3_has_one_echo_and_no_loop_and_says_so(tmp_path: Path) -> None:
    upstream = Mosquitto(tmp_path / "upstream")
    config = bridge_config(upstream.url, version="3.1.1", out=(rule("#"),), in_=(rule("#"),))
    gateway = Gateway(tmp_path / "data", config)
    with Log() as log:
        async with running(upstream, gateway):
            await gateway.online()
            await until(lambda: upstream_filters(gateway), "not subscribed")
            cloud = await (await Person().connect(upstream.url)).subscribe("#")
            device = await (await Person(version=paho.MQTTv311).connect(gateway.url)).subscribe("#")
            await device.publish("t", "x")
            await until(lambda: len(device.messages) == 2, "no echo")
            await cloud.publish("end", "y")
            await until(lambda: "y" in device.payloads, "not crossed")
            await gateway.drained()
            assert device.payloads == ["x", "x", "y"]
            assert cloud.payloads == ["x", "y"]
            device.leave()
            cloud.leave()
    assert any("out and in overlap" in line for line in log.of("WARNING"))


class Doorkeeper(SimpleRules):
    """Permits everything but subscriptions to one topic filter."""

    def may_publish(self, principal: Principal, topic: str) -> bool:
        return True

    def may_subscribe(self, principal: Principal, topic_filter: str) -> bool:
        return topic_filter != "bad/#"


async def test_a_refused_subscription_is_reported_and_the_rest_goes_on(tmp_path: Path) -> None:
    """Upstream is another broker of ours, since mosquitto's own access lists refuse no SUBSCRIBE."""
    upstream = Gateway(tmp_path / "upstream")
    with Log() as log:
        async with running(upstream):
            upstream.broker.router.authorizer = Doorkeeper()
            rules = {"out": (rule("good/up"),), "in_": (rule("good/down"), rule("bad/#"))}
            gateway = Gateway(tmp_path / "data", bridge_config(upstream.url, **rules))
            async with running(gateway):
                await until(lambda: gateway.bridge.status().subscriptions_refused == 1, "not noticed")
                device = await (await Person().connect(gateway.url)).subscribe("good/down")
                await device.publish("good/up", "x")
                await gateway.drained()
                cloud = await Person().connect(upstream.url)
                await cloud.publish("good/down", "y")
                await until(lambda: device.messages, "the granted one does not work")
                device.leave()
                cloud.leave()
    assert [line for line in log.of("ERROR") if "bad/#" in line and "not authorized" in line]


async def test_retained_commands_come_once_not_at_every_reconnect(tmp_path: Path) -> None:
    upstream = Mosquitto(tmp_path / "upstream", persistent=True)
    config = bridge_config(upstream.url, in_=(rule("cmd/#"),))
    gateway = Gateway(tmp_path / "data", config)
    async with running(upstream):
        cloud = await Person().connect(upstream.url)
        await cloud.publish("cmd/mode", "eco", retain=True)
        cloud.leave()
        async with running(gateway):
            await gateway.online()
            await until(lambda: gateway.bridge.status().received[1] == 1, "the retained one did not come")
            await until(lambda: gateway.bridge._downlink.waiting == 0, "it was not acknowledged")
            await asyncio.sleep(0.05)  # for the acknowledgement's way
            upstream.stop()
            await until(lambda: not gateway.bridge.status().connected, "not noticed")
            await upstream.start()
            await gateway.online()
            cloud = await Person().connect(upstream.url)
            await cloud.publish("cmd/other", "x")
            await until(lambda: gateway.bridge.status().received[1] == 2, "the session is gone")
            late = await (await Person().connect(gateway.url)).subscribe("cmd/mode")
            await until(lambda: late.messages, "it is not retained here")
            assert late.messages[0].retain
            late.leave()
            cloud.leave()
