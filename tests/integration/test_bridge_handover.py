"""A certificate that is about to expire while the bridge is connected: a new one takes over, and nothing is lost."""

import asyncio
import contextlib
import logging
import os
import re
import time
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from pathlib import Path

import pytest

from bridge.conversation import Conversation
from bridge.handover import Handover, Moments, Successor
from tests.bridge.real import Gateway, Log, Person, rule, running, until
from tests.bridge.svids import Svid, TrustDomain
from tests.integration.test_bridge_spiffe import MeshBroker, meshed

SHORT_SECONDS = 5.0


@pytest.fixture
def cluster() -> TrustDomain:
    return TrustDomain("cluster.example")


def renew(domain: TrustDomain, directory: Path, **wrong: float) -> None:
    """Replaces the gateway's files as an agent does: by renaming."""
    certificate, key = domain.issue("ns/edge/sa/gateway", **wrong).write(directory, "new")  # type: ignore[arg-type]
    os.replace(key, directory / "gateway.key")
    os.replace(certificate, directory / "gateway.pem")


def short_lived(domain: TrustDomain) -> Svid:
    return domain.issue("ns/edge/sa/gateway", lifetime_seconds=SHORT_SECONDS, begins_seconds_ago=0)


@pytest.mark.needs("mosquitto")
async def test_a_successor_takes_over_before_the_end_and_nothing_is_lost(
    tmp_path: Path, cluster: TrustDomain, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO, "bridge")
    upstream = MeshBroker(tmp_path / "upstream", cluster.issue(), cluster)
    us = short_lived(cluster)
    config = meshed(upstream.mesh_url, tmp_path, us, cluster, out=(rule("s"),), in_=(rule("cmd"),))
    expires_at = time.time() + SHORT_SECONDS
    gateway = Gateway(tmp_path / "data", config)
    with Log() as log:
        async with running(upstream, gateway):
            await gateway.online()
            renew(cluster, tmp_path)
            cloud = await (await Person().connect(upstream.url)).subscribe("s")
            sensor = await (await Person().connect(gateway.url)).subscribe("cmd")
            sent = 0
            while gateway.bridge.status().connects < 2 or not gateway.bridge.status().connected:
                assert time.time() < expires_at + 2, "nothing took over"
                await sensor.publish("s", str(sent))
                await cloud.publish("cmd", str(sent))
                sent += 1
            took_over_at = time.time()
            wanted = [str(number) for number in range(sent)]
            await until(lambda: cloud.payloads == wanted, "readings are missing, or double, or out of order")
            await until(lambda: sensor.payloads == wanted, "commands are missing, or double, or out of order")
            assert sum(gateway.bridge.status().failures.values()) == 0
            sensor.leave()
            cloud.leave()
    assert took_over_at < expires_at
    (away,) = [line for line in log.of("INFO") if "went over to a new connection" in line]
    assert int(away.rpartition(" for ")[2].removesuffix(" ms")) < 1000
    assert log.of("WARNING") == []


