"""The small CA: what it issues is good for its purpose and no other, what it takes back is on the list, nothing is lost."""

from __future__ import annotations

import os
import stat
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from cryptography import x509
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

from edge_broker.errors import ConfigError
from edge_broker.security import pki_files
from edge_broker.security.pki import Pki

NOW = datetime(2026, 3, 1, 12, 0, tzinfo=UTC)
YEAR = timedelta(days=365)


@pytest.fixture
def pki(tmp_path: Path) -> Pki:
    made = Pki(tmp_path / "pki")
    made.init("home.example", NOW, 10 * YEAR)
    return made


def certificate_in(folder: Path) -> x509.Certificate:
    return x509.load_pem_x509_certificate((folder / "certificate.pem").read_bytes())


def mode_of(path: Path) -> int:
    return stat.S_IMODE(path.stat().st_mode)


def revoked_serials(pki: Pki) -> set[int]:
    return {entry.serial_number for entry in x509.load_pem_x509_crl(pki.folder.crl.read_bytes())}


def test_a_new_ca(pki: Pki) -> None:
    ca = x509.load_pem_x509_certificate(pki.folder.ca.read_bytes())
    assert isinstance(ca.public_key(), ec.EllipticCurvePublicKey)
    assert ca.not_valid_after_utc == NOW + 10 * YEAR
    crl = x509.load_pem_x509_crl(pki.folder.crl.read_bytes())
    assert crl.is_signature_valid(ca.public_key())  # type: ignore[arg-type]
    assert list(crl) == []
    assert crl.next_update_utc == ca.not_valid_after_utc, "it need not be written anew before"
    assert mode_of(pki.folder.path) == 0o700
    assert mode_of(pki.folder.ca_key) == 0o600


def test_no_second_ca_in_its_place(pki: Pki) -> None:
    before = pki.folder.ca_key.read_bytes()
    with pytest.raises(ConfigError, match="not empty"):
        pki.init("home.example", NOW, YEAR)
    assert pki.folder.ca_key.read_bytes() == before


@pytest.mark.parametrize("domain", ["", "Home", "a b", "a/b", "a" * 256])
def test_trust_domains_that_cannot_be(tmp_path: Path, domain: str) -> None:
    with pytest.raises(ConfigError, match="--trust-domain"):
        Pki(tmp_path / "pki").init(domain, NOW, YEAR)
    assert not (tmp_path / "pki").exists()


def test_a_server(pki: Pki) -> None:
    issued, folder = pki.issue_server(["gw.local", "192.0.2.7"], NOW, YEAR)
    certificate = certificate_in(folder)
    certificate.verify_directly_issued_by(x509.load_pem_x509_certificate(pki.folder.ca.read_bytes()))
    usage = certificate.extensions.get_extension_for_class(x509.ExtendedKeyUsage).value
    assert list(usage) == [ExtendedKeyUsageOID.SERVER_AUTH], "it is no device"
    names = certificate.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
    assert names.get_values_for_type(x509.DNSName) == ["gw.local"]
    assert [str(found) for found in names.get_values_for_type(x509.IPAddress)] == ["192.0.2.7"]
    assert certificate.not_valid_after_utc == NOW + YEAR == issued.expires_at
    assert mode_of(folder / "key.pem") == 0o600


def test_a_device(pki: Pki) -> None:
    pki.issue_server(["gw.local"], NOW, YEAR)
    issued, folder = pki.issue_device("sensor-1", NOW, YEAR)
    certificate = certificate_in(folder)
    (common_name,) = certificate.subject.get_attributes_for_oid(NameOID.COMMON_NAME)
    assert common_name.value == "sensor-1"
    usage = certificate.extensions.get_extension_for_class(x509.ExtendedKeyUsage).value
    assert list(usage) == [ExtendedKeyUsageOID.CLIENT_AUTH], "it is no server"
    names = certificate.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
    assert [str(name.value) for name in names] == ["spiffe://home.example/device/sensor-1"]
    assert int(issued.serial, 16) == certificate.serial_number
    assert {path.name: mode_of(path) for path in folder.iterdir()} == {
        "ca.pem": 0o644,
        "certificate.pem": 0o644,
        "key.pem": 0o600,
        "device.toml": 0o644,
    }
    assert mode_of(folder) == mode_of(folder.parent) == 0o700


