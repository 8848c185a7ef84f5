"""argon2id: what is kept of a password that comes in CONNECT, and whether a password is that one.

A check costs what its hash says, so hashes that cost more than we give are refused when they are read: at most 19 MiB and
one lane, the least that OWASP recommends, because a gateway checks passwords beside its work. argon2-cffi is imported when
the first password is hashed; a broker without passwords does without. The work is done where it is called, without the
interpreter's lock, and takes some 30 ms on a small server.
"""

from __future__ import annotations

import base64
import binascii
import re
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Final

MEMORY_KIB: Final = 19_456
TIME_COST: Final = 2
LONGEST_PASSWORD_BYTES: Final = 1_024
"""A longer one is never right, and none is made."""

_LEAST_MEMORY_KIB: Final = 7_168
_MOST_TIME_COST: Final = 8
_SALT_BYTES: Final = 16
_HASH_BYTES: Final = 32
_LIMIT_BYTES: Final = 64
_TEXT: Final = re.compile(
    r"\$argon2id\$v=19\$m=(?P<memory>[1-9][0-9]{0,8}),t=(?P<time>[1-9][0-9]{0,8}),p=(?P<lanes>[1-9][0-9]{0,8})"
    r"\$(?P<salt>[A-Za-z0-9+/]+)\$(?P<hash>[A-Za-z0-9+/]+)"
)


@dataclass(frozen=True, slots=True)
class Argon2Cost:
    """What one check takes: memory in KiB, passes over it. One lane always."""

    memory_kib: int = MEMORY_KIB
    time_cost: int = TIME_COST


@dataclass(frozen=True, slots=True)
class Argon2Hash:
    """One password's hash in the usual notation, `$argon2id$v=19$m=19456,t=2,p=1$SALT$HASH`."""

    text: str = field(repr=False)
    cost: Argon2Cost

    @classmethod
    def from_text(cls, text: str) -> Argon2Hash:
        """Strictly; `ValueError` for what is no such hash or costs more, or much less, than it should. Repeats nothing."""
        found = _TEXT.fullmatch(text)
        if found is None:
            raise ValueError("not $argon2id$v=19$m=…,t=…,p=1$SALT$HASH")
        memory_kib, time_cost = int(found["memory"]), int(found["time"])
        if not _LEAST_MEMORY_KIB <= memory_kib <= MEMORY_KIB:
            raise ValueError(f"m={memory_kib}, from {_LEAST_MEMORY_KIB} to {MEMORY_KIB} is possible")
        if time_cost > _MOST_TIME_COST:
            raise ValueError(f"t={time_cost}, at most {_MOST_TIME_COST} is possible")
        if found["lanes"] != "1":
            raise ValueError(f"p={found['lanes']}, only 1 is possible")
        for part, least in (("salt", 8), ("hash", 16)):
            if not least <= len(_unbase64(found[part])) <= _LIMIT_BYTES:
                raise ValueError(f"a {part} that is not {least} to {_LIMIT_BYTES} bytes")
        return cls(text, Argon2Cost(memory_kib, time_cost))

    @classmethod
    def decoy(cls, cost: Argon2Cost, random_bytes: Callable[[int], bytes]) -> Argon2Hash:
        """One that no password fits, as costly to check as others of `cost`."""
        salt, digest = _base64(random_bytes(_SALT_BYTES)), _base64(random_bytes(_HASH_BYTES))
        return cls(f"$argon2id$v=19$m={cost.memory_kib},t={cost.time_cost},p=1${salt}${digest}", cost)

    @classmethod
    def from_password(cls, password: str, cost: Argon2Cost | None = None) -> Argon2Hash:
        """The hash of `password` with a new salt; `ValueError` for one that is empty or too long."""
        from argon2 import PasswordHasher

        try:
            data = password.encode()
        except UnicodeEncodeError:
            raise ValueError("a password that is not UTF-8") from None
        if not data:
            raise ValueError("an empty password")
        if len(data) > LONGEST_PASSWORD_BYTES:
            raise ValueError(f"a password of more than {LONGEST_PASSWORD_BYTES} bytes")
        cost = cost or Argon2Cost()
        hasher = PasswordHasher(cost.time_cost, cost.memory_kib, 1, _HASH_BYTES, _SALT_BYTES)
        return cls(hasher.hash(data), cost)

    def is_of(self, password: bytes) -> bool:
        """Whether it is the hash of `password`: slow, on purpose. Any error of argon2's is ours, not the password's."""
        from argon2.exceptions import VerifyMismatchError
        from argon2.low_level import Type, verify_secret

        try:
            return verify_secret(self.text.encode(), password, Type.ID)
        except VerifyMismatchError:
            return False


def _base64(data: bytes) -> str:
    """As argon2 writes it: without padding."""
    return base64.b64encode(data).decode("ascii").rstrip("=")


def _unbase64(text: str) -> bytes:
    try:
        return binascii.a2b_base64(text + "=" * (-len(text) % 4), strict_mode=True)
    except binascii.Error:
        raise ValueError("a salt or hash that is not base64") from None
