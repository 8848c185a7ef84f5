import os
from pathlib import Path

import pytest

from bridge.config import BridgeConfig
from bridge.identity import FileIdentity
from edge_broker.errors import UpstreamUnavailable
from tests.bridge.certificates import Authority


def identity(**files: Path | str | None) -> FileIdentity:
    return FileIdentity(BridgeConfig(urls=("mqtts://broker.example.com",), client_id="gw", **files))  # type: ignore[arg-type]


@pytest.fixture
def authority(tmp_path: Path) -> Authority:
    return Authority(tmp_path)


def problem(of: FileIdentity) -> str:
    with pytest.raises(UpstreamUnavailable) as caught:
        of.read(tls=True)
    return str(caught.value)


def test_everything_is_read(authority: Authority, tmp_path: Path) -> None:
    certificate, key = authority.issue("gw")
    password = tmp_path / "password"
    password.write_text("secret\n")
    credentials = identity(
        ca=authority.ca, certificate=certificate, key=key, username="me", password_file=password
    ).read(tls=True)
    assert credentials.context is not None
    assert credentials.context.check_hostname
    assert (credentials.username, credentials.password) == ("me", b"secret")


def test_without_tls_no_certificate_is_read() -> None:
    assert identity(ca="/nowhere").read(tls=False).context is None


def test_each_reading_makes_a_new_context(authority: Authority) -> None:
    files = identity(ca=authority.ca)
    assert files.read(True).context is not files.read(True).context


@pytest.mark.parametrize("key", ["ca", "certificate", "key", "password_file"])
def test_a_missing_file_is_named_with_its_key(key: str, authority: Authority, tmp_path: Path) -> None:
    certificate, private = authority.issue("gw")
    password = tmp_path / "password"
    password.write_text("x")
    files = {"ca": authority.ca, "certificate": certificate, "key": private, "password_file": password}
    missing = files[key]
    missing.unlink()
    assert problem(identity(username="me", **files)) == (
        f"{key}: {missing} cannot be read: No such file or directory (check the path)"
    )


@pytest.mark.skipif(os.geteuid() == 0, reason="root may read everything")
def test_a_file_that_we_may_not_read(authority: Authority) -> None:
    authority.ca.chmod(0)
    assert "let the broker's user read it" in problem(identity(ca=authority.ca))


def test_a_ca_that_is_none(authority: Authority) -> None:
    authority.ca.write_text("not a certificate")
    assert problem(identity(ca=authority.ca)).startswith(f"ca: {authority.ca} holds no certificate")


def test_a_key_of_another_certificate(authority: Authority) -> None:
    certificate, _ = authority.issue("gw")
    _, other = authority.issue("other")
    assert problem(identity(ca=authority.ca, certificate=certificate, key=other)) == (
        f"key: {other} does not belong to certificate {certificate} (were both replaced? It is tried again)"
    )


def test_a_key_with_a_passphrase_is_refused_and_nobody_is_asked_for_it(authority: Authority) -> None:
    certificate, key = authority.issue("gw", passphrase=b"words")
    assert "passphrase" in problem(identity(ca=authority.ca, certificate=certificate, key=key))


def test_a_key_that_is_no_pem(authority: Authority) -> None:
    certificate, key = authority.issue("gw")
    key.write_text("garbage")
    text = problem(identity(ca=authority.ca, certificate=certificate, key=key))
    assert str(key) in text
    assert "garbage" not in text
