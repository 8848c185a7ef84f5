"""mosquitto's command line, in every version, over TCP and TLS.

`mosquitto_sub` is a connection that subscribes, `mosquitto_pub` one that publishes, `mosquitto_rr` one that asks. So a
publisher connects anew for each message, and the identifier of a `Wish` without filters is used where it matters only:
with a will, and for a durable session that comes back.
"""

from __future__ import annotations

import asyncio
import re
from asyncio.subprocess import PIPE, STDOUT, Process
from typing import ClassVar
from uuid import uuid4

from tests.foreign.port import (
    HOST,
    SESSION_EXPIRY_SECONDS,
    SESSION_PRESENT,
    Connection,
    Endpoint,
    ForeignClient,
    Message,
    Wish,
)

_VERSIONS = {"3.1": "mqttv31", "3.1.1": "mqttv311", "5.0": "mqttv5"}
_NO_WEBSOCKET = "mosquitto's clients before 2.1 speak over TCP and TLS only"
_FORMAT = "MESSAGE %q %r %t %x [%R] [%D]"
_PRINTED = re.compile(rb"MESSAGE (\d) (\d) (\S+) ([0-9a-f]*) \[(.*)\] \[(.*)\]\n")
_MAX_LINE_BYTES = 1 << 22  # a payload is printed in hexadecimal


class Program:
    """One of mosquitto's programs while it runs: messages it prints go to `inbox`, for other lines one can wait."""

    def __init__(self, process: Process, inbox: asyncio.Queue[Message]) -> None:
        self.process, self._inbox = process, inbox
        self._said: asyncio.Queue[bytes] = asyncio.Queue()
        self._reading = asyncio.create_task(self._read())

    @classmethod
    async def start(cls, inbox: asyncio.Queue[Message], *arguments: str) -> Program:
        process = await asyncio.create_subprocess_exec(
            *("stdbuf", "-oL", *arguments), stdin=PIPE, stdout=PIPE, stderr=STDOUT, limit=_MAX_LINE_BYTES
        )
        return cls(process, inbox)

    async def _read(self) -> None:
        assert self.process.stdout is not None
        async for line in self.process.stdout:
            printed = _PRINTED.fullmatch(line)
            if printed is None:
                self._said.put_nowait(line)
                continue
            qos, retain, topic, payload, response_topic, correlation = printed.groups()
            self._inbox.put_nowait(
                Message(
                    topic.decode(),
                    bytes.fromhex(payload.decode()),
                    int(qos),
                    retain == b"1",
                    response_topic.decode(),
                    correlation,
                )
            )
        self._said.put_nowait(b"")

    async def says(self, pattern: bytes) -> re.Match[bytes]:
        """Wait for a line in which `pattern` is found."""
        before: list[bytes] = []
        while (found := re.search(pattern, line := await self._said.get())) is None:
            before.append(line)
            assert line, f"it ended and said {b''.join(before)!r}"
        return found

    async def end(self) -> int:
        """Its exit code, once it has ended by itself and everything is read."""
        code = await self.process.wait()
        await self._reading
        return code


class MosquittoConnection:
    """A program that holds a connection, or none while nobody needs one; publishing is a program of its own."""

    session_present: bool | None = None

    def __init__(
        self, client: MosquittoClient, program: Program | None, ends_with_input: bool = False
    ) -> None:
        self._client, self._program, self._ends_with_input = client, program, ends_with_input

    async def publish(self, message: Message) -> None:
        publishing = await asyncio.create_subprocess_exec(
            *self._client.arguments("mosquitto_pub", uuid4().hex[:20]),
            *self._client.publishing(message),
            *(["-s"] if message.payload else ["-n"]),
            stdin=PIPE,
            stdout=PIPE,
            stderr=STDOUT,
        )
        printed, _ = await publishing.communicate(message.payload)
        assert publishing.returncode == 0, printed.decode()

    async def leave(self) -> None:
        """`mosquitto_sub` says DISCONNECT at SIGTERM, `mosquitto_pub` at the end of its input."""
        if self._program is None:
            return
        process = self._program.process
        assert process.stdin is not None
        if self._ends_with_input:
            process.stdin.close()
        else:
            process.terminate()
        assert await self._program.end() == 0

    async def vanish(self) -> None:
        assert self._program is not None
        self._program.process.kill()
        await self._program.end()


