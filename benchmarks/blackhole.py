"""What local clients notice when the upstream vanishes without a word: every packet to it is dropped, none is refused.

Two hundred sensors publish five messages a second each at QoS 1, evenly spread, and a local subscriber gets them all,
while a bridge takes everything to a mosquitto in a network namespace. Then the way back from that namespace is taken
away in the middle of a connection. Patience with the upstream is set to a second or two, so that a run sees all that
follows: acknowledgements that do not come, the connection given up, further ones that get no answer.

Runs one behind the other, each on a fresh broker: with the upstream there, and with it gone. What counts is the ratio of
their p99 from publish to receipt. With nobody to take messages over they are written, fifty commits a second. So there is a
third run in between, in which the upstream refuses at once: what is written is the same, and the black hole alone makes the
difference. PUBACKs are another matter, and reported beside it: they wait for the disk then.
"""

import os
import random
import shutil
import struct
import subprocess
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

from benchmarks import process, wire
from benchmarks.brokers import BrokerUnavailable, RunningBroker, mosquitto_program
from benchmarks.figures import Figures, latencies_ms, medians
from benchmarks.links import Address, Link, Loop
from benchmarks.wire import BrokerMisbehaved

SENSORS = 200
MESSAGES_PER_SECOND = 1_000
PAYLOAD_BYTES = 100
PATIENCE_SECONDS = 1.5
"""How long the bridge waits for each answer of the upstream."""
SETTLE_SECONDS = 1.5
"""The bridge has found its upstream; or it has noticed that nobody answers any more."""
STATES = ("there", "refused", "gone")
NOBODY: Address = ("127.0.0.1", 1)
HERE, THERE = "198.51.100.1", "198.51.100.2"  # a network for documentation [RFC 5737]
PORT = 1883
START_SECONDS = 10.0
_HEAD = struct.Struct(">IQ")  # the message's number, and when it was sent


class Upstream:
    """A mosquitto in a network namespace of its own, from which packets come until `vanish`."""

    def __init__(self, namespace: str) -> None:
        self.address: Address = (THERE, PORT)
        self._namespace = namespace

    def vanish(self) -> None:
        """From now on whatever it sends, a refusal too, is dropped."""
        _ip("-n", self._namespace, "route", "add", "blackhole", f"{HERE}/32")

    def return_(self) -> None:
        """Let its packets through again."""
        _ip("-n", self._namespace, "route", "del", "blackhole", f"{HERE}/32")


@contextmanager
def upstream(directory: Path) -> Iterator[Upstream]:
    """A mosquitto that can be reached from here, and only from here. BrokerUnavailable where that cannot be made."""
    if os.geteuid() != 0 or shutil.which("ip") is None:
        raise BrokerUnavailable("a network namespace takes root and ip (Debian: apt-get install iproute2)")
    namespace = f"blackhole-{os.getpid()}"
    _ip("netns", "add", namespace)
    try:
        with _link(namespace), _mosquitto(namespace, directory):
            _wait_until_reachable()
            yield Upstream(namespace)
    finally:
        _ip("netns", "del", namespace)


@contextmanager
def _link(namespace: str) -> Iterator[None]:
    link = f"bh{os.getpid()}"
    _ip("link", "add", link, "type", "veth", "peer", "name", "gate", "netns", namespace)
    try:
        _ip("address", "add", f"{HERE}/30", "dev", link)
        _ip("link", "set", link, "up")
        _ip("-n", namespace, "address", "add", f"{THERE}/30", "dev", "gate")
        _ip("-n", namespace, "link", "set", "gate", "up")
        yield
    finally:
        _ip("link", "del", link)  # with the namespace it would go some time later


@contextmanager
def _mosquitto(namespace: str, directory: Path) -> Iterator[None]:
    config = directory / "upstream.conf"
    config.write_text(
        f"listener {PORT} {THERE}\nallow_anonymous true\npersistence false\nlog_type error\nuser root\n"
    )
    command = ["/usr/bin/env", "ip", "netns", "exec", namespace, mosquitto_program(), "-c", str(config)]
    with subprocess.Popen(command, stderr=subprocess.DEVNULL) as mosquitto:
        try:
            yield
        finally:
            mosquitto.kill()


def _ip(*arguments: str) -> None:
    done = subprocess.run(["/usr/bin/env", "ip", *arguments], capture_output=True, text=True)
    if done.returncode:
        raise BrokerUnavailable(f"ip {' '.join(arguments)}: {done.stderr.strip()}")


def _wait_until_reachable() -> None:
    deadline = time.monotonic() + START_SECONDS
    while True:
        try:
            Link((THERE, PORT), "ready", wire.MQTT_3_1_1).close()
            return
        except (OSError, BrokerMisbehaved) as error:
            if time.monotonic() > deadline:
                raise BrokerUnavailable(f"the upstream does not answer: {error}") from error
            time.sleep(0.02)


