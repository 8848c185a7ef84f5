"""SCRAM-SHA-256, the server's side: a password proved over MQTT 5's enhanced authentication without being sent.

RFC 5802 with RFC 7677's hash, and no channel binding: a client that asks for it is refused. Two messages come from the
client, one answer each leaves; bytes in, bytes out, nonces are a parameter. What it keeps true:

- Neither a password nor what would do in its place is kept: a `ScramVerifier` can check a proof and not make one.
- Whether a name exists is not to be told from answers, reasons or the work done: an unknown name runs with a decoy.
- Whatever a client sends, `start` and `finish` answer or raise `ScramError`, and after that the exchange is over.

Names and passwords go through the whole of SASLprep (RFC 4013): mapping, NFKC of Unicode 3.2, prohibited characters, the
two directions of writing. It stores nothing, limits no attempts, and leaves to its caller
what an identity may do.
"""

from __future__ import annotations

import base64
import binascii
import hashlib
import hmac
import re
import secrets
import stringprep
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Final
from unicodedata import ucd_3_2_0 as unicode_3_2

from edge_broker.errors import EdgeBrokerError

METHOD: Final = "SCRAM-SHA-256"
"""The authentication method's name in MQTT 5 and in a verifier's text."""
LEAST_ITERATIONS: Final = 4_096
"""RFC 7677, section 4: a verifier with fewer is refused."""
DEFAULT_ITERATIONS: Final = 15_000
"""RFC 7677's rule of thumb. Only the client counts them anew at each connect: a slow device may want the least."""
SALT_BYTES: Final = 16

_HASH: Final = "sha256"
_KEY_BYTES: Final = 32
_LONGEST_MESSAGE_BYTES: Final = 2_048
"""Preparing a name looks at each of its characters a dozen times; nobody needs one of 64 KB."""

_NONCE: Final = r"(?P<nonce>[\x21-\x2b\x2d-\x7e]+)"
_EXTENSIONS: Final = r"(?:,[A-Za-z]=[^,\0]+)*"  # optional ones are to be ignored
_CLIENT_FIRST: Final = re.compile(
    r"(?P<header>(?P<binding>n|y|p=[A-Za-z0-9.-]+),(?:a=(?P<authorization>[^,\0]+))?,)"
    rf"(?P<bare>(?P<mandatory>m=[^,\0]+,)?n=(?P<name>[^,\0]+),r={_NONCE}{_EXTENSIONS})"
)
_CLIENT_FINAL: Final = re.compile(
    rf"(?P<unproved>c=(?P<binding>[A-Za-z0-9+/=]+),r={_NONCE}{_EXTENSIONS}),p=(?P<proof>[A-Za-z0-9+/=]+)"
)
_ESCAPED_NAME: Final = re.compile(r"(?:[^=]|=2C|=3D)+")


class ScramError(EdgeBrokerError):
    """The client is not let in. `reason` is a word of RFC 5802 [section 7, server-error-value], `detail` for the log.

    Both are the same for a wrong password and for a name that does not exist.
    """

    def __init__(self, reason: str, detail: str) -> None:
        super().__init__(f"{METHOD}: {detail} ({reason})")
        self.reason = reason
        self.detail = detail


# ---- bytes and text


def _hmac(key: bytes, data: bytes) -> bytes:
    return hmac.digest(key, data, _HASH)


def _base64(data: bytes) -> str:
    return base64.b64encode(data).decode("ascii")


def _unbase64(text: str) -> bytes:
    """Strictly; `ValueError` (binascii.Error is one) where it is not base64, non-ASCII text included."""
    data = binascii.a2b_base64(text, strict_mode=True)
    if _base64(data) != text:
        raise ValueError("base64 that nobody writes so")
    return data


# ---- what is kept of a password


