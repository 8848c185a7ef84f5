"""A durable publisher beside a flood: how long does its PUBACK take while twenty connections send all they can?

The flood is QoS 0, 64 B payloads, to topics without subscribers, as fast as the broker reads. The victim publishes at
QoS 1 with one message in flight to a topic that an offline persistent session subscribed; afterwards that session is
drained, and must hold every acknowledged message.
"""

import gc
import random
import select
import socket
import time

from benchmarks import process, wire
from benchmarks.brokers import RunningBroker
from benchmarks.figures import Figures, percentile
from benchmarks.links import Link, Loop
from benchmarks.offline import Ledger, NumberedPublisher, drain_session, make_session, require_empty
from benchmarks.wire import BrokerMisbehaved

CONNECTIONS = 20
FLOOD_PAYLOAD_BYTES = 64
FLOOD_BLOCK_PACKETS = 800  # about 60 KB a write
VICTIM_PAYLOAD_BYTES = 200
VICTIM_INTERVAL_SECONDS = 0.01
HEAD_START_SECONDS = 1.0  # the flood before the first victim message: buffers are full by then
TOPIC = "bench/durable"
SUBSCRIBER = "durable-subscriber"


class Flood:
    """Connections that always have something to send."""

    def __init__(self, broker: RunningBroker, version: int) -> None:
        self.sent_bytes = 0
        self._links: dict[int, Link] = {}
        self._offsets: dict[int, int] = {}
        payload = random.Random(2).randbytes(FLOOD_PAYLOAD_BYTES)
        packet = wire.publish("flood/000", payload, 0, version, 0)
        self.packet_bytes = len(packet)
        self._block = memoryview(packet * FLOOD_BLOCK_PACKETS)
        for number in range(CONNECTIONS):
            link = Link(broker.address, f"flood-{number}", version)
            link.socket.setblocking(False)
            self._links[link.fd] = link
            self._offsets[link.fd] = 0

    def register(self, epoll: select.epoll) -> None:
        for fd in self._links:
            epoll.register(fd, select.EPOLLOUT)

    def owns(self, fd: int) -> bool:
        return fd in self._links

    def send(self, fd: int) -> None:
        """One write, wherever in a packet the last one ended."""
        offset = self._offsets[fd]
        try:
            sent = self._links[fd].socket.send(self._block[offset:])
        except BlockingIOError:
            return
        except ConnectionError as error:
            raise BrokerMisbehaved(f"the broker closed a flooding connection ({error})") from error
        self.sent_bytes += sent
        self._offsets[fd] = (offset + sent) % len(self._block)

    def stop(self, epoll: select.epoll) -> None:
        """Cut the connections: what their sockets still hold is lost, as QoS 0 may be."""
        for fd, link in self._links.items():
            epoll.unregister(fd)
            link.socket.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, b"\x01\x00\x00\x00\x00\x00\x00\x00")
            link.close(politely=False)
        self._links.clear()


class FloodLoop(Loop):
    """A loop that also keeps a flood going."""

    def __init__(self, flood: Flood) -> None:
        super().__init__()
        self.flood = flood
        flood.register(self.epoll)

    def turn(self, timeout_seconds: float) -> int:
        events = self.epoll.poll(timeout_seconds, 1024)
        for fd, event in events:
            if self.flood.owns(fd):
                self.flood.send(fd)
            else:
                self.serve(fd, event)
        return len(events)


def measure(broker: RunningBroker, version: int, seconds: float) -> Figures:
    """Flood a fresh broker for `seconds`. Raises if an acknowledged message is lost, repeated or out of order."""
    make_session(broker.address, SUBSCRIBER, TOPIC, version)
    link = Link(broker.address, "victim", version)
    loop = FloodLoop(Flood(broker, version))
    victim = Victim(link, loop)
    gc.collect()
    gc.disable()
    try:
        victim.wait(HEAD_START_SECONDS)
        sent_before = loop.flood.sent_bytes
        meter = process.Meter(broker.pid)
        victim.publish_for(seconds)
        interval = meter.stop()
        flooded = (loop.flood.sent_bytes - sent_before) // loop.flood.packet_bytes
        memory = process.memory(broker.pid)
        loop.flood.stop(loop.epoll)
        victim.finish()
    finally:
        gc.enable()
        loop.close()
    ledger = Ledger(victim.publisher.acknowledged)
    session = (broker.address, SUBSCRIBER, TOPIC, VICTIM_PAYLOAD_BYTES, version, ledger)
    drain_session(*session)
    require_empty(*session)
    ledger.require_exact()
    return {
        "puback_p50_ms": percentile(victim.latencies_ms, 50),
        "puback_p99_ms": percentile(victim.latencies_ms, 99),
        "puback_max_ms": percentile(victim.latencies_ms, 100),
        "samples": len(victim.latencies_ms),
        "flood_messages_per_second": flooded / interval.seconds,
        "broker_busy_percent": interval.broker_cpu_seconds / interval.seconds * 100,
        "generator_busy_percent": interval.generator_cpu_seconds / interval.seconds * 100,
        "others_busy_percent": interval.others_cpu_seconds / interval.seconds * 100,
        "resident_mb": memory.resident_mb,
        "peak_mb": memory.peak_mb,
    }


class Victim:
    """Publishes at QoS 1, one message in flight, at most one per interval; times each PUBACK."""

    def __init__(self, link: Link, loop: Loop) -> None:
        self.latencies_ms: list[float] = []
        self.publisher = NumberedPublisher(link, TOPIC, VICTIM_PAYLOAD_BYTES, 1)
        self._loop = loop
        self._sent_at = 0.0
        self._waiting = False
        loop.add(link, self._on_data)

    def _on_data(self, data: bytes) -> None:
        self.publisher.on_data(data)
        if self._waiting and self.publisher.acknowledged == self.publisher.sent:
            self.latencies_ms.append((time.monotonic() - self._sent_at) * 1e3)
            self._waiting = False

    def wait(self, seconds: float) -> None:
        deadline = time.monotonic() + seconds
        while (left := deadline - time.monotonic()) > 0:
            self._loop.turn(left)

    def publish_for(self, seconds: float) -> None:
        now = time.monotonic()
        deadline, due = now + seconds, now
        while now < deadline:
            if not self._waiting and now >= due:
                self._waiting, self._sent_at = True, now
                self.publisher.send_up_to(self.publisher.sent + 1)
                due = max(due + VICTIM_INTERVAL_SECONDS, now)
            self._loop.turn(max(0.001, min(due, deadline) - now))
            now = time.monotonic()

    def finish(self) -> None:
        self._loop.turn_until(lambda: not self._waiting, "the PUBACK of the last message")
