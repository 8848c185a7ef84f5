"""The accountant: which messages were acknowledged to their publishers, and what each reader got of them.

A *stream* is the messages of one publisher at one QoS, numbered from 1. A *reader* is a durable subscriber, here or
behind the bridge. What was acknowledged and did not come to a reader that was owed it is lost; what came twice at QoS 2 is
a duplicate; at QoS 1 a repetition, which is allowed and counted. The first arrivals of a stream must come in its order.

It knows nothing of sockets or time, and believes nothing: publishers and readers tell it what they saw.
"""

from __future__ import annotations

from array import array
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field
from itertools import groupby
from typing import Final

_MOST_COPIES: Final = 255
_LATE_TOLD: Final = 50
NOTHING_YET: Final = 1 << 62
"""Stands for the first number that is owed, where that is not known yet."""


class Stream:
    """One publisher's messages. `sent`: the highest number given out. `acknowledged`: how many were."""

    def __init__(self, name: str, qos: int) -> None:
        self.name, self.qos = name, qos
        self.sent = self.acknowledged = self.refused = 0
        self._rounds = array("H", [0])  # by number: the round of its acknowledgement, 0 before

    def next_number(self) -> int:
        """Number a new message."""
        self.sent += 1
        self._rounds.append(0)
        return self.sent

    def acknowledge(self, number: int, round_number: int) -> None:
        """The broker took responsibility in `round_number` (from 1 on): PUBACK, or PUBREC."""
        if not self._rounds[number]:
            self._rounds[number] = round_number
            self.acknowledged += 1

    def acknowledged_in(self, number: int) -> int:
        """The round in which a number was acknowledged; 0 if it was not."""
        return self._rounds[number]


class Reader:
    """What one durable subscriber got. `owed`: by stream, the number from which on everything is, until it `leave`s.

    `out_of_order`: (stream, number, highest before) of first arrivals that came too late.
    """

    def __init__(self, name: str, streams: list[Stream]) -> None:
        self.name = name
        self.owed: dict[str, int] = {stream.name: 1 for stream in streams}
        self.streams = {stream.name: stream for stream in streams}
        self.arrived = 0
        self.out_of_order: list[tuple[str, int, int]] = []
        self._until: dict[str, int] = {}
        self._copies = {stream.name: bytearray(1) for stream in streams}
        self._highest = dict.fromkeys(self.owed, 0)

    def take(self, stream: str, number: int) -> None:
        """A message came, for the first time or again."""
        copies = self._copies[stream]
        if number >= len(copies):
            copies.extend(bytes(max(number + 1 - len(copies), 1024)))
        if not copies[number]:
            self.arrived += 1
            # What was sent before it subscribed may come behind, when its publisher sends it once more.
            if self.owed[stream] <= number < self._highest[stream]:
                self.out_of_order.append((stream, number, self._highest[stream]))
            self._highest[stream] = max(number, self._highest[stream])
        copies[number] = min(copies[number] + 1, _MOST_COPIES)

    def has(self, stream: str, number: int) -> bool:
        """Whether a message came."""
        copies = self._copies[stream]
        return number < len(copies) and copies[number] > 0

    def highest(self, stream: str) -> int:
        """The highest number that came; 0 if nothing did."""
        return self._highest[stream]

    def leave(self) -> None:
        """Nothing that is sent from now on is owed to it."""
        self._until = {name: stream.sent for name, stream in self.streams.items()}

    def lost(self) -> list[tuple[Stream, int]]:
        """What was acknowledged, was owed to this reader and did not come."""
        return [
            (stream, number)
            for stream in self.streams.values()
            for number in range(self.owed[stream.name], self._until.get(stream.name, stream.sent) + 1)
            if stream.acknowledged_in(number) and not self.has(stream.name, number)
        ]

    def lost_lines(self) -> Iterator[str]:
        """The same for a person, by stream."""
        for name, lost in groupby(self.lost(), lambda one: one[0].name):
            numbers = [(number, stream.acknowledged_in(number)) for stream, number in lost]
            (first, first_round), (last, last_round) = numbers[0], numbers[-1]
            yield (
                f"{self.name} lacks {len(numbers)} of {name}, from {first} to {last},"
                f" acknowledged in round {first_round} to {last_round}"
            )

    def repeated(self, stream: str) -> int:
        """How many times a message of that stream came again."""
        copies = self._copies[stream]
        return sum(copies) - (len(copies) - copies.count(0))