@dataclass(frozen=True, slots=True)
class ScramVerifier:
    """What the server keeps of one password. `salt` is at least one byte, `stored_key` and `server_key` are 32.

    `ValueError` for anything else, or for fewer than `LEAST_ITERATIONS`; it never repeats what it was given.
    """

    salt: bytes = field(repr=False)
    iterations: int
    stored_key: bytes = field(repr=False)
    server_key: bytes = field(repr=False)

    def __post_init__(self) -> None:
        if not self.salt or len(self.stored_key) != _KEY_BYTES or len(self.server_key) != _KEY_BYTES:
            raise ValueError(f"not the salt and keys of a {METHOD} verifier")
        _check_iterations(self.iterations)

    @classmethod
    def from_password(
        cls, password: str, *, iterations: int = DEFAULT_ITERATIONS, salt: bytes | None = None
    ) -> ScramVerifier:
        """The verifier of `password`, with a new salt where none is given; takes milliseconds, by its iterations.

        `ValueError` for a password that is empty or has characters that SASLprep prohibits.
        """
        _check_iterations(iterations)
        prepared = saslprep(password, stored=True)
        if not prepared:
            raise ValueError("an empty password")
        salt = secrets.token_bytes(SALT_BYTES) if salt is None else salt
        salted = hashlib.pbkdf2_hmac(_HASH, prepared.encode(), salt, iterations)
        stored_key = hashlib.sha256(_hmac(salted, b"Client Key")).digest()
        return cls(salt, iterations, stored_key, _hmac(salted, b"Server Key"))

    @classmethod
    def from_text(cls, text: str) -> ScramVerifier:
        """What `to_text` wrote; `ValueError` where it is not that."""
        method, *rest = text.strip().split("$")
        try:
            if method != METHOD or len(rest) != 2:
                raise ValueError
            (iterations, salt), (stored_key, server_key) = (part.split(":") for part in rest)
            if not (iterations.isascii() and iterations.isdigit() and len(iterations) < 10):
                raise ValueError
            decoded = [_unbase64(part) for part in (salt, stored_key, server_key)]
        except ValueError:
            raise ValueError(f"not a line of the form {METHOD}$ITERATIONS:SALT$KEY:KEY") from None
        return cls(decoded[0], int(iterations), decoded[1], decoded[2])

    def to_text(self) -> str:
        """One line without spaces, for a password file, in RFC 5803's form, which PostgreSQL uses too."""
        salt, stored_key, server_key = map(_base64, (self.salt, self.stored_key, self.server_key))
        return f"{METHOD}${self.iterations}:{salt}${stored_key}:{server_key}"


def _check_iterations(iterations: int) -> None:
    if iterations < LEAST_ITERATIONS:
        raise ValueError(f"{iterations} iterations, at least {LEAST_ITERATIONS} are needed")


@dataclass(frozen=True, slots=True)
class Decoys:
    """Verifiers for names that do not exist: always the same for one name, as a real one's salt is.

    They look like the real ones if those have `iterations` and salts of `salt_bytes` too. `secret` must stay one: whoever
    knows it can tell. With a new secret the decoys' salts change and the real ones' do not; keep it for as long as that
    matters.
    """

    secret: bytes = field(repr=False)
    iterations: int = DEFAULT_ITERATIONS
    salt_bytes: int = SALT_BYTES

    def __post_init__(self) -> None:
        self.verifier("")  # `ValueError` here rather than in an exchange

    def verifier(self, username: str) -> ScramVerifier:
        """The decoy of `username`: no password fits it."""
        name = username.encode()
        salt, stored_key, server_key = (_hmac(self.secret, kind + name) for kind in (b"1", b"2", b"3"))
        return ScramVerifier(salt[: self.salt_bytes], self.iterations, stored_key, server_key)


_DECOYS: Final = Decoys(secrets.token_bytes(_KEY_BYTES))
"""Where a caller has none of its own: as long as the process runs."""


def new_nonce() -> str:
    """A server's nonce: 144 random bits, in characters that SCRAM allows."""
    return secrets.token_urlsafe(18)


# ---- one exchange


class ScramExchange:
    """One client's attempt: `start` with its first message, `finish` with its last; it is in when `finish` returns.

    `lookup` gives the verifier of a prepared username or None; `nonce` at least 128 random bits as printable ASCII without
    a comma, new each time it is called.
    """

    __slots__ = (
        "_begun",
        "_decoys",
        "_first",
        "_header",
        "_known",
        "_lookup",
        "_new_nonce",
        "_nonce",
        "_verifier",
        "claimed_name",
        "username",
    )

    def __init__(
        self,
        lookup: Callable[[str], ScramVerifier | None],
        nonce: Callable[[], str] = new_nonce,
        decoys: Decoys = _DECOYS,
    ) -> None:
        self.username = ""
        """Whose password was proved; empty before."""
        self.claimed_name = ""
        """Who the client says it is, for the log; not proved."""
        self._lookup = lookup
        self._new_nonce = nonce
        self._decoys = decoys
        self._begun = False
        self._verifier: ScramVerifier | None = None  # while a final message may come
        self._known = False
        self._header = ""
        self._nonce = ""
        self._first = ""  # both first messages, as the proof covers them

    def start(self, client_first: bytes) -> bytes:
        """The server's first message (`r=…,s=…,i=…`) for the client's; `ScramError` ends the exchange."""
        if self._begun:
            self._verifier = None
            raise ScramError("other-error", "a first message where none is expected")
        self._begun = True
        message = _match(_CLIENT_FIRST, client_first)
        _check_options(message)
        name = self.claimed_name = _name(message["name"])
        if message["authorization"] is not None and _name(message["authorization"]) != name:
            raise ScramError("other-error", "to act as somebody else is not offered")
        decoy = self._decoys.verifier(name)  # made for every name: the work must not tell
        found = self._lookup(name)
        self._known = found is not None
        verifier = found or decoy
        self._header = message["header"]
        self._nonce = message["nonce"] + self._new_nonce()
        server_first = f"r={self._nonce},s={_base64(verifier.salt)},i={verifier.iterations}"
        self._first = f"{message['bare']},{server_first}"
        self._verifier = verifier
        return server_first.encode()

    def finish(self, client_final: bytes) -> bytes:
        """The server's final message (`v=…`) for a client that proved its password; else `ScramError`."""
        self._begun = True
        verifier, self._verifier = self._verifier, None
        if verifier is None:
            raise ScramError("other-error", "a final message where none is expected")
        message = _match(_CLIENT_FINAL, client_final)
        if message["binding"] != _base64(self._header.encode()):
            raise ScramError("channel-bindings-dont-match", "its two messages do not have the same header")
        if not hmac.compare_digest(message["nonce"], self._nonce):
            raise ScramError("other-error", "its nonce is not the one of this exchange")
        signed = f"{self._first},{message['unproved']}".encode()
        proved = _is_proof(_proof(message["proof"]), verifier.stored_key, signed)
        signature = _hmac(verifier.server_key, signed)
        if not (proved and self._known):
            raise ScramError("invalid-proof", "the name or the password is wrong")
        self.username = self.claimed_name
        return f"v={_base64(signature)}".encode()


