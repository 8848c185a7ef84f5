"""mosquitto's command line clients, beyond what every client can do (tests/foreign): many lines in flight, mutual TLS."""

from __future__ import annotations

import os
import subprocess
from pathlib import Path
from uuid import uuid4

import pytest

from tests.integration.broker_process import WAIT_SECONDS, BrokerProcess, until
from tests.integration.foreign import MosquittoSub, mosquitto

pytestmark = pytest.mark.needs("mosquitto_pub", "mosquitto_sub", "stdbuf")
BOTH = pytest.mark.parametrize("version", ["mqttv311", "mqttv5"])


@pytest.fixture
def topic() -> str:
    return f"m/{uuid4().hex}"


@BOTH
@pytest.mark.parametrize("qos", ["0", "1", "2"])
def test_lines_from_one_to_the_other(
    broker: BrokerProcess, topic: str, tmp_path: Path, version: str, qos: str
) -> None:
    subscriber = MosquittoSub(
        broker.port, tmp_path / "log", "-V", version, "-q", qos, "-t", topic, "-C", "200", "-F", "%q %p"
    )
    lines = b"".join(b"line %d\n" % number for number in range(200))
    mosquitto("mosquitto_pub", broker.port, "-V", version, "-q", qos, "-t", topic, "-l", stdin=lines)
    assert subscriber.process.wait(WAIT_SECONDS) == 0
    assert subscriber.lines == [b"%s line %d" % (qos.encode(), number) for number in range(200)]


@BOTH
def test_a_will_at_sigterm(broker: BrokerProcess, topic: str, tmp_path: Path, version: str) -> None:
    """In 3.1.1 `mosquitto_sub` leaves with DISCONNECT; in 5.0 with that one that asks for its will."""
    watcher = MosquittoSub(broker.port, tmp_path / "watcher", "-V", version, "-t", topic)
    will = ("--will-topic", topic, "--will-payload", "gone", "--will-qos", "1")
    MosquittoSub(broker.port, tmp_path / "mortal", "-V", version, "-t", "nothing", *will).stop()
    mosquitto("mosquitto_pub", broker.port, "-t", topic, "-q", "1", "-m", "afterwards")
    until(lambda: b"afterwards" in watcher.lines, "nothing came")
    if version == "mqttv311":
        assert b"gone" not in watcher.lines, "it said DISCONNECT"
    else:
        until(lambda: b"gone" in watcher.lines, "no will")
    watcher.stop()


def test_a_large_file(broker: BrokerProcess, topic: str, tmp_path: Path) -> None:
    payload = os.urandom(2_000_000)
    (tmp_path / "file").write_bytes(payload)
    arguments = ("-r", "-q", "1", "-t", topic, "-f", str(tmp_path / "file"))
    mosquitto("mosquitto_pub", broker.port, *arguments)
    printed = mosquitto("mosquitto_sub", broker.port, "-t", topic, "-C", "1", "-N", "-W", "20")
    assert printed == payload
    mosquitto("mosquitto_pub", broker.port, "-r", "-n", "-q", "1", "-t", topic)


@BOTH
def test_mutual_tls(broker: BrokerProcess, topic: str, pki: Path, version: str) -> None:
    secure = ["--cafile", f"{pki}/ca.crt", "--cert", f"{pki}/client.crt", "--key", f"{pki}/client.key"]
    arguments = ["-V", version, "-r", "-q", "1", "-t", topic]
    mosquitto("mosquitto_pub", broker.ports[1], *secure, *arguments, "-m", "encrypted")
    printed = mosquitto("mosquitto_sub", broker.port, "-t", topic, "-C", "1", "-W", "20")
    assert printed == b"encrypted\n"
    mosquitto("mosquitto_pub", broker.port, "-r", "-n", "-q", "1", "-t", topic)


@pytest.mark.parametrize("who", ["nobody", "stranger", "plain"])
def test_without_a_good_certificate(broker: BrokerProcess, topic: str, pki: Path, who: str) -> None:
    secure = [] if who == "plain" else ["--cafile", f"{pki}/ca.crt"]
    if who == "stranger":
        secure += ["--cert", f"{pki}/stranger.crt", "--key", f"{pki}/stranger.key"]
    done = subprocess.run(
        ["mosquitto_pub", *f"-h 127.0.0.1 -p {broker.ports[1]} -t {topic} -q 1 -m x".split(), *secure],
        capture_output=True,
        timeout=WAIT_SECONDS,
    )
    assert done.returncode != 0


def test_versions_understand_each_other(broker: BrokerProcess, topic: str, tmp_path: Path) -> None:
    names = ("mqttv31", "mqttv311", "mqttv5")
    subscribers = [
        MosquittoSub(broker.port, tmp_path / name, "-V", name, "-i", uuid4().hex[:20], "-q", "2", "-t", topic)
        for name in names
    ]
    for name in names:
        mosquitto(
            "mosquitto_pub",
            broker.port,
            "-V",
            name,
            "-i",
            uuid4().hex[:20],
            "-q",
            "2",
            "-t",
            topic,
            "-m",
            name,
        )
    for subscriber in subscribers:
        until(lambda s=subscriber: len(s.lines) == 3, "not everything came")  # type: ignore[misc]
        assert subscriber.lines == [name.encode() for name in names]
        subscriber.stop()
