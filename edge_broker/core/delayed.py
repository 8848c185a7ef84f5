"""Delayed delivery: a PUBLISH to `$delayed/SECONDS/topic` is published to `topic` after SECONDS.

At QoS 1 and 2 it is acknowledged when it is on disk, in a queue of its own, as it came: when it is due follows from its
topic and from when it was received, so nothing else is stored. It leaves that queue in the same commit in which its
recipients get it. At QoS 0 it is kept in memory only, and a restart loses it.

What waits is in memory too, bounded by messages and bytes. After a restart nothing is delivered before all that waits is
read, so that what fell due meanwhile comes in order. Its expiry counts from when it was published. What a recipient's
full queue rejects is tried again. Permission is asked for when it comes, and again when it is due, unless a restart lies
in between: on disk it has no sender. Timers have the resolution of `Router.sweep`: about a second, and never early.
"""

from __future__ import annotations

import math
from heapq import heapify, heappop, heappush
from typing import TYPE_CHECKING, Final

from edge_broker.core.message import Message, build_message
from edge_broker.core.queue import LARGE_FRAME_BYTES
from edge_broker.errors import MessageRefused, MqttError, NotPermitted, QueueFull
from edge_broker.wire import const
from edge_broker.wire.topics import DELAYED_PREFIX

if TYPE_CHECKING:
    from edge_broker.core.ops import Snapshot
    from edge_broker.core.queue import Queue
    from edge_broker.core.router import Router
    from edge_broker.core.session import Recipient

QUEUE_NAME: Final = "$delayed"
"""What the store calls it, where bridges' outboxes have their names."""

_AT_ONCE: Final = 1_000
"""Deliveries in one turn; if more is due, the rest follows the commit of these."""

_GAPS: Final = 1_000
"""Numbers done behind one that still waits, beside as many as wait: then those in front are written anew, so that the
rows behind them can go."""

_LONGEST_NUMBER: Final = 10


def target_of(topic: str) -> str:
    """Where a message to `topic` goes in the end: what permission is asked for. Whether it may be is not looked at."""
    if not topic.startswith(DELAYED_PREFIX):
        return topic
    return topic[len(DELAYED_PREFIX) :].partition("/")[2]


def parse(topic: str, max_seconds: int) -> tuple[int, str]:
    """The delay in seconds and the target of a topic under `$delayed/`; `MessageRefused` where it is malformed."""
    seconds, separator, target = topic[len(DELAYED_PREFIX) :].partition("/")
    if not (seconds.isascii() and seconds.isdigit() and len(seconds) <= _LONGEST_NUMBER and separator):
        raise MessageRefused(const.TOPIC_NAME_INVALID, "delayed delivery is $delayed/SECONDS/topic")
    if not target or target.startswith(DELAYED_PREFIX):
        raise MessageRefused(const.TOPIC_NAME_INVALID, "delayed delivery to no topic of its own")
    if int(seconds) > max_seconds:
        raise MessageRefused(const.TOPIC_NAME_INVALID, f"a longer delay than {max_seconds} s")
    return int(seconds), target


