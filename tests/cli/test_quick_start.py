"""README's way to a real gateway, typed as it stands there, in an empty folder; and what `docs/pki.md` shows."""

from __future__ import annotations

import os
import re
import shlex
import subprocess
import sys
from pathlib import Path

import pytest
from click.testing import CliRunner

from devices.device import Device
from edge_broker.cli import main
from tests.integration.broker_process import until

ROOT = Path(__file__).parents[2]
README = (ROOT / "README.md").read_text("utf-8")
PKI_PAGE = (ROOT / "docs" / "pki.md").read_text("utf-8")
SECURITY_PAGE = (ROOT / "docs" / "security.md").read_text("utf-8")
COMMANDS = README.split("## A gateway in five commands")[1].split("```sh\n")[1].split("```")[0].splitlines()


class NewUser:
    """Somebody with `edge-broker` in the PATH, who types commands into a shell."""

    def __init__(self, folder: Path, port: int) -> None:
        self.folder = folder
        self.port = port
        programs = folder / "bin"
        programs.mkdir()
        script = programs / "edge-broker"
        script.write_text(f'#!/bin/sh\nexec {shlex.quote(sys.executable)} -m edge_broker "$@"\n')
        script.chmod(0o755)
        self.here = folder / "empty"
        self.here.mkdir()
        path = f"{programs}{os.pathsep}{os.environ['PATH']}"
        self.environ = os.environ | {
            "PATH": path,
            "XDG_STATE_HOME": str(folder / "state"),
            "PYTHONUNBUFFERED": "1",
        }
        self.environ.pop("STATE_DIRECTORY", None)

    def type(self, command: str) -> str:
        """What it prints; the port is a free one."""
        done = subprocess.run(
            ["sh", "-eu", "-c", command.replace("8883", str(self.port))],
            cwd=self.here,
            env=self.environ,
            capture_output=True,
            text=True,
            timeout=60,
        )
        assert done.returncode == 0, done.stderr
        return done.stdout

    def start(self, command: str) -> subprocess.Popen[bytes]:
        config = self.here / "edge-broker.toml"
        config.write_text(config.read_text().replace("8883", str(self.port)))
        with (self.folder / "log").open("wb") as log:
            return subprocess.Popen(
                shlex.split(command.removesuffix("&")),
                cwd=self.here,
                env=self.environ,
                stdout=log,
                stderr=log,
            )

    @property
    def log(self) -> str:
        return (self.folder / "log").read_text()


@pytest.fixture
def user(tmp_path: Path, free_port: int) -> NewUser:
    return NewUser(tmp_path, free_port)


@pytest.mark.needs("mosquitto_pub", "hostname")
def test_five_commands(user: NewUser) -> None:
    *made, run, publish = COMMANDS
    assert len(made) == 3
    for command in made:
        user.type(command)
    broker = user.start(run)
    try:
        until(lambda: broker.poll() is not None or "started: epoch" in user.log, "it does not start")
        assert "listening on mqtts://" in user.log
        user.type(publish)
        address = user.here / "pki" / "devices" / "sensor-1" / "device.toml"
        text = address.read_text().replace("8883", str(user.port))
        address.write_text(re.sub(r"host = .*", 'host = "localhost"', text))
        with Device.from_bundle(address.parent) as device:
            device.publish_reading({"temperature_celsius": 21.5})
            assert device.flush(20), device.stats.problem
        user.type("edge-broker pki revoke sensor-1")
        until(lambda: "certificates taken anew" in user.log, "the revocation is not noticed")
        with pytest.raises(AssertionError):
            user.type(publish)
    finally:
        broker.terminate()
        assert broker.wait(30) == 0


def test_the_pages_configurations_are_right(user: NewUser) -> None:
    """Those with TLS listeners, in a folder that has the files they name."""
    user.type("edge-broker pki init && edge-broker pki issue-server gw.local")
    tls = user.here / "tls"
    tls.mkdir()
    user.type(
        "cp pki/ca.pem tls/ca.pem && cp pki/ca.pem tls/mesh-ca.pem && cp pki/crl.pem tls/ && touch denied"
    )
    user.type("cp pki/servers/gw.local/*.pem tls/")
    blocks = re.findall(r"^```toml\n(.*?)^```$", SECURITY_PAGE + PKI_PAGE, re.MULTILINE | re.DOTALL)
    chosen = [block for block in blocks if "client_ca" in block]
    assert len(chosen) == 3
    for block in chosen:
        path = user.here / "edge-broker.toml"
        path.write_text(block.replace("/etc/edge-broker/", f"{user.here}/"))
        result = CliRunner().invoke(main, ["check", str(path)])
        assert result.exit_code == 0, result.output


def test_every_command_that_the_page_names_is_there() -> None:
    named = set(re.findall(r"edge-broker pki ([a-z-]+)", PKI_PAGE + README + SECURITY_PAGE))
    assert {"init", "issue-server", "issue-device", "revoke", "status"} <= named
    for command in named:
        assert CliRunner().invoke(main, ["pki", command, "--help"]).exit_code == 0, command


def test_the_deny_list_that_the_page_shows_is_one() -> None:
    from edge_broker.security.denied import parse_denied

    (block,) = re.findall(r"```text\n(# stolen.*?)```", SECURITY_PAGE, re.DOTALL)
    denied = parse_denied(block, Path("docs/security.md"))
    assert (denied.identities, len(denied.serials)) == ({"cellar"}, 1)
