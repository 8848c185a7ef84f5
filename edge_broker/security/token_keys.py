"""The public keys that JSON Web Tokens are checked against: PEM files and key sets (JWKS, RFC 7517), read strictly.

What it keeps true:

- A key has one algorithm, which follows from the key and from nothing that a token says: RSA is RS256, P-256 is ES256,
  Ed25519 is EdDSA.
- Private and symmetric keys are refused with what to do instead: whoever can read them can sign.
- One mistake and nothing of it is used. A key that a set has for another purpose (encryption, another algorithm) is none.

It fetches nothing: what stands in a key about an address elsewhere (`x5u`, `jku`) is not looked at. PyJWT and cryptography
are imported when the first key is read. It does not verify tokens.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import msgspec

from edge_broker.errors import ConfigError

if TYPE_CHECKING:
    from cryptography.hazmat.primitives.asymmetric.ec import EllipticCurvePublicKey
    from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey
    from cryptography.hazmat.primitives.asymmetric.rsa import RSAPublicKey

    PublicKey = RSAPublicKey | EllipticCurvePublicKey | Ed25519PublicKey

ALGORITHMS: Final = ("RS256", "ES256", "EdDSA")

_MAX_FILE_BYTES: Final = 1 << 20
_MAX_KEYS: Final = 32
"""A token that names no key is tried with all of its algorithm."""
_RSA_BITS: Final = (2_048, 8_192)
_PEM_BLOCK: Final = re.compile(r"-----BEGIN ([A-Z0-9 ]+)-----.*?-----END \1-----", re.DOTALL)
_WANTED: Final = "a public key in PEM (BEGIN PUBLIC KEY), or a key set in JSON (JWKS)"
_KINDS: Final = {("RSA", None): "RS256", ("EC", "P-256"): "ES256", ("OKP", "Ed25519"): "EdDSA"}
"""A key of a set, by `kty` and `crv`."""


@dataclass(frozen=True, slots=True)
class TokenKey:
    """One public key. `key_id`: what tokens call it, None for any; `thumbprint`: SHA-256 of the key itself, in hex."""

    algorithm: str
    key_id: str | None
    thumbprint: str
    public: PublicKey


@dataclass(frozen=True, slots=True)
class TokenKeys:
    """One reading of the key files. `passed_over`: keys that were in them for another purpose."""

    keys: tuple[TokenKey, ...] = ()
    passed_over: int = 0

    def for_token(self, algorithm: str, key_id: str | None) -> Sequence[TokenKey]:
        """The keys that a token with this header may be signed by: the named one, else those without a name."""
        fitting = [key for key in self.keys if key.algorithm == algorithm]
        if key_id is None:
            return fitting
        named = [key for key in fitting if key.key_id == key_id]
        return named or [key for key in fitting if key.key_id is None]

    def gone_in(self, later: TokenKeys) -> frozenset[str]:
        """The thumbprints of keys that `later` has no more, under whatever name."""
        return frozenset(key.thumbprint for key in self.keys) - {key.thumbprint for key in later.keys}


def read_token_keys(paths: Iterable[Path]) -> TokenKeys:
    """All keys of the files at `paths`; `ConfigError` with the file in its key where one of them will not do."""
    keys: list[TokenKey] = []
    passed_over = 0
    for path in paths:
        for key in _keys_of(path):
            if key is None:
                passed_over += 1
            elif key not in keys:
                _refuse_second(key, keys, path)
                keys.append(key)
    if len(keys) > _MAX_KEYS:
        raise ConfigError("jwt_keys", f"are {len(keys)} keys, {_MAX_KEYS} are allowed", "leave old ones out")
    if not keys:
        hint = f"wanted is a key for {', '.join(ALGORITHMS)}"
        raise ConfigError("jwt_keys", "have no key that could verify a token", hint)
    return TokenKeys(tuple(keys), passed_over)


def _refuse_second(key: TokenKey, keys: list[TokenKey], path: Path) -> None:
    """One name for two keys would make it a matter of luck which is meant."""
    for other in keys:
        if key.key_id is not None and (other.algorithm, other.key_id) == (key.algorithm, key.key_id):
            raise ConfigError(
                str(path), f"has a second {key.algorithm} key with kid {key.key_id!r}", "keep one of them"
            )


def _keys_of(path: Path) -> Iterator[TokenKey | None]:
    """The keys in one file, None for each that is not for verifying tokens."""
    text = _read(path)
    if text.lstrip().startswith("{"):
        yield from _keys_of_set(text, str(path))
        return
    blocks = list(_PEM_BLOCK.finditer(text))
    if not blocks:
        raise ConfigError(str(path), "has no key in it", _WANTED)
    for block in blocks:
        yield _key_of_pem(block[1], block[0], str(path))


def _read(path: Path) -> str:
    try:
        with path.open("rb") as file:
            data = file.read(_MAX_FILE_BYTES + 1)
    except OSError as error:
        hint = "let the user that runs the broker read it" if isinstance(error, PermissionError) else ""
        raise ConfigError(str(path), f"cannot be read: {error.strerror}", hint) from None
    if len(data) > _MAX_FILE_BYTES:
        raise ConfigError(str(path), f"is larger than {_MAX_FILE_BYTES >> 20} MiB", "is it the right file?")
    try:
        return data.decode("utf-8-sig")
    except UnicodeDecodeError:
        raise ConfigError(str(path), "is not text", _WANTED) from None


# ---- PEM


def _key_of_pem(kind: str, block: str, where: str) -> TokenKey:
    if "PRIVATE" in kind:
        hint = "give its public half: openssl pkey -in FILE -pubout -out PUBLIC-KEY-FILE"
        raise ConfigError(where, "is a private key: whoever has it can make tokens", hint)
    if kind == "CERTIFICATE":
        hint = "give its key: openssl x509 -in FILE -noout -pubkey"
        raise ConfigError(where, "is a certificate, whose dates and issuer nobody would look at here", hint)
    if kind not in ("PUBLIC KEY", "RSA PUBLIC KEY"):
        raise ConfigError(where, f"has a {kind}", _WANTED)
    from cryptography.exceptions import UnsupportedAlgorithm
    from cryptography.hazmat.primitives.serialization import load_pem_public_key

    try:
        public = load_pem_public_key(block.encode())
    except (ValueError, UnsupportedAlgorithm):
        raise ConfigError(where, "has a key that cannot be read", _WANTED) from None
    return _token_key(public, None, where)


# ---- JWKS


def _keys_of_set(text: str, where: str) -> Iterator[TokenKey | None]:
    try:
        data = msgspec.json.decode(text)
    except (msgspec.DecodeError, RecursionError):
        raise ConfigError(where, "is not JSON", _WANTED) from None
    members = data.get("keys", [data] if "kty" in data else None)
    if not isinstance(members, list):
        raise ConfigError(where, 'has no list "keys"', _WANTED)
    for position, member in enumerate(members):
        yield _key_of_member(member, f"{where}: keys[{position}]")


def _key_of_member(member: Any, where: str) -> TokenKey | None:
    """A key of a set; None where it says of itself that it is for something else."""
    if not isinstance(member, dict):
        raise ConfigError(where, "is no key", _WANTED)
    if member.get("kty") == "oct":
        hint = "have the issuer sign with RS256, ES256 or EdDSA"
        raise ConfigError(where, "is a shared secret: whoever checks with it can sign with it", hint)
    if "d" in member:
        raise ConfigError(where, "is a private key: whoever has it can make tokens", "give the public keys")
    algorithm = _KINDS.get((_text(member, "kty") or "", _text(member, "crv")))
    if algorithm is None or member.get("alg", algorithm) != algorithm or member.get("use", "sig") != "sig":
        return None
    if "verify" not in member.get("key_ops", ["verify"]):
        return None
    key_id = member.get("kid")
    if key_id is not None and (not isinstance(key_id, str) or not key_id):
        raise ConfigError(where, "has a kid that is no text", "is it the issuer's file, as it is?")
    from jwt import PyJWK, PyJWTError

    try:
        public = PyJWK(member, algorithm).key
    except (PyJWTError, ValueError, TypeError, KeyError):
        raise ConfigError(where, "cannot be read as a key", "is it the issuer's file, as it is?") from None
    return _token_key(public, key_id, where)


def _text(member: dict[str, Any], name: str) -> str | None:
    value = member.get(name)
    return value if isinstance(value, str) else None


# ---- both


def _token_key(public: Any, key_id: str | None, where: str) -> TokenKey:
    """The key with the algorithm that follows from it; `ConfigError` where none does."""
    from cryptography.hazmat.primitives.asymmetric import ec, ed25519, rsa
    from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat

    if isinstance(public, rsa.RSAPublicKey):
        algorithm = "RS256"
        least, most = _RSA_BITS
        if not least <= public.key_size <= most:
            problem = f"is an RSA key of {public.key_size} bits"
            raise ConfigError(where, problem, f"from {least} to {most} bits are taken")
    elif isinstance(public, ec.EllipticCurvePublicKey) and isinstance(public.curve, ec.SECP256R1):
        algorithm = "ES256"
    elif isinstance(public, ed25519.Ed25519PublicKey):
        algorithm = "EdDSA"
    else:
        raise ConfigError(
            where, "is a key of another kind", "RSA, P-256 (prime256v1) and Ed25519 keys are taken"
        )
    der = public.public_bytes(Encoding.DER, PublicFormat.SubjectPublicKeyInfo)
    return TokenKey(algorithm, key_id, hashlib.sha256(der).hexdigest(), public)
