"""One connection of a line, from CONNECT to its end: joins link, client and the line's user.

Everything happens in callbacks of one event loop. It ends once, for one reason, and says which. Input is handled within
the client's budget; the user may have it wait altogether.
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Callable
from typing import TYPE_CHECKING, Final, NamedTuple

from bridge import failures
from bridge.config import BridgeConfig
from bridge.link import Link
from bridge.places import Upstream
from bridge.policy import Sign
from edge_broker.core.client import Client
from edge_broker.core.message import Message
from edge_broker.errors import UpstreamError, UpstreamUnavailable
from edge_broker.wire import const
from edge_broker.wire.packets import Connect
from edge_broker.wire.topics import TopicCache

if TYPE_CHECKING:
    from bridge.ingest.line import LineUser

log: Final = logging.getLogger("bridge.ingest")

_CLOSING_SECONDS: Final = 2.0
_UNREADABLE_CONNECT: Final = frozenset(
    (const.UNSUPPORTED_PROTOCOL_VERSION, const.MALFORMED_PACKET, const.PROTOCOL_ERROR)
)


class Ending(NamedTuple):
    """How it ended. `error` None: we left. `sign`: how it failed before it was online, None where it was."""

    error: UpstreamError | None
    sign: Sign | None
    lasted_seconds: float
    sent_away: bool


class Talk:
    """`begin`, then await `ended`."""

    def __init__(
        self,
        config: BridgeConfig,
        upstream: Upstream,
        link: Link,
        request: Connect,
        user: LineUser,
        topics: TopicCache,
        on_online: Callable[[], None],
    ) -> None:
        self._config = config
        self._upstream = upstream
        self._link = link
        self._user = user
        self._on_online = on_online
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
        self._online_at: float | None = None
        self._timer: asyncio.TimerHandle | None = None
        self.ended: asyncio.Future[Ending] = self._loop.create_future()

    def begin(self) -> None:
        """Send CONNECT."""
        self._client.start(time.monotonic())
        self._link.begin(self)
        self._check_later()

    def leave(self, error: UpstreamError | None) -> None:
        """Say goodbye and end, because of `error` or because we want to."""
        self._client.disconnect()
        self._end(error, None)

    def pause(self) -> None:
        """Take no more input for now."""
        self._paused = True
        self._link.set_reading(False)

    def go_on(self) -> None:
        """Take input again."""
        if self._paused:
            self._paused = False
            if not self.ended.done():
                self._work_later()

    # ---- the link's events

    def on_data(self, data: bytes) -> None:
        """Bytes came."""
        try:
            if self._client.receive(data, time.monotonic()):
                self._work_later()
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
        try:
            if self._client.work():
                self._work_later()
            elif not self._paused:
                self._link.set_reading(True)
        except Exception:  # noqa: BLE001 - logged by _break
            self._break()
        self.wake()

    # ---- output

    def wake(self) -> None:
        """Have what can be sent sent at the end of this turn."""
        if not self._woken:
            self._woken = True
            self._loop.call_soon(self._flush)

    def _flush(self) -> None:
        self._woken = False
        if self._online_at is not None and not self.ended.done():
            try:
                self._user.send_due()
            except Exception:  # noqa: BLE001 - logged by _break
                self._break()
        self._write()

    def _write(self) -> None:
        data = self._client.take_output(time.monotonic())
        if data:
            self._link.write(data)

    # ---- time

    def _check_later(self) -> None:
        config = self._config
        period = min(1.0, config.connack_timeout_seconds / 4, config.puback_timeout_seconds / 4)
        if self._client.keep_alive:
            period = min(period, self._client.keep_alive / 10)
        self._timer = self._loop.call_later(period, self._check)

    def _check(self) -> None:
        if self.ended.done():
            return
        self._client.check(time.monotonic(), self._link.is_sending() or self._paused)
        if not self.ended.done():
            self._check_later()

    # ---- the client's events

    def on_connected(self, session_present: bool) -> None:
        """The broker accepted us."""
        self._online_at = time.monotonic()
        error = self._user.on_online(self, self._client)
        if error is not None:
            self.leave(error)
        else:
            self._on_online()

    def on_refused(self, reason_code: int, detail: str) -> None:
        """The broker refused us."""
        sign: Sign = "version" if reason_code in _UNREADABLE_CONNECT else "refused"
        self._end(failures.refused(self._upstream, reason_code, detail), sign)

    def on_message(self, message: Message) -> None:
        """A message came."""
        self._user.on_message(message)

    def on_puback(self, packet_id: int, reason_code: int) -> None:
        """An acknowledgement at QoS 1."""
        self._user.on_ack(const.PUBACK, packet_id, reason_code)

    def on_pubrec(self, packet_id: int, reason_code: int) -> None:
        """The first one at QoS 2."""
        self._user.on_ack(const.PUBREC, packet_id, reason_code)

    def on_pubcomp(self, packet_id: int, reason_code: int) -> None:
        """The last one at QoS 2."""
        self._user.on_ack(const.PUBCOMP, packet_id, reason_code)

    def on_pubrel(self, packet_id: int) -> None:
        """We subscribe at QoS 1, so there is none; a stray one of an old session is answered."""
        self._client.send_ack(const.PUBCOMP, packet_id)

    def on_suback(self, packet_id: int, reason_codes: list[int]) -> None:
        """The answer to SUBSCRIBE."""
        self._user.on_suback(packet_id, reason_codes)

    def on_closed(self, reason_code: int, detail: str) -> None:
        """The connection ended."""
        upstream = self._upstream
        if self._online_at is not None:
            if self._client.sent_away:
                self._end(failures.sent_away(upstream, reason_code, detail), None)
            else:
                self._end(failures.lost(upstream, detail), None)
        elif reason_code == const.KEEP_ALIVE_TIMEOUT:
            self._end(failures.not_answered(upstream, self._config.connack_timeout_seconds), "silent")
        else:
            self._end(failures.closed_before_connack(upstream, self._link.tls_version, detail), "silent")

    # ---- the end

    def _end(self, error: UpstreamError | None, sign: Sign | None) -> None:
        if self.ended.done():
            return
        online_at = self._online_at
        lasted_seconds = 0.0 if online_at is None else time.monotonic() - online_at
        self.ended.set_result(Ending(error, sign, lasted_seconds, self._client.sent_away))
        if self._timer is not None:
            self._timer.cancel()
        self._write()
        self._link.close()
        self._loop.call_later(_CLOSING_SECONDS, self._link.abort)
        if online_at is not None:
            self._user.on_offline()

    def _break(self) -> None:
        """Called from an except block: a fault of ours ends the connection that met it."""
        log.exception("internal error on the connection to %s", self._upstream)
        self.leave(UpstreamUnavailable("an internal error, see the log"))
