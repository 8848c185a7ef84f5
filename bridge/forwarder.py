"""From the outbox to the upstream: sends what is queued, in order, within a window; lets go of what was acknowledged.

What it keeps true:

- A message leaves the outbox only when the upstream acknowledged it: PUBACK, or at QoS 2 PUBCOMP. On a new connection
  whatever was not acknowledged is sent again, the oldest first.
- PUBREL leaves only when it is on disk that PUBREC came [4.3.3].
- Unacknowledged are never more messages than the upstream takes, nor more bytes than the broker allows one recipient.
- What a rule, or the month's allowance, does not want sent any more when its turn has come is let go and counted under its
  reason. Of QoS 2 nothing that may have been sent before is: its identifier is known upstream.
- Messages that waited when the connection stood go at one pace, those that come at another (`bridge.pacing`).
- An acknowledgement that refuses the message is either for now (the connection is given up, the message stays) or for
  good: then the message is counted under its reason and let go, so that one bad message does not hold up all others.

It sends to one client at a time, in one go per turn of the event loop, and no more per turn than a budget.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import TYPE_CHECKING, Final, Literal

from bridge.forms import rest_for
from bridge.latest import SUPERSEDED, Latest
from bridge.mapping import OutMapping, RemoteTopic
from bridge.pacing import Pace, drain_pace, live_pace
from bridge.policy_config import PacingConfig
from bridge.stamps import Stamp
from bridge.tracing import MessageTracer
from edge_broker.core.client import Client
from edge_broker.core.message import Message
from edge_broker.core.queue import Queue
from edge_broker.wire import const

if TYPE_CHECKING:
    from edge_broker.core.router import Router

_TURN_MESSAGES: Final = 500
_TURN_BYTES: Final = 256 << 10

_AT_ANY_PACE: Final = PacingConfig()

UPSTREAM_REFUSED: Final = "upstream_refused"
"""The reason of a dead letter, with the upstream's own behind it."""

REFUSED_FOR_GOOD: Final = frozenset(
    (
        const.NOT_AUTHORIZED,
        const.TOPIC_NAME_INVALID,
        const.PACKET_TOO_LARGE,
        const.PAYLOAD_FORMAT_INVALID,
        const.RETAIN_NOT_SUPPORTED,
        const.QOS_NOT_SUPPORTED,
    )
)
"""The same message would be refused again. Any other refusal may be over later."""


