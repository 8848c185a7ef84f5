"""A gateway on an ordinary day: what of it reaches the disk?

Two hundred sensors publish a message a second each, at QoS 1, evenly spread; a persistent session is connected and
acknowledges at once, and a bridge leads to an upstream that does so too, or to nobody. What the broker's process caused
to be written is read from the kernel, from the first message to the last.
"""

import random
import struct
import time

from benchmarks import process, wire
from benchmarks.brokers import RunningBroker
from benchmarks.figures import Figures
from benchmarks.links import Link, Loop
from benchmarks.wire import BrokerMisbehaved

SENSORS = 200
PAYLOAD_BYTES = 100
COMMIT_DELAY_MS = 250
"""What the configuration for Raspberry Pis has."""
TOPIC_BYTES = len("steady/000")
SETTLE_SECONDS = 2.0
"""Before the first message: the bridge has found its upstream, the store has written what a start takes."""


def measure(broker: RunningBroker, version: int, seconds: float) -> Figures:
    """Run for `seconds`. Raises if the subscriber does not get every message once and in order."""
    subscriber = Link(broker.address, "steady-subscriber", version, clean=False)
    subscriber.subscribe(["steady/#"], 1)
    day = Day(broker, version, subscriber)
    try:
        day.wait(SETTLE_SECONDS)
        written_before = process.written_bytes(broker.pid)
        meter = process.Meter(broker.pid)
        day.run_for(seconds)
        interval = meter.stop()
        written = process.written_bytes(broker.pid) - written_before
        memory = process.memory(broker.pid)
    finally:
        day.loop.close()
    return {
        "messages": day.sent,
        "written_bytes_per_message": written / day.sent,
        "broker_busy_percent": interval.broker_cpu_seconds / interval.seconds * 100,
        "others_busy_percent": interval.others_cpu_seconds / interval.seconds * 100,
        "peak_mb": memory.peak_mb,
    }


class Day:
    """The sensors and their subscriber. `sent`, `acknowledged`, `seen` count messages."""

    def __init__(self, broker: RunningBroker, version: int, subscriber: Link) -> None:
        self.loop = Loop()
        self.sent = self.acknowledged = self.seen = 0
        self._version = version
        self._filling = random.Random(3).randbytes(PAYLOAD_BYTES - 4)
        self._sensors = [Link(broker.address, f"steady-{number}", version) for number in range(SENSORS)]
        for sensor in self._sensors:
            self.loop.add(sensor, self._on_puback)
        self._subscriber = subscriber
        self.loop.add(subscriber, self._on_delivery)

    def wait(self, seconds: float) -> None:
        deadline = time.monotonic() + seconds
        while (left := deadline - time.monotonic()) > 0:
            self.loop.turn(left)

    def run_for(self, seconds: float) -> None:
        """Publish for `seconds`, then wait for the last acknowledgement and the last delivery."""
        began = time.monotonic()
        while (elapsed := time.monotonic() - began) < seconds:
            while self.sent < elapsed * SENSORS:
                self._publish()
            self.loop.turn(0.005)
        self.loop.turn_until(
            lambda: self.acknowledged >= self.sent and self.seen >= self.sent, "the last message"
        )

    def _publish(self) -> None:
        number = self.sent % SENSORS
        packet_id = self.sent // SENSORS % 65_535 + 1
        payload = struct.pack(">I", self.sent) + self._filling
        self._sensors[number].send(wire.publish(f"steady/{number:03d}", payload, 1, self._version, packet_id))
        self.sent += 1

    def _on_puback(self, data: bytes) -> None:
        found, used = wire.runs(data)
        self.acknowledged += sum(count for _, _, count in found)
        if used < len(data):
            raise BrokerMisbehaved("part of a PUBACK to a client that has one message in flight")

    def _on_delivery(self, data: bytes) -> None:
        found, used = wire.runs(data)
        for run in found:
            start, size, count = run
            for at in range(start + size - PAYLOAD_BYTES, start + size * count, size):
                if struct.unpack_from(">I", data, at)[0] != self.seen:
                    raise BrokerMisbehaved(
                        f"a message lost, repeated or out of order after {self.seen} messages"
                    )
                self.seen += 1
            self._subscriber.send(wire.pubacks_for(data, run, TOPIC_BYTES))
        if used < len(data):
            self._subscriber.keep(data[used:])
