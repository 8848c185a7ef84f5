"""The closed loop as a judge: a broker that loses, repeats or reorders a message is caught, a correct one is not.

The broker is a small relay with a fault to order: no real broker misbehaves when asked.
"""

import contextlib
import os
import socket
import threading
from collections.abc import Callable, Iterator
from dataclasses import replace

import pytest

from benchmarks import links, live, load, wire
from benchmarks.brokers import RunningBroker
from benchmarks.live import PATTERNS, Pattern
from benchmarks.wire import BrokerMisbehaved

Fault = Callable[[int, bytes], list[bytes]]  # what a subscriber gets instead of its nth message
StartRelay = Callable[..., RunningBroker]

SMALL = tuple(
    replace(pattern, publishers=min(pattern.publishers, 5), subscribers=min(pattern.subscribers, 5))
    for pattern in PATTERNS
)


class Relay:
    """Forwards each PUBLISH to all who subscribed to its topic, or to everything below `bench/`."""

    def __init__(self, fault: Fault, acknowledges: bool = True) -> None:
        self.acknowledges = acknowledges
        self.listener = socket.create_server(("127.0.0.1", 0))
        self.subscribers: dict[bytes, list[socket.socket]] = {}
        self.fault = fault
        self.count = 0
        self.lock = threading.Lock()
        self.threads = [threading.Thread(target=self.accept)]
        self.threads[0].start()

    def accept(self) -> None:
        with contextlib.suppress(OSError):
            while True:
                client, _ = self.listener.accept()
                self.threads.append(threading.Thread(target=self.serve, args=(client,)))
                self.threads[-1].start()

    def serve(self, client: socket.socket) -> None:
        rest = b""
        with contextlib.suppress(OSError), client:
            while data := client.recv(65_536):
                rest += data
                while (size := wire.first_packet_size(rest)) is not None:
                    self.handle(client, rest[:size])
                    rest = rest[size:]

    def handle(self, client: socket.socket, packet: bytes) -> None:
        kind = packet[0] & 0xF0
        if kind == 0x10:
            client.sendall(b"\x20\x02\x00\x00")
        elif kind == 0x80:
            self.subscribers.setdefault(packet[6:-1], []).append(client)
            client.sendall(b"\x90\x03" + packet[2:4] + packet[-1:])
        elif kind == wire.PUBLISH:
            self.forward(client, packet)

    def forward(self, client: socket.socket, packet: bytes) -> None:
        topic = packet[4 : 4 + packet[3]]
        with self.lock:
            for subscriber in self.subscribers.get(topic, []) + self.subscribers.get(b"bench/+", []):
                self.count += 1
                for forwarded in self.fault(self.count, packet):
                    subscriber.sendall(forwarded)
        if packet[0] & 0x06 and self.acknowledges:
            client.sendall(b"\x40\x02" + packet[4 + packet[3] : 6 + packet[3]])

    def close(self) -> None:
        self.listener.shutdown(socket.SHUT_RDWR)
        self.listener.close()
        for thread in self.threads:
            thread.join(10)


@pytest.fixture
def relay() -> Iterator[StartRelay]:
    started: list[Relay] = []

    def start(fault: Fault, acknowledges: bool = True) -> RunningBroker:
        started.append(Relay(fault, acknowledges))
        return RunningBroker(os.getpid(), started[-1].listener.getsockname(), ("127.0.0.1", 0))

    yield start
    for one in started:
        one.close()


def correct(count: int, packet: bytes) -> list[bytes]:
    return [packet]


def lose_one(count: int, packet: bytes) -> list[bytes]:
    return [] if count == 100 else [packet]


def repeat_one(count: int, packet: bytes) -> list[bytes]:
    return [packet, packet] if count == 100 else [packet]


def swap_two() -> Fault:
    held: list[bytes] = []

    def fault(count: int, packet: bytes) -> list[bytes]:
        if count == 100:
            held.append(packet)
            return []
        return [packet, held.pop()] if held else [packet]

    return fault


@pytest.fixture(autouse=True)
def _impatient(monkeypatch: pytest.MonkeyPatch) -> None:
    """Silence is proof sooner than in a real run."""
    monkeypatch.setattr(links, "SILENCE_TIMEOUT_SECONDS", 0.5)
    monkeypatch.setattr(load, "SILENCE_TIMEOUT_SECONDS", 0.5)
    monkeypatch.setattr(live, "WARM_UP_SECONDS", 0.05)


@pytest.mark.parametrize("qos", [0, 1])
@pytest.mark.parametrize("pattern", SMALL, ids=lambda pattern: pattern.name)
def test_a_correct_broker_passes(relay: StartRelay, pattern: Pattern, qos: int) -> None:
    figures = live.measure(live.Entrance(relay(correct), wire.MQTT_3_1_1), pattern, qos, 0.3)
    assert figures["messages_per_second"] > 100
    assert 0 < figures["p50_ms"] <= figures["p99_ms"] < 300
    assert figures["samples"] > 0


@pytest.mark.parametrize("qos", [0, 1])
@pytest.mark.parametrize("pattern", SMALL, ids=lambda pattern: pattern.name)
@pytest.mark.parametrize("fault", [lose_one, repeat_one], ids=["lost", "repeated"])
def test_a_lost_or_repeated_message_is_found(
    relay: StartRelay, pattern: Pattern, qos: int, fault: Fault
) -> None:
    with pytest.raises(BrokerMisbehaved):
        live.measure(live.Entrance(relay(fault), wire.MQTT_3_1_1), pattern, qos, 0.8)


@pytest.mark.parametrize("qos", [0, 1])
def test_messages_out_of_order_are_found(relay: StartRelay, qos: int) -> None:
    with pytest.raises(BrokerMisbehaved, match="out of order"):
        live.measure(live.Entrance(relay(swap_two()), wire.MQTT_3_1_1), SMALL[0], qos, 0.8)


@pytest.mark.parametrize("pattern", SMALL, ids=lambda pattern: pattern.name)
def test_a_broker_that_acknowledges_nothing_is_found(relay: StartRelay, pattern: Pattern) -> None:
    with pytest.raises(BrokerMisbehaved):
        live.measure(live.Entrance(relay(correct, acknowledges=False), wire.MQTT_3_1_1), pattern, 1, 0.3)
