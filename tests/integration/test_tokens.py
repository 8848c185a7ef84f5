"""A broker process, its issuer's key set and clients that nobody here wrote: tokens as passwords, on both event loops."""

from __future__ import annotations

import os
import ssl
import subprocess
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import paho.mqtt.client as paho
import pytest
from paho.mqtt.enums import CallbackAPIVersion

from tests.integration.broker_process import BrokerProcess, until
from tests.security.issuer import claims, issue, jwk, write_pem, write_set
from tests.security.issuer import private_key as key_of

ALGORITHMS = {0: "RS256", 1: "ES256", 2: "EdDSA"}


def token(number: int = 1, name: str = "sensor-1", lasts: float = 600) -> str:
    """Signed by the key of that number."""
    return issue(claims(name, now=time.time(), lasts=lasts), ALGORITHMS[number], number).decode()


def publish_keys(folder: Path, *numbers: int) -> None:
    members = [jwk(ALGORITHMS[number], number, kid=f"k{number}") for number in numbers]
    os.replace(write_set(folder / "keys.new", *members), folder / "keys.json")


@pytest.fixture(params=["uvloop", "asyncio"])
def broker(request: pytest.FixtureRequest, tmp_path: Path, pki: Path) -> Iterator[BrokerProcess]:
    publish_keys(tmp_path, 0, 1)
    write_pem(tmp_path / "more.pem", key_of("EdDSA", 2))
    tls = f'transport = "tls"\nanonymous = false\ncertificate = "{pki}/server.crt"\nkey = "{pki}/server.key"'
    settings = (
        f'[security]\njwt_keys = ["{tmp_path}/keys.json", "{tmp_path}/more.pem"]\njwt_audience = "mqtt"\n'
        "jwt_leeway_seconds = 0\nwrong_password_delay_seconds = 0\n"
    )
    process = BrokerProcess(tmp_path / "broker", settings, ("anonymous = false", tls), request.param)
    process.start()
    yield process
    assert process.stop() == 0
    assert "Traceback" not in process.log
    assert "eyJ" not in process.log, "a token, or a part of one, is in the log"


def mosquitto_pub(port: int, password: str, *more: str, name: str = "sensor-1") -> int:
    """Publish once at QoS 1; the program's exit code."""
    command = ["mosquitto_pub", "-h", "localhost", "-p", str(port), "-u", name, "-P", password, *more]
    done = subprocess.run([*command, "-q", "1", "-t", "t", "-m", "m"], capture_output=True, timeout=30)
    return done.returncode


@pytest.mark.needs("mosquitto_pub")
def test_mosquitto_with_a_token(broker: BrokerProcess, pki: Path) -> None:
    for version in ("mqttv31", "mqttv311", "mqttv5"):
        assert mosquitto_pub(broker.port, token(), "-V", version) == 0
        assert mosquitto_pub(broker.port, token(lasts=-5), "-V", version) != 0
    for number in ALGORITHMS:
        assert mosquitto_pub(broker.ports[1], token(number), "--cafile", f"{pki}/ca.crt") == 0
    assert mosquitto_pub(broker.port, token(), name="sensor-2") != 0
    assert mosquitto_pub(broker.port, token()[:-6] + "AAAAAA") != 0
    assert "its token expired 5 s ago" in broker.log
    assert "and the user name is another" in broker.log


def test_paho_with_a_token(broker: BrokerProcess, pki: Path) -> None:
    """Until its token is over: paho is told so, and comes back with a newer one."""
    tls = ssl.create_default_context(cafile=str(pki / "ca.crt"))
    heard: list[Any] = []
    gone: list[Any] = []
    client = paho.Client(CallbackAPIVersion.VERSION2, protocol=paho.MQTTv5, reconnect_on_failure=False)
    client.tls_set_context(tls)
    client.on_connect = lambda _c, _d, _f, reason, _p: heard.append(reason.value)
    client.on_disconnect = lambda _c, _d, _f, reason, _p: gone.append(reason.value)
    client.username_pw_set("sensor-1", token(0, lasts=4))
    client.connect("localhost", broker.ports[1])
    client.loop_start()
    until(lambda: heard == [0], "not let in")
    client.publish("t", b"m", 1).wait_for_publish(10)
    until(lambda: gone, "its token is over and it stays")
    assert gone == [0xA0]
    client.loop_stop()
    client.username_pw_set("sensor-1", token(0))
    client.reconnect()
    client.loop_start()
    until(lambda: heard == [0, 0], "not let in again")
    client.disconnect()
    client.loop_stop()


def connected(port: int, password: str, gone: list[str]) -> paho.Client:
    """A client that stays; when it is gone, its password says who it was."""
    let_in: list[bool] = []
    client = paho.Client(CallbackAPIVersion.VERSION2, reconnect_on_failure=False)
    client.on_connect = lambda _c, _d, _f, reason, _p: let_in.append(not reason.is_failure)
    client.on_disconnect = lambda *_: gone.append(password)
    client.username_pw_set("sensor-1", password)
    client.connect("127.0.0.1", port)
    client.loop_start()
    until(lambda: let_in == [True], "not let in")
    return client


@pytest.mark.needs("mosquitto_pub")
def test_keys_on_sighup(broker: BrokerProcess, tmp_path: Path) -> None:
    """Another key: whoever rests on the one that went is ended, nobody else; a broken set changes nothing."""
    gone: list[str] = []
    old, stays = token(1), token(2)
    clients = [connected(broker.port, password, gone) for password in (old, stays)]
    reload_and_wait: Callable[[str], None] = lambda line: _reload(broker, line)  # noqa: E731
    (tmp_path / "keys.json").write_text('{"keys": [')
    reload_and_wait("keys of tokens: the new file is refused, the old one stays in force")
    assert mosquitto_pub(broker.port, old) == 0
    publish_keys(tmp_path, 0)
    reload_and_wait("2 keys verify tokens; 1 connections of keys that are gone ended")
    until(lambda: gone, "it stays")
    assert gone == [old]
    assert mosquitto_pub(broker.port, old) != 0
    assert mosquitto_pub(broker.port, token(0)) == 0
    for client in clients:
        client.disconnect()
        client.loop_stop()


def _reload(broker: BrokerProcess, line: str) -> None:
    import signal

    os.kill(broker.pid, signal.SIGHUP)
    until(lambda: line in broker.log, f"the log does not say: {line}")
