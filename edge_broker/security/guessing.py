"""What guessing passwords costs: answers that come later and later, then a ban, of a name from an address or of an address.

A guess is a wrong password that the same address has not tried for the same name before: a device with an old password, or
a whole fleet of them behind one NAT, repeats a single guess for ever and is never banned for it, only answered late. Nobody
can have a name banned from anywhere but from the guesser's own address, so guessing locks nobody else out.

No name at all, as tokens come with, is nobody's to be banned by: there the address counts alone.

An address is an IPv4 address, the /64 of an IPv6 one, or the user of a Unix socket. This machine has no ban over all names:
reverse proxies come from here. Memory is bounded; what is forgotten early is counted. The clock and chance are parameters;
passwords never come here, only digests that nobody can undo; names of nobody are not logged, since people type passwords
in their place.
"""

from __future__ import annotations

import hashlib
import ipaddress
import logging
from collections import OrderedDict
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Final, TypeVar

K = TypeVar("K")

log: Final = logging.getLogger("edge_broker.security")

_FIRST_DELAY_SECONDS: Final = 0.2
_MAX_RECORDS: Final = 10_000
_MAX_DIGESTS: Final = 100
_LOGGED_NAME: Final = 64


@dataclass(frozen=True, slots=True)
class GuessLimits:
    """How many guesses within `window_seconds` are too many, 0 for no limit; for how long a ban; the longest delay."""

    per_name: int = 10
    per_address: int = 200
    window_seconds: float = 300
    ban_seconds: float = 300
    delay_seconds: float = 3.0


@dataclass(slots=True)
class GuessCounters:
    """Since the start. `failures`: wrong passwords, repeated ones too; `refused`: not looked at because of a ban.

    `bans` by what was banned; `forgotten`: records that had to make room before their time.
    """

    failures: int = 0
    refused: int = 0
    forgotten: int = 0
    bans: dict[str, int] = field(default_factory=lambda: {"name": 0, "address": 0})


@dataclass(slots=True)
class _Record:
    """Of one address, or of one name from one address. `who`: for the log, set with a ban."""

    since: float
    failures: int = 0
    guesses: int = 0
    digests: set[bytes] = field(default_factory=set)
    banned_until: float | None = None
    who: str = ""


class Guessing:
    """Counts wrong passwords. `is_known` says whether a name is in the password file; `chance` gives 0 to 1."""

    def __init__(
        self, limits: GuessLimits, is_known: Callable[[str], bool], chance: Callable[[], float]
    ) -> None:
        self.counters = GuessCounters()
        self._limits = limits
        self._is_known = is_known
        self._chance = chance
        self._names: OrderedDict[bytes, _Record] = OrderedDict()  # by address and name, oldest first
        self._addresses: OrderedDict[str, _Record] = OrderedDict()

    def banned(self) -> dict[str, int]:
        """Bans in force, by what is banned."""
        return {"name": _count_bans(self._names), "address": _count_bans(self._addresses)}

    def refuses(self, address: str, name: str, now: float) -> bool:
        """Whether a password for `name` from `address` is not even looked at; counted if so."""
        origin = origin_of(address)
        for record in (self._addresses.get(origin), self._names.get(_key(origin, name))):
            if record is not None and record.banned_until is not None and now < record.banned_until:
                self.counters.refused += 1
                return True
        return False

    def knows(self, address: str, name: str, digest: bytes, now: float) -> bool:
        """Whether the password of that digest was wrong before, for the same name from the same address."""
        record = self._names.get(_key(origin_of(address), name))
        return record is not None and self._is_current(record, now) and digest in record.digests

    def fail(self, address: str, name: str, digest: bytes | None, now: float) -> float:
        """A wrong password; for how many seconds to hold the answer back. `digest` None: not known whether a new one."""
        self.counters.failures += 1
        origin = origin_of(address)
        record = self._record(self._names, _key(origin, name), now)
        record.failures += 1
        if digest is None or digest not in record.digests:
            self._count_guess(record, digest, origin, name, now)
        return self._delay(record.failures)

    def sweep(self, now: float) -> None:
        """About once a second: end bans that are over, forget what is out of its window."""
        self._sweep(self._names, now)
        self._sweep(self._addresses, now)

    def _count_guess(self, record: _Record, digest: bytes | None, origin: str, name: str, now: float) -> None:
        limits = self._limits
        record.guesses += 1
        if digest is not None and len(record.digests) < _MAX_DIGESTS:
            record.digests.add(digest)
        if name and limits.per_name and record.guesses == limits.per_name:
            label = repr(name[:_LOGGED_NAME]) if self._is_known(name) else "an unknown name"
            self._ban("name", record, f"{label} from {origin}", now)
        if not limits.per_address or is_this_machine(origin):
            return
        of_address = self._record(self._addresses, origin, now)
        of_address.guesses += 1
        if of_address.guesses == limits.per_address:
            self._ban("address", of_address, f"every name from {origin}", now)

    def _ban(self, kind: str, record: _Record, who: str, now: float) -> None:
        record.banned_until = now + self._limits.ban_seconds
        record.who = who
        self.counters.bans[kind] += 1
        log.warning(
            "%s is refused for %g s: %d wrong passwords", who, self._limits.ban_seconds, record.guesses
        )

    def _delay(self, failures: int) -> float:
        """Twice as long with each failure, and not in step with others: a fleet shall not come back as one."""
        longest = self._limits.delay_seconds
        doubled = _FIRST_DELAY_SECONDS * 2.0 ** min(failures - 1, 16)
        return min(longest, doubled * (0.75 + self._chance() / 2))

    def _record(self, records: OrderedDict[K, _Record], key: K, now: float) -> _Record:
        """The record at `key`, a new one where there is none or its time is over."""
        record = records.get(key)
        if record is not None and self._is_current(record, now):
            return record
        if record is not None:
            _log_end(record)
        elif len(records) >= _MAX_RECORDS:
            records.popitem(last=False)
            self.counters.forgotten += 1
        records[key] = record = _Record(now)
        records.move_to_end(key)
        return record

    def _is_current(self, record: _Record, now: float) -> bool:
        if record.banned_until is not None:
            return now < record.banned_until
        return now - record.since < self._limits.window_seconds

    def _sweep(self, records: OrderedDict[K, _Record], now: float) -> None:
        over = [key for key, record in records.items() if not self._is_current(record, now)]
        for key in over:
            _log_end(records.pop(key))


def _count_bans(records: OrderedDict[K, _Record]) -> int:
    return sum(record.banned_until is not None for record in records.values())


def _log_end(record: _Record) -> None:
    if record.banned_until is not None:
        log.info("%s may try again", record.who)


def origin_of(address: str) -> str:
    """Who counts as one guesser: the address without its port, of an IPv6 one the network that one site has."""
    host, _, port = address.rpartition(":")
    if host == "unix":
        return address
    try:
        ip = ipaddress.ip_address(host.partition("%")[0])
    except ValueError:
        return host or port
    if ip.version == 6 and not ip.is_loopback:
        return str(ipaddress.ip_network((int(ip) >> 64 << 64, 64)))
    return str(ip)


def is_this_machine(origin: str) -> bool:
    """Whether `origin` is a program on this machine, or a proxy that everybody comes through."""
    return origin.startswith(("unix:", "127.")) or origin == "::1"


def _key(origin: str, name: str) -> bytes:
    """Names may be long, and there may be many."""
    return hashlib.blake2b(f"{origin} {name}".encode(), digest_size=16).digest()
