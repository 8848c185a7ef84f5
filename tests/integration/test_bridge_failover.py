"""Several upstreams, real mosquittos: failover when one stops, return once it was stable, nothing lost, no flapping."""

import asyncio
import signal
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest

from bridge.config import BridgeConfig
from bridge.discovery import Answer, Record
from bridge.policy_config import FailoverConfig, UpstreamConfig
from tests.bridge.real import Gateway, Log, Mosquitto, Person, bridge_config, free_port, rule, running, until

pytestmark = pytest.mark.needs("mosquitto")

QUICK = {
    "min_dwell_seconds": 0.2,
    "return_after_seconds": 0.5,
    "probe_interval_seconds": 0.1,
    "eject_seconds": 0.3,
}


@pytest.fixture
async def pair(tmp_path: Path) -> AsyncIterator[tuple[Mosquitto, Mosquitto]]:
    first, second = Mosquitto(tmp_path / "first"), Mosquitto(tmp_path / "second")
    async with running(first, second):
        yield first, second


def to(first: str, second: str, faults: dict[str, Any] | None = None, **failover: Any) -> BridgeConfig:
    """`first` is preferred to `second`."""
    return bridge_config(
        upstream_tables=(
            UpstreamConfig(url=first, priority=0, **(faults or {})),
            UpstreamConfig(url=second, priority=1),
        ),
        failover=FailoverConfig(**(QUICK | failover)),
        out=(rule("#"),),
        in_=(rule("commands/#"),),
    )


async def at(gateway: Gateway, url: str) -> None:
    await until(
        lambda: gateway.bridge.status().connected and gateway.bridge.status().upstream == url,
        f"the bridge is not at {url}",
    )


async def test_failover_and_return_lose_nothing_and_do_not_flap(
    tmp_path: Path, pair: tuple[Mosquitto, Mosquitto]
) -> None:
    first, second = pair
    gateway = Gateway(tmp_path, to(first.url, second.url))
    async with running(gateway):
        device = await Person().connect(gateway.url)
        there = await (await Person().connect(second.url)).subscribe("readings")
        await at(gateway, first.url)
        await device.publish("readings", "1")
        await gateway.drained()
        assert there.messages == []
        first.stop(signal.SIGKILL)
        await device.publish("readings", "2", "3")
        await at(gateway, second.url)
        await until(lambda: there.payloads[-2:] == ["2", "3"], "not sent to the second")
        await first.start()
        here = await (await Person().connect(first.url)).subscribe("readings")
        await at(gateway, first.url)
        await device.publish("readings", "4")
        await until(lambda: here.payloads == ["4"], "not sent to the first again")
        connects = gateway.bridge.status().connects
        await asyncio.sleep(1.0)  # that nothing happens takes a while to see
        assert gateway.bridge.status().connects == connects == 3
        assert gateway.bridge.status().depth == 0
        for person in (device, there, here):
            person.leave()


async def test_what_comes_and_goes_is_not_returned_to(
    tmp_path: Path, pair: tuple[Mosquitto, Mosquitto]
) -> None:
    """An upstream that is away as often as it is there never is stable for the period."""
    first, second = pair
    gateway = Gateway(tmp_path, to(first.url, second.url, return_after_seconds=3.0))
    async with running(gateway):
        await at(gateway, first.url)
        first.stop(signal.SIGKILL)
        await at(gateway, second.url)
        for _ in range(4):
            await first.start()
            await until(lambda: "gateway-probe" in first.log, "no test connection")
            first.stop(signal.SIGKILL)
            first._log.write_text("")
            assert gateway.bridge.status().upstream == second.url
        assert gateway.bridge.status().connects == 2


async def test_a_test_connection_disturbs_nobody(tmp_path: Path, pair: tuple[Mosquitto, Mosquitto]) -> None:
    """Commands that wait at the better upstream are still there when the bridge is back."""
    first, second = pair
    gateway = Gateway(
        tmp_path, to(first.url, second.url, return_after_seconds=1.0, probe_interval_seconds=0.2)
    )
    async with running(gateway):
        device = await (await Person().connect(gateway.url)).subscribe("commands/valve")
        await at(gateway, first.url)
        cloud = await Person().connect(first.url)
        await cloud.publish("commands/valve", "open", retain=True)  # comes, whenever the subscription stands
        await until(lambda: device.payloads == ["open"], "not subscribed")
        first.send(signal.SIGSTOP)
        gateway.bridge._line._conversation._link.abort()  # type: ignore[union-attr]
        await at(gateway, second.url)
        first.send(signal.SIGCONT)
        await cloud.publish("commands/valve", "close")
        await until(lambda: device.payloads[-1] == "close", "the command did not wait")
        assert gateway.bridge.status().upstream == first.url
        assert "gateway-probe" in first.log
        device.leave()
        cloud.leave()


