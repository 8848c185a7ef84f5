"""Two connections, one for each direction: what goes up is handed over without a break, commands keep their session."""

from __future__ import annotations

import logging
import time
from pathlib import Path

import pytest

from bridge.policy_config import PacingConfig
from edge_broker.config.model import SecurityConfig
from tests.bridge.real import Gateway, Log, Mosquitto, Person, bridge_config, rule, running, until
from tests.bridge.svids import TrustDomain
from tests.integration.test_bridge_handover import SHORT_SECONDS, connections, renew, short_lived
from tests.integration.test_bridge_spiffe import MeshBroker, meshed

pytestmark = pytest.mark.needs("mosquitto")


async def test_each_direction_has_a_connection_and_the_uplink_hands_over_without_a_break(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """Commands are taken over by their one client id, in less than a second; nothing is lost, doubled or out of order."""
    caplog.set_level(logging.INFO, "bridge")
    cluster = TrustDomain("cluster.example")
    upstream = MeshBroker(tmp_path / "upstream", cluster.issue(), cluster)
    ways = {"out": (rule("s"),), "in_": (rule("cmd"),), "separate_uplink": True}
    gateway = Gateway(
        tmp_path / "data", meshed(upstream.mesh_url, tmp_path, short_lived(cluster), cluster, **ways)
    )
    ends_at = time.time() + SHORT_SECONDS
    with Log() as log:
        async with running(upstream, gateway):
            await gateway.online()
            up, down = gateway.bridges
            await until(lambda: down._downlink.is_subscribed, "it has not subscribed")
            renew(cluster, tmp_path)
            cloud = await (await Person().connect(upstream.url)).subscribe("s")
            sensor = await (await Person().connect(gateway.url)).subscribe("cmd")
            sent = 0
            while min(up.status().connects, down.status().connects) < 2:
                assert time.time() < ends_at + 2, "nothing took over"
                await sensor.publish("s", str(sent))
                await cloud.publish("cmd", str(sent))
                sent += 1
            wanted = [str(number) for number in range(sent)]
            await until(lambda: cloud.payloads == wanted, "readings are missing, or double, or out of order")
            await until(lambda: sensor.payloads == wanted, "commands are missing, or double, or out of order")
            assert (sum(up.status().received), sum(down.status().sent)) == (0, 0)
            sensor.leave()
            cloud.leave()
            came = connections(upstream)
    ups = [step for step in came if step.lstrip("+-") in ("gateway-up", "gateway-b")]
    downs = [step for step in came if step.lstrip("+-") == "gateway"]
    assert ups[:3] == ["+gateway-up", "+gateway-b", "-gateway-up"]
    assert downs[:3] == ["+gateway", "-gateway", "+gateway"]
    assert set(came) == set(ups) | set(downs)
    away = [line for line in log.of("INFO") if "went over to a new connection" in line]
    assert len(away) == 2
    assert all(int(line.rpartition(" for ")[2].removesuffix(" ms")) < 1000 for line in away)
    assert log.of("WARNING") == []


async def test_commands_wait_in_their_session_while_the_gateway_is_away(tmp_path: Path) -> None:
    """Also those that were sent before the option was written: the client id of commands is the one that it was."""
    upstream = Mosquitto(tmp_path / "upstream")
    ways = {"out": (rule("s"),), "in_": (rule("cmd", 2),)}
    one = Gateway(tmp_path / "data", bridge_config(upstream.url, **ways))
    two = Gateway(tmp_path / "data", bridge_config(upstream.url, **ways, separate_uplink=True))
    async with running(upstream):
        async with running(one):
            await one.online()
            await until(lambda: one.bridge._downlink.is_subscribed, "it has not subscribed")
            sensor = await (await Person("sensor", keeps_session=True).connect(one.url)).subscribe("cmd")
            sensor.leave()
        cloud = await (await Person().connect(upstream.url)).subscribe("s")
        await cloud.publish("cmd", "1", "2", qos=2)
        async with running(two):
            await two.online()
            sensor = await Person("sensor", keeps_session=True).connect(two.url)
            await until(lambda: sensor.payloads == ["1", "2"], "what waited has not come")
            await sensor.publish("s", "21.5")
            await until(lambda: cloud.payloads == ["21.5"], "it did not come up")
            sensor.leave()
        cloud.leave()


async def test_the_months_bytes_are_one_account(tmp_path: Path) -> None:
    """When they are spent, both wait for the next month."""
    upstream = Mosquitto(tmp_path / "upstream")
    config = bridge_config(
        upstream.url,
        out=(rule("s"),),
        in_=(rule("cmd"),),
        separate_uplink=True,
        pacing=PacingConfig(monthly_bytes=20_000),
    )
    gateway = Gateway(tmp_path / "data", config)
    async with running(upstream, gateway):
        await gateway.online()
        up, down = gateway.bridges
        cloud = await Person().connect(upstream.url)
        await cloud.publish("cmd", "x" * 12_000)
        await until(lambda: up.carried_bytes > 12_000, "commands are not counted")
        assert up.carried_bytes == down.carried_bytes
        sensor = await Person().connect(gateway.url)
        await sensor.publish("s", "y" * 12_000)
        await until(lambda: up.status().state == "month-spent", "the uplink goes on")
        await until(lambda: down.status().state == "month-spent", "commands have an account of their own")
        sensor.leave()
        cloud.leave()


async def test_what_came_down_does_not_go_up_again_whatever_the_filters(tmp_path: Path) -> None:
    """As where both directions share a connection. What went up here and comes round is known again, too."""
    upstream = Mosquitto(tmp_path / "upstream")
    config = bridge_config(
        upstream.url,
        out=(rule("#", remote="sites/7/"),),
        in_=(rule("cmd/#", local="down/"), rule("round/#")),
        separate_uplink=True,
    )
    gateway = Gateway(tmp_path / "data", config)
    async with running(upstream, gateway):
        await gateway.online()
        up, down = gateway.bridges
        await until(lambda: down._downlink.is_subscribed, "it has not subscribed")
        cloud = await (await Person().connect(upstream.url)).subscribe("sites/#")
        sensor = await (await Person().connect(gateway.url)).subscribe("down/#", "round/#")
        await cloud.publish("cmd/x", "on")
        await until(lambda: sensor.payloads == ["on"], "the command did not come")
        await sensor.publish("s", "21.5")
        await until(lambda: cloud.payloads == ["21.5"], "it went up again")
        await cloud.publish("round/x", "21.5", properties=cloud.messages[0].properties)
        await until(lambda: down.status().dropped == {"loop": 1}, "it is not known again")
        assert (cloud.topics, sensor.payloads) == (["sites/7/s"], ["on"])
        assert up.status().dropped == {}
        sensor.leave()
        cloud.leave()


@pytest.mark.parametrize("settings", [{"second_client_id": "gateway"}, {"session_expiry_seconds": 0}])
async def test_the_two_never_expel_each_other(tmp_path: Path, settings: dict[str, object]) -> None:
    cluster = TrustDomain("cluster.example")
    upstream = MeshBroker(tmp_path / "upstream", cluster.issue(), cluster)
    ways = {"out": (rule("s"),), "in_": (rule("cmd"),), "separate_uplink": True} | settings
    us = short_lived(cluster)
    gateway = Gateway(tmp_path / "data", meshed(upstream.mesh_url, tmp_path, us, cluster, **ways))
    with Log() as log:
        async with running(upstream, gateway):
            await gateway.online()
            renew(cluster, tmp_path)
            await until(
                lambda: min(bridge.status().connects for bridge in gateway.bridges) == 2, "none took over"
            )
            await gateway.online()
            assert all(sum(bridge.status().failures.values()) == 0 for bridge in gateway.bridges)
    assert log.of("WARNING") == []


async def test_the_acl_knows_both_connections_as_the_bridge(tmp_path: Path) -> None:
    acl = tmp_path / "acl.toml"
    acl.write_text(
        '[roles.cloud]\nallow.publish = ["cmd/yes"]\nallow.subscribe = ["#"]\n[bridges]\nupstream = ["cloud"]\n'
    )
    upstream = Mosquitto(tmp_path / "upstream")
    config = bridge_config(upstream.url, out=(rule("s"),), in_=(rule("cmd/#"),), separate_uplink=True)
    gateway = Gateway(tmp_path / "data", config, security=SecurityConfig(acl_file=acl))
    async with running(upstream, gateway):
        await gateway.online()
        _, down = gateway.bridges
        await until(lambda: down._downlink.is_subscribed, "it has not subscribed")
        cloud = await Person().connect(upstream.url)
        await cloud.publish("cmd/yes", "1")
        await cloud.publish("cmd/no", "2")
        await until(lambda: sum(down.status().received) == 2, "they have not come")
        assert down.status().dropped == {"not_authorized": 1}
        cloud.leave()
