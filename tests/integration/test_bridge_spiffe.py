"""The upstream by SPIFFE ID, in real handshakes with a real mosquitto that has an X.509-SVID."""

import asyncio
import os
import signal
import ssl
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import pytest

from bridge.config import BridgeConfig
from bridge.policy_config import FailoverConfig, UpstreamConfig
from bridge.trust import PeerJudge
from tests.bridge.real import (
    Gateway,
    Log,
    Mosquitto,
    Person,
    bridge_config,
    free_port,
    rule,
    running,
    until,
)
from tests.bridge.svids import Svid, TrustDomain

BROKER = "spiffe://cluster.example/ns/mqtt/sa/broker"


@pytest.fixture
def cluster() -> TrustDomain:
    return TrustDomain("cluster.example")


@pytest.fixture
def other() -> TrustDomain:
    return TrustDomain("other.example")


class MeshBroker(Mosquitto):
    """A mosquitto that shows `svid`, wants one of `trusted`, and lets people in on another port."""

    def __init__(self, directory: Path, svid: Svid, *trusted: TrustDomain) -> None:
        directory.mkdir()
        certificate, key = svid.write(directory, "broker")
        bundle = directory / "clients.pem"
        bundle.write_bytes(b"".join(domain.bundle for domain in trusted))
        self.tls_port = free_port()
        super().__init__(
            directory,
            f"allow_anonymous true\nlistener {self.tls_port} 127.0.0.1\ncafile {bundle}\ncertfile {certificate}\n"
            f"keyfile {key}\nrequire_certificate true\n",
        )
        self.mesh_url = f"mqtts://127.0.0.1:{self.tls_port}"

    def take(self, svid: Svid) -> None:
        """Show another one from now on."""
        self.take_before_start(svid)
        self.send(signal.SIGHUP)

    def take_before_start(self, svid: Svid) -> None:
        """Show another one from the start on."""
        svid.write(self._config.parent, "broker")


def meshed(
    url: str, directory: Path, us: Svid | None, *domains: TrustDomain, **settings: object
) -> BridgeConfig:
    certificate, key = (None, None) if us is None else us.write(directory, "gateway")
    bundles = {domain.name: domain.write_bundle(directory / f"{domain.name}.pem") for domain in domains}
    values: dict[str, object] = {"upstream_identity": BROKER, "trust_bundles": bundles, "out": (rule("#"),)}
    urls = (url,) if url else ()
    return bridge_config(*urls, certificate=certificate, key=key, **(values | settings))


async def failure(gateway: Gateway, kind: str) -> str:
    """What goes wrong first; counted under `kind`."""
    with Log() as log:
        async with running(gateway):
            await until(lambda: log.of("WARNING"), "no failure")
            status = gateway.bridge.status()
            assert status.failures[kind] >= 1, status.failures
            assert not status.connects
    assert status.last_error in log.of("WARNING")[0]
    return status.last_error


@pytest.mark.needs("mosquitto")
@pytest.mark.parametrize(
    "pattern", [BROKER, "spiffe://cluster.example/ns/*/sa/broker", "spiffe://cluster.example/**"]
)
async def test_messages_cross_to_the_workload_that_is_meant(
    tmp_path: Path, cluster: TrustDomain, other: TrustDomain, pattern: str
) -> None:
    """Its certificate is for no host name at all."""
    upstream = MeshBroker(tmp_path / "upstream", cluster.issue(), cluster)
    us = cluster.issue("ns/edge/sa/gateway")
    config = meshed(upstream.mesh_url, tmp_path, us, cluster, other, upstream_identity=pattern)
    gateway = Gateway(tmp_path / "data", config)
    async with running(upstream, gateway):
        await gateway.online()
        cloud = await (await Person().connect(upstream.url)).subscribe("#")
        sensor = await Person().connect(gateway.url)
        await sensor.publish("s", "21.5")
        await until(lambda: cloud.payloads == ["21.5"], "it did not come up")
        sensor.leave()
        cloud.leave()


