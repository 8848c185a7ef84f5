"""What a real broker answers on its control socket: status, bridges, traces; and that it starts where it can have none."""

from __future__ import annotations

import os
import time
from collections import deque
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest

from bridge import Bridge, make_bridges
from bridge.canary_config import CanaryConfig
from bridge.config import BridgeConfig, RuleConfig
from edge_broker import __version__
from edge_broker.broker import Broker
from edge_broker.config.limits import LimitsConfig
from edge_broker.config.listeners import ListenerConfig
from edge_broker.config.model import Config, ControlConfig
from edge_broker.core.router import Router
from edge_broker.core.traced import TracedRouter
from edge_broker.core.tracing import Tracer
from edge_broker.ops.trace import _follow
from tests.ops.gateway import PUBACK, PUBLISH, Client, bridge_to, gateway, until, web_of
from tests.ops.test_control import Peer


async def to(broker: Broker) -> Peer:
    path = broker.config.control_path
    assert path is not None
    return await Peer.of(path)


async def ask(broker: Broker, command: str, **arguments: object) -> Any:
    peer = await to(broker)
    try:
        return await peer.ask(command, **arguments)
    finally:
        await peer.close()


@asynccontextmanager
async def tracing(broker: Broker, **arguments: object) -> Any:
    peer = await to(broker)
    begun = await peer.ask("trace", **arguments)
    assert "tracing" in begun, begun
    try:
        yield peer
    finally:
        await peer.close()
        await until(lambda: type(broker.router) is Router, "the trace goes on without its client")


async def steps(peer: Peer, last: str) -> list[str]:
    """The steps up to the first that is `last`: `what client`."""
    found: list[str] = []
    while not found or found[-1] != last:
        answer = await peer.next()
        assert answer is not None
        assert "event" in answer, answer
        found.append(f"{answer['event']} {answer['client']}")
    return found


def _subscriptions(broker: Broker, client_id: str) -> int:
    session = broker.router.sessions.get(client_id)
    return 0 if session is None else len(session.subscriptions)


async def test_status_of_a_broker_at_work(state_dir: Path) -> None:
    async with gateway(state_dir) as broker:
        keeper = await Client.connect(broker, "keeper", session_expiry_seconds=60)
        await keeper.subscribe("up/#")
        await keeper.leave()
        publisher = await Client.connect(broker, "publisher")
        await publisher.publish_all("up/1", 3)
        broker._own_commands.note(time.monotonic())
        status = await ask(broker, "status")
        assert (status["version"], status["pid"]) == (__version__, os.getpid())
        assert (status["live"], status["ready"], status["problems"]) == (True, True, [])
        assert status["listeners"] == {"up": broker.listening, "down": []}
        assert status["clients"] == {"connections": 1, "connected": 1, "away": 1, "subscriptions": 1}
        assert (status["messages"]["received"], status["messages"]["sent"]) == (3, 0)
        (queue,) = status["queues"]
        assert (queue["name"], queue["messages"]) == ("session:keeper", 3)
        assert 0 <= queue["oldest_age_seconds"] < 60
        assert status["store"]["healthy"] is True
        assert status["store"]["commits"] > 0
        assert status["store"]["bytes"] > 0
        assert status["bridges"] == []
        await publisher.leave()


async def test_status_says_what_is_wrong(state_dir: Path) -> None:
    async with gateway(state_dir) as broker:
        broker._listeners[0].stop_accepting()
        status = await ask(broker, "status")
        assert status["ready"] is False
        assert status["problems"][0]["component"] == "listeners"


