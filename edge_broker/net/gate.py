"""Who may come in before a word was said: how many in all, from one address, and half-way in.

One gate serves all listeners of a broker. It counts and decides; whoever asked counts the refusal and closes. Addresses of
this machine have no limit of their own: what runs here has other ways, and reverse proxies come from here.
"""

from __future__ import annotations

from typing import Protocol

from edge_broker.core.connection import Connection
from edge_broker.net.addresses import host_of, is_local, site_of


class Crowd(Protocol):
    """Who is in, and how many may be."""

    connections: set[Connection]
    max_connections: int


class Gate:
    """`max_per_address`: connections of one IP address, of IPv6 of one /64; 0 for no limit. `max_unfinished`: see
    `LimitsConfig`, 0 for none.

    Unfinished is what has not done its handshakes: PROXY header, TLS, WebSocket upgrade.
    """

    __slots__ = ("_counts", "_crowd", "_max_per_address", "_max_unfinished", "unfinished")

    def __init__(self, crowd: Crowd, max_per_address: int = 0, max_unfinished: int = 0) -> None:
        self._crowd = crowd
        self._max_per_address = max_per_address
        self._max_unfinished = max_unfinished
        self._counts: dict[str, int] = {}
        self.unfinished = 0

    def admit(self, address: str, shakes_hands: bool) -> str | None:
        """Let a connection in, until `leave`; or say by which limit not. One that `shakes_hands` is unfinished at first."""
        crowd = self._crowd
        if len(crowd.connections) >= crowd.max_connections:
            return "max_connections"
        host = host_of(address)
        counted = self._max_per_address and not is_local(host)
        site = site_of(host) if counted else ""
        if counted and self._counts.get(site, 0) >= self._max_per_address:
            return "max_connections_per_address"
        if shakes_hands and not self.begin_handshake():
            return "max_unfinished_handshakes"
        if counted:
            self._counts[site] = self._counts.get(site, 0) + 1
        return None

    def leave(self, address: str) -> None:
        """A connection that was let in is gone."""
        if not self._counts:
            return
        site = site_of(host_of(address))
        count = self._counts.get(site, 0)
        if count > 1:
            self._counts[site] = count - 1
        elif count:
            del self._counts[site]

    def begin_handshake(self) -> bool:
        """Whether one more may be half-way in; then it is, until `end_handshake`."""
        if self._max_unfinished and self.unfinished >= self._max_unfinished:
            return False
        self.unfinished += 1
        return True

    def end_handshake(self) -> None:
        """It is done, or given up."""
        self.unfinished -= 1
