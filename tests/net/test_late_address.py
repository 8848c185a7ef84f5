"""A broker that starts before its address is there: a real one, in a network namespace that gets its address late."""

from __future__ import annotations

import subprocess
from pathlib import Path

import pytest

from edge_broker.broker import Broker
from edge_broker.config.listeners import ListenerConfig
from edge_broker.config.model import Config
from tests.conftest import do_without, find_program
from tests.integration.broker_process import until
from tests.integration.serving import Serving
from tests.net.conftest import Run


@pytest.mark.needs("unshare", "nsenter", "ip")
def test_a_broker_that_is_there_before_its_address(tmp_path: Path) -> None:
    unshare, nsenter = find_program("unshare"), find_program("nsenter")
    assert unshare
    assert nsenter
    if subprocess.run([unshare, "-rn", "true"], capture_output=True).returncode:
        do_without("this system lets nobody make a network namespace")
    with_loopback = (unshare, "-rn", "sh", "-c", 'ip link set lo up && exec "$@"', "sh")
    listener = 'bind = "10.77.0.1:1883"\nanonymous = true'
    serving = Serving(tmp_path / "broker", listener, before=with_loopback).start()
    assert serving.urls == []
    assert serving.log.count("mqtt://10.77.0.1:1883: the address is not there yet") == 1
    inside = [nsenter, "-t", str(serving.pid), "-U", "--preserve-credentials", "-n"]
    add = [*inside, "ip", "address", "add", "10.77.0.1/32", "dev", "lo"]
    subprocess.run(add, check=True, timeout=20)
    until(lambda: serving.urls == ["mqtt://10.77.0.1:1883"], "it does not notice")
    script = "import socket; socket.create_connection(('10.77.0.1', 1883), 10).close()"
    subprocess.run([*inside, "python3", "-c", script], check=True, timeout=20)
    assert serving.stop() == 0


def test_the_others_serve_meanwhile_and_health_knows(run: Run, tmp_path: Path) -> None:
    async def scenario() -> None:
        config = Config(
            data_dir=tmp_path,
            listeners=(
                ListenerConfig(bind="192.0.2.1:1883", anonymous=True),
                ListenerConfig(bind="127.0.0.1:0"),
            ),
        )
        broker = Broker(config)
        await broker.start()
        assert broker.not_listening == ["mqtt://192.0.2.1:1883"]
        assert len(broker.listening) == 1
        await broker.stop()

    run(scenario())


def test_a_taken_port_still_keeps_the_broker_from_starting(run: Run, tmp_path: Path) -> None:
    """Also when another listener waits for its address: nothing is left behind."""

    async def scenario() -> None:
        first = Broker(Config(data_dir=tmp_path / "1", listeners=(ListenerConfig(bind="127.0.0.1:0"),)))
        await first.start()
        taken = first.listening[0].removeprefix("mqtt://")
        late = ListenerConfig(bind="192.0.2.1:1883", anonymous=True)
        second = Broker(Config(data_dir=tmp_path / "2", listeners=(late, ListenerConfig(bind=taken))))
        with pytest.raises(OSError, match="in use") as caught:
            await second.start()
        assert caught.value.filename == f"mqtt://{taken}"
        await first.stop()

    run(scenario())
