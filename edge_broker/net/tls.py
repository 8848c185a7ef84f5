"""TLS over a plain transport: encrypted bytes in and out, plain bytes out and in, no socket.

A connection takes the newest `ssl.SSLContext` when it begins, so that renewed certificates apply to the next connection,
and costs far less memory than asyncio's own TLS. One `TlsPipe` is one side of one connection; both sides use it.
"""

from __future__ import annotations

import ssl
from collections.abc import Sequence
from typing import Any, ClassVar, Final, cast

from edge_broker.core.ports import PeerCertificate
from edge_broker.key_pair import load_key_pair

_READ_BYTES: Final = 64 << 10
_CIPHERS: Final = "ECDHE+AESGCM:ECDHE+CHACHA20"
"""TLS 1.2's that are authenticated and forward secret (RFC 9325); TLS 1.3 has no others."""


class TlsPipe:
    """Turns the peer's bytes into plain ones and ours into encrypted ones; `take_output` after every call.

    `established` once the handshake is done; `ended` once the peer has closed its direction in due form. Failures raise
    `ssl.SSLError`; whatever is in the output then (an alert) should still be sent. It is a `net.pipes.Pipe`.
    """

    has_more: ClassVar[bool] = False  # decrypting is quick, so all is done at once
    mid_frame: ClassVar[bool] = False  # a record is small
    lingers: ClassVar[bool] = False  # the peer's own close_notify is not waited for

    __slots__ = ("_incoming", "_object", "_outgoing", "_waiting", "ended", "established")

    def __init__(
        self, context: ssl.SSLContext, server_side: bool, server_hostname: str | None = None
    ) -> None:
        self._incoming = ssl.MemoryBIO()
        self._outgoing = ssl.MemoryBIO()
        self._object = context.wrap_bio(
            self._incoming, self._outgoing, server_side=server_side, server_hostname=server_hostname
        )
        self._waiting: list[bytes] | None = None  # plain bytes written before the handshake was done
        self.established = False
        self.ended = False

    def start(self) -> None:
        """Begin the handshake: the client speaks first."""
        self._handshake()

    def receive(self, data: bytes) -> bytes:
        """Take encrypted bytes; returns the plain ones that are whole."""
        self._incoming.write(data)
        if not self.established:
            self._handshake()
            if not self.established:
                return b""
        parts = []
        try:
            while True:
                part = self._object.read(_READ_BYTES)
                if not part:
                    self.ended = True
                    break
                parts.append(part)
        except ssl.SSLWantReadError:
            pass
        except ssl.SSLZeroReturnError:
            self.ended = True
        return parts[0] if len(parts) == 1 else b"".join(parts)

    def send(self, data: bytes) -> None:
        """Encrypt `data`; before the end of the handshake it waits."""
        if not self.established:
            if self._waiting is None:
                self._waiting = []
            self._waiting.append(data)
        elif data:
            self._object.write(data)

    def take_output(self) -> bytes:
        """The encrypted bytes to send now."""
        return self._outgoing.read()

    def shut(self) -> None:
        """Say that we send no more (close_notify)."""
        if self.established:
            try:
                self._object.unwrap()
            except (ssl.SSLWantReadError, ssl.SSLError):
                pass  # that of the peer is not there

    def peer_certificate(self) -> bytes | None:
        """The peer's verified certificate in DER, None where it gave none."""
        return self._object.getpeercert(binary_form=True)

    def peer_names(self) -> dict[str, tuple[str, ...]]:
        """The names in the peer's verified certificate: ``common_name``, ``san_dns``, ``uri``, and of these ``spiffe``."""
        certificate = cast(dict[str, Any], self._object.getpeercert() or {})
        subject = [pair for names in certificate.get("subject", ()) for pair in names]
        alternatives = certificate.get("subjectAltName", ())
        return {
            "common_name": tuple(value for name, value in subject if name == "commonName"),
            "san_dns": tuple(value for kind, value in alternatives if kind == "DNS"),
            "uri": tuple(value for kind, value in alternatives if kind == "URI"),
            "spiffe": tuple(v for kind, v in alternatives if kind == "URI" and v.startswith("spiffe://")),
        }

    def peer(self) -> PeerCertificate | None:
        """The peer's verified certificate, None where it gave none."""
        certificate = self.peer_certificate()
        if certificate is None:
            return None
        return PeerCertificate(self.peer_names(), tuple(self._verified_chain()) or (certificate,))

    def _verified_chain(self) -> Sequence[bytes]:
        """As OpenSSL built it, DER; empty for a resumed session."""
        public: Any = getattr(self._object, "get_verified_chain", None)  # Python 3.13 and up
        if public is not None:
            return cast(Sequence[bytes], public())
        inner: Any = self._object._sslobj  # type: ignore[attr-defined]
        return [ssl.PEM_cert_to_DER_cert(found.public_bytes()) for found in inner.get_verified_chain() or ()]

    def presented_chain(self) -> list[bytes]:
        """What the peer sent, leaf first, DER. OpenSSL verified the leaf by way of some of it, or of none."""
        public: Any = getattr(self._object, "get_unverified_chain", None)  # Python 3.13 and up
        if public is not None:
            return list(public())
        inner: Any = self._object._sslobj  # type: ignore[attr-defined]
        return [ssl.PEM_cert_to_DER_cert(one.public_bytes()) for one in inner.get_unverified_chain() or ()]

    @property
    def version(self) -> str:
        """The protocol agreed on, as in ``TLSv1.3``; empty before."""
        return self._object.version() or ""

    def encryption(self) -> tuple[str, str] | None:
        """Version and cipher, as in ``("TLSv1.3", "TLS_AES_256_GCM_SHA384")``; None before."""
        cipher = self._object.cipher()
        return None if cipher is None else (self.version, cipher[0])

    def _handshake(self) -> None:
        try:
            self._object.do_handshake()
        except ssl.SSLWantReadError:
            return
        self.established = True
        waiting, self._waiting = self._waiting, None
        for data in waiting or ():
            self._object.write(data)