@pytest.mark.needs("mosquitto")
async def test_a_better_upstream_is_judged_before_the_bridge_returns(
    tmp_path: Path, cluster: TrustDomain
) -> None:
    """Test connections ask for the identity too: nothing of MQTT goes to an impostor, our client id not either."""
    first = MeshBroker(tmp_path / "first", cluster.issue("ns/mqtt/sa/impostor"), cluster)
    second = MeshBroker(tmp_path / "second", cluster.issue(), cluster)
    config = meshed(
        "",
        tmp_path,
        cluster.issue("ns/edge/sa/gateway"),
        cluster,
        upstream_tables=(
            UpstreamConfig(url=first.mesh_url, priority=0),
            UpstreamConfig(url=second.mesh_url, priority=1),
        ),
        failover=FailoverConfig(min_dwell_seconds=0.2, return_after_seconds=0.5, probe_interval_seconds=0.1),
    )
    gateway = Gateway(tmp_path / "data", config)
    async with running(first, second, gateway):
        await gateway.online()
        assert gateway.bridge.status().upstream == second.mesh_url
        tried = first.log.count("New connection from")
        await until(lambda: first.log.count("New connection from") >= tried + 3, "no test connections")
        assert "gateway" not in first.log
        assert gateway.bridge.status().connects == 1
        first.take(cluster.issue())
        await until(lambda: gateway.bridge.status().upstream == first.mesh_url, "the bridge did not return")
        await gateway.online()
        assert "gateway-probe" in first.log


@asynccontextmanager
async def listening_ear(svid: Svid, directory: Path) -> AsyncIterator[tuple[str, bytearray]]:
    """A TLS server with `svid` that hears everything: its URL, and what came of plain bytes."""
    heard = bytearray()

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            while data := await reader.read(1000):
                heard.extend(data)
        except OSError:
            pass
        writer.close()

    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(*svid.write(directory, "ear"))
    server = await asyncio.start_server(serve, "127.0.0.1", 0, ssl=context)
    try:
        yield f"mqtts://127.0.0.1:{server.sockets[0].getsockname()[1]}", heard
    finally:
        server.close()


@pytest.mark.parametrize("brings_its_ca", [False, True])
async def test_a_forgery_across_trust_domains_hears_nothing(
    tmp_path: Path, cluster: TrustDomain, other: TrustDomain, brings_its_ca: bool
) -> None:
    """A CA that we trust for its own domain signs a name of another one. TLS itself is content with that."""
    forged = other.issue(uris=[BROKER])
    if brings_its_ca:
        forged = Svid((*forged.chain, other.ca_der), forged.key)
    async with listening_ear(forged, tmp_path) as (url, heard):
        us = cluster.issue("ns/edge/sa/gateway")
        gateway = Gateway(tmp_path / "data", meshed(url, tmp_path, us, cluster, other))
        said = await failure(gateway, "identity")
        assert not heard
    assert said.startswith(
        f"the identity of {url} is refused: the trust bundle of cluster.example does not vouch"
    )


async def test_the_same_server_is_heard_of_with_a_name_of_its_own(
    tmp_path: Path, cluster: TrustDomain, other: TrustDomain
) -> None:
    """The forgery's server, honest: so it was the name, not the handshake, that was refused above."""
    async with listening_ear(other.issue(), tmp_path) as (url, heard):
        us = cluster.issue("ns/edge/sa/gateway")
        wanted = "spiffe://other.example/ns/mqtt/sa/broker"
        config = meshed(url, tmp_path, us, cluster, other, upstream_identity=wanted)
        async with running(Gateway(tmp_path / "data", config)):
            await until(lambda: b"MQTT" in heard, "no CONNECT came")


async def test_another_workload_of_the_domain_hears_nothing(tmp_path: Path, cluster: TrustDomain) -> None:
    async with listening_ear(cluster.issue("ns/mqtt/sa/thief"), tmp_path) as (url, heard):
        us = cluster.issue("ns/edge/sa/gateway")
        gateway = Gateway(tmp_path / "data", meshed(url, tmp_path, us, cluster))
        said = await failure(gateway, "identity")
        assert not heard
    assert said == (
        f"the identity of {url} is refused: it is spiffe://cluster.example/ns/mqtt/sa/thief, not {BROKER}"
    )


async def test_a_stranger_fails_in_the_handshake(tmp_path: Path, cluster: TrustDomain) -> None:
    stranger = TrustDomain("cluster.example")
    async with listening_ear(stranger.issue(), tmp_path) as (url, heard):
        us = cluster.issue("ns/edge/sa/gateway")
        gateway = Gateway(tmp_path / "data", meshed(url, tmp_path, us, cluster))
        said = await failure(gateway, "tls")
        assert not heard
    assert said.startswith(f"TLS with {url} failed: its certificate is not accepted: ")


async def test_a_bundle_may_hold_an_intermediate_alone(tmp_path: Path, cluster: TrustDomain) -> None:
    """As a mesh that does not hand its root out gives it."""
    below = cluster.intermediate()
    async with listening_ear(below.issue(), tmp_path) as (url, heard):
        config = meshed(url, tmp_path, cluster.issue("ns/edge/sa/gateway"), below)
        async with running(Gateway(tmp_path / "data", config)):
            await until(lambda: b"MQTT" in heard, "no CONNECT came")


