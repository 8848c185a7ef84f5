"""The unit at work: a system boots, read-only, with the broker installed, which does all its work in its sandbox."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from tests.conftest import do_without
from tests.deploy.boot_image import STATE, boot, build, system_python
from tests.secrets import found_in, secret

PASSWORD = secret("of the gateway's test")

pytestmark = [
    pytest.mark.needs("systemd-nspawn", "systemd-sysusers", "nsenter"),
    pytest.mark.usefixtures("as_root"),
    pytest.mark.timeout(300),
    pytest.mark.slow,
]


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory, as_root: None) -> Path:
    python = system_python()
    if python is None:
        do_without(
            "no Python 3.11 or newer with venv is in /usr, which is all that the system that boots has of this one"
        )
    root = tmp_path_factory.mktemp("system") / "root"
    build(root, tmp_path_factory.mktemp("wheel"), python, PASSWORD)
    return root


@pytest.fixture(scope="module")
def data(root: Path) -> Path:
    return root.parent / "data"


@pytest.fixture(scope="module")
def seen(root: Path, data: Path) -> dict[str, Any]:
    return boot(root, data, root.parent / "results")


def test_it_says_that_it_is_ready(seen: dict[str, Any]) -> None:
    started = seen["started"]
    assert (started["ActiveState"], started["SubState"], started["NRestarts"]) == ("active", "running", "0")
    assert "listening on mqtt://127.0.0.1:1883" in started["StatusText"]


EVERYTHING = {
    "anonymous": "ok",
    "right password": "ok",
    "wrong password": "Bad user name or password",
    "tls": "ok",
    "websocket": "ok",
}


def test_it_is_well_and_serves_every_kind_of_client(seen: dict[str, Any]) -> None:
    used = seen["used"]
    status, health = used.pop("healthz")
    assert (status, health["live"], health["ready"]) == (200, True, True)
    assert used.pop("metrics") > 1_000
    assert used == EVERYTHING


def test_it_runs_as_nobody_special(seen: dict[str, Any]) -> None:
    process = seen["process"]
    users = dict(line.split(":")[0:3:2] for line in process["user"].splitlines())
    assert process["uids"] == [users["edge-broker"]]
    assert set(process["capabilities"]) == {"0000000000000000"}
    assert (process["no_new_privileges"], process["seccomp"]) == ("1", "2")


def test_the_libraries_work_without_writable_code(seen: dict[str, Any]) -> None:
    process = seen["process"]
    assert {"uvloop", "_cffi_backend", "argon2", "libssl"} <= set(process["libraries"])
    assert process["writable_and_executable"] == []


def test_it_can_write_to_its_data_and_to_nothing_else(data: Path, seen: dict[str, Any]) -> None:
    written = dict(seen["written"])
    assert written.pop(f"/{STATE}") == "written"
    assert len(written) > 8
    assert all("Error" in said and "Errno" in said for said in written.values()), written
    assert all(path.startswith((f"/{STATE}/", "/dev/null")) for path in seen["process"]["open_for_writing"])
    assert any(path.endswith("audit.log") for path in seen["process"]["open_for_writing"])
    assert seen["left_behind"] == []
    assert {path.stat().st_uid for path in data.rglob("*")} == {int(seen["process"]["uids"][0])}


def test_it_reloads(seen: dict[str, Any]) -> None:
    assert seen["reload"] == "active"


def test_the_watchdog_kills_what_stands_still(seen: dict[str, Any]) -> None:
    before, after = seen["watchdog"]["before"], seen["watchdog"]["after"]
    assert before["NRestarts"] == "0", "it was alive until it was stopped"
    assert (after["ActiveState"], after["NRestarts"]) == ("active", "1")
    assert after["MainPID"] != before["MainPID"]
    assert seen["watchdog"]["again"] == "ok"
    assert "Watchdog timeout" in seen["journal"]


def test_its_journal_and_its_audit_log_have_no_password(data: Path, seen: dict[str, Any]) -> None:
    audit = (data / "audit.log").read_text()
    assert "a wrong password for 'anna'" in audit
    assert "a wrong password for 'anna'" in seen["journal"]
    assert found_in(audit) == found_in(seen["journal"]) == []


def test_it_stops_cleanly(seen: dict[str, Any]) -> None:
    for name in ("stopped", "stopped_strict"):
        stopped = seen[name]
        assert (stopped["ActiveState"], stopped["Result"]) == ("inactive", "success"), name
        assert (stopped["ExecMainCode"], stopped["ExecMainStatus"]) == ("1", "0"), name


def test_no_system_call_that_it_makes_is_filtered(seen: dict[str, Any]) -> None:
    strict = seen["strict"]
    assert strict["said"] == strict["reload"] == ""
    assert {name: strict[name] for name in EVERYTHING} == EVERYTHING
    assert strict["after"]["MainPID"] == strict["before"]["MainPID"] != "0"
    assert strict["after"]["ActiveState"] == "active"
