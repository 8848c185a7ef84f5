"""The three ways to be in a mesh, each through a real Envoy with a shipped configuration, to a real mosquitto."""

import os
import time
from pathlib import Path

import pytest

from bridge.config import BridgeConfig
from tests.bridge.agent import Agent
from tests.bridge.envoy import MeshIngress, Sidecar
from tests.bridge.real import Gateway, Mosquitto, Person, bridge_config, rule, running, until
from tests.bridge.svids import Svid, TrustDomain
from tests.integration.test_bridge_spiffe import BROKER, meshed

pytestmark = pytest.mark.needs("mosquitto")


@pytest.fixture
def cluster() -> TrustDomain:
    return TrustDomain("cluster.example")


class Mesh:
    """A broker that can be reached through its Envoy only, and who watches behind it."""

    def __init__(self, directory: Path, cluster: TrustDomain, svid: Svid | None = None) -> None:
        self.broker = Mosquitto(directory / "broker")
        self.ingress = MeshIngress(directory / "ingress", svid or cluster.issue(), cluster, self.broker.port)

    async def start(self) -> None:
        await self.broker.start()
        await self.ingress.start()

    def stop(self) -> None:
        self.ingress.stop()
        self.broker.stop()


def gateway_svid(domain: TrustDomain, **wrong: object) -> Svid:
    return domain.issue("ns/edge/sa/gateway", **wrong)  # type: ignore[arg-type]


async def crosses_both_ways(mesh: Mesh, gateway: Gateway) -> None:
    """Readings up and a command down."""
    await gateway.online()
    cloud = await (await Person().connect(mesh.broker.url)).subscribe("s")
    sensor = await (await Person().connect(gateway.url)).subscribe("cmd")
    wanted = [f"{number} " + "x" * 2000 for number in range(300)]
    await sensor.publish("s", *wanted)
    await until(lambda: cloud.payloads == wanted, "not all came up")
    await cloud.publish("cmd", "on")
    await until(lambda: sensor.payloads == ["on"], "the command did not come")
    sensor.leave()
    cloud.leave()


def both_ways(**settings: object) -> dict[str, object]:
    return {"out": (rule("s"),), "in_": (rule("cmd"),), **settings}


# ---- SVIDs from files


async def test_with_svids_from_files(tmp_path: Path, cluster: TrustDomain) -> None:
    mesh = Mesh(tmp_path, cluster)
    config = meshed(mesh.ingress.url, tmp_path, gateway_svid(cluster), cluster, **both_ways())
    gateway = Gateway(tmp_path / "data", config)
    async with running(mesh, gateway):
        await crosses_both_ways(mesh, gateway)


async def test_svids_renewed_by_renaming_while_connected(tmp_path: Path, cluster: TrustDomain) -> None:
    """A live connection goes over to the new one before the old one ends; the next connection uses it as well."""
    lifetime = 5.0
    mesh = Mesh(tmp_path, cluster)
    await mesh.start()
    try:
        first = gateway_svid(cluster, lifetime_seconds=lifetime, begins_seconds_ago=0)
        ends_at = time.time() + lifetime
        config = meshed(mesh.ingress.url, tmp_path, first, cluster, **both_ways())
        gateway = Gateway(tmp_path / "data", config)
        async with running(gateway):
            await gateway.online()
            certificate, key = gateway_svid(cluster).write(tmp_path, "new")
            os.replace(certificate, tmp_path / "gateway.pem")
            os.replace(key, tmp_path / "gateway.key")
            await until(lambda: gateway.bridge.status().connects == 2, "nothing took over")
            assert time.time() < ends_at
            await until(lambda: time.time() > ends_at, "time stands still")
            await crosses_both_ways(mesh, gateway)
            mesh.ingress.stop()
            await until(lambda: not gateway.bridge.status().connected, "not noticed")
            await mesh.ingress.start()
            await until(lambda: gateway.bridge.status().connects == 3, "the expired one was shown again")
    finally:
        mesh.stop()


async def refused(directory: Path, config: BridgeConfig) -> tuple[str, str]:
    """The message and its hint where Envoy lets us not in."""
    gateway = Gateway(directory, config)
    async with running(gateway):
        status = gateway.bridge.status
        await until(lambda: sum(status().failures.values()), "no failure")
        assert status().connects == 0
        assert status().failures["identity"] + status().failures["closed"] >= 1, status().failures
        return status().last_error, status().last_hint


