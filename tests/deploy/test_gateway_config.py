"""The config that a gateway is installed with: valid as it stands, and with its examples uncommented."""

import subprocess
import sys
import tomllib
from pathlib import Path

import pytest

from tests.deploy.conftest import RASPBERRY_PI

CONFIG = RASPBERRY_PI / "edge-broker.toml"


def check(path: Path) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "edge_broker", "check", str(path)]
    return subprocess.run(command, capture_output=True, text=True, timeout=60)


def with_examples(text: str) -> str:
    """The config with its commented-out tables (from `# [[name]]` to the next line without a #) active."""
    lines = []
    inside = False
    for line in text.splitlines():
        inside = line.startswith("# [[") or (inside and line.startswith("#"))
        lines.append(line[2:] if inside else line)
    return "\n".join(lines) + "\n"


def test_the_broker_accepts_it() -> None:
    process = check(CONFIG)
    assert process.returncode == 0, process.stdout + process.stderr


def test_the_broker_would_refuse_a_slip(tmp_path: Path) -> None:
    slip = tmp_path / "edge-broker.toml"
    slip.write_text(CONFIG.read_text().replace("commit_delay_ms", "commit_delay_sm"))
    process = check(slip)
    assert process.returncode != 0
    assert "commit_delay_sm" in process.stdout + process.stderr


def test_it_spares_the_card_and_opens_nothing_to_the_network() -> None:
    config = tomllib.loads(CONFIG.read_text())
    assert config["data_dir"] == "/var/lib/edge-broker"
    assert config["store"]["commit_delay_ms"] == 250
    assert [listener["bind"] for listener in config["listeners"]] == ["127.0.0.1:1883"]
    assert config["http"]["bind"].startswith("127.0.0.1:")


def test_the_examples_are_toml_with_a_listener_for_certificates_and_a_bridge() -> None:
    config = tomllib.loads(with_examples(CONFIG.read_text()))
    assert config["listeners"][1]["require_client_certificate"] is True
    assert config["bridges"][0]["out"][0]["remote_prefix"] == "gateways/pi-1/"


@pytest.mark.needs("openssl")
def test_the_broker_accepts_the_examples(tmp_path: Path) -> None:
    certificates = tmp_path / "tls"
    certificates.mkdir()
    for name in ("gateway", "ca", "upstream-ca", "pi-1"):
        subprocess.run(
            f"openssl req -x509 -newkey ec -pkeyopt ec_paramgen_curve:P-256 -nodes -days 2"
            f" -subj /CN={name} -keyout {name}.key -out {name}.crt".split(),
            cwd=certificates,
            check=True,
            capture_output=True,
        )
    config = tmp_path / "edge-broker.toml"
    text = with_examples(CONFIG.read_text())
    config.write_text(text.replace("/etc/edge-broker/tls", str(certificates)))
    process = check(config)
    assert process.returncode == 0, process.stdout + process.stderr