async def test_bridges(state_dir: Path) -> None:
    bridge = bridge_to("mqtt://127.0.0.1:1")
    async with gateway(state_dir, [bridge]) as broker:
        await until(lambda: bridge.status().last_error, "the bridge did not fail")
        publisher = await Client.connect(broker, "publisher")
        await publisher.publish_all("up/1", 2)
        publisher.publish("live/1", qos=0)
        await publisher.publish_all("other", 1)
        (shown,) = (await ask(broker, "bridges"))["bridges"]
        assert (shown["name"], shown["connected"], shown["depth"], shown["in_flight"]) == (
            "cluster",
            False,
            2,
            0,
        )
        assert shown["bytes"] > 0
        assert shown["dropped"] == {"offline": 1}
        assert "refused" in shown["last_error"]
        assert shown["last_hint"]
        assert shown["drained_in_seconds"] is None
        assert shown["policy"]["breaker"] == "closed"
        (upstream,) = shown["policy"]["upstreams"]
        assert (upstream["url"], upstream["chosen"]) == ("mqtt://127.0.0.1:1", True)
        assert (await ask(broker, "status"))["bridges"][0]["depth"] == 2
        await publisher.leave()


def with_priorities(url: str) -> Bridge:
    """A bridge with a queue for each priority."""
    rules = (
        RuleConfig(filter="alarms/#", priority="high"),
        RuleConfig(filter="logs/#", priority="low"),
        RuleConfig(filter="#"),
    )
    return Bridge(BridgeConfig(name="cluster", urls=(url,), client_id="cluster", out=rules))


async def test_the_share_of_a_canary(state_dir: Path) -> None:
    canary = CanaryConfig(urls=("mqtt://127.0.0.1:1",), percent=5)
    rules = (RuleConfig(filter="#"),)
    config = BridgeConfig(name="cloud", urls=("mqtt://127.0.0.1:1",), out=rules, canary=canary)
    bridges = [*make_bridges([config]), bridge_to("mqtt://127.0.0.1:1")]
    async with gateway(state_dir, bridges) as broker, web_of(broker) as web:
        assert await ask(broker, "bridge canary", name="cloud") == {"name": "cloud", "percent": 5}
        answer = await ask(broker, "bridge canary", name="cloud", percent=100)
        assert answer == {"name": "cloud", "percent": 100, "before": 5}
        shown = (await ask(broker, "bridges"))["bridges"]
        assert [one["name"] for one in shown] == ["cloud", "cloud!canary", "cluster"]
        assert [one["canary_percent"] for one in shown] == [100, None, None]
        publisher = await Client.connect(broker, "publisher")
        async with tracing(broker, topic="t") as peer:
            publisher.publish("t")
            told = await steps(peer, "answered publisher")
            assert "queued bridge:cloud!canary" in told
            assert not any(step.endswith("bridge:cloud") for step in told)
        scrape = await web.scrape()
        assert scrape.of("bridge_canary_percent", "bridge") == {"cloud": 100}
        assert scrape.get("queue_messages", queue="bridge:cloud!canary") == 1
        assert scrape.get("queue_messages", queue="bridge:cloud") == 0
        for wrong, why in (
            ({"name": "cloud", "percent": 101}, "from 0 to 100"),
            ({"name": "cloud", "percent": True}, "from 0 to 100"),
            ({"name": "cluster"}, "has no canary"),
            ({"name": "gone"}, "there is no bridge"),
        ):
            assert why in (await ask(broker, "bridge canary", **wrong))["error"]
        assert (await ask(broker, "bridge canary", name="cloud"))["percent"] == 100
        await publisher.leave()


async def test_a_bridge_with_priorities(state_dir: Path) -> None:
    async with gateway(state_dir, [with_priorities("mqtt://127.0.0.1:1")]) as broker, web_of(broker) as web:
        publisher = await Client.connect(broker, "publisher")
        for topic, messages in (("alarms/1", 1), ("logs/1", 3), ("up/1", 2)):
            await publisher.publish_all(topic, messages)
        (shown,) = (await ask(broker, "bridges"))["bridges"]
        assert shown["depth"] == 6
        assert {lane["priority"]: lane["depth"] for lane in shown["lanes"]} == {
            "normal": 2,
            "high": 1,
            "low": 3,
        }
        assert sum(lane["bytes"] for lane in shown["lanes"]) == shown["bytes"]
        assert shown["oldest_age_seconds"] == max(lane["oldest_age_seconds"] for lane in shown["lanes"])
        scrape = await web.scrape()
        waiting = {"bridge:cluster": 2, "bridge:cluster!high": 1, "bridge:cluster!low": 3, "other": 0}
        assert scrape.of("queue_messages", "queue") == waiting
        assert set(scrape.of("queue_oldest_age_seconds", "queue")) == set(waiting)
        await publisher.leave()


