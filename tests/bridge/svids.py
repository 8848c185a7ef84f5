"""Trust domains made on the spot, and X.509-SVIDs that are right, or wrong in one way each."""

import datetime
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

SERVER = ExtendedKeyUsageOID.SERVER_AUTH
CLIENT = ExtendedKeyUsageOID.CLIENT_AUTH
_DAY_SECONDS = 86_400.0


class Svid(NamedTuple):
    """Leaf first, then what is between it and the bundle; all DER, the key PKCS#8 in DER too."""

    chain: tuple[bytes, ...]
    key: bytes

    @property
    def chain_pem(self) -> bytes:
        return b"".join(map(_pem, self.chain))

    @property
    def key_pem(self) -> bytes:
        private = serialization.load_der_private_key(self.key, None)
        return private.private_bytes(
            serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
        )

    def write(self, directory: Path, name: str) -> tuple[Path, Path]:
        """`name`.pem and `name`.key: their paths."""
        directory.mkdir(parents=True, exist_ok=True)
        certificate, key = directory / f"{name}.pem", directory / f"{name}.key"
        certificate.write_bytes(self.chain_pem)
        key.write_bytes(self.key_pem)
        return certificate, key


class TrustDomain:
    """A SPIFFE trust domain with one CA. Two of one name are two CAs whose certificates have the same subject."""

    def __init__(self, name: str, *, lifetime_seconds: float = 10 * _DAY_SECONDS) -> None:
        self.name = name
        self._is_intermediate = False
        self.key = ec.generate_private_key(ec.SECP256R1())
        self.subject = _name(f"SPIFFE CA of {name}")
        self.certificate = self._sign_ca(self.subject, self.key, lifetime_seconds)

    @property
    def ca_der(self) -> bytes:
        return self.certificate.public_bytes(serialization.Encoding.DER)

    @property
    def bundle(self) -> bytes:
        """PEM."""
        return self.certificate.public_bytes(serialization.Encoding.PEM)

    def write_bundle(self, path: Path) -> Path:
        path.write_bytes(self.bundle)
        return path

    def id(self, path: str) -> str:
        return f"spiffe://{self.name}/{path}"

    def issue(
        self,
        path: str = "ns/mqtt/sa/broker",
        *,
        uris: Sequence[str] | None = None,
        lifetime_seconds: float = _DAY_SECONDS,
        begins_seconds_ago: float = 60.0,
        usages: Sequence[x509.ObjectIdentifier] | None = (SERVER, CLIENT),
        is_ca: bool = False,
        key_cert_sign: bool = False,
        hosts: Sequence[str] = (),
        subject: x509.Name | None = None,
    ) -> Svid:
        """Signed by this CA; of `path` under this domain, unless `uris` says something else."""
        key = ec.generate_private_key(ec.SECP256R1())
        names: list[x509.GeneralName] = [
            x509.UniformResourceIdentifier(uri) for uri in ([self.id(path)] if uris is None else uris)
        ]
        names += [x509.DNSName(host) for host in hosts]
        builder = _begin(subject or x509.Name([]), self.subject, key, lifetime_seconds, begins_seconds_ago)
        builder = builder.add_extension(_usage(digital_signature=True, key_cert_sign=key_cert_sign), True)
        builder = builder.add_extension(x509.BasicConstraints(is_ca, None), True)
        builder = builder.add_extension(_authority_identifier(self.key), False)
        if names:
            builder = builder.add_extension(x509.SubjectAlternativeName(names), subject is None)
        if usages is not None:
            builder = builder.add_extension(x509.ExtendedKeyUsage(usages), False)
        leaf = builder.sign(self.key, hashes.SHA256())
        between = (self.ca_der,) if self._is_intermediate else ()
        return Svid((leaf.public_bytes(serialization.Encoding.DER), *between), _der(key))

    def intermediate(self, *, permitted_uri: str | None = None) -> "TrustDomain":
        """A CA below this one's, for the same domain; what it issues brings it along."""
        below = TrustDomain(self.name)
        below._is_intermediate = True
        below.subject = _name(f"intermediate of {self.name}")
        below.certificate = self._sign_ca(below.subject, below.key, 5 * _DAY_SECONDS, permitted_uri)
        return below

    def _sign_ca(
        self,
        subject: x509.Name,
        key: ec.EllipticCurvePrivateKey,
        lifetime_seconds: float,
        permitted_uri: str | None = None,
    ) -> x509.Certificate:
        builder = _begin(subject, self.subject, key, lifetime_seconds, 3_600.0)
        builder = builder.add_extension(x509.BasicConstraints(True, None), True)
        builder = builder.add_extension(_usage(key_cert_sign=True, crl_sign=True), True)
        builder = builder.add_extension(x509.SubjectKeyIdentifier.from_public_key(key.public_key()), False)
        if key is not self.key:
            builder = builder.add_extension(_authority_identifier(self.key), False)
        if permitted_uri is not None:
            permitted = [x509.UniformResourceIdentifier(permitted_uri)]
            builder = builder.add_extension(x509.NameConstraints(permitted, None), True)
        return builder.sign(self.key, hashes.SHA256())


def _name(common_name: str) -> x509.Name:
    return x509.Name(
        [
            x509.NameAttribute(NameOID.ORGANIZATION_NAME, "SPIFFE"),
            x509.NameAttribute(NameOID.COMMON_NAME, common_name),
        ]
    )


def _begin(
    subject: x509.Name,
    issuer: x509.Name,
    key: ec.EllipticCurvePrivateKey,
    lifetime_seconds: float,
    begins_seconds_ago: float,
) -> x509.CertificateBuilder:
    now = datetime.datetime.now(datetime.UTC)
    return (
        x509.CertificateBuilder()
        .subject_name(subject)
        .issuer_name(issuer)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - datetime.timedelta(seconds=begins_seconds_ago))
        .not_valid_after(now + datetime.timedelta(seconds=lifetime_seconds))
    )


def _usage(
    digital_signature: bool = False, key_cert_sign: bool = False, crl_sign: bool = False
) -> x509.KeyUsage:
    return x509.KeyUsage(digital_signature, False, False, False, False, key_cert_sign, crl_sign, False, False)


def _authority_identifier(key: ec.EllipticCurvePrivateKey) -> x509.AuthorityKeyIdentifier:
    return x509.AuthorityKeyIdentifier.from_issuer_public_key(key.public_key())


def _der(key: ec.EllipticCurvePrivateKey) -> bytes:
    return key.private_bytes(
        serialization.Encoding.DER, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    )


def _pem(der: bytes) -> bytes:
    return x509.load_der_x509_certificate(der).public_bytes(serialization.Encoding.PEM)
