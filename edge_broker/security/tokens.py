"""JSON Web Tokens (RFC 7519, with the advice of RFC 8725): whether one is good, and whose it is.

What it keeps true:

- Nothing that a token says is believed, nor shown anywhere, before its signature is verified; its header can only choose
  among the keys that are there, by name, and has to name the algorithm that the chosen key has.
- It is refused for its length before anything of it is parsed.
- It has to expire, and to be for us.

The signature is PyJWT's and cryptography's work, the claims are looked at here, against a clock that is a parameter. It
knows nothing of connections, passwords or files; no message has a part of the token that was not verified.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from functools import cache
from typing import TYPE_CHECKING, Any, Final

import msgspec

from edge_broker.security.token_keys import ALGORITHMS, TokenKey, TokenKeys

if TYPE_CHECKING:
    from jwt import PyJWS

REASONS: Final = (
    "length",
    "form",
    "header",
    "algorithm",
    "key",
    "signature",
    "expiry",
    "not_yet",
    "audience",
    "issuer",
    "name",
    "groups",
)
"""Why a token may be refused, in a word each."""

_SHAPE: Final = re.compile(rb"e[w-z0-9_-][A-Za-z0-9_-]*\.[A-Za-z0-9_-]*\.[A-Za-z0-9_-]*")
"""Three parts of base64url, the first of which begins with the brace that opens JSON."""
_KEYS_OF_ITS_OWN: Final = ("jku", "jwk", "x5u", "x5c")
"""Headers by which a token would bring, or say where to fetch, the key that it is to be checked with."""
_OTHER_RULES: Final = ("crit", "b64", "zip")
"""Headers that would change what the rest means."""
_TYPES: Final = ("jwt", "at+jwt", "application/jwt", "application/at+jwt")
_LAST_SECOND: Final = 253_402_300_800
"""The end of the year 9999, Unix time."""
_LONGEST_NAME_BYTES: Final = 256
_SHOWN: Final = 64


class TokenRefused(Exception):
    """A token is not taken. `reason`: one of `REASONS`; `detail`: for the log, never for whoever sent it."""

    def __init__(self, reason: str, detail: str) -> None:
        super().__init__(detail)
        self.reason = reason
        self.detail = detail


@dataclass(frozen=True, slots=True)
class TokenRules:
    """What a token has to say. `issuer` empty: not looked at. `leeway_seconds`: how far clocks may be apart.

    `name_claim`, `groups_claim`: where the identity and what it belongs to stand; `a.b` is `b` within `a`, unless there is
    a claim of that whole name.
    """

    audience: str
    issuer: str = ""
    leeway_seconds: float = 30.0
    name_claim: str = "sub"
    groups_claim: str = "groups"
    max_bytes: int = 8_192


@dataclass(frozen=True, slots=True)
class Token:
    """What a good token says. `expires_at`: wall clock, the leeway included; `thumbprint`: of the key that signed it."""

    name: str
    groups: tuple[str, ...]
    expires_at: float
    thumbprint: str


@dataclass(frozen=True, slots=True)
class Parts:
    """A token taken apart. `signed`: the bytes that `signature` is of."""

    header: dict[str, Any]
    payload: bytes
    signature: bytes
    signed: bytes


def looks_like_token(password: bytes | None) -> bool:
    """Whether a password can only be meant as a token, good or bad."""
    if password is None or password[:1] != b"e" or password.count(b".") != 2:
        return False
    return _SHAPE.fullmatch(password) is not None


def verify(token: bytes, keys: TokenKeys, rules: TokenRules, wall: float) -> Token:
    """Who `token` says it is, at `wall` (Unix time); `TokenRefused` where it is not to be taken."""
    parts = parse(token, rules.max_bytes)
    key = find_key(parts, keys)
    claims = parse_claims(parts.payload)
    expires_at = _check_times(claims, rules.leeway_seconds, wall)
    _check_meant_for_us(claims, rules)
    return Token(_name_in(claims, rules), _groups_in(claims, rules), expires_at, key.thumbprint)


# ---- the header and the signature


def parse(token: bytes, max_bytes: int) -> Parts:
    """The token taken apart, believed in nothing; only one whose form and header can be taken is."""
    if len(token) > max_bytes:
        raise TokenRefused("length", f"is longer than {max_bytes} bytes")
    if not _SHAPE.fullmatch(token):
        raise TokenRefused("form", "is not three parts of base64url with dots between")
    from jwt import PyJWTError

    try:
        parts = _jws().decode_complete(token, options={"verify_signature": False})
    except (PyJWTError, ValueError, RecursionError):
        raise TokenRefused("form", "has parts that cannot be read, or rules that we do not know") from None
    _check_header(parts["header"])
    return Parts(parts["header"], parts["payload"], parts["signature"], token[: token.rindex(b".")])


def _check_header(header: dict[str, Any]) -> None:
    """Nobody vouches for it: it may name an algorithm and a key of ours, and say no more than that."""
    for name in _KEYS_OF_ITS_OWN:
        if name in header:
            raise TokenRefused("header", f"says by {name} what key to check it with; only our keys count")
    for name in _OTHER_RULES:
        if name in header:
            raise TokenRefused("header", f"has the header {name}, which would change what it means")
    kind = header.get("typ", "JWT")
    if not isinstance(kind, str) or kind.lower() not in _TYPES:
        raise TokenRefused("header", "says that it is of another type than JWT or at+jwt")
    if header.get("alg") not in ALGORITHMS:
        raise TokenRefused("algorithm", f"is not signed by one of {', '.join(ALGORITHMS)}")
    key_id = header.get("kid")
    if key_id is not None and not isinstance(key_id, str):
        raise TokenRefused("header", "has a kid that is no text")


def find_key(parts: Parts, keys: TokenKeys) -> TokenKey:
    """Which of `keys` signed it."""
    key_id = parts.header.get("kid")
    candidates = keys.for_token(parts.header["alg"], key_id)
    if not candidates:
        which = "of its kid and its algorithm" if key_id is not None else "of its algorithm"
        raise TokenRefused("key", f"is signed by a key that we do not have: there is none {which}")
    for key in candidates:
        algorithm: Any = _jws().get_algorithm_by_name(key.algorithm)
        if algorithm.verify(parts.signed, key.public, parts.signature):
            return key
    raise TokenRefused("signature", "has a signature of none of our keys")


@cache
def _jws() -> PyJWS:
    """PyJWT with no algorithm but ours."""
    from jwt import PyJWS

    return PyJWS(algorithms=list(ALGORITHMS))


# ---- the claims


def parse_claims(payload: bytes) -> dict[str, Any]:
    """What it says, to be believed where its key is known."""
    try:
        claims = msgspec.json.decode(payload)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        raise TokenRefused("form", "has claims that are not JSON") from None
    if not isinstance(claims, dict):
        raise TokenRefused("form", "has claims that are no object")
    return claims


def _check_times(claims: dict[str, Any], leeway: float, wall: float) -> float:
    """Until when it is good, the leeway included."""
    expires = _time_in(claims, "exp")
    if expires is None:
        raise TokenRefused("expiry", "never expires: it has no exp")
    if wall >= expires + leeway:
        raise TokenRefused("expiry", f"expired {wall - expires:.0f} s ago")
    for name, what in (("nbf", "is valid only"), ("iat", "was issued")):
        begins = _time_in(claims, name)
        if begins is not None and wall < begins - leeway:
            ahead = begins - wall
            raise TokenRefused("not_yet", f"{what} in {ahead:.0f} s from now: is the clock right here?")
    return expires + leeway


def _time_in(claims: dict[str, Any], name: str) -> float | None:
    """A moment, Unix time; None where there is none."""
    value = claims.get(name)
    if value is None and name not in claims:
        return None
    if isinstance(value, bool) or not isinstance(value, int | float) or not 0 <= value <= _LAST_SECOND:
        raise TokenRefused("expiry" if name == "exp" else "not_yet", f"has a {name} that is no moment")
    return float(value)


def _check_meant_for_us(claims: dict[str, Any], rules: TokenRules) -> None:
    audience = claims.get("aud")
    audiences = audience if isinstance(audience, list) else [audience]
    if rules.audience not in audiences:
        raise TokenRefused("audience", f"is for {_shown(audience)}, not for {_shown(rules.audience)}")
    if rules.issuer and claims.get("iss") != rules.issuer:
        raise TokenRefused("issuer", f"is of {_shown(claims.get('iss'))}, not of {_shown(rules.issuer)}")


def _name_in(claims: dict[str, Any], rules: TokenRules) -> str:
    name = find_claim(claims, rules.name_claim)
    if not isinstance(name, str) or not name:
        raise TokenRefused("name", f"has no name in {rules.name_claim}")
    if len(name.encode(errors="replace")) > _LONGEST_NAME_BYTES or not name.isprintable():
        raise TokenRefused("name", "has a name that is too long or has characters that cannot be printed")
    return name


def _groups_in(claims: dict[str, Any], rules: TokenRules) -> tuple[str, ...]:
    """Text is taken apart at its spaces, as OAuth's `scope` is."""
    groups = find_claim(claims, rules.groups_claim)
    if groups is None:
        return ()
    if isinstance(groups, str):
        return tuple(groups.split())
    if not isinstance(groups, list) or not all(isinstance(group, str) for group in groups):
        raise TokenRefused("groups", f"has groups in {rules.groups_claim} that are no list of text")
    return tuple(groups)


def find_claim(claims: dict[str, Any], name: str) -> Any:
    """The claim of that name, or what its dots lead to; None where there is nothing."""
    if name in claims:
        return claims[name]
    found: Any = claims
    for part in name.split("."):
        if not isinstance(found, dict):
            return None
        found = found.get(part)
    return found


def _shown(value: object) -> str:
    """A claim in a message, and no more of it than a line takes."""
    if value is None:
        return "nobody"
    text = repr(value)
    return text if len(text) <= _SHOWN else f"{text[:_SHOWN]}…"
