"""The smallest system that boots: systemd and Python from this machine's own /usr, read-only, and the broker installed by
`install.sh`, with the unit as it is shipped.

Not a Debian root made for the purpose: that takes minutes and a mirror, and what is looked at here, the unit's sandbox
around the libraries that the installer fetched, is the same. The root is read-only; the one place of it that can be
written to is the data directory. The Python is the one that the system has in its /usr, whichever runs the tests.
"""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import uuid
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

from edge_broker.security.authority import Authority
from tests.deploy.conftest import CHECKOUT, RASPBERRY_PI
from tests.security.serving import lines

BOOT_SECONDS = 120
PROBE = Path(__file__).with_name("boot_probe.py")
STATE = "var/lib/edge-broker"

CONFIG = """
[[listeners]]
bind = "127.0.0.1:1884"
anonymous = false

[[listeners]]
transport = "tls"
bind = "127.0.0.1:8883"
certificate = "/etc/edge-broker/tls/gateway.crt"
key = "/etc/edge-broker/tls/gateway.key"
client_ca = "/etc/edge-broker/tls/ca.crt"
require_client_certificate = false

[[listeners]]
transport = "ws"
bind = "127.0.0.1:9001"

[security]
password_file = "/etc/edge-broker/passwords"

[audit]
file = "/var/lib/edge-broker/audit.log"

[[bridges]]
name = "cloud"
urls = ["mqtt://127.0.0.1:9"]
out = [{ filter = "sensors/#" }]
"""
"""Behind the configuration that is shipped: whatever loads a library."""

DROP_IN = """
[Service]
WatchdogSec=2
RestartSec=100ms
"""
"""So that the watchdog is seen at work in seconds; the rest of the unit is untouched."""

PROBE_UNIT = """
[Unit]
After=edge-broker.service multi-user.target
[Service]
Type=oneshot
ExecStart=/opt/edge-broker/venv/bin/python -I /results/boot_probe.py /results/report.json
ExecStopPost=/bin/systemctl --no-block exit 0
StandardOutput=file:/results/probe.log
StandardError=file:/results/probe.log
TimeoutStartSec=90
"""


def system_python() -> Path | None:
    """A Python that the system that boots has too, fit for the installer: ours if it is in /usr, or else Debian's."""
    base = Path(sys.base_prefix, "bin", f"python{sys.version_info.major}.{sys.version_info.minor}")
    ours = [base] if base.is_relative_to("/usr") else []
    enough = "import sys, ensurepip, venv; sys.exit(sys.version_info < (3, 11))"
    for python in (*ours, Path("/usr/bin/python3")):
        if (
            python.exists()
            and subprocess.run([python, "-I", "-c", enough], capture_output=True).returncode == 0
        ):
            return python
    return None


def build(root: Path, folder: Path, python: Path, password: str) -> None:
    """A system under `root`, which knows `anna` by `password`; `folder` is for what is made on the way."""
    _lay_out(root)
    _install(root, folder, python)
    _configure(root, password)


def boot(root: Path, data: Path, results: Path) -> dict[str, Any]:
    """Boot it with `data` as the data directory, let the probe look around, and return what it saw."""
    shutil.copytree(root / STATE, data)  # not within the root: what is there is read-only with it
    owner = (root / STATE).stat()
    os.chown(data, owner.st_uid, owner.st_gid)
    results.mkdir()
    shutil.copy(PROBE, results)
    process = subprocess.run(
        [
            *("systemd-nspawn", "--quiet", "--boot", "--directory", root, "--read-only"),
            *("--machine", f"edge-broker-{uuid.uuid4().hex[:8]}", "--register=no", "--keep-unit"),
            *("--private-network", "--link-journal=no", "--console=pipe", "--bind-ro=/usr"),
            *(f"--bind={data}:/{STATE}", f"--bind={results}:/results", "--tmpfs=/var/tmp"),
        ],
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        timeout=BOOT_SECONDS,
    )
    report = results / "report.json"
    said = "\n".join(path.read_text(errors="replace") for path in results.glob("*.log"))
    assert report.exists(), f"{process.stdout[-2_000:]}\n{process.stderr}\n{said}"
    seen: dict[str, Any] = json.loads(report.read_text())
    if "problem" in seen:
        raise AssertionError(f"{seen['problem']}\n{seen['journal'][-3_000:]}\n{said}")
    return seen


def _lay_out(root: Path) -> None:
    for folder in (
        *("usr", "proc", "sys", "dev", "run", "tmp", "root", "home", "results"),
        *("var/tmp", "var/log", STATE, "etc/systemd/system/multi-user.target.wants"),
    ):
        (root / folder).mkdir(parents=True)
    for folder in ("bin", "sbin", "lib", "lib64"):
        (root / folder).symlink_to(f"usr/{folder}")
    etc = root / "etc"
    (etc / "passwd").write_text("root:x:0:0:root:/root:/bin/sh\n")
    (etc / "group").write_text("root:x:0:\n")
    (etc / "hosts").write_text("127.0.0.1 localhost\n")
    (etc / "machine-id").write_text(f"{uuid.uuid4().hex}\n")
    for name in ("os-release", "ld.so.cache"):
        shutil.copy(Path("/etc") / name, etc / name)
    units = etc / "systemd/system"
    (units / "default.target").symlink_to("/usr/lib/systemd/system/multi-user.target")
    (units / "probe.service").write_text(PROBE_UNIT)
    (units / "multi-user.target.wants/probe.service").symlink_to("../probe.service")
    for unit in (
        "getty.target",
        "systemd-logind.service",
        "console-getty.service",
        "dbus.service",
        "dbus.socket",
    ):
        (units / unit).symlink_to("/dev/null")


def _install(root: Path, folder: Path, python: Path) -> None:
    _run(sys.executable, "-m", "pip", "wheel", "--quiet", "--no-deps", "--wheel-dir", folder, CHECKOUT)
    wheel = next(folder.glob("*.whl"))
    install = RASPBERRY_PI / "install.sh"
    _run(install, "--root", root, "--python", python, "--wheel", wheel, "--pip-args", "--retries 3")


def _configure(root: Path, password: str) -> None:
    etc = root / "etc/edge-broker"
    group = etc.stat().st_gid
    config = etc / "edge-broker.toml"
    config.write_text(config.read_text() + CONFIG)
    tls = etc / "tls"
    tls.mkdir()
    now = datetime.now(UTC)
    ours = Authority("ours", now, timedelta(days=1))
    (tls / "ca.crt").write_bytes(ours.certificate)
    ours.issue("gateway", now, timedelta(days=1), hosts=("localhost",)).write(tls, "gateway")
    (etc / "passwords").write_text(lines("anna", password))
    for path in (etc / "passwords", tls, *tls.iterdir()):
        os.chown(path, 0, group)
        path.chmod(0o750 if path.is_dir() else 0o640)
    drop_in = root / "etc/systemd/system/edge-broker.service.d"
    drop_in.mkdir()
    (drop_in / "test.conf").write_text(DROP_IN)


def _run(*command: str | Path) -> None:
    process = subprocess.run(command, capture_output=True, text=True)
    assert process.returncode == 0, process.stdout + process.stderr