async def test_a_service_that_dns_names(
    tmp_path: Path, pair: tuple[Mosquitto, Mosquitto], monkeypatch: pytest.MonkeyPatch
) -> None:
    """The better record's upstream comes back under another port: DNS tells, and the bridge goes there."""
    first, second = pair
    service = "_mqtt._tcp.example.com"
    records = [Record(10, 1, "localhost", first.port), Record(20, 1, "127.0.0.1", second.port)]
    monkeypatch.setattr(
        "bridge.discovery.look_up_srv", lambda name, timeout_seconds: Answer(list(records), 0.0)
    )
    monkeypatch.setattr("bridge.discovery._SHORTEST_SECONDS", 0.1)
    config = bridge_config(f"mqtt+srv://{service}", failover=FailoverConfig(**QUICK), out=(rule("#"),))
    gateway = Gateway(tmp_path, config)
    async with running(gateway):
        await at(gateway, f"mqtt://localhost:{first.port}")
        first.stop(signal.SIGKILL)
        await at(gateway, second.url)
        moved = Mosquitto(tmp_path / "moved")
        async with running(moved):
            records[0] = Record(10, 1, "localhost", moved.port)
            await at(gateway, f"mqtt://localhost:{moved.port}")
            there = await (await Person().connect(moved.url)).subscribe("a")
            device = await Person().connect(gateway.url)
            await device.publish("a", "1")
            await until(lambda: there.payloads == ["1"], "nothing comes")
            device.leave()
            there.leave()


async def test_what_dns_does_not_tell_is_said(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(name: str, timeout_seconds: float) -> Answer:
        raise OSError("All nameservers failed")

    monkeypatch.setattr("bridge.discovery.look_up_srv", fail)
    gateway = Gateway(tmp_path, bridge_config("mqtts+srv://_mqtt._tcp.example.com", out=(rule("#"),)))
    with Log() as log:
        async with running(gateway):
            await until(lambda: gateway.bridge._line.policy._failures > 3, "no attempts")
            status = gateway.bridge.status()
    assert status.upstream == "mqtts+srv://_mqtt._tcp.example.com"
    assert status.last_error.endswith("cannot be had: All nameservers failed")
    assert len(log.of("WARNING")) == 1


async def test_each_kind_of_answer_is_timed(tmp_path: Path, pair: tuple[Mosquitto, Mosquitto]) -> None:
    first, _ = pair
    gateway = Gateway(tmp_path, bridge_config(first.url, keep_alive_seconds=1, out=(rule("#"),)))
    async with running(gateway):
        device = await Person().connect(gateway.url)
        await device.publish("a", "1")
        await until(
            lambda: (
                set(gateway.bridge.status().policy.upstreams[0].seconds) == {"connack", "puback", "pingresp"}
            ),
            "not all kinds",
        )
        assert all(0 < s < 5 for s in gateway.bridge.status().policy.upstreams[0].seconds.values())
        device.leave()


async def test_what_answers_tests_slowly_is_not_returned_to(
    tmp_path: Path, pair: tuple[Mosquitto, Mosquitto]
) -> None:
    """The drill's delay makes the first one slow, which shows once the second one is known."""
    first, second = pair
    config = to(
        first.url,
        second.url,
        {"fault_delay_ms": 300},
        eject_slow_ms=100,
        eject_slow_factor=3.0,
        eject_seconds=60.0,
    )
    gateway = Gateway(tmp_path, config)
    async with running(gateway):
        await at(gateway, first.url)
        first.stop(signal.SIGKILL)
        await at(gateway, second.url)
        await first.start()
        with Log() as log:
            await until(lambda: "gateway-probe" in first.log, "no test connection")
            await asyncio.sleep(1.0)  # that it does not return takes a while to see
        assert log.of("WARNING") == []
        assert gateway.bridge.status().upstream == second.url


async def test_a_drill_that_aborts_every_connection_is_a_failover(
    tmp_path: Path, pair: tuple[Mosquitto, Mosquitto]
) -> None:
    first, second = pair
    gateway = Gateway(tmp_path, to(first.url, second.url, {"fault_abort_percent": 100.0}))
    with Log() as log:
        async with running(gateway):
            await at(gateway, second.url)
    assert any("a drill" in line for line in log.of("WARNING")), log.lines
    assert "gateway" not in first.log


async def test_an_upstream_that_accepts_and_says_nothing_is_left_for_one_that_answers(tmp_path: Path) -> None:
    """mosquitto, stopped in the middle: its port takes connections and answers nothing, before and after CONNACK."""
    first, second = Mosquitto(tmp_path / "first"), Mosquitto(tmp_path / "second")
    config = to(first.url, second.url)
    config = bridge_config(
        upstream_tables=config.upstream_tables,
        failover=config.failover,
        out=config.out,
        puback_timeout_seconds=0.5,
        connack_timeout_seconds=0.5,
    )
    async with running(first, second):
        gateway = Gateway(tmp_path, config)
        there = await (await Person().connect(second.url)).subscribe("#")
        async with running(gateway):
            await at(gateway, first.url)
            first.send(signal.SIGSTOP)
            device = await Person().connect(gateway.url)
            await device.publish("a", "1", "2", "3")
            await until(lambda: there.payloads == ["1", "2", "3"], "not sent again elsewhere")
            assert gateway.bridge.status().resent == 3
            device.leave()
        there.leave()


async def test_two_dead_upstreams_cost_no_more_than_the_pauses_allow(tmp_path: Path) -> None:
    config = bridge_config(
        f"mqtt://127.0.0.1:{free_port()}",
        f"mqtt://127.0.0.1:{free_port()}",
        backoff_initial_seconds=0.01,
        backoff_max_seconds=0.02,
        breaker_failures=4,
        breaker_open_seconds=3600.0,
        out=(rule("#"),),
    )
    gateway = Gateway(tmp_path, config)
    async with running(gateway):
        await until(lambda: gateway.bridge.status().policy.breaker == "open", "the breaker did not open")
        assert gateway.bridge.status().state == "backing-off"
