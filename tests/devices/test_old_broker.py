"""A real broker that speaks MQTT 3.1.1 alone: amqtt."""

import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import paho.mqtt.client as paho
import pytest
from paho.mqtt.enums import CallbackAPIVersion

from devices import Command, Device
from tests.devices.mosquitto import free_port, wait_until

SERVER = """
import asyncio, logging, sys
from amqtt.broker import Broker
logging.disable(logging.CRITICAL)
async def main():
    broker = Broker({
        "listeners": {"default": {"type": "tcp", "bind": "127.0.0.1:" + sys.argv[1]}},
        "plugins": {"amqtt.plugins.authentication.AnonymousAuthPlugin": {"allow_anonymous": True}},
    })
    await broker.start()
    print("ready", flush=True)
    await asyncio.Event().wait()
asyncio.run(main())
"""


@pytest.fixture
def old_broker_port(tmp_path: Path) -> Iterator[int]:
    port = free_port()
    with (tmp_path / "amqtt.log").open("wb") as log:
        process = subprocess.Popen(
            [sys.executable, "-W", "ignore", "-c", SERVER, str(port)], stdout=subprocess.PIPE, stderr=log
        )
        assert process.stdout is not None
        assert process.stdout.readline() == b"ready\n", (tmp_path / "amqtt.log").read_text()
        yield port
        process.kill()
        process.wait(10)
        process.stdout.close()


def test_a_device_falls_back_to_3_1_1(old_broker_port: int) -> None:
    received: list[bytes] = []
    other = paho.Client(CallbackAPIVersion.VERSION2, client_id="other")
    other.on_connect = lambda client, *_: client.subscribe("devices/+/readings", 1)
    other.on_message = lambda client, userdata, message: received.append(message.payload)
    subscribed: list[object] = []
    other.on_subscribe = lambda *details: subscribed.append(details)
    other.connect("127.0.0.1", old_broker_port)
    other.loop_start()
    wait_until(lambda: bool(subscribed), "amqtt granted no subscription")

    commands: list[Command] = []
    with Device("porch", f"mqtt://127.0.0.1:{old_broker_port}") as device:
        device.publish_readings(list(range(100)))
        assert device.flush(20)
        assert device.stats.version == "3.1.1"
        wait_until(lambda: len(received) >= 100, "readings are missing")
        device.on_command(commands.append)

        def command_came() -> bool:
            other.publish("devices/porch/commands/led", b"on", 1).wait_for_publish(5)
            return bool(commands)

        wait_until(command_came, "no command came")
    other.disconnect()
    other.loop_stop()
    assert received == [str(number).encode() for number in range(100)]
    assert (commands[0].name, commands[0].payload) == ("led", b"on")
