"""Envelopes over a real mosquitto: the bridge packs, the ingester, in a process of its own, unpacks into its file."""

import asyncio
import logging
import random
import signal
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import paho.mqtt.client as paho
import pytest

from bridge.envelope import train_dictionary
from bridge.envelopes_config import EnvelopesConfig
from tests.bridge.real import Gateway, Log, Mosquitto, Person, bridge_config, rule, running, until
from tests.ingest.running import Ingester
from tests.integration.broker_process import BrokerProcess

pytestmark = pytest.mark.needs("mosquitto")

QUICK_LEASE = "[lease]\nvalid_seconds = 3\nrenew_seconds = 1"


@pytest.fixture
def bridge_log() -> Iterator[Log]:
    logger = logging.getLogger("bridge")
    before = logger.level
    logger.setLevel(logging.INFO)
    with Log() as log:
        yield log
    logger.setLevel(before)


def packed(**settings: Any) -> EnvelopesConfig:
    return EnvelopesConfig(enabled=True, **({"delay_ms": 50} | settings))


def numbered(count: int, first: int = 0) -> list[str]:
    return [f'{{"n":{number}}}' for number in range(first, first + count)]


async def written(ingester: Ingester, count: int, timeout_seconds: float = 20.0) -> list[dict[str, Any]]:
    """What the ingester wrote, once it is `count` messages."""
    await until(lambda: len(ingester.lines()) >= count, f"not {count} messages", timeout_seconds)
    return ingester.lines()


def payloads(lines: Sequence[dict[str, Any]]) -> list[str]:
    return [line["payload"] for line in lines]


async def test_messages_travel_in_envelopes_while_an_ingester_listens(
    tmp_path: Path, bridge_log: Log
) -> None:
    upstream = Mosquitto(tmp_path / "up")
    ingester = Ingester(tmp_path / "ingest", upstream.url)
    out = [rule("urgent/#", 1, remote="s/", envelope=False), rule("#", 1, remote="s/")]
    gateway = Gateway(tmp_path / "data", bridge_config(upstream.url, out=out, envelopes=packed()))
    async with running(upstream, ingester, gateway):
        await gateway.online()
        sensor = await Person().connect(gateway.url)
        properties = paho.Properties(paho.PacketTypes.PUBLISH)
        properties.ContentType = "application/json"
        await sensor.publish("room/1", *numbered(500), properties=properties)
        await sensor.publish("urgent/fire", "now", retain=True)
        await sensor.publish("room/2", *numbered(100), qos=2)
        lines = await written(ingester, 601)
        await gateway.drained()
        envelopes = gateway.bridge.status().envelopes
        assert envelopes is not None
        assert envelopes.lease == "held"
        assert envelopes.messages == 600
        assert envelopes.sent <= 60
        assert 0 < envelopes.bytes_after < envelopes.bytes_before / 2
        sensor.leave()
    assert [line["payload"] for line in lines if line["topic"] == "s/room/1"] == numbered(500)
    assert [line["payload"] for line in lines if line["topic"] == "s/room/2"] == numbered(100)
    [urgent] = [line for line in lines if line["topic"] == "s/urgent/fire"]
    assert (urgent["payload"], urgent["retain"]) == ("now", True)
    assert next(line for line in lines if line["topic"] == "s/room/1")["properties"] == {
        "content_type": "application/json"
    }
    assert sorted(line["sequence"] for line in lines) == list(range(1, 602))
    assert {line["gateway"] for line in lines} == {"gateway"}
    assert "bridge upstream: the ingester ingest takes envelopes" in bridge_log.of("INFO")


