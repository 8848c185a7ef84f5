"""A real ingester in a process of its own, and gateways that send to its cluster."""

from __future__ import annotations

import asyncio
import json
import os
import random
import signal
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import paho.mqtt.client as paho

from bridge.envelope import Enclosed, Envelope, EnvelopeWriter
from bridge.origin import NAME, Origin
from tests.bridge.real import Person, until

Key = tuple[str, str, int, int]


class Ingester:
    """`edge-broker ingest run`. `cluster`: its URL, or one of each node. `more`: further lines, sections last."""

    def __init__(
        self,
        directory: Path,
        cluster: str | Sequence[str],
        more: str = "",
        top: str = "",
        cluster_keys: str = "",
        client_id: str = "ingest",
    ) -> None:
        urls = json.dumps([cluster] if isinstance(cluster, str) else list(cluster))
        directory.mkdir(parents=True, exist_ok=True)
        self.directory = directory
        self.config = directory / "ingest.toml"
        self.config.write_text(
            f'data_dir = "{directory}/data"\n{top}\n[cluster]\nurls = {urls}\nclient_id = "{client_id}"\n'
            f"backoff_initial_seconds = 0.05\nbackoff_max_seconds = 0.2\n{cluster_keys}\n"
            f'[topics]\nmessages = ["s/#"]\n{more}\n'
        )
        self._log = directory / "log"
        self.process: subprocess.Popen[bytes] | None = None

    async def start(self) -> Ingester:
        before = self.log.count("cluster: connected")
        with self._log.open("ab") as log:
            self.process = subprocess.Popen(
                [sys.executable, "-m", "edge_broker", "ingest", "run", "-c", self.config],
                stderr=log,
                env=os.environ | {"PYTHONUNBUFFERED": "1"},
            )
        await until(lambda: self.log.count("cluster: connected") > before, f"did not connect: {self._log}")
        return self

    @property
    def log(self) -> str:
        return self._log.read_text() if self._log.exists() else ""

    def stop(self, number: signal.Signals = signal.SIGTERM) -> int:
        process, self.process = self.process, None
        if process is None:
            return 0
        process.send_signal(number)
        return process.wait(20)

    def command(self, *arguments: str) -> subprocess.CompletedProcess[str]:
        """`edge-broker ingest ARGUMENTS`."""
        return subprocess.run(
            [sys.executable, "-m", "edge_broker", "ingest", *arguments],
            capture_output=True,
            text=True,
            timeout=30,
        )

    def status(self) -> dict[str, Any]:
        done = self.command("status", "-c", str(self.config), "--json")
        assert done.returncode == 0, done.stderr
        return json.loads(done.stdout)  # type: ignore[no-any-return]

    def lines(self) -> list[dict[str, Any]]:
        """Everything in the output's files, in order; a line that is being written is left out."""
        found = []
        for path in sorted((self.directory / "data/output").glob("*.jsonl")):
            found += [json.loads(line) for line in path.read_bytes().split(b"\n")[:-1]]
        return found

    def keys(self) -> list[Key]:
        """Where each of them comes from."""
        return [(one["gateway"], one["lane"], one["epoch"], one["sequence"]) for one in self.lines()]


class Gateway:
    """Sends as a bridge would: plain messages with an origin, and envelopes. `keys`: what was sent."""

    def __init__(self, name: str, seed: int) -> None:
        self.name = name
        self.keys: set[Key] = set()
        self.numbers: dict[str, int] = {}
        self._random = random.Random(seed)
        self._writer = EnvelopeWriter()
        self._person = Person(f"client-{name}", keeps_session=True)
        self._person.paho.on_publish = self._on_published
        self._sent = self._acknowledged = 0

    async def connect(self, url: str) -> Gateway:
        await self._person.connect(url)
        return self

    def take(self, lane: str, count: int) -> Sequence[int]:
        """The next numbers of a lane."""
        first = self.numbers.get(lane, 0) + 1
        self.numbers[lane] = first + count - 1
        return range(first, first + count)

    def plain(self, lane: str, epoch: int, numbers: Sequence[int]) -> None:
        """Publish them one by one, in the order given."""
        for number in numbers:
            properties = paho.Properties(paho.PacketTypes.PUBLISH)
            properties.UserProperty = [("unit", "C"), (NAME, str(Origin(self.name, lane, epoch, number)))]
            self._publish(f"s/{self.name}", payload_of(self.name, lane, number), properties)
            self.keys.add((self.name, lane, epoch, number))

    def enveloped(self, lane: str, epoch: int, numbers: Sequence[int]) -> None:
        """Publish them in one envelope; rising."""
        messages = [
            Enclosed(one, f"s/{self.name}/{one % 7}", payload_of(self.name, lane, one))
            for one in sorted(set(numbers))
        ]
        self._publish(
            f"edge/{self.name}/envelopes", self._writer.pack(Envelope(self.name, lane, epoch, messages))
        )
        self.keys |= {(self.name, lane, epoch, one.sequence) for one in messages}

    def skip(self, lane: str, *ranges: tuple[int, int]) -> None:
        """Announce that these will not come."""
        self._publish(f"edge/{self.name}/skipped", json.dumps({"lane": lane, "ranges": ranges}).encode())

    def say(self, topic: str, payload: bytes) -> None:
        """Publish anything."""
        self._publish(topic, payload)

    def burst(self, epoch: int) -> None:
        """A bit of everything: in order, out of order, again, and parts of it again."""
        numbers = list(self.take("plain", 30))
        mixed = numbers[:]
        self._random.shuffle(mixed)
        self.plain("plain", epoch, mixed + mixed[:10])
        numbers = list(self.take("packed", 120))
        self.enveloped("packed", epoch, numbers[50:])
        self.enveloped("packed", epoch, numbers[:60])
        self.enveloped("packed", epoch, numbers[40:80:3])

    def _publish(self, topic: str, payload: bytes, properties: Any = None) -> None:
        self._person.paho.publish(topic, payload, qos=1, properties=properties)
        self._sent += 1

    def _on_published(self, *_: object) -> None:
        self._acknowledged += 1

    async def settled(self) -> None:
        """Everything that was sent is at the cluster."""
        await until(lambda: self._acknowledged >= self._sent, "not acknowledged by the cluster", 60)

    def leave(self) -> None:
        self._person.leave()


def payload_of(gateway: str, lane: str, number: int) -> bytes:
    """Tells its message apart from all others."""
    return f'{{"{gateway}/{lane}": {number}}}'.encode()


async def kill_now_and_then(ingester: Ingester, times: int, seed: int) -> None:
    """`kill -9` at moments that nobody chose, and up again at once."""
    chance = random.Random(seed)
    for _ in range(times):
        await asyncio.sleep(chance.uniform(0.05, 0.6))
        ingester.stop(signal.SIGKILL)
        await ingester.start()
