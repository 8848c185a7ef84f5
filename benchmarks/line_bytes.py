"""What crosses the line: the bytes of plain MQTT and of envelopes, TLS included, for the same readings at the same time.

A hundred devices replay the recorded room log, a reading a second each as JSON to a topic of their own, at QoS 1. One
broker has a bridge for each way to send them, all to one mosquitto over TLS, each through a relay that counts what its
socket carries in both directions, from the first reading to the last acknowledgement. An ingester takes the envelopes and
has to write each reading once. It runs in real time: the delay of the envelopes is a second.
"""

import select
import socket
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import zstandard

from benchmarks import readings, uplink, wire
from benchmarks.brokers import RunningBroker
from benchmarks.figures import Figures
from benchmarks.links import Address, Link, Loop
from benchmarks.wire import BrokerMisbehaved

SETTLE_SECONDS = 2.0
DICTIONARY_BYTES = 16_384
WAYS = {
    "bare": "origin = false\nmax_hops = 0\n",
    "plain": "",
    "packed": "[bridges.envelopes]\nenabled = true\ndelay_ms = 1000\n",
    "trained": '[bridges.envelopes]\nenabled = true\ndelay_ms = 1000\ndictionary = "{dictionary}"\n',
}
"""By name, what its bridge has in its section."""
_CHUNK = 1 << 16


class Relay:
    """A TCP port before the upstream. `carried`: bytes in both directions, of all its connections."""

    def __init__(self, upstream: Address) -> None:
        self.carried = 0
        self._upstream = upstream
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.address: Address = self._listener.getsockname()
        self._pairs: dict[socket.socket, socket.socket] = {}
        self._stop, self._stopped = socket.socketpair()
        self._thread = threading.Thread(target=self._run, daemon=True)
        self._thread.start()

    def _run(self) -> None:
        while True:
            readable, _, _ = select.select([self._stopped, self._listener, *self._pairs], [], [])
            if self._stopped in readable:
                return
            for one in readable:
                if one is self._listener:
                    self._accept()
                elif one in self._pairs:
                    self._carry(one)

    def _accept(self) -> None:
        near = self._listener.accept()[0]
        far = socket.create_connection(self._upstream)
        for one in (near, far):
            one.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self._pairs |= {near: far, far: near}

    def _carry(self, source: socket.socket) -> None:
        other = self._pairs[source]
        try:
            data = source.recv(_CHUNK)
            other.sendall(data)
        except OSError:
            data = b""
        self.carried += len(data)
        if not data:
            for one in (source, other):
                del self._pairs[one]
                one.close()

    def close(self) -> None:
        self._stop.send(b"x")
        self._thread.join(10)
        for one in (self._listener, self._stop, self._stopped, *self._pairs):
            one.close()


@contextmanager
def relays(upstream: Address) -> Iterator[dict[str, Relay]]:
    """One for each way."""
    found = {way: Relay(upstream) for way in WAYS}
    try:
        yield found
    finally:
        for relay in found.values():
            relay.close()


def bridges(found: dict[str, Relay], ca: Path, dictionary: Path) -> str:
    """The sections of all bridges."""
    return "\n".join(
        f'[[bridges]]\nname = "{way}"\nclient_id = "{way}"\nurls = ["mqtts://127.0.0.1:{found[way].address[1]}"]\n'
        f'ca = "{ca}"\nout = [{{ filter = "#", remote_prefix = "{way}/" }}]\n'
        + more.format(dictionary=dictionary)
        for way, more in WAYS.items()
    )


def train_dictionary(path: Path) -> None:
    """A dictionary made of readings as they are published: of another part of the log than is replayed first."""
    payloads = readings.recorded_payloads()
    samples: list[bytes | bytearray | memoryview[int]] = list(payloads[len(payloads) // 2 :])
    path.write_bytes(zstandard.train_dictionary(DICTIONARY_BYTES, samples).as_bytes())


def measure(
    broker: RunningBroker, data_dir: Path, output: Path, found: dict[str, Relay], version: int, seconds: int
) -> Figures:
    """Replay for `seconds`. Raises unless every reading is acknowledged, and those in envelopes were ingested once each."""
    _all(data_dir, lambda bridge: bool(bridge["connected"]), "that all bridges connect")
    _all(data_dir, _has_lease, "that the ingester is heard of")
    time.sleep(SETTLE_SECONDS)
    before = {way: relay.carried for way, relay in found.items()}
    count = Replay(broker, version).run_for(seconds)
    _all(data_dir, lambda bridge: bridge["depth"] == 0, "the last acknowledgement")
    carried = {way: relay.carried - before[way] for way, relay in found.items()}
    for way in ("packed", "trained"):
        uplink.wait_until(
            lambda way=way: len(uplink.ingested(output).get(way, ())) >= count,  # type: ignore[misc]
            "the last reading in the ingester's file",
        )
        uplink.require_each_once(uplink.ingested(output)[way], count)
    figures = {f"{way}_bytes_per_reading": each / count for way, each in carried.items()}
    ratios = {f"{way}_percent": 100 * carried[way] / carried["bare"] for way in WAYS}
    return {"readings": count, **figures, **ratios}


def _all(data_dir: Path, condition: object, what: str) -> None:
    assert callable(condition)
    uplink.wait_until(lambda: all(condition(bridge) for bridge in uplink.bridges_of(data_dir)), what)


def _has_lease(bridge: dict[str, object]) -> bool:
    envelopes = bridge["envelopes"]
    return envelopes is None or (isinstance(envelopes, dict) and envelopes["lease"] == "held")


class Replay:
    """The devices: each has a part of the log to begin with, so that no two are alike."""

    def __init__(self, broker: RunningBroker, version: int) -> None:
        self._version = version
        self._payloads = readings.recorded_payloads()
        self._loop = Loop()
        self._links = [
            Link(broker.address, f"sensor-{device:03d}", version) for device in range(uplink.DEVICES)
        ]
        self._acknowledged = 0
        for link in self._links:
            self._loop.add(link, self._on_puback)

    def run_for(self, seconds: int) -> int:
        """Publish, evenly spread, and wait for the last PUBACK; how many readings that were."""
        wanted, sent, began = seconds * uplink.DEVICES, 0, time.monotonic()
        try:
            while sent < wanted:
                due = min(wanted, int((time.monotonic() - began) * uplink.DEVICES) + 1)
                for number in range(sent, due):
                    self._publish(number)
                sent = due
                self._loop.turn(0.005)
            self._loop.turn_until(lambda: self._acknowledged >= wanted, "the last PUBACK")
        finally:
            self._loop.close()
        return wanted

    def _publish(self, number: int) -> None:
        device, turn = number % uplink.DEVICES, number // uplink.DEVICES
        part = len(self._payloads) // uplink.DEVICES
        payload = self._payloads[(device * part + turn) % len(self._payloads)]
        packet = wire.publish(uplink.topic_of(device), payload, 1, self._version, turn % 65_535 + 1)
        self._links[device].send(packet)

    def _on_puback(self, data: bytes) -> None:
        found, used = wire.runs(data)
        self._acknowledged += sum(count for _, _, count in found)
        if used < len(data):
            raise BrokerMisbehaved("part of a PUBACK to a device that has one message in flight")
