"""The script: what every client must be able to do with the broker, in steps that know only the port.

Each step has topics and client identifiers of its own, so that one that fails leaves the others alone. Steps wait for
messages, never for time; `Stage.fence` proves that nothing came that should not have.
"""

from __future__ import annotations

import asyncio
import random
from collections.abc import Awaitable, Callable, Sequence
from typing import Final
from uuid import uuid4

from tests.foreign.port import SESSION_PRESENT, WAIT_SECONDS, Connection, ForeignClient, Message, Wish

LARGE_BYTES: Final = 300_000  # more than any buffer on the way, less than the default max_packet_bytes
QUEUED: Final = 8  # messages for a client that is away


class Party:
    """One connection of the script, with what came over it."""

    def __init__(self, connection: Connection, inbox: asyncio.Queue[Message]) -> None:
        self.session_present = connection.session_present
        self.publish, self._connection, self._inbox = connection.publish, connection, inbox
        self.gone = False

    async def take(self, count: int) -> list[Message]:
        """The next `count` messages."""
        taken: list[Message] = []
        try:
            async with asyncio.timeout(WAIT_SECONDS):
                while len(taken) < count:
                    taken.append(await self._inbox.get())
        except TimeoutError:
            raise AssertionError(f"{count} messages should have come, not {_short(taken)}") from None
        return taken

    async def take_until(self, payload: bytes) -> list[Message]:
        """The next messages, up to the one with that payload."""
        taken = await self.take(1)
        while taken[-1].payload != payload:
            taken += await self.take(1)
        return taken

    async def leave(self) -> None:
        self.gone = True
        async with asyncio.timeout(WAIT_SECONDS):
            await self._connection.leave()

    async def vanish(self) -> None:
        self.gone = True
        async with asyncio.timeout(WAIT_SECONDS):
            await self._connection.vanish()


class Stage:
    """What a step plays on: one client, a topic of its own, connections that end with the step."""

    def __init__(self, client: ForeignClient) -> None:
        self.client = client
        self.topic = f"foreign/{uuid4().hex}"
        self.version = client.endpoint.version
        self._parties: list[Party] = []

    async def connect(
        self,
        *filters: str,
        qos: int = 1,
        client_id: str | None = None,
        durable: bool = False,
        will: Message | None = None,
    ) -> Party:
        inbox: asyncio.Queue[Message] = asyncio.Queue()
        wish = Wish(client_id or new_client_id(), filters, qos, durable, will)
        async with asyncio.timeout(WAIT_SECONDS):
            party = Party(await self.client.connect(wish, inbox), inbox)
        self._parties.append(party)
        assert (party.session_present is None) == (SESSION_PRESENT in self.client.left_out)
        return party

    def check_session(self, party: Party, present: bool) -> None:
        """The CONNACK said whether there was a session; 3.1 has no such flag, and some clients do not show it."""
        if self.version != "3.1" and party.session_present is not None:
            assert party.session_present is present

    async def fence(self, writer: Party, reader: Party) -> None:
        """Nothing else has come to `reader`, which subscribes to `topic`."""
        await writer.publish(Message(self.topic, b"fence", 1))
        assert [message.payload for message in await reader.take(1)] == [b"fence"]

    async def close(self) -> None:
        """End every connection that the step did not end."""
        for party in self._parties:
            if not party.gone:
                await party.leave()


Step = Callable[[Stage], Awaitable[None]]


def new_client_id() -> str:
    return uuid4().hex[:20]


def _short(messages: Sequence[Message]) -> str:
    return str([(message.topic, message.payload[:40], message.qos) for message in messages])


def _qos(sent: tuple[int, bytes]) -> int:
    return sent[0]


def _payloads(messages: Sequence[Message]) -> list[bytes]:
    return [message.payload for message in messages]


