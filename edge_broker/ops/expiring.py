"""When certificates, CAs and revocation lists expire: told a month ahead, since nobody looks at them otherwise.

The files are read when they are added and when they have changed; asking costs a subtraction. Of a file with several
certificates the first to expire counts. A file that cannot be read is not this module's to complain of.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Final, NamedTuple

from edge_broker.ops.health import Problem

WARNING_SECONDS: Final = 30 * 86_400.0
_DAY_SECONDS: Final = 86_400.0
_HINTS: Final = {
    "certificate": "give a new one in the same file: it is taken without a restart",
    "ca": "give the new one beside the old one in the same file: it is taken without a restart",
    "crl": "have its CA write a new one into the same file: it is taken without a restart",
}

ReadExpiry = Callable[[bytes, str], float | None]
"""The first moment, Unix time, at which something in a PEM file of a kind (`certificate`, `ca`, `crl`) expires; None where
nothing does. `ValueError` for what cannot be read."""


class Expiry(NamedTuple):
    """`kind`: `certificate`, `ca` or `crl`; `owner`: whose, a listener's URL or a bridge; `at`: Unix time."""

    kind: str
    owner: str
    paths: tuple[Path, ...]
    at: float


class Expiring:
    """Everything that expires."""

    def __init__(self, read_expiry: ReadExpiry) -> None:
        self._read_expiry = read_expiry
        self._entries: dict[tuple[str, str], Expiry] = {}

    def put(self, kind: str, owner: str, paths: Sequence[Path]) -> None:
        """Read `paths`, or read them again; where nothing expires there is no entry."""
        moments = [moment for path in paths if (moment := self._moment(path, kind)) is not None]
        if moments:
            self._entries[kind, owner] = Expiry(kind, owner, tuple(paths), min(moments))
        else:
            self._entries.pop((kind, owner), None)

    def __iter__(self) -> Iterator[Expiry]:
        return iter(list(self._entries.values()))

    def problems(self, wall: float) -> list[Problem]:
        """What expires within a month of `wall`, Unix time, or has."""
        return [_problem(entry, entry.at - wall) for entry in self if entry.at - wall < WARNING_SECONDS]

    def _moment(self, path: Path, kind: str) -> float | None:
        try:
            return self._read_expiry(path.read_bytes(), kind)
        except (OSError, ValueError):
            return None


def _problem(entry: Expiry, seconds: float) -> Problem:
    where = ", ".join(map(str, entry.paths))
    days = abs(int(seconds // _DAY_SECONDS)) if seconds >= 0 else int(-seconds // _DAY_SECONDS)
    count = "less than a day" if days == 0 else "1 day" if days == 1 else f"{days} days"
    when = f"expires in {count}" if seconds >= 0 else f"expired {count} ago"
    return Problem(f"{entry.kind} of {entry.owner}", f"{where} {when}", _HINTS[entry.kind])
