"""How many lines the audit log takes: of each kind, and where a stranger could flood it of each kind from one address.

Time goes in windows of a minute. What a window has no room for is counted, and told when it is over: by kind and address,
the worst of them each with a line of its own, the rest in one. Memory is bounded: beyond so many addresses all others
share one account.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Final, NamedTuple

WINDOW_SECONDS: Final = 60.0
_MAX_ADDRESSES: Final = 4_096
_MOST_TOLD: Final = 20
OTHERS: Final = "others"
"""Stands for all addresses that have no account of their own."""


class Allowed(NamedTuple):
    """Lines of a kind in a window: in all, and from one address."""

    in_all: int
    per_address: int


class LeftOut(NamedTuple):
    """Lines that were not written. `address`: `OTHERS` for those that are not told one by one."""

    event: str
    address: str
    lines: int


class AuditLimits:
    """What each kind of line may take; one that is not in `allowed` has no limit.

    `origin_of`: who counts as one, by address.
    """

    def __init__(self, allowed: Mapping[str, Allowed], origin_of: Callable[[str], str], now: float) -> None:
        self._allowed = allowed
        self._origin_of = origin_of
        self._ends_at = now + WINDOW_SECONDS
        self._by_kind: dict[str, int] = {}
        self._by_address: dict[tuple[str, str], int] = {}
        self._left_out: dict[tuple[str, str], int] = {}

    def admit(self, event: str, address: str) -> bool:
        """Whether one more line of the kind may be written now; counted either way."""
        allowed = self._allowed.get(event)
        if allowed is None:
            return True
        key = (event, self._origin_of(address))
        count = self._by_address.get(key)
        if count is None and len(self._by_address) >= _MAX_ADDRESSES:
            key = (event, OTHERS)
            count = self._by_address.get(key)
        count = (count or 0) + 1
        self._by_address[key] = count
        if count <= allowed.per_address:
            total = self._by_kind[event] = self._by_kind.get(event, 0) + 1
            if total <= allowed.in_all:
                return True
        self._left_out[key] = self._left_out.get(key, 0) + 1
        return False

    def end_window(self, now: float) -> list[LeftOut]:
        """What the window left out, if it is over by `now`; then the next one begins."""
        if now < self._ends_at:
            return []
        return self.begin_anew(now)

    def begin_anew(self, now: float) -> list[LeftOut]:
        """End the window early; what it left out, the most first."""
        self._ends_at = now + WINDOW_SECONDS
        self._by_kind.clear()
        self._by_address.clear()
        left_out = [LeftOut(*key, count) for key, count in self._left_out.items()]
        self._left_out.clear()
        left_out.sort(key=lambda one: (one.address == OTHERS, -one.lines))
        told, rest = left_out[:_MOST_TOLD], left_out[_MOST_TOLD:]
        return told + [
            LeftOut(event, OTHERS, sum(one.lines for one in rest if one.event == event))
            for event in dict.fromkeys(one.event for one in rest)
        ]