async def every_qos(stage: Stage) -> None:
    """Published at each QoS, granted each QoS: the lower counts, each message comes once and in order."""
    readers = [await stage.connect(stage.topic, qos=granted) for granted in range(3)]
    writer = await stage.connect()
    sent = [(published, b"%d: %d" % (published, number)) for published in range(3) for number in range(2)]
    for published, payload in sent:
        await writer.publish(Message(stage.topic, payload, published))
    for granted, reader in enumerate(readers):
        got = [(message.topic, message.qos, message.payload) for message in await reader.take(len(sent))]
        assert got == [(stage.topic, min(published, granted), payload) for published, payload in sent]
    await writer.publish(Message(stage.topic, b"fence", 1))
    for reader in readers:
        assert _payloads(await reader.take(1)) == [b"fence"]


async def wildcards(stage: Stage) -> None:
    """`+` is one level, `#` is the level before it and all below."""
    reader = await stage.connect(f"{stage.topic}/+/temperature", f"{stage.topic}/all/#")
    writer = await stage.connect()
    for level in ("a/temperature", "a/b/temperature", "a/humidity", "all", "all/x/y", "last/temperature"):
        await writer.publish(Message(f"{stage.topic}/{level}", b"x", 1))
    got = [message.topic.removeprefix(f"{stage.topic}/") for message in await reader.take(4)]
    assert got == ["a/temperature", "all", "all/x/y", "last/temperature"]


async def retained(stage: Stage) -> None:
    """The newest retained message comes with its flag; an empty one clears; a live one has no flag."""
    writer = await stage.connect()
    kept, cleared, live = (f"{stage.topic}/{name}" for name in ("kept", "cleared", "live"))
    for topic, payload in ((kept, b"old"), (kept, b"new"), (cleared, b"gone"), (cleared, b"")):
        await writer.publish(Message(topic, payload, 1, retain=True))
    reader = await stage.connect(f"{stage.topic}/#")
    assert await reader.take(1) == [Message(kept, b"new", 1, retain=True)]
    await writer.publish(Message(live, b"live", 1))
    assert await reader.take(1) == [Message(live, b"live", 1, retain=False)]
    await writer.publish(Message(kept, b"", 1, retain=True))


async def will(stage: Stage) -> None:
    """The will of a connection that breaks is published; that of one that says DISCONNECT is not."""
    watcher = await stage.connect(stage.topic, qos=2)
    polite = await stage.connect(will=Message(stage.topic, b"not this", 1))
    await polite.leave()
    lost = await stage.connect(will=Message(stage.topic, b"gone", 2))
    await lost.vanish()
    assert await watcher.take(1) == [Message(stage.topic, b"gone", 2)]
    await stage.fence(await stage.connect(), watcher)


async def persistent_session(stage: Stage) -> None:
    """A durable session keeps its subscription and what comes meanwhile; a clean start ends it."""
    client_id = new_client_id()
    first = await stage.connect(stage.topic, qos=2, client_id=client_id, durable=True)
    stage.check_session(first, present=False)
    await first.leave()
    writer = await stage.connect()
    sent = [(1 + number % 2, b"%d" % number) for number in range(QUEUED)]
    for qos, payload in sent:
        await writer.publish(Message(stage.topic, payload, qos))
    again = await stage.connect(client_id=client_id, durable=True)
    stage.check_session(again, present=True)
    got = [(message.qos, message.payload) for message in await again.take(QUEUED)]
    # Order holds within a QoS: a client may give a QoS 2 message on at its PUBREL, after later ones at QoS 1.
    assert sorted(got, key=_qos) == sorted(sent, key=_qos)
    await stage.fence(writer, again)
    await again.leave()
    clean = await stage.connect(stage.topic, client_id=client_id)
    stage.check_session(clean, present=False)
    await stage.fence(writer, clean)


