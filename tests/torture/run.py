"""A run of the torture: load, a fault at a random point of it, a start, and so on for N rounds; then the verdict.

The load never stops for a fault. Every few rounds the run settles: nothing new is sent, everything under way is
acknowledged, each stream sends one message more, and when that has come everywhere, so has all that was before it.
"""

from __future__ import annotations

import asyncio
import random
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from tests.devices.mosquitto import Mosquitto
from tests.torture.account import Reader, Stream, Verdict, judge
from tests.torture.clients import Clock, Newcomer, Publisher, Subscriber, forget_session, read_retained
from tests.torture.disk import Place
from tests.torture.gateway import Gateway
from tests.torture.wire import V3, V5

_DOWN: Final = 10  # publishers at the upstream have numbers from here on
_RETAINED: Final = 99
_RETAINED_TOPIC: Final = "r/state"
_RETAINED_SECONDS: Final = 2.0
_MOST_COMMANDS_AHEAD: Final = 300
"""As many of a stream wait at the upstream for the gateway at most: the mosquitto there would queue without end."""
_POLL_SECONDS: Final = 0.002


IN_MEMORY: Final = '[store]\ndurability = "memory"\n'
"""What makes a broker a control that loses what it acknowledged, by choice."""


@dataclass(frozen=True, slots=True)
class Plan:
    """How to torture. `goal`: messages acknowledged between two faults, at most. `patience_seconds`: how long a settling
    may take. `check`: asked about the data directory after each fault; what is wrong with it."""

    rounds: int = 10
    seed: int = 1
    window: int = 50
    goal: int = 2500
    settle_every: int = 10
    patience_seconds: float = 60.0
    module: str = "edge_broker"
    settings: str = ""  # further lines of the broker's configuration
    check: Callable[[Path], list[str]] = lambda _: []
    progress: Callable[[str], None] = lambda _: None


