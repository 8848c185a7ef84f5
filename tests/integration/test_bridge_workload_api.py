"""An identity from the Workload API: an agent on a real gRPC stream, a real mosquitto that wants SVIDs."""

import asyncio
import logging
import os
import time
from pathlib import Path

import pytest

from tests.bridge.agent import Agent
from tests.bridge.real import Gateway, Log, Person, bridge_config, rule, running, until
from tests.bridge.svids import Svid, TrustDomain
from tests.integration.test_bridge_spiffe import BROKER, MeshBroker

pytestmark = pytest.mark.needs("mosquitto")
US = "spiffe://cluster.example/ns/edge/sa/gateway"


@pytest.fixture
def cluster() -> TrustDomain:
    return TrustDomain("cluster.example")


def our_svid(domain: TrustDomain, **wrong: float) -> Svid:
    return domain.issue("ns/edge/sa/gateway", **wrong)  # type: ignore[arg-type]


class Place:
    """An upstream in the mesh, an agent, and a gateway whose identity comes from it."""

    def __init__(self, directory: Path, cluster: TrustDomain, svid: Svid | None, **settings: object) -> None:
        self.upstream = MeshBroker(directory / "upstream", cluster.issue(), cluster)
        self.agent = Agent(directory / "agent.sock", cluster, US, svid)
        values: dict[str, object] = {
            "identity": "spire",
            "spire_socket": self.agent.url,
            "upstream_identity": BROKER,
            "out": (rule("#"),),
        }
        self.config = bridge_config(self.upstream.mesh_url, **(values | settings))
        self.gateway = Gateway(directory / "data", self.config)


async def test_an_identity_from_the_agent(tmp_path: Path, cluster: TrustDomain) -> None:
    place = Place(tmp_path, cluster, our_svid(cluster))
    async with running(place.upstream, place.agent, place.gateway):
        await place.gateway.online()
        cloud = await (await Person().connect(place.upstream.url)).subscribe("#")
        sensor = await Person().connect(place.gateway.url)
        await sensor.publish("s", "21.5")
        await until(lambda: cloud.payloads == ["21.5"], "it did not come up")
        sensor.leave()
        cloud.leave()


async def test_a_host_name_with_an_identity_from_the_agent(tmp_path: Path, cluster: TrustDomain) -> None:
    """Our SVID from the agent, theirs an ordinary certificate."""
    place = Place(
        tmp_path,
        cluster,
        our_svid(cluster),
        upstream_identity=None,
        ca=cluster.write_bundle(tmp_path / "ca.pem"),
        server_name="broker.example.com",
    )
    place.upstream.take_before_start(cluster.issue(hosts=["broker.example.com"]))
    async with running(place.upstream, place.agent, place.gateway):
        await place.gateway.online()


async def test_an_agent_that_comes_later(tmp_path: Path, cluster: TrustDomain) -> None:
    """At boot nobody knows who is up first. Said once, tried again."""
    place = Place(tmp_path, cluster, our_svid(cluster))
    with Log() as log:
        async with running(place.upstream, place.gateway):
            bridge = place.gateway.bridge
            await until(lambda: bridge.status().failures["files"] >= 3, "no failure")
            assert len(log.of("WARNING")) == 1
            status = bridge.status()
            assert status.last_error.startswith(f"the Workload API at {place.agent.url} gives no identity: ")
            assert "is the agent running" in status.last_hint
            async with running(place.agent):
                await place.gateway.online()
            await until(lambda: "nothing comes from the Workload API" in log.of("WARNING")[-1], "not noticed")


async def test_an_agent_that_does_not_know_us_yet(tmp_path: Path, cluster: TrustDomain) -> None:
    place = Place(tmp_path, cluster, None)
    async with running(place.upstream, place.agent, place.gateway):
        bridge = place.gateway.bridge
        await until(lambda: "PERMISSION_DENIED" in bridge.status().last_error, "not said")
        assert "register it" in bridge.status().last_hint
        place.agent.give(our_svid(cluster))
        await place.gateway.online()


