"""JSON Web Tokens: who they say one is, and every way in which they may not."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from edge_broker.security.token_keys import TokenKeys, read_token_keys
from edge_broker.security.tokens import REASONS, TokenRefused, TokenRules, looks_like_token, verify
from tests.security.issuer import (
    AUDIENCE,
    NOW,
    claims,
    forge,
    issue,
    jwk,
    private_key,
    public_pem,
    sign_anyhow,
    sign_with_secret,
    write_pem,
    write_set,
)

RULES = TokenRules(AUDIENCE, issuer="https://issuer.example", leeway_seconds=10)
ISSUER = {"iss": RULES.issuer}
HEADER = {"alg": "RS256", "typ": "JWT"}


@pytest.fixture(scope="module")
def keys(tmp_path_factory: pytest.TempPathFactory) -> TokenKeys:
    """One key of each algorithm without a name, and two with one."""
    folder = tmp_path_factory.mktemp("keys")
    algorithms = ("RS256", "ES256", "EdDSA")
    pem = write_pem(folder / "keys.pem", *(private_key(algorithm) for algorithm in algorithms))
    named = (jwk("ES256", 1, kid="first"), jwk("ES256", 2, kid="second"))
    return read_token_keys([pem, write_set(folder / "keys.json", *named)])


def refusal(token: bytes, keys: TokenKeys, rules: TokenRules = RULES, wall: float = NOW) -> tuple[str, str]:
    """Why it is not taken: the word and the sentence."""
    with pytest.raises(TokenRefused) as caught:
        verify(token, keys, rules, wall)
    assert caught.value.reason in REASONS
    return caught.value.reason, caught.value.detail


# ---- good ones


@pytest.mark.parametrize("algorithm", ["RS256", "ES256", "EdDSA"])
def test_a_good_token(keys: TokenKeys, algorithm: str) -> None:
    token = verify(issue(claims(groups=["sensors", "cellar"], **ISSUER), algorithm), keys, RULES, NOW)
    assert (token.name, token.groups, token.expires_at) == ("anna", ("sensors", "cellar"), NOW + 70)
    (key,) = [key for key in keys.for_token(algorithm, None) if key.key_id is None]
    assert token.thumbprint == key.thumbprint


@pytest.mark.parametrize("number", [1, 2])
def test_a_kid_chooses_the_key(keys: TokenKeys, number: int) -> None:
    kids = {1: "first", 2: "second"}
    good = issue(claims(**ISSUER), "ES256", number, {"kid": kids[number]})
    verify(good, keys, RULES, NOW)
    verify(issue(claims(**ISSUER), "ES256", number), keys, RULES, NOW)  # without one all are tried
    wrong = issue(claims(**ISSUER), "ES256", number, {"kid": kids[3 - number]})
    assert refusal(wrong, keys)[0] == "signature"


def test_an_unknown_kid_may_be_that_of_a_key_without_a_name(keys: TokenKeys) -> None:
    verify(issue(claims(**ISSUER), "RS256", headers={"kid": "2027-01"}), keys, RULES, NOW)


@pytest.mark.parametrize("header", [{"typ": "at+jwt"}, {"typ": "JWT"}, {"x5t": "abc"}])
def test_usual_headers(keys: TokenKeys, header: dict[str, Any]) -> None:
    verify(issue(claims(**ISSUER), headers=header), keys, RULES, NOW)


@pytest.mark.parametrize(
    ("said", "name", "groups"),
    [
        ({"email": "a@example.com", "realm_access": {"roles": ["x"]}}, "a@example.com", ("x",)),
        (
            {"email": "b", "realm_access.roles": "one two", "realm_access": {"roles": ["x"]}},
            "b",
            ("one", "two"),
        ),
        ({"email": "c", "realm_access": "flat"}, "c", ()),
        ({"email": "d", "realm_access": {"roles": []}}, "d", ()),
    ],
)
def test_claims_to_name_and_groups(
    keys: TokenKeys, said: dict[str, Any], name: str, groups: tuple[str, ...]
) -> None:
    rules = TokenRules(AUDIENCE, name_claim="email", groups_claim="realm_access.roles")
    token = verify(issue(claims(**said)), keys, rules, NOW)
    assert (token.name, token.groups) == (name, groups)


def test_one_audience_of_several(keys: TokenKeys) -> None:
    verify(issue(claims(aud=["web", AUDIENCE], **ISSUER)), keys, RULES, NOW)


@pytest.mark.parametrize(
    ("said", "offset"),
    [({}, 69.9), ({"nbf": NOW + 9.9}, 0), ({"nbf": NOW, "iat": NOW}, -9.9), ({"exp": NOW + 1}, 10.9)],
)
def test_the_leeway(keys: TokenKeys, said: dict[str, Any], offset: float) -> None:
    verify(issue({**claims(**ISSUER), **said}), keys, RULES, NOW + offset)


# ---- who signed it


def test_none_is_no_algorithm(keys: TokenKeys) -> None:
    for algorithm in ("none", "None", "NONE", "nOnE", ""):
        header = {"alg": algorithm, "typ": "JWT"}
        assert refusal(forge(header, claims(**ISSUER)), keys)[0] == "algorithm"
    assert refusal(forge({"typ": "JWT"}, claims(**ISSUER)), keys)[0] == "algorithm"


@pytest.mark.parametrize("algorithm", ["HS256", "HS384", "HS512"])
def test_a_public_key_is_no_secret(keys: TokenKeys, algorithm: str) -> None:
    """The oldest trick: what is public signs by HMAC, and a careless verifier takes it for the key."""
    for secret in (public_pem(private_key()), public_pem(private_key()).strip(), b""):
        token = sign_with_secret({"alg": algorithm, "typ": "JWT"}, claims(**ISSUER), secret)
        assert refusal(token, keys)[0] == "algorithm"
        token = sign_with_secret(HEADER, claims(**ISSUER), secret)
        assert refusal(token, keys)[0] == "signature"


@pytest.mark.parametrize("algorithm", ["RS384", "RS512", "PS256", "ES384", "ES256K"])
def test_other_algorithms(keys: TokenKeys, algorithm: str) -> None:
    assert refusal(forge({"alg": algorithm}, claims(), b"s" * 64), keys)[0] == "algorithm"


@pytest.mark.parametrize(
    ("said", "real"), [("ES256", "RS256"), ("RS256", "ES256"), ("EdDSA", "ES256"), ("RS256", "EdDSA")]
)
def test_swapped_algorithms(keys: TokenKeys, said: str, real: str) -> None:
    """The signature is right, by another algorithm than the header says."""
    token = sign_anyhow({"alg": said}, claims(**ISSUER), real)
    assert refusal(token, keys)[0] == "signature"


@pytest.mark.parametrize("algorithm", ["RS256", "ES256", "EdDSA"])
def test_a_strangers_key(keys: TokenKeys, algorithm: str) -> None:
    assert refusal(issue(claims(**ISSUER), algorithm, 99), keys)[0] == "signature"


def test_a_key_of_another_algorithm_under_that_kid(tmp_path: Path) -> None:
    keys = read_token_keys([write_set(tmp_path / "set", jwk("ES256", 1, kid="first"))])
    assert refusal(issue(claims(**ISSUER), "RS256", headers={"kid": "first"}), keys)[0] == "key"


@pytest.mark.parametrize(
    "kid",
    [
        "",
        "../../../../dev/null",
        "first' UNION SELECT 'x",
        "first\0",
        "FIRST",
        " first",
        "/proc/self/environ",
        "x" * 4_000,
    ],
)
def test_a_kid_is_a_name_and_nothing_else(tmp_path: Path, kid: str) -> None:
    keys = read_token_keys([write_set(tmp_path / "set", jwk("ES256", 1, kid="first"))])
    reason, detail = refusal(sign_anyhow({"alg": "ES256", "kid": kid}, claims(**ISSUER), "ES256", 1), keys)
    assert reason == "key"
    assert kid == "" or kid not in detail


@pytest.mark.parametrize("kid", [1, ["first"], {"first": 1}, True])
def test_a_kid_that_is_no_text(keys: TokenKeys, kid: object) -> None:
    token = sign_anyhow({"alg": "ES256", "kid": kid}, claims(**ISSUER), "ES256", 1)
    assert refusal(token, keys)[0] in ("header", "form")


@pytest.mark.parametrize(
    "header",
    [
        {"jku": "https://evil.example/keys.json"},
        {"x5u": "file:///etc/passwd"},
        {"x5c": ["MIIB"]},
        {"jwk": jwk("RS256", 99)},
        {"crit": ["exp"], "exp": 1},
        {"crit": []},
        {"b64": True},
        {"zip": "DEF"},
        {"typ": "logout+jwt"},
        {"typ": 5},
        {"typ": "JOSE"},
    ],
)
def test_a_header_that_brings_its_own_rules(keys: TokenKeys, header: dict[str, Any]) -> None:
    """Under a right signature as under a wrong one."""
    for number in (0, 99):
        token = sign_anyhow({**HEADER, **header}, claims(**ISSUER), "RS256", number)
        assert refusal(token, keys)[0] in ("header", "form")


def test_an_unencoded_payload(keys: TokenKeys) -> None:
    header = {**HEADER, "b64": False, "crit": ["b64"]}
    assert refusal(sign_anyhow(header, claims(**ISSUER)), keys)[0] in ("header", "form")


def test_a_change_anywhere(keys: TokenKeys) -> None:
    """Each part of another token, and each bit of a signature's last byte."""
    good, other = issue(claims(**ISSUER)), issue(claims("root", **ISSUER), number=99)
    for place in range(3):
        parts = good.split(b".")
        parts[place] = other.split(b".")[place]
        if parts != good.split(b"."):
            assert refusal(b".".join(parts), keys)[0] == "signature"
    for cut in (b"", good.split(b".")[2][:-4], good.split(b".")[2] + b"AAAA"):
        assert refusal(b".".join([*good.split(b".")[:2], cut]), keys)[0] in ("signature", "form")


