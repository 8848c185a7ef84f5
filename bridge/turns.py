"""Whose turn it is, of several that share one line: those with more weight go first and more often, and nobody never.

While all have something to send, each gets its weight's share. Who had nothing to send has saved nothing up: it comes back
as if it had just been served. Who could not send, for want of room, keeps its claim to one turn. Pure, in whole numbers.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping


class Turns:
    """`weights`, by member, the first of equals first."""

    __slots__ = ("_idle", "_now", "_served", "_steps")

    def __init__(self, weights: Mapping[int, int]) -> None:
        most = max(weights.values())
        self._steps = {member: most // weight for member, weight in weights.items()}
        self._served = dict.fromkeys(weights, 0)  # in steps: who would have the least after its turn is next
        self._idle = set(weights)
        self._now = 0  # what the last one had that sent

    def rest(self, member: int) -> None:
        """`member` has nothing to send."""
        self._idle.add(member)

    def next_of(self, waiting: Collection[int]) -> int:
        """Who of `waiting`, which is not empty, is to send now."""
        served = self._served
        for member in waiting:
            least = self._now if member in self._idle else self._now - self._steps[member]
            served[member] = max(served[member], least)
        self._idle.difference_update(waiting)
        steps = self._steps
        return min(
            (member for member in steps if member in waiting),
            key=lambda member: served[member] + steps[member],
        )

    def note(self, member: int, messages: int) -> None:
        """`member` has sent: so many of which others had to wait for."""
        self._now = max(self._now, self._served[member])
        self._served[member] += messages * self._steps[member]