class Delayed:
    """`size_bytes`: packets that wait. Counters since the start: `taken`, `delivered`; `expired`: over before they were
    due; `refused`: not taken, or not published when they were due, by reason.
    """

    def __init__(self, router: Router) -> None:
        self._router = router
        self.queue: Queue | None = None
        self._due: list[tuple[float, float, int]] = []  # a heap: when due, when received, number
        self._publishers: dict[int, Recipient] = {}
        self._in_memory: dict[int, Message] = {}  # at QoS 0, by numbers of their own, below 0
        self._last = 0  # of those
        self._goes_on = False
        self.size_bytes = 0
        self.taken = self.delivered = self.expired = 0
        self.refused: dict[str, int] = {}

    def __len__(self) -> int:
        """How many wait."""
        return len(self._in_memory) + (0 if self.queue is None else self.queue.depth)

    @property
    def in_memory(self) -> int:
        """Those of them that a restart loses: at QoS 0, or of topics that are kept in memory only."""
        return len(self._in_memory)

    def restore(self, snapshot: Snapshot) -> None:
        """Take over those that the store kept, also where no new ones are taken."""
        if QUEUE_NAME in snapshot.outboxes:
            queue = self._take_queue(self._router.outbox_queue(snapshot, QUEUE_NAME))
            queue.want_page()

    def _take_queue(self, queue: Queue) -> Queue:
        """`queue` is sent from by nobody, and yet kept in memory: all of it counts as in flight."""
        queue.owner = self
        queue.online = True
        self.queue = queue
        return queue

    # ---- coming

    def take(self, message: Message, publisher: Recipient | None) -> int:
        """Keep `message` until it is due; how much work that was. `MqttError`, `MessageRefused` where it is not taken."""
        router = self._router
        settings = router.settings
        try:
            if not settings.delayed_available:
                raise MessageRefused(const.TOPIC_NAME_INVALID, "no delayed delivery")
            seconds, target = parse(message.topic, settings.max_delayed_seconds)
            router.check_topic(target, publisher)
            self._require_room(len(message.frame))
        except MessageRefused as refusal:
            self._count_refusal(refusal)
            raise
        now = message.received_at = router.now
        if message.expiry_interval is not None:
            message.expires_at = now + message.expiry_interval
        message.volatile = not message.qos or router.table.is_volatile(target)
        self.taken += 1
        if message.volatile:
            self._take_in_memory(message, seconds, publisher)
        else:
            queue = self.queue or self._take_queue(router.new_outbox(QUEUE_NAME))
            number = queue.append(message)
            if publisher is not None:
                self._publishers[number] = publisher
            self.pump()
        return 1

    def _take_in_memory(self, message: Message, seconds: int, publisher: Recipient | None) -> None:
        self._last -= 1
        self._in_memory[self._last] = message
        if publisher is not None:
            self._publishers[self._last] = publisher
        self.size_bytes += len(message.frame)
        heappush(self._due, (message.received_at + seconds, message.received_at, self._last))

    def _require_room(self, size_bytes: int) -> None:
        settings = self._router.settings
        is_full = 0 < settings.max_delayed_messages <= len(self)
        if is_full or 0 < settings.max_delayed_bytes < self.size_bytes + size_bytes:
            raise QueueFull(const.QUOTA_EXCEEDED, "as many delayed messages as there may be")
        totals = self._router.totals
        if totals is not None and not totals.has_room(size_bytes):
            raise QueueFull(const.QUOTA_EXCEEDED, "as many messages in all queues as there may be")

    def _count_refusal(self, refusal: MessageRefused | MqttError) -> None:
        reason = const.REASON_NAMES[refusal.reason_code].replace(" ", "_")
        self.refused[reason] = self.refused.get(reason, 0) + 1

    def pump(self) -> None:
        """Messages have come, or been read back: from now on they are timed."""
        queue = self.queue
        assert queue is not None
        while queue.cursor < queue.next_number:
            number = queue.cursor
            message = queue.messages.get(number)
            if message is not None:
                self._time(number, message)
                queue.in_flight += 1
                if len(message.frame) > LARGE_FRAME_BYTES:
                    queue.large_in_flight_bytes += len(message.frame)
            elif not (queue.acknowledged and number in queue.acknowledged):
                queue.want_page()
                return
            queue.cursor = number + 1

    def _time(self, number: int, message: Message) -> None:
        self.size_bytes += len(message.frame)
        seconds = int(message.topic[len(DELAYED_PREFIX) :].partition("/")[0])
        heappush(self._due, (message.received_at + seconds, message.received_at, number))

    def correct_times(self, before: float, seconds: float) -> None:
        """What came before `before` came `seconds` earlier than was thought, so it is due as much earlier."""
        self._due = [
            (due_at - seconds, received_at - seconds, number)
            if received_at < before
            else (due_at, received_at, number)
            for due_at, received_at, number in self._due
        ]
        heapify(self._due)

    # ---- going

    def sweep(self, now: float) -> None:
        """About once a second: publish what is due, the longest overdue first."""
        queue = self.queue
        if queue is not None and queue.cursor < queue.next_number:
            self.pump()  # not all that waits is known yet
            return
        for _ in range(_AT_ONCE):
            if not self._due or self._due[0][0] > now or not self._deliver_first(now):
                break
        else:
            self._go_on()
        if queue is not None:
            self._close_up(queue)

    def _go_on(self) -> None:
        """More is due, and the store is not to be swamped."""
        if not self._goes_on:
            self._goes_on = True
            self._router.pending.after_commit(self._continue)

    def _continue(self) -> None:
        self._goes_on = False
        self.sweep(self._router.now)

    def _deliver_first(self, now: float) -> bool:
        """Publish what is due first; False if it has to wait for its own commit."""
        _, received_at, number = self._due[0]
        message = self._in_memory.get(number)
        if message is None:
            queue = self.queue
            assert queue is not None
            if number >= queue.committed:
                return (
                    False  # its publisher is to be answered for this queue, before others have to do with it
                )
            if number not in queue.messages:  # it was written anew, and has another entry
                heappop(self._due)
                return True
            message = queue.messages[number]
        heappop(self._due)
        if message.expires_at is not None and message.expires_at <= now:
            self.expired += 1
            self._router.counters.drop("expired")
            self._bury(message, "expired")
        elif not self._publish(message, number):
            heappush(self._due, (now + 1.0, received_at, number))
            return True
        self._forget(number, message)
        return True

    def _publish(self, message: Message, number: int) -> bool:
        """Publish `message` under its own topic; False if a recipient's queue is full and there may be room later."""
        router = self._router
        publisher = self._publishers.get(number)
        due = build_message(
            target_of(message.topic),
            message.payload,
            qos=message.qos,
            retain=message.retain,
            property_block=message.property_block,
            version=message.version,
        )
        if message.expires_at is not None:
            due.expiry_interval = max(1, math.ceil(message.expires_at - router.now))
        try:
            if not router.still_may_publish(publisher, due):
                router.counters.deny("publish")
                raise NotPermitted("publish", "allowed when it was left, and not any more")
            router.publish(due, publisher)
        except QueueFull:
            if message.qos:
                return False
            router.counters.drop("quota_exceeded")
        except (
            MessageRefused,
            MqttError,
        ) as refusal:  # limits or permissions are others than when it was taken
            self._count_refusal(refusal)
            router.counters.drop("delayed_refused")
            self._bury(message, "delayed_refused")
        else:
            self.delivered += 1
        return True

    def _bury(self, message: Message, reason: str) -> None:
        dead_letters = self._router.dead_letters
        if dead_letters is not None and message.qos:
            dead_letters.bury(message, reason, QUEUE_NAME)

    def _forget(self, number: int, message: Message) -> None:
        self.size_bytes -= len(message.frame)
        self._publishers.pop(number, None)
        if self._in_memory.pop(number, None) is None and self.queue is not None:
            self.queue.moved = True
            self.queue.complete(number)

    def _close_up(self, queue: Queue) -> None:
        """Write those in front anew where too much behind them is done, so that what is on disk is what waits."""
        for _ in range(_AT_ONCE):
            if queue.next_number - queue.head <= 2 * queue.depth + _GAPS or queue.head >= queue.committed:
                break
            number = queue.head
            message = queue.messages[number]
            again = Message(
                message.frame,
                message.version,
                message.topic,
                message.packet_id_at,
                message.payload_at,
                message.qos,
                message.retain,
                0,
            )
            again.epoch, again.sequence = message.origin.epoch, message.origin.sequence
            again.received_at, again.expires_at = message.received_at, message.expires_at
            anew = queue.append(again)
            if number in self._publishers:
                self._publishers[anew] = self._publishers.pop(number)
            queue.moved = True
            queue.complete(number)
            self.size_bytes -= len(message.frame)
        self.pump()
