"""From local clients through the bridge to a real mosquitto: nothing lost, order kept, whatever happens to the upstream."""

import asyncio
import signal
from itertools import pairwise
from pathlib import Path

import paho.mqtt.client as paho
import pytest

from edge_broker.wire import const
from edge_broker.wire.encoder import encode_connect, encode_publish
from edge_broker.wire.packets import Connect
from tests.bridge.real import Gateway, Mosquitto, Person, bridge_config, rule, running, until

pytestmark = pytest.mark.needs("mosquitto")


def without_repeats(payloads: list[str]) -> list[str]:
    return list(dict.fromkeys(payloads))


@pytest.mark.parametrize("version", ["5", "3.1.1"])
@pytest.mark.parametrize("qos", [0, 1, 2])
async def test_messages_go_up_in_order_at_the_qos_of_their_rule(
    tmp_path: Path, version: str, qos: int
) -> None:
    upstream = Mosquitto(tmp_path / "upstream")
    async with running(upstream):
        cloud = await (await Person().connect(upstream.url)).subscribe("site/#")
        config = bridge_config(upstream.url, version=version, out=(rule("s/#", qos, remote="site/"),))
        gateway = Gateway(tmp_path / "data", config)
        async with running(gateway):
            await gateway.online()
            assert gateway.bridge.status().version == version
            sensor = await Person(version=paho.MQTTv311).connect(gateway.url)
            wanted = [str(number) for number in range(300)]
            await sensor.publish("s/1", *wanted, qos=1)
            await until(lambda: len(cloud.messages) >= 300, "not all came up")
            assert cloud.payloads == wanted
            assert {(message.topic, message.qos) for message in cloud.messages} == {("site/s/1", qos)}
            if qos:
                await gateway.drained()
                assert gateway.bridge.status().acknowledged == 300
            sensor.leave()
        cloud.leave()


async def test_sensors_that_publish_at_qos_0_are_kept_while_the_upstream_is_away(tmp_path: Path) -> None:
    upstream = Mosquitto(tmp_path / "upstream", persistent=True)
    gateway = Gateway(tmp_path / "data", bridge_config(upstream.url, out=(rule("#"),)))
    await upstream.start()  # whoever reads there has subscribed before anything comes up
    cloud = await (await Person("cloud", keeps_session=True).connect(upstream.url)).subscribe("#")
    cloud.leave()
    upstream.stop()
    async with running(gateway):
        sensor = await Person().connect(gateway.url)
        await sensor.publish("t", *map(str, range(50)), qos=0)
        await until(lambda: gateway.bridge.status().depth == 50, "not kept")
        await upstream.start()
        cloud = await Person("cloud", keeps_session=True).connect(upstream.url)
        await gateway.drained()
        await until(lambda: len(cloud.messages) >= 50, "not all came up")
        assert cloud.payloads == [str(number) for number in range(50)]
        sensor.leave()
        cloud.leave()
    upstream.stop()


async def test_an_upstream_killed_again_and_again_gets_everything_in_order(tmp_path: Path) -> None:
    """Duplicates come only around a cut: each is a stretch sent again from its oldest message on."""
    upstream = Mosquitto(tmp_path / "upstream")
    received: list[str] = []
    gateway = Gateway(tmp_path / "data", bridge_config(upstream.url, window=100, out=(rule("s/#"),)))
    async with running(upstream, gateway):
        await gateway.online()
        sensor = await Person().connect(gateway.url)
        wanted = [str(number) for number in range(3000)]
        publishing = asyncio.ensure_future(sensor.publish("s/1", *wanted))
        for _ in range(3):
            cloud = await (await Person().connect(upstream.url)).subscribe("s/#")
            await gateway.online()
            goal = gateway.bridge.status().acknowledged + 300
            await until(lambda: gateway.bridge.status().acknowledged >= goal, "no progress")  # noqa: B023
            upstream.stop(signal.SIGKILL)
            await until(lambda: not gateway.bridge.status().connected, "the cut was not noticed")
            cloud.leave()
            received += cloud.payloads
            await upstream.start()
        cloud = await (await Person().connect(upstream.url)).subscribe("s/#")
        await publishing
        await gateway.drained(30)
        await until(lambda: cloud.payloads[-1:] == wanted[-1:], "the last one did not come")
        received += cloud.payloads
        status = gateway.bridge.status()
        sensor.leave()
        cloud.leave()
    assert status.acknowledged == 3000
    assert status.connects == 4
    # mosquitto without persistence forgets what it had not delivered when it is killed: what the bridge answers for is
    # what was acknowledged to it, so only messages around the cuts may be missing or double here.
    numbers = [int(payload) for payload in received]
    steps_back = [(a, b) for a, b in pairwise(numbers) if b <= a]
    assert len(steps_back) <= 3
    assert all(a - b <= 100 for a, b in steps_back)


