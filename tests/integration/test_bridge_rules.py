"""Rules, origin and hops with real brokers: mosquitto upstream, two gateways in a ring, NATS that takes no dots."""

from __future__ import annotations

import subprocess
from pathlib import Path
from typing import Any

import cbor2
import paho.mqtt.client as paho
import pytest
from paho.mqtt.packettypes import PacketTypes
from paho.mqtt.properties import Properties

from bridge.hops import NAME as HOPS
from bridge.origin import Origin, find_origin
from bridge.rules import RuleConfig
from tests.bridge.real import Gateway, Mosquitto, Person, bridge_config, free_port, rule, running, until
from tests.conftest import find_program

needs_mosquitto = pytest.mark.needs("mosquitto")


def users(message: paho.MQTTMessage) -> list[tuple[str, str]]:
    return list(getattr(message.properties, "UserProperty", []))


def origin_of(message: paho.MQTTMessage) -> Origin:
    origin = find_origin(users(message))
    assert origin is not None
    return origin


# ---- rules


@needs_mosquitto
@pytest.mark.parametrize("version", ["5", "3.1.1"])
async def test_topics_and_payloads_go_up_and_come_down_by_rules(tmp_path: Path, version: str) -> None:
    upstream = Mosquitto(tmp_path / "upstream")
    out = (
        RuleConfig(
            from_="site/+room/+sensor",
            to="plants/{gateway}/{room}/{sensor}",
            except_=("site/+/debug",),
            characters={".": "_"},
            payload="json_to_cbor",
            retain="clear",
        ),
        RuleConfig(filter="site/#", remote_prefix="rest/"),
    )
    down = RuleConfig(
        from_="plants/{gateway}/+room/set", to="set/{room}", payload="cbor_to_json", characters={".": "_"}
    )
    config = bridge_config(upstream.url, version=version, gateway="pi7", out=out, in_=(down,))
    gateway = Gateway(tmp_path / "data", config)
    async with running(upstream, gateway):
        cloud = await (await Person().connect(upstream.url)).subscribe("#")
        device = await (await Person().connect(gateway.url)).subscribe("set/#")
        await gateway.online()
        await device.publish("site/room.1/temp", '{"t": 21.5}', retain=True)
        await device.publish("site/room.1/debug", '{"t": 0}')
        await device.publish("site/room.1/a/b", "deep")
        await until(lambda: len(cloud.messages) == 3, "not all came up")
        assert cloud.topics == ["plants/pi7/room_1/temp", "rest/site/room.1/debug", "rest/site/room.1/a/b"]
        assert cbor2.loads(cloud.messages[0].payload) == {"t": 21.5}
        if version == "5":
            assert cloud.messages[0].properties.ContentType == "application/cbor"
        await cloud.publish("plants/pi7/room_1/set", cbor2.dumps({"to": 19}))  # type: ignore[arg-type]
        await until(lambda: device.messages, "the command did not come down")
        assert (device.topics, device.payloads) == (["set/room.1"], ['{"to":19}'])
        late = await (await Person().connect(upstream.url)).subscribe("plants/#")
        await late.publish("plants/end", "")
        await until(lambda: late.messages, "nothing came")
        assert late.topics == ["plants/end"]  # nothing was retained
        for person in (cloud, device, late):
            person.leave()


class Nats:
    """A real nats-server with JetStream and MQTT, in a folder of its own."""

    def __init__(self, directory: Path) -> None:
        directory.mkdir(parents=True, exist_ok=True)
        self.port = free_port()
        self.url = f"mqtt://127.0.0.1:{self.port}"
        self._config = directory / "nats.conf"
        self._log = directory / "nats.log"
        self._config.write_text(
            f'server_name: one\nlisten: "127.0.0.1:{free_port()}"\njetstream {{ store_dir: "{directory}/js" }}\n'
            f'mqtt {{ listen: "127.0.0.1:{self.port}" }}\nlog_file: "{self._log}"\n'
        )
        self._process: subprocess.Popen[bytes] | None = None

    async def start(self) -> None:
        program = find_program("nats-server")
        assert program is not None
        self._process = subprocess.Popen([program, "-c", self._config])
        await until(lambda: self._log.exists() and "Server is ready" in self._log.read_text(), "no NATS", 30)

    def stop(self) -> None:
        if self._process is not None:
            self._process.terminate()
            self._process.wait(10)


