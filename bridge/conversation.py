"""One MQTT connection to the upstream, from CONNECT to its end: joins link, client, forwarder and downlink.

One that stands by for another one stops after CONNACK; `take_over` joins it to forwarder and downlink, which the other one
has left by then.

Everything happens in callbacks of one event loop. Whatever wants to be sent calls `wake`; once per turn `_flush` lets the
forwarder fill its window and hands everything to the link in one piece. It ends once, for one reason, and says which.
A fault of ours ends this connection and no more.
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Callable
from typing import TYPE_CHECKING, Final

from bridge import failures
from bridge.config import BridgeConfig
from bridge.downlink import Downlink
from bridge.exchange import Exchange
from bridge.link import Link
from bridge.places import Upstream
from bridge.policy import Sign
from bridge.uplink import Uplink
from bridge.upstreams import Kind
from edge_broker.core.client import Client
from edge_broker.core.message import Message
from edge_broker.errors import UpstreamError, UpstreamUnavailable
from edge_broker.wire.packets import Connect

if TYPE_CHECKING:
    from bridge.lease_watch import LeaseWatch
    from edge_broker.core.router import Router

log: Final = logging.getLogger("bridge")

_SHORTEST_PAUSE_SECONDS: Final = 0.01


class Conversation(Exchange):
    """`begin`, then await `ended`. Once the upstream accepted us, `refuse_session` may object, else `on_online` follows.

    `stands_by`: that waits for `take_over`. `accepted`: by the upstream; never done where it ends before.
    """

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
        lease_watch: LeaseWatch | None = None,
        *,
        stands_by: bool = False,
    ) -> None:
        super().__init__(config, upstream, link, request, router.topics)
        self._router = router
        self._request_tick = request_tick
        self._forwarder = forwarder
        self._downlink = downlink
        self._refuse_session = refuse_session
        self._on_online = on_online
        self._on_answer = on_answer
        self._lease_watch = lease_watch
        self._stands_by = stands_by
        self._acknowledged_before = forwarder.acknowledged
        self._pause: asyncio.TimerHandle | None = None
        self.accepted: asyncio.Future[None] = self._loop.create_future()

    def take_over(self) -> None:
        """Carry messages from now on, after having stood by; nothing where it has ended meanwhile."""
        if self.ended.done():
            return
        self._stands_by = False
        self._acknowledged_before = self._forwarder.acknowledged
        self._look_at_clock()
        try:
            self._go_online()
        except Exception:  # noqa: BLE001 - logged by _break
            self._break()
        self.wake()

    async def finish(self, grace_seconds: float) -> bool:
        """Send nothing new, give the upstream a moment to acknowledge what is on its way, then leave; whether it did."""
        self._forwarder.close_window()
        deadline = self._loop.time() + grace_seconds
        while not self.ended.done() and self._forwarder.in_flight and self._loop.time() < deadline:  # noqa: ASYNC110
            await asyncio.sleep(0.01)  # rare and short: no event is worth its upkeep per acknowledgement
        is_clear = not self._forwarder.in_flight
        self._client.disconnect()
        self._end(None, None)
        return is_clear

    # ---- input

    def _look_at_clock(self) -> float:
        now = self._router.now = time.monotonic()
        return now

    def _after_input(self) -> None:
        self._pause_if_store_is_behind()

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

    def _flush(self) -> None:
        now = self._router.now = time.monotonic()
        more = False
        try:
            more = not self._stands_by and self._forwarder.send_due()
        except Exception:  # noqa: BLE001 - logged by _break
            self._break()
        self._write(now)
        self._woken = False
        if more:
            self.wake()
        elif not self._stands_by and self._forwarder.pause_seconds and not self.ended.done():
            self._wake_in(max(self._forwarder.pause_seconds, _SHORTEST_PAUSE_SECONDS))
        self._request_tick()

    def _wake_in(self, seconds: float) -> None:
        """Look again then, unless that is done before."""
        at = self._loop.time() + seconds
        if self._pause is not None:
            if self._pause.when() <= at:
                return
            self._pause.cancel()
        self._pause = self._loop.call_at(at, self._go_on_sending)

    def _go_on_sending(self) -> None:
        """The pace lets more out, or what gathers has waited for long enough."""
        self._pause = None
        self.wake()

    # ---- time

    def _check(self) -> None:
        if self.ended.done():
            return
        now = self._router.now = time.monotonic()
        sending = self._link.is_sending() or self._paused
        self._client.check(now, sending)
        if self._client.ping_seconds is not None:
            self._on_answer("pingresp", self._client.ping_seconds)
            self._client.ping_seconds = None
        if self._lease_watch is not None:
            self._lease_watch.check(now)
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
        self._on_answer("connack", self._router.now - self._began_at)
        self.accepted.set_result(None)
        if not self._stands_by:
            self._go_online()

    def _go_online(self) -> None:
        client = self._client
        self._online_at = self._router.now
        if self._lease_watch is not None:
            self._lease_watch.attach(client, self._forwarder.spare_packet_id, self._router.now)
        self._forwarder.attach(client, self.wake, self._retreat)
        packet_id = self._forwarder.free_packet_id
        self._downlink.attach(client, packet_id, self._router.now, str(self._upstream))
        self._on_online(client)

    def on_message(self, message: Message) -> None:
        """A message came down."""
        if self._stands_by:
            self._client.disconnect()
            self._end(failures.lost(self._upstream, "it sends messages that nobody asked for"), None)
            return
        watch = self._lease_watch
        if watch is not None and watch.on_message(message, self._router.now):
            return
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
        watch = self._lease_watch
        if watch is not None and watch.on_suback(packet_id, reason_codes):
            return
        self._downlink.on_suback(packet_id, reason_codes, self._router.now)

    def _retreat(self, reason_code: int) -> None:
        """The upstream cannot take messages now: leave it in peace for a while."""
        self._client.disconnect()
        self._end(failures.cannot_take(self._upstream, reason_code), None, sent_away=True)

    # ---- the end

    def _end(self, error: UpstreamError | None, sign: Sign | None, sent_away: bool = False) -> None:
        if self._pause is not None:
            self._pause.cancel()
        super()._end(error, sign, sent_away)
        self._request_tick()

    @property
    def _has_stood(self) -> bool:
        return self.accepted.done()

    @property
    def _has_progressed(self) -> bool:
        return self._forwarder.acknowledged > self._acknowledged_before

    def _on_offline(self) -> None:
        self._forwarder.detach()
        self._downlink.detach()

    def _break(self) -> None:
        log.exception("bridge %s: internal error on the connection to %s", self._config.name, self._upstream)
        self._client.disconnect()
        self._end(UpstreamUnavailable("an internal error, see the log"), None)
