"""`edge-broker pki` as a person types it."""

from __future__ import annotations

import os
import re
import stat
import subprocess
import tarfile
import tomllib
import zipfile
from pathlib import Path

import pytest
from click.testing import CliRunner, Result

from devices.bundle import read_bundle
from edge_broker.cli import main


@pytest.fixture(autouse=True)
def _folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("STATE_DIRECTORY", raising=False)


def run(*arguments: str, code: int = 0) -> Result:
    result = CliRunner().invoke(main, ["pki", *arguments])
    assert result.exit_code == code, result.output
    return result


def test_from_nothing_to_a_configuration_that_is_right() -> None:
    assert "Next: edge-broker pki issue-server" in run("init").output
    assert (
        "edge-broker run --config broker.toml"
        in run("issue-server", "gw.local", "127.0.0.1", "--config", "broker.toml").output
    )
    assert "pki/devices/sensor-1" in run("issue-device", "sensor-1").output
    checked = CliRunner().invoke(main, ["check", "broker.toml"])
    assert checked.exit_code == 0, checked.output
    assert re.search(r"clients with a certificate of \S+, unless revoked", checked.output)
    bundle = read_bundle("pki/devices/sensor-1")
    assert (bundle.name, str(bundle.broker)) == ("sensor-1", "mqtts://gw.local:8883")


def test_without_a_file_the_table_is_shown() -> None:
    run("init")
    output = run("issue-server", "gw.local").output
    (listener,) = tomllib.loads(output[output.index("[[listeners]]") :])["listeners"]
    assert Path(listener["crl_files"][0]).exists()


def test_nothing_is_overwritten() -> None:
    run("init")
    assert "not empty" in run("init", code=1).output
    Path("broker.toml").write_text("# mine\n")
    assert "is there already" in run("issue-server", "gw.local", "--config", "broker.toml", code=1).output
    assert Path("broker.toml").read_text() == "# mine\n"
    assert "gw.local" not in run("status").output, "nothing was issued either"
    run("issue-server", "gw.local")
    assert "--renew" in run("issue-server", "gw.local", code=1).output
    Path("a.zip").touch()
    assert "is there already" in run("issue-device", "a", "--archive", "a.zip", code=1).output


@pytest.mark.parametrize("name", ["sensor-1.zip", "sensor-1.tar.gz", "sensor-1.tgz"])
def test_all_in_one_file(name: str) -> None:
    run("init")
    run("issue-device", "sensor-1", "--host", "gw.local", "--port", "8884", "--archive", name)
    assert stat.S_IMODE(os.stat(name).st_mode) == 0o600
    if name.endswith(".zip"):
        with zipfile.ZipFile(name) as packed:
            packed.extractall("there")
    else:
        with tarfile.open(name) as tar:
            assert {item.mode for item in tar} == {0o600}
            tar.extractall("there")
    bundle = read_bundle("there/sensor-1")
    assert str(bundle.broker) == "mqtts://gw.local:8884"
    assert bundle.broker.tls_context() is not None


def test_an_archive_of_another_kind() -> None:
    run("init")
    assert (
        "neither .tar.gz nor .zip"
        in run("issue-device", "a", "--host", "h", "--archive", "a.rar", code=1).output
    )


def test_status_says_what_is_what() -> None:
    run("init", "--trust-domain", "home.example")
    run("issue-server", "gw.local")
    run("issue-device", "sensor-1")
    run("issue-device", "sensor-2", "--days", "10")
    assert "is revoked" in run("revoke", "sensor-1").output
    assert "nothing that was still good" in run("revoke", "sensor-1").output
    head, titles, *rows = run("status").output.splitlines()
    assert head.startswith("CA of home.example in pki, expires on ")
    assert titles.split() == ["kind", "name", "state", "serial"]
    assert [row.split()[:3] for row in rows] == [
        ["server", "gw.local", "expires"],
        ["device", "sensor-1", "REVOKED"],
        ["device", "sensor-2", "expires"],
    ]
    assert ", in 9 days" in rows[2] or ", in 10 days" in rows[2]
    assert ", in " not in rows[0]


def test_without_a_ca_it_says_what_to_do() -> None:
    for command in (["issue-server", "h"], ["issue-device", "a"], ["revoke", "a"], ["status"]):
        assert "edge-broker pki init" in run(*command, code=1).output


@pytest.mark.needs("openssl")
def test_openssl_agrees() -> None:
    run("init")
    run("issue-server", "gw.local", "192.0.2.7")
    run("issue-device", "sensor-1")

    def verify(*arguments: str) -> bool:
        command = ["openssl", "verify", "-x509_strict", "-CAfile", "pki/ca.pem", *arguments]
        return subprocess.run(command, capture_output=True).returncode == 0

    server, device = "pki/servers/gw.local/certificate.pem", "pki/devices/sensor-1/certificate.pem"
    assert verify("-purpose", "sslserver", "-verify_hostname", "gw.local", server)
    assert verify("-purpose", "sslserver", "-verify_ip", "192.0.2.7", server)
    assert not verify("-purpose", "sslclient", server)
    assert verify("-purpose", "sslclient", device)
    assert not verify("-purpose", "sslserver", device)
    with_list = ("-crl_check", "-CRLfile", "pki/crl.pem", device)
    assert verify(*with_list)
    run("revoke", "sensor-1")
    assert not verify(*with_list)