async def redelivery(stage: Stage) -> None:
    """The connection of a durable session breaks; what it had not acknowledged and what came meanwhile comes again."""
    client_id = new_client_id()
    lost = await stage.connect(stage.topic, client_id=client_id, durable=True)
    writer = await stage.connect()
    early, late = ([b"%s %d" % (when, n) for n in range(QUEUED)] for when in (b"early", b"late"))
    for payload in early:
        await writer.publish(Message(stage.topic, payload, 1))
    assert _payloads(await lost.take(QUEUED)) == early
    await lost.vanish()
    for payload in late:
        await writer.publish(Message(stage.topic, payload, 1))
    back = await stage.connect(client_id=client_id, durable=True)
    stage.check_session(back, present=True)
    got = _payloads(await back.take_until(late[-1]))
    assert got[-QUEUED:] == late
    # Whether its last PUBACKs still left is the client's affair; what comes again comes first and in order.
    assert got[:-QUEUED] == early[len(early) - len(got[:-QUEUED]) :]
    await stage.fence(writer, back)
    await back.leave()
    await stage.connect(client_id=client_id)  # discards the session


async def shared_subscription(stage: Stage) -> None:
    """Two members of a group take turns: each message once, half of them each."""
    members = [await stage.connect(f"$share/group/{stage.topic}") for _ in range(2)]
    writer = await stage.connect()
    sent = [b"%d" % number for number in range(6)]
    for payload in sent:
        await writer.publish(Message(stage.topic, payload, 1))
    taken = [payload for member in members for payload in _payloads(await member.take(3))]
    assert sorted(taken) == sent


async def large_payload(stage: Stage) -> None:
    """Hundreds of kilobytes arrive as they were sent, at each QoS."""
    reader = await stage.connect(stage.topic, qos=2)
    writer = await stage.connect()
    source = random.Random(stage.topic)
    for qos in range(3):
        payload = source.randbytes(LARGE_BYTES)
        await writer.publish(Message(stage.topic, payload, qos))
        (message,) = await reader.take(1)
        assert message.qos == qos
        assert message.payload == payload, f"{len(message.payload)} bytes, not what was sent"


async def request_and_response(stage: Stage) -> None:
    """A request names where its answer goes, in 5.0 by properties, before by agreement."""
    service = await stage.connect(stage.topic)
    answers, properties = f"{stage.topic}/answers", stage.version == "5.0"
    question = Message(stage.topic, b"how warm?", 1, response_topic=answers, correlation=b"17")
    async with asyncio.timeout(WAIT_SECONDS), asyncio.TaskGroup() as group:
        asking = group.create_task(stage.client.request(question, new_client_id()))
        (heard,) = await service.take(1)
        expected = question if properties else Message(stage.topic, b"how warm?", 1)
        assert heard == expected
        writer = await stage.connect()
        await writer.publish(Message(answers, b"21 degrees", 1, correlation=heard.correlation))
    assert asking.result() == b"21 degrees"


STEPS: Final[tuple[Step, ...]] = (
    every_qos,
    wildcards,
    retained,
    will,
    persistent_session,
    redelivery,
    shared_subscription,
    large_payload,
    request_and_response,
)


async def play(client: ForeignClient, seconds: float) -> None:
    """Every step that the client does not leave out, within `seconds`.

    What goes wrong in one step does not end the others: an ExceptionGroup has it all, each with its step.
    """
    failures: list[Exception] = []
    playing = "none"
    try:
        async with asyncio.timeout(seconds):
            for step in STEPS:
                playing = step.__name__
                if playing in client.left_out:
                    continue
                try:
                    await _play_step(step, client)
                except Exception as error:  # noqa: BLE001 - reported below
                    error.add_note(f"in the step {playing}")
                    failures.append(error)
    except TimeoutError as error:
        error.add_note(f"after {seconds} s in the step {playing}")
        failures.append(error)
    if failures:
        raise ExceptionGroup(f"{len(failures)} steps failed", failures)


async def _play_step(step: Step, client: ForeignClient) -> None:
    stage = Stage(client)
    try:
        await step(stage)
    finally:
        await stage.close()
