"""`edge-devices sense` as a person runs it."""

import json
import signal
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

from click.testing import CliRunner, Result

from devices.cli import main
from tests.devices.collector import Collector
from tests.devices.mosquitto import Mosquitto, free_port

Collect = Callable[..., Collector]


def run(*arguments: object) -> Result:
    return CliRunner().invoke(main, ["sense", *(str(argument) for argument in arguments)])


def test_this_machines_own_sensors(mosquitto: Mosquitto, collect: Collect) -> None:
    collector = collect(mosquitto.port)
    result = run(
        "--name", "bench", "--count", 3, "--interval-seconds", 0.05, "--verbose", "--broker", mosquitto.url
    )
    assert result.exit_code == 0, result.output
    assert "3 readings sent: 3 acknowledged, 0 still spooled" in result.stdout
    assert "load_1_minute" in result.stderr
    collector.wait(lambda received: len(received) == 3)
    assert {one.topic for one in collector.received} == {"devices/bench/readings"}
    assert json.loads(collector.received[0].payload)["memory_total_bytes"] > 0


def test_readings_are_kept_for_the_next_time(mosquitto: Mosquitto, tmp_path: Path) -> None:
    spool = tmp_path / "bench.spool"
    common = ("--name", "bench", "--interval-seconds", 0.01, "--spool", spool)
    result = run(
        *common, "--count", 2, "--give-up-seconds", 0.1, "--broker", f"mqtt://127.0.0.1:{free_port()}"
    )
    assert result.exit_code == 1
    assert "2 still spooled" in result.stdout
    result = run(*common, "--count", 1, "--broker", mosquitto.url)
    assert result.exit_code == 0
    assert "1 readings sent: 3 acknowledged, 0 still spooled" in result.stdout


def test_ctrl_c(mosquitto: Mosquitto, tmp_path: Path) -> None:
    password = tmp_path / "password"
    password.write_text("secret-word\n")
    process = subprocess.Popen(
        [
            *(
                sys.executable,
                "-m",
                "devices",
                "sense",
                "--name",
                "bench",
                "--verbose",
                "--broker",
                mosquitto.url,
            ),
            *("--username", "bench", "--password-file", str(password)),
        ],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    assert process.stderr is not None
    for line in process.stderr:
        if "connected to" in line:
            break
    process.send_signal(signal.SIGINT)
    stdout, stderr = process.communicate(timeout=20)
    assert process.returncode == 130
    assert "1 readings sent: 1 acknowledged, 0 still spooled" in stdout
    assert "Traceback" not in stderr


def test_an_empty_password_file(tmp_path: Path) -> None:
    password = tmp_path / "password"
    password.touch()
    result = run("--username", "bench", "--password-file", password)
    assert result.exit_code == 2
    assert "is empty" in result.stderr


def test_a_name_that_is_none() -> None:
    result = run("--name", "a/b")
    assert result.exit_code == 1
    assert "topic level" in result.stderr
