"""Who comes in by password: user name and password in CONNECT, or SCRAM-SHA-256, against one password file.

What it keeps true:

- Whether a name exists is not to be told from the answer or from how long it takes: for a name of nobody a decoy is
  checked, which costs as much.
- A right password costs the work once: who comes back soon is let in from memory. So is a wrong one that the same address
  repeats, though late. Everything else waits for its turn, and there is an end to how many may wait.
- What was proved counts against the password file of now: one that was replaced meanwhile is asked again.

It knows nothing of listeners, anonymous clients or connections: `admission` asks it where passwords count.
"""

from __future__ import annotations

import hashlib
import random
import secrets
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from functools import partial
from typing import Final, Protocol

from edge_broker.core.ports import Admission, AuthenticationExchange, Credentials
from edge_broker.security.guessing import Guessing, GuessLimits, origin_of
from edge_broker.security.hashing import LONGEST_PASSWORD_BYTES, Argon2Hash
from edge_broker.security.passwords import Passwords
from edge_broker.security.scram import METHOD, Decoys, new_nonce
from edge_broker.security.scram_admission import ScramAdmission
from edge_broker.security.verified import Verified
from edge_broker.security.verifying import Check, Verifications
from edge_broker.wire import const

Answer = Callable[[Admission], None]
_SECRET_BYTES: Final = 32
_BANNED: Final = Admission(const.BANNED, detail="too many wrong passwords before this one")
_NO_ROOM: Final = Admission(const.SERVER_BUSY, detail="too many passwords wait to be checked")
_NOT_CHECKED: Final = Admission(const.SERVER_UNAVAILABLE, detail="its password could not be checked")


class Timer(Protocol):
    """The event loop's `call_later`, the call made in a turn that ends with the output flushed."""

    def __call__(self, seconds: float, callback: Callable[[], None]) -> object:
        """Call `callback` on the event loop's thread in `seconds`; 0 is soon, never at once."""


@dataclass(slots=True)
class _Attempt:
    """One CONNECT's user name and password, on its way to an answer."""

    address: str
    name: str
    password: bytes = field(repr=False)
    digest: bytes = field(repr=False)
    answer: Answer


