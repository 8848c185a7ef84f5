"""Where the broker can be reached: listeners for clients, HTTP for probes and metrics, the control socket for who runs it.

A listener whose address is not there yet is tried again by itself; that there is no control socket is said, and is no
reason not to work. What is served is decided elsewhere.
"""

from __future__ import annotations

import logging
from functools import partial
from typing import TYPE_CHECKING, Final

from edge_broker import wiring
from edge_broker.config.listeners import ListenerConfig
from edge_broker.config.model import Config
from edge_broker.net.gate import Gate
from edge_broker.net.listeners import Listener
from edge_broker.renewing import Renewing
from edge_broker.turns import Turns

if TYPE_CHECKING:
    from edge_broker.ops.control import ControlServer, Handler
    from edge_broker.ops.http import HttpServer

log: Final = logging.getLogger("edge_broker.broker")


class Serving(Turns):
    """The broker's second floor.

    `commands`: what the control socket answers, by name; `ops.control` says how to add one.
    """

    renewing: Renewing
    commands: dict[str, Handler]

    def __init__(self, config: Config) -> None:
        super().__init__(config.limits.max_connections)
        self.config = config
        self._listeners: list[Listener] = []
        self._anonymous: dict[str, bool] = {}  # by listener
        self._http: HttpServer | None = None
        self._control: ControlServer | None = None

    @property
    def listening(self) -> list[str]:
        """Where clients can connect, as URLs."""
        return [listener.url for listener in self._listeners if listener.accepting]

    @property
    def not_listening(self) -> list[str]:
        """Where clients should be able to connect and cannot, as URLs."""
        return [listener.url for listener in self._listeners if not listener.accepting]

    async def _start_listeners(self) -> None:
        limits = self.config.limits
        gate = Gate(self, limits.max_connections_per_address, limits.max_unfinished_handshakes)
        for config in self.config.listeners:
            on_listening = partial(self._on_listening, config)
            listener = wiring.make_listener(self, config, gate, self.renewing.deny_list, on_listening)
            self._listeners.append(listener)
            self.renewing.watch_listener(config, listener)
            await listener.start()

    def _on_listening(self, config: ListenerConfig, listener: Listener) -> None:
        self._anonymous[listener.name] = config.anonymous
        log.info("listening on %s", listener.url)

    async def _start_http(self, http: HttpServer | None) -> None:
        address = self.config.http.address
        if http is None or address is None:
            return
        self._http = http
        await http.start(address.host, address.port)
        log.info("health and metrics on %s", http.url)

    async def _start_control(self) -> None:
        """Open the control socket. Without one the broker does its work all the same, so that it cannot be had is said."""
        control = wiring.make_control(self.config, self.commands)
        if control is None:
            return
        try:
            await control.start()
        except OSError as error:
            log.error(
                "no control socket, so no `edge-broker status` or `trace`: %s: %s ([control] path puts it elsewhere)",
                self.config.control_path,
                error.strerror or error,
            )
        else:
            self._control = control
