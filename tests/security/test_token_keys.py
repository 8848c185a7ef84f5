"""The key files: what is taken of them, what is passed over, and what is refused with a reason."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import jwt
import pytest
from cryptography.hazmat.primitives.asymmetric import ec, rsa

from edge_broker.errors import ConfigError
from edge_broker.security.token_keys import read_token_keys
from tests.config.certificates import write_pair
from tests.security.issuer import (
    jwk,
    private_key,
    private_pem,
    public_pem,
    write_pem,
    write_set,
)


def test_pem_files_and_sets_together(tmp_path: Path) -> None:
    pem = write_pem(tmp_path / "a.pem", private_key("RS256"), private_key("EdDSA"))
    known = write_set(tmp_path / "keys.json", jwk("ES256", 1, kid="one"), jwk("ES256", 2))
    single = tmp_path / "single.json"
    single.write_text(json.dumps(jwk("ES256", 3, kid="two")))
    found = [(key.algorithm, key.key_id) for key in read_token_keys([pem, known, single]).keys]
    assert found == [("RS256", None), ("EdDSA", None), ("ES256", "one"), ("ES256", None), ("ES256", "two")]


def test_text_around_a_key_is_no_matter(tmp_path: Path) -> None:
    path = tmp_path / "a.pem"
    path.write_bytes(b"# the issuer's key of 2026\n\n" + public_pem(private_key()) + b"\n")
    assert len(read_token_keys([path]).keys) == 1


@pytest.mark.parametrize(
    "changed",
    [
        {"use": "enc"},
        {"alg": "RSA-OAEP"},
        {"alg": "PS256"},
        {"alg": "HS256"},
        {"key_ops": ["encrypt"]},
        {"kty": "EC", "crv": "P-521"},
        {"kty": "AKP"},
        {"kty": 5},
    ],
)
def test_keys_for_another_purpose_are_passed_over(tmp_path: Path, changed: dict[str, Any]) -> None:
    keys = read_token_keys([write_set(tmp_path / "set", jwk("EdDSA"), {**jwk("RS256"), **changed})])
    assert ([key.algorithm for key in keys.keys], keys.passed_over) == (["EdDSA"], 1)


def write(path: Path, content: str | bytes) -> Path:
    path.write_bytes(content.encode() if isinstance(content, str) else content)
    return path


@pytest.mark.parametrize(
    ("content", "said"),
    [
        (b"", "has no key in it"),
        (b"nothing", "has no key in it"),
        (b"\xff\xfe", "is not text"),
        (lambda: private_pem(private_key()), "openssl pkey -in FILE -pubout"),
        (lambda: public_pem(private_key())[:200] + b"\n-----END PUBLIC KEY-----\n", "cannot be read"),
        (lambda: public_pem(rsa.generate_private_key(65_537, 1_024)), "an RSA key of 1024 bits"),
        (lambda: public_pem(ec.generate_private_key(ec.SECP384R1())), "is a key of another kind"),
        (b"-----BEGIN PGP MESSAGE-----\nx\n-----END PGP MESSAGE-----", "has a PGP MESSAGE"),
        (b"{", "is not JSON"),
        (b'{"a":' * 5_000, "is not JSON"),
        (b'{"keys": 5}', 'has no list "keys"'),
        (b'{"issuer": "https://issuer.example"}', 'has no list "keys"'),
        (b'{"keys": []}', "have no key that could verify"),
        (b'{"keys": [5]}', "keys[0]: is no key"),
        (b'{"keys": [{"kty": "oct", "k": "c2VjcmV0LXNlY3JldC1zZWNyZXQtc2VjcmV0"}]}', "is a shared secret"),
        (b'{"keys": [{"kty": "RSA", "n": "!", "e": "AQAB"}]}', "cannot be read as a key"),
        (b'{"keys": [{"kty": "EC", "crv": "P-256"}]}', "cannot be read as a key"),
        (b'{"keys": [{"kty": "OKP", "crv": "Ed25519", "x": "AAAA"}]}', "cannot be read as a key"),
        (lambda: json.dumps({"keys": [jwk("ES256", kid=5)]}), "kid that is no text"),
        (
            lambda: json.dumps({"keys": [jwk("ES256", 1, kid="a"), jwk("ES256", 2, kid="a")]}),
            "a second ES256 key",
        ),
        (lambda: json.dumps({"keys": [jwk("EdDSA", d="AAAA")]}), "is a private key"),
        (lambda: json.dumps({"keys": [jwk("RS256", use="enc")]}), "have no key that could verify"),
        (lambda: json.dumps({"keys": [jwk("EdDSA", number) for number in range(33)]}), "are 34 keys"),
        (b" " * ((1 << 20) + 1), "is larger than 1 MiB"),
    ],
)
def test_a_file_that_will_not_do(tmp_path: Path, content: Any, said: str) -> None:
    good = write_pem(tmp_path / "good.pem", private_key()) if "have no key" not in said else None
    path = write(tmp_path / "keys", content() if callable(content) else content)
    with pytest.raises(ConfigError) as caught:
        read_token_keys([path] if good is None else [good, path])
    assert said in str(caught.value)
    assert "c2VjcmV0" not in str(caught.value)


def test_a_certificate_is_told_apart(tmp_path: Path) -> None:
    certificate, _ = write_pair(tmp_path, "issuer")
    with pytest.raises(ConfigError, match="openssl x509"):
        read_token_keys([certificate])


def test_a_file_that_is_not_there(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="cannot be read: No such file"):
        read_token_keys([tmp_path / "nothing"])


def test_what_is_gone_in_a_later_reading(tmp_path: Path) -> None:
    """A key under another name is the same key."""
    before = read_token_keys([write_set(tmp_path / "1", jwk("ES256", 1, kid="a"), jwk("ES256", 2, kid="b"))])
    after = read_token_keys([write_set(tmp_path / "2", jwk("ES256", 1, kid="z"), jwk("ES256", 3, kid="b"))])
    gone = {key.thumbprint for key in before.keys if key.key_id == "b"}
    assert before.gone_in(after) == gone
    assert before.gone_in(before) == frozenset()


def test_what_pyjwt_writes_is_what_is_read(tmp_path: Path) -> None:
    """The helper of these tests is no judge in its own cause: PyJWT reads the set as well."""
    members = [jwk("RS256", kid="a"), jwk("ES256", kid="b"), jwk("EdDSA", kid="c")]
    theirs = {key.key_id for key in jwt.PyJWKSet(members).keys}
    ours = {key.key_id for key in read_token_keys([write_set(tmp_path / "set", *members)]).keys}
    assert ours == theirs == {"a", "b", "c"}
