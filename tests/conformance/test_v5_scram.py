"""SCRAM-SHA-256, a client's side of it [RFC 5802, RFC 7677], which the broker's is judged by; itself judged by the RFC.

It shares nothing with the broker's. Names and passwords are plain ASCII.
"""

from __future__ import annotations

import base64
import hashlib
import hmac

METHOD = "SCRAM-SHA-256"
SALT, ITERATIONS = b"0123456789abcdef", 4096


def _b64(data: bytes) -> str:
    return base64.b64encode(data).decode()


def _hmac(key: bytes, data: bytes) -> bytes:
    return hmac.digest(key, data, "sha256")


def verifier(password: str) -> str:
    """What a server keeps of a password, in RFC 5803's form."""
    salted = hashlib.pbkdf2_hmac("sha256", password.encode(), SALT, ITERATIONS)
    stored = hashlib.sha256(_hmac(salted, b"Client Key")).digest()
    return f"{METHOD}${ITERATIONS}:{_b64(SALT)}${_b64(stored)}:{_b64(_hmac(salted, b'Server Key'))}"


class Scram:
    """One exchange: `first`, then `final` for the server's first message; `check` its last one."""

    def __init__(self, name: str, password: str, nonce: str = "fyko+d2lbbFgONRv9qkxdawL") -> None:
        self._bare = f"n={name},r={nonce}"
        self._password = password
        self.first = f"n,,{self._bare}".encode()
        self._signature = b""

    def final(self, server_first: bytes) -> bytes:
        fields = dict(part.split("=", 1) for part in server_first.decode().split(","))
        salt, iterations = base64.b64decode(fields["s"]), int(fields["i"])
        salted = hashlib.pbkdf2_hmac("sha256", self._password.encode(), salt, iterations)
        unproved = f"c=biws,r={fields['r']}"
        signed = f"{self._bare},{server_first.decode()},{unproved}".encode()
        client_key = _hmac(salted, b"Client Key")
        mask = _hmac(hashlib.sha256(client_key).digest(), signed)
        self._signature = _hmac(_hmac(salted, b"Server Key"), signed)
        proof = bytes(a ^ b for a, b in zip(client_key, mask, strict=True))
        return f"{unproved},p={_b64(proof)}".encode()

    def check(self, server_final: bytes) -> None:
        assert server_final == f"v={_b64(self._signature)}".encode(), "the server does not know the password"


def test_the_client_is_that_of_rfc_7677() -> None:
    """The exchange of its section 3."""
    nonce = "rOprNGfwEbeRWgbNEkqO"
    whole_nonce = f"{nonce}%hvYDpWUa2RaTCAfuxFIlj)hNlF$k0"
    exchange = Scram("user", "pencil", nonce)
    assert exchange.first == f"n,,n=user,r={nonce}".encode()
    final = exchange.final(f"r={whole_nonce},s=W22ZaJ0SNY7soEsUEjb6gQ==,i=4096".encode())
    assert final == f"c=biws,r={whole_nonce},p=dHzbZapWIk4jUhN+Ute9ytag9zjfMHgsqmmiz7AndVQ=".encode()
    exchange.check(b"v=6rriTRBi23WpRR/wtup+mMhUZUn/dB5nLTJRsjl95G4=")
