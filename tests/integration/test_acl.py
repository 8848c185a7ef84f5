"""An ACL in a broker process, met by mosquitto's clients and paho: what they are told, and what a SIGHUP changes."""

from __future__ import annotations

import os
import signal
import subprocess
import urllib.request
from collections.abc import Iterator
from pathlib import Path

import paho.mqtt.client as paho
import pytest
from paho.mqtt.enums import CallbackAPIVersion, MQTTProtocolVersion

from tests.integration.broker_process import WAIT_SECONDS, BrokerProcess, until
from tests.integration.foreign import MosquittoSub, mosquitto
from tests.security.serving import lines

ACL = """
[roles.sensor]
max_qos = 1
allow.publish = ["sensors/{identity}/#"]
allow.retain = ["sensors/{identity}/state"]
allow.subscribe = ["commands/{identity}/#"]

[roles.dashboard]
allow.subscribe = ["sensors/#", "$SYS/broker/uptime"]
deny.receive = ["sensors/+/private"]

[identities]
cellar = ["sensor"]
anna = ["dashboard"]
"""
REFUSED = "ACL: the new file is refused, the old one stays in force"
CELLAR = ("-u", "cellar", "-P", "pencil")
ANNA = ("-u", "anna", "-P", "paper")
BOTH = pytest.mark.parametrize("version", ["mqttv311", "mqttv5"])


@pytest.fixture
def guarded(tmp_path: Path, free_port: int) -> Iterator[BrokerProcess]:
    """A broker that asks for passwords, with the ACL above; `acl.toml` and `http` are in its directory and its name."""
    (tmp_path / "passwords").write_text(lines("cellar", "pencil") + lines("anna", "paper"))
    (tmp_path / "passwords").chmod(0o600)
    (tmp_path / "acl.toml").write_text(ACL)
    broker = BrokerProcess(
        tmp_path,
        '[security]\npassword_file = "passwords"\nacl_file = "acl.toml"\n'
        f'[http]\nbind = "127.0.0.1:{free_port}"\n[log]\nlevel = "debug"',
        ("anonymous = false",),
    )
    try:
        yield broker
    finally:
        broker.stop()


def publish(broker: BrokerProcess, *arguments: str) -> str:
    """What `mosquitto_pub` says; it says nothing where all is well."""
    done = subprocess.run(
        ["mosquitto_pub", "-h", "127.0.0.1", "-p", str(broker.port), *arguments],
        capture_output=True,
        timeout=WAIT_SECONDS,
        text=True,
    )
    return done.stderr + done.stdout


def replace_rules(broker: BrokerProcess, text: str, said: str) -> None:
    (broker.directory / "acl.toml").write_text(text)
    before = broker.log.count(said)
    os.kill(broker.pid, signal.SIGHUP)
    until(lambda: broker.log.count(said) > before, f"it does not say {said!r}")


@pytest.mark.needs("mosquitto_pub", "mosquitto_sub", "stdbuf")
@BOTH
def test_mosquittos_clients(guarded: BrokerProcess, tmp_path: Path, free_port: int, version: str) -> None:
    guarded.start()
    speaking = ("-V", version)
    watcher = MosquittoSub(
        guarded.port, tmp_path / "w", *ANNA, *speaking, "-q", "2", "-t", "sensors/#", "-F", "%t %q"
    )
    for topic in ("sensors/cellar/private", "sensors/cellar/temperature"):
        assert publish(guarded, *CELLAR, *speaking, "-q", "1", "-t", topic, "-m", "x") == ""
    refused = [
        publish(guarded, *CELLAR, *speaking, "-q", qos, "-t", topic, "-m", "x", *more)
        for topic, qos, more in (
            ("sensors/attic/temperature", "1", ()),
            ("sensors/cellar/temperature", "2", ()),
            ("sensors/cellar/temperature", "1", ("-r",)),
        )
    ]
    assert all(("Not authorized" in said) == (version == "mqttv5") for said in refused), refused
    assert (
        publish(guarded, *CELLAR, *speaking, "-q", "1", "-r", "-t", "sensors/cellar/state", "-m", "x") == ""
    )
    until(lambda: len(watcher.lines) >= 2, "nothing came")
    assert watcher.lines == [b"sensors/cellar/temperature 1", b"sensors/cellar/state 1"]
    watcher.stop()
    denied = subprocess.run(
        [
            "mosquitto_sub",
            "-h",
            "127.0.0.1",
            "-p",
            str(guarded.port),
            *ANNA,
            *speaking,
            "-t",
            "#",
            "-W",
            "20",
        ],
        capture_output=True,
        timeout=WAIT_SECONDS,
        text=True,
    )
    assert "denied" in denied.stderr + denied.stdout
    assert b"seconds" in mosquitto(
        "mosquitto_sub", guarded.port, *ANNA, *speaking, "-t", "$SYS/broker/uptime", "-C", "1", "-W", "20"
    )
    with urllib.request.urlopen(f"http://127.0.0.1:{free_port}/metrics", timeout=10) as answer:
        metrics = answer.read().decode()
    for kind, count in (("publish", 1), ("qos", 1), ("retain", 1), ("subscribe", 1), ("removed", 0)):
        assert f'edge_broker_denied_total{{kind="{kind}"}} {count}.0\n' in metrics
    assert (
        "may not publish to 'sensors/attic/temperature': no allow.publish of role sensor matches"
        in guarded.log
    )


