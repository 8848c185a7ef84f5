"""Text that is shown to a person: what came from a stranger made harmless, numbers in their units."""

from __future__ import annotations

from datetime import datetime


def printable(text: str) -> str:
    """`text` with everything that a terminal might obey, or that breaks a line, written as an escape."""
    if text.isprintable():
        return text
    return "".join(c if c.isprintable() else c.encode("unicode_escape").decode() for c in text)


def clock(wall_seconds: float) -> str:
    """The local time of day, to the millisecond."""
    return datetime.fromtimestamp(wall_seconds).astimezone().strftime("%H:%M:%S.%f")[:-3]


def count(number: float) -> str:
    """A whole number with its thousands apart; a small one that is not whole, to the tenth."""
    return f"{number:,.1f}" if number % 1 and number < 100 else f"{number:,.0f}"


def plural(number: int, noun: str) -> str:
    """`1 client`, `2 clients`."""
    return f"{count(number)} {noun}" + ("" if number == 1 else "s")
