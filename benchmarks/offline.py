"""QoS 1 into an offline persistent session, and its drain: no message lost, repeated or out of order.

The subscriber connects with a persistent session, subscribes and leaves. A publisher keeps W messages without PUBACK
outstanding until all are acknowledged. Then the subscriber comes back, acknowledges everything, and a PINGREQ after
the last PUBACK shows when the broker has dealt with it all; it comes back once more, and nothing may be left.
"""

import gc
import random
import struct
import time
from collections import deque
from dataclasses import dataclass, field

from benchmarks import process, wire
from benchmarks.brokers import RunningBroker
from benchmarks.figures import Figures, latencies_ms
from benchmarks.links import Address, Link, Loop
from benchmarks.load import SAMPLE_EVERY
from benchmarks.wire import BrokerMisbehaved, ExpectedPubacks

PAYLOAD_BYTES = 200
WINDOW = 1_000
TOPIC = "bench/offline"
SUBSCRIBER = "offline-subscriber"
SETTLE_SECONDS = 0.3  # how long a session that should be empty is given to send something

_NUMBER = struct.Struct(">Q")


@dataclass
class Ledger:
    """Which of the numbers 0 to `total` - 1 arrived, in which order."""

    total: int
    received: int = 0
    duplicated: int = 0
    out_of_order: int = 0
    unknown: int = 0
    _expected: int = 0
    _arrived: bytearray = field(init=False, repr=False)

    def __post_init__(self) -> None:
        self._arrived = bytearray(self.total)

    def enter(self, numbers: list[int]) -> None:
        self.received += len(numbers)
        end = self._expected + len(numbers)
        if numbers == list(range(self._expected, end)) and end <= self.total:
            self._arrived[self._expected : end] = b"\x01" * len(numbers)
            self._expected = end
            return
        for number in numbers:
            self._enter_one(number)

    def _enter_one(self, number: int) -> None:
        if number >= self.total:
            self.unknown += 1
        elif self._arrived[number]:
            self.duplicated += 1
        else:
            self._arrived[number] = 1
            self.out_of_order += number < self._expected
            self._expected = max(self._expected, number + 1)

    @property
    def missing(self) -> int:
        return self._arrived.count(0)

    def require_exact(self) -> None:
        """Raises unless every number arrived exactly once and in order."""
        if self.missing or self.duplicated or self.out_of_order or self.unknown:
            raise BrokerMisbehaved(
                f"of {self.total} acknowledged messages {self.missing} are missing, {self.duplicated} came twice, "
                f"{self.out_of_order} out of order, {self.unknown} were never sent"
            )


