"""Connections that a proxy hands on: first its header, then whatever the listener serves, under the client's address.

From the proxies' addresses the header is required; from any other none is looked for, so nobody else can say who it is.
What comes after is served by the protocol that would have been there from the beginning, to which the transport is handed
over: nothing is left in the way. The time until the header is there counts as the client's.
"""

from __future__ import annotations

import asyncio
import ipaddress
import logging
import time
from collections.abc import Callable, Sequence
from typing import Final, cast

from edge_broker.net.addresses import GONE, address_of, host_of
from edge_broker.net.gate import Gate
from edge_broker.net.proxy_header import ProxyHeaderError, read_proxy_header
from edge_broker.net.transport import Hub, StreamProtocol

log: Final = logging.getLogger("edge_broker.net")


class ProxyList:
    """The addresses of proxies; `texts` as in the configuration: addresses and networks."""

    def __init__(self, texts: Sequence[str]) -> None:
        self._networks = [ipaddress.ip_network(text) for text in texts]

    def __contains__(self, host: str) -> bool:
        try:
            address = ipaddress.ip_address(host)
        except ValueError:
            return False
        return any(address in network for network in self._networks)


class ProxiedProtocol(asyncio.Protocol):
    """One accepted connection until it is known whose it is. `serve` makes the protocol that then takes it.

    `waiting` has those whose header is not there yet.
    """

    __slots__ = (
        "_address",
        "_gate",
        "_hub",
        "_opened_at",
        "_proxies",
        "_received",
        "_serve",
        "_timer",
        "_transport",
        "_waiting",
    )

    def __init__(
        self,
        hub: Hub,
        gate: Gate,
        proxies: ProxyList,
        serve: Callable[[], StreamProtocol],
        waiting: set[ProxiedProtocol],
    ) -> None:
        self._hub = hub
        self._gate = gate
        self._proxies = proxies
        self._serve = serve
        self._waiting = waiting
        self._received = b""
        self._address = ""
        self._opened_at = 0.0
        self._transport: asyncio.Transport
        self._timer: asyncio.TimerHandle

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast(asyncio.Transport, transport)
        self._address = address_of(transport)
        self._opened_at = time.monotonic()
        if self._address == GONE:
            self._transport.abort()
        elif host_of(self._address) not in self._proxies:
            self._hand_over(self._address)
        elif self._gate.begin_handshake():
            self._waiting.add(self)
            seconds = self._hub.router.settings.connect_timeout_seconds
            self._timer = asyncio.get_running_loop().call_later(seconds, self._on_timeout)
        else:
            self._count_refusal("max_unfinished_handshakes", "max_unfinished_handshakes")
            self._transport.abort()

    def data_received(self, data: bytes) -> None:
        if self not in self._waiting:
            return
        self._received += data
        try:
            header = read_proxy_header(self._received)
        except ProxyHeaderError as error:
            self._refuse("proxy_protocol", str(error))
            return
        if header is not None:
            rest = self._received[header.length :]
            self._stop_waiting()
            served = self._hand_over(header.address or self._address)
            if rest:
                served.data_received(rest)

    def connection_lost(self, exc: Exception | None) -> None:
        self._stop_waiting()

    def abort(self) -> None:
        """The broker is stopping."""
        self._stop_waiting()
        self._transport.abort()

    def _hand_over(self, address: str) -> StreamProtocol:
        served = self._serve()
        self._transport.set_protocol(served)
        served.begin(self._transport, address, self._opened_at)
        return served

    def _on_timeout(self) -> None:
        self._refuse("connect_timeout", "no PROXY header in time")

    def _refuse(self, counter: str, detail: str) -> None:
        self._count_refusal(counter, f"a proxy's header: {detail}")
        log.info("a proxy at %s: %s", self._address, detail)
        self._stop_waiting()
        self._transport.abort()

    def _count_refusal(self, counter: str, reason: str) -> None:
        router = self._hub.router
        router.counters.refuse(counter)
        if router.observer is not None:
            router.observer.on_refused(self._address, "", reason)

    def _stop_waiting(self) -> None:
        if self in self._waiting:
            self._waiting.remove(self)
            self._timer.cancel()
            self._gate.end_handshake()
