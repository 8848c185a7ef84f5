"""`edge-devices replay` as a person runs it."""

import os
import re
import signal
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
from click.testing import CliRunner, Result

from devices.cli import main
from devices.recorded import packaged_recording
from tests.devices.collector import Collector
from tests.devices.mosquitto import Mosquitto, free_port

Collect = Callable[..., Collector]


def run(*arguments: object) -> Result:
    return CliRunner().invoke(main, [str(argument) for argument in arguments])


def test_the_packaged_recording_as_fast_as_acknowledged(mosquitto: Mosquitto, collect: Collect) -> None:
    collector = collect(mosquitto.port)
    result = run(
        "replay", "--devices", 5, "--speed", "max", "--broker", mosquitto.url, "--topic-prefix", "demo"
    )
    assert result.exit_code == 0, result.output
    assert re.search(r"2000 readings sent by 5 devices in [\d.]+ s: 2000 acknowledged\n", result.stdout)
    assert "readings sent" in result.stderr
    collector.wait(lambda received: len(received) == 2000)
    assert {one.topic for one in collector.received} == {f"demo/sensor-{n}/readings" for n in range(1, 6)}


def test_a_recording_of_ones_own_with_a_limit_in_cbor(
    mosquitto: Mosquitto, collect: Collect, tmp_path: Path
) -> None:
    collector = collect(mosquitto.port)
    path = tmp_path / "mine.csv"
    path.write_text("\n".join(packaged_recording().read_text().splitlines()[:5]))
    result = run(
        *(
            "replay",
            path,
            "--loop",
            "--limit",
            25,
            "--devices",
            2,
            "--speed",
            "max",
            "--broker",
            mosquitto.url,
        ),
        *("--encoding", "cbor", "--name-prefix", "box-", "--qos", 0, "--quiet", "--mqtt-version", "5"),
    )
    assert result.exit_code == 0, result.output
    assert result.stderr == ""
    collector.wait(lambda received: len(received) == 25)
    assert {one.content_type for one in collector.received} == {"application/cbor"}
    assert {one.device for one in collector.received} == {"box-1", "box-2"}


def test_without_a_broker_it_gives_up_and_says_what_is_lost() -> None:
    result = run(
        *("replay", "--devices", 2, "--speed", "max", "--limit", 30, "--give-up-seconds", 0.5),
        *("--broker", f"mqtt://127.0.0.1:{free_port()}"),
    )
    assert result.exit_code == 1
    assert "30 not acknowledged, lost" in result.stdout
    assert "gave up: nothing acknowledged for 0.5 s (Connection refused)" in result.stderr


def test_what_is_spooled_is_sent_the_next_time(mosquitto: Mosquitto, tmp_path: Path) -> None:
    common = ("replay", "--devices", 2, "--speed", "max", "--spool-dir", tmp_path)
    result = run(
        *common, "--limit", 30, "--give-up-seconds", 0.5, "--broker", f"mqtt://127.0.0.1:{free_port()}"
    )
    assert result.exit_code == 1
    assert f"30 not acknowledged, spooled in {tmp_path}" in result.stdout
    result = run(*common, "--limit", 1, "--broker", mosquitto.url)
    assert result.exit_code == 0
    assert "1 readings sent by 2 devices" in result.stdout
    assert "31 acknowledged" in result.stdout


def test_a_recording_that_is_torn(mosquitto: Mosquitto, tmp_path: Path) -> None:
    path = tmp_path / "torn.csv"
    path.write_text("\n".join([*packaged_recording().read_text().splitlines()[:5], "1,2"]))
    result = run("replay", path, "--devices", 1, "--speed", "100000", "--broker", mosquitto.url)
    assert result.exit_code == 1
    assert "4 readings sent" in result.stdout


@pytest.mark.parametrize(("name", "code"), [("SIGINT", 130), ("SIGTERM", 143)])
def test_a_signal_ends_it_cleanly(mosquitto: Mosquitto, name: str, code: int) -> None:
    process = subprocess.Popen(
        [
            sys.executable,
            "-m",
            "devices",
            "replay",
            "--speed",
            "1",
            "--loop",
            "--verbose",
            "--broker",
            mosquitto.url,
        ],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env=os.environ | {"PYTHONUNBUFFERED": "1"},
    )
    assert process.stderr is not None
    for line in process.stderr:
        if "connected to" in line:
            break
    process.send_signal(getattr(signal, name))
    stdout, stderr = process.communicate(timeout=20)
    assert process.returncode == code, stderr
    assert "1 readings sent by 10 devices" in stdout
    assert "Traceback" not in stderr


@pytest.mark.parametrize(
    ("arguments", "problem"),
    [
        (["--broker", "http://x"], "must begin with mqtt://"),
        (["--broker", "mqtt://x", "--ca", packaged_recording()], "mqtts://"),
        (["--speed", "fast"], "neither a number above 0 nor 'max'"),
        (["--speed", "0"], "neither a number"),
        (["--speed", "nan"], "neither a number"),
        (["--devices", "0"], "--devices"),
        (["--qos", "2"], "--qos"),
        (["no-such.csv"], "does not exist"),
        (["--spool-dir", "no-such-directory"], "does not exist"),
    ],
)
def test_wrong_usage_is_explained(arguments: list[object], problem: str) -> None:
    result = run("replay", *arguments)
    assert result.exit_code == 2
    assert problem in result.stderr.replace("\n", " ")


def test_a_spool_in_use_is_explained(tmp_path: Path, mosquitto: Mosquitto) -> None:
    from devices import Device

    device = Device("sensor-1", mosquitto.url, spool=tmp_path / "sensor-1.spool")
    result = run("replay", "--devices", 1, "--spool-dir", tmp_path, "--broker", mosquitto.url)
    device.close()
    assert result.exit_code == 1
    assert "open in another program" in result.stderr


@pytest.mark.parametrize("arguments", [[], ["--help"], ["replay", "-h"], ["sense", "--help"]])
def test_help(arguments: list[str]) -> None:
    result = run(*arguments)
    assert result.exit_code == (2 if not arguments else 0)  # click's code for a missing command
    assert "Usage:" in result.output
