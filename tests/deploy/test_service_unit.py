"""The systemd unit: every key known to systemd, the sandbox closed, the promises of the start kept."""

import configparser
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

from tests.deploy.conftest import RASPBERRY_PI

UNIT = RASPBERRY_PI / "edge-broker.service"


def verify(text: str, directory: Path) -> str:
    """What `systemd-analyze verify` says. Its exit status is 0 for an unknown key, so only silence counts.

    The one thing replaced is the program's path, which exists on a gateway only.
    """
    unit = directory / "edge-broker.service"
    unit.write_text(text.replace("/opt/edge-broker/venv/bin/edge-broker", sys.executable))
    process = subprocess.run(
        ["systemd-analyze", "verify", "--recursive-errors=no", unit], capture_output=True, text=True
    )
    return process.stdout + process.stderr


@pytest.mark.needs("systemd-analyze")
def test_systemd_has_nothing_to_say(tmp_path: Path) -> None:
    assert verify(UNIT.read_text(), tmp_path) == ""


@pytest.mark.needs("systemd-analyze")
@pytest.mark.parametrize(
    ("right", "wrong"),
    [
        ("WatchdogSec=30", "WatchdogSecs=30"),
        ("Type=notify", "Type=notifies"),
        ("SystemCallFilter=@system-service", "SystemCallFilter=@system-services"),
    ],
)
def test_a_slip_would_be_seen(right: str, wrong: str, tmp_path: Path) -> None:
    text = UNIT.read_text()
    assert right in text
    assert verify(text.replace(right, wrong), tmp_path) != ""


@pytest.mark.needs("systemd-analyze")
def test_exposure_stays_low() -> None:
    environment = os.environ | {"LC_ALL": "C", "SYSTEMD_COLORS": "0", "COLUMNS": "200"}
    process = subprocess.run(
        ["systemd-analyze", "security", "--offline=true", "--no-pager", UNIT],
        capture_output=True,
        text=True,
        env=environment,
    )
    found = re.search(r"exposure level for edge-broker.service: ([\d.]+)", process.stdout)
    assert found is not None, process.stdout + process.stderr
    assert float(found[1]) < 2.0


def read_unit() -> configparser.ConfigParser:
    parser = configparser.ConfigParser(strict=False, interpolation=None, delimiters=("=",))
    parser.optionxform = str  # type: ignore[assignment,method-assign]
    parser.read(UNIT)
    return parser


@pytest.mark.parametrize(
    ("section", "key", "value"),
    [
        ("Service", "Type", "notify"),
        ("Service", "Restart", "always"),
        ("Service", "WatchdogSec", "30"),
        ("Service", "ExecReload", "/bin/kill -HUP $MAINPID"),
        ("Service", "KillSignal", "SIGTERM"),
        ("Service", "User", "edge-broker"),
        ("Service", "StateDirectory", "edge-broker"),
        ("Service", "LimitNOFILE", "65536"),
        ("Unit", "StartLimitIntervalSec", "0"),
        ("Install", "WantedBy", "multi-user.target"),
    ],
)
def test_what_the_broker_and_its_owner_rely_on(section: str, key: str, value: str) -> None:
    assert read_unit()[section][key] == value