async def test_a_persistent_upstream_misses_nothing_and_doubles_only_around_the_cuts(tmp_path: Path) -> None:
    upstream = Mosquitto(tmp_path / "upstream", persistent=True)
    gateway = Gateway(tmp_path / "data", bridge_config(upstream.url, window=50, out=(rule("s/#"),)))
    async with running(upstream, gateway):
        await gateway.online()
        keeper = await Person("keeper", keeps_session=True).connect(upstream.url)
        await keeper.subscribe("s/#", qos=1)
        sensor = await Person().connect(gateway.url)
        wanted = [str(number) for number in range(2000)]
        publishing = asyncio.ensure_future(sensor.publish("s/1", *wanted))
        await until(lambda: gateway.bridge.status().acknowledged > 300, "no progress")
        upstream.stop()  # in due form, so that mosquitto writes its store
        await until(lambda: not gateway.bridge.status().connected, "the end was not noticed")
        await upstream.start()
        await publishing
        await gateway.drained(30)
        await until(lambda: len(set(keeper.payloads)) == 2000, "something is missing")
        status = gateway.bridge.status()
        sensor.leave()
        keeper.leave()
    assert without_repeats(keeper.payloads) == wanted
    assert status.resent <= 50


async def test_qos_2_arrives_exactly_once_through_cuts_of_the_line(tmp_path: Path) -> None:
    upstream = Mosquitto(tmp_path / "upstream")
    async with running(upstream):
        cloud = await (await Person().connect(upstream.url)).subscribe("#", qos=2)
        line = Line(upstream.port)
        await line.start()
        gateway = Gateway(tmp_path / "data", bridge_config(line.url, window=20, out=(rule("#", 2),)))
        async with running(gateway):
            sensor = await Person().connect(gateway.url)
            wanted = [str(number) for number in range(1000)]
            publishing = asyncio.ensure_future(sensor.publish("t", *wanted, qos=2))
            for goal in (100, 200, 300, 400):
                await until(lambda: gateway.bridge.status().acknowledged >= goal, "no progress")  # noqa: B023
                line.cut()
            await publishing
            await gateway.drained(30)
            await until(lambda: len(cloud.messages) >= 1000, "something is missing")
            assert gateway.bridge.status().connects >= 4
            sensor.leave()
        await line.stop()
        cloud.leave()
    assert cloud.payloads == wanted


@pytest.mark.parametrize("version", ["5", "3.1.1"])
async def test_a_new_store_does_not_fall_for_identifiers_of_an_old_session(
    tmp_path: Path, version: str
) -> None:
    """Under one client_id somebody left a QoS 2 delivery half way: identifier 1, which the new outbox begins with too.

    Upstream is another broker of ours: mosquitto forgives an identifier that is used twice.
    """
    upstream = Gateway(tmp_path / "upstream")
    level = 5 if version == "5" else 4
    expiry = {const.SESSION_EXPIRY_INTERVAL: 600} if version == "5" else {}
    async with running(upstream):
        reader, writer = await asyncio.open_connection("127.0.0.1", int(upstream.url.rsplit(":", 1)[1]))
        writer.write(encode_connect(Connect(level, "gateway", False, 60, properties=expiry)))
        assert (await reader.read(100))[:1] == b"\x20"
        writer.write(encode_publish(level, "t", b"old", 2, packet_id=1))
        assert (await reader.read(100))[:1] == b"\x50"
        writer.close()
        cloud = await (await Person().connect(upstream.url)).subscribe("#")
        rules = {"out": (rule("#", 2),), "in_": (rule("cmd"),)}
        gateway = Gateway(tmp_path / "data", bridge_config(upstream.url, version=version, **rules))
        async with running(gateway):
            sensor = await Person().connect(gateway.url)
            await sensor.publish("t", "new", qos=2)
            await gateway.drained()
            await until(lambda: "new" in cloud.payloads, "it was taken for the old one")
            sensor.leave()
        await cloud.publish("cmd", "kept")
        gateway = Gateway(tmp_path / "data", bridge_config(upstream.url, version=version, **rules))
        async with running(gateway):
            await until(lambda: gateway.bridge.status().received[1] == 1, "the new session was not kept")
        cloud.leave()


async def test_a_backlog_survives_the_gateways_restart_without_a_duplicate(tmp_path: Path) -> None:
    upstream = Mosquitto(tmp_path / "upstream")
    config = bridge_config(
        upstream.url, window=5, out=(rule("#"),)
    )  # few at a time, so that it is busy for long
    wanted = [str(number) for number in range(2000)]
    gateway = Gateway(tmp_path / "data", config)
    async with running(gateway):
        sensor = await Person().connect(gateway.url)
        await sensor.publish("t", *wanted[:1500])
        sensor.leave()
    await upstream.start()
    cloud = await (await Person().connect(upstream.url)).subscribe("#")
    gateway = Gateway(tmp_path / "data", config)
    async with running(gateway):
        assert gateway.bridge.status().depth > 0
        sensor = await Person().connect(gateway.url)
        await sensor.publish("t", *wanted[1500:])
        await until(lambda: gateway.bridge.status().acknowledged > 200, "no progress")
        sensor.leave()
    gateway = Gateway(tmp_path / "data", config)  # and once more, while it is busy
    async with running(gateway):
        await gateway.drained()
        await until(lambda: len(cloud.messages) >= 2000, "something is missing")
    cloud.leave()
    upstream.stop()
    assert cloud.payloads == wanted