def test_serials_are_random(pki: Pki) -> None:
    serials = [int(pki.issue_device(f"d{n}", NOW, YEAR, host="h")[0].serial, 16) for n in range(4)]
    assert len(set(serials)) == 4
    assert min(serial.bit_length() for serial in serials) > 100


def test_nothing_outlives_its_ca(tmp_path: Path) -> None:
    pki = Pki(tmp_path / "short")
    pki.init("home", NOW, timedelta(days=10))
    assert pki.issue_server(["h"], NOW, YEAR)[0].expires_at == NOW + timedelta(days=10)


@pytest.mark.parametrize("name", ["", "a/b", "../a", ".a", "-a", "a b", "a+", "#", "ä", "a" * 65])
def test_names_that_no_device_has(pki: Pki, name: str) -> None:
    with pytest.raises(ConfigError, match="cannot be a device's name"):
        pki.issue_device(name, NOW, YEAR, host="h")


@pytest.mark.parametrize("host", ["", "a b", "a/b", "..", "mqtt://a", "a:8883", "*", "a" * 254])
def test_hosts_that_cannot_be(pki: Pki, host: str) -> None:
    with pytest.raises(ConfigError, match="neither a host name nor an address"):
        pki.issue_server(["gw.local", host], NOW, YEAR)
    assert pki.folder.read_book().certificates == []


def test_a_device_without_a_host(pki: Pki) -> None:
    with pytest.raises(ConfigError, match="issue-server HOST"):
        pki.issue_device("sensor-1", NOW, YEAR)


def test_a_name_has_one_certificate_unless_another_is_asked_for(pki: Pki) -> None:
    first, folder = pki.issue_device("sensor-1", NOW, YEAR, host="h")
    key = (folder / "key.pem").read_bytes()
    with pytest.raises(ConfigError, match="--renew"):
        pki.issue_device("sensor-1", NOW, YEAR, host="h")
    assert (folder / "key.pem").read_bytes() == key
    second, _ = pki.issue_device("sensor-1", NOW, YEAR, host="h", renew=True)
    assert second.serial != first.serial
    assert certificate_in(folder).serial_number == int(second.serial, 16)
    assert (folder / "key.pem").read_bytes() != key
    assert mode_of(folder / "key.pem") == 0o600
    assert revoked_serials(pki) == set(), "the old one is good until it is revoked"


def test_a_server_and_a_device_of_one_name(pki: Pki) -> None:
    pki.issue_server(["pi"], NOW, YEAR)
    pki.issue_device("pi", NOW, YEAR)


def test_an_expired_one_is_no_hindrance(pki: Pki) -> None:
    pki.issue_device("sensor-1", NOW, YEAR, host="h")
    pki.issue_device("sensor-1", NOW + YEAR, YEAR, host="h")


def test_taking_back(pki: Pki) -> None:
    first, _ = pki.issue_device("sensor-1", NOW, YEAR, host="h")
    second, _ = pki.issue_device("sensor-1", NOW, YEAR, host="h", renew=True)
    other, _ = pki.issue_device("sensor-2", NOW, YEAR, host="h")
    revoked = pki.revoke("sensor-1", NOW)
    assert [issued.serial for issued in revoked] == [first.serial, second.serial]
    assert revoked_serials(pki) == {int(first.serial, 16), int(second.serial, 16)}
    assert pki.revoke("sensor-1", NOW) == [], "they were taken back before"
    pki.revoke("sensor-2", NOW)
    assert int(other.serial, 16) in revoked_serials(pki)
    assert len(revoked_serials(pki)) == 3
    number = x509.load_pem_x509_crl(pki.folder.crl.read_bytes()).extensions.get_extension_for_class(
        x509.CRLNumber
    )
    assert number.value.crl_number == 4
    pki.issue_device("sensor-1", NOW, YEAR, host="h")


def test_nobody_can_be_taken_back_who_has_nothing(pki: Pki) -> None:
    with pytest.raises(ConfigError, match="has no certificate"):
        pki.revoke("sensor-1", NOW)


def test_status(pki: Pki) -> None:
    pki.issue_device("sensor-1", NOW, YEAR, host="h")
    pki.revoke("sensor-1", NOW)
    book, expires_at, is_crl_whole = pki.status()
    assert [(found.name, found.revoked_at) for found in book.certificates] == [("sensor-1", NOW)]
    assert (expires_at, is_crl_whole) == (NOW + 10 * YEAR, True)


