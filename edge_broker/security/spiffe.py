"""SPIFFE identifiers: `spiffe://TRUST-DOMAIN/PATH`, checked as the SPIFFE-ID standard wants them (sections 2.1 to 2.4)."""

from __future__ import annotations

import re
from typing import Final

_SCHEME: Final = "spiffe://"
_TRUST_DOMAIN: Final = re.compile(r"[a-z0-9._-]+")
_SEGMENT: Final = re.compile(r"[a-zA-Z0-9._-]+")
_LONGEST_ID_BYTES: Final = 2048
_LONGEST_TRUST_DOMAIN_BYTES: Final = 255


def check_trust_domain(text: str) -> None:
    """`ValueError` says what is wrong with it."""
    if not _TRUST_DOMAIN.fullmatch(text):
        raise ValueError("a trust domain has lower-case letters, digits, dots, dashes and underscores only")
    if len(text) > _LONGEST_TRUST_DOMAIN_BYTES:
        raise ValueError(f"a trust domain has at most {_LONGEST_TRUST_DOMAIN_BYTES} bytes")


def check_spiffe_id(text: str) -> None:
    """`ValueError` says what is wrong with the identifier of a workload: it has a path, and neither port nor query."""
    if not text.startswith(_SCHEME):
        raise ValueError("a SPIFFE identifier begins with spiffe://")
    if len(text.encode()) > _LONGEST_ID_BYTES:
        raise ValueError(f"a SPIFFE identifier has at most {_LONGEST_ID_BYTES} bytes")
    trust_domain, slash, path = text.removeprefix(_SCHEME).partition("/")
    check_trust_domain(trust_domain)
    if not slash or not path:
        raise ValueError("a SPIFFE identifier of a client has a path: spiffe://TRUST-DOMAIN/PATH")
    for segment in path.split("/"):
        if not _SEGMENT.fullmatch(segment) or segment in (".", ".."):
            raise ValueError(
                "the path of a SPIFFE identifier has letters, digits, . - and _ between its slashes"
            )
