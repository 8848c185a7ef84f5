"""A device and a real mosquitto: readings arrive, in order, through restarts and cut connections."""

import json
import signal
from collections.abc import Callable
from pathlib import Path

import cbor2
import pytest

from devices import (
    Command,
    Device,
    DeviceError,
    ReadingError,
    SpoolError,
    SpoolFullError,
    SpoolLimits,
    Timing,
)
from tests.devices.collector import Collector, without_duplicates
from tests.devices.cutting_proxy import CuttingProxy
from tests.devices.mosquitto import Mosquitto, free_port, wait_until

Collect = Callable[..., Collector]
QUICK = Timing(connect_timeout=5.0, acknowledge_timeout=5.0, reconnect_first=0.05, reconnect_longest=0.2)


def test_readings_arrive_in_order_with_who_and_which(mosquitto: Mosquitto, collect: Collect) -> None:
    collector = collect(mosquitto.port)
    with Device("porch", mosquitto.url) as device:
        numbers = [device.publish_reading({"value": value}) for value in range(300)]
        assert device.flush(20)
        stats = device.stats
    collector.wait(lambda received: len(received) == 300)
    assert numbers == list(range(1, 301))
    assert [json.loads(one.payload) for one in collector.received] == [
        {"value": value} for value in range(300)
    ]
    assert collector.sequences("porch") == numbers
    first = collector.received[0]
    assert (first.topic, first.device, first.content_type) == (
        "devices/porch/readings",
        "porch",
        "application/json",
    )
    assert len({one.spool for one in collector.received}) == 1
    assert (stats.published, stats.acknowledged, stats.spooled, stats.dropped, stats.reconnects) == (
        300,
        300,
        0,
        0,
        0,
    )
    assert stats.version == "5"


def test_cbor_numbers_and_other_topics(mosquitto: Mosquitto, collect: Collect) -> None:
    collector = collect(mosquitto.port)
    with Device("cellar", mosquitto.url, topic_prefix="house", encoding="cbor") as device:
        device.publish_reading({"co2_ppm": 749.2, "occupied": True})
        device.publish_reading(21.5, topic="elsewhere/temperature", encoding="json")
        assert device.flush(20)
    collector.wait(lambda received: len(received) == 2)
    first, second = collector.received
    assert (first.topic, first.content_type) == ("house/cellar/readings", "application/cbor")
    assert cbor2.loads(first.payload) == {"co2_ppm": 749.2, "occupied": True}
    assert (second.topic, second.payload) == ("elsewhere/temperature", b"21.5")


def test_readings_before_the_broker_is_there(tmp_path: Path, collect: Collect) -> None:
    broker = Mosquitto(tmp_path / "mosquitto")
    proxy = CuttingProxy(broker.port)
    with Device("early", proxy.url, timing=QUICK) as device:
        device.publish_readings([{"value": value} for value in range(100)])
        wait_until(lambda: device.stats.problem is not None, "the device did not notice that nobody listens")
        assert not device.flush(0.05)
        assert device.stats.spooled == 100
        proxy.block()
        broker.start()
        try:
            collector = collect(broker.port)
            proxy.allow()
            assert device.flush(20)
            assert device.stats.connected
            assert device.stats.problem is None
            collector.wait_for_sequences("early", 100)
            assert without_duplicates(collector.sequences("early")) == list(range(1, 101))
        finally:
            proxy.close()
            broker.stop()


def test_a_broker_that_is_restarted_in_the_middle(keeping_mosquitto: Mosquitto, collect: Collect) -> None:
    collector = collect(keeping_mosquitto.port, kept=True)
    with Device("porch", keeping_mosquitto.url, timing=QUICK) as device:
        for value in range(1500):
            device.publish_reading(value)
            if value in (400, 900):
                wait_until(lambda: device.stats.acknowledged > value - 300, "nothing was acknowledged")  # noqa: B023
                keeping_mosquitto.stop()
            if value in (600, 1100):
                wait_until(lambda: not device.stats.connected, "the device did not notice the broker's end")
                keeping_mosquitto.start()
        assert device.flush(30)
        assert device.stats.reconnects == 2
    collector.wait_for_sequences("porch", 1500)
    assert without_duplicates(collector.sequences("porch")) == list(range(1, 1501))


def test_a_broker_that_is_killed_in_the_middle(
    mosquitto: Mosquitto, proxy: CuttingProxy, collect: Collect
) -> None:
    # QoS 0: mosquitto writes to the subscriber before it acknowledges, so what it acknowledged was received.
    collector = collect(mosquitto.port, qos=0)
    with Device("porch", proxy.url, timing=QUICK) as device:
        for kills in range(3):
            device.publish_readings(list(range(1000)))
            wait_until(lambda: device.stats.acknowledged > kills * 1000 + 200, "nothing was acknowledged")  # noqa: B023
            proxy.block()
            mosquitto.stop(signal.SIGKILL)
            wait_until(lambda: not device.stats.connected, "the device did not notice the broker's end")
            wait_until(lambda: not collector.subscribed, "the collector did not notice the broker's end")
            mosquitto.start()
            collector.wait_until_subscribed()
            proxy.allow()
        assert device.flush(30)
        assert device.stats.reconnects == 3
    collector.wait_for_sequences("porch", 3000)
    assert without_duplicates(collector.sequences("porch")) == list(range(1, 3001))