async def test_acknowledgements_that_do_not_come_lead_to_a_new_connection(tmp_path: Path) -> None:
    upstream = Mosquitto(tmp_path / "upstream")
    config = bridge_config(
        upstream.url, puback_timeout_seconds=0.3, connack_timeout_seconds=0.3, out=(rule("#"),)
    )
    gateway = Gateway(tmp_path / "data", config)
    async with running(upstream, gateway):
        await gateway.online()
        sensor = await Person().connect(gateway.url)
        upstream.send(signal.SIGSTOP)
        await sensor.publish("t", "x")
        await until(lambda: "did not acknowledge" in gateway.bridge.status().last_error, "not noticed")
        assert gateway.bridge.status().depth == 1
        upstream.send(signal.SIGCONT)
        await gateway.drained()
        assert gateway.bridge.status().resent >= 1
        sensor.leave()


async def test_a_bad_message_does_not_hold_up_the_others(tmp_path: Path) -> None:
    acl = tmp_path / "acl"
    acl.write_text("topic readwrite good/#\n")
    acl.chmod(0o600)
    upstream = Mosquitto(tmp_path / "upstream", f"allow_anonymous true\nacl_file {acl}")
    gateway = Gateway(tmp_path / "data", bridge_config(upstream.url, out=(rule("#"),)))
    async with running(upstream, gateway):
        await gateway.online()
        sensor = await Person().connect(gateway.url)
        await sensor.publish("bad/1", "x", "y")
        await sensor.publish("good/1", "z")
        await gateway.drained()
        status = gateway.bridge.status()
        assert (status.refused, status.acknowledged, status.connects) == ({"not_authorized": 2}, 1, 1)
        sensor.leave()


async def test_retained_messages_and_properties_arrive_as_they_were(tmp_path: Path) -> None:
    upstream = Mosquitto(tmp_path / "upstream")
    gateway = Gateway(tmp_path / "data", bridge_config(upstream.url, out=(rule("#"),)))
    async with running(upstream, gateway):
        await gateway.online()
        sensor = await Person().connect(gateway.url)
        properties = paho.Properties(paho.PacketTypes.PUBLISH)
        properties.ContentType = "text/plain"
        properties.UserProperty = [("unit", "°C")]
        properties.MessageExpiryInterval = 600
        await sensor.publish("t", "20", retain=True, properties=properties)
        await gateway.drained()
        cloud = await (await Person().connect(upstream.url)).subscribe("#")
        await until(lambda: cloud.messages, "it was not retained")
        [message] = cloud.messages
        assert message.retain
        assert message.properties is not None
        assert message.properties.ContentType == "text/plain"
        assert message.properties.UserProperty[0] == ("unit", "°C")
        assert [name for name, _ in message.properties.UserProperty] == ["unit", "edge-origin"]
        assert 590 <= message.properties.MessageExpiryInterval <= 600
        sensor.leave()
        cloud.leave()


async def test_the_next_url_is_tried_where_one_does_not_answer(tmp_path: Path) -> None:
    first, second = Mosquitto(tmp_path / "one"), Mosquitto(tmp_path / "two")
    gateway = Gateway(tmp_path / "data", bridge_config(first.url, second.url, out=(rule("#"),)))
    async with running(second, gateway):
        await gateway.online()
        assert gateway.bridge.status().upstream == second.url
        await first.start()
        second.stop()
        await until(lambda: gateway.bridge.status().upstream == first.url, "not tried")
        await gateway.online()
    first.stop()


class Line:
    """A TCP proxy to `port` that can cut every connection at once."""

    def __init__(self, port: int) -> None:
        self._port = port
        self._writers: set[asyncio.StreamWriter] = set()
        self._server: asyncio.Server
        self.url = ""

    async def start(self) -> None:
        self._server = await asyncio.start_server(self._serve, "127.0.0.1", 0)
        self.url = f"mqtt://127.0.0.1:{self._server.sockets[0].getsockname()[1]}"

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        far_reader, far_writer = await asyncio.open_connection("127.0.0.1", self._port)
        self._writers |= {writer, far_writer}
        await asyncio.gather(self._pump(reader, far_writer), self._pump(far_reader, writer))
        self._writers -= {writer, far_writer}

    async def _pump(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            while data := await reader.read(1000):
                writer.write(data)
                await writer.drain()
        except OSError:
            pass
        writer.close()

    def cut(self) -> None:
        for writer in self._writers:
            writer.transport.abort()

    async def stop(self) -> None:
        self.cut()
        self._server.close()