def measure(
    broker: RunningBroker, version: int, seconds: float, vanish: Callable[[], None] | None
) -> Figures:
    """Run for `seconds`, after `vanish` where there is one. Raises unless every message comes once and in order."""
    room = Room(broker, version)
    try:
        room.run_for(SETTLE_SECONDS)
        if vanish is not None:
            vanish()
            room.run_for(
                2 * PATIENCE_SECONDS
            )  # the acknowledgements have not come, the next connection has been tried
        room.receipts.clear()
        room.pubacks.clear()
        meter = process.Meter(broker.pid)
        room.run_for(seconds)
        interval = meter.stop()
        room.finish()
    finally:
        room.loop.close()
    return {
        **latencies_ms(room.receipts),
        **latencies_ms(room.pubacks, "puback_"),
        "messages": room.sent,
        "others_busy_percent": interval.others_cpu_seconds / interval.seconds * 100,
    }


def compare(rounds: list[dict[str, Figures]]) -> Figures:
    """Medians over rounds of the three states, and those of the ratios within a round."""
    ratios = [
        {
            "p99_ratio": one["gone"]["p99_ms"] / one["there"]["p99_ms"],
            "refused_p99_ratio": one["refused"]["p99_ms"] / one["there"]["p99_ms"],
            "p99_ratio_to_refused": one["gone"]["p99_ms"] / one["refused"]["p99_ms"],
        }
        for one in rounds
    ]
    states = {
        f"{state}_{name}": value
        for state in STATES
        for name, value in medians([one[state] for one in rounds]).items()
    }
    return {**states, **medians(ratios), "rounds": len(rounds)}


class Room:
    """The sensors and their subscriber. `receipts`, `pubacks`: nanoseconds since the message was sent."""

    def __init__(self, broker: RunningBroker, version: int) -> None:
        self.loop = Loop()
        self.sent = self.seen = self.acknowledged = 0
        self.receipts: list[int] = []
        self.pubacks: list[int] = []
        self._version = version
        self._filling = random.Random(5).randbytes(PAYLOAD_BYTES - _HEAD.size)
        self._next = list(range(SENSORS))
        self._sent_at: list[list[int]] = []
        self._sensors: list[Link] = []
        for number in range(SENSORS):
            sensor = Link(broker.address, f"sensor-{number}", version)
            waiting: list[int] = []
            self._sensors.append(sensor)
            self._sent_at.append(waiting)
            self.loop.add(sensor, lambda data, waiting=waiting: self._on_puback(data, waiting))  # type: ignore[misc]
        self._subscriber = Link(broker.address, "subscriber", version)
        self._subscriber.subscribe(["room/#"], 1)
        self.loop.add(self._subscriber, self._on_delivery)

    def run_for(self, seconds: float) -> None:
        began, sent = time.monotonic(), self.sent
        while (elapsed := time.monotonic() - began) < seconds:
            while self.sent - sent < elapsed * MESSAGES_PER_SECOND:
                self._publish()
            self.loop.turn(0.001)

    def finish(self) -> None:
        """Wait for the last acknowledgement and the last delivery."""
        self.loop.turn_until(
            lambda: self.acknowledged >= self.sent and self.seen >= self.sent, "the last message"
        )

    def _publish(self) -> None:
        number = self.sent % SENSORS
        packet_id = self.sent // SENSORS % 65_535 + 1
        now = time.monotonic_ns()
        payload = _HEAD.pack(self.sent, now) + self._filling
        self._sent_at[number].append(now)
        self._sensors[number].send(wire.publish(f"room/{number:03d}", payload, 1, self._version, packet_id))
        self.sent += 1

    def _on_puback(self, data: bytes, waiting: list[int]) -> None:
        now = time.monotonic_ns()
        found, used = wire.runs(data)
        if used < len(data):
            raise BrokerMisbehaved("part of a PUBACK to a client that has few messages in flight")
        for _ in range(sum(count for _, _, count in found)):
            self.pubacks.append(now - waiting.pop(0))
            self.acknowledged += 1

    def _on_delivery(self, data: bytes) -> None:
        now = time.monotonic_ns()
        found, used = wire.runs(data)
        for run in found:
            start, size, count = run
            for at in range(start + size - PAYLOAD_BYTES, start + size * count, size):
                number, sent_at = _HEAD.unpack_from(data, at)
                if number != self._next[number % SENSORS]:
                    raise BrokerMisbehaved(f"a message lost, repeated or out of order: {number}")
                self._next[number % SENSORS] += SENSORS
                self.seen += 1
                self.receipts.append(now - sent_at)
            self._subscriber.send(wire.pubacks_for(data, run, len("room/000")))
        if used < len(data):
            self._subscriber.keep(data[used:])
