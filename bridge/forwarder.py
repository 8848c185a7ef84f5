"""From the outbox to the upstream: sends what is queued, in order, within a window.

What it keeps true:

- On a new connection whatever was not acknowledged is sent again, the oldest first.
- Unacknowledged are never more messages than the upstream takes, nor more bytes than the broker allows one recipient.

It sends to one client at a time, in one go per turn of the event loop, and no more per turn than a budget. What may go and
when is decided a floor below (`clearance`), what the upstream's answers mean two floors below (`answers`).
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import TYPE_CHECKING, Final

from bridge.clearance import Clearance
from bridge.forms import rest_for
from bridge.mapping import OutMapping, RemoteTopic
from bridge.packet_ids import OwnPacketIds, PacketIds
from bridge.policy_config import PacingConfig
from bridge.stamps import Stamp
from edge_broker.core.client import Client
from edge_broker.core.message import Message
from edge_broker.core.queue import Queue
from edge_broker.wire import const

if TYPE_CHECKING:
    from edge_broker.core.router import Router

_TURN_MESSAGES: Final = 500
_TURN_BYTES: Final = 256 << 10

_AT_ANY_PACE: Final = PacingConfig()


class Forwarder(Clearance):
    """Owner of the outbox's queue, and its `Sender`. `attach` at each connection, `detach` at its end.

    `resent`: messages since the start; `sent`: by QoS. `stamp`: what it writes into messages towards MQTT 5.
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
        self.resent = 0
        self.sent = [0, 0, 0]
        self.stamp: Stamp | None = None
        self._stamp: Stamp | None = None  # on this connection
        self._most = window
        self._wake: Callable[[], None] | None = None
        self._window = 0  # 0 while nothing may be sent
        self._sent_below = 0  # numbers below it were sent in this run; of an earlier run nobody knows
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
        if self.queue.released and client.session_present:
            # PUBRELs go out again, and not before it is on disk that their PUBRECs came.
            self._router.pending.after_commit(partial(self._open_window, client))
        else:
            self._open_window(client)

    def _open_window(self, client: Client) -> None:
        if self._client is client:
            self._window = min(self._most, client.receive_maximum)
            self.pump()

    def close_window(self) -> None:
        """Send nothing new; what is on its way may still be acknowledged."""
        self._window = 0

    def detach(self) -> None:
        """The connection is gone."""
        if self._client is not None:
            self._client = self._wake = None
            self._window = self._timed = 0
            self._sent_below = max(self._sent_below, self.queue.cursor)
            self.queue.suspend()

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
            and queue.in_flight < self._window
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
            if message is not None:
                size_bytes -= len(message.frame)
                self._send(client, number, message)
            elif client.session_present:
                client.send_ack(const.PUBREL, self.packet_ids.of(number))
            else:  # the upstream has it, and forgot the identifier: there is nothing to release
                self._complete(number)
        return False

    def _send(self, client: Client, number: int, message: Message) -> None:
        remote = self._mapping.known.get(message.topic) or self._mapping.find(message.topic)
        if remote is None:  # queued under a rule that is not there any more
            self._give_up(number, "no_rule", message.topic)
            return
        if remote.may_be_skipped or self.withholds:
            reason = self._why_not(number, message, remote)
            if reason:
                self._skip(number, message, reason)
                return
        qos = message.qos
        stamp, now = self._stamp, self._router.now
        fits = client.send_publish(
            remote.encoded,
            rest_for(message, client.version, now) if stamp is None else stamp.rest(message, number, now),
            qos if qos <= client.maximum_qos else client.maximum_qos,
            message.retain and client.retain_available,
            number < self.queue.sent_before,
            self.packet_ids.of(number),
        )
        if not fits:
            self._give_up(number, "packet_too_large", message.topic)
            return
        if self._is_paced:
            self._pace_of(number).take(len(message.frame), self._router.now)
        self.sent[qos] += 1
        if not self._timed:
            self._timed, self._timed_at = number, self._router.now
        if number < self._sent_below:
            self.resent += 1
        if self.tracer is not None:
            self.tracer.on_sent(message, number, remote.topic, now)

    def send_live(self, message: Message, remote: RemoteTopic) -> str:
        """Send `message` at QoS 0 now; the reason where that cannot be, empty if it is done."""
        client = self._client
        if client is None:
            return "offline"
        if not client.writable:
            return "slow_upstream"
        if self.withholds and self._is_withheld(remote):
            return "allowance"
        if self._live.wait_seconds(len(message.frame), self._router.now):
            return "paced"
        retain = message.retain and client.retain_available
        stamp, now = self._stamp, self._router.now
        rest = rest_for(message, client.version, now) if stamp is None else stamp.rest(message, 0, now)
        if not client.send_publish(remote.encoded, rest, 0, retain, False, 0):
            return "packet_too_large"
        self._live.take(len(message.frame), self._router.now)
        self.sent[0] += 1
        if self.tracer is not None:
            self.tracer.on_sent(message, 0, remote.topic, now)
        return ""