@pytest.mark.parametrize("who", ["another workload", "a stranger", "nobody"])
async def test_an_identity_that_envoy_refuses(tmp_path: Path, cluster: TrustDomain, who: str) -> None:
    """Its handshake comes to an end for us first: the message says identity all the same."""
    mesh = Mesh(tmp_path, cluster)
    us = cluster.issue("ns/web/sa/shop")
    if who == "a stranger":
        us = gateway_svid(TrustDomain("cluster.example"))
    config = meshed(mesh.ingress.url, tmp_path, us if who != "nobody" else None, cluster)
    async with running(mesh):
        connections = mesh.broker.log.count("New connection from")
        error, hint = await refused(tmp_path / "data", config)
        assert "identity" in error or "identity refused?" in hint
        assert "check certificate and key" in hint
        assert mesh.broker.log.count("New connection from") == connections, (
            "it reached the broker all the same"
        )


async def test_an_ingress_of_another_name(tmp_path: Path, cluster: TrustDomain) -> None:
    mesh = Mesh(tmp_path, cluster, cluster.issue("ns/mqtt/sa/thief"))
    config = meshed(mesh.ingress.url, tmp_path, gateway_svid(cluster), cluster)
    gateway = Gateway(tmp_path / "data", config)
    async with running(mesh, gateway):
        await until(lambda: gateway.bridge.status().failures["identity"], "it was believed")
        assert "it is spiffe://cluster.example/ns/mqtt/sa/thief" in gateway.bridge.status().last_error


# ---- a sidecar


@pytest.mark.parametrize("way", ["loopback", "socket"])
async def test_with_a_sidecar(tmp_path: Path, cluster: TrustDomain, way: str) -> None:
    mesh = Mesh(tmp_path, cluster)
    sidecar = Sidecar(tmp_path / "sidecar", gateway_svid(cluster), cluster, mesh.ingress.port)
    url = sidecar.url if way == "loopback" else sidecar.socket_url
    gateway = Gateway(tmp_path / "data", bridge_config(url, **both_ways()))
    async with running(mesh, sidecar, gateway):
        await crosses_both_ways(mesh, gateway)


async def test_a_sidecar_whose_svid_is_renewed(tmp_path: Path, cluster: TrustDomain) -> None:
    """As shipped, Envoy takes files that are renamed over the old ones: first an identity that is not let in."""
    mesh = Mesh(tmp_path, cluster)
    sidecar = Sidecar(tmp_path / "sidecar", cluster.issue("ns/web/sa/shop"), cluster, mesh.ingress.port)
    gateway = Gateway(tmp_path / "data", bridge_config(sidecar.socket_url, **both_ways()))
    async with running(mesh, sidecar, gateway):
        await until(lambda: gateway.bridge.status().failures["closed"], "it was let in")
        sidecar.take(gateway_svid(cluster))
        await crosses_both_ways(mesh, gateway)


async def test_a_sidecar_that_does_not_reach_the_mesh(tmp_path: Path, cluster: TrustDomain) -> None:
    """It takes the connection and drops it: not the same as no sidecar at all."""
    mesh = Mesh(tmp_path, cluster)
    sidecar = Sidecar(tmp_path / "sidecar", gateway_svid(cluster), cluster, mesh.ingress.port)
    gateway = Gateway(tmp_path / "data", bridge_config(sidecar.socket_url, **both_ways()))
    async with running(sidecar, gateway):
        await until(lambda: gateway.bridge.status().failures["closed"], "no failure")
        assert "can it reach the upstream?" in gateway.bridge.status().last_hint
        sidecar.stop()
        await until(lambda: gateway.bridge.status().failures["connect"], "no failure")
        assert "sidecar" in gateway.bridge.status().last_hint
        await sidecar.start()
        async with running(mesh):
            await gateway.online()


# ---- the Workload API


async def test_with_the_workload_api(tmp_path: Path, cluster: TrustDomain) -> None:
    """And an SVID that the agent renews while connected."""
    mesh = Mesh(tmp_path, cluster)
    await mesh.start()
    try:
        first = gateway_svid(cluster, lifetime_seconds=5.0, begins_seconds_ago=0)
        agent = Agent(tmp_path / "agent.sock", cluster, cluster.id("ns/edge/sa/gateway"), first)
        config = bridge_config(
            mesh.ingress.url,
            **both_ways(identity="spire", spire_socket=agent.url, upstream_identity=BROKER),
        )
        gateway = Gateway(tmp_path / "data", config)
        async with running(agent, gateway):
            await crosses_both_ways(mesh, gateway)
            agent.give(gateway_svid(cluster))
            await until(lambda: gateway.bridge.status().connects == 2, "nothing took over")
            await crosses_both_ways(mesh, gateway)
            assert sum(gateway.bridge.status().failures.values()) == 0
    finally:
        mesh.stop()