class MosquittoClient(ForeignClient):
    name = "mosquitto"
    left_out: ClassVar = {
        "ws": _NO_WEBSOCKET,
        "wss": _NO_WEBSOCKET,
        SESSION_PRESENT: "mosquitto's clients do not print the CONNACK's flags",
    }
    needs = ("mosquitto_pub", "mosquitto_sub", "mosquitto_rr", "stdbuf")

    def __init__(self, endpoint: Endpoint) -> None:
        super().__init__(endpoint)
        self._programs: list[Program] = []

    async def close(self) -> None:
        """Kill what a step that failed left running."""
        for program in self._programs:
            if program.process.returncode is None:
                program.process.kill()
            await program.end()

    async def _start(self, inbox: asyncio.Queue[Message], *arguments: str) -> Program:
        program = await Program.start(inbox, *arguments)
        self._programs.append(program)
        return program

    def arguments(self, program: str, client_id: str) -> list[str]:
        """The beginning of a command line: where to, how, as whom."""
        made = [program, "-h", HOST, "-p", str(self.endpoint.port), "-V", _VERSIONS[self.endpoint.version]]
        if self.endpoint.secure:
            made += ["--cafile", str(self.endpoint.ca)]
        return [*made, "-i", client_id]

    def publishing(self, message: Message) -> list[str]:
        """The options for a message, without its payload."""
        made = ["-t", message.topic, "-q", str(message.qos)]
        if message.retain:
            made.append("-r")
        if message.correlation and self.endpoint.version == "5.0":
            made += ["-D", "publish", "correlation-data", message.correlation.decode()]
        return made

    async def connect(self, wish: Wish, inbox: asyncio.Queue[Message]) -> Connection:
        if wish.filters or wish.durable:
            return await self._subscribe(wish, inbox)
        if wish.will is not None:
            return await self._hold(wish, wish.will, inbox)
        return MosquittoConnection(self, None)

    async def _subscribe(self, wish: Wish, inbox: asyncio.Queue[Message]) -> Connection:
        # It cannot connect without a subscription: one to nothing leaves those of the session as they are.
        filters = wish.filters or (f"nothing/{wish.client_id}",)
        options = ["-d", "-q", str(wish.qos), "-F", _FORMAT]
        if wish.durable:
            options.append("-c")
            if self.endpoint.version == "5.0":
                options += ["-x", str(SESSION_EXPIRY_SECONDS)]
        for topic_filter in filters:
            options += ["-t", topic_filter]
        program = await self._start(inbox, *self.arguments("mosquitto_sub", wish.client_id), *options)
        granted = await program.says(rb"^Subscribed \(mid: \d+\): (.*)")
        assert granted[1].split(b", ") == [b"%d" % wish.qos] * len(filters)
        return MosquittoConnection(self, program)

    async def _hold(self, wish: Wish, will: Message, inbox: asyncio.Queue[Message]) -> Connection:
        """`mosquitto_pub` waiting for lines to publish: it leaves in due form, which `mosquitto_sub` does not in 5.0."""
        options = ["-d", "-l", "-t", f"nothing/{wish.client_id}", "--will-topic", will.topic]
        options += ["--will-payload", will.payload.decode(), "--will-qos", str(will.qos)]
        program = await self._start(inbox, *self.arguments("mosquitto_pub", wish.client_id), *options)
        await program.says(rb"received CONNACK \(0\)")
        return MosquittoConnection(self, program, ends_with_input=True)

    async def request(self, message: Message, client_id: str) -> bytes:
        inbox: asyncio.Queue[Message] = asyncio.Queue()
        options = [*self.publishing(message), "-e", message.response_topic, "-F", _FORMAT]
        asking = await self._start(
            inbox, *self.arguments("mosquitto_rr", client_id), *options, "-m", message.payload.decode()
        )
        assert await asking.end() == 0
        return inbox.get_nowait().payload
