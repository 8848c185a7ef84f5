"""A certificate authority for people without one: EC keys, names in the certificate, keys written for their owner only.

It makes and signs; it keeps no list of what it signed (`pki` does). Imported where certificates are made, never by a
running broker.
"""

from __future__ import annotations

import ipaddress
import os
from collections.abc import Iterable
from dataclasses import dataclass
from datetime import datetime, timedelta
from pathlib import Path
from typing import Final

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

_CLOCK_SKEW: Final = timedelta(hours=1)
"""A gateway without a clock battery may be behind: certificates are valid from a little before they were made."""


@dataclass(frozen=True, slots=True)
class KeyPair:
    """A certificate with its private key, both PEM."""

    certificate: bytes
    key: bytes

    def write(self, directory: Path, name: str) -> tuple[Path, Path]:
        """Write ``NAME.crt`` and, readable for its owner only, ``NAME.key``; returns both paths."""
        certificate_path, key_path = directory / f"{name}.crt", directory / f"{name}.key"
        certificate_path.write_bytes(self.certificate)
        descriptor = os.open(key_path, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600)
        with os.fdopen(descriptor, "wb") as file:
            file.write(self.key)
        return certificate_path, key_path


class Authority:
    """A CA with its key in memory. `now` is the wall clock, with its time zone."""

    def __init__(self, name: str, now: datetime, lifetime: timedelta) -> None:
        self._key = ec.generate_private_key(ec.SECP256R1())
        self._name = _common_name(name)
        builder = _certificate(self._name, self._name, self._key.public_key(), now, lifetime)
        builder = builder.add_extension(x509.BasicConstraints(ca=True, path_length=0), critical=True)
        builder = builder.add_extension(_key_usage(signs_certificates=True), critical=True)
        self._certificate = builder.sign(self._key, hashes.SHA256())

    @classmethod
    def load(cls, certificate: bytes, key: bytes) -> Authority:
        """One that was made before; `ValueError` where it is none, or the key, PEM without a passphrase, is another's."""
        found = x509.load_pem_x509_certificate(certificate)
        private_key = serialization.load_pem_private_key(key, None)
        if not isinstance(private_key, ec.EllipticCurvePrivateKey):
            raise ValueError("the key is not one of an elliptic curve")
        if private_key.public_key() != found.public_key():
            raise ValueError("the key does not belong to the certificate")
        authority = cls.__new__(cls)
        authority._key, authority._name, authority._certificate = private_key, found.subject, found
        return authority

    @property
    def certificate(self) -> bytes:
        """The CA's own certificate, PEM: what the other side trusts."""
        return self._certificate.public_bytes(serialization.Encoding.PEM)

    @property
    def key(self) -> bytes:
        """The CA's private key, PEM, unprotected: whoever has it can make certificates."""
        return _private_pem(self._key)

    @property
    def expires_at(self) -> datetime:
        """When its own certificate does, and with it all that it signed."""
        return self._certificate.not_valid_after_utc

    def revocation_list(
        self, revoked: Iterable[tuple[int, datetime]], number: int, now: datetime, next_update: datetime
    ) -> bytes:
        """The list of the certificates, by serial number, that it has taken back, and when; PEM. `number` grows."""
        builder = (
            x509.CertificateRevocationListBuilder()
            .issuer_name(self._name)
            .last_update(now - _CLOCK_SKEW)
            .next_update(next_update)
            .add_extension(x509.CRLNumber(number), critical=False)
            .add_extension(
                x509.AuthorityKeyIdentifier.from_issuer_public_key(self._key.public_key()), critical=False
            )
        )
        for serial, at in revoked:
            entry = x509.RevokedCertificateBuilder().serial_number(serial).revocation_date(at).build()
            builder = builder.add_revoked_certificate(entry)
        return builder.sign(self._key, hashes.SHA256()).public_bytes(serialization.Encoding.PEM)

    def issue(
        self,
        name: str,
        now: datetime,
        lifetime: timedelta,
        *,
        hosts: tuple[str, ...] = (),
        uris: tuple[str, ...] = (),
        client: bool = True,
    ) -> KeyPair:
        """A new key and its certificate, for a server under `hosts` (names or addresses), and for a client if `client`."""
        key = ec.generate_private_key(ec.SECP256R1())
        builder = _certificate(_common_name(name), self._name, key.public_key(), now, lifetime)
        builder = builder.add_extension(x509.BasicConstraints(ca=False, path_length=None), critical=True)
        builder = builder.add_extension(_key_usage(signs_certificates=False), critical=True)
        usages = [ExtendedKeyUsageOID.SERVER_AUTH] if hosts else []
        usages += [ExtendedKeyUsageOID.CLIENT_AUTH] if client else []
        builder = builder.add_extension(x509.ExtendedKeyUsage(usages), critical=False)
        builder = builder.add_extension(
            x509.AuthorityKeyIdentifier.from_issuer_public_key(self._key.public_key()), critical=False
        )
        names: list[x509.GeneralName] = [_host_name(host) for host in hosts]
        names += [x509.UniformResourceIdentifier(uri) for uri in uris]
        if names:
            builder = builder.add_extension(x509.SubjectAlternativeName(names), critical=False)
        certificate = builder.sign(self._key, hashes.SHA256())
        return KeyPair(certificate.public_bytes(serialization.Encoding.PEM), _private_pem(key))


def _private_pem(key: ec.EllipticCurvePrivateKey) -> bytes:
    return key.private_bytes(
        serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    )


def _common_name(name: str) -> x509.Name:
    return x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, name)])


def _host_name(host: str) -> x509.GeneralName:
    try:
        return x509.IPAddress(ipaddress.ip_address(host))
    except ValueError:
        return x509.DNSName(host)


def _certificate(
    subject: x509.Name,
    issuer: x509.Name,
    public_key: ec.EllipticCurvePublicKey,
    now: datetime,
    lifetime: timedelta,
) -> x509.CertificateBuilder:
    return (
        x509.CertificateBuilder()
        .subject_name(subject)
        .issuer_name(issuer)
        .public_key(public_key)
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - _CLOCK_SKEW)
        .not_valid_after(now + lifetime)
        .add_extension(x509.SubjectKeyIdentifier.from_public_key(public_key), critical=False)
    )


def _key_usage(signs_certificates: bool) -> x509.KeyUsage:
    return x509.KeyUsage(
        digital_signature=True,
        content_commitment=False,
        key_encipherment=False,
        data_encipherment=False,
        key_agreement=False,
        key_cert_sign=signs_certificates,
        crl_sign=signs_certificates,
        encipher_only=False,
        decipher_only=False,
    )
