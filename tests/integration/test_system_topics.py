"""The topics under `$SYS` of the broker as it is run, read by mosquitto's client and beside mosquitto's own broker."""

from __future__ import annotations

import asyncio
import signal
import sqlite3
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from uuid import uuid4

import paho.mqtt.client as paho
import pytest

from tests.conftest import find_program
from tests.integration.broker_process import WAIT_SECONDS, BrokerProcess, until
from tests.integration.conftest import StartBroker
from tests.integration.foreign import V3, V5, MosquittoSub, Paho
from tests.ops.gateway import gateway

PREFIX = "$SYS/broker/"


def retained_under(port: int, topic_filter: str, log: Path, at_least: int = 30) -> dict[str, str]:
    """What a new subscriber gets at once, by topic."""
    subscriber = MosquittoSub(port, log, "-t", topic_filter, "-F", "%r\t%q\t%t\t%p")
    until(lambda: len(subscriber.lines) >= at_least, f"{subscriber.lines}")
    Paho(port).connected().publish("afterwards", b"")
    subscriber.stop()
    topics = {}
    for line in subscriber.lines:
        retain, qos, topic, payload = line.decode().split("\t")
        if retain == "1":
            assert qos == "0"
            topics[topic] = payload
    return topics


@contextmanager
def mosquitto_broker(folder: Path, port: int) -> Iterator[int]:
    """A mosquitto of the test's own, which looks at itself every second."""
    config = folder / "mosquitto.conf"
    config.write_text(f"listener {port} 127.0.0.1\nallow_anonymous true\nsys_interval 1\nuser root\n")
    program = find_program("mosquitto")
    assert program is not None
    log = folder / "mosquitto.log"
    with log.open("wb") as out:
        process = subprocess.Popen([program, "-c", str(config)], stdout=out, stderr=out)
    until(lambda: b"running" in log.read_bytes(), "mosquitto does not run")
    try:
        yield port
    finally:
        process.send_signal(signal.SIGTERM)
        process.wait(WAIT_SECONDS)


@pytest.mark.needs("mosquitto_sub", "stdbuf")
def test_a_new_subscriber_has_them_all_at_once(broker: BrokerProcess, tmp_path: Path) -> None:
    topics = retained_under(broker.port, "$SYS/#", tmp_path / "log")
    assert topics[PREFIX + "version"].startswith("edge-broker version ")
    assert topics[PREFIX + "uptime"].endswith(" seconds")
    assert int(topics[PREFIX + "heap/current"]) > 10_000_000
    assert int(topics[PREFIX + "clients/total"]) >= 0
    assert float(topics[PREFIX + "load/sockets/15min"]) >= 0


@pytest.mark.needs("mosquitto", "mosquitto_sub", "stdbuf")
def test_their_names_are_mosquittos(broker: BrokerProcess, tmp_path: Path, free_port: int) -> None:
    """Every one of them, so that nobody has to learn a new name."""
    ours = set(retained_under(broker.port, "$SYS/#", tmp_path / "ours"))
    with mosquitto_broker(tmp_path, free_port) as port:
        watcher = Paho(port).connected().subscribe("$SYS/#")
        until(
            lambda: ours <= {message.topic for message in list(watcher.messages)},
            "mosquitto does not have all of them",
        )
        watcher.leave()


@pytest.mark.parametrize("topic_filter", ["#", "+/broker/#", "+/+/version"])
def test_wildcards_at_the_beginning_do_not_match_them(broker: BrokerProcess, topic_filter: str) -> None:
    reader = Paho(broker.port).connected().subscribe(topic_filter)
    other = f"{uuid4().hex}/broker/version"
    Paho(broker.port).connected().publish(other, b"mine", qos=1)
    until(lambda: any(message.topic == other for message in reader.messages), "nothing came")
    assert not [message.topic for message in reader.messages if message.topic.startswith("$")]
    reader.leave()