async def test_a_trace_to_a_bridge_with_priorities(tmp_path: Path) -> None:
    async with gateway(tmp_path / "upstream") as upstream:
        bridge = with_priorities(upstream.listening[0])
        async with gateway(tmp_path / "gateway", [bridge]) as broker, tracing(broker, topic="#") as peer:
            await until(lambda: bridge.status().connected, "the bridge does not connect")
            publisher = await Client.connect(broker, "p")
            publisher.publish("alarms/1")
            told = await steps(peer, "acknowledged bridge:cluster")
            assert told[:2] == ["accepted p", "queued bridge:cluster"]
            assert "sent bridge:cluster" in told
            await publisher.leave()


async def test_a_trace_to_a_bridge_and_its_upstream(tmp_path: Path) -> None:
    async with gateway(tmp_path / "upstream") as upstream:
        bridge = bridge_to(upstream.listening[0])
        async with gateway(tmp_path / "gateway", [bridge]) as broker, tracing(broker, topic="#") as peer:
            await until(lambda: bridge.status().connected, "the bridge does not connect")
            publisher = await Client.connect(broker, "p")
            publisher.publish("up/1")
            told = await steps(peer, "acknowledged bridge:cluster")
            assert told[:2] == ["accepted p", "queued bridge:cluster"]
            assert "sent bridge:cluster" in told
            publisher.publish("live/1", qos=0)
            assert (await steps(peer, "sent bridge:cluster"))[-2:] == ["accepted p", "sent bridge:cluster"]
            await publisher.leave()


async def test_a_trace_of_what_comes_down_a_bridge(tmp_path: Path) -> None:
    async with gateway(tmp_path / "upstream") as upstream:
        bridge = Bridge(
            BridgeConfig(
                name="cluster",
                urls=(upstream.listening[0],),
                client_id="cluster",
                in_=(RuleConfig(filter="commands/#", qos=1),),
            )
        )
        async with gateway(tmp_path / "gateway", [bridge]) as broker:
            await until(lambda: _subscriptions(upstream, "cluster"), "it does not subscribe")
            device = await (await Client.connect(broker, "device")).subscribe("commands/#")
            async with tracing(broker, client="bridge:cluster") as peer:
                publisher = await Client.connect(upstream, "p")
                publisher.publish("commands/1")
                assert await steps(peer, "sent device") == ["accepted bridge:cluster", "sent device"]
                await publisher.leave()
            await device.leave()


async def test_a_trace_to_a_bridge_that_is_away(state_dir: Path) -> None:
    bridge = bridge_to("mqtt://127.0.0.1:1")
    async with gateway(state_dir, [bridge]) as broker, tracing(broker, topic="+/1") as peer:
        publisher = await Client.connect(broker, "p")
        publisher.publish("live/1", qos=0)
        assert await steps(peer, "dropped bridge:cluster") == ["accepted p", "dropped bridge:cluster"]
        publisher.publish("up/1", qos=1)
        assert await steps(peer, "answered p") == [
            *("accepted p", "queued bridge:cluster", "written bridge:cluster", "answered p")
        ]
        await publisher.leave()


async def test_what_the_upstream_refuses_for_good_is_dropped_with_its_reason(tmp_path: Path) -> None:
    """The upstream takes smaller packets than the gateway."""
    async with gateway(tmp_path / "up", limits=LimitsConfig(max_packet_bytes=1024)) as upstream:
        bridge = bridge_to(upstream.listening[0])
        async with gateway(tmp_path / "gateway", [bridge]) as broker, tracing(broker, topic="#") as peer:
            await until(lambda: bridge.status().connected, "the bridge does not connect")
            publisher = await Client.connect(broker, "p")
            publisher.publish("up/1", b"x" * 2000)
            told = await steps(peer, "dropped bridge:cluster")
            assert "sent bridge:cluster" not in told
            assert "acknowledged bridge:cluster" not in told
            await publisher.leave()


