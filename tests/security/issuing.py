"""Certificates as nobody should issue them, and chains: what `Authority` would not make."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import UTC, datetime, timedelta
from pathlib import Path

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

NOW = datetime.now(UTC).replace(microsecond=0)
DAY = timedelta(days=1)
CLIENT, SERVER = ExtendedKeyUsageOID.CLIENT_AUTH, ExtendedKeyUsageOID.SERVER_AUTH


class Issuer:
    """A CA that issues whatever it is asked for. `above`: whose intermediate it is."""

    def __init__(
        self,
        name: str,
        above: Issuer | None = None,
        key: ec.EllipticCurvePrivateKey | None = None,
        lifetime: timedelta = DAY,
    ) -> None:
        self.key = key or ec.generate_private_key(ec.SECP256R1())
        self.name = _name(name)
        self.above = above
        self.certificate = _build(self.name, above or self, self.key, NOW - DAY, NOW + lifetime, ca=True)

    @property
    def pem(self) -> bytes:
        return self.certificate.public_bytes(serialization.Encoding.PEM)

    @property
    def der(self) -> bytes:
        return self.certificate.public_bytes(serialization.Encoding.DER)

    def issue(
        self,
        name: str | None = "sensor-1",
        *,
        dns: Sequence[str] = (),
        uris: Sequence[str] = (),
        usages: Sequence[x509.ObjectIdentifier] | None = (CLIENT,),
        begin: datetime = NOW - timedelta(hours=1),
        end: datetime = NOW + DAY,
        ca: bool = False,
    ) -> Pair:
        """`usages` None: the certificate does not say what it is for."""
        key = ec.generate_private_key(ec.SECP256R1())
        names: list[x509.GeneralName] = [x509.DNSName(host) for host in dns]
        names += [x509.UniformResourceIdentifier(uri) for uri in uris]
        subject = x509.Name([]) if name is None else _name(name)
        certificate = _build(subject, self, key, begin, end, ca=ca, names=names, usages=usages)
        return Pair(certificate, key, [] if self.above is None else [self.certificate])

    def crl(
        self,
        *revoked: x509.Certificate,
        next_update: datetime = NOW + DAY,
        signed_by: Issuer | None = None,
        part: bool = False,
    ) -> bytes:
        builder = (
            x509.CertificateRevocationListBuilder()
            .issuer_name(self.name)
            .last_update(NOW - 2 * DAY)
            .next_update(next_update)
        )
        if part:
            builder = builder.add_extension(x509.DeltaCRLIndicator(1), critical=True)
        for certificate in revoked:
            entry = x509.RevokedCertificateBuilder().serial_number(certificate.serial_number)
            builder = builder.add_revoked_certificate(entry.revocation_date(NOW).build())
        signed = builder.sign((signed_by or self).key, hashes.SHA256())
        return signed.public_bytes(serialization.Encoding.PEM)


class Pair:
    """A certificate, its key and what is between it and its root."""

    def __init__(
        self, certificate: x509.Certificate, key: ec.EllipticCurvePrivateKey, above: list[x509.Certificate]
    ) -> None:
        self.certificate = certificate
        self.key = key
        self.above = above

    @property
    def der(self) -> bytes:
        return self.certificate.public_bytes(serialization.Encoding.DER)

    def write(self, folder: Path, name: str) -> tuple[str, str]:
        """`NAME.crt`, with its chain, and `NAME.key`."""
        certificate, key = folder / f"{name}.crt", folder / f"{name}.key"
        pem = [found.public_bytes(serialization.Encoding.PEM) for found in (self.certificate, *self.above)]
        certificate.write_bytes(b"".join(pem))
        key.write_bytes(
            self.key.private_bytes(
                serialization.Encoding.PEM,
                serialization.PrivateFormat.PKCS8,
                serialization.NoEncryption(),
            )
        )
        return str(certificate), str(key)


def _name(name: str) -> x509.Name:
    return x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, name)])


def _build(
    subject: x509.Name,
    issuer: Issuer,
    key: ec.EllipticCurvePrivateKey,
    begin: datetime,
    end: datetime,
    *,
    ca: bool,
    names: Sequence[x509.GeneralName] = (),
    usages: Sequence[x509.ObjectIdentifier] | None = None,
) -> x509.Certificate:
    builder = (
        x509.CertificateBuilder()
        .subject_name(subject)
        .issuer_name(issuer.name)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(begin)
        .not_valid_after(end)
        .add_extension(x509.BasicConstraints(ca=ca, path_length=None), critical=True)
    )
    if names:
        builder = builder.add_extension(x509.SubjectAlternativeName(names), critical=False)
    if usages is not None:
        builder = builder.add_extension(x509.ExtendedKeyUsage(usages), critical=False)
    return builder.sign(issuer.key, hashes.SHA256())