class NumberedPublisher:
    """Publishes messages numbered from 0, at QoS 1, with at most `window` of them unacknowledged."""

    def __init__(self, link: Link, topic: str, payload_bytes: int, window: int) -> None:
        self.link = link
        self.window = min(window, link.connack.receive_maximum)
        self.sent = 0
        self.acknowledged = 0
        self.samples: list[int] = []
        self._sent_at: deque[int] = deque()  # of every sixteenth message that is outstanding
        self._slots = SAMPLE_EVERY
        while self._slots < self.window:
            self._slots *= 2
        filling = random.Random(1).randbytes(payload_bytes - _NUMBER.size)
        packets = [
            wire.publish(topic, bytes(_NUMBER.size) + filling, 1, link.version, slot + 1)
            for slot in range(self._slots)
        ]
        self._packet_bytes = len(packets[0])
        self._number_at = self._packet_bytes - payload_bytes
        self._ring = bytearray(b"".join(packets))
        self._view = memoryview(self._ring)
        self._pubacks = ExpectedPubacks(self._slots)

    def send_up_to(self, total: int) -> None:
        """Fill the window, but publish no more than `total` messages in all."""
        count = min(self.window - (self.sent - self.acknowledged), total - self.sent)
        while count > 0:
            slot = self.sent % self._slots
            straight = min(count, self._slots - slot)  # up to the ring's end
            self._send(slot, straight)
            count -= straight

    def _send(self, slot: int, count: int) -> None:
        size, now = self._packet_bytes, time.monotonic_ns()
        at = slot * size + self._number_at
        for number in range(self.sent, self.sent + count):
            _NUMBER.pack_into(self._ring, at, number)
            at += size
            if number % SAMPLE_EVERY == 0:
                self._sent_at.append(now)
        self.sent += count
        self.link.send(self._view[slot * size : (slot + count) * size])

    def on_data(self, data: bytes) -> None:
        now = time.monotonic_ns()
        found, used = wire.runs(data)
        for run in found:
            before = self.acknowledged
            self.acknowledged += self._pubacks.take(data, run)
            if self.acknowledged > self.sent:
                raise BrokerMisbehaved("a PUBACK for a message that was not sent")
            sampled = -(-self.acknowledged // SAMPLE_EVERY) - -(-before // SAMPLE_EVERY)
            for _ in range(sampled):
                self.samples.append(now - self._sent_at.popleft())
        if used < len(data):
            self.link.keep(data[used:])


class DrainingSubscriber:
    """Enters what comes into the ledger and acknowledges it; `pinged` once a PINGRESP came."""

    def __init__(self, link: Link, ledger: Ledger, topic: str, payload_bytes: int) -> None:
        self.link = link
        self.pinged = False
        self._ledger = ledger
        self._topic_bytes = len(topic)
        self._payload_bytes = payload_bytes

    def on_data(self, data: bytes) -> None:
        found, used = wire.runs(data)
        answer = b""
        for run in found:
            start, size, count = run
            kind = data[start] & 0xF0
            if kind == wire.PINGRESP:
                self.pinged = True
                continue
            if kind != wire.PUBLISH:
                raise BrokerMisbehaved(f"a subscriber received a packet that starts with {data[start]:#04x}")
            skipped = size - self._payload_bytes
            rows = struct.Struct(f">{skipped}xQ{self._payload_bytes - _NUMBER.size}x")
            block = memoryview(data)[start : start + size * count]
            self._ledger.enter([number for (number,) in rows.iter_unpack(block)])
            answer += wire.pubacks_for(data, run, self._topic_bytes)
        if answer:
            self.link.send(answer)
        if used < len(data):
            self.link.keep(data[used:])


def make_session(address: Address, client_id: str, topic: str, version: int) -> None:
    """A persistent session that subscribes at QoS 1 and goes away."""
    link = Link(address, client_id, version, clean=False)
    link.subscribe([topic], 1)
    link.part()


def measure(broker: RunningBroker, version: int, messages: int) -> Figures:
    """Fill the session of a fresh broker with `messages`, and drain it. Raises unless the drain is exact."""
    make_session(broker.address, SUBSCRIBER, TOPIC, version)
    gc.collect()
    gc.disable()
    try:
        return {**enqueue(broker, version, messages), **_drain(broker, version, messages)}
    finally:
        gc.enable()


def enqueue(broker: RunningBroker, version: int, messages: int) -> Figures:
    """Publish `messages` to the session, which is there, until all are acknowledged."""
    loop = Loop()
    publisher = NumberedPublisher(Link(broker.address, "publisher", version), TOPIC, PAYLOAD_BYTES, WINDOW)
    written_before = process.written_bytes(broker.pid)
    loop.add(publisher.link, publisher.on_data)
    meter = process.Meter(broker.pid)

    def all_acknowledged() -> bool:
        publisher.send_up_to(messages)
        return publisher.acknowledged == messages

    try:
        loop.turn_until(all_acknowledged, "PUBACKs")
    finally:
        loop.close()
    figures = meter.stop().figures(messages)
    return {
        **{f"enqueue_{name}": value for name, value in figures.items()},
        **latencies_ms(publisher.samples, "puback_"),
        "messages": messages,
        "window": publisher.window,
        "enqueue_resident_mb": process.memory(broker.pid).resident_mb,
        "written_bytes_per_message": (process.written_bytes(broker.pid) - written_before) / messages,
    }


def _drain(broker: RunningBroker, version: int, messages: int) -> Figures:
    ledger = Ledger(messages)
    meter = process.Meter(broker.pid)
    drain_session(broker.address, SUBSCRIBER, TOPIC, PAYLOAD_BYTES, version, ledger)
    figures = meter.stop().figures(messages)
    memory = process.memory(broker.pid)
    require_empty(broker.address, SUBSCRIBER, TOPIC, PAYLOAD_BYTES, version, ledger)
    ledger.require_exact()
    return {
        **{f"drain_{name}": value for name, value in figures.items()},
        "peak_mb": memory.peak_mb,
        "resident_mb": memory.resident_mb,
    }


def drain_session(
    address: Address, client_id: str, topic: str, payload_bytes: int, version: int, ledger: Ledger
) -> None:
    """Reconnect, take `ledger.total` messages, and wait until the broker has dealt with the last PUBACK."""
    link = Link(address, client_id, version, clean=False)
    if not link.connack.session_present:
        raise BrokerMisbehaved("the persistent session is gone")
    subscriber = DrainingSubscriber(link, ledger, topic, payload_bytes)
    loop = Loop()
    try:
        loop.add(link, subscriber.on_data)
        loop.turn_until(lambda: ledger.received >= ledger.total, "the session's messages")
        link.send(wire.PINGREQ_PACKET)
        loop.turn_until(lambda: subscriber.pinged, "PINGRESP")
    except BrokerMisbehaved as error:
        raise BrokerMisbehaved(f"{error}; {ledger.received} of {ledger.total} messages came") from error
    finally:
        loop.close()


def require_empty(
    address: Address, client_id: str, topic: str, payload_bytes: int, version: int, ledger: Ledger
) -> None:
    """Reconnect once more: whatever comes now came before, and the ledger will tell."""
    link = Link(address, client_id, version, clean=False)
    subscriber = DrainingSubscriber(link, ledger, topic, payload_bytes)
    loop = Loop()
    try:
        loop.add(link, subscriber.on_data)
        deadline = time.monotonic() + SETTLE_SECONDS
        while time.monotonic() < deadline:
            loop.turn(SETTLE_SECONDS / 4)
    finally:
        loop.close()
