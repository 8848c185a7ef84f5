"""Encryption at rest as a person sets it up: a key, a configuration, a broker; and what the commands want then."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

from tests.integration.broker_process import BrokerProcess
from tests.integration.foreign import Paho

SECRET = b"the-secret-payload"


def run(*arguments: object) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "edge_broker", *map(str, arguments)]
    return subprocess.run(command, capture_output=True, text=True, timeout=60)


def key_at(path: Path) -> Path:
    made = run("store", "new-key", path)
    assert made.returncode == 0, made.stderr
    assert "keep a copy" in made.stdout
    return path


def exported(*where: object) -> list[str]:
    done = run("store", "export", "display", *where)
    assert done.returncode == 0, done.stderr
    return [json.loads(line)["payload"] for line in done.stdout.splitlines()]


def test_from_the_key_to_the_message_and_back(tmp_path: Path) -> None:
    key = key_at(tmp_path / "store.key")
    broker = BrokerProcess(tmp_path / "broker", settings=f'[store]\nencryption_key_file = "{key}"\n').start()
    config = broker.directory / "edge-broker.toml"
    try:
        Paho(broker.port, "display", expiry=3600, clean=False).connected().subscribe("secret/#", 1).leave()
        publisher = Paho(broker.port, "sensor").connected()
        publisher.publish("secret/topic", SECRET, 1, retain=True)
        publisher.leave()
        assert exported("-c", config) == [SECRET.decode()], "beside the broker"
        broker.kill()
        raw = b"".join(file.read_bytes() for file in broker.data_dir.glob("broker.db*"))
        assert SECRET not in raw
        assert b"secret/topic" not in raw
        broker.start()
        back = Paho(broker.port, "display", expiry=3600, clean=False).connected()
        assert back.wait_for(1)[0].payload == SECRET
        back.leave()
    finally:
        broker.stop()
    checked = run("check", config)
    assert checked.returncode == 0, checked.stderr
    assert "messages on disk are encrypted (key " in checked.stdout
    assert "messages are encrypted (key " in run("store", "status", "--data-dir", broker.data_dir).stdout

    directory = ("--data-dir", broker.data_dir)
    for command in ("verify", "export"):
        done = run("store", command, *(["retained"] if command == "export" else []), *directory)
        assert done.returncode == 1
        assert "the store is encrypted" in done.stderr
        assert "--key-file" in done.stderr
    assert run("store", "verify", *directory, "--key-file", key).returncode == 0

    new = key_at(tmp_path / "new.key")
    compacted = run("store", "compact", *directory, "--key-file", new, "--key-file", key)
    assert compacted.returncode == 0, compacted.stderr
    assert run("store", "verify", *directory, "--key-file", key).returncode == 1
    assert run("store", "verify", *directory, "--key-file", new).returncode == 0


def test_a_broker_with_another_key_does_not_start_and_harms_nothing(tmp_path: Path) -> None:
    key, other = key_at(tmp_path / "store.key"), key_at(tmp_path / "other.key")
    first = BrokerProcess(tmp_path / "broker", settings=f'[store]\nencryption_key_file = "{key}"\n').start()
    assert first.stop() == 0
    names = sorted(file.name for file in first.data_dir.iterdir())
    for settings, told in (
        (f'[store]\nencryption_key_file = "{other}"\n', "was encrypted with another key"),
        ("", "no key was given"),
    ):
        second = BrokerProcess(tmp_path / "broker", settings=settings)
        process = second.launch()
        assert process.wait(30) == 1
        second.process = None
        assert "does not start" in second.log
        assert told in second.log
        assert "Traceback" not in second.log
    assert sorted(file.name for file in first.data_dir.iterdir()) == names
    first.start()
    assert first.stop() == 0


def test_a_key_beside_the_data_is_a_mistake_of_the_configuration(tmp_path: Path) -> None:
    data = tmp_path / "data"
    data.mkdir()
    key = key_at(data / "store.key")
    config = tmp_path / "edge-broker.toml"
    config.write_text(f'data_dir = "{data}"\n[store]\nencryption_key_file = "{key}"\n')
    checked = run("check", config)
    assert checked.returncode == 2
    assert "inside the data directory" in checked.stderr