@pytest.mark.parametrize("retain", [False, True])
@pytest.mark.parametrize("version", [V3, V5])
def test_nobody_else_can_publish_to_them(broker: BrokerProcess, version: int, retain: bool) -> None:
    """Neither to one that there is nor to a new one; MQTT 5 is told, 3.1.1 has no word for it [3.3.5]."""
    end = f"end/{uuid4().hex}"
    reader = Paho(broker.port).connected().subscribe("$SYS/#").subscribe(end)
    liar = Paho(broker.port, version=version).connected()
    for topic in (PREFIX + "version", "$SYS/mine"):
        codes: list[int] = []
        liar.client.on_publish = lambda _c, _d, _mid, code, _p, codes=codes: codes.append(code.value)
        liar.client.publish(topic, b"a lie", 1, retain)
        until(lambda codes=codes: codes, "it was not answered")
        assert codes == [0x87 if version == V5 else 0]
    late = Paho(broker.port).connected().subscribe(end).subscribe("$SYS/#")
    until(lambda: PREFIX + "version" in {message.topic for message in late.messages}, "nothing came")
    liar.publish(end, b"", qos=1)
    for client in (reader, late):
        until(lambda client=client: client.messages[-1].topic == end, "the end did not come")
    assert b"a lie" not in reader.payloads + late.payloads
    for client in (reader, liar, late):
        client.leave()


@pytest.mark.parametrize("version", [V3, V5])
def test_nor_leave_a_will_for_them(broker: BrokerProcess, version: int) -> None:
    mortal = Paho(
        broker.port, version=version, will=(PREFIX + "version", b"a lie", 1, True), comes_back=False
    )
    until(lambda: mortal.losses, "it was let in")
    assert mortal.connections == 0
    mortal.leave()


def test_they_are_never_on_the_disk(start_broker: StartBroker) -> None:
    """Not as retained messages, and not for a durable session that subscribed to them and is away."""
    broker = start_broker()
    keeper = Paho(broker.port, "keeper", expiry=3600).connected().subscribe("$SYS/#", 1).subscribe("a/#", 1)
    until(lambda: len(keeper.messages) > 30, "nothing came")
    assert {message.qos for message in keeper.messages} == {0}
    keeper.leave()
    writer = Paho(broker.port).connected()
    for topic in ("a/1", "b/1"):
        writer.publish(topic, b"1", qos=1, retain=True)
    broker.kill()
    found = b"".join(path.read_bytes() for path in broker.data_dir.rglob("*") if path.is_file())
    assert b"a/1" in found, "this does not look where the store is"
    assert PREFIX.encode() + b"uptime" not in found
    assert PREFIX.encode() + b"version" not in found
    (database,) = broker.data_dir.glob("*.db")
    with sqlite3.connect(database) as connection:
        assert connection.execute("SELECT count(*) FROM retained").fetchone() == (2,)


async def test_what_happens_is_told_at_the_next_interval(state_dir: Path) -> None:
    """With a client that nobody here wrote, over three of the shortest intervals."""
    async with gateway(state_dir, sys_interval_seconds=1) as broker:
        port = int(broker.listening[0].rsplit(":", 1)[1])
        told: dict[str, list[bytes]] = {}

        def take(_client: object, _data: object, message: paho.MQTTMessage) -> None:
            told.setdefault(message.topic.removeprefix(PREFIX), []).append(message.payload)

        async def is_told(topic: str, value: bytes) -> None:
            async with asyncio.timeout(WAIT_SECONDS):
                while value not in told.get(topic, ()):
                    await asyncio.sleep(0.01)

        reader = await asyncio.to_thread(lambda: Paho(port).connected())
        reader.client.on_message = take
        await asyncio.to_thread(reader.subscribe, "$SYS/broker/#")
        await is_told("clients/connected", b"1")
        await asyncio.to_thread(reader.publish, "a/1", b"1", 1, True)
        await is_told("messages/received", b"1")
        await is_told("retained messages/count", b"1")
        await is_told("uptime", b"3 seconds")
        assert len(told["version"]) == 1, "published although it never changes"
        await asyncio.to_thread(reader.leave)


async def test_an_interval_of_0_is_never(state_dir: Path) -> None:
    async with gateway(state_dir, sys_interval_seconds=0) as broker:
        swept_at = broker.swept_at
        async with asyncio.timeout(WAIT_SECONDS):
            while broker.swept_at == swept_at:
                await asyncio.sleep(0.01)
        assert len(broker.router.retained) == 0
