"""Passwords that were right a moment ago, so that clients that come back together are not all checked anew.

A password is kept as an HMAC under a secret of the process, together with the very hash that it was checked against: where
the password file has another one now, the memory is of no use to anybody. What was not used for a while is forgotten, and
so is the least recently used where there are too many. Wrong passwords are never in it.
"""

from __future__ import annotations

import hmac
from collections import OrderedDict
from typing import Final

from edge_broker.security.hashing import Argon2Hash

LIFETIME_SECONDS: Final = 300.0
_MAX_ENTRIES: Final = 10_000


class Verified:
    """`secret`: at least 32 random bytes that no one else has and nothing stores. `hits`: how often it spared the work."""

    def __init__(
        self, secret: bytes, lifetime_seconds: float = LIFETIME_SECONDS, max_entries: int = _MAX_ENTRIES
    ) -> None:
        self.hits = 0
        self._secret = secret
        self._lifetime_seconds = lifetime_seconds
        self._max_entries = max_entries
        self._entries: OrderedDict[bytes, tuple[float, Argon2Hash]] = OrderedDict()  # long unused first

    def __len__(self) -> int:
        return len(self._entries)

    def digest(self, name: str, password: bytes) -> bytes:
        """What stands for both: 32 bytes, which tell nothing without the secret."""
        encoded = name.encode()
        return hmac.digest(self._secret, len(encoded).to_bytes(4, "big") + encoded + password, "sha256")

    def has(self, digest: bytes, kept: Argon2Hash, now: float) -> bool:
        """Whether that password was right for `kept` within the lifetime; then it lives on from `now`."""
        entry = self._entries.get(digest)
        if entry is None or entry[1] != kept or now - entry[0] >= self._lifetime_seconds:
            return False
        self.hits += 1
        self.add(digest, kept, now)
        return True

    def add(self, digest: bytes, kept: Argon2Hash, now: float) -> None:
        """That password is right for `kept`."""
        self._entries[digest] = (now, kept)
        self._entries.move_to_end(digest)
        if len(self._entries) > self._max_entries:
            self._entries.popitem(last=False)

    def sweep(self, now: float) -> None:
        """About once a second: forget what is too old."""
        while self._entries:
            digest, (used_at, _) = next(iter(self._entries.items()))
            if now - used_at < self._lifetime_seconds:
                return
            del self._entries[digest]
