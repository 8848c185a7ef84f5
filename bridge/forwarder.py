"""From the outbox to the upstream: sends what is queued, in order, within a window.

What it keeps true:

- On a new connection whatever was not acknowledged is sent again, the oldest first.
- Unacknowledged are never more messages than the upstream takes, nor more bytes than the broker allows one recipient.

It sends to one client at a time, in one go per turn of the event loop, and no more per turn than a budget. It is the last
of five floors of one object: what the upstream's answers mean (`answers`), what may go and when (`clearance`), messages as
a PUBLISH each (`plain_sending`), many in one (`packing`).
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import TYPE_CHECKING, Final

from bridge.mapping import OutMapping
from bridge.packet_ids import OwnPacketIds, PacketIds
from bridge.packing import Packing
from bridge.policy_config import PacingConfig
from edge_broker.core.client import Client
from edge_broker.core.queue import Queue
from edge_broker.wire import const

if TYPE_CHECKING:
    from edge_broker.core.router import Router

_TURN_MESSAGES: Final = 500
_TURN_BYTES: Final = 256 << 10

_AT_ANY_PACE: Final = PacingConfig()


class Forwarder(Packing):
    """Owner of the outbox's queue, and its `Sender`. `attach` at each connection, `detach` at its end.

    `packet_ids`: the rule for them, that of a connection of its own where none is given.
    """

    def __init__(
        self,
        queue: Queue,
        mapping: OutMapping,
        router: Router,
        window: int,
        puback_timeout_seconds: float,
        on_given_up: Callable[[str, str], None],
        pacing: PacingConfig = _AT_ANY_PACE,
        packet_ids: PacketIds | None = None,
    ) -> None:
        super().__init__(
            queue,
            mapping,
            router,
            puback_timeout_seconds,
            on_given_up,
            packet_ids or OwnPacketIds(queue),
            pacing,
        )
        self._most = window
        self._wake: Callable[[], None] | None = None
        queue.owner = self

    # ---- coming and going of the connection

    def attach(self, client: Client, wake: Callable[[], None], retreat: Callable[[int], None]) -> None:
        """`client` is connected: everything not acknowledged goes out on it.

        `wake()`: have `send_due` called soon. `retreat(reason_code)`: the upstream cannot take messages now.
        """
        self._client = client
        self._stamp = self.stamp if client.version >= const.MQTT_5 else None
        self._wake = wake
        self._retreat = retreat
        self._head_since = self._router.now
        self.wait_seconds = 0.0
        self.queue.rewind()
        self._drain_to = self.queue.next_number
        self._begin_packing(client)
        if self.queue.released and client.session_present:
            # PUBRELs go out again, and not before it is on disk that their PUBRECs came.
            self._router.pending.after_commit(partial(self._open_window, client))
        else:
            self._open_window(client)
        if self.skips is not None:
            self.skips.attach(client, wake)

    def _open_window(self, client: Client) -> None:
        if self._client is client:
            self._window = min(self._most, client.receive_maximum)
            self.pump()

    def close_window(self) -> None:
        """Send nothing new but what gathers; what is on its way may still be acknowledged."""
        self._send_gathered()
        self._window = 0

    def detach(self) -> None:
        """The connection is gone."""
        if self._client is not None:
            self._client = self._wake = None
            self._window = self._timed = 0
            self._sent_below = max(self._sent_below, self._sent_up_to())
            self._end_packing()
            self.queue.suspend()
            if self.skips is not None:
                self.skips.detach()

    @property
    def online(self) -> bool:
        """Whether the upstream is there."""
        return self._client is not None

    @property
    def has_room(self) -> bool:
        """Whether a message would leave at once."""
        queue = self.queue
        return (
            self._client is not None
            and self._client.writable
            and queue.cursor == queue.next_number
            and self.packets_in_flight < self._window
            and not self.wait_seconds
        )

    @property
    def needs_acknowledgements(self) -> bool:
        """Whether anything has to be acknowledged by the upstream."""
        return self._mapping.highest_qos > 0 or self.queue.depth > 0

    @property
    def free_packet_id(self) -> int:
        """A packet identifier that no message in flight has, nor will have soon."""
        return self.packet_ids.free

    @property
    def spare_packet_id(self) -> int:
        """Another one."""
        return self.packet_ids.of(self.queue.head - 2)

    def is_overdue(self, now: float, sending: bool) -> bool:
        """As the floor below has it; what is announced beside the messages has its time limit too."""
        skips = self.skips
        return super().is_overdue(now, sending) or (skips is not None and skips.is_overdue(now, sending))

    # ---- sending

    def pump(self) -> None:
        """More may be due now: have it sent at the end of this turn."""
        if self._wake is not None:
            self._wake()

    def send_due(self) -> bool:
        """Send what is due and fits, up to the budget of one turn; True if there is more for the next."""
        client = self._client
        if client is None or not client.writable:
            return False
        if self._packing is not None:
            return self._send_due_packed(client, self._packing)
        queue = self.queue
        router = self._router
        window = self._window
        window_bytes = router.settings.send_window_bytes
        messages, size_bytes = _TURN_MESSAGES, _TURN_BYTES
        self.wait_seconds = 0.0
        while queue.in_flight < window and queue.large_in_flight_bytes < window_bytes:
            if messages <= 0 or size_bytes <= 0:
                return True
            if self._is_paced and self._must_wait():
                return False
            due = queue.next_to_send(router.now)
            if due is None:
                return False
            number, message = due
            messages -= 1
            if message is None:
                self._release(client, number)
                continue
            size_bytes -= len(message.frame)
            remote = self._remote_of(number, message)
            if remote is not None:
                self._send_plain(client, number, message, remote)
        return False
