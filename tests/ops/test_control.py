"""The control socket: requests and answers, streams and their end, and everything that a client can do wrong."""

from __future__ import annotations

import asyncio
import json
import os
import socket
import stat
from collections.abc import AsyncGenerator, AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest

from edge_broker.errors import CommandError
from edge_broker.net.endpoints import UnixEndpoint
from edge_broker.ops import control
from edge_broker.ops.control import Answer, ControlServer, Handler, Request, wanted
from tests.ops.gateway import until


class Peer:
    """A client of the control socket."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.reader = reader
        self.writer = writer

    @classmethod
    async def of(cls, path: Path) -> Peer:
        return cls(*await asyncio.open_unix_connection(str(path), limit=8 << 20))

    def say(self, line: bytes) -> None:
        self.writer.write(line + b"\n")

    async def ask(self, command: str, **arguments: object) -> Any:
        self.say(json.dumps({"command": command, **arguments}).encode())
        return await self.next()

    async def next(self) -> Any:
        """The next answer; None at the end of the connection."""
        async with asyncio.timeout(10):
            line = await self.reader.readline()
        return json.loads(line) if line else None

    async def close(self) -> None:
        self.writer.close()
        await self.writer.wait_closed()


class Commands:
    """Some commands. `streams`: those running now."""

    def __init__(self) -> None:
        self.streams = 0

    def registry(self) -> dict[str, Handler]:
        return {
            "echo": self.echo,
            "refuse": self.refuse,
            "break": self.break_down,
            "numbers": self.numbers,
            "forever": self.forever,
            "flood": self.flood,
            "trip": self.trip,
        }

    async def echo(self, request: Request) -> Answer:
        return {"heard": wanted(request, "text", str, "nothing")}

    async def refuse(self, _: Request) -> Answer:
        raise CommandError("not now", "try later")

    async def break_down(self, _: Request) -> Answer:
        raise ZeroDivisionError

    async def numbers(self, _: Request) -> AsyncGenerator[Answer, None]:
        for number in range(3):
            yield {"number": number}

    async def trip(self, _: Request) -> AsyncGenerator[Answer, None]:
        yield {"number": 0}
        raise CommandError("tripped")

    async def forever(self, _: Request) -> AsyncGenerator[Answer, None]:
        self.streams += 1
        try:
            yield {"begun": True}
            await asyncio.Event().wait()
        finally:
            self.streams -= 1

    async def flood(self, _: Request) -> AsyncGenerator[Answer, None]:
        self.streams += 1
        try:
            while True:
                yield {"much": "x" * 100_000}
                await asyncio.sleep(0)
        finally:
            self.streams -= 1


@asynccontextmanager
async def serving(path: Path) -> AsyncIterator[Commands]:
    commands = Commands()
    server = ControlServer(UnixEndpoint(str(path), 0o600), commands.registry())
    await server.start()
    try:
        yield commands
    finally:
        await server.stop()


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "control.sock"


async def test_only_its_owner_may_open_it(path: Path) -> None:
    async with serving(path):
        status = os.stat(path)
        assert stat.S_ISSOCK(status.st_mode)
        assert stat.S_IMODE(status.st_mode) == 0o600
    assert not path.exists()


async def test_one_answer_after_another_on_one_connection(path: Path) -> None:
    async with serving(path):
        peer = await Peer.of(path)
        assert await peer.ask("echo", text="a") == {"heard": "a"}
        assert await peer.ask("echo") == {"heard": "nothing"}
        await peer.close()


@pytest.mark.parametrize(
    ("line", "said"),
    [
        (b"nonsense", "not JSON"),
        (b"[1]", "not a request"),
        (b'{"text": "a"}', "not a request"),
        (b'{"command": 3}', "not a request"),
        (b'{"command": "nothing"}', "there is no command 'nothing'"),
        (b'{"command": "echo", "text": 5}', "text must be of type str"),
        (b'{"command": "refuse"}', "not now"),
        (b"\xff\xfe", "not JSON"),
    ],
)
async def test_what_is_wrong_is_told_and_the_connection_goes_on(path: Path, line: bytes, said: str) -> None:
    async with serving(path):
        peer = await Peer.of(path)
        peer.say(line)
        assert said in (await peer.next())["error"]
        assert await peer.ask("echo") == {"heard": "nothing"}
        await peer.close()


async def test_a_fault_of_ours_is_logged_and_told_without_its_insides(
    path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    async with serving(path):
        peer = await Peer.of(path)
        assert await peer.ask("break") == {"error": "internal error", "hint": "the broker's log says more"}
        assert "ZeroDivisionError" in caplog.text
        assert await peer.ask("echo") == {"heard": "nothing"}
        await peer.close()


async def test_a_stream_ends_with_a_final_object_and_the_connection_with_it(path: Path) -> None:
    async with serving(path):
        peer = await Peer.of(path)
        assert await peer.ask("numbers") == {"number": 0}
        assert [await peer.next() for _ in range(4)] == [{"number": 1}, {"number": 2}, {"end": True}, None]
        await peer.close()


async def test_an_error_in_a_stream_is_told(path: Path) -> None:
    async with serving(path):
        peer = await Peer.of(path)
        assert await peer.ask("trip") == {"number": 0}
        assert await peer.next() == {"error": "tripped", "hint": ""}
        await peer.close()


@pytest.mark.parametrize("how", ["says something", "closes", "vanishes", "the server stops"])
async def test_a_stream_ends_with_its_client(path: Path, how: str) -> None:
    async with serving(path) as commands:
        peer = await Peer.of(path)
        assert await peer.ask("forever") == {"begun": True}
        assert commands.streams == 1
        if how == "says something":
            peer.say(b"")
        elif how == "closes":
            peer.writer.write_eof()
        elif how == "vanishes":
            peer.writer.transport.abort()
        if how != "the server stops":
            await until(lambda: commands.streams == 0, "the stream goes on")
    assert commands.streams == 0
    await asyncio.wait_for(peer.reader.read(), 5)
    peer.writer.close()


async def test_who_does_not_read_is_cut_off_and_nobody_waits(
    path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    async with serving(path) as commands:
        with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as slow:
            slow.setblocking(False)
            await asyncio.get_running_loop().sock_connect(slow, str(path))
            await asyncio.get_running_loop().sock_sendall(slow, b'{"command": "flood"}\n')
            await until(lambda: "did not read" in caplog.text, "it is not cut off")
            assert commands.streams == 0
            other = await Peer.of(path)
            assert await other.ask("echo") == {"heard": "nothing"}
            await other.close()


async def test_a_request_that_is_too_long(path: Path) -> None:
    async with serving(path):
        peer = await Peer.of(path)
        peer.writer.write(b"x" * (control.MAX_REQUEST_BYTES + 1))
        assert "a request of more than" in (await peer.next())["error"]
        assert await peer.next() is None
        await peer.close()


async def test_no_more_connections_than_there_may_be(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(control, "MAX_CONNECTIONS", 2)
    async with serving(path):
        peers = [await Peer.of(path) for _ in range(2)]
        for peer in peers:
            await peer.ask("echo")
        late = await Peer.of(path)
        assert "too many connections" in (await late.next())["error"]
        await late.close()
        await peers[0].close()

        async def has_room() -> bool:
            again = await Peer.of(path)
            try:
                return await again.ask("echo") == {"heard": "nothing"}
            finally:
                await again.close()

        async with asyncio.timeout(10):
            while not await has_room():
                pass
        await peers[1].close()


async def test_one_that_says_nothing_is_let_go(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(control, "_IDLE_SECONDS", 0.05)
    async with serving(path):
        peer = await Peer.of(path)
        assert await peer.next() is None
        await peer.close()


async def test_what_a_killed_broker_left_is_replaced(path: Path) -> None:
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as left:
        left.bind(str(path))
    async with serving(path):
        peer = await Peer.of(path)
        assert await peer.ask("echo") == {"heard": "nothing"}
        await peer.close()
