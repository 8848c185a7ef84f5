"""The closed loop: publishers that keep at most W messages outstanding, and subscribers that check every message.

A message is outstanding until all of its subscribers have it and, at QoS 1, its PUBACK came. Each publisher sends
from a ring of packets encoded beforehand; into every sixteenth it writes the time, which its receivers read back.
Every receiver checks that each publisher's messages come in order, none missing and none twice.
"""

import random
import struct
import sys
import time
from collections.abc import Callable

from benchmarks import wire
from benchmarks.links import SILENCE_TIMEOUT_SECONDS, Link, Loop
from benchmarks.wire import BrokerMisbehaved, ExpectedPubacks

SAMPLE_EVERY = 16
TIMESTAMP = struct.Struct(">Q")
# The payload: a timestamp in nanoseconds, the publisher's number (two bytes), the slot in the ring, then filling.
PUBLISHER_OFFSET = 8
SLOT_OFFSET = 10
HEAD_BYTES = 11


def slots_for(window: int) -> int:
    """A power of two with room for the window four times, so that a repeated message is not taken for a new one."""
    slots = SAMPLE_EVERY
    while slots < 4 * window:
        slots *= 2
    return slots


class Ring:
    """One publisher's packets, encoded once, in sending order."""

    def __init__(
        self, topic: str, number: int, payload_bytes: int, qos: int, version: int, slots: int
    ) -> None:
        filling = random.Random(number).randbytes(payload_bytes - HEAD_BYTES)
        packets = [
            wire.publish(topic, struct.pack(">QHB", 0, number, slot & 0xFF) + filling, qos, version, slot + 1)
            for slot in range(slots)
        ]
        self.packet_bytes = len(packets[0])
        self.slots = slots
        self.first_slot = number % slots  # publishers with a window of one are not all sampled at once
        self._bytes = bytearray(b"".join(packets))
        self._view = memoryview(self._bytes)
        self._timestamp_at = self.packet_bytes - payload_bytes

    def take(self, sent: int, count: int) -> bytes | memoryview:
        """The next `count` packets after the first `sent`, with the time in those that are samples."""
        start = (self.first_slot + sent) % self.slots
        end = start + count
        now: int | None = None
        for slot in range(-(-start // SAMPLE_EVERY) * SAMPLE_EVERY, end, SAMPLE_EVERY):
            if now is None:
                now = time.monotonic_ns()
            at = (slot % self.slots) * self.packet_bytes + self._timestamp_at
            TIMESTAMP.pack_into(self._bytes, at, now)
        size = self.packet_bytes
        if end <= self.slots:
            return self._view[start * size : end * size]
        return self._view[start * size :].tobytes() + self._view[: (end - self.slots) * size].tobytes()


class Publisher:
    """Keeps `window` messages outstanding. `delivered` counts what all of its subscribers have."""

    def __init__(self, link: Link, ring: Ring, window: int, qos: int, due: "list[Publisher]") -> None:
        self.link = link
        self.window = window if qos == 0 else min(window, link.connack.receive_maximum)
        self.sent = 0
        self.delivered = 0
        self.acknowledged = 0 if qos else sys.maxsize
        self.receivers: list[Receiver] = []
        self.first_slot = ring.first_slot
        self._ring = ring
        self._pubacks = ExpectedPubacks(ring.slots, ring.first_slot)
        self._due = due
        self._is_due = False

    def on_data(self, data: bytes) -> None:
        found, used = wire.runs(data)
        for run in found:
            self.acknowledged += self._pubacks.take(data, run)
        if used < len(data):
            self.link.keep(data[used:])
        self.mark_due()

    def mark_due(self) -> None:
        """Something moved: `refill` has to look again at the end of this turn."""
        if not self._is_due:
            self._is_due = True
            self._due.append(self)

    def outstanding(self) -> int:
        if self.receivers:
            self.delivered = min([receiver.seen for receiver in self.receivers])
        done = self.delivered if self.delivered < self.acknowledged else self.acknowledged
        return self.sent - done

    def refill(self) -> None:
        self._is_due = False
        room = self.window - self.outstanding()
        if room > 0:
            packets = self._ring.take(self.sent, room)
            self.sent += room
            self.link.send(packets)

    def rest(self) -> None:
        """Instead of `refill`, when the run is over."""
        self._is_due = False


class Receiver:
    """A subscriber to one publisher; `seen` counts its messages."""

    def __init__(self, link: Link, shape: "Shape", publisher: Publisher, samples: list[int]) -> None:
        self.link = link
        self.seen = 0
        self._shape = shape
        self._publisher = publisher
        self._samples = samples
        publisher.receivers.append(self)
        self._first_slot = publisher.first_slot
        self._expected_slots = bytes(slot & 0xFF for slot in range(shape.slots)) * 2

    def on_data(self, data: bytes) -> None:
        shape = self._shape
        found, used = wire.runs(data)
        answer = b""
        for run in found:
            start, size, count = run
            self._check(data, run)
            self._sample(data, start + size - shape.payload_bytes, size, count)
            self.seen += count
            if shape.qos:
                answer += wire.pubacks_for(data, run, shape.topic_bytes)
        if answer:
            self.link.send(answer)
        if used < len(data):
            self.link.keep(data[used:])
        self._publisher.mark_due()

    def _check(self, data: bytes, run: wire.Run) -> None:
        start, size, count = run
        self._shape.require_publish(data[start])
        slot_at = start + size - self._shape.payload_bytes + SLOT_OFFSET
        slot = (self._first_slot + self.seen) % self._shape.slots
        if data[slot_at : start + size * count : size] != self._expected_slots[slot : slot + count]:
            raise BrokerMisbehaved(f"a message lost, repeated or out of order after {self.seen} messages")

    def _sample(self, data: bytes, payload_at: int, size: int, count: int) -> None:
        position = -(self._first_slot + self.seen) % SAMPLE_EVERY
        if position < count:
            now = time.monotonic_ns()
            for index in range(position, count, SAMPLE_EVERY):
                self._samples.append(now - TIMESTAMP.unpack_from(data, payload_at + index * size)[0])


class Collector:
    """The one subscriber to many publishers."""

    def __init__(self, link: Link, shape: "Shape", publishers: list[Publisher], samples: list[int]) -> None:
        self.link = link
        self.seen = 0
        self._shape = shape
        self._publishers = publishers
        self._samples = samples
        self._first_slots = [publisher.first_slot for publisher in publishers]

    def on_data(self, data: bytes) -> None:
        shape = self._shape
        found, used = wire.runs(data)
        answer = b""
        for run in found:
            shape.require_publish(data[run[0]])
            self._count(data, run)
            if shape.qos:
                answer += wire.pubacks_for(data, run, shape.topic_bytes)
        if answer:
            self.link.send(answer)
        if used < len(data):
            self.link.keep(data[used:])

    def _count(self, data: bytes, run: wire.Run) -> None:
        start, size, count = run
        payload_at = start + size - self._shape.payload_bytes
        stop = start + size * count
        high = data[payload_at + PUBLISHER_OFFSET : stop : size]
        low = data[payload_at + PUBLISHER_OFFSET + 1 : stop : size]
        slots = self._shape.slots
        for index, slot in enumerate(data[payload_at + SLOT_OFFSET : stop : size]):
            number = high[index] << 8 | low[index]
            publisher = self._publishers[number]
            expected = (self._first_slots[number] + publisher.delivered) % slots
            if slot != expected & 0xFF:
                raise BrokerMisbehaved(f"a message of publisher {number} lost, repeated or out of order")
            publisher.delivered += 1
            if expected % SAMPLE_EVERY == 0:
                sent_at = TIMESTAMP.unpack_from(data, payload_at + index * size)[0]
                self._samples.append(time.monotonic_ns() - sent_at)
            publisher.mark_due()
        self.seen += count


class Shape:
    """What all messages of a load have in common."""

    def __init__(self, payload_bytes: int, topic_bytes: int, qos: int, window: int) -> None:
        self.payload_bytes = payload_bytes
        self.topic_bytes = topic_bytes
        self.qos = qos
        self.window = window
        self.slots = slots_for(window)
        self._first_bytes = (wire.PUBLISH | qos << 1, wire.PUBLISH | qos << 1 | 0x08)  # the DUP flag is legal

    def require_publish(self, first_byte: int) -> None:
        if first_byte not in self._first_bytes:
            raise BrokerMisbehaved(f"a subscriber received a packet that starts with {first_byte:#04x}")


class ClosedLoop:
    """Publishers and subscribers on one loop. `samples` are latencies in nanoseconds, publish to receipt."""

    def __init__(self) -> None:
        self.loop = Loop()
        self.samples: list[int] = []
        self.due: list[Publisher] = []
        self.publishers: list[Publisher] = []
        self.subscribers: list[Receiver | Collector] = []
        self._sending = True

    def seen(self) -> int:
        return sum([subscriber.seen for subscriber in self.subscribers])

    def start(self) -> None:
        for subscriber in self.subscribers:
            self.loop.add(subscriber.link, subscriber.on_data)
        for publisher in self.publishers:
            self.loop.add(publisher.link, publisher.on_data)
            publisher.mark_due()

    def run_for(self, seconds: float) -> None:
        now = time.monotonic()
        deadline = now + seconds
        last_event = now
        while now < deadline:
            self._refill()
            events = self.loop.turn(1.0)
            now = time.monotonic()
            if events:
                last_event = now
            elif now - last_event > SILENCE_TIMEOUT_SECONDS:
                raise BrokerMisbehaved(f"nothing delivered any more after {self.seen()} messages")

    def drain(self) -> None:
        """Publish no more, and wait until nothing is outstanding: every message is accounted for."""
        self._sending = False
        self.loop.turn_until(self._is_drained, "the last deliveries and acknowledgements")
        self.loop.turn(0.05)  # whatever still comes is a repetition, and the receivers say so

    def _is_drained(self) -> bool:
        self._refill()
        return not any(publisher.outstanding() for publisher in self.publishers)

    def _refill(self) -> None:
        act: Callable[[Publisher], None] = Publisher.refill if self._sending else Publisher.rest
        for publisher in self.due:
            act(publisher)
        self.due.clear()

    def close(self) -> None:
        self.loop.close()