# ---- what it says


@pytest.mark.parametrize(
    ("said", "reason", "detail"),
    [
        ({"exp": None}, "expiry", "never expires"),
        ({"exp": NOW - 10}, "expiry", "expired 10 s ago"),
        ({"exp": "1900000000"}, "expiry", "no moment"),
        ({"exp": True}, "expiry", "no moment"),
        ({"exp": 10**400}, "expiry", "no moment"),
        ({"exp": -1}, "expiry", "no moment"),
        ({"exp": [NOW + 60]}, "expiry", "no moment"),
        ({"nbf": NOW + 10.5}, "not_yet", "clock"),
        ({"iat": NOW + 11}, "not_yet", "clock"),
        ({"nbf": "0"}, "not_yet", "no moment"),
        ({"aud": None}, "audience", "for nobody"),
        ({"aud": "web"}, "audience", "'web', not for 'mqtt'"),
        ({"aud": ["web", "mqtt2"]}, "audience", "web"),
        ({"aud": []}, "audience", "[]"),
        ({"aud": {"mqtt": 1}}, "audience", "mqtt"),
        ({"aud": "MQTT"}, "audience", "MQTT"),
        ({"iss": None}, "issuer", "of nobody"),
        ({"iss": "https://issuer.example/"}, "issuer", "not of"),
        ({"iss": ["https://issuer.example"]}, "issuer", "not of"),
        ({"sub": None}, "name", "no name in sub"),
        ({"sub": ""}, "name", "no name"),
        ({"sub": 7}, "name", "no name"),
        ({"sub": "a\0b"}, "name", "cannot be printed"),
        ({"sub": "a\nb"}, "name", "cannot be printed"),
        ({"sub": "x" * 257}, "name", "too long"),
        ({"groups": [1]}, "groups", "no list of text"),
        ({"groups": {"a": 1}}, "groups", "no list of text"),
    ],
)
def test_claims_that_will_not_do(keys: TokenKeys, said: dict[str, Any], reason: str, detail: str) -> None:
    payload = {key: value for key, value in {**claims(**ISSUER), **said}.items() if value is not None}
    found, text = refusal(sign_anyhow(HEADER, payload), keys)
    assert (found, detail in text) == (reason, True), text
    assert len(text) < 300


