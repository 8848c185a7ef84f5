"""The certificate authority: what it signs is trusted by it, names whom it should, and is kept from others."""

from __future__ import annotations

import stat
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from cryptography import x509
from cryptography.exceptions import InvalidSignature
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

from edge_broker.security.authority import Authority

NOW = datetime(2026, 3, 1, 12, 0, tzinfo=UTC)
YEAR = timedelta(days=365)


@pytest.fixture(scope="module")
def authority() -> Authority:
    return Authority("home", NOW, 10 * YEAR)


def load(pem: bytes) -> x509.Certificate:
    return x509.load_pem_x509_certificate(pem)


def test_it_signs_what_it_issues(authority: Authority) -> None:
    ours = load(authority.certificate)
    issued = load(authority.issue("gateway", NOW, YEAR, hosts=("localhost",)).certificate)
    issued.verify_directly_issued_by(ours)
    stranger = load(Authority("home", NOW, YEAR).issue("gateway", NOW, YEAR).certificate)
    with pytest.raises(InvalidSignature):
        stranger.verify_directly_issued_by(ours)


def test_names_in_a_certificate(authority: Authority) -> None:
    pair = authority.issue(
        "gateway", NOW, YEAR, hosts=("gw.local", "192.0.2.7", "::1"), uris=("spiffe://home/gw",)
    )
    certificate = load(pair.certificate)
    (common_name,) = certificate.subject.get_attributes_for_oid(NameOID.COMMON_NAME)
    assert common_name.value == "gateway"
    names = certificate.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
    assert names.get_values_for_type(x509.DNSName) == ["gw.local"]
    assert [str(address) for address in names.get_values_for_type(x509.IPAddress)] == ["192.0.2.7", "::1"]
    assert names.get_values_for_type(x509.UniformResourceIdentifier) == ["spiffe://home/gw"]


def test_only_a_host_can_be_a_server(authority: Authority) -> None:
    for hosts, expected in ((("localhost",), True), ((), False)):
        certificate = load(authority.issue("x", NOW, YEAR, hosts=hosts).certificate)
        usage = certificate.extensions.get_extension_for_class(x509.ExtendedKeyUsage).value
        assert (ExtendedKeyUsageOID.SERVER_AUTH in usage) == expected
        assert ExtendedKeyUsageOID.CLIENT_AUTH in usage


def test_only_the_authority_can_sign(authority: Authority) -> None:
    for pem, expected in (
        (authority.certificate, True),
        (authority.issue("x", NOW, YEAR).certificate, False),
    ):
        extensions = load(pem).extensions
        assert extensions.get_extension_for_class(x509.BasicConstraints).value.ca is expected
        assert extensions.get_extension_for_class(x509.KeyUsage).value.key_cert_sign is expected


def test_valid_from_a_little_before_for_clocks_that_are_behind(authority: Authority) -> None:
    certificate = load(authority.issue("x", NOW, YEAR).certificate)
    assert certificate.not_valid_before_utc == NOW - timedelta(hours=1)
    assert certificate.not_valid_after_utc == NOW + YEAR


def test_the_key_is_its_owners_only(authority: Authority, tmp_path: Path) -> None:
    certificate_path, key_path = authority.issue("x", NOW, YEAR).write(tmp_path, "x")
    assert (certificate_path.name, key_path.name) == ("x.crt", "x.key")
    assert stat.S_IMODE(key_path.stat().st_mode) == 0o600
    assert b"PRIVATE KEY" not in certificate_path.read_bytes()
