"""Host names to addresses, without holding up anybody: one lookup per name at a time, in a thread that may hang.

A lookup that nobody waits for any more goes on, and whoever asks for the same name meanwhile waits for that one: a
resolver that hangs for an hour costs one thread, not one per attempt.
"""

from __future__ import annotations

import asyncio
import socket
from functools import partial
from typing import NamedTuple

from bridge.background import call_in_background


class Address(NamedTuple):
    """Where to connect: an address family and what `socket.connect` takes."""

    family: int
    socket_address: tuple[str, int] | tuple[str, int, int, int] | str


class Resolver:
    """The lookups of one bridge."""

    def __init__(self) -> None:
        self._lookups: dict[tuple[str, int], asyncio.Future[list[Address]]] = {}

    async def resolve(self, host: str, port: int) -> list[Address]:
        """The addresses of `host`, best first; `socket.gaierror` where there are none."""
        try:
            return _look_up(host, port, socket.AI_NUMERICHOST)
        except socket.gaierror:
            pass  # a name, not an address
        key = (host, port)
        lookup = self._lookups.get(key)
        if lookup is None:
            lookup = self._lookups[key] = call_in_background(partial(_look_up, host, port), f"resolve {host}")
            lookup.add_done_callback(partial(self._forget, key))
        return await asyncio.shield(lookup)

    def _forget(self, key: tuple[str, int], lookup: asyncio.Future[list[Address]]) -> None:
        del self._lookups[key]
        if not lookup.cancelled():
            lookup.exception()  # whoever waits has seen it; if nobody does, nobody needs it


def _look_up(host: str, port: int, flags: int = 0) -> list[Address]:
    try:
        found = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM, proto=socket.IPPROTO_TCP, flags=flags)
    except UnicodeError as error:  # a label that is empty or too long
        raise socket.gaierror(socket.EAI_NONAME, f"not a host name: {error}") from None
    return [Address(family, address) for family, _, _, _, address in found]  # type: ignore[arg-type]