@pytest.mark.needs("nats-server")
async def test_characters_carry_topics_past_what_nats_cannot_take(tmp_path: Path) -> None:
    upstream = Nats(tmp_path / "upstream")
    characters = {".": "_", " ": "~"}
    out = (RuleConfig(filter="site/#", remote_prefix="up/", characters=characters),)
    down = (RuleConfig(filter="cmd/#", remote_prefix="up/", characters=characters),)
    config = bridge_config(upstream.url, version="3.1.1", out=out, in_=down)
    gateway = Gateway(tmp_path / "data", config)
    async with running(upstream, gateway):
        cloud = await (await Person(version=paho.MQTTv311).connect(upstream.url)).subscribe(
            "up/site/#", qos=1
        )
        device = await (await Person().connect(gateway.url)).subscribe("cmd/#")
        await gateway.online()
        await until(lambda: gateway.bridge._downlink.is_subscribed, "it did not subscribe")
        await device.publish("site/room 1/v1.0", "21", qos=2)
        await until(lambda: cloud.messages, "it did not come up")
        assert cloud.topics == ["up/site/room~1/v1_0"]
        await cloud.publish("up/cmd/room~1/v1_0", "on")
        await until(lambda: device.messages, "it did not come down")
        assert device.topics == ["cmd/room 1/v1.0"]
        assert gateway.bridge.status().connects == 1  # it was never thrown out
        cloud.leave()
        device.leave()


# ---- the origin


@needs_mosquitto
async def test_a_message_keeps_its_origin_over_restarts(tmp_path: Path) -> None:
    upstream = Mosquitto(tmp_path / "upstream", persistent=True)
    await upstream.start()
    cloud = await (await Person("cloud", keeps_session=True).connect(upstream.url)).subscribe("#")
    cloud.leave()
    upstream.stop()
    config = bridge_config(upstream.url, name="line", out=(rule("#"),))
    epochs = []
    for payload in ("first", "second"):
        gateway = Gateway(tmp_path / "data", config)
        async with running(gateway):
            sensor = await Person().connect(gateway.url)
            await sensor.publish("t", payload)
            epochs.append(gateway.bridge._router.pending.epoch)
            sensor.leave()
    async with running(upstream):
        cloud = await Person("cloud", keeps_session=True).connect(upstream.url)
        for payload in ("third", "fourth"):
            again = Gateway(tmp_path / "data", config)
            async with running(again):
                sensor = await Person().connect(again.url)
                await sensor.publish("t", payload)
                epochs.append(again.bridge._router.pending.epoch)
                await until(lambda: cloud.payloads[-1:] == [payload], "not all came up")  # noqa: B023
                sensor.leave()
        origins = [origin_of(message) for message in cloud.messages]
        cloud.leave()
    assert cloud.payloads == ["first", "second", "third", "fourth"]
    lane = origins[0].lane
    assert lane.startswith("line-")
    assert origins == [Origin("gateway", lane, epoch, number) for number, epoch in enumerate(epochs, 1)]
    assert epochs == sorted(set(epochs))


@needs_mosquitto
async def test_an_outbox_that_is_new_does_not_look_like_the_one_before(tmp_path: Path) -> None:
    upstream = Mosquitto(tmp_path / "upstream")
    origins = []
    async with running(upstream):
        cloud = await (await Person().connect(upstream.url)).subscribe("#")
        for folder in ("lost", "new"):
            gateway = Gateway(tmp_path / folder, bridge_config(upstream.url, out=(rule("#"),)))
            async with running(gateway):
                await gateway.online()
                sensor = await Person().connect(gateway.url)
                await sensor.publish("t", folder)
                await until(lambda: len(cloud.messages) == len(origins) + 1, "it did not come up")
                origins.append(origin_of(cloud.messages[-1]))
                sensor.leave()
        cloud.leave()
    assert [origin.sequence for origin in origins] == [1, 1]
    assert origins[0].lane != origins[1].lane


