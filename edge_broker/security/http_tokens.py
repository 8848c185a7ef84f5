"""The tokens of the HTTP port: random ones, of which a file keeps names, scopes and hashes.

A line is `name:scopes:sha256:hash`; `#` begins a comment line. A token is 256 random bits, so one round of SHA-256 keeps it
as well as a slow hash would keep a password, and nobody can guess one. What it keeps true:

- A file with a mistake is no file, and no message repeats what stands in a hash's place.
- How long a look takes does not depend on how much of a token is right, nor on whose it is.

It knows nothing of HTTP.
"""

from __future__ import annotations

import hashlib
import hmac
import re
import secrets
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from edge_broker.errors import ConfigError

SCOPES: Final = ("read", "write")
"""To look, and to change something; neither is part of the other."""
PREFIX: Final = "ebh_"
"""What a token begins with, so that it can be told what was found in a wrong place."""

_LONGEST_TOKEN: Final = 256
_MAX_FILE_BYTES: Final = 1 << 20
_MAX_TOKENS: Final = 100
_SECRET_BYTES: Final = 32
_NAME: Final = re.compile(r"[A-Za-z0-9._-]{1,64}")
_LINE: Final = re.compile(r"(?P<name>[^:]*):(?P<scopes>[^:]*):sha256:(?P<hash>[0-9a-f]{64})")
_FORM: Final = "a line is name:scopes:sha256:hash, as `edge-broker http-token add` writes it"


@dataclass(frozen=True, slots=True)
class HttpToken:
    """What is kept of one token."""

    name: str
    scopes: frozenset[str]
    digest: bytes


@dataclass(frozen=True, slots=True)
class HttpTokens:
    """One reading of the file."""

    tokens: tuple[HttpToken, ...] = ()

    def find(self, presented: str) -> HttpToken | None:
        """Whose token it is; every one is compared, in constant time, whatever is found."""
        found = None
        if len(presented) <= _LONGEST_TOKEN:
            digest = hashlib.sha256(presented.encode(errors="surrogateescape")).digest()
            for token in self.tokens:
                if hmac.compare_digest(digest, token.digest):
                    found = token
        return found


def read_http_tokens(path: Path) -> HttpTokens:
    """The file at `path`; `ConfigError` with the line where it will not do."""
    try:
        with path.open("rb") as file:
            data = file.read(_MAX_FILE_BYTES + 1)
    except OSError as error:
        hint = f"make it: edge-broker http-token add NAME --file {path}"
        if isinstance(error, PermissionError):
            hint = "let the user that runs the broker read it"
        raise ConfigError(str(path), f"cannot be read: {error.strerror}", hint) from None
    if len(data) > _MAX_FILE_BYTES:
        raise ConfigError(str(path), f"is larger than {_MAX_FILE_BYTES >> 20} MiB", "is it the right file?")
    try:
        return parse_http_tokens(data.decode("utf-8-sig"), path)
    except UnicodeDecodeError:
        raise ConfigError(str(path), "is not UTF-8", "save the file as UTF-8 text") from None


def parse_http_tokens(text: str, path: Path) -> HttpTokens:
    """The tokens in `text`; `ConfigError` with the first line that is wrong, under the name of `path`."""
    tokens: dict[str, HttpToken] = {}
    for number, line in enumerate(text.splitlines(), 1):
        if not line.strip() or line.startswith("#"):
            continue
        try:
            token = _parse_line(line)
        except ValueError as error:
            raise ConfigError(f"{path}: line {number}", str(error), _FORM) from None
        if token.name in tokens:
            raise ConfigError(f"{path}: line {number}", f"is the second of {token.name}", "keep one of them")
        tokens[token.name] = token
    if len(tokens) > _MAX_TOKENS:
        raise ConfigError(str(path), f"has {len(tokens)} tokens, {_MAX_TOKENS} are allowed", "take some out")
    return HttpTokens(tuple(tokens.values()))


def _parse_line(line: str) -> HttpToken:
    found = _LINE.fullmatch(line.strip())
    if found is None:
        raise ValueError("is not such a line, or has a token itself instead of its hash")
    check_name(found["name"])
    scopes = found["scopes"].split(",")
    if not set(scopes) <= set(SCOPES):
        raise ValueError(f"has a scope that is neither {' nor '.join(SCOPES)}")
    return HttpToken(found["name"], frozenset(scopes), bytes.fromhex(found["hash"]))


def check_name(name: str) -> None:
    """`ValueError` for a name that cannot be in the file."""
    if not _NAME.fullmatch(name):
        raise ValueError("has a name that is not 1 to 64 letters, digits, dots, dashes or underscores")


# ---- making


def new_token(
    name: str,
    scopes: Iterable[str],
    random_text: Callable[[int], str] = secrets.token_urlsafe,
) -> tuple[str, str]:
    """A token, which is nowhere kept, and the line for the file. `ValueError` for a name that cannot be."""
    check_name(name)
    token = PREFIX + random_text(_SECRET_BYTES)
    known = [scope for scope in SCOPES if scope in set(scopes)]
    return token, f"{name}:{','.join(known)}:sha256:{hashlib.sha256(token.encode()).hexdigest()}"
