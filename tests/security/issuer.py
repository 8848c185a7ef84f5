"""An issuer of JSON Web Tokens, with keys made on the spot; it also makes those that no issuer should."""

from __future__ import annotations

import base64
import hashlib
import hmac
import json
from functools import cache
from pathlib import Path
from typing import Any

import jwt
from cryptography.hazmat.primitives.asymmetric import ec, ed25519, rsa
from cryptography.hazmat.primitives.serialization import (
    Encoding,
    NoEncryption,
    PrivateFormat,
    PublicFormat,
)

NOW = 1_800_000_000.0
AUDIENCE = "mqtt"
PrivateKey = rsa.RSAPrivateKey | ec.EllipticCurvePrivateKey | ed25519.Ed25519PrivateKey


def private_key(algorithm: str = "RS256", number: int = 0) -> PrivateKey:
    """One of several for each algorithm."""
    return _private_key(algorithm, number)


@cache
def _private_key(algorithm: str, number: int) -> PrivateKey:
    if algorithm.startswith(("RS", "PS")):
        return rsa.generate_private_key(65_537, 2_048)
    if algorithm == "EdDSA":
        return ed25519.Ed25519PrivateKey.generate()
    curve = {"ES256": ec.SECP256R1(), "ES384": ec.SECP384R1()}[algorithm]
    return ec.generate_private_key(curve)


def public_pem(key: PrivateKey) -> bytes:
    return key.public_key().public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo)


def private_pem(key: PrivateKey) -> bytes:
    return key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())


def jwk(algorithm: str = "RS256", number: int = 0, **members: Any) -> dict[str, Any]:
    """The public key as a member of a key set."""
    made = jwt.get_algorithm_by_name(algorithm).to_jwk(
        private_key(algorithm, number).public_key(), as_dict=True
    )
    return {**made, "use": "sig", **members}


def write_set(path: Path, *members: Any) -> Path:
    path.write_text(json.dumps({"keys": members}))
    return path


def write_pem(path: Path, *keys: PrivateKey) -> Path:
    path.write_bytes(b"".join(map(public_pem, keys)))
    return path


def claims(name: str = "anna", *, now: float = NOW, lasts: float = 60.0, **more: Any) -> dict[str, Any]:
    """What a good token says; a claim of None is left out."""
    said = {"sub": name, "aud": AUDIENCE, "exp": now + lasts, **more}
    return {key: value for key, value in said.items() if value is not None}


def issue(
    said: dict[str, Any] | None = None,
    algorithm: str = "RS256",
    number: int = 0,
    headers: dict[str, Any] | None = None,
) -> bytes:
    """A token, signed."""
    said = claims() if said is None else said
    key = private_key(algorithm, number)
    return jwt.encode(said, key, algorithm, headers=headers).encode()  # type: ignore[arg-type]


def part(data: object) -> bytes:
    """base64url of JSON, or of bytes."""
    raw = data if isinstance(data, bytes) else json.dumps(data).encode()
    return base64.urlsafe_b64encode(raw).rstrip(b"=")


def forge(header: dict[str, Any], said: object, signature: bytes = b"") -> bytes:
    return b".".join((part(header), part(said), part(signature)))


def sign_with_secret(header: dict[str, Any], said: object, secret: bytes) -> bytes:
    """HMAC with what is no secret: a public key."""
    signed = part(header) + b"." + part(said)
    return signed + b"." + part(hmac.digest(secret, signed, hashlib.sha256))


def sign_anyhow(header: object, payload: object, algorithm: str = "RS256", number: int = 0) -> bytes:
    """A right signature under whatever header and payload."""
    signed = part(header) + b"." + part(payload)
    algorithms = jwt.get_algorithm_by_name(algorithm)
    return signed + b"." + part(algorithms.sign(signed, private_key(algorithm, number)))