async def test_without_an_ingester_messages_go_plain(tmp_path: Path) -> None:
    upstream = Mosquitto(tmp_path / "up")
    gateway = Gateway(tmp_path / "data", bridge_config(upstream.url, out=[rule("#")], envelopes=packed()))
    async with running(upstream, gateway):
        await gateway.online()
        reader = await (await Person().connect(upstream.url)).subscribe("#")
        sensor = await Person().connect(gateway.url)
        await sensor.publish("room", *numbered(20))
        await until(lambda: len(reader.payloads) == 20, "they did not come")
        assert set(reader.topics) == {"room"}
        status = gateway.bridge.status().envelopes
        assert status is not None
        assert (status.lease, status.sent) == ("none", 0)
        sensor.leave()
        reader.leave()


async def test_when_the_lease_is_over_what_is_left_goes_plain_and_nothing_is_lost(
    tmp_path: Path, bridge_log: Log
) -> None:
    upstream = Mosquitto(tmp_path / "up", persistent=True)
    ingester = Ingester(tmp_path / "ingest", upstream.url, QUICK_LEASE)
    config = bridge_config(upstream.url, out=[rule("#", remote="s/")], envelopes=packed(delay_ms=300))
    gateway = Gateway(tmp_path / "data", config)
    async with running(upstream, ingester, gateway):
        await gateway.online()
        reader = await (await Person().connect(upstream.url)).subscribe("s/#")
        sensor = await Person().connect(gateway.url)
        await sensor.publish("room", *numbered(50))
        await written(ingester, 50)
        assert not reader.payloads
        ingester.stop(signal.SIGKILL)
        sent = 50
        while not reader.payloads:  # until the lease is over its messages go in envelopes, then plain
            await sensor.publish("room", *numbered(10, sent))
            sent += 10
            await asyncio.sleep(0.05)
        await ingester.start()
        lines = await written(ingester, sent)
        assert payloads(lines) == numbered(sent)
        assert sorted(ingester.keys()) == sorted(set(ingester.keys()))
        await until(lambda: gateway.bridge.status().envelopes.lease == "held", "the lease did not come back")  # type: ignore[union-attr]
        sensor.leave()
        reader.leave()
    said = "\n".join(bridge_log.of("INFO"))
    assert "the ingester ingest has not announced itself in time: messages go plain" in said
    assert said.count("takes envelopes") == 2


async def test_a_lease_taken_back_counts_at_once(tmp_path: Path, bridge_log: Log) -> None:
    upstream = Mosquitto(tmp_path / "up")
    ingester = Ingester(tmp_path / "ingest", upstream.url)
    config = bridge_config(upstream.url, out=[rule("#", remote="s/")], envelopes=packed(delay_ms=60_000))
    gateway = Gateway(tmp_path / "data", config)
    async with running(upstream, ingester, gateway):
        await gateway.online()
        reader = await (await Person().connect(upstream.url)).subscribe("s/#")
        await until(lambda: gateway.bridge.status().envelopes.lease == "held", "no lease")  # type: ignore[union-attr]
        sensor = await Person().connect(gateway.url)
        await sensor.publish("room", *numbered(30))  # would wait for a minute
        assert gateway.bridge.status().in_flight == 0
        ingester.stop()
        await until(lambda: reader.payloads == numbered(30), "they did not go plain")
        await gateway.drained()
        sensor.leave()
        reader.leave()
    assert any("takes no envelopes any more" in line for line in bridge_log.of("INFO"))