@dataclass(slots=True)
class Verdict:
    """What a run came to. `lost`: by reader and stream, with the rounds in which the broker had acknowledged them.
    `twice`: repetitions at QoS 2, likewise. `repeated`: at QoS 1, where they are allowed. `late`: first arrivals behind a
    later message of their stream.

    `forgotten`: durable sessions that were acknowledged and not there any more. `retained_lost`: retained messages that
    were acknowledged and not given. `unsound`: what `store verify` said between a cut and the next start.
    `stuck`: settlings that did not come to an end.
    """

    rounds: int = 0
    sent: int = 0
    acknowledged: int = 0
    refused: int = 0
    delivered: int = 0
    lost: Counter[str] = field(default_factory=Counter)
    lost_in_rounds: set[int] = field(default_factory=set)
    twice: Counter[str] = field(default_factory=Counter)
    repeated: int = 0
    late: list[str] = field(default_factory=list)
    forgotten: int = 0
    retained_lost: int = 0
    unsound: list[str] = field(default_factory=list)
    stuck: list[str] = field(default_factory=list)

    @property
    def lost_messages(self) -> int:
        """Messages lost, each reader's counted by itself."""
        return self.lost.total()

    @property
    def duplicates(self) -> int:
        """Messages of QoS 2 that came again."""
        return self.twice.total()

    @property
    def out_of_order(self) -> int:
        """First arrivals behind a later message of their stream."""
        return len(self.late)

    @property
    def kept_its_promise(self) -> bool:
        """Nothing lost, nothing twice at QoS 2, nothing forgotten, everything in order, the store sound."""
        return not (
            self.lost_messages
            or self.duplicates
            or self.out_of_order
            or self.forgotten
            or self.retained_lost
            or self.unsound
            or self.stuck
        )

    def lines(self) -> list[str]:
        """For a person."""
        told = [
            f"{self.rounds} rounds: {self.acknowledged} messages acknowledged, {self.delivered} deliveries",
            f"lost {self.lost_messages}, QoS 2 duplicates {self.duplicates}, out of order {self.out_of_order},"
            f" sessions forgotten {self.forgotten}, retained lost {self.retained_lost}",
            f"QoS 1 repetitions {self.repeated}, refused {self.refused}",
        ]
        told += [f"lost by {where}: {count}" for where, count in sorted(self.lost.items())]
        told += [f"twice to {where}: {count}" for where, count in sorted(self.twice.items())]
        if self.lost_in_rounds:
            told.append("acknowledged in rounds " + ", ".join(map(str, sorted(self.lost_in_rounds))))
        told += [f"out of order to {one}" for one in self.late[:_LATE_TOLD]]
        return told + [f"the store was not sound: {problem}" for problem in self.unsound] + self.stuck


def judge(streams: list[Stream], readers: list[Reader], verdict: Verdict) -> Verdict:
    """Put what streams and readers know into `verdict`, which the run has begun."""
    verdict.sent = sum(stream.sent for stream in streams)
    verdict.acknowledged = sum(stream.acknowledged for stream in streams)
    verdict.refused = sum(stream.refused for stream in streams)
    for reader in readers:
        for stream, number in reader.lost():
            verdict.lost[f"{reader.name} of {stream.name}"] += 1
            verdict.lost_in_rounds.add(stream.acknowledged_in(number))
        verdict.delivered += reader.arrived
        verdict.late += [
            f"{reader.name}: {number} of {stream} behind {highest}"
            for stream, number, highest in reader.out_of_order
        ]
        for stream in reader.streams.values():
            repeated = reader.repeated(stream.name)
            if stream.qos == 1:
                verdict.repeated += repeated
            elif repeated:
                verdict.twice[f"{reader.name} of {stream.name}"] += repeated
    return verdict
