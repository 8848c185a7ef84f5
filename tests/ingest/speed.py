"""How fast the ingester is, as a script: `python -m tests.ingest.speed`. Not a test: it measures and asserts nothing.

Envelopes of 1,000 readings of 100 devices, JSON, a topic each; first through the worker alone in this process, then
through a real mosquitto into an ingester in a process of its own, with the memory that took.
"""

from __future__ import annotations

import asyncio
import json
import os
import subprocess
import sys
import tempfile
import time
from functools import partial
from pathlib import Path
from typing import Final

import psutil

from bridge.envelope import Enclosed, Envelope, EnvelopeWriter
from bridge.ingest.config import BrokerConfig, FileConfig, IngestConfig
from bridge.ingest.database import open_database
from bridge.ingest.file_sink import FileSink
from bridge.ingest.worker import Worker
from edge_broker.core.message import build_message
from tests.bridge.real import Mosquitto, Person, until

_READINGS: Final = 1_000
_GATEWAYS: Final = 20
_ENVELOPES: Final = 2_000


def envelope_of(gateway: int, number: int) -> Envelope:
    """The `number`th envelope of a gateway."""
    first = number * _READINGS + 1
    messages = [
        Enclosed(
            at,
            f"site/{gateway}/room/{at % 100}/climate",
            json.dumps(
                {
                    "temperature": 20 + at % 37 / 10,
                    "humidity": 40 + at % 91 / 10,
                    "co2": 400 + at % 613,
                    "at": 1.76e9 + at,
                }
            ).encode(),
        )
        for at in range(first, first + _READINGS)
    ]
    return Envelope(f"gateway-{gateway}", "up", 1, messages)


def packed(count: int) -> list[tuple[str, bytes]]:
    """Envelopes of all gateways in turn, each with its topic."""
    writer = EnvelopeWriter()
    return [
        (
            f"edge/gateway-{at % _GATEWAYS}/envelopes",
            writer.pack(envelope_of(at % _GATEWAYS, at // _GATEWAYS)),
        )
        for at in range(count)
    ]


async def in_process(envelopes: list[tuple[str, bytes]], form: str, folder: Path) -> None:
    """The worker by itself, 50 envelopes a batch."""
    config = IngestConfig(
        cluster=BrokerConfig(urls=("mqtt://127.0.0.1",)), data_dir=folder, file=FileConfig(format=form)
    )  # type: ignore[arg-type]
    database = open_database(folder)
    await database.start()
    worker = Worker(config, FileSink(config.file_directory, config.file.format, 1 << 30), (), time.time)
    await database.run(worker.recover)
    messages = [build_message(topic, payload, qos=1) for topic, payload in envelopes]
    began, began_cpu = time.perf_counter(), time.process_time()
    for at in range(0, len(messages), 50):
        report = await database.run(partial(worker.process, messages[at : at + 50]))
    took, cpu = time.perf_counter() - began, time.process_time() - began_cpu
    await database.close()
    written = report.counters.written
    print(
        f"in process, {form}: {written} readings in {took:.2f} s, {written / took:,.0f}/s, "
        f"{cpu / written * 1e6:.2f} µs each"
    )


async def through_mosquitto(envelopes: list[tuple[str, bytes]], folder: Path) -> None:
    """The whole way: published by paho, through mosquitto, to the ingester's file."""
    broker = await Mosquitto(folder / "mosquitto").start()
    config = folder / "ingest.toml"
    config.write_text(f'data_dir = "{folder}/data"\n[cluster]\nurls = ["{broker.url}"]\n')
    with (folder / "log").open("wb") as log:
        process = subprocess.Popen(
            [sys.executable, "-m", "edge_broker", "ingest", "run", "-c", config], stderr=log
        )
    await until(lambda: b"connected" in (folder / "log").read_bytes(), "the ingester did not connect")
    sender = await Person().connect(broker.url)
    began = time.perf_counter()
    for topic, payload in envelopes:
        sender.paho.publish(topic, payload, qos=1)
    wanted = len(envelopes) * _READINGS
    output = folder / "data/output/messages-000001.jsonl"

    peak = 0
    watched = psutil.Process(process.pid)
    size, still = -1, time.perf_counter()
    while time.perf_counter() - still < 1.0:
        await asyncio.sleep(0.05)
        peak = max(peak, watched.memory_info().rss)
        now = output.stat().st_size if output.exists() else 0
        if now != size or not now:
            size, still = now, time.perf_counter()
    took = still - began
    cpu = sum(watched.cpu_times()[:2])
    lines = int(subprocess.run(["wc", "-l", output], capture_output=True, check=True).stdout.split()[0])
    print(
        f"through mosquitto: {lines} of {wanted} readings in {took:.2f} s, {lines / took:,.0f}/s, "
        f"{cpu / lines * 1e6:.2f} µs each, {peak / 1e6:.0f} MB at most"
    )
    sender.leave()
    process.terminate()
    process.wait(10)
    broker.stop()


def main() -> None:
    """Measure."""
    envelopes = packed(int(os.environ.get("ENVELOPES", _ENVELOPES)))
    print(
        f"{len(envelopes)} envelopes, {sum(len(one) for _, one in envelopes) / len(envelopes):.0f} bytes each"
    )
    for form in ("json", "cbor"):
        with tempfile.TemporaryDirectory() as folder:
            asyncio.run(in_process(envelopes, form, Path(folder)))
    with tempfile.TemporaryDirectory() as folder:
        asyncio.run(through_mosquitto(envelopes, Path(folder)))


if __name__ == "__main__":
    main()