@pytest.mark.parametrize("ingested", [True, False])
@pytest.mark.parametrize("enabled", [True, False])
async def test_an_old_upstream_gets_origin_and_properties_in_envelopes(
    tmp_path: Path, ingested: bool, enabled: bool
) -> None:
    """MQTT 3.1.1: where a rule says that an ingester listens each message goes so, lease or none."""
    upstream = Mosquitto(tmp_path / "up")
    ingester = Ingester(tmp_path / "ingest", upstream.url, top="", cluster_keys='version = "3.1.1"')
    config = bridge_config(
        upstream.url,
        version="3.1.1",
        client_id="gw 7.a",
        out=[rule("#", 2, remote="s/", ingested=ingested)],
        envelopes=packed() if enabled else EnvelopesConfig(),
    )
    gateway = Gateway(tmp_path / "data", config)
    async with running(upstream, ingester, gateway):
        await gateway.online()
        watcher = await (await Person().connect(upstream.url)).subscribe("#")
        sensor = await Person().connect(gateway.url)
        properties = paho.Properties(paho.PacketTypes.PUBLISH)
        properties.UserProperty = [("traceparent", f"00-{1:032x}-{1:016x}-01")]
        await sensor.publish("room", *numbered(40), qos=2, properties=properties)
        lines = await written(ingester, 40)
        await gateway.drained()
        assert payloads(lines) == numbered(40)
        assert lines[0]["topic"] == "s/room"
        if ingested or enabled:
            assert [line["sequence"] for line in lines] == list(range(1, 41))
            assert {line["gateway"] for line in lines} == {"gw 7.a"}
            assert lines[0]["properties"]["user_properties"] == [["traceparent", f"00-{1:032x}-{1:016x}-01"]]
            assert set(watcher.topics) <= {"edge/gw%207%2Ea/envelopes", "edge/ingest/lease"}
            envelopes = gateway.bridge.status().envelopes
            assert envelopes is not None
            assert (envelopes.sent < 40) == enabled
        else:
            assert "gateway" not in lines[0]
        sensor.leave()
        watcher.leave()


BRIDGE = """[[bridges]]
name = "cloud"
gateway = "gw-1"
urls = ["{url}"]
backoff_initial_seconds = 0.05
backoff_max_seconds = 0.2
max_attempts_per_minute = 0
in = [{{ filter = "commands/#" }}]
out = [{{ filter = "q2/#", remote_prefix = "s/", qos = 2 }}, {{ filter = "#", remote_prefix = "s/" }}]
[bridges.envelopes]
enabled = true
max_messages = 50
delay_ms = 30
"""


async def test_after_kills_of_the_broker_and_the_ingester_each_message_is_there_once(tmp_path: Path) -> None:
    """`kill -9` while envelopes are on their way: of the gateway's broker, of the ingester, of both."""
    upstream = Mosquitto(tmp_path / "up", persistent=True)
    ingester = Ingester(tmp_path / "ingest", upstream.url, QUICK_LEASE)
    broker = BrokerProcess(tmp_path / "gateway", BRIDGE.format(url=upstream.url))
    chance = random.Random(7)
    wanted: list[str] = []
    async with running(upstream, ingester):
        try:
            for turn in range(6):
                await asyncio.to_thread(broker.start)
                sensor = await Person().connect(f"mqtt://127.0.0.1:{broker.port}")
                for topic in ("room/1", "q2/1", "room/2"):
                    payloads_now = numbered(150, len(wanted))
                    wanted += payloads_now
                    await sensor.publish(topic, *payloads_now, qos=2 if topic == "q2/1" else 1)
                await asyncio.sleep(chance.uniform(0, 0.15))
                sensor.leave()
                is_ingester_killed = turn % 3 != 0
                if is_ingester_killed:
                    ingester.stop(signal.SIGKILL)
                if turn % 3 != 1:
                    broker.kill()
                else:
                    broker.stop()
                if is_ingester_killed:
                    await ingester.start()
            await asyncio.to_thread(broker.start)
            lines = await written(ingester, len(wanted), 40)
        finally:
            broker.stop()
        assert sorted(payloads(lines)) == sorted(wanted)
        keys = ingester.keys()
        assert len(set(keys)) == len(keys)
        assert {key[0] for key in keys} == {"gw-1"}