@pytest.mark.parametrize("said", [{"exp": None}, {"nbf": None}])
def test_a_null_is_no_moment(keys: TokenKeys, said: dict[str, Any]) -> None:
    assert refusal(sign_anyhow(HEADER, {**claims(**ISSUER), **said}), keys)[0] in ("expiry", "not_yet")


def test_the_ends_of_the_leeway(keys: TokenKeys) -> None:
    assert refusal(issue(claims(**ISSUER)), keys, wall=NOW + 70)[0] == "expiry"
    assert refusal(issue(claims(nbf=NOW, **ISSUER)), keys, wall=NOW - 10.1)[0] == "not_yet"


def test_nothing_is_said_of_claims_before_the_signature(keys: TokenKeys) -> None:
    stranger = issue(claims("SECRET", aud="SECRET", lasts=-1000, iss="SECRET"), number=99)
    reason, detail = refusal(stranger, keys)
    assert (reason, "SECRET" in detail) == ("signature", False)


# ---- form and size


@pytest.mark.parametrize(
    "payload",
    [b"", b"[]", b'"text"', b"7", b"{", b'{"exp": NaN}', b"\xff\xfe", b"[" * 3_000, b'{"a":' * 1_000],
)
def test_payloads_that_are_no_claims(keys: TokenKeys, payload: bytes) -> None:
    assert refusal(sign_anyhow(HEADER, payload), keys)[0] in ("form", "expiry")