class Forwarder:
    """Owner of the outbox's queue, and its `Sender`. `attach` at each connection, `detach` at its end.

    `acknowledged`, `resent`: messages since the start; `sent`: by QoS; `refused`: given up, by reason; `wait_seconds`:
    until the pace lets more out. `withholds`: what is dropped rather than sent.
    `last_acknowledged_at`: by the router's clock, None before the first.
    `on_given_up(reason, topic)` is called for each of those. `on_answer(seconds)`: how long a PUBACK took, now and then.
    `stamp`: what it writes into messages towards MQTT 5.
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
    ) -> None:
        self.queue = queue
        self.acknowledged = self.resent = 0
        self.last_acknowledged_at: float | None = None
        self.sent = [0, 0, 0]
        self.refused: dict[str, int] = {}
        self.stamp: Stamp | None = None
        self.tracer: MessageTracer | None = None
        self._stamp: Stamp | None = None  # on this connection
        self.wait_seconds = 0.0
        self.withholds: Literal["", "all", "not urgent"] = ""
        self.latest: Latest | None = None
        self._live, self._drain = live_pace(pacing), drain_pace(pacing)
        self._is_paced = self._live.is_limited or self._drain.is_limited
        self._drain_to = 0  # numbers below it waited when the connection stood
        self._mapping = mapping
        self._router = router
        self._most = window
        self._timeout = puback_timeout_seconds
        self._on_given_up = on_given_up
        self.on_answer: Callable[[float], None] = _nobody_asks
        self._client: Client | None = None
        self._wake: Callable[[], None] | None = None
        self._retreat: Callable[[int], None]
        self._window = 0  # 0 while nothing may be sent
        self._pubrels_held = 0
        self._sent_below = 0  # numbers below it were sent in this run; of an earlier run nobody knows
        self._head = 0  # the oldest not acknowledged, and since when it is that
        self._head_since = 0.0
        self._timed = 0  # the message whose PUBACK is timed, 0 while none is, and since when
        self._timed_at = 0.0
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
    def draining(self) -> int:
        """Messages that waited when the connection stood and are not acknowledged yet, about."""
        return 0 if self._client is None else min(max(0, self._drain_to - self.queue.head), self.queue.depth)

    @property
    def drain_seconds(self) -> float | None:
        """How long those take at their pace; None where that has no limit, so that the line decides."""
        if not self._drain.is_limited or self._client is None:
            return None
        draining = self.draining
        typical_bytes = self.queue.packet_bytes / self.queue.depth if draining else 0.0
        return self._drain.seconds_for(draining, draining * typical_bytes)

    @property
    def in_flight(self) -> int:
        """Messages sent on this connection and not acknowledged."""
        return 0 if self._client is None else self.queue.in_flight

    @property
    def needs_acknowledgements(self) -> bool:
        """Whether anything has to be acknowledged by the upstream."""
        return self._mapping.highest_qos > 0 or self.queue.depth > 0

    @property
    def free_packet_id(self) -> int:
        """A packet identifier that no message in flight has, nor will have soon: that of the last one acknowledged."""
        return _packet_id(self.queue.head - 1)

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
                client.send_ack(const.PUBREL, _packet_id(number))
            else:  # the upstream has it, and forgot the identifier: there is nothing to release
                self._complete(number)
        return False

    def _pace_of(self, number: int) -> Pace:
        return self._drain if number < self._drain_to else self._live

    def _must_wait(self) -> bool:
        """Whether its pace lets the next message wait; sets `wait_seconds`."""
        queue = self.queue
        number = queue.cursor
        message = queue.messages.get(number)
        if message is not None:  # else there is none, or it has to be read first
            self.wait_seconds = self._pace_of(number).wait_seconds(len(message.frame), self._router.now)
        return self.wait_seconds > 0

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
            _packet_id(number),
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

    def _why_not(self, number: int, message: Message, remote: RemoteTopic) -> str:
        """Why the message `number` is not to be sent any more, empty where it is."""
        if message.qos == 2 and number < self.queue.sent_before:
            return ""
        now = self._router.now
        if remote.max_age_seconds and message.received_at + remote.max_age_seconds <= now:
            return "too_old"
        if (
            remote.keep_latest
            and self.latest is not None
            and self.latest.is_superseded(message.topic, number)
        ):
            return SUPERSEDED
        return "allowance" if self._is_withheld(remote) else ""

    def _skip(self, number: int, message: Message, reason: str) -> None:
        """`message`, which is due, is not to be sent any more: count it, and go on without it."""
        queue = self.queue
        if queue.burials is not None and reason != SUPERSEDED:
            queue.burials.bury(message, reason)
        queue.count_drop(reason)
        queue.complete(number)
        if self.tracer is not None:
            self.tracer.on_done(number, self._router.now, reason)

    def _is_withheld(self, remote: RemoteTopic) -> bool:
        return self.withholds == "all" or (self.withholds == "not urgent" and not remote.is_urgent)

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

    # ---- what the upstream answers

    def on_puback(self, packet_id: int, reason_code: int) -> None:
        """QoS 1: done, or refused."""
        queue = self.queue
        number = queue.number_of(packet_id)
        if number == self._timed:
            self._take_time()
        if reason_code >= 0x80:
            self._handle_refusal(number, reason_code)
        elif queue.complete(number):
            self.acknowledged += 1
            self.last_acknowledged_at = self._router.now
            if self.tracer is not None:
                self.tracer.on_done(number, self._router.now)

    def on_pubrec(self, packet_id: int, reason_code: int) -> None:
        """QoS 2: the upstream has it; PUBREL follows once that is on disk."""
        client = self._client
        if client is None:
            return
        number = self.queue.number_of(packet_id)
        if number == self._timed:
            self._take_time()
        if reason_code >= 0x80:
            self._handle_refusal(number, reason_code)
        elif self.queue.release(number):
            self._pubrels_held += 1
            self._router.pending.after_commit(partial(self._send_pubrel, client, packet_id))
        else:
            unknown = const.PACKET_IDENTIFIER_NOT_FOUND if client.version >= const.MQTT_5 else const.SUCCESS
            client.send_ack(const.PUBREL, packet_id, unknown)

    def _take_time(self) -> None:
        """The message that is timed has its answer; the next one sent is timed."""
        if self._timed:
            self._timed = 0
            self.on_answer(self._router.now - self._timed_at)

    def _send_pubrel(self, client: Client, packet_id: int) -> None:
        self._pubrels_held -= 1
        client.send_ack(const.PUBREL, packet_id)

    def on_pubcomp(self, packet_id: int) -> None:
        """QoS 2: done; a code that the upstream does not know the identifier means so too."""
        self._complete(self.queue.number_of(packet_id))

    def _complete(self, number: int) -> None:
        if self.queue.complete(number):
            self.acknowledged += 1
            self.last_acknowledged_at = self._router.now
            if self.tracer is not None:
                self.tracer.on_done(number, self._router.now)

    def _handle_refusal(self, number: int, reason_code: int) -> None:
        message = self.queue.messages.get(number)
        if message is None:
            return
        if reason_code in REFUSED_FOR_GOOD:
            self._give_up(number, const.REASON_NAMES[reason_code].replace(" ", "_"), message.topic)
        else:
            self._retreat(reason_code)

    def _give_up(self, number: int, reason: str, topic: str) -> None:
        """`number` will never be taken upstream: count it, and go on without it."""
        self.refused[reason] = self.refused.get(reason, 0) + 1
        message, burials = self.queue.messages.get(number), self.queue.burials
        if message is not None and burials is not None:
            remote = self._mapping.find(topic)
            burials.bury(message, f"{UPSTREAM_REFUSED}:{reason}", "" if remote is None else remote.rule)
        self.queue.complete(number)
        if self.tracer is not None:
            self.tracer.on_done(number, self._router.now, reason)
        self._on_given_up(reason, topic)

    # ---- time

    def is_overdue(self, now: float, sending: bool) -> bool:
        """Whether the oldest unacknowledged message has been that for too long; asked about once a second.

        `sending`: earlier output is still on its way out, so an answer cannot be expected yet.
        """
        queue = self.queue
        if queue.head != self._head or not queue.in_flight or self._pubrels_held or sending:
            self._head, self._head_since = queue.head, now
            return False
        return now - self._head_since > self._timeout


def _nobody_asks(seconds: float) -> None:
    """Nobody wants to know how quick the upstream is."""


def _packet_id(number: int) -> int:
    """A message keeps its packet identifier over connections and restarts: it follows from its number."""
    return (number - 1) % const.MAX_PACKET_ID + 1
