"""Many messages in one PUBLISH: gathers what may travel so, sends it, and settles all of it by one acknowledgement.

What it keeps true:

- The PUBACK of an envelope completes its messages, and nothing else does. What has none is sent again on the next
  connection, as the queue has it: in other envelopes, or plain where nobody upstream opens any.
- What gathers is in flight for the queue, and neither sent nor overdue.
- An envelope that is refused for good falls apart: its messages go plain, one by one, so that one that the upstream will
  never take harms only itself. So does what gathered when the lease ended.
- The window counts packets, an envelope as one. The bytes of what is on its way in envelopes are bounded too.
- Rates count messages as they gather, and bytes as the envelope has them.

The forwarder's fourth floor. Without envelopes it costs a comparison per turn and per acknowledgement.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable
from typing import TYPE_CHECKING, Final

from bridge.answers import REFUSED_FOR_GOOD
from bridge.mapping import OutMapping, RemoteTopic
from bridge.packet_ids import PacketIds
from bridge.plain_sending import PlainSending
from bridge.policy_config import PacingConfig
from edge_broker.core.client import Client
from edge_broker.core.message import Message
from edge_broker.core.queue import Queue
from edge_broker.wire import const

if TYPE_CHECKING:
    from bridge.columns import Columns
    from bridge.envelopes import Envelopes
    from edge_broker.core.router import Router

_TURN_MESSAGES: Final = 2_000
_REFUSES_ALL: Final = frozenset((const.NOT_AUTHORIZED, const.TOPIC_NAME_INVALID, const.QOS_NOT_SUPPORTED))
"""The same for every envelope, whatever is in it."""


class Packing(PlainSending):
    """`envelopes`: this queue's, None where nothing goes so. `on_envelope_refused(reason)`: the upstream takes none."""

    def __init__(
        self,
        queue: Queue,
        mapping: OutMapping,
        router: Router,
        puback_timeout_seconds: float,
        on_given_up: Callable[[str, str], None],
        packet_ids: PacketIds,
        pacing: PacingConfig,
    ) -> None:
        super().__init__(queue, mapping, router, puback_timeout_seconds, on_given_up, packet_ids, pacing)
        self.envelopes: Envelopes | None = None
        self.on_envelope_refused: Callable[[str], None] = _nobody_to_tell
        self._packing: Envelopes | None = None  # on this connection
        self._plain: set[int] = set()  # in flight as a PUBLISH, or a PUBREL, each
        # Numbers that gathered, or were in an envelope, and go by themselves; whether plain in any case.
        self._apart: deque[tuple[int, bool]] = deque()
        self._gather_seconds = 0.0

    # ---- the connection

    def _begin_packing(self, client: Client) -> None:
        envelopes = self._packing = self.envelopes
        if envelopes is not None:
            if not client.session_present:  # the upstream knows no identifier of ours
                envelopes.plain_below = envelopes.sent_plain_below = 0
            envelopes.begin(client, self._router.now)
            self._settles = self._settle

    def _end_packing(self) -> None:
        self._packing = self._settles = None
        self._plain.clear()
        self._apart.clear()
        self._gather_seconds = 0.0
        if self.envelopes is not None:
            self.envelopes.begin(None, 0.0)

    def _sent_up_to(self) -> int:
        """Numbers below it were sent, but for a few: what gathered was not."""
        cursor, envelopes = self.queue.cursor, self._packing
        if envelopes is None or not envelopes.gathering.numbers:
            return cursor
        return min(cursor, envelopes.gathering.numbers[0])

    @property
    def pause_seconds(self) -> float:
        """Until there may be something to send although nothing happens; 0 where that is not known."""
        waits = [seconds for seconds in (self.wait_seconds, self._gather_seconds) if seconds > 0]
        return min(waits, default=0.0)

    @property
    def _unsent(self) -> int:
        """Messages that are in flight for the queue, and not sent."""
        envelopes = self._packing
        return 0 if envelopes is None else len(envelopes.gathering.numbers) + len(self._apart)

    @property
    def in_flight(self) -> int:
        """Messages sent on this connection and not acknowledged."""
        return 0 if self._client is None else self.queue.in_flight - self._unsent

    @property
    def packets_in_flight(self) -> int:
        """PUBLISH packets that are not acknowledged."""
        envelopes = self._packing
        if envelopes is None:
            return self.queue.in_flight
        return len(self._plain) + len(envelopes.on_their_way)

    # ---- sending

    def _send_due_packed(self, client: Client, envelopes: Envelopes) -> bool:
        """`send_due` where messages may go in envelopes."""
        now = self._router.now
        self.wait_seconds = 0.0
        self._gather_seconds = envelopes.seconds_undecided(now)
        if self._gather_seconds:
            return False
        batches = envelopes.batches(now)
        if envelopes.gathering.numbers and not batches:
            self._fall_apart(envelopes.drop_gathered(), was_tried=False)
        is_more = self._gather_due(client, envelopes, batches)
        if envelopes.gathering.numbers:
            if envelopes.is_full or envelopes.closes_at <= now:
                self._send_gathered()
                is_more = is_more or (bool(self._apart) and self.packets_in_flight < self._window)
            else:
                self._gather_seconds = envelopes.closes_at - now
        return is_more

    def _gather_due(self, client: Client, envelopes: Envelopes, batches: bool) -> bool:
        """Send or gather what is due; True if there is more for the next turn."""
        queue, now = self.queue, self._router.now
        is_ordinary = batches and not (self._is_paced or self.withholds)
        until = queue.cursor + _TURN_MESSAGES
        while queue.cursor < until:
            if self.packets_in_flight >= self._window:
                return False
            if envelopes.is_full:
                self._send_gathered()
                continue
            if self._apart:
                self._send_apart(client, envelopes)
                continue
            if not self._has_room_in_bytes(envelopes):
                return False
            if self._is_paced and self._must_wait(0):
                return False
            due = self._gather_ordinary(envelopes, until) if is_ordinary else queue.next_to_send(now)
            if due is None:
                return queue.cursor >= until
            number, message = due
            if message is None:
                self._plain.add(number)
                self._release(client, number)
                continue
            remote = self._remote_of(number, message)
            if remote is not None:
                self._send_somehow(client, envelopes, number, message, remote, batches)
        return True

    def _gather_ordinary(self, envelopes: Envelopes, until: int) -> tuple[int, Message | None] | None:
        """Gather what is due as long as nothing of it needs a second look; what does then, as `next_to_send` tells it."""
        queue, now = self.queue, self._router.now
        known, next_to_send, gather = self._mapping.known, queue.next_to_send, envelopes.gather
        while queue.cursor < until:
            due = next_to_send(now)
            if due is None:
                return None
            number, message = due
            if message is None or message.qos != 1:
                return due
            remote = known.get(message.topic)
            if remote is None or remote.may_be_skipped or not remote.in_envelopes:
                return due
            if not gather(message, number, remote, now):
                return due
        return None

    def _has_room_in_bytes(self, envelopes: Envelopes) -> bool:
        """Whether more messages may be taken into memory. What was taken is sent whatever this says."""
        window_bytes = self._router.settings.send_window_bytes
        return self.queue.large_in_flight_bytes < window_bytes and envelopes.size_bytes < window_bytes

    def _send_somehow(
        self,
        client: Client,
        envelopes: Envelopes,
        number: int,
        message: Message,
        remote: RemoteTopic,
        batches: bool,
    ) -> None:
        """`message` gathers, or goes by itself, in an envelope or plain. There is room for a packet."""
        way = envelopes.way_of(message, number, remote, batches)
        if way == "batched":
            if not envelopes.gather(message, number, remote, self._router.now):
                self._send_gathered()
                envelopes.gather(message, number, remote, self._router.now)
            if self._is_paced:
                self._pace_of(number).take(0, self._router.now)
        elif remote.topic in envelopes.gathering.topics:  # older ones gather, and go first
            self._apart.append((number, way == "plain"))
            envelopes.close()
        elif way == "alone":
            self._send_alone(client, envelopes, number, message, remote)
        else:
            self._send_as_publish(client, envelopes, number, message, remote)

    def _send_as_publish(
        self, client: Client, envelopes: Envelopes, number: int, message: Message, remote: RemoteTopic
    ) -> None:
        if message.qos == 2:
            envelopes.sent_plain_below = max(envelopes.sent_plain_below, number + 1)
        if self._send_plain(client, number, message, remote):
            self._plain.add(number)

    def _send_apart(self, client: Client, envelopes: Envelopes) -> None:
        """The next of what goes by itself now; what gathers, if that is older."""
        gathering = envelopes.gathering.numbers
        if gathering and gathering[0] < self._apart[0][0]:
            self._send_gathered()
            return
        number, is_plain = self._apart.popleft()
        message = self.queue.messages.get(number)
        remote = None if message is None else self._remote_of(number, message)
        if message is None or remote is None:
            return
        if not is_plain and envelopes.way_of(message, number, remote, False) == "alone":
            self._send_alone(client, envelopes, number, message, remote)
        else:
            self._send_as_publish(client, envelopes, number, message, remote)

    # ---- envelopes

    def _send_gathered(self) -> None:
        """What gathered leaves now, if there is room for it."""
        client, envelopes = self._client, self._packing
        if client is None or envelopes is None or not envelopes.gathering.numbers:
            return
        if self.packets_in_flight < self._window:
            self._send_envelope(client, envelopes, *envelopes.pack_gathered())

    def _send_unsent(self) -> None:
        """What gathers, and what goes by itself, leaves now, as far as there is room for it."""
        client, envelopes = self._client, self._packing
        if client is not None and envelopes is not None:
            while self._apart and self.packets_in_flight < self._window:
                self._send_apart(client, envelopes)
            self._send_gathered()

    def _send_alone(
        self, client: Client, envelopes: Envelopes, number: int, message: Message, remote: RemoteTopic
    ) -> None:
        if self._is_paced:
            self._pace_of(number).take(0, self._router.now)
        self._send_envelope(
            client, envelopes, *envelopes.pack_alone(message, number, remote, self._router.now)
        )

    def _send_envelope(
        self, client: Client, envelopes: Envelopes, payload: bytes, columns: Columns, size_bytes: int
    ) -> None:
        numbers, now = columns.numbers, self._router.now
        first = numbers[0]
        fits = envelopes.is_small_enough(payload) and client.send_publish(
            envelopes.topic,
            b"\0" + payload if client.version >= const.MQTT_5 else payload,
            1,
            False,
            first < self.queue.sent_before,
            self.packet_ids.of(first),
        )
        if not fits:
            self._fall_apart(numbers)
            return
        envelopes.note_sent(payload, columns, size_bytes)
        if self._is_paced:
            self._pace_of(first).take_bytes(len(payload), now)
        if not self._timed:
            self._timed, self._timed_at = first, now
        self._count_sent(columns)
        if self.tracer is not None:
            self._trace_sent(numbers)

    def _count_sent(self, columns: Columns) -> None:
        numbers = columns.numbers
        at_qos_2 = columns.count_qos_2()
        self.sent[2] += at_qos_2
        self.sent[1] += len(numbers) - at_qos_2
        if numbers[0] < self._sent_below:
            self.resent += sum(1 for number in numbers if number < self._sent_below)

    def _trace_sent(self, numbers: list[int]) -> None:
        tracer, now = self.tracer, self._router.now
        assert tracer is not None
        for number in numbers:
            message = self.queue.messages[number]
            remote = self._mapping.find(message.topic)
            if remote is not None:
                tracer.on_sent(message, number, remote.topic, now)

    def _fall_apart(self, numbers: list[int], was_tried: bool = True) -> None:
        """These do not go together: each goes by itself, where there is room again.

        `was_tried`: the envelope itself would not do, so one that was alone in it goes plain.
        """
        envelopes = self._packing
        assert envelopes is not None
        if len(numbers) > 1:
            envelopes.fallen_apart += 1
        is_plain = was_tried and len(numbers) == 1
        apart = [*self._apart, *((number, is_plain) for number in numbers)]
        self._apart = deque(sorted(apart))

    # ---- what the upstream answers

    def _settle(self, number: int, reason_code: int) -> bool:
        """Whether a PUBACK for `number` is an envelope's, or nobody's; else it is that of a message by itself."""
        envelopes = self._packing
        assert envelopes is not None
        numbers = envelopes.take_answered(number)
        if numbers is not None:
            self._on_envelope_answer(envelopes, numbers, reason_code)
            return True
        if not number:
            return False
        if (
            number not in self._plain
        ):  # it is within an envelope, or gathers: nobody sent it under that identifier
            return True
        self._plain.remove(number)
        return False

    def on_pubrec(self, packet_id: int, reason_code: int) -> None:
        """QoS 2, of what went by itself."""
        number = self.packet_ids.number_of(packet_id)
        if self._packing is not None and number not in self._plain:
            if self._client is not None:
                self._answer_unknown(self._client, packet_id)
            return
        if reason_code >= 0x80:
            self._plain.discard(number)
        super().on_pubrec(packet_id, reason_code)

    def _complete(self, number: int) -> None:
        if self._packing is None or number in self._plain:
            self._plain.discard(number)
            super()._complete(number)

    def _on_envelope_answer(self, envelopes: Envelopes, numbers: list[int], reason_code: int) -> None:
        if reason_code < 0x80:
            self._complete_all(numbers)
        elif reason_code not in REFUSED_FOR_GOOD:
            self._retreat(reason_code)
        else:
            if reason_code in _REFUSES_ALL and not envelopes.is_refused:
                envelopes.is_refused = True
                self.on_envelope_refused(const.REASON_NAMES[reason_code])
            self._fall_apart(numbers)

    def _complete_all(self, numbers: list[int]) -> None:
        queue, now = self.queue, self._router.now
        if numbers[-1] - numbers[0] == len(numbers) - 1:
            self.acknowledged += queue.complete_range(numbers[0], len(numbers))
        else:
            self.acknowledged += sum(map(queue.complete, numbers))
        self.last_acknowledged_at = now
        if self.tracer is not None:
            for number in numbers:
                self.tracer.on_done(number, now)

    # ---- time

    def is_overdue(self, now: float, sending: bool) -> bool:
        """As below; what gathers, or waits to go by itself, is not sent yet."""
        return super().is_overdue(now, sending or self._is_unsent(self.queue.head))

    def _is_unsent(self, number: int) -> bool:
        envelopes = self._packing
        if envelopes is None:
            return False
        return number in envelopes.gathering.numbers[:1] or any(number == one for one, _ in self._apart)


def _nobody_to_tell(_reason: str) -> None:
    """Nobody logs it."""
