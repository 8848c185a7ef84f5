"""The priorities of a bridge's messages: what they are called, and which of them goes first.

Each is a lane: a durable queue of its own on the way to one upstream. A topic's rule says which, so all messages of a topic
are in one lane and keep their order. `normal` is the queue that every bridge has, under its own name in the store; the
others are beside it as `NAME!high` and `NAME!low`, made when a rule first uses them.
"""

from __future__ import annotations

from typing import Final

NORMAL: Final = 0
HIGH: Final = 1
LOW: Final = 2

NAMES: Final = ("normal", "high", "low")
"""By number. The number is in the packet identifiers of a lane's messages: it never changes."""

FAVOURED: Final = (HIGH, NORMAL, LOW)
"""In the order in which they go."""

EXPENDABLE: Final = (LOW, NORMAL, HIGH)
"""In the order in which they give way where there is no room."""


def store_name(bridge: str, priority: int) -> str:
    """How the store calls the queue. No bridge has a `!` in its own name."""
    return bridge if priority == NORMAL else f"{bridge}!{NAMES[priority]}"