@pytest.mark.parametrize(
    "token",
    [
        b"",
        b"..",
        b"e..",
        b"eyJ.e.e",
        b"eyJhbGciOiJSUzI1NiJ9",
        b"eyJhbGciOiJSUzI1NiJ9.e30",
        b"eyJhbGciOiJSUzI1NiJ9.e30.AAAA.AAAA.AAAA",
        b"eyJhbGciOiJSUzI1NiJ9.e30.AA\0A",
        b"eyJhbGciOiJSUzI1NiJ9=.e30=.AAAA",
        b" eyJhbGciOiJSUzI1NiJ9.e30.AAAA",
        b"Bearer eyJhbGciOiJSUzI1NiJ9.e30.AAAA",
        forge({}, {})[:-1] + b"\n",
        b"e" + b"w" * 3_000 + b".e.e",
        bytes(range(256)),
        sign_anyhow(b"[" * 2_000, claims()),
        sign_anyhow(b'{"alg":"RS256"', claims()),
        sign_anyhow(b'{"\xff":1,"alg":"RS256"}', claims()),
    ],
)
def test_what_is_no_token(keys: TokenKeys, token: bytes) -> None:
    assert refusal(token, keys)[0] in ("form", "key", "signature", "algorithm")


def test_a_header_said_twice_cannot_hide(keys: TokenKeys) -> None:
    token = sign_anyhow(b'{"alg":"none","alg":"RS256","jku":"x","typ":"JWT"}', claims(**ISSUER))
    assert refusal(token, keys)[0] == "header"


def test_too_long_is_not_even_looked_at(keys: TokenKeys, monkeypatch: pytest.MonkeyPatch) -> None:
    from edge_broker.security import tokens

    monkeypatch.setattr(tokens, "_jws", lambda: pytest.fail("it was parsed"))
    huge = issue(claims(groups=["g" * 8_192], **ISSUER))
    assert refusal(huge, keys)[0] == "length"
    assert refusal(b"eyJ" + b"." * 65_535, keys)[0] == "length"


@pytest.mark.parametrize(
    ("password", "is_one"),
    [
        (issue(), True),
        (forge({"alg": "none"}, {}), True),
        (b"e30.e30.", True),
        (None, False),
        (b"", False),
        (b"red.green.blue", False),
        (b"eye.to.eye!", False),
        (b"easy.as.pie", False),
        (b"eyJ.only", False),
        (b"eyJ.a.b.c", False),
    ],
)
def test_what_looks_like_a_token(password: bytes | None, is_one: bool) -> None:
    assert looks_like_token(password) is is_one


# ---- anything at all

JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=20),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=10), inner, max_size=3),
    max_leaves=8,
)
HEADERS = st.fixed_dictionaries(
    {},
    optional={
        "alg": st.sampled_from(["RS256", "ES256", "EdDSA", "HS256", "none"]) | JSON,
        "typ": JSON,
        "kid": st.sampled_from(["first", "second"]) | JSON,
        "crit": JSON,
        "b64": JSON,
    },
)
CLAIMS = st.fixed_dictionaries(
    {},
    optional={
        "exp": st.floats() | st.integers() | JSON,
        "nbf": JSON,
        "iat": JSON,
        "aud": st.just(AUDIENCE) | JSON,
        "iss": st.just(RULES.issuer) | JSON,
        "sub": st.text() | JSON,
        "groups": JSON,
    },
)


@settings(deadline=None, max_examples=200)
@given(
    st.binary(max_size=200)
    | st.builds(forge, HEADERS, CLAIMS, st.binary(max_size=300))
    | st.builds(sign_anyhow, st.just({"alg": "EdDSA"}), CLAIMS, st.just("EdDSA"))
    | st.builds(
        sign_anyhow, HEADERS | st.binary(max_size=50), CLAIMS | st.binary(max_size=50), st.just("EdDSA")
    )
)
def test_whatever_comes_is_taken_or_refused(keys: TokenKeys, token: bytes) -> None:
    """And what is taken was signed, is for us, ends, and names somebody."""
    reason = None
    try:
        taken = verify(token, keys, RULES, NOW)
    except TokenRefused as refused:
        reason = refused.reason
    if reason is not None:
        assert reason in REASONS
        return
    assert NOW < taken.expires_at < 10**12
    assert taken.name.isprintable()
    assert taken.thumbprint in {key.thumbprint for key in keys.keys}
