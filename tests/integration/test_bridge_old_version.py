"""An upstream that speaks MQTT 3.1.1 only, written by nobody here: amqtt. And one that leaves version 5 unanswered."""

import asyncio
import subprocess
import sys
from pathlib import Path

import paho.mqtt.client as paho

from edge_broker.wire import const
from edge_broker.wire.decoder import Decoder
from edge_broker.wire.encoder import encode_connack
from edge_broker.wire.packets import Connect
from edge_broker.wire.topics import TopicCache
from tests.bridge.real import Gateway, Log, Person, bridge_config, free_port, rule, running, until

_SCRIPT = """
import asyncio, logging, sys
from amqtt.broker import Broker
logging.disable(logging.CRITICAL)
async def main():
    listeners = {"default": {"type": "tcp", "bind": f"127.0.0.1:{sys.argv[1]}"}}
    broker = Broker({"listeners": listeners, "sys_interval": 0, "auth": {"allow-anonymous": True}})
    await broker.start()
    print("ready", flush=True)
    await asyncio.Event().wait()
asyncio.run(main())
"""


class Amqtt:
    """amqtt in a process of its own."""

    def __init__(self) -> None:
        self.port = free_port()
        self.url = f"mqtt://127.0.0.1:{self.port}"

    async def start(self) -> None:
        self._process = subprocess.Popen(
            [sys.executable, "-W", "ignore", "-c", _SCRIPT, str(self.port)],
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
        )
        assert self._process.stdout is not None
        assert await asyncio.to_thread(self._process.stdout.readline) == b"ready\n"

    def stop(self) -> None:
        self._process.kill()
        self._process.wait(10)
        assert self._process.stdout is not None
        self._process.stdout.close()


async def test_the_bridge_falls_back_and_messages_cross_both_ways(tmp_path: Path) -> None:
    upstream = Amqtt()
    config = bridge_config(upstream.url, out=(rule("s/#"),), in_=(rule("cmd/#"),))
    gateway = Gateway(tmp_path, config)
    with Log() as log:
        async with running(upstream, gateway):
            await gateway.online()
            status = gateway.bridge.status()
            assert (status.version, status.connects) == ("3.1.1", 1)
            cloud = await (await Person(version=paho.MQTTv311).connect(upstream.url)).subscribe("s/#")
            device = await (await Person().connect(gateway.url)).subscribe("cmd/#")
            wanted = [str(number) for number in range(100)]
            await device.publish("s/1", *wanted)
            await gateway.drained()
            await until(lambda: len(cloud.messages) >= 100, "not all came up")
            assert cloud.payloads == wanted
            await until(lambda: gateway.bridge._downlink.is_subscribed, "not subscribed")
            await cloud.publish("cmd/1", "on")
            await until(lambda: device.payloads == ["on"], "the command did not come")
            device.leave()
            cloud.leave()
    assert log.of("WARNING") == []  # a fall back is no failure


async def test_an_upstream_that_leaves_version_5_unanswered_gets_3(tmp_path: Path) -> None:
    versions: list[int] = []

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        decoder = Decoder(TopicCache(), 1000)
        decoder.feed(await reader.read(1000))
        connect = decoder.next_packet()
        assert isinstance(connect, Connect)
        versions.append(connect.version)
        if connect.version == const.MQTT_3_1_1:
            writer.write(encode_connack(const.MQTT_3_1_1, False, 0))
        await reader.read()
        writer.close()

    server = await asyncio.start_server(serve, "127.0.0.1", 0)
    url = f"mqtt://127.0.0.1:{server.sockets[0].getsockname()[1]}"
    gateway = Gateway(tmp_path, bridge_config(url, connack_timeout_seconds=0.1, out=(rule("#"),)))
    async with running(gateway):
        await gateway.online()
        assert gateway.bridge.status().version == "3.1.1"
    assert versions == [5, 4]
    server.close()


async def test_a_pinned_version_is_kept_and_the_refusal_said(tmp_path: Path) -> None:
    upstream = Amqtt()
    gateway = Gateway(tmp_path, bridge_config(upstream.url, version="5", out=(rule("#"),)))
    async with running(upstream, gateway):
        await until(lambda: gateway.bridge.status().last_error, "no failure")
        status = gateway.bridge.status()
    assert status.connects == 0
    assert upstream.url in status.last_error
