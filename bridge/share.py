"""Which topics are a canary's: a stated part of them, by a hash that others can compute.

BLAKE2b of eight bytes over `BRIDGE/TOPIC` in UTF-8, the topic as it is called here, is a big-endian number: where it lies
below `percent` hundredths of 2^64, the topic is the canary's. So one that is the canary's at 5 % is at 10 % too, and every
gateway whose bridge has the same name has the same topics there.
"""

from __future__ import annotations

from hashlib import blake2b

_ALL = 1 << 64


class Share:
    """Of the bridge `name`, `percent` of the topics."""

    __slots__ = ("_below", "_name", "_percent")

    def __init__(self, name: str, percent: float) -> None:
        self._name = name
        self.percent = percent

    @property
    def percent(self) -> float:
        """0 to 100."""
        return self._percent

    @percent.setter
    def percent(self, percent: float) -> None:
        self._percent = percent
        self._below = int(percent / 100 * _ALL)

    def takes(self, topic: str) -> bool:
        """Whether `topic` is the canary's."""
        place = blake2b(f"{self._name}/{topic}".encode(), digest_size=8).digest()
        return int.from_bytes(place, "big") < self._below
