"""One connection of a line, from CONNECT to its end: joins link, client and the line's user.

Everything happens in callbacks of one event loop. It ends once, for one reason, and says which. Input is handled within
the client's budget; the user may have it wait altogether.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Callable
from typing import TYPE_CHECKING, Final

from bridge.config import BridgeConfig
from bridge.exchange import Exchange
from bridge.link import Link
from bridge.places import Upstream
from edge_broker.core.message import Message
from edge_broker.errors import UpstreamError, UpstreamUnavailable
from edge_broker.wire import const
from edge_broker.wire.packets import Connect
from edge_broker.wire.topics import TopicCache

if TYPE_CHECKING:
    from bridge.ingest.line import LineUser

log: Final = logging.getLogger("bridge.ingest")


class Talk(Exchange):
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
        super().__init__(config, upstream, link, request, topics)
        self._user = user
        self._on_online = on_online

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

    # ---- output

    def _flush(self) -> None:
        self._woken = False
        if self._online_at is not None and not self.ended.done():
            try:
                self._user.send_due()
            except Exception:  # noqa: BLE001 - logged by _break
                self._break()
        self._write(time.monotonic())

    # ---- time

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

    # ---- the end

    def _on_offline(self) -> None:
        self._user.on_offline()

    def _break(self) -> None:
        log.exception("internal error on the connection to %s", self._upstream)
        self.leave(UpstreamUnavailable("an internal error, see the log"))