# ---- rings


async def test_two_gateways_in_a_ring_stop_a_loop(tmp_path: Path) -> None:
    ports = [free_port(), free_port()]

    def member(number: int, **settings: Any) -> Gateway:
        config = bridge_config(
            f"mqtt://127.0.0.1:{ports[1 - number]}",
            client_id=f"bridge {number}",
            out=(rule("#"),),
            **settings,
        )
        return Gateway(tmp_path / str(number), config, bind=f"127.0.0.1:{ports[number]}")

    one, other = member(0), member(1)
    async with running(one, other):
        await one.online()
        await other.online()
        here = await (await Person().connect(one.url)).subscribe("#")
        there = await (await Person().connect(other.url)).subscribe("#")
        await here.publish("t", "x")
        await until(lambda: one.bridge.status().dropped.get("loop"), "it did not come back")
        await one.drained()
        await other.drained()
        await here.publish("end", "y")
        await until(lambda: one.bridge.status().dropped["loop"] == 2, "it did not come back")
        await until(lambda: len(there.messages) >= 2 and len(here.messages) >= 4, "not all was seen")
        assert there.topics == ["t", "end"]
        assert here.topics == ["t", "t", "end", "end"]  # once as it was published, once by the ring
        assert other.bridge.status().dropped == {}
        assert one.bridge.status().sent[1] == other.bridge.status().sent[1] == 2
        here.leave()
        there.leave()


@needs_mosquitto
async def test_two_bridges_of_one_gateway_stop_a_loop(tmp_path: Path) -> None:
    upstream = Mosquitto(tmp_path / "upstream")
    up = bridge_config(
        upstream.url, name="up", client_id="up", gateway="pi", out=(rule("t/#", remote="all/"),)
    )
    down = bridge_config(
        upstream.url, name="down", client_id="down", gateway="pi", in_=(rule("t/#", remote="all/"),)
    )
    gateway = Gateway(tmp_path / "data", up, down)
    async with running(upstream, gateway):
        await gateway.online()
        await until(lambda: gateway.bridges[1]._downlink.is_subscribed, "it did not subscribe")
        device = await (await Person().connect(gateway.url)).subscribe("#")
        await device.publish("t/1", "x")
        await until(lambda: gateway.bridge.status().dropped.get("loop"), "it did not come back")
        await until(lambda: len(device.messages) >= 2, "not all was seen")
        assert gateway.bridge.status().dropped == {"loop": 1}
        assert device.topics == ["t/1", "t/1"]
        names = dict(users(device.messages[1]))[HOPS].split(",")
        assert [name.rpartition("-")[0] for name in names] == ["pi/up", "pi/down"]
        device.leave()


@needs_mosquitto
async def test_what_crossed_too_many_bridges_goes_no_further(tmp_path: Path) -> None:
    upstream = Mosquitto(tmp_path / "upstream")
    gateway = Gateway(tmp_path / "data", bridge_config(upstream.url, max_hops=2, out=(rule("#"),)))
    async with running(upstream, gateway):
        await gateway.online()
        cloud = await (await Person().connect(upstream.url)).subscribe("#")
        device = await Person().connect(gateway.url)
        for hops in ("a/1,b/2", "a/1"):
            properties = Properties(PacketTypes.PUBLISH)  # type: ignore[no-untyped-call]
            properties.UserProperty = [(HOPS, hops)]
            await device.publish("t", hops, properties=properties)
        await until(lambda: cloud.messages, "nothing came up")
        await gateway.drained()
        assert cloud.payloads == ["a/1"]
        assert gateway.bridge.status().dropped == {"loop": 1}
        cloud.leave()
        device.leave()