class PasswordAdmission:
    """An `Authenticator` for clients that have a password. `passwords`: the file as of now; `replace` takes a new reading.

    `later` is told what to do when. `clock`: monotonic seconds; `random_bytes` and `chance` (0 to 1) are the system's.
    """

    def __init__(
        self,
        passwords: Passwords,
        limits: GuessLimits,
        max_waiting: int,
        later: Timer,
        *,
        clock: Callable[[], float] = time.monotonic,
        random_bytes: Callable[[int], bytes] = secrets.token_bytes,
        chance: Callable[[], float] = random.random,
        nonce: Callable[[], str] = new_nonce,
    ) -> None:
        self.guessing = Guessing(limits, self._is_known, chance)
        self.verified = Verified(random_bytes(_SECRET_BYTES))
        self.verifications = Verifications(max_waiting)
        self._later = later
        self._clock = clock
        self._random_bytes = random_bytes
        self._nonce = nonce
        self._secret = random_bytes(_SECRET_BYTES)
        self._decoy = Argon2Hash.decoy(passwords.cost, random_bytes)
        self._take(passwords)

    def _take(self, passwords: Passwords) -> None:
        self.passwords = passwords
        if passwords.cost != self._decoy.cost:
            self._decoy = Argon2Hash.decoy(passwords.cost, self._random_bytes)
        self._decoys = Decoys(self._secret, passwords.iterations, passwords.salt_bytes)

    def _is_known(self, name: str) -> bool:
        return name in self.passwords.users

    def replace(self, passwords: Passwords) -> frozenset[str]:
        """The file was read again; returns the names that are gone or have another password now."""
        changed = self.passwords.changed_in(passwords)
        self._take(passwords)
        return changed

    def sweep(self, now: float) -> None:
        """About once a second: end bans, forget what is old."""
        self.guessing.sweep(now)
        self.verified.sweep(now)

    def close(self) -> None:
        """Check nothing more."""
        self.verifications.close()

    # ---- enhanced authentication

    def begin(self, credentials: Credentials, method: str) -> AuthenticationExchange | None:
        """An exchange by SCRAM-SHA-256, where anybody in the file has what it needs."""
        if method != METHOD or not self.passwords.offers_scram:
            return None
        return ScramAdmission(
            credentials, lambda: self.passwords, self.guessing, self._clock, self._nonce, self._decoys
        )

    # ---- passwords in CONNECT

    def authenticate(self, credentials: Credentials, answer: Answer) -> None:
        """Answers soon from memory, later where there is something to check."""
        name, password = credentials.username, credentials.password
        if name is None or password is None:
            answer(Admission(const.BAD_USER_NAME_OR_PASSWORD, detail="no user name or no password"))
            return
        password = password[: LONGEST_PASSWORD_BYTES + 1]  # still too long, and kept no longer than that
        digest = self.verified.digest(name, password)
        attempt = _Attempt(credentials.address, name, password, digest, answer)
        if not self._is_settled(attempt):
            self._check(attempt)

    def _kept(self, attempt: _Attempt) -> Argon2Hash | None:
        """What the password has to fit; None where it cannot be right."""
        if len(attempt.password) > LONGEST_PASSWORD_BYTES:
            return None
        return self.passwords.argon2(attempt.name)

    def _guess(self, attempt: _Attempt) -> bytes:
        """What stands for the password and what it does not fit: it may be right for the next password file."""
        kept = self._kept(attempt) or self._decoy
        return hashlib.sha256(attempt.digest + kept.text.encode()).digest()

    def _is_settled(self, attempt: _Attempt) -> bool:
        """Whether it needs no check; then it is answered soon."""
        now = self._clock()
        kept = self._kept(attempt)
        if self.guessing.refuses(attempt.address, attempt.name, now):
            self._answer_later(attempt, _BANNED)
        elif kept is not None and self.verified.has(attempt.digest, kept, now):
            self._later(0.0, partial(self._admit, attempt, kept))
        elif self.guessing.knows(attempt.address, attempt.name, self._guess(attempt), now):
            self._refuse(attempt)
        else:
            return False
        return True

    def _check(self, attempt: _Attempt) -> None:
        kept = self._kept(attempt)
        self.verifications.put(
            Check(
                owner=origin_of(attempt.address),
                password=attempt.password,
                kept=self._decoy if kept is None else kept,
                decoy=kept is None,
                is_settled=partial(self._is_settled, attempt),
                on_checked=partial(self._on_checked, attempt),
                on_no_room=partial(self._answer_later, attempt, _NO_ROOM),
            )
        )

    def _on_checked(self, attempt: _Attempt, check: Check, is_right: bool | None) -> None:
        kept = self._kept(attempt)
        if is_right is None:
            self._answer_later(attempt, _NOT_CHECKED)
        elif (self._decoy if kept is None else kept) != check.kept:
            self._check(attempt)  # against the password file of now
        elif is_right:
            self.verified.add(attempt.digest, check.kept, self._clock())
            self._later(0.0, partial(self._admit, attempt, check.kept))
        else:
            self._refuse(attempt)

    def _admit(self, attempt: _Attempt, kept: Argon2Hash) -> None:
        """The password was right for `kept`, which may have been replaced since: whoever is let in then stays in."""
        if self._kept(attempt) == kept:
            attempt.answer(Admission(const.SUCCESS, attempt.name, method="password"))
        else:
            self._check(attempt)

    def _answer_later(self, attempt: _Attempt, admission: Admission, seconds: float = 0.0) -> None:
        self._later(seconds, partial(attempt.answer, admission))

    def _refuse(self, attempt: _Attempt) -> None:
        """The password is wrong; the log alone says whether there is such a name."""
        delay = self.guessing.fail(attempt.address, attempt.name, self._guess(attempt), self._clock())
        known = self._is_known(attempt.name)
        detail = f"a wrong password for {attempt.name!r}" if known else "a user name of nobody"
        self._answer_later(attempt, Admission(const.BAD_USER_NAME_OR_PASSWORD, detail=detail), delay)