def test_a_connection_that_is_cut_again_and_again(
    mosquitto: Mosquitto, proxy: CuttingProxy, collect: Collect
) -> None:
    collector = collect(mosquitto.port)
    with Device("porch", proxy.url, timing=QUICK) as device:
        for cuts in range(10):
            device.publish_readings(list(range(200)))
            wait_until(lambda: device.stats.acknowledged > cuts * 200 + 50, "nothing was acknowledged")  # noqa: B023
            proxy.cut()
        assert device.flush(30)
    collector.wait_for_sequences("porch", 2000)
    assert without_duplicates(collector.sequences("porch")) == list(range(1, 2001))


def test_a_connection_that_passes_nothing_on(
    mosquitto: Mosquitto, proxy: CuttingProxy, collect: Collect
) -> None:
    collector = collect(mosquitto.port)
    timing = Timing(acknowledge_timeout=0.3, reconnect_first=0.05, reconnect_longest=0.1)
    with Device("porch", proxy.url, timing=timing) as device:
        device.publish_reading(1)
        assert device.flush(10)
        proxy.stall()
        device.publish_readings([2, 3])
        wait_until(lambda: "no PUBACK" in (device.stats.problem or ""), "the device waits for ever")
        proxy.cut()
        proxy.flow()
        assert device.flush(10)
    collector.wait_for_sequences("porch", 3)


def test_a_spool_file_survives_the_device(mosquitto: Mosquitto, collect: Collect, tmp_path: Path) -> None:
    spool = tmp_path / "porch.spool"
    device = Device("porch", f"mqtt://127.0.0.1:{free_port()}", spool=spool, timing=QUICK).start()
    device.publish_readings(list(range(500)))
    device.close(timeout_seconds=0)
    collector = collect(mosquitto.port)
    with Device("porch", mosquitto.url, spool=spool) as device:
        assert device.publish_reading(500) == 501
        assert device.flush(20)
    collector.wait_for_sequences("porch", 501)
    assert [json.loads(one.payload) for one in collector.received] == list(range(501))
    assert len({one.spool for one in collector.received}) == 1


def test_a_script_that_ends_at_once_still_sends(
    mosquitto: Mosquitto, collect: Collect, tmp_path: Path
) -> None:
    collector = collect(mosquitto.port)
    with Device("porch", mosquitto.url, spool=tmp_path / "porch.spool") as device:
        device.publish_reading(1)
    assert device.stats.spooled == 0
    collector.wait_for_sequences("porch", 1)


def test_a_full_spool_drops_the_oldest_and_says_so(
    mosquitto: Mosquitto, proxy: CuttingProxy, collect: Collect
) -> None:
    collector = collect(mosquitto.port)
    proxy.block()
    with Device("porch", proxy.url, limits=SpoolLimits(max_readings=100), timing=QUICK) as device:
        for value in range(250):
            device.publish_reading(value)
        assert (device.stats.spooled, device.stats.dropped) == (100, 150)
        proxy.allow()
        assert device.flush(20)
    collector.wait(lambda received: len(received) == 100)
    assert collector.sequences("porch") == list(range(151, 251))


def test_a_full_spool_may_refuse_instead(mosquitto: Mosquitto, proxy: CuttingProxy) -> None:
    proxy.block()
    limits = SpoolLimits(max_readings=10, when_full="refuse")
    with Device("porch", proxy.url, limits=limits, timing=QUICK) as device:
        device.publish_readings(list(range(10)))
        with pytest.raises(SpoolFullError, match="full"):
            device.publish_reading(11)
        assert (device.stats.spooled, device.stats.refused) == (10, 1)
        proxy.allow()
        assert device.flush(20)
        assert device.publish_reading(12) == 11


def test_memory_stays_bounded_whatever_the_backlog(mosquitto: Mosquitto, proxy: CuttingProxy) -> None:
    proxy.stall()
    with Device("porch", proxy.url, window=20, timing=QUICK) as device:
        device.publish_readings(list(range(50_000)))
        assert len(device._spool._ahead) <= 256
        proxy.flow()
        wait_until(lambda: device.stats.acknowledged > 100, "nothing was acknowledged")
        for _ in range(200):
            session = device._link._session
            held_by_paho = len(session._client._out_messages) if session is not None else 0
            assert held_by_paho <= 20
            assert device.stats.in_flight <= 20
        device.close(timeout_seconds=0)


def test_qos_0_leaves_with_the_connection(mosquitto: Mosquitto, collect: Collect) -> None:
    collector = collect(mosquitto.port, qos=0)
    with Device("porch", mosquitto.url) as device:
        for value in range(1000):
            device.publish_reading(value, qos=value % 2)
        assert device.flush(20)
        assert device.stats.acknowledged == 1000
    collector.wait_for_sequences("porch", 1000)
    assert collector.sequences("porch") == list(range(1, 1001))


