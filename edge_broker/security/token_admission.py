"""Who comes in by JSON Web Token: as the password in CONNECT, or by the authentication method JWT of MQTT 5.

What it keeps true:

- Whom a token names is who comes in; a user name beside it has to be the same, unless that is not looked at.
- The admission lasts no longer than the token, and rests on the key that signed it.
- A token that is refused is a wrong password to whoever counts those, and is answered as late.

A check takes some 80 µs and is done where it is asked for. What it is that was wrong is for the log alone. Its counters
are read by `ops`. It knows nothing of listeners or connections.
"""

from __future__ import annotations

import hashlib
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from functools import partial
from typing import TYPE_CHECKING, Final

from edge_broker.core.ports import Admission, AuthenticationExchange, Challenge, Credentials
from edge_broker.security.admission import ANONYMOUS
from edge_broker.security.guessing import Guessing
from edge_broker.security.token_keys import TokenKeys
from edge_broker.security.tokens import Token, TokenRefused, TokenRules, verify
from edge_broker.wire import const

if TYPE_CHECKING:
    from edge_broker.security.password_admission import Timer

METHOD: Final = "JWT"
_TOO_MANY: Final = "too many wrong passwords or tokens before this one"


@dataclass(slots=True)
class TokenCounters:
    """Since the start: tokens that let somebody in, and those that did not, by reason."""

    accepted: int = 0
    refused: dict[str, int] = field(default_factory=dict)


class TokenAdmission:
    """An `Authenticator` for clients that have a token. `keys`: the key files as of now; `replace` takes a new reading.

    `match_user_name`: whether a user name in CONNECT has to be the token's. `guessing` is shared with the passwords.
    `later` is told what to do when. `clock`: the router's, monotonic seconds; `wall`: Unix time.
    """

    def __init__(
        self,
        keys: TokenKeys,
        rules: TokenRules,
        guessing: Guessing,
        later: Timer,
        *,
        match_user_name: bool = True,
        clock: Callable[[], float] = time.monotonic,
        wall: Callable[[], float] = time.time,
    ) -> None:
        self.keys = keys
        self.rules = rules
        self.guessing = guessing
        self.counters = TokenCounters()
        self._later = later
        self._match_user_name = match_user_name
        self._clock = clock
        self._wall = wall

    def replace(self, keys: TokenKeys) -> frozenset[str]:
        """The key files were read again; returns the thumbprints of keys that are gone."""
        gone = self.keys.gone_in(keys)
        self.keys = keys
        return gone

    def authenticate(self, credentials: Credentials, answer: Callable[[Admission], None]) -> None:
        """Take the password as a token: a good one is answered at once, another one later."""
        name = credentials.username or ""
        if self.guessing.refuses(credentials.address, name, self._clock()):
            self._later(0.0, partial(answer, Admission(const.BANNED, detail=_TOO_MANY)))
            return
        token = credentials.password or b""
        admission = self.admit(credentials, token)
        if not admission.reason_code:
            answer(admission)
            return
        delay = self._count_wrong(credentials, token)
        self._later(delay, partial(answer, admission))

    def begin(self, credentials: Credentials, method: str) -> AuthenticationExchange | None:
        """An exchange by the method JWT: its data is the token."""
        return _TokenExchange(self, credentials) if method == METHOD else None

    def step(self, credentials: Credentials, token: bytes) -> Admission:
        """The token of an exchange. 0x87 whatever is wrong: a DISCONNECT has no code for the others [3.14.2.1]."""
        if self.guessing.refuses(credentials.address, credentials.username or "", self._clock()):
            return Admission(const.NOT_AUTHORIZED, detail=_TOO_MANY)
        admission = self.admit(credentials, token)
        if admission.reason_code:
            self._count_wrong(credentials, token)
            admission.reason_code = const.NOT_AUTHORIZED
        return admission

    def admit(self, credentials: Credentials, token: bytes) -> Admission:
        """What the token is worth, and counted."""
        now, wall = self._clock(), self._wall()
        try:
            found = verify(token, self.keys, self.rules, wall)
            self._check_name(found, credentials)
        except TokenRefused as refused:
            counts = self.counters.refused
            counts[refused.reason] = counts.get(refused.reason, 0) + 1
            return Admission(const.BAD_USER_NAME_OR_PASSWORD, detail=f"its token {refused.detail}")
        self.counters.accepted += 1
        return Admission(
            const.SUCCESS,
            found.name,
            method="token",
            groups=found.groups,
            expires_at=now + (found.expires_at - wall),
            proof=found.thumbprint,
        )

    def _check_name(self, token: Token, credentials: Credentials) -> None:
        """That nobody is somebody else beside it, and that it is a name at all."""
        if token.name == ANONYMOUS:
            raise TokenRefused("name", f"has the name {ANONYMOUS}, which is whoever proves nothing")
        if self._match_user_name and credentials.username and credentials.username != token.name:
            raise TokenRefused("name", f"is that of {token.name!r}, and the user name is another")
        names = credentials.certificate_names
        if names and names[0] != token.name:
            raise TokenRefused("name", f"is that of {token.name!r}, and the certificate is another's")

    def _count_wrong(self, credentials: Credentials, token: bytes) -> float:
        """For how many seconds to hold the answer back."""
        digest = hashlib.sha256(token).digest()
        return self.guessing.fail(credentials.address, credentials.username or "", digest, self._clock())


class _TokenExchange(AuthenticationExchange):
    """One client's attempt: the token comes in CONNECT or AUTH, or is asked for where it does not."""

    __slots__ = ("_admission", "_asked", "_credentials")

    def __init__(self, admission: TokenAdmission, credentials: Credentials) -> None:
        self._admission = admission
        self._credentials = credentials
        self._asked = False

    def step(self, data: bytes) -> Challenge | Admission:
        """Take the token; nothing, before anything else, asks for it."""
        if not data and not self._asked:
            self._asked = True
            return Challenge(b"")
        return self._admission.step(self._credentials, data)