@asynccontextmanager
async def slow_line(port: int, delay_seconds: float) -> AsyncIterator[int]:
    """A port that leads to `port`, each byte later by `delay_seconds` each way."""
    loop = asyncio.get_running_loop()
    tasks: set[asyncio.Task[None]] = set()

    def write(writer: asyncio.StreamWriter, data: bytes) -> None:
        if not writer.is_closing():
            writer.write(data)

    async def carry(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with contextlib.suppress(OSError):
            while data := await reader.read(1 << 16):
                loop.call_later(delay_seconds, write, writer, data)
        loop.call_later(delay_seconds, writer.close)

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        there, back = await asyncio.open_connection("127.0.0.1", port)
        for way in (carry(reader, back), carry(there, writer)):
            task = asyncio.create_task(way)
            tasks.add(task)
            task.add_done_callback(tasks.discard)

    server = await asyncio.start_server(serve, "127.0.0.1", 0)
    try:
        yield server.sockets[0].getsockname()[1]
    finally:
        server.close()
        for task in list(tasks):
            task.cancel()


@pytest.mark.needs("mosquitto")
async def test_a_successor_on_a_slow_line_that_is_never_calm(
    tmp_path: Path, cluster: TrustDomain, caplog: pytest.LogCaptureFixture
) -> None:
    """200 ms there and back, and always something on its way. Commands at QoS 2."""
    caplog.set_level(logging.INFO, "bridge")
    upstream = MeshBroker(tmp_path / "upstream", cluster.issue(), cluster)
    async with running(upstream), slow_line(upstream.tls_port, 0.1) as port:
        ways = {"out": (rule("s"),), "in_": (rule("cmd", 2),)}
        us = cluster.issue("ns/edge/sa/gateway", lifetime_seconds=8, begins_seconds_ago=12)
        ends_at = time.time() + 8
        gateway = Gateway(
            tmp_path / "data", meshed(f"mqtts://127.0.0.1:{port}", tmp_path, us, cluster, **ways)
        )
        with Log() as log:
            async with running(gateway):
                await gateway.online()
                await until(lambda: gateway.bridge._downlink.is_subscribed, "it has not subscribed")
                renew(cluster, tmp_path)
                cloud = await (await Person().connect(upstream.url)).subscribe("s")
                sensor = await (await Person().connect(gateway.url)).subscribe("cmd")
                sent = 0
                while gateway.bridge.status().connects < 2 or not gateway.bridge.status().connected:
                    assert time.time() < ends_at + 5, "nothing took over"
                    await sensor.publish("s", str(sent))
                    await cloud.publish("cmd", str(sent), qos=2)
                    sent += 1
                took_over_at = time.time()
                wanted = [str(number) for number in range(sent)]
                await until(lambda: len(sensor.payloads) >= sent, "commands are missing")
                await until(lambda: len(cloud.payloads) >= sent, "readings are missing")
                assert sensor.payloads == wanted
                assert cloud.payloads == wanted
                sensor.leave()
                cloud.leave()
    assert took_over_at < ends_at
    (away,) = [line for line in log.of("INFO") if "went over to a new connection" in line]
    assert int(away.rpartition(" for ")[2].removesuffix(" ms")) < 1000


@pytest.mark.needs("mosquitto")
async def test_the_old_connection_stays_until_there_is_a_new_certificate(
    tmp_path: Path, cluster: TrustDomain
) -> None:
    """Also past its end: an upstream that does not mind is better than none. The log says so in time."""
    upstream = MeshBroker(tmp_path / "upstream", cluster.issue(), cluster)
    config = meshed(upstream.mesh_url, tmp_path, short_lived(cluster), cluster)
    ends_at = time.time() + SHORT_SECONDS
    gateway = Gateway(tmp_path / "data", config)
    with Log() as log:
        async with running(upstream, gateway):
            await gateway.online()
            await until(lambda: log.of("WARNING"), "not said")
            assert "about to expire and there is no new one" in log.of("WARNING")[0]
            await until(lambda: time.time() > ends_at, "time stands still")
            status = gateway.bridge.status()
            assert (status.connected, status.connects) == (True, 1)
            renew(cluster, tmp_path)
            await until(lambda: gateway.bridge.status().connects == 2, "the new one was not taken")
    assert len(log.of("WARNING")) == 1


@pytest.mark.needs("mosquitto")
async def test_a_new_certificate_that_the_line_does_not_take_changes_nothing(
    tmp_path: Path, cluster: TrustDomain
) -> None:
    """Before the old connection is left the new one stands: here the bundle is gone when it is made."""
    upstream = MeshBroker(tmp_path / "upstream", cluster.issue(), cluster)
    config = meshed(upstream.mesh_url, tmp_path, short_lived(cluster), cluster)
    gateway = Gateway(tmp_path / "data", config)
    with Log() as log:
        async with running(upstream, gateway):
            await gateway.online()
            renew(cluster, tmp_path)
            bundle = tmp_path / "cluster.example.pem"
            os.replace(bundle, tmp_path / "away")
            await until(lambda: log.of("WARNING"), "not said")
            assert "no connection with the new certificate yet: trust_bundles" in log.of("WARNING")[0]
            status = gateway.bridge.status()
            assert (status.connected, status.connects) == (True, 1)
            os.replace(tmp_path / "away", bundle)
            await until(lambda: gateway.bridge.status().connects == 2, "the new one was not taken")


@pytest.mark.needs("mosquitto")
async def test_a_new_certificate_that_the_upstream_refuses_changes_nothing(
    tmp_path: Path, cluster: TrustDomain
) -> None:
    """With TLS 1.3 that shows after the handshake; the old connection is not left for such a one."""
    upstream = MeshBroker(tmp_path / "upstream", cluster.issue(), cluster)
    config = meshed(upstream.mesh_url, tmp_path, short_lived(cluster), cluster, in_=(rule("cmd"),))
    gateway = Gateway(tmp_path / "data", config)
    with Log() as log:
        async with running(upstream, gateway):
            await gateway.online()
            renew(TrustDomain("cluster.example"), tmp_path)
            await until(lambda: log.of("WARNING"), "not said")
            assert "the new certificate may be refused" in log.of("WARNING")[0]
            status = gateway.bridge.status()
            assert (status.connected, status.connects) == (True, 1)
            renew(cluster, tmp_path)
            await until(lambda: gateway.bridge.status().connects == 2, "the new one was not taken")


@pytest.mark.needs("mosquitto")
async def test_a_stop_while_a_successor_is_looked_for(tmp_path: Path, cluster: TrustDomain) -> None:
    upstream = MeshBroker(tmp_path / "upstream", cluster.issue(), cluster)
    us = cluster.issue("ns/edge/sa/gateway", lifetime_seconds=2, begins_seconds_ago=86_400)
    gateway = Gateway(tmp_path / "data", meshed(upstream.mesh_url, tmp_path, us, cluster))
    with Log() as log:
        async with running(upstream, gateway):
            await gateway.online()
            await until(lambda: log.of("WARNING"), "it does not look for one")
    assert gateway.bridge.status().state == "stopped"


@pytest.mark.needs("mosquitto")
async def test_a_cut_while_a_successor_is_looked_for_is_a_cut_like_others(
    tmp_path: Path, cluster: TrustDomain
) -> None:
    upstream = MeshBroker(tmp_path / "upstream", cluster.issue(), cluster)
    us = cluster.issue("ns/edge/sa/gateway", lifetime_seconds=3600, begins_seconds_ago=86_400)
    gateway = Gateway(tmp_path / "data", meshed(upstream.mesh_url, tmp_path, us, cluster))
    async with running(upstream, gateway):
        await gateway.online()
        upstream.stop()
        await until(lambda: gateway.bridge.status().failures["lost"] == 1, "not noticed")
        await upstream.start()
        await until(lambda: gateway.bridge.status().connects == 2, "it did not come back")


# ---- one that stands by, where nothing is remembered upstream


def connections(upstream: MeshBroker) -> list[str]:
    """Who came to the port with TLS and who went, as in ``+gateway``, ``-gateway``."""
    found = []
    for line in upstream.log.splitlines():
        came = re.search(r"New client connected from .* as (gateway\S*)", line)
        went = re.search(r"Client (gateway\S*) (?:disconnected|closed its connection)", line)
        if came is not None:
            found.append(f"+{came[1]}")
        elif went is not None:
            found.append(f"-{went[1].rstrip('.')}")
    return found


@pytest.mark.needs("mosquitto")
async def test_where_nothing_comes_down_the_successor_is_let_in_before_the_old_one_leaves(
    tmp_path: Path, cluster: TrustDomain, caplog: pytest.LogCaptureFixture
) -> None:
    """Twice, on a line that is never calm, with 200 ms there and back; in order, and nothing twice."""
    caplog.set_level(logging.INFO, "bridge")
    upstream = MeshBroker(tmp_path / "upstream", cluster.issue(), cluster)
    async with running(upstream), slow_line(upstream.tls_port, 0.1) as port:
        us = cluster.issue("ns/edge/sa/gateway", lifetime_seconds=6, begins_seconds_ago=14)
        gateway = Gateway(
            tmp_path / "data", meshed(f"mqtts://127.0.0.1:{port}", tmp_path, us, cluster, out=(rule("s"),))
        )
        with Log() as log:
            async with running(gateway):
                await gateway.online()
                cloud = await (await Person().connect(upstream.url)).subscribe("s")
                sensor = await Person().connect(gateway.url)
                sent = 0
                for connects, lifetime_seconds in ((2, 9), (3, 3600)):
                    renew(cluster, tmp_path, lifetime_seconds=lifetime_seconds, begins_seconds_ago=14)
                    until_then = time.time() + 15
                    while gateway.bridge.status().connects < connects:
                        assert time.time() < until_then, "nothing took over"
                        await sensor.publish("s", str(sent))
                        sent += 1
                wanted = [str(number) for number in range(sent)]
                await until(lambda: len(cloud.payloads) >= sent, "readings are missing")
                assert cloud.payloads == wanted
                sensor.leave()
                cloud.leave()
                assert connections(upstream) == [
                    "+gateway",
                    "+gateway-b",
                    "-gateway",
                    "+gateway",
                    "-gateway-b",
                ]
    away = [
        int(line.rpartition(" for ")[2].removesuffix(" ms"))
        for line in log.of("INFO")
        if "went over to a new connection" in line
    ]
    assert len(away) == 2
    assert max(away) < 1000
    assert log.of("WARNING") == []


@pytest.mark.needs("mosquitto")
async def test_an_upstream_that_takes_one_client_id_alone_is_gone_over_to_as_before(
    tmp_path: Path, cluster: TrustDomain
) -> None:
    upstream = MeshBroker(tmp_path / "upstream", cluster.issue(), cluster)
    config = upstream._config
    config.write_text(f"clientid_prefixes gateway\n{config.read_text()}")
    us = meshed(upstream.mesh_url, tmp_path, short_lived(cluster), cluster, second_client_id="other")
    gateway = Gateway(tmp_path / "data", us)
    with Log() as log:
        async with running(upstream, gateway):
            await gateway.online()
            renew(cluster, tmp_path)
            await until(lambda: gateway.bridge.status().connects == 2, "the new one was not taken")
            await gateway.online()
            assert connections(upstream)[:1] == ["+gateway"]
            assert connections(upstream)[-1] == "+gateway"
    (warning,) = log.of("WARNING")
    assert "no connection with the new certificate yet" in warning
    assert "refused us" in warning


@pytest.mark.needs("mosquitto")
async def test_none_stands_by_where_that_is_not_wished_for(tmp_path: Path, cluster: TrustDomain) -> None:
    upstream = MeshBroker(tmp_path / "upstream", cluster.issue(), cluster)
    us = meshed(upstream.mesh_url, tmp_path, short_lived(cluster), cluster, second_client_id="gateway")
    gateway = Gateway(tmp_path / "data", us)
    async with running(upstream, gateway):
        await gateway.online()
        renew(cluster, tmp_path)
        await until(lambda: gateway.bridge.status().connects == 2, "the new one was not taken")
        await gateway.online()
        assert connections(upstream) == ["+gateway", "-gateway", "+gateway"]


@pytest.mark.needs("mosquitto")
async def test_one_that_stood_by_and_is_gone_when_it_is_to_take_over_is_a_connection_lost(
    tmp_path: Path, cluster: TrustDomain, monkeypatch: pytest.MonkeyPatch
) -> None:
    upstream = MeshBroker(tmp_path / "upstream", cluster.issue(), cluster)
    gateway = Gateway(
        tmp_path / "data",
        meshed(upstream.mesh_url, tmp_path, short_lived(cluster), cluster, out=(rule("s"),)),
    )
    finish = Conversation.finish
    stood_by: list[Successor] = []
    successor = Handover.successor

    async def find(self: Handover, holds: tuple[float, float]) -> Successor:
        stood_by.append(await successor(self, holds))
        return stood_by[-1]

    async def finish_late(self: Conversation, grace_seconds: float) -> bool:
        """The upstream drops the one that stands by while the other one takes its leave."""
        if len(stood_by) == 1 and stood_by[0].standby is not None:
            stood_by[0].opened.link.abort()
            await asyncio.wait((stood_by[0].standby.ended,))
        return await finish(self, grace_seconds)

    monkeypatch.setattr(Handover, "successor", find)
    monkeypatch.setattr(Conversation, "finish", finish_late)
    async with running(upstream, gateway):
        await gateway.online()
        renew(cluster, tmp_path)
        await until(lambda: bool(stood_by), "none stood by")
        await until(lambda: gateway.bridge.status().connects == 2, "it did not connect again")
        await gateway.online()
        cloud = await (await Person().connect(upstream.url)).subscribe("s")
        sensor = await Person().connect(gateway.url)
        await sensor.publish("s", "21.5")
        await until(lambda: cloud.payloads == ["21.5"], "it did not come up")
        sensor.leave()
        cloud.leave()


def held_up(monkeypatch: pytest.MonkeyPatch) -> Callable[[], None]:
    """From the call on no acknowledgement reaches the forwarder of a bridge that stood by for nobody."""
    holding: list[Conversation] = []
    on_puback = Conversation.on_puback
    began: list[Conversation] = []
    begin = Conversation.begin

    def note(self: Conversation) -> None:
        began.append(self)
        begin(self)

    def drop(self: Conversation, packet_id: int, reason_code: int) -> None:
        if self not in holding:
            on_puback(self, packet_id, reason_code)

    monkeypatch.setattr(Conversation, "begin", note)
    monkeypatch.setattr(Conversation, "on_puback", drop)
    return lambda: holding.append(began[0])


@pytest.mark.needs("mosquitto")
async def test_one_that_stands_by_does_not_overtake_what_is_unanswered(
    tmp_path: Path, cluster: TrustDomain, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Then the next one comes under the client id of the one before, which ends that."""
    upstream = MeshBroker(tmp_path / "upstream", cluster.issue(), cluster)
    config = meshed(upstream.mesh_url, tmp_path, short_lived(cluster), cluster, out=(rule("s"),))
    gateway = Gateway(tmp_path / "data", config)
    hold = held_up(monkeypatch)
    async with running(upstream, gateway):
        await gateway.online()
        hold()
        renew(cluster, tmp_path)
        cloud = await (await Person().connect(upstream.url)).subscribe("s")
        sensor = await Person().connect(gateway.url)
        await sensor.publish("s", "1")
        await until(lambda: gateway.bridge.status().connects == 2, "nothing took over")
        await sensor.publish("s", "2")
        await until(lambda: cloud.payloads[-1:] == ["2"], "it did not come up")
        assert cloud.payloads == ["1", "1", "2"]
        steps = connections(upstream)
        assert steps[:2] == ["+gateway", "+gateway-b"]
        assert steps[-1] == "+gateway"
        sensor.leave()
        cloud.leave()


@pytest.mark.needs("mosquitto")
@pytest.mark.parametrize("second_client_id", ["gateway", "gateway-b"])
async def test_a_stop_while_the_old_connection_takes_its_leave_leaves_no_new_one(
    tmp_path: Path, cluster: TrustDomain, monkeypatch: pytest.MonkeyPatch, second_client_id: str
) -> None:
    upstream = MeshBroker(tmp_path / "upstream", cluster.issue(), cluster)
    ways = {"out": (rule("s"),), "second_client_id": second_client_id}
    gateway = Gateway(
        tmp_path / "data", meshed(upstream.mesh_url, tmp_path, short_lived(cluster), cluster, **ways)
    )
    hold = held_up(monkeypatch)
    finishing: list[Conversation] = []
    finish = Conversation.finish

    async def note(self: Conversation, grace_seconds: float) -> bool:
        finishing.append(self)
        return await finish(self, grace_seconds)

    monkeypatch.setattr(Conversation, "finish", note)
    async with running(upstream):
        async with running(gateway):
            await gateway.online()
            hold()
            renew(cluster, tmp_path)
            sensor = await Person().connect(gateway.url)
            await sensor.publish("s", "1")
            await until(lambda: bool(finishing), "the old one is not left")
            sensor.leave()
        assert gateway.bridge.status().connects == 1
        assert gateway.bridge.status().in_flight == 0
        await until(
            lambda: sum(1 if step[0] == "+" else -1 for step in connections(upstream)) == 0, "one is left"
        )


# ---- when


@pytest.mark.parametrize("random", [0.0, 0.5, 0.999])
@pytest.mark.parametrize("lifetime", [60.0, 3600.0, 90 * 86_400.0])
def test_the_moments_of_a_certificate(lifetime: float, random: float) -> None:
    moments = Moments.of((1000.0, 1000.0 + lifetime), lambda: random)
    margin = min(lifetime / 4, 3600.0)
    assert moments.ends_at == 1000.0 + lifetime
    assert moments.ends_at - margin <= moments.begins_at < moments.hurries_at
    assert moments.hurries_at == moments.ends_at - margin / 2
    assert 0.05 <= moments.look_seconds <= 30.0


def test_a_fleet_does_not_come_together() -> None:
    holds = (0.0, 86_400.0)
    begins = {Moments.of(holds, lambda part=part: part / 10).begins_at for part in range(10)}  # type: ignore[misc]
    assert len(begins) == 10
    assert max(begins) - min(begins) > 1000