async def test_one_trace_at_a_time(state_dir: Path) -> None:
    async with gateway(state_dir) as broker:
        async with tracing(broker, topic="#"):
            assert type(broker.router) is TracedRouter
            assert "a trace is running" in (await ask(broker, "trace", topic="#"))["error"]
        async with tracing(broker, client="c"):
            pass


async def test_a_trace_ends_after_so_many_messages(state_dir: Path) -> None:
    async with gateway(state_dir) as broker, tracing(broker, topic="t", count=1) as peer:
        subscriber = await Client.connect(broker, "s", session_expiry_seconds=60)
        await subscriber.subscribe("t")
        publisher = await Client.connect(broker, "p")
        publisher.publish("t")
        await subscriber.read(PUBLISH)
        subscriber._send(PUBACK, b"\0\1")
        told = []
        while not {"acknowledged s", "answered p"} <= set(told):
            told += await steps(peer, "acknowledged s" if "answered p" in told else "answered p")
        assert told[:3] == ["accepted p", "queued s", "sent s"]
        assert await peer.next() == {"ended": "enough messages", "messages": 1, "skipped": 0}
        assert await peer.next() == {"end": True}
        assert type(broker.router) is Router
        await subscriber.leave()
        await publisher.leave()


async def test_a_trace_ends_with_its_time(state_dir: Path) -> None:
    async with gateway(state_dir) as broker:
        tracer = Tracer(broker.router, print, topic_filter="#")
        assert [answer async for answer in _follow(tracer, deque(), time.monotonic())] == []
        peer = await to(broker)
        await peer.ask("trace", topic="#", seconds=1)
        assert await peer.next() == {"ended": "its time is over", "messages": 0, "skipped": 0}
        await peer.close()


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        ({}, "nothing to trace"),
        ({"topic": "a/#/b"}, "is no topic filter"),
        ({"topic": "#", "seconds": 0}, "seconds must be 1 to 3600"),
        ({"topic": "#", "seconds": 3601}, "seconds must be 1 to 3600"),
        ({"topic": "#", "seconds": True}, "seconds must be of type int"),
        ({"topic": "#", "count": -1}, "count must be"),
        ({"client": 5}, "client must be of type str"),
    ],
)
async def test_a_trace_that_cannot_be(state_dir: Path, arguments: dict[str, Any], said: str) -> None:
    async with gateway(state_dir) as broker:
        assert said in (await ask(broker, "trace", **arguments))["error"]
        assert type(broker.router) is Router


async def test_a_broker_starts_where_it_can_have_no_control_socket(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    deep = tmp_path / ("d" * 100)
    async with gateway(deep) as broker:
        assert broker.listening
        assert "no control socket" in caplog.text
        assert "[control] path puts it elsewhere" in caplog.text


async def test_no_control_socket_where_none_is_wanted(state_dir: Path) -> None:
    async with gateway(state_dir, control=ControlConfig(enabled=False)) as broker:
        assert broker.config.control_path is None
        assert not (state_dir / "control.sock").exists()


async def test_elsewhere(tmp_path: Path) -> None:
    config = Config(
        data_dir=tmp_path / "data",
        listeners=(ListenerConfig(bind="127.0.0.1:0"),),
        control=ControlConfig(path=tmp_path / "c.sock"),
    )
    broker = Broker(config)
    await broker.start()
    try:
        assert (await ask(broker, "status"))["ready"] is True
    finally:
        await broker.stop()
    assert not (tmp_path / "c.sock").exists()


async def test_a_stop_ends_a_trace(state_dir: Path) -> None:
    async with gateway(state_dir) as broker:
        peer = await to(broker)
        await peer.ask("trace", topic="#", seconds=3600)
    assert type(broker.router) is Router
    assert await peer.next() is None
    await peer.close()
