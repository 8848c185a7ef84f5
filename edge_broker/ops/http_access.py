"""Who may ask what over HTTP: tokens with scopes, what is open without one, and what is told of those who may not.

What it keeps true:

- Only a path that is written exactly as it is offered is looked at: nothing is decoded, joined or cleaned up.
- Without a token nobody learns which paths there are; where health is open, it says no more than yes or no.
- Denials are counted, and logged at most once a second for one address and a few a second in all: the log may be on an SD
  card. What was sent is not logged: it may be somebody's token.

It changes nothing and reads no file.
"""

from __future__ import annotations

import logging
from collections.abc import Collection
from dataclasses import dataclass, field
from typing import Final, Protocol

log: Final = logging.getLogger("edge_broker.ops")

OPEN_PATHS: Final = ("/healthz", "/livez", "/readyz")
"""What whoever watches over the broker has to see, where that is open to everybody."""

_MAX_ADDRESSES: Final = 1_000
_LINES_PER_SECOND: Final = 5
_CHALLENGE: Final = 'Bearer realm="edge-broker"'


class FoundToken(Protocol):
    """A token that was recognised."""

    @property
    def name(self) -> str:
        """How the file calls it."""

    @property
    def scopes(self) -> Collection[str]:
        """What it is for."""


class TokenBook(Protocol):
    """The tokens that there are."""

    def find(self, presented: str) -> FoundToken | None:
        """Whose it is; None where it is nobody's."""


@dataclass(slots=True)
class Denial:
    """An answer that is no. `reason`: a word for the counter; `challenge`: of the header `WWW-Authenticate`."""

    status: int
    reason: str
    text: str
    challenge: str = ""


@dataclass(slots=True)
class Pass:
    """Go on. `is_known`: by a token, or because nobody is asked for one: then everything may be told."""

    is_known: bool


class HttpAccess:
    """The rules of one port. `tokens`: None where nobody is asked for one. `open_health`: health without one, in brief."""

    def __init__(self, tokens: TokenBook | None = None, open_health: bool = False) -> None:
        self.tokens = tokens
        self.open_health = open_health
        self.refused: dict[str, int] = {}
        self._log = _DenialLog()

    def look(self, method: str, path: str, authorizations: Collection[str]) -> Pass | Denial:
        """Whether `method` on `path`, as it stands in the request, may go on with these `Authorization` headers."""
        if self.tokens is None:
            return Pass(True)
        denial = self._check(self.tokens, "read" if method in ("GET", "HEAD") else "write", authorizations)
        if denial is None:
            return Pass(True)
        if self.open_health and method in ("GET", "HEAD") and path in OPEN_PATHS:
            return Pass(False)
        return denial

    def deny(self, denial: Denial, address: str, now: float) -> None:
        """Count a denial, and log it where there is room for that."""
        self.count(denial.reason)
        self._log.write(address, denial.reason, now)

    def count(self, reason: str) -> None:
        """A request or a connection that was refused."""
        self.refused[reason] = self.refused.get(reason, 0) + 1

    def _check(self, tokens: TokenBook, scope: str, authorizations: Collection[str]) -> Denial | None:
        if not authorizations:
            return Denial(401, "no_token", "a token is wanted: Authorization: Bearer TOKEN", _CHALLENGE)
        scheme, _, presented = next(iter(authorizations)).partition(" ")
        found = None
        if len(authorizations) == 1 and scheme.lower() == "bearer":
            found = tokens.find(presented.strip())
        if found is None:
            challenge = f'{_CHALLENGE}, error="invalid_token"'
            return Denial(401, "wrong_token", "this token is none of ours", challenge)
        if scope not in found.scopes:
            challenge = f'{_CHALLENGE}, error="insufficient_scope", scope="{scope}"'
            return Denial(403, "scope", f"this token is not for that: its scope is not {scope}", challenge)
        return None


@dataclass(slots=True)
class _Said:
    """Of one address: when it was last logged, and how often it was not since."""

    at: float
    unsaid: int = 0


@dataclass(slots=True)
class _DenialLog:
    """Lines about denials, few enough."""

    _addresses: dict[str, _Said] = field(default_factory=dict)
    _second: float = 0.0
    _lines: int = 0

    def write(self, address: str, reason: str, now: float) -> None:
        """One line, or one more that the next line counts."""
        said = self._addresses.get(address)
        if said is not None and now - said.at < 1.0:
            said.unsaid += 1
            return
        if now - self._second >= 1.0:
            self._second, self._lines = now, 0
        if self._lines >= _LINES_PER_SECOND or not self._has_room(now):
            if said is not None:
                said.unsaid += 1
            return
        self._lines += 1
        more = f" (and {said.unsaid} times before)" if said is not None and said.unsaid else ""
        self._addresses[address] = _Said(now)
        log.warning("HTTP from %s was denied: %s%s", address, reason.replace("_", " "), more)

    def _has_room(self, now: float) -> bool:
        if len(self._addresses) >= _MAX_ADDRESSES:
            self._addresses = {who: said for who, said in self._addresses.items() if now - said.at < 1.0}
        return len(self._addresses) < _MAX_ADDRESSES