class Torture:
    """One run on `place`; `directory` for everything that shall survive the faults."""

    def __init__(self, plan: Plan, place: Place, directory: Path) -> None:
        self._plan, self._place = plan, place
        self._dice = random.Random(plan.seed)
        self._clock = Clock()
        self._verdict = Verdict()
        self._upstream = Mosquitto(directory / "upstream")
        self.gateway = Gateway(directory, place.data_dir, self._upstream.port, plan.module, plan.settings)
        self._publishers: list[Publisher] = []
        self._subscribers: list[Subscriber] = []
        self._newcomers: list[Newcomer] = []
        self._came_and_went: list[Reader] = []
        self._forgotten_by_others = 0

    async def run(self) -> Verdict:
        """All rounds. AssertionError if the broker does not start, or nothing moves."""
        self._upstream.start()
        try:
            await self.gateway.start()
            await self._begin()
            for number in range(1, self._plan.rounds + 1):
                self._clock.round_number = number
                await self._round(number)
                self._verdict.rounds = number
                if number == self._plan.rounds or number % self._plan.settle_every == 0:
                    if not await self._settle():
                        break
                    if number < self._plan.rounds:
                        self._load()
        finally:
            for client in self._clients():
                await client.stop()
            self.gateway.kill()
            self._upstream.stop()
        return self._judge()

    # ---- who takes part

    def _clients(self) -> list[Publisher | Subscriber]:
        return [*self._publishers, *self._subscribers, *self._newcomers]

    async def _begin(self) -> None:
        """Connect everybody, and wait until the bridge carries messages both ways."""
        up, down = self.gateway.port, self._upstream.port
        local = {n: Stream(f"up-{n}-qos-{1 + n % 2}", 1 + n % 2) for n in range(4)}
        remote = {_DOWN + n: Stream(f"down-{n}-qos-{1 + n}", 1 + n) for n in range(2)}
        self._local = list(local.values())
        self._add_publishers(up, local, "t")
        self._add_publishers(down, remote, "d")
        self._retained = Publisher(
            up, V5, Stream("retained", 1), _RETAINED, _RETAINED_TOPIC, self._clock, retain=True
        )
        self._publishers.append(self._retained)
        for name, port, version, streams, topic_filter in (
            ("live", up, V5, local, "t/#"),
            ("away", up, V3, local, "t/#"),
            ("upstream", down, V3, local, "t/#"),
            ("commands", up, V5, remote, "d/#"),
        ):
            reader = Reader(name, list(streams.values()))
            self._subscribers.append(Subscriber(port, version, reader, streams, [topic_filter]))
        self._away, commands = self._subscribers[1], self._subscribers[3]
        for subscriber in self._subscribers:
            subscriber.start()
        await self._until(lambda: all(one.subscribed for one in self._subscribers), "nobody can subscribe")
        self._bound(commands.reader, remote)
        commands.on_progress = self._pump_commands
        for publisher in self._publishers:
            publisher.start()
        self._load()
        await self._until(
            lambda: all(commands.reader.highest(stream.name) for stream in remote.values()),
            "no command comes down the bridge",
        )
        for stream in remote.values():  # the bridge subscribed upstream when they were already sent
            owed = commands.reader.owed
            owed[stream.name] = next(
                n for n in range(1, stream.sent + 1) if commands.reader.has(stream.name, n)
            )

    def _add_publishers(self, port: int, streams: dict[int, Stream], prefix: str) -> None:
        for number, stream in streams.items():
            topic = f"{prefix}/{stream.qos}/{stream.name}"
            version = V3 if number % 4 < 2 else V5
            self._publishers.append(Publisher(port, version, stream, number, topic, self._clock))

    def _bound(self, reader: Reader, streams: dict[int, Stream]) -> None:
        """Have the publishers of `streams` never be far ahead of `reader`."""
        self._commanding = [one for one in self._publishers if one.stream in streams.values()]
        for publisher in self._commanding:
            name = publisher.stream.name

            def room(stream: Stream = publisher.stream, name: str = name) -> int:
                return reader.highest(name) + _MOST_COMMANDS_AHEAD - stream.sent

            publisher.room = room

    def _pump_commands(self) -> None:
        for publisher in self._commanding:
            publisher.pump()

    def _load(self) -> None:
        """Everybody sends."""
        for publisher in self._publishers:
            publisher.window = 1 if publisher is self._retained else self._plan.window
            publisher.pump()

    def _add_newcomer(self, number: int) -> None:
        reader = Reader(f"newcomer-{number}", self._local)
        streams = dict(enumerate(self._local))
        newcomer = Newcomer(self.gateway.port, self._dice.choice((V3, V5)), reader, streams, ["t/#"])
        self._newcomers.append(newcomer)
        newcomer.start()

    # ---- a round

    async def _round(self, number: int) -> None:
        """Load until a random number of messages is acknowledged, the fault a random moment later, and a new start."""
        before, started = self._acknowledged(), time.monotonic()
        if self._dice.random() < 0.3:
            self._add_newcomer(number)
        await self._go_or_come()
        goal = before + self._dice.randint(1, self._plan.goal)
        await self._until(lambda: self._acknowledged() >= goal, "nothing is acknowledged any more")
        await asyncio.sleep(self._dice.uniform(0, 0.03))  # anywhere between two commits
        self._fault()
        while self._dice.random() < 0.2:
            self.gateway.launch()
            await asyncio.sleep(self._dice.uniform(0, 1.2))  # anywhere in the start
            self._fault()
        kept = self._retained.stream.acknowledged
        await self.gateway.start()
        if await read_retained(self.gateway.port, _RETAINED_TOPIC, _RETAINED_SECONDS if kept else 0.0) < kept:
            self._verdict.retained_lost += 1
        self._plan.progress(
            f"round {number}: {self._acknowledged() - before} acknowledged, {time.monotonic() - started:.1f} s;"
            f" {self._acknowledged()} in all"
        )

    def _fault(self) -> None:
        self.gateway.freeze()
        self._place.cut()
        self.gateway.kill()
        self._place.restore()
        self._verdict.unsound += self._plan.check(self._place.data_dir)

    async def _go_or_come(self) -> None:
        """One reader is away more often than not, so that a backlog grows and is read back."""
        if self._dice.random() < 0.35:
            self._away.start()
        else:
            await self._away.stop(politely=self._dice.random() < 0.5)

    def _acknowledged(self) -> int:
        """By the broker here."""
        return sum(stream.acknowledged for stream in self._local)

    # ---- settling

    async def _settle(self) -> bool:
        """Have nobody send anything new; whether all that was under way came to its end. Newcomers leave then."""
        await self._away.stop()
        self._away.start()
        for publisher in self._publishers:
            publisher.window = 0
        try:
            await self._until(self._all_idle, "not everything is acknowledged")
            await self._until(self._all_there, "not everybody is connected")
            for publisher in self._publishers:
                publisher.publish_one()
            await self._until(self._all_idle, "not everything is acknowledged")
            await self._until(lambda: not self._behind(), "not everything arrives")
        except AssertionError as error:
            self._verdict.stuck.append(
                f"round {self._clock.round_number}: {error}; {', '.join(self._behind())}"
            )
            return False
        lost = [line for reader in self._readers() for line in reader.lost_lines()]
        self._plan.progress(
            f"settled: {self._acknowledged()} acknowledged, {'; '.join(lost) or 'nothing lost'}"
        )
        await self._dismiss_newcomers()
        return True

    def _all_idle(self) -> bool:
        return all(publisher.idle for publisher in self._publishers)

    def _all_there(self) -> bool:
        readers = (*self._subscribers, *self._newcomers)
        return all(one.connected for one in self._clients()) and all(one.subscribed for one in readers)

    def _readers(self) -> list[Reader]:
        return [client.reader for client in (*self._subscribers, *self._newcomers)]

    def _behind(self) -> list[str]:
        """Which readers have not got the last message of which streams."""
        return [
            f"{reader.name} has {reader.highest(stream.name)} of {stream.sent} of {stream.name}"
            for reader in self._readers()
            for stream in reader.streams.values()
            if reader.highest(stream.name) < stream.sent
        ]

    async def _dismiss_newcomers(self) -> None:
        for newcomer in self._newcomers:
            await newcomer.stop(politely=True)
            await forget_session(self.gateway.port, newcomer)
            newcomer.reader.leave()
            self._came_and_went.append(newcomer.reader)
            self._forgotten_by_others += newcomer.forgotten
        self._newcomers.clear()

    async def _until(self, condition: Callable[[], bool], what: str) -> None:
        deadline = time.monotonic() + self._plan.patience_seconds
        while not condition():
            assert time.monotonic() < deadline, f"{what}; the broker's log is {self.gateway.log_path}"
            await asyncio.sleep(_POLL_SECONDS)

    def _judge(self) -> Verdict:
        self._verdict.forgotten = self._forgotten_by_others + sum(one.forgotten for one in self._clients())
        streams = [publisher.stream for publisher in self._publishers]
        return judge(streams, self._readers() + self._came_and_went, self._verdict)
