"""What a listener demands of clients' certificates beyond the chain that TLS verified, and whom they make of a client.

What it keeps true:

- A certificate that is shown counts or is refused, and never ignored: one without a name of the kind asked for does not
  come in as somebody else.
- A SPIFFE certificate has exactly one URI, well formed, and is no CA's.
- Deny list and revocation lists are looked into at each handshake. When any of the files has changed, who is connected is
  asked the same again, and also whether a CA that still counts vouches for it, and whether its certificate still holds.

One `CertificateVetting` is one reading of the files: it does not change, but for the deny list, which all listeners share.
"""

from __future__ import annotations

import logging
import re
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final, Literal

from edge_broker.core.ports import Judgement, PeerCertificate
from edge_broker.errors import ConfigError
from edge_broker.security.admission import ANONYMOUS
from edge_broker.security.denied import DenyList
from edge_broker.security.der import certificate_ends_at, is_ca, pem_blocks, serial_of
from edge_broker.security.spiffe import check_spiffe_id

log: Final = logging.getLogger("edge_broker.security")

IdentityFrom = Literal["common_name", "san_dns", "spiffe"]
_KINDS: Final = {
    "common_name": "common name",
    "san_dns": "DNS name",
    "spiffe": "spiffe:// URI",
}
_LONGEST_NAME_BYTES: Final = 2048


@dataclass(frozen=True, slots=True)
class Demands:
    """What the configuration says of one listener. `allowed_names`: patterns with `*`; empty is every name."""

    client_ca: Path
    identity_from: IdentityFrom = "common_name"
    allowed_names: tuple[str, ...] = ()
    crl_files: tuple[Path, ...] = ()
    when_crl_expired: Literal["refuse", "warn"] = "refuse"

    @property
    def strict_crls(self) -> tuple[Path, ...]:
        """The lists that the handshake itself is to look into: it refuses everybody once one has expired."""
        return self.crl_files if self.when_crl_expired == "refuse" else ()


class CertificateVetting:
    """A `Vetting`. Reads the files that `demands` names; `ConfigError` where they will not do. `wall`: Unix time."""

    def __init__(self, demands: Demands, deny_list: DenyList, wall: Callable[[], float] = time.time) -> None:
        self._demands = demands
        self._deny_list = deny_list
        self._wall = wall
        self._allowed = [_pattern(text) for text in demands.allowed_names]
        self._cas = frozenset(_read_cas(demands.client_ca))
        self._lists = None
        if demands.crl_files:
            from edge_broker.security.revocation import RevocationLists

            self._lists = RevocationLists.read(demands.crl_files, list(self._cas))
            self._tell_expired(self._lists.expired(wall()))

    def judge(self, peer: PeerCertificate) -> Judgement:
        """Names, or why it is refused."""
        try:
            refusal = self._taken_back(peer)
            return Judgement(refusal=refusal) if refusal else Judgement((self._name(peer),))
        except ValueError as error:
            return Judgement(refusal=f"its certificate is not let in: {error}")

    def judge_again(self, peer: PeerCertificate) -> Judgement:
        """The same, and whether TLS would verify it now."""
        try:
            is_vouched_for = self._is_vouched_for(peer.chain)
        except ValueError:  # OpenSSL reads more than others do
            is_vouched_for = False
        if not is_vouched_for:
            return Judgement(refusal="the CA of its certificate is not trusted any more")
        return self.judge(peer)

    def _taken_back(self, peer: PeerCertificate) -> str:
        """Why it does not count any more; empty where it does."""
        if certificate_ends_at(peer.chain[0]) < self._wall():  # a resumed session's may have ended
            return "its certificate has expired"
        serials = self._deny_list.now.serials
        if serials and serial_of(peer.chain[0]) in serials:
            return f"its certificate, serial {serial_of(peer.chain[0]):x}, is on the deny list"
        return "" if self._lists is None else self._lists.refusal(peer.chain)

    def _name(self, peer: PeerCertificate) -> str:
        """Whom the certificate makes of it; `ValueError` says why nobody."""
        kind = self._demands.identity_from
        names = peer.names.get(kind, ())
        if kind == "spiffe":
            _check_spiffe(peer)
        elif not names:
            raise ValueError(f"it has no {_KINDS[kind]}")
        name = names[0]
        if not name.isprintable() or name != name.strip() or len(name.encode()) > _LONGEST_NAME_BYTES:
            raise ValueError(f"its {_KINDS[kind]} has characters that no name has, or too many")
        if name == ANONYMOUS:
            raise ValueError(f"its {_KINDS[kind]} is {ANONYMOUS}, which is whoever proves nothing")
        if self._allowed and not any(pattern.fullmatch(name) for pattern in self._allowed):
            raise ValueError(f"{name!r} is not among the allowed_names of this listener")
        return name

    def _is_vouched_for(self, chain: Sequence[bytes]) -> bool:
        """Whether what the chain leads to is among the CAs of now, or one of these has the same key and name."""
        if chain[-1] in self._cas:
            return True
        from cryptography import x509  # the bundle has changed, and it is not the very same certificate

        last = x509.load_der_x509_certificate(chain[max(0, len(chain) - 2)])
        return any(_issued(x509.load_der_x509_certificate(ca), last) for ca in self._cas)

    def _tell_expired(self, issuers: Sequence[str]) -> None:
        for issuer in issuers:
            log.error(
                "the revocation list of %s has expired: %s",
                issuer,
                "its clients are not let in until there is a new one (when_crl_expired)"
                if self._demands.when_crl_expired == "refuse"
                else "what was revoked since is not known",
            )


def _pattern(text: str) -> re.Pattern[str]:
    """`*` is anything; nothing else is special."""
    return re.compile(".*".join(map(re.escape, text.split("*"))))


def _check_spiffe(peer: PeerCertificate) -> None:
    """X509-SVID sections 2 and 4.1: one URI, and not a CA's."""
    uris = peer.names.get("uri", ())
    if len(uris) != 1:
        count = "no" if not uris else str(len(uris))
        raise ValueError(f"a SPIFFE certificate has exactly one URI, and it has {count}")
    check_spiffe_id(uris[0])
    if is_ca(peer.chain[0]):
        raise ValueError("it is a CA's, and a SPIFFE certificate of a client is not")


def _issued(ca: object, certificate: object) -> bool:
    from cryptography import x509
    from cryptography.exceptions import InvalidSignature

    assert isinstance(ca, x509.Certificate)
    assert isinstance(certificate, x509.Certificate)
    try:
        certificate.verify_directly_issued_by(ca)
    except (ValueError, TypeError, InvalidSignature):
        return False
    return True


def _read_cas(path: Path) -> list[bytes]:
    try:
        found = pem_blocks(path.read_bytes())
    except OSError as error:
        raise ConfigError(str(path), f"cannot be read: {error.strerror}") from None
    except ValueError:
        found = []
    if not found:
        raise ConfigError(str(path), "has no certificate in it", "a PEM file is wanted")
    return found