def server_context(
    certificate: str,
    key: str,
    client_ca: str | None = None,
    require_client_certificate: bool = False,
    crls: Sequence[str] = (),
) -> ssl.SSLContext:
    """A listener's context: TLS 1.2 and up; with `client_ca` clients' certificates are verified, and demanded if asked.

    `crls`: files with revocation lists. Then a client's certificate needs the list of the CA that issued it, and one that
    has not expired. Where a certificate says what it may be used for, OpenSSL sees to it that a client is among that.
    """
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    context.options |= ssl.OP_NO_RENEGOTIATION | ssl.OP_CIPHER_SERVER_PREFERENCE
    context.set_ciphers(_CIPHERS)
    load_key_pair(context, certificate, key)
    if client_ca is not None:
        context.load_verify_locations(client_ca)
        for crl in crls:
            context.load_verify_locations(crl)
            context.verify_flags |= ssl.VERIFY_CRL_CHECK_LEAF
        context.verify_mode = ssl.CERT_REQUIRED if require_client_certificate else ssl.CERT_OPTIONAL
    return context


def client_context(
    ca: str | None = None,
    certificate: str | None = None,
    key: str | None = None,
    check_hostname: bool = True,
    authorities: Sequence[bytes] = (),
) -> ssl.SSLContext:
    """A client's context: TLS 1.2 and up, the server verified against `ca` or the system's, ourselves by certificate.

    `authorities`: certificates, DER, that are trusted instead, also where they are no roots.
    """
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    context.check_hostname = check_hostname
    if authorities:
        context.verify_flags |= ssl.VERIFY_X509_PARTIAL_CHAIN
        context.load_verify_locations(cadata=b"".join(authorities))
    elif ca is not None:
        context.load_verify_locations(ca)
    else:
        context.load_default_certs(ssl.Purpose.SERVER_AUTH)
    if certificate is not None:
        context.load_cert_chain(certificate, key)
    return context
