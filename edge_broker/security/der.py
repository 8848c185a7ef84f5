"""What certificates and revocation lists say of themselves, read out of their DER: until when they hold, serial, CA or not.

A running broker that only wants to know when its certificates expire does not load the `cryptography` package for that,
which would take more memory than the rest of TLS. It reads what OpenSSL or `cryptography` has accepted already, or its
operator's own files; it verifies nothing, and what is decided by it is decided on certificates that a handshake verified.
"""

from __future__ import annotations

import re
import ssl
from collections.abc import Iterator
from datetime import UTC, datetime
from typing import Final, NamedTuple

_SEQUENCE: Final = 0x30
_INTEGER: Final = 0x02
_OBJECT_IDENTIFIER: Final = 0x06
_BOOLEAN: Final = 0x01
_UTC_TIME: Final = 0x17
_GENERALIZED_TIME: Final = 0x18
_VERSION: Final = 0xA0
_EXTENSIONS: Final = 0xA3
_BASIC_CONSTRAINTS: Final = bytes.fromhex("551d13")
_PEM: Final = re.compile(rb"-----BEGIN (CERTIFICATE|X509 CRL)-----\s.*?-----END \1-----", re.DOTALL)


class Element(NamedTuple):
    """One value in DER: its tag and what is in it."""

    tag: int
    content: bytes


def pem_blocks(data: bytes, kind: str = "CERTIFICATE") -> list[bytes]:
    """The DER of every block of `kind` (``CERTIFICATE``, ``X509 CRL``) in a PEM file; `ValueError` for a torn one."""
    found = []
    for match in _PEM.finditer(data):
        if match[1].decode() == kind:
            text = match[0].decode("ascii", "strict").replace("X509 CRL", "CERTIFICATE")
            found.append(ssl.PEM_cert_to_DER_cert(text))
    return found


def certificate_ends_at(der: bytes) -> float:
    """A certificate's notAfter, Unix time."""
    _, _, end = _validity(der)
    return end


def validity(der: bytes) -> tuple[float, float]:
    """A certificate's notBefore and notAfter, Unix time."""
    _, begin, end = _validity(der)
    return begin, end


def crl_ends_at(der: bytes) -> float | None:
    """When a revocation list's next one is due, Unix time; None where it does not say."""
    times = [
        _time(element)
        for element in elements(_only(_only(der)))
        if element.tag in (_UTC_TIME, _GENERALIZED_TIME)
    ]
    return times[1] if len(times) > 1 else None


def first_expiry(data: bytes, kind: str) -> float | None:
    """When the first of a PEM file's certificates (`kind` ``crl``: revocation lists) expires, Unix time, if one does."""
    if kind == "crl":
        moments = [crl_ends_at(der) for der in pem_blocks(data, "X509 CRL")]
    else:
        moments = [certificate_ends_at(der) for der in pem_blocks(data)]
    return min((moment for moment in moments if moment is not None), default=None)


def serial_of(der: bytes) -> int:
    """A certificate's serial number."""
    serial, _, _ = _validity(der)
    return serial


def is_ca(der: bytes) -> bool:
    """Whether a certificate may sign others (basicConstraints)."""
    fields = _certificate_fields(der)
    for element in fields:
        if element.tag != _EXTENSIONS:
            continue
        for extension in elements(_only(element.content)):
            parts = list(elements(extension.content))
            if parts and parts[0] == (_OBJECT_IDENTIFIER, _BASIC_CONSTRAINTS):
                constraints = elements(_only(parts[-1].content))
                return any(part.tag == _BOOLEAN and part.content != b"\0" for part in constraints)
    return False


def elements(data: bytes) -> Iterator[Element]:
    """The values that stand one after the other in `data`; `ValueError` where it is cut off."""
    at = 0
    while at < len(data):
        if at + 2 > len(data):
            raise ValueError("DER is cut off")
        tag, length = data[at], data[at + 1]
        at += 2
        if length & 0x80:
            octets = length & 0x7F
            length = int.from_bytes(data[at : at + octets], "big")
            at += octets
        if at + length > len(data):
            raise ValueError("DER is cut off")
        yield Element(tag, data[at : at + length])
        at += length


def _validity(der: bytes) -> tuple[int, float, float]:
    """Serial number, notBefore, notAfter."""
    fields = _certificate_fields(der)
    begin, end = elements(fields[3].content)
    return int.from_bytes(fields[0].content, "big", signed=True), _time(begin), _time(end)


def _certificate_fields(der: bytes) -> list[Element]:
    """Serial, signature algorithm, issuer, validity, subject, key, and what may come behind [RFC 5280 section 4.1]."""
    fields = [part for part in elements(_only(_only(der))) if part.tag != _VERSION]
    if len(fields) < 6 or fields[0].tag != _INTEGER or fields[3].tag != _SEQUENCE:
        raise ValueError("it is no certificate")
    return fields


def _only(data: bytes) -> bytes:
    """The content of the sequence that `data` begins with."""
    first = next(elements(data), Element(0, b""))
    if first.tag != _SEQUENCE:
        raise ValueError("it is no DER sequence")
    return first.content


def _time(element: Element) -> float:
    """UTCTime or GeneralizedTime as RFC 5280 section 4.1.2.5 wants them: in UTC, to the second."""
    text = element.content.decode("ascii", "strict")
    if element.tag == _UTC_TIME:
        text = ("19" if text[:2] >= "50" else "20") + text
    return datetime.strptime(text, "%Y%m%d%H%M%SZ").replace(tzinfo=UTC).timestamp()
