"""The broker that is judged: the real one, all of it, on a loopback port, its event loop in a thread of the test's process.

So a test has sockets and a store as in real life, can have the broker finish what it is at (`settle`), let hours pass
(`pass_time`) and start it again on its data (`restart`). An error in the broker's log fails the test that made it.
"""

from __future__ import annotations

import asyncio
import inspect
import json
import logging
import sys
import threading
import time
from collections.abc import Awaitable, Callable, Mapping
from concurrent.futures import Future
from pathlib import Path
from typing import Any, Final, TypeVar

import pytest

import edge_broker.broker
from edge_broker.broker import Broker
from edge_broker.config.loading import load
from edge_broker.config.model import Config
from edge_broker.config.reading import Reading
from edge_broker.core.ports import Authenticator, Authorizer
from edge_broker.core.router import Router
from tests.conformance.clock import CLOCK
from tests.conformance.codec import V311
from tests.conformance.websocket import WebSocketWire
from tests.conformance.wire import WAIT_SECONDS, Wire

T = TypeVar("T")

_LOGGERS: Final = ("edge_broker", "asyncio")
"""Whose errors are the broker's."""


class RunningBroker:
    """A broker on `data_dir`. `sections`: the configuration by section, such as ``limits={"max_packet_bytes": 128}``.

    `listeners`: a list of them; the default is one plain listener. `toml`: what goes to the end of the configuration.
    `authenticator` and `authorizer` decide in place of the broker's own.
    """

    def __init__(
        self,
        data_dir: Path,
        toml: str = "",
        authenticator: Authenticator | None = None,
        authorizer: Authorizer | None = None,
        **sections: Any,
    ) -> None:
        everything = {"data_dir": str(data_dir), "listeners": [{"bind": "127.0.0.1:0"}]} | sections
        file = data_dir.with_suffix(".toml")
        file.write_text(_toml(everything) + toml)
        self._config = load(file, sections={"bridges": _read_bridges}, environ={})
        deciders = {"authenticator": authenticator, "authorizer": authorizer}
        self._deciders = {name: decider for name, decider in deciders.items() if decider is not None}
        self._wires: list[Wire] = []
        self._errors = _Errors()
        self._broker: Broker
        self._loop: asyncio.AbstractEventLoop
        self._thread: threading.Thread | None = None

    # ---- from start to stop

    def start(self) -> RunningBroker:
        """Start it and wait until it listens."""
        CLOCK.take()
        for name in _LOGGERS:
            logging.getLogger(name).addHandler(self._errors)
        self._switch_interval = sys.getswitchinterval()
        started: Future[None] = Future()
        self._thread = threading.Thread(target=lambda: asyncio.run(self._serve(started)), name="broker")
        self._thread.start()
        try:
            started.result(WAIT_SECONDS)
        except BaseException:
            self._end_thread()
            raise
        return self

    async def _serve(self, started: Future[None]) -> None:
        self._loop = asyncio.get_running_loop()
        self._stopping = asyncio.Event()
        self._broker = Broker(self._config, bridges=_bridges(self._config))
        try:
            with pytest.MonkeyPatch.context() as patch:
                patch.setattr(edge_broker.broker, "Router", self._make_router)
                await self._broker.start()
        except BaseException as error:  # noqa: BLE001 - whatever it is, `start` raises it
            started.set_exception(error)
            return
        started.set_result(None)
        await self._stopping.wait()
        await self._broker.stop()

    def _make_router(self, *arguments: Any, **named: Any) -> Router:
        """The router with the deciders of this test; its arguments are the broker's."""
        given = inspect.signature(Router).bind(*arguments, **named).arguments
        return Router(**given | self._deciders)

    def stop(self) -> None:
        """Stop it as SIGTERM does. AssertionError if it logged an error while it ran."""
        if self._thread is None:
            return
        self._loop.call_soon_threadsafe(self._stopping.set)
        self._end_thread()
        self.close_wires()
        self.assert_sound()

    def _end_thread(self) -> None:
        """Wait for the end of the broker's thread, and put back what `start` changed in this process."""
        thread, self._thread = self._thread, None
        assert thread is not None
        thread.join(2 * WAIT_SECONDS)
        assert not thread.is_alive(), "the broker does not stop"
        sys.setswitchinterval(self._switch_interval)
        for name in _LOGGERS:
            logging.getLogger(name).removeHandler(self._errors)
        CLOCK.leave()

    def restart(self) -> RunningBroker:
        """Stop it and start it on the same data; connections end, the port is another one, the clock goes on."""
        self.stop()
        return self.start()

    def assert_sound(self) -> None:
        """It has logged no error since the last look."""
        messages, self._errors.messages = self._errors.messages, []
        assert not messages, "the broker logged: " + "\n".join(messages)

    # ---- clients

    @property
    def port(self) -> int:
        """Where it listens."""
        return self.port_of(0)

    def port_of(self, listener: int) -> int:
        """Where its listener of that place in the configuration listens."""
        return int(self._broker.listening[listener].partition("://")[2].partition("/")[0].rpartition(":")[2])

    def wire(self, version: int = V311, listener: int = 0) -> Wire:
        """A new TCP connection on which nothing was sent."""
        wire = Wire(self.port_of(listener), version, self.settle)
        self._wires.append(wire)
        return wire

    def websocket(self, version: int = V311, listener: int = 0) -> WebSocketWire:
        """The same through a WebSocket, on a listener of that transport."""
        wire = WebSocketWire(self.port_of(listener), version, self.settle)
        self._wires.append(wire)
        return wire

    def client(self, client_id: str | bytes | None = None, version: int = V311, **fields: Any) -> Wire:
        """A connected client; `fields` as in `Connect`."""
        wire = self.wire(version)
        wire.connect(client_id, **fields)
        return wire

    def vanish(self, wire: Wire) -> None:
        """Break a client's connection without DISCONNECT, and wait until the broker knows."""
        address = wire.address
        wire.abort()
        self._wait_until_gone({address})

    def close_wires(self) -> None:
        """Close every connection that `wire` made, and wait until the broker knows: it may have wills to publish."""
        addresses = {wire.address for wire in self._wires}
        for wire in self._wires:
            wire.close()
        self._wires.clear()
        if self._thread is not None:
            self._wait_until_gone(addresses)

    def _wait_until_gone(self, addresses: set[str]) -> None:
        def are_gone() -> bool:
            return addresses.isdisjoint(connection.address for connection in self._broker.connections)

        deadline = time.monotonic() + WAIT_SECONDS
        while not self.call(are_gone):
            assert time.monotonic() < deadline, "the broker does not notice"

    # ---- time and rest

    def settle(self) -> None:
        """Wait until nothing is pending: all that was received is committed, and what follows from it is on its way."""
        self._await(self._broker.journal.flush)
        self.call(lambda: None)  # the turn after the commit, in which its consequences were written

    def wait_until_in(self, client_id: str) -> None:
        """Wait until a client with that identifier has its CONNACK on the way."""
        deadline = time.monotonic() + WAIT_SECONDS
        while time.monotonic() < deadline:
            session = self.call(lambda: self._broker.router.sessions.get(client_id))
            if session is not None and session.online:
                return
        raise AssertionError(f"{client_id} was not let in")

    def pass_time(self, seconds: float) -> None:
        """Let time pass for the broker, and have it do what it does every second. For a broker of the test's own."""
        CLOCK.ahead_seconds += seconds

        def sweep() -> None:
            broker, now = self._broker, CLOCK.monotonic()
            for connection in list(broker.connections):
                connection.check_idle(now)
            broker.router.sweep(now)
            broker.request_tick()

        self.call(sweep)
        self.settle()

    def call(self, function: Callable[[], T]) -> T:
        """Run `function` in the broker's thread; its result, once the turn of the event loop is over."""

        async def run() -> T:
            result = function()
            await asyncio.sleep(0)
            await asyncio.sleep(0)
            return result

        return self._await(run)

    def _await(self, function: Callable[[], Awaitable[T]]) -> T:
        async def run() -> T:
            return await function()

        return asyncio.run_coroutine_threadsafe(run(), self._loop).result(WAIT_SECONDS)


def _toml(sections: Mapping[str, Any]) -> str:
    """Keys, tables and arrays of tables; JSON's way to write a value is TOML's too."""
    keys, tables = [], []
    for name, section in sections.items():
        if isinstance(section, dict):
            tables += [f"[{name}]", *_keys(section)]
        elif isinstance(section, list):
            tables += [line for table in section for line in (f"[[{name}]]", *_keys(table))]
        else:
            keys += _keys({name: section})
    return "\n".join([*keys, *tables, ""])


def _keys(table: Mapping[str, Any]) -> list[str]:
    return [f"{key} = {json.dumps(value)}" for key, value in table.items()]


def _read_bridges(data: object, reading: Reading) -> tuple[Any, ...]:
    from bridge.config_checks import parse_bridges

    return parse_bridges(data, reading)


def _bridges(config: Config) -> list[Any]:
    if not config.bridges:
        return []
    from bridge import Bridge

    return [Bridge(bridge) for bridge in config.bridges]


class _Errors(logging.Handler):
    """What the broker logs as an error."""

    def __init__(self) -> None:
        super().__init__(logging.ERROR)
        self.messages: list[str] = []

    def emit(self, record: logging.LogRecord) -> None:
        self.messages.append(self.format(record))