@pytest.mark.parametrize(
    "act",
    [
        lambda pki: pki.issue_device("sensor-2", NOW, YEAR, host="h"),
        lambda pki: pki.issue_device("sensor-1", NOW, YEAR, host="h", renew=True),
        lambda pki: pki.issue_server(["gw.local"], NOW, YEAR),
        lambda pki: pki.revoke("sensor-1", NOW),
    ],
    ids=["issue", "renew", "server", "revoke"],
)
def test_interrupted_anywhere_it_can_be_done_again(
    pki: Pki, act: Callable[[Pki], Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Power is cut before any of the renames: every certificate that exists is in the book, and no file is torn."""
    pki.issue_device("sensor-1", NOW, YEAR, host="h")
    real = os.replace
    for cut_at in range(6):
        left = cut_at

        def replace(source: Any, target: Any) -> None:
            nonlocal left
            if left == 0:
                raise KeyboardInterrupt
            left -= 1
            real(source, target)

        monkeypatch.setattr(pki_files.os, "replace", replace)
        with suppress(
            KeyboardInterrupt, ConfigError
        ):  # the second: it is in the book already, --renew is wanted
            act(pki)
        monkeypatch.setattr(pki_files.os, "replace", real)
        known = {int(issued.serial, 16) for issued in pki.folder.read_book().certificates}
        for found in pki.folder.path.rglob("certificate.pem"):
            assert certificate_in(found.parent).serial_number in known
        assert list(pki.folder.path.rglob(".*")) == [], "something is left behind"
    pki.revoke("sensor-1", NOW)
    assert pki.status()[2], "and the list has what the book says"


def test_a_list_that_lacks_a_revocation_is_noticed_and_mended(
    pki: Pki, monkeypatch: pytest.MonkeyPatch
) -> None:
    pki.issue_device("sensor-1", NOW, YEAR, host="h")
    before = pki.folder.crl.read_bytes()
    pki.revoke("sensor-1", NOW)
    pki.folder.crl.write_bytes(before)
    assert not pki.status()[2]
    pki.revoke("sensor-1", NOW)
    assert pki.status()[2]


@pytest.mark.parametrize(
    ("file", "contents", "said"),
    [
        ("issued.json", b"{", "is broken"),
        ("issued.json", None, "has no CA in it"),
        ("ca-key.pem", b"nothing", "is no key of"),
        ("ca-key.pem", None, "cannot be read"),
    ],
)
def test_a_folder_that_lacks_something(pki: Pki, file: str, contents: bytes | None, said: str) -> None:
    path = pki.folder.path / file
    path.unlink() if contents is None else path.write_bytes(contents)
    with pytest.raises(ConfigError, match=said):
        pki.issue_device("sensor-1", NOW, YEAR, host="h")


def test_another_cas_key(pki: Pki, tmp_path: Path) -> None:
    other = Pki(tmp_path / "other")
    other.init("other", NOW, YEAR)
    pki.folder.ca_key.write_bytes(other.folder.ca_key.read_bytes())
    with pytest.raises(ConfigError, match="does not belong"):
        pki.issue_server(["h"], NOW, YEAR)


def test_two_commands_at_once_take_turns(pki: Pki) -> None:
    with ThreadPoolExecutor(8) as threads:
        list(threads.map(lambda n: pki.issue_device(f"d{n}", NOW, YEAR, host="h"), range(16)))
    assert {found.name for found in pki.folder.read_book().certificates} == {f"d{n}" for n in range(16)}


@pytest.mark.parametrize(
    "act",
    [
        lambda pki, now: pki.issue_server(["h"], now, YEAR),
        lambda pki, now: pki.issue_device("sensor-2", now, YEAR, host="h"),
        lambda pki, now: pki.revoke("sensor-1", now),
    ],
)
def test_a_ca_that_has_expired_signs_nothing(pki: Pki, act: Callable[[Pki, datetime], Any]) -> None:
    pki.issue_device("sensor-1", NOW, YEAR, host="h")
    with pytest.raises(ConfigError, match="has expired on 2036"):
        act(pki, NOW + 10 * YEAR)
    assert not any(found.revoked_at for found in pki.folder.read_book().certificates)
