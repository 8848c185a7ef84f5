"""One MQTT connection to the upstream, from CONNECT to its end: joins link, client, forwarder and downlink.

Everything happens in callbacks of one event loop. Whatever wants to be sent calls `wake`; once per turn `_flush` lets the
forwarder fill its window and hands everything to the link in one piece. It ends once, for one reason, and says which.
A fault of ours ends this connection and no more.
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Callable
from typing import TYPE_CHECKING, Final, NamedTuple

from bridge import failures
from bridge.config import BridgeConfig
from bridge.downlink import Downlink
from bridge.link import Link
from bridge.places import Upstream
from bridge.policy import Sign
from bridge.uplink import Uplink
from bridge.upstreams import Kind
from edge_broker.core.client import Client
from edge_broker.core.message import Message
from edge_broker.errors import UpstreamError, UpstreamUnavailable
from edge_broker.wire import const
from edge_broker.wire.packets import Connect

if TYPE_CHECKING:
    from edge_broker.core.router import Router

log: Final = logging.getLogger("bridge")

_CLOSING_SECONDS: Final = 2.0
_SHORTEST_PAUSE_SECONDS: Final = 0.01
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


class Conversation:
    """`begin`, then await `ended`. Once the upstream accepted us, `refuse_session` may object, else `on_online` follows."""

    def __init__(
        self,
        config: BridgeConfig,
        upstream: Upstream,
        link: Link,
        request: Connect,
        router: Router,
        request_tick: Callable[[], None],
        forwarder: Uplink,
        downlink: Downlink,
        refuse_session: Callable[[Client], UpstreamError | None],
        on_online: Callable[[Client], None],
        on_answer: Callable[[Kind, float], None],
    ) -> None:
        self._config = config
        self._upstream = upstream
        self._link = link
        self._router = router
        self._request_tick = request_tick
        self._forwarder = forwarder
        self._downlink = downlink
        self._refuse_session = refuse_session
        self._on_online = on_online
        self._on_answer = on_answer
        self._loop = asyncio.get_running_loop()
        self._client = Client(
            self,
            request,
            router.topics,
            self.wake,
            connack_timeout_seconds=config.connack_timeout_seconds,
            answer_timeout_seconds=config.puback_timeout_seconds,
        )
        self._woken = False
        self._working = False
        self._paused = False
        self._began_at = 0.0
        self._online_at: float | None = None
        self._acknowledged_before = forwarder.acknowledged
        self._timer: asyncio.TimerHandle | None = None
        self._pause: asyncio.TimerHandle | None = None
        self.ended: asyncio.Future[Ending] = self._loop.create_future()

    def begin(self) -> None:
        """Send CONNECT."""
        self._began_at = time.monotonic()
        self._client.start(self._began_at)
        self._link.begin(self)
        self._check_later()

    async def finish(self, grace_seconds: float) -> None:
        """Send nothing new, give the upstream a moment to acknowledge what is on its way, then leave."""
        self._forwarder.close_window()
        deadline = self._loop.time() + grace_seconds
        while not self.ended.done() and self._forwarder.in_flight and self._loop.time() < deadline:  # noqa: ASYNC110
            await asyncio.sleep(0.01)  # rare and short: no event is worth its upkeep per acknowledgement
        self._client.disconnect()
        self._end(None, None)

    # ---- the link's events

    def on_data(self, data: bytes) -> None:
        """Bytes came."""
        now = self._router.now = time.monotonic()
        try:
            if self._client.receive(data, now):
                self._work_later()
            self._pause_if_store_is_behind()
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
        self._router.now = time.monotonic()
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
        self._router.now = time.monotonic()
        try:
            if self._client.work():
                self._work_later()
            else:
                self._link.set_reading(True)
            self._pause_if_store_is_behind()
        except Exception:  # noqa: BLE001 - logged by _break
            self._break()
        self.wake()

    def _pause_if_store_is_behind(self) -> None:
        """What came down and is not on disk yet takes memory: let the upstream wait with more of it."""
        router, waiting = self._router, self._downlink.waiting
        if not waiting or self._paused or self.ended.done():
            return
        if (
            router.pending.uncommitted_bytes > router.max_uncommitted_bytes
            or waiting >= router.settings.receive_maximum  # MQTT 3.1.1 cannot be told of that limit
        ):
            self._paused = True
            self._link.set_reading(False)
            router.stalled[self] = None

    def go_on(self) -> None:
        """The store has caught up."""
        self._paused = False
        if not self.ended.done():
            self._work_later()

    # ---- output

    def wake(self) -> None:
        """Have what can be sent sent at the end of this turn."""
        if not self._woken:
            self._woken = True
            self._loop.call_soon(self._flush)

    def _flush(self) -> None:
        now = self._router.now = time.monotonic()
        more = False
        try:
            more = self._forwarder.send_due()
        except Exception:  # noqa: BLE001 - logged by _break
            self._break()
        self._write(now)
        self._woken = False
        if more:
            self.wake()
        elif self._forwarder.wait_seconds and self._pause is None and not self.ended.done():
            wait_seconds = max(self._forwarder.wait_seconds, _SHORTEST_PAUSE_SECONDS)
            self._pause = self._loop.call_later(wait_seconds, self._go_on_sending)
        self._request_tick()

    def _go_on_sending(self) -> None:
        """The pace lets more out."""
        self._pause = None
        self.wake()

    def _write(self, now: float) -> None:
        data = self._client.take_output(now)
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
        now = self._router.now = time.monotonic()
        sending = self._link.is_sending() or self._paused
        self._client.check(now, sending)
        if self._client.ping_seconds is not None:
            self._on_answer("pingresp", self._client.ping_seconds)
            self._client.ping_seconds = None
        if self._online_at is not None and self._forwarder.is_overdue(now, sending):
            self._client.disconnect()
            self._end(failures.not_acknowledged(self._upstream, self._config.puback_timeout_seconds), None)
        if not self.ended.done():
            self._check_later()

    # ---- the client's events

    def on_connected(self, session_present: bool) -> None:
        """The upstream accepted us."""
        client = self._client
        if client.maximum_qos == 0 and self._forwarder.needs_acknowledgements:
            objection: UpstreamError | None = failures.takes_no_acknowledged(self._upstream)
        else:
            objection = self._refuse_session(client)
        if objection is not None:
            client.disconnect()
            self._end(objection, "refused")
            return
        self._online_at = self._router.now
        self._on_answer("connack", self._online_at - self._began_at)
        self._forwarder.attach(client, self.wake, self._retreat)
        self._downlink.attach(client, self._forwarder.free_packet_id, self._router.now)
        self._on_online(client)

    def on_refused(self, reason_code: int, detail: str) -> None:
        """The upstream refused us."""
        sign: Sign = "version" if reason_code in _UNREADABLE_CONNECT else "refused"
        self._end(failures.refused(self._upstream, reason_code, detail), sign)

    def on_message(self, message: Message) -> None:
        """A message came down."""
        self._downlink.on_message(message)

    def on_puback(self, packet_id: int, reason_code: int) -> None:
        """An acknowledgement at QoS 1."""
        self._forwarder.on_puback(packet_id, reason_code)

    def on_pubrec(self, packet_id: int, reason_code: int) -> None:
        """The first one at QoS 2."""
        self._forwarder.on_pubrec(packet_id, reason_code)

    def on_pubrel(self, packet_id: int) -> None:
        """The upstream's second step at QoS 2."""
        self._downlink.on_pubrel(packet_id)

    def on_pubcomp(self, packet_id: int, reason_code: int) -> None:
        """The last one at QoS 2."""
        self._forwarder.on_pubcomp(packet_id)

    def on_suback(self, packet_id: int, reason_codes: list[int]) -> None:
        """The answer to SUBSCRIBE."""
        self._downlink.on_suback(packet_id, reason_codes, self._router.now)

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
            error = failures.closed_before_connack(upstream, self._link.tls_version, detail)
            self._end(error, "refused" if error.kind == "identity" else "silent")

    def _retreat(self, reason_code: int) -> None:
        """The upstream cannot take messages now: leave it in peace for a while."""
        self._client.disconnect()
        self._end(failures.cannot_take(self._upstream, reason_code), None, sent_away=True)

    # ---- the end

    def _end(self, error: UpstreamError | None, sign: Sign | None, sent_away: bool = False) -> None:
        if self.ended.done():
            return
        now = self._router.now
        lasted_seconds = 0.0 if self._online_at is None else now - self._online_at
        progressed = self._forwarder.acknowledged > self._acknowledged_before
        self.ended.set_result(
            Ending(error, sign, lasted_seconds, progressed, sent_away or self._client.sent_away)
        )
        for timer in (self._timer, self._pause):
            if timer is not None:
                timer.cancel()
        self._write(now)
        self._link.close()
        self._loop.call_later(_CLOSING_SECONDS, self._link.abort)
        if self._online_at is not None:
            self._forwarder.detach()
            self._downlink.detach()
        self._request_tick()

    def _break(self) -> None:
        """Called from an except block: a fault of ours ends the connection that met it."""
        log.exception("bridge %s: internal error on the connection to %s", self._config.name, self._upstream)
        self._client.disconnect()
        self._end(UpstreamUnavailable("an internal error, see the log"), None)
