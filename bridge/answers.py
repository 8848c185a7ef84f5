"""What the upstream's answers mean for what is in flight: done, refused for now, refused for good, or too late.

What it keeps true:

- A message leaves the outbox only when the upstream acknowledged it: PUBACK, or at QoS 2 PUBCOMP.
- PUBREL leaves only when it is on disk that PUBREC came [4.3.3].
- An acknowledgement that refuses the message is either for now (the connection is given up, the message stays) or for
  good: then the message is counted under its reason and let go, so that one bad message does not hold up all others.

The forwarder's first floor: it sends no message.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import TYPE_CHECKING, Final

from bridge.mapping import OutMapping
from bridge.packet_ids import PacketIds
from bridge.tracing import MessageTracer
from edge_broker.core.client import Client
from edge_broker.core.queue import Queue
from edge_broker.wire import const

if TYPE_CHECKING:
    from bridge.skips import Skips
    from edge_broker.core.router import Router

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


class Answers:
    """The answers to what goes out of one queue.

    `acknowledged`: messages since the start; `refused`: given up, by reason; `last_acknowledged_at`: by the router's
    clock, None before the first. `on_given_up(reason, topic)` is called for each of those. `on_answer(seconds)`: how long
    a PUBACK took, now and then. `skips`: who announces the numbers that will not come, None for nobody; `may_announce`:
    whether these have identifiers to go by.
    """

    def __init__(
        self,
        queue: Queue,
        mapping: OutMapping,
        router: Router,
        puback_timeout_seconds: float,
        on_given_up: Callable[[str, str], None],
        packet_ids: PacketIds,
    ) -> None:
        self.queue = queue
        self.packet_ids = packet_ids
        self.acknowledged = 0
        self.last_acknowledged_at: float | None = None
        self.refused: dict[str, int] = {}
        self.tracer: MessageTracer | None = None
        self.skips: Skips | None = None
        self.may_announce = True
        self.on_answer: Callable[[float], None] = _nobody_asks
        self._mapping = mapping
        self._router = router
        self._timeout = puback_timeout_seconds
        self._on_given_up = on_given_up
        self._client: Client | None = None
        self._retreat: Callable[[int], None]
        self._settles: Callable[[int, int], bool] | None = None  # a floor above, which sees PUBACKs first
        self._pubrels_held = 0
        self._head = 0  # the oldest not acknowledged, and since when it is that
        self._head_since = 0.0
        self._timed = 0  # the message whose PUBACK is timed, 0 while none is, and since when
        self._timed_at = 0.0

    @property
    def depth(self) -> int:
        """Messages that wait for the upstream's acknowledgement."""
        return self.queue.depth

    @property
    def in_flight(self) -> int:
        """Messages sent on this connection and not acknowledged."""
        return 0 if self._client is None else self.queue.in_flight

    # ---- what the upstream answers

    def on_puback(self, packet_id: int, reason_code: int) -> None:
        """QoS 1: done, or refused."""
        number = self.packet_ids.number_of(packet_id)
        if number == self._timed:
            self._take_time()
        if self._settles is not None and self._settles(number, reason_code):
            return
        if reason_code >= 0x80:
            self._handle_refusal(number, reason_code)
        elif self.queue.complete(number):
            self.acknowledged += 1
            self.last_acknowledged_at = self._router.now
            if self.tracer is not None:
                self.tracer.on_done(number, self._router.now)
            return
        if not number and self.skips is not None:
            self.skips.on_puback(packet_id, reason_code)

    def on_pubrec(self, packet_id: int, reason_code: int) -> None:
        """QoS 2: the upstream has it; PUBREL follows once that is on disk."""
        client = self._client
        if client is None:
            return
        number = self.packet_ids.number_of(packet_id)
        if number == self._timed:
            self._take_time()
        if reason_code >= 0x80:
            self._handle_refusal(number, reason_code)
        elif self.queue.release(number):
            self._pubrels_held += 1
            self._router.pending.after_commit(partial(self._send_pubrel, client, packet_id))
        else:
            self._answer_unknown(client, packet_id)

    @staticmethod
    def _answer_unknown(client: Client, packet_id: int) -> None:
        """PUBREC came for what nobody sent: the upstream may forget it."""
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
        self._complete(self.packet_ids.number_of(packet_id))

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
        self.queue.tell_skipped(number)
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
