"""Certificate revocation lists: which certificates their CA has taken back, looked up on every handshake and reload.

OpenSSL looks into the lists during the handshake too, where one that has expired refuses everybody. This is for what
OpenSSL cannot do: end connections that stand when a certificate is revoked later, look at every certificate of a chain,
and go on with an expired list where the configuration says so. A list counts only if a CA of the bundle signed it. The
`cryptography` package is imported when there are lists, and not before.
"""

from __future__ import annotations

from collections.abc import Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Final

from edge_broker.errors import ConfigError

if TYPE_CHECKING:
    from cryptography import x509

_BEGIN: Final = b"-----BEGIN X509 CRL-----"
_END: Final = b"-----END X509 CRL-----"
_MAX_FILE_BYTES: Final = 64 << 20


class RevocationLists:
    """The lists of one listener, checked: `read` makes one."""

    def __init__(self, lists: Sequence[x509.CertificateRevocationList]) -> None:
        self._lists = lists

    @classmethod
    def read(cls, paths: Sequence[Path], cas: Sequence[bytes]) -> RevocationLists:
        """The lists in `paths`, PEM, any number in each; `cas`: DER. `ConfigError` where one cannot be used."""
        from cryptography import x509

        authorities = [x509.load_der_x509_certificate(der) for der in cas]
        return cls([found for path in paths for found in _read_file(path, authorities)])

    def refusal(self, chain: Sequence[bytes]) -> str:
        """Why a chain (DER, leaf first, as it was verified) is refused; empty where nothing in it is revoked."""
        from cryptography import x509

        for position, der in enumerate(chain):
            certificate = x509.load_der_x509_certificate(der)
            for found in self._lists:
                if found.issuer != certificate.issuer:
                    continue
                entry = found.get_revoked_certificate_by_serial_number(certificate.serial_number)
                if entry is not None:
                    whose = "its certificate" if position == 0 else "a CA above its certificate"
                    return f"{whose} was revoked on {entry.revocation_date_utc:%Y-%m-%d}"
        return ""

    def expired(self, now: float) -> list[str]:
        """Who issued those whose next one is overdue; `now`: Unix time."""
        moment = datetime.fromtimestamp(now, UTC)
        return [
            found.issuer.rfc4514_string()
            for found in self._lists
            if found.next_update_utc is not None and found.next_update_utc < moment
        ]


def _read_file(path: Path, authorities: Sequence[x509.Certificate]) -> list[x509.CertificateRevocationList]:
    from cryptography import x509

    try:
        with path.open("rb") as file:
            data = file.read(_MAX_FILE_BYTES + 1)
    except OSError as error:
        raise ConfigError(str(path), f"cannot be read: {error.strerror}") from None
    if len(data) > _MAX_FILE_BYTES:
        raise ConfigError(str(path), f"is larger than {_MAX_FILE_BYTES >> 20} MiB", "is it the right file?")
    blocks = data.split(_BEGIN)[1:]
    if not blocks:
        raise ConfigError(
            str(path), "has no revocation list in it", "PEM is wanted: openssl crl -inform DER -in FILE"
        )
    lists = []
    for block in blocks:
        try:
            found = x509.load_pem_x509_crl(_BEGIN + block.partition(_END)[0] + _END + b"\n")
            found.get_revoked_certificate_by_serial_number(
                1
            )  # parses its entries, and remembers where they are
        except ValueError:
            raise ConfigError(str(path), "has a revocation list that is torn", "write it anew") from None
        _check(found, path, authorities)
        lists.append(found)
    return lists


def _check(
    found: x509.CertificateRevocationList, path: Path, authorities: Sequence[x509.Certificate]
) -> None:
    """That a CA of the bundle signed it, and that it is whole: neither a delta nor for some certificates only."""
    from cryptography import x509

    issuer = found.issuer.rfc4514_string()
    if not any(
        authority.subject == found.issuer and found.is_signature_valid(authority.public_key())  # type: ignore[arg-type]
        for authority in authorities
    ):
        raise ConfigError(
            str(path),
            f"has a list of {issuer}, which no CA of client_ca signed",
            "put that CA into client_ca",
        )
    for extension in found.extensions:
        if extension.critical and not isinstance(extension.value, x509.AuthorityKeyIdentifier):
            name = (
                extension.oid._name if extension.oid._name != "Unknown OID" else extension.oid.dotted_string
            )
            raise ConfigError(
                str(path), f"has a list of {issuer} that is only part of one ({name})", "give the whole list"
            )