def test_commands_reach_the_callback(mosquitto: Mosquitto, collect: Collect) -> None:
    collector = collect(mosquitto.port, "house/porch/readings")
    commands: list[Command] = []
    with Device("porch", mosquitto.url, topic_prefix="house") as device:

        @device.on_command
        def handle(command: Command) -> None:
            commands.append(command)
            if command.name == "fails":
                raise RuntimeError("the user's own mistake")
            device.publish_reading({"did": command.name})
            assert device.flush(10)  # no deadlock: the callback has a thread of its own

        wait_until(lambda: device.stats.connected, "not connected")
        wait_until(lambda: _subscriptions(collector, "house/porch/commands/now", commands), "no command came")
        collector.publish("house/porch/commands/fails", b"1")
        collector.publish("house/porch/commands/fan/speed", b'{"percent": 40}')
        collector.publish("house/other/commands/fan", b"not for this one")
        wait_until(lambda: commands[-1].name == "fan/speed", "the command did not come")
        assert commands[-1].json() == {"percent": 40}
        assert commands[-1].topic == "house/porch/commands/fan/speed"
        assert device.flush(10)
    assert [command.name for command in commands if command.name != "now"] == ["fails", "fan/speed"]
    collector.wait(lambda received: received[-1].payload == b'{"did":"fan/speed"}')


def _subscriptions(collector: Collector, topic: str, commands: list[Command]) -> bool:
    """Whether the device's subscription is in force: commands sent until one comes."""
    collector.publish(topic, b"")
    return bool(commands)


def test_commands_kept_while_the_device_is_away(
    mosquitto: Mosquitto, collect: Collect, tmp_path: Path
) -> None:
    sender = collect(mosquitto.port, "nothing")
    commands: list[Command] = []
    with Device("porch", mosquitto.url, keep_commands_seconds=600) as device:
        device.on_command(commands.append)
        wait_until(lambda: _subscriptions(sender, "devices/porch/commands/now", commands), "no command came")
    sender.publish("devices/porch/commands/led", b"on")
    with Device("porch", mosquitto.url, keep_commands_seconds=600) as device:
        device.on_command(commands.append)
        wait_until(
            lambda: commands[-1].name == "led", "the broker did not keep the command, or nobody took it"
        )


def test_a_command_is_acknowledged_after_its_callback(mosquitto: Mosquitto, collect: Collect) -> None:
    sender = collect(mosquitto.port, "nothing")
    commands: list[Command] = []
    first = Device("porch", mosquitto.url, keep_commands_seconds=600).start()
    started: list[Command] = []

    def hang(command: Command) -> None:
        started.append(command)
        if command.name == "led":
            wait_until(lambda: not first.stats.connected, "the device did not close")

    first.on_command(hang)
    wait_until(lambda: _subscriptions(sender, "devices/porch/commands/now", started), "no command came")
    sender.publish("devices/porch/commands/led", b"on")
    wait_until(lambda: started[-1].name == "led", "the command did not come")
    first.close(timeout_seconds=0)  # while the callback is at it: as if the script had died there
    with Device("porch", mosquitto.url, keep_commands_seconds=600) as device:
        device.on_command(commands.append)
        wait_until(lambda: "led" in [command.name for command in commands], "the command did not come again")


def test_what_cannot_be_sent_is_refused_at_once() -> None:
    with Device("porch", f"mqtt://127.0.0.1:{free_port()}", timing=QUICK) as device:
        for topic in ("", "a/+/b", "#", "$SYS/broker", "zero\0"):
            with pytest.raises(ReadingError):
                device.publish_reading(1, topic=topic)
        with pytest.raises(ReadingError, match="QoS"):
            device.publish_reading(1, qos=2)
        with pytest.raises(ReadingError, match="JSON"):
            device.publish_readings([1, {"value": float("nan")}])
        assert device.stats.published == 0
        assert device.publish_reading(1) == 1
        device.close(timeout_seconds=0)
        with pytest.raises(SpoolError, match="closed"):
            device.publish_reading(2)
        with pytest.raises(DeviceError, match="closed"):
            device.start()


@pytest.mark.parametrize("name", ["", "a/b", "a+", "#", "line\nbreak", "x" * 201])
def test_names_that_are_no_topic_level(name: str) -> None:
    with pytest.raises(ValueError, match="name"):
        Device(name)


def test_credentials_that_the_broker_refuses(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    broker = Mosquitto(tmp_path / "mosquitto", listener="allow_anonymous false").start()
    try:
        device = Device("porch", broker.url, username="porch", password="secret-word", timing=QUICK).start()
        device.publish_reading(1)
        wait_until(lambda: device.stats.problem is not None, "the refusal was not noticed")
        assert "refused" in (device.stats.problem or "")
        assert device.stats.version is None
        device.close(timeout_seconds=0)
        assert device.stats.spooled == 1
        assert "secret-word" not in caplog.text
        assert "1 readings are lost" in caplog.text
    finally:
        broker.stop()