async def test_an_upstream_that_vanishes_gets_what_it_did_not_acknowledge_again(tmp_path: Path) -> None:
    upstream = Mosquitto(tmp_path / "up", persistent=True)
    ingester = Ingester(tmp_path / "ingest", upstream.url)
    config = bridge_config(
        upstream.url,
        out=[rule("#", remote="s/")],
        envelopes=packed(max_messages=20),
        puback_timeout_seconds=1.0,
    )
    gateway = Gateway(tmp_path / "data", config)
    wanted: list[str] = []
    async with running(upstream, ingester, gateway):
        await gateway.online()
        sensor = await Person().connect(gateway.url)
        for _ in range(3):
            upstream.send(signal.SIGSTOP)  # nothing is acknowledged: the bridge gives the connection up
            now = numbered(200, len(wanted))
            wanted += now
            await sensor.publish("room", *now)
            failures = gateway.bridge.status().failures["unacknowledged"]
            await until(
                lambda before=failures: gateway.bridge.status().failures["unacknowledged"] > before,  # type: ignore[misc]
                "the missing PUBACK was not noticed",
            )
            upstream.send(signal.SIGCONT)
            await gateway.drained(30)
        lines = await written(ingester, len(wanted))
        sensor.leave()
    assert sorted(payloads(lines)) == sorted(wanted)
    assert gateway.bridge.status().resent > 0


async def test_where_the_gateway_may_not_send_envelopes_it_sends_plain(
    tmp_path: Path, bridge_log: Log
) -> None:
    acl = tmp_path / "acl"
    acl.write_text("topic readwrite s/#\ntopic read edge/#\nuser in\ntopic readwrite #\n")
    upstream = Mosquitto(tmp_path / "up", f"allow_anonymous true\nacl_file {acl}")
    config = bridge_config(upstream.url, out=[rule("#", remote="s/")], envelopes=packed())
    gateway = Gateway(tmp_path / "data", config)
    ingester = Ingester(tmp_path / "ingest", upstream.url, cluster_keys='username = "in"')
    async with running(upstream, ingester, gateway):
        await gateway.online()
        await until(lambda: gateway.bridge.status().envelopes.lease == "held", "no lease")  # type: ignore[union-attr]
        sensor = await Person().connect(gateway.url)
        await sensor.publish("room", *numbered(30))
        lines = await written(ingester, 30)
        assert sorted(payloads(lines)) == sorted(numbered(30))
        await gateway.drained()
        envelopes = gateway.bridge.status().envelopes
        assert envelopes is not None
        assert envelopes.fallen_apart >= 1
        sensor.leave()
    assert (
        sum("let gateway publish to edge/ITS-NAME/envelopes" in line for line in bridge_log.of("ERROR")) == 1
    )


async def test_a_dictionary_counts_where_both_have_it(tmp_path: Path) -> None:
    samples = [
        f'{{"temperature":{20 + at / 7:.2f},"humidity":{at % 97},"at":{at}}}'.encode() for at in range(3000)
    ]
    dictionary, other = tmp_path / "dictionary", tmp_path / "other"
    dictionary.write_bytes(train_dictionary(samples, 4096))
    other.write_bytes(train_dictionary(samples[1000:], 4096))
    upstream = Mosquitto(tmp_path / "up")
    ingester = Ingester(tmp_path / "ingest", upstream.url, f'[lease]\ndictionaries = ["{dictionary}"]')
    bridges = [
        bridge_config(
            upstream.url,
            name=path.name,
            client_id=path.name,
            out=[rule("#", remote="s/")],
            envelopes=packed(dictionary=path),
        )
        for path in (dictionary, other)
    ]
    gateway = Gateway(tmp_path / "data", *bridges)
    async with running(upstream, ingester, gateway):
        await gateway.online()
        fits, does_not = gateway.bridges
        await until(lambda: fits.status().envelopes.lease == "held", "no lease")  # type: ignore[union-attr]
        await until(lambda: does_not.status().envelopes.lease == "unfit", "the other one has it too")  # type: ignore[union-attr]
        sensor = await Person().connect(gateway.url)
        await sensor.publish("room", *[sample.decode() for sample in samples[:50]])
        await written(ingester, 100)
        assert fits.status().envelopes.messages == 50  # type: ignore[union-attr]
        assert does_not.status().envelopes.messages == 0  # type: ignore[union-attr]
        sensor.leave()
