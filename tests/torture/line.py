"""The whole line under torture: gateway, upstream, ingester; each of them fails in its turn, while the load goes on.

The gateway's power is cut, the upstream (another edge-broker) and the ingester are killed with `kill -9`, one of them or
several at a time. The accountant reads the ingester's files: what the gateway acknowledged is there, what was sent at
QoS 2 once, each topic in its order.
"""

from __future__ import annotations

import asyncio
import base64
import random
import signal
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any, Final

from tests.ingest.running import Ingester
from tests.integration.broker_process import BrokerProcess
from tests.torture.account import Reader, Stream, Verdict, judge
from tests.torture.clients import HEAD, Clock, Publisher
from tests.torture.disk import Place
from tests.torture.gateway import Gateway
from tests.torture.run import Plan
from tests.torture.wire import V3, V5

_STREAMS: Final = 4
_POLL_SECONDS: Final = 0.005
_LOOK_SECONDS: Final = 0.3
_TOPICS: Final = '[topics]\nmessages = ["t/#"]\n'
"""Instead of what the ingester of other tests reads."""

ENVELOPES: Final = 'gateway = "gw"\nenvelopes = { enabled = true, delay_ms = 100 }\n'
"""Further keys of the gateway's bridge."""

GATEWAY: Final = "the gateway's power"
UPSTREAM: Final = "the upstream"
INGESTER: Final = "the ingester"
FAULTS: Final = (
    (GATEWAY,),
    (UPSTREAM,),
    (INGESTER,),
    (GATEWAY, INGESTER),
    (UPSTREAM, INGESTER),
    (GATEWAY, UPSTREAM),
)


class LineTorture:
    """One run; the gateway's store is on `place`. Of the plan: rounds, seed, window, goal, patience, check, progress."""

    def __init__(self, plan: Plan, place: Place, directory: Path, bridge_keys: str = ENVELOPES) -> None:
        self._plan, self._place, self._directory = plan, place, directory
        self._bridge_keys = bridge_keys
        self._dice = random.Random(plan.seed)
        self._clock = Clock()
        self._verdict = Verdict()
        self._upstream = BrokerProcess(directory / "upstream")
        self._streams = {n: Stream(f"up-{n}-qos-{1 + n % 2}", 1 + n % 2) for n in range(_STREAMS)}
        self._publishers: list[Publisher] = []
        self.faults: dict[str, int] = dict.fromkeys((GATEWAY, UPSTREAM, INGESTER), 0)

    async def run(self) -> Verdict:
        """All rounds. AssertionError if something does not start, or nothing moves."""
        self._upstream.start()
        self.ingester = Ingester(self._directory / "ingester", f"mqtt://127.0.0.1:{self._upstream.port}")
        self.ingester.config.write_text(
            self.ingester.config.read_text().replace('[topics]\nmessages = ["s/#"]\n', _TOPICS)
        )
        self.gateway = Gateway(
            self._directory, self._place.data_dir, self._upstream.port, self._plan.module, self._bridge_keys
        )
        try:
            await self.ingester.start()
            await self.gateway.start()
            self._begin()
            for number in range(1, self._plan.rounds + 1):
                self._clock.round_number = number
                await self._round(number)
                self._verdict.rounds = number
            await self._settle()
        finally:
            for publisher in self._publishers:
                await publisher.stop()
            self.gateway.kill()
            self.ingester.stop(signal.SIGKILL)
            self._upstream.kill()
        return judge(list(self._streams.values()), [self._read()], self._verdict)

    def _begin(self) -> None:
        for number, stream in self._streams.items():
            topic, version = f"t/{stream.qos}/{stream.name}", V3 if number < _STREAMS // 2 else V5
            publisher = Publisher(self.gateway.port, version, stream, number, topic, self._clock)
            publisher.window = self._plan.window
            self._publishers.append(publisher)
            publisher.start()

    async def _round(self, number: int) -> None:
        """Load until a random number of messages is acknowledged, faults a random moment later, and new starts."""
        before, started = self._acknowledged(), time.monotonic()
        goal = before + self._dice.randint(1, self._plan.goal)
        await self._until(lambda: self._acknowledged() >= goal, "nothing is acknowledged any more")
        await asyncio.sleep(
            self._dice.uniform(0, 0.3)
        )  # anywhere between two commits, two envelopes, two batches
        victims = self._dice.choice(FAULTS)
        if INGESTER in victims:
            self.ingester.stop(signal.SIGKILL)
        if UPSTREAM in victims:
            self._upstream.kill()
        if GATEWAY in victims:
            self.gateway.freeze()
            self._place.cut()
            self.gateway.kill()
            self._place.restore()
            self._verdict.unsound += self._plan.check(self._place.data_dir)
        for victim in victims:
            self.faults[victim] += 1
        if UPSTREAM in victims:
            self._upstream.start()
        if INGESTER in victims:
            await self.ingester.start()
        if GATEWAY in victims:
            await self.gateway.start()
        self._plan.progress(
            f"round {number}: {' and '.join(victims)}; {self._acknowledged() - before} acknowledged, "
            f"{time.monotonic() - started:.1f} s; {self._acknowledged()} in all"
        )

    async def _settle(self) -> None:
        """Have nobody send anything new, and one message more of each stream: where that is, all before it is."""
        for publisher in self._publishers:
            publisher.window = 0
        try:
            await self._until(self._all_idle, "not everything is acknowledged")
            await self._until(
                lambda: all(one.connected for one in self._publishers), "not everybody is connected"
            )
            for publisher in self._publishers:
                publisher.publish_one()
            await self._until(self._all_idle, "not everything is acknowledged")
            await self._until(lambda: not self._behind(), "not everything is in the files", _LOOK_SECONDS)
        except AssertionError as error:
            self._verdict.stuck.append(f"{error}; {', '.join(self._behind())}")

    def _all_idle(self) -> bool:
        return all(publisher.idle for publisher in self._publishers)

    def _acknowledged(self) -> int:
        return sum(stream.acknowledged for stream in self._streams.values())

    def _behind(self) -> list[str]:
        reader = self._read()
        return [
            f"the files have {reader.highest(stream.name)} of {stream.sent} of {stream.name}"
            for stream in self._streams.values()
            if reader.highest(stream.name) < stream.sent
        ]

    def _read(self) -> Reader:
        """What is in the ingester's files."""
        reader = Reader("ingested", list(self._streams.values()))
        for line in self.ingester.lines():
            source, number = HEAD.unpack_from(_payload(line))
            reader.take(self._streams[source].name, number)
        return reader

    async def _until(self, condition: Callable[[], bool], what: str, pause: float = _POLL_SECONDS) -> None:
        deadline = time.monotonic() + self._plan.patience_seconds
        while not condition():
            assert time.monotonic() < deadline, f"{what}; the logs are in {self._directory}"
            await asyncio.sleep(pause)


def _payload(line: dict[str, Any]) -> bytes:
    if "payload_base64" in line:
        return base64.b64decode(line["payload_base64"])
    return str(line["payload"]).encode()