def _match(pattern: re.Pattern[str], message: bytes) -> re.Match[str]:
    if len(message) > _LONGEST_MESSAGE_BYTES:
        raise ScramError("other-error", f"a message of more than {_LONGEST_MESSAGE_BYTES} bytes")
    try:
        found = pattern.fullmatch(message.decode())
    except UnicodeDecodeError:
        found = None
    if found is None:
        raise ScramError("invalid-encoding", "a message that is not SCRAM's")
    return found


def _check_options(client_first: re.Match[str]) -> None:
    """Refuse what the client insists on and we do not have. `y` is a client that could bind and sees that we cannot."""
    if client_first["mandatory"] is not None:
        raise ScramError("extensions-not-supported", "it insists on an extension")
    if client_first["binding"].startswith("p"):
        raise ScramError("channel-binding-not-supported", "it insists on channel binding")


def _name(escaped: str) -> str:
    """A `saslname`, unescaped and prepared."""
    if _ESCAPED_NAME.fullmatch(escaped) is None:
        raise ScramError("invalid-username-encoding", "a name with an = that escapes nothing")
    try:
        name = saslprep(escaped.replace("=2C", ",").replace("=3D", "="))
    except ValueError as error:
        raise ScramError("invalid-username-encoding", f"a name that cannot be: {error}") from None
    if not name:
        raise ScramError("invalid-username-encoding", "a name of nothing that counts")
    return name


def _proof(text: str) -> bytes:
    try:
        proof = _unbase64(text)
    except ValueError:
        proof = b""
    if len(proof) != _KEY_BYTES:
        raise ScramError("invalid-encoding", "a proof that is not 32 bytes in base64")
    return proof


def _is_proof(proof: bytes, stored_key: bytes, signed: bytes) -> bool:
    """Whether `proof` was made with the client key whose hash is `stored_key` [RFC 5802, section 3]."""
    signature = _hmac(stored_key, signed)
    client_key = bytes(one ^ other for one, other in zip(proof, signature, strict=True))
    return hmac.compare_digest(hashlib.sha256(client_key).digest(), stored_key)


# ---- names and passwords as text


def saslprep(text: str, *, stored: bool = False) -> str:
    """`text` prepared as RFC 4013 says, so that what looks the same is the same; `ValueError` where it may not be.

    `stored`: characters that Unicode 3.2 does not know are refused too, as for passwords [RFC 5802, section 2.2].
    """
    if text.isascii() and text.isprintable():
        return text
    mapped = "".join(
        " " if stringprep.in_table_c12(character) else character
        for character in text
        if not stringprep.in_table_b1(character)
    )
    prepared = unicode_3_2.normalize("NFKC", mapped)
    if any(is_prohibited(character) for character in prepared for is_prohibited in _PROHIBITED):
        raise ValueError("it has a character that is prohibited")
    if stored and any(map(stringprep.in_table_a1, prepared)):
        raise ValueError("it has a character that Unicode 3.2 does not know")
    _check_directions(prepared)
    return prepared


_PROHIBITED: Final = (
    stringprep.in_table_c12,
    stringprep.in_table_c21_c22,
    stringprep.in_table_c3,
    stringprep.in_table_c4,
    stringprep.in_table_c5,
    stringprep.in_table_c6,
    stringprep.in_table_c7,
    stringprep.in_table_c8,
    stringprep.in_table_c9,
)
"""RFC 4013, section 2.3."""


def _check_directions(text: str) -> None:
    """Text written from right to left is that from its first to its last character [RFC 3454, section 6]."""
    if not any(map(stringprep.in_table_d1, text)):
        return
    ends = stringprep.in_table_d1(text[0]) and stringprep.in_table_d1(text[-1])
    if not ends or any(map(stringprep.in_table_d2, text)):
        raise ValueError("it mixes both directions of writing")
