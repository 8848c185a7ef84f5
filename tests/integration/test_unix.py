"""Clients on a Unix socket: paho-mqtt and mosquitto's, a broker that died and came again, and two that want one place."""

from __future__ import annotations

import stat
import subprocess
from collections.abc import Iterator
from pathlib import Path

import paho.mqtt.client as paho
import pytest
from paho.mqtt.enums import CallbackAPIVersion

from tests.conftest import find_program
from tests.integration.broker_process import WAIT_SECONDS, until
from tests.integration.serving import Serving


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "mqtt.sock"


@pytest.fixture
def serving(tmp_path: Path, path: Path) -> Iterator[Serving]:
    serving = Serving(tmp_path / "one", f'transport = "unix"\nbind = "{path}"\nmode = "0600"').start()
    yield serving
    assert serving.stop() == 0


class UnixClient:
    """paho over the socket."""

    def __init__(self, path: Path) -> None:
        self.payloads: list[bytes] = []
        self.client = paho.Client(CallbackAPIVersion.VERSION2, transport="unix")
        self.client.on_message = lambda _client, _data, message: self.payloads.append(message.payload)
        self.client.connect(str(path))
        self.client.loop_start()
        until(self.client.is_connected, "not connected")

    def leave(self) -> None:
        self.client.disconnect()
        self.client.loop_stop()


def test_messages(serving: Serving, path: Path) -> None:
    assert serving.urls == [f"unix://{path}"]
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    client = UnixClient(path)
    granted: list[int] = []
    client.client.on_subscribe = lambda _c, _d, mid, _codes, _p: granted.append(mid)
    client.client.subscribe("t", 1)
    until(lambda: granted, "no SUBACK")
    for number in range(100):
        client.client.publish("t", b"%d" % number, 1)
    until(lambda: len(client.payloads) == 100, "not all came back")
    assert client.payloads == [b"%d" % number for number in range(100)]
    client.leave()


@pytest.mark.needs("mosquitto_pub")
def test_mosquitto_clients(serving: Serving, path: Path) -> None:
    program = find_program("mosquitto_pub")
    assert program
    subprocess.run(
        [program, "--unix", str(path), "-t", "t", "-m", "x", "-q", "1"], check=True, timeout=WAIT_SECONDS
    )


def test_nothing_is_left_at_the_end_and_a_dead_ones_socket_is_replaced(tmp_path: Path, path: Path) -> None:
    serving = Serving(tmp_path / "one", f'transport = "unix"\nbind = "{path}"').start()
    assert stat.S_IMODE(path.stat().st_mode) == 0o660
    serving.kill()
    assert path.exists()
    serving.start()
    UnixClient(path).leave()
    assert serving.stop() == 0
    assert not path.exists()


def test_a_place_that_is_taken(serving: Serving, tmp_path: Path, path: Path) -> None:
    second = Serving(tmp_path / "two", f'transport = "unix"\nbind = "{path}"')
    process = second.launch()
    assert process.wait(WAIT_SECONDS) != 0
    assert f"unix://{path} is in use" in second.log
    UnixClient(path).leave()
