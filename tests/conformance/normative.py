"""Which statement of the specification a test is about: a decorator, and what the tables of statements are made of."""

from __future__ import annotations

from typing import Literal, NamedTuple

import pytest

Binds = Literal["server", "client", "both"]


class Statement(NamedTuple):
    """One normative statement. `binds`: whose duty it is. `words`: what it says, in our own short words.

    `only_with`: the part of MQTT that it takes for granted, such as "WebSocket"; empty for most.
    """

    binds: Binds
    words: str
    only_with: str = ""

    @property
    def text(self) -> str:
        """The words, and what they are about where they do not say it."""
        return f"{self.only_with}: {self.words}" if self.only_with else self.words

    @property
    def binds_server(self) -> bool:
        """Whether a server must have a test for it."""
        return self.binds != "client"


def normative(*ids: str) -> pytest.MarkDecorator:
    """Marks a test as one of the statements `ids`, such as ``"MQTT-3.1.0-1"``, of the version that its file is about."""
    assert ids
    return pytest.mark.normative(*ids)
