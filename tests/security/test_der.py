"""What is read out of DER by hand is what `cryptography` reads out of it; what is cut off is a ValueError."""

from __future__ import annotations

from contextlib import suppress
from datetime import UTC, datetime, timedelta

import pytest
from cryptography.hazmat.primitives import serialization
from hypothesis import given
from hypothesis import strategies as st

from edge_broker.security.der import (
    certificate_ends_at,
    crl_ends_at,
    first_expiry,
    is_ca,
    pem_blocks,
    serial_of,
)
from tests.security.issuing import DAY, NOW, Issuer

CA = Issuer("ours")


@pytest.mark.parametrize(
    "end", [NOW + DAY, datetime(2049, 12, 31, 23, 59, 59, tzinfo=UTC), datetime(2050, 1, 1, tzinfo=UTC)]
)
def test_a_certificate(end: datetime) -> None:
    pair = CA.issue("sensor-1", dns=["a.local"], uris=["spiffe://home/a"], end=end)
    assert certificate_ends_at(pair.der) == end.timestamp()
    assert serial_of(pair.der) == pair.certificate.serial_number


def test_serials_of_any_length() -> None:
    for _ in range(50):
        pair = CA.issue()
        assert serial_of(pair.der) == pair.certificate.serial_number


def test_who_may_sign() -> None:
    assert is_ca(CA.der)
    assert is_ca(CA.issue(ca=True).der)
    assert not is_ca(CA.issue().der)


def test_a_revocation_list() -> None:
    revoked = CA.issue().certificate
    for entries in ([], [revoked]):
        pem = CA.crl(*entries, next_update=NOW + 3 * DAY)
        (der,) = pem_blocks(pem, "X509 CRL")
        assert crl_ends_at(der) == (NOW + 3 * DAY).timestamp()
        assert pem_blocks(pem) == []


def test_the_first_of_several_counts() -> None:
    late, early = CA.issue(end=NOW + 5 * DAY), CA.issue(end=NOW + 2 * DAY)
    pem = b"a comment\n" + b"".join(
        pair.certificate.public_bytes(serialization.Encoding.PEM) for pair in (late, early)
    )
    assert first_expiry(pem, "certificate") == (NOW + 2 * DAY).timestamp()
    lists = CA.crl(next_update=NOW + DAY) + CA.crl(next_update=NOW + timedelta(hours=1))
    assert first_expiry(lists, "crl") == (NOW + timedelta(hours=1)).timestamp()
    assert first_expiry(b"", "ca") is None


def test_cut_off_anywhere_it_is_a_value_error() -> None:
    der = CA.issue(dns=["a.local"]).der
    for length in range(len(der)):
        for read in (certificate_ends_at, serial_of, is_ca):
            with pytest.raises(ValueError, match=r"cut off|no DER sequence"):
                read(der[:length])


def test_what_is_no_certificate() -> None:
    (der,) = pem_blocks(CA.crl(), "X509 CRL")
    with pytest.raises(ValueError, match="no certificate"):
        serial_of(der)


WHOLE = CA.issue(dns=["a.local"], ca=True).der
LIST = pem_blocks(CA.crl(CA.issue().certificate), "X509 CRL")[0]


@given(st.sampled_from([WHOLE, LIST, b""]), st.integers(0, 700), st.binary(max_size=8), st.integers(0, 8))
def test_whatever_it_is_it_is_read_or_a_value_error(der: bytes, at: int, data: bytes, cut: int) -> None:
    changed = der[:at] + data + der[at + cut :]
    for read in (certificate_ends_at, serial_of, is_ca, crl_ends_at):
        with suppress(ValueError):
            read(changed)


@given(st.binary(max_size=200), st.integers(0, 900))
def test_whatever_a_pem_file_holds(data: bytes, at: int) -> None:
    pem = CA.pem[:at] + data + CA.pem[at:]
    for kind in ("certificate", "crl"):
        with suppress(ValueError):
            first_expiry(pem, kind)
