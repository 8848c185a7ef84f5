"""A backlog in the bridge's outbox goes up: plain to mosquitto, and in envelopes through an ingester to a file.

The upstream is away while the broker takes the messages: JSON readings cut or filled to 100 bytes, of 100 devices with a
topic each, at QoS 1. Then the broker starts anew on a copy of that store, with the upstream there. Plain counts from the
connection to the last PUBACK; with envelopes to the last line in the file, which has every message once.
"""

import gc
import json
import shutil
import time
from pathlib import Path

from benchmarks import process, readings, uplink, wire
from benchmarks.brokers import RunningBroker
from benchmarks.figures import Figures
from benchmarks.links import Address, Link, Loop

PAYLOAD_BYTES = 100
WINDOW = 1_000
_RING = 10_000
_DONE_SECONDS = 300.0


PACKED = "[bridges.envelopes]\nenabled = true"


def bridge(upstream: Address, more: str) -> str:
    """The section of the bridge; `more` at its end."""
    return (
        f'[[bridges]]\nname = "drain"\nclient_id = "drain"\nurls = ["mqtt://{upstream[0]}:{upstream[1]}"]\n'
        f'out = [{{ filter = "#" }}]\nbackoff_max_seconds = 1\n{more}'
    )


def fill(broker: RunningBroker, version: int, messages: int) -> None:
    """Publish `messages` to a broker whose upstream is away, until all are acknowledged."""
    loop = Loop()
    link = Link(broker.address, "drain-publisher", version)
    ring = _packets(version)
    sent = acknowledged = 0

    def on_data(data: bytes) -> None:
        nonlocal acknowledged
        found, used = wire.runs(data)
        acknowledged += sum(count for _, _, count in found)
        if used < len(data):
            link.keep(data[used:])

    def all_acknowledged() -> bool:
        nonlocal sent
        while sent < messages and sent - acknowledged <= WINDOW - 250:
            count = min(250, messages - sent)
            at = sent % _RING
            link.send(b"".join(ring[at : at + count]))
            sent += count
        return acknowledged >= messages

    loop.add(link, on_data)
    gc.disable()
    try:
        loop.turn_until(all_acknowledged, "PUBACKs")
    finally:
        gc.enable()
        loop.close()


def _packets(version: int) -> list[bytes]:
    """Readings as they are published, `_RING` of them, with the packet identifiers from 1."""
    payloads = readings.dealt(readings.recorded_payloads(), _RING)
    return [
        wire.publish(uplink.topic_of(at % uplink.DEVICES), _sized(payload), 1, version, at + 1)
        for at, payload in enumerate(payloads)
    ]


def _sized(payload: bytes) -> bytes:
    """A reading without what would make it longer, and as long as the others."""
    reading = json.loads(payload)
    names = {"at": "recorded_at", "temperature": "temperature_celsius", "humidity": "humidity_percent"}
    names |= {"light": "light_lux", "co2": "co2_ppm"}
    short = json.dumps({name: reading[of] for name, of in names.items()}, separators=(",", ":")).encode()
    return short[:-1].ljust(PAYLOAD_BYTES - 1) + b"}"


def plain(broker: RunningBroker, data_dir: Path, messages: int) -> Figures:
    """The broker drains; from its connection until nothing waits."""
    began = _connected(data_dir)
    meter = process.Meter(broker.pid)
    uplink.wait_until(lambda: _waiting(data_dir) == 0, "the drain", _DONE_SECONDS)
    seconds = time.monotonic() - began
    interval = meter.stop()
    return {
        "plain_messages_per_second": messages / seconds,
        "plain_cpu_us_per_message": interval.broker_cpu_seconds / messages * 1e6,
        "plain_peak_mb": process.memory(broker.pid).peak_mb,
    }


def packed(broker: RunningBroker, data_dir: Path, ingester: int, output: Path, messages: int) -> Figures:
    """The same in envelopes, until the file has it all."""
    began = _connected(data_dir)
    meter, ingester_meter = process.Meter(broker.pid), process.Meter(ingester)
    uplink.wait_until(lambda: _waiting(data_dir) == 0, "the drain", _DONE_SECONDS)
    size, still = -1, time.monotonic()
    while time.monotonic() - still < 1.0:
        now = uplink.written_bytes(output)
        if now != size:
            size, still = now, time.monotonic()
        time.sleep(0.005)
    interval, ingested = meter.stop(), ingester_meter.stop()
    seconds = still - began
    numbers = uplink.ingested(output)
    uplink.require_each_once(numbers.get("drain", []), messages)
    [bridge] = uplink.bridges_of(data_dir)
    envelopes = bridge["envelopes"]
    assert isinstance(envelopes, dict)
    return {
        "packed_messages_per_second": messages / seconds,
        "packed_cpu_us_per_message": interval.broker_cpu_seconds / messages * 1e6,
        "packed_peak_mb": process.memory(broker.pid).peak_mb,
        "ingester_cpu_us_per_message": ingested.broker_cpu_seconds / messages * 1e6,
        "ingester_peak_mb": process.memory(ingester).peak_mb,
        "messages_in_envelopes": envelopes["messages"],
        "envelopes": envelopes["sent"],
    }


def _connected(data_dir: Path) -> float:
    """Wait until the bridge is connected; when that was."""
    uplink.wait_until(lambda: bool(uplink.bridges_of(data_dir)[0]["connected"]), "that the bridge connects")
    return time.monotonic()


def _waiting(data_dir: Path) -> int:
    depth = uplink.bridges_of(data_dir)[0]["depth"]
    assert isinstance(depth, int)
    return depth


def copy_of(data_dir: Path, name: str) -> Path:
    """The store, for one more start."""
    copy = data_dir.with_name(name)
    shutil.copytree(data_dir, copy, ignore=shutil.ignore_patterns("*.sock", "*.lock"))
    return copy