def test_sighup_replaces_the_rules_and_keeps_connections(guarded: BrokerProcess) -> None:
    guarded.start()
    heard: list[str] = []
    events: list[str] = []
    client = paho.Client(CallbackAPIVersion.VERSION2, client_id="anna-1", protocol=MQTTProtocolVersion.MQTTv5)
    client.username_pw_set("anna", "paper")
    client.on_connect = lambda *_: events.append("connected")
    client.on_subscribe = lambda *parts: events.append(f"granted {[code.value for code in parts[3]]}")
    client.on_disconnect = lambda *_: events.append("gone")
    client.on_message = lambda _c, _d, message: heard.append(message.topic)
    client.connect("127.0.0.1", guarded.port)
    client.loop_start()
    try:
        until(lambda: "connected" in events, "not connected")
        client.subscribe([("sensors/#", 1), ("$SYS/broker/uptime", 0)])
        until(lambda: "granted [1, 0]" in events, f"not granted: {events}")

        replace_rules(
            guarded,
            ACL.replace('["dashboard"]', '["dashbored"]'),
            REFUSED,
        )
        assert "names the role 'dashbored', which is not there" in guarded.log
        publish(guarded, *CELLAR, "-q", "1", "-t", "sensors/cellar/1", "-m", "x")
        until(lambda: "sensors/cellar/1" in heard, "the old rules are gone")

        narrow = ACL.replace('"sensors/#", ', '"sensors/attic/#", ') + '\n[groups]\nx = ["sensor"]\n'
        replace_rules(guarded, narrow, "it took 1 subscriptions away")
        assert "client 'anna-1' as 'anna' may not have 1 of its subscriptions any more" in guarded.log
        publish(guarded, *CELLAR, "-q", "1", "-t", "sensors/cellar/2", "-m", "x")
        client.subscribe([("sensors/#", 1), ("sensors/attic/#", 1)])
        until(lambda: "granted [135, 1]" in events, f"not as the new rules say: {events}")
        assert "sensors/cellar/2" not in heard
        assert "gone" not in events
    finally:
        client.disconnect()
        client.loop_stop()


def test_a_broken_acl_keeps_the_broker_from_starting(guarded: BrokerProcess) -> None:
    (guarded.directory / "acl.toml").write_text("[identities]\ncellar = ['sensor']\n[bridges]\ncloud = []")
    assert guarded.launch().wait(WAIT_SECONDS) == 1
    guarded.process = None
    assert "does not start" in guarded.log
    assert "identities.cellar: names the role 'sensor', which is not there" in guarded.log
    assert "; bridges.cloud: is no bridge of the configuration" in guarded.log


def test_an_offline_session_is_kept_to_the_rules_of_now(guarded: BrokerProcess) -> None:
    """Over a restart: the ACL changed while the broker was down."""
    guarded.start()
    granted: list[int] = []
    client = paho.Client(
        CallbackAPIVersion.VERSION2,
        client_id="anna-2",
        protocol=MQTTProtocolVersion.MQTTv311,
        clean_session=False,
    )
    client.username_pw_set("anna", "paper")
    client.on_connect = lambda c, *_: c.subscribe([("sensors/cellar/#", 1), ("sensors/attic/#", 1)])
    client.on_subscribe = lambda *parts: granted.extend(code.value for code in parts[3])
    client.connect("127.0.0.1", guarded.port)
    client.loop_start()
    until(lambda: granted == [1, 1], "not granted")
    client.loop_stop()
    guarded.kill()
    (guarded.directory / "acl.toml").write_text(ACL.replace('"sensors/#"', '"sensors/attic/#"'))
    guarded.start()
    assert "client 'anna-2' as 'anna' may not have 1 of its subscriptions any more" in guarded.log
    assert "'sensors/cellar/#'" in guarded.log