async def test_a_fault_in_judging_lets_nobody_in(
    tmp_path: Path, cluster: TrustDomain, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(*_: object) -> str:
        raise RuntimeError("unforeseen")

    monkeypatch.setattr(PeerJudge, "judge", fail)
    async with listening_ear(cluster.issue(), tmp_path) as (url, heard):
        config = meshed(url, tmp_path, cluster.issue("ns/edge/sa/gateway"), cluster)
        with Log() as log:
            async with running(Gateway(tmp_path / "data", config)):
                await until(lambda: len(log.of("ERROR")) >= 2, "it is not tried again")
        assert not heard


@pytest.mark.needs("mosquitto")
async def test_bundles_are_read_anew_for_each_connection(tmp_path: Path, cluster: TrustDomain) -> None:
    """The upstream's CA is replaced; the gateway knows of that later than the upstream."""
    renewed = TrustDomain("cluster.example")
    upstream = MeshBroker(tmp_path / "upstream", renewed.issue(), cluster)
    us = cluster.issue("ns/edge/sa/gateway")
    gateway = Gateway(tmp_path / "data", meshed(upstream.mesh_url, tmp_path, us, cluster))
    async with running(upstream, gateway):
        await until(lambda: gateway.bridge.status().failures["tls"], "it trusts a CA that it does not know")
        both = tmp_path / "both.pem"
        both.write_bytes(cluster.bundle + renewed.bundle)
        os.replace(both, tmp_path / "cluster.example.pem")
        await gateway.online()


@pytest.mark.parametrize(
    ("contents", "said"), [(None, "cannot be read: No such file"), (b"nonsense", "holds no certificate")]
)
async def test_a_bundle_that_will_not_do(
    tmp_path: Path, cluster: TrustDomain, contents: bytes | None, said: str
) -> None:
    """Least of all does it mean that everybody is trusted."""
    config = meshed("mqtts://127.0.0.1:1", tmp_path, cluster.issue("gateway"), cluster)
    path = tmp_path / "cluster.example.pem"
    if contents is None:
        path.unlink()
    else:
        path.write_bytes(contents)
    error = await failure(Gateway(tmp_path / "data", config), "files")
    assert error.startswith(f"trust_bundles, cluster.example: {path} {said}")


# ---- a sidecar's Unix socket


@pytest.mark.needs("mosquitto")
async def test_messages_cross_over_a_unix_socket(tmp_path: Path) -> None:
    path = tmp_path / "upstream.sock"
    upstream = Mosquitto(tmp_path / "upstream", f"allow_anonymous true\nlistener 0 {path}")
    gateway = Gateway(
        tmp_path / "data", bridge_config(f"mqtt+unix://{path}", out=(rule("s"),), in_=(rule("cmd/#"),))
    )
    async with running(upstream, gateway):
        await gateway.online()
        assert gateway.bridge.status().upstream == f"mqtt+unix://{path}"
        cloud = await (await Person().connect(upstream.url)).subscribe("#")
        sensor = await (await Person().connect(gateway.url)).subscribe("cmd/#")
        wanted = [f"{number} " + "x" * 2000 for number in range(500)]
        await sensor.publish("s", *wanted)
        await until(lambda: cloud.payloads == wanted, "not all came up")
        await cloud.publish("cmd/1", "on")
        await until(lambda: sensor.payloads == ["on"], "the command did not come")
        sensor.leave()
        cloud.leave()


async def test_a_socket_that_is_not_there(tmp_path: Path) -> None:
    url = f"mqtt+unix://{tmp_path}/none.sock"
    gateway = Gateway(tmp_path / "data", bridge_config(url, out=(rule("#"),)))
    assert await failure(gateway, "connect") == f"{url} cannot be reached: No such file or directory"
    assert "is the sidecar running" in gateway.bridge.status().last_hint


async def test_a_socket_that_nobody_listens_on(tmp_path: Path) -> None:
    import socket

    path = tmp_path / "left.sock"
    with socket.socket(socket.AF_UNIX) as left:
        left.bind(str(path))
    gateway = Gateway(tmp_path / "data", bridge_config(f"mqtt+unix://{path}", out=(rule("#"),)))
    assert await failure(gateway, "connect") == f"mqtt+unix://{path} cannot be reached: Connection refused"
    assert "the sidecar has ended" in gateway.bridge.status().last_hint
