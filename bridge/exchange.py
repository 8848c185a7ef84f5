"""A client of a broker on a link: input within the client's budget, output once a turn, a look at the clock now and then.

Everything happens in callbacks of one event loop. Input may have to wait, altogether or for its next turn. It ends once,
for one reason, and says which. What is said over it is left to who builds on this: the bridge's conversation, the
ingester's talk.
"""

from __future__ import annotations

import asyncio
import time
from typing import Final, NamedTuple

from bridge import failures
from bridge.config import BridgeConfig
from bridge.link import Link
from bridge.places import Upstream
from bridge.policy import Sign
from edge_broker.core.client import Client, ClientHandler
from edge_broker.errors import UpstreamError
from edge_broker.wire import const
from edge_broker.wire.packets import Connect
from edge_broker.wire.topics import TopicCache

_CLOSING_SECONDS: Final = 2.0
_UNREADABLE_CONNECT: Final = frozenset(
    (const.UNSUPPORTED_PROTOCOL_VERSION, const.MALFORMED_PACKET, const.PROTOCOL_ERROR)
)
"""Refusals that mean the version: an older server may not even be able to read a CONNECT of MQTT 5."""


class Ending(NamedTuple):
    """How it ended. `error` None: we left. `sign`: how it failed before it was online, None where it was."""

    error: UpstreamError | None
    sign: Sign | None
    lasted_seconds: float
    progressed: bool
    sent_away: bool


class Exchange(ClientHandler):
    """One connection to `upstream`. `begin`, then await `ended`."""

    def __init__(
        self, config: BridgeConfig, upstream: Upstream, link: Link, request: Connect, topics: TopicCache
    ) -> None:
        self._config = config
        self._upstream = upstream
        self._link = link
        self._loop = asyncio.get_running_loop()
        self._client = Client(
            self,
            request,
            topics,
            self.wake,
            connack_timeout_seconds=config.connack_timeout_seconds,
            answer_timeout_seconds=config.puback_timeout_seconds,
        )
        self._woken = self._working = self._paused = False
        self._began_at = 0.0
        self._online_at: float | None = None
        self._timer: asyncio.TimerHandle | None = None
        self.ended: asyncio.Future[Ending] = self._loop.create_future()

    def begin(self) -> None:
        """Send CONNECT."""
        self._began_at = time.monotonic()
        self._client.start(self._began_at)
        self._link.begin(self)
        self._check_later()

    # ---- what is different from one user to the other

    def _look_at_clock(self) -> float:
        """What time it is, as a callback begins."""
        return time.monotonic()

    def _after_input(self) -> None:
        """Some input was handled; more may have to wait."""

    def _flush(self) -> None:
        """The turn ends in which `wake` was called: have sent what is to be."""
        raise NotImplementedError

    def _check(self) -> None:
        """It is time to look whether answers are overdue."""
        raise NotImplementedError

    def _break(self) -> None:
        """Called from an except block: a fault of ours ends the connection that met it."""
        raise NotImplementedError

    @property
    def _has_stood(self) -> bool:
        """Whether the broker had accepted us."""
        return self._online_at is not None

    @property
    def _has_progressed(self) -> bool:
        """Whether the connection was good for something."""
        return False

    def _on_offline(self) -> None:
        """The connection that stood has ended."""

    # ---- the link's events

    def on_data(self, data: bytes) -> None:
        """Bytes came."""
        now = self._look_at_clock()
        try:
            if self._client.receive(data, now):
                self._work_later()
            self._after_input()
        except Exception:  # noqa: BLE001 - logged by _break
            self._break()
        self.wake()

    def on_writable(self, writable: bool) -> None:
        """The socket is full, or has room again."""
        self._client.writable = writable
        if writable:
            self.wake()

    def on_link_end(self, detail: str) -> None:
        """The connection is gone."""
        self._look_at_clock()
        self._client.on_lost(detail)

    # ---- input that waits for another turn

    def _work_later(self) -> None:
        if not self._working and not self._paused:
            self._working = True
            self._link.set_reading(False)
            self._loop.call_soon(self._work)

    def _work(self) -> None:
        self._working = False
        if self.ended.done() or self._paused:
            return
        self._look_at_clock()
        try:
            if self._client.work():
                self._work_later()
            elif not self._paused:
                self._link.set_reading(True)
            self._after_input()
        except Exception:  # noqa: BLE001 - logged by _break
            self._break()
        self.wake()

    # ---- output, and time

    def wake(self) -> None:
        """Have what can be sent sent at the end of this turn."""
        if not self._woken:
            self._woken = True
            self._loop.call_soon(self._flush)

    def _write(self, now: float) -> None:
        data = self._client.take_output(now)
        if data:
            self._link.write(data)

    def _check_later(self) -> None:
        config = self._config
        period = min(1.0, config.connack_timeout_seconds / 4, config.puback_timeout_seconds / 4)
        if self._client.keep_alive:
            period = min(period, self._client.keep_alive / 10)
        self._timer = self._loop.call_later(period, self._check)

    # ---- the end

    def on_refused(self, reason_code: int, detail: str) -> None:
        """The broker refused us."""
        sign: Sign = "version" if reason_code in _UNREADABLE_CONNECT else "refused"
        self._end(failures.refused(self._upstream, reason_code, detail), sign)

    def on_closed(self, reason_code: int, detail: str) -> None:
        """The connection ended."""
        upstream = self._upstream
        if self._has_stood:
            if self._client.sent_away:
                self._end(failures.sent_away(upstream, reason_code, detail), None)
            else:
                self._end(failures.lost(upstream, detail), None)
        elif reason_code == const.KEEP_ALIVE_TIMEOUT:
            self._end(failures.not_answered(upstream, self._config.connack_timeout_seconds), "silent")
        else:
            error = failures.closed_before_connack(upstream, self._link.tls_version, detail)
            self._end(error, "refused" if error.kind == "identity" else "silent")

    def _end(self, error: UpstreamError | None, sign: Sign | None, sent_away: bool = False) -> None:
        if self.ended.done():
            return
        now = self._look_at_clock()
        lasted_seconds = 0.0 if self._online_at is None else now - self._online_at
        sent_away = sent_away or self._client.sent_away
        self.ended.set_result(Ending(error, sign, lasted_seconds, self._has_progressed, sent_away))
        if self._timer is not None:
            self._timer.cancel()
        self._write(now)
        self._link.close()
        self._loop.call_later(_CLOSING_SECONDS, self._link.abort)
        if self._online_at is not None:
            self._on_offline()
