"""Live messages between connected clients with clean sessions: five patterns, at QoS 0 and QoS 1, plain or over TLS.

A message is one delivery: with a hundred subscribers, one PUBLISH counts a hundred.
"""

import gc
import ssl
from dataclasses import dataclass

from benchmarks import process
from benchmarks.brokers import RunningBroker
from benchmarks.figures import Figures, latencies_ms
from benchmarks.links import Link, TlsLink
from benchmarks.load import ClosedLoop, Collector, Publisher, Receiver, Ring, Shape

PAYLOAD_BYTES = 64
WARM_UP_SECONDS = 0.5


@dataclass(frozen=True)
class Pattern:
    """Who sends to whom. `subscribers` is per publisher, or one for all where `collect` is set."""

    name: str
    title: str
    publishers: int
    subscribers: int
    window: int
    collect: bool = False


PATTERNS = (
    Pattern("1to1", "1 publisher → 1 subscriber, W 200", 1, 1, 200),
    Pattern("200pairs", "200 pairs, W 1 each", 200, 1, 1),
    Pattern("200to1", "200 publishers → 1 subscriber, W 1 each", 200, 1, 1, collect=True),
    Pattern("200to1-w10", "200 publishers → 1 subscriber, W 10 each", 200, 1, 10, collect=True),
    Pattern("1to100", "1 publisher → 100 subscribers, W 10", 1, 100, 10),
)


@dataclass(frozen=True)
class Entrance:
    """Where and how clients come in: over TLS where there is a context that trusts the broker's certificate."""

    broker: RunningBroker
    version: int
    tls: ssl.SSLContext | None = None

    def open(self, client_id: str) -> Link:
        """One connection with a clean session."""
        if self.tls is None:
            return Link(self.broker.address, client_id, self.version)
        return TlsLink(self.broker.tls_address, client_id, self.version, tls=self.tls)


def measure(entrance: Entrance, pattern: Pattern, qos: int, seconds: float) -> Figures:
    """Run the pattern on a fresh broker: warm up, measure for `seconds`, then account for every message."""
    broker = entrance.broker
    load = ClosedLoop()
    gc.collect()
    gc.disable()  # the generator's own pauses are not the broker's latency
    try:
        _build(load, entrance, pattern, qos)
        load.start()
        load.run_for(WARM_UP_SECONDS)
        load.samples.clear()
        before = load.seen()
        meter = process.Meter(broker.pid)
        load.run_for(seconds)
        interval = meter.stop()
        messages = load.seen() - before
        samples = list(load.samples)
        memory = process.memory(broker.pid)
        load.drain()
    finally:
        gc.enable()
        load.close()
    return {
        **interval.figures(messages),
        **latencies_ms(samples),
        "samples": len(samples),
        "resident_mb": memory.resident_mb,
        "peak_mb": memory.peak_mb,
        "window": load.publishers[0].window,
    }


def _build(load: ClosedLoop, entrance: Entrance, pattern: Pattern, qos: int) -> None:
    topics = [f"bench/{number:03d}" for number in range(pattern.publishers)]
    shape = Shape(PAYLOAD_BYTES, len(topics[0]), qos, pattern.window)
    for number, topic in enumerate(topics):
        ring = Ring(topic, number, PAYLOAD_BYTES, qos, entrance.version, shape.slots)
        link = entrance.open(f"publisher-{number}")
        load.publishers.append(Publisher(link, ring, pattern.window, qos, load.due))
    if pattern.collect:
        link = entrance.open("subscriber")
        link.subscribe(["bench/+"], qos)
        load.subscribers.append(Collector(link, shape, load.publishers, load.samples))
        return
    for publisher, topic in zip(load.publishers, topics, strict=True):
        for number in range(pattern.subscribers):
            link = entrance.open(f"subscriber-{topic[-3:]}-{number}")
            link.subscribe([topic], qos)
            load.subscribers.append(Receiver(link, shape, publisher, load.samples))