async def test_a_renewed_identity_counts_without_a_restart(tmp_path: Path, cluster: TrustDomain) -> None:
    """The first one is of a stranger, whom the upstream refuses."""
    stranger = TrustDomain("cluster.example")
    place = Place(tmp_path, cluster, our_svid(stranger))
    async with running(place.upstream, place.agent, place.gateway):
        bridge = place.gateway.bridge
        failures = lambda: bridge.status().failures  # noqa: E731
        await until(lambda: failures()["identity"] + failures()["closed"], "a stranger was let in")
        place.agent.give(our_svid(cluster))
        await place.gateway.online()
        assert place.agent.streams == 1


async def test_an_agent_that_restarts(tmp_path: Path, cluster: TrustDomain) -> None:
    """What it gave last counts meanwhile; what it gives then, from then on."""
    place = Place(tmp_path, cluster, our_svid(cluster))
    async with running(place.upstream, place.gateway):
        async with running(place.agent):
            await place.gateway.online()
        place.upstream.stop()
        await until(lambda: not place.gateway.bridge.status().connected, "not noticed")
        await place.upstream.start()
        await place.gateway.online()
        async with running(place.agent):
            await until(lambda: place.agent.streams == 2, "it was not asked again", 30)


async def test_an_upstream_of_a_federated_domain(tmp_path: Path, cluster: TrustDomain) -> None:
    """Its bundle comes with the stream, and goes with it."""
    other = TrustDomain("other.example")
    place = Place(
        tmp_path,
        cluster,
        our_svid(cluster),
        upstream_identity="spiffe://other.example/ns/mqtt/sa/broker",
    )
    place.upstream.take_before_start(other.issue())
    async with running(place.upstream, place.agent, place.gateway):
        bridge = place.gateway.bridge
        await until(lambda: "no trust bundle for other.example" in bridge.status().last_error, "not said")
        place.agent.give(our_svid(cluster), other)
        await place.gateway.online()


async def test_a_forgery_with_the_agents_bundles(tmp_path: Path, cluster: TrustDomain) -> None:
    other = TrustDomain("other.example")
    place = Place(tmp_path, cluster, our_svid(cluster))
    place.upstream.take_before_start(other.issue(uris=[BROKER]))
    place.agent.give(our_svid(cluster), other)
    async with running(place.upstream, place.agent):
        said = await failure_after_identity(place.gateway)
    assert "the trust bundle of cluster.example does not vouch for it" in said


async def failure_after_identity(gateway: Gateway) -> str:
    async with running(gateway):
        await until(lambda: gateway.bridge.status().failures["identity"], "it was let in", 20)
        return gateway.bridge.status().last_error


async def test_the_loop_does_not_wait_for_the_agent(tmp_path: Path, cluster: TrustDomain) -> None:
    """Turns of the event loop while SVIDs come in by the hundred."""
    place = Place(tmp_path, cluster, our_svid(cluster))
    async with running(place.upstream, place.agent, place.gateway):
        await place.gateway.online()
        svids = [our_svid(cluster) for _ in range(20)]
        longest = 0.0
        for number in range(200):
            place.agent.give(svids[number % 20])
            before = time.monotonic()
            await asyncio.sleep(0)
            longest = max(longest, time.monotonic() - before)
            await asyncio.sleep(0.002)
        assert longest < 0.25


async def test_no_key_is_in_a_file_or_a_log(
    tmp_path: Path, cluster: TrustDomain, caplog: pytest.LogCaptureFixture
) -> None:
    """Neither below the data directory, nor in what this process has open, nor in what it says of itself."""
    svid = our_svid(cluster)
    caplog.set_level(logging.DEBUG)
    place = Place(tmp_path, cluster, svid)
    async with running(place.upstream, place.agent, place.gateway):
        await place.gateway.online()
        secrets = (svid.key, svid.key_pem, svid.key_pem.split(b"\n")[1])
        for path in (tmp_path / "data").rglob("*"):
            if path.is_file():
                assert not any(secret in path.read_bytes() for secret in secrets), path
        opened = [os.readlink(f"/proc/self/fd/{name}") for name in os.listdir("/proc/self/fd")
                  if os.path.lexists(f"/proc/self/fd/{name}")]  # fmt: skip
        assert not any("memfd" in path or ".key" in path for path in opened)
        assert secrets[2].decode() not in repr(place.gateway.bridge._line._identity._api.newest)  # type: ignore[attr-defined]
    assert secrets[2].decode() not in caplog.text
