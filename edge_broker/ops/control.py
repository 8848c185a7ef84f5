"""The control socket: whoever may open it may ask the running broker, and administer it.

A Unix socket, JSON lines. A request is one object on one line, `{"command": "status", …}`; each answer is one object on one
line. A command answers once, or with a stream: objects as they come, `{"end": true}` last. What is wrong is told as an
object too: `{"error": …, "hint": …}`. After a stream the connection ends; it also ends, and the stream with it, as soon as
the client sends anything or closes its side.

To add a command, write one `async def` function of the request, and put it under its name into `Broker.commands`, the
registry that this server reads at each request:

    async def drop(request: Request) -> Answer:                    # `return` one answer,
        number = wanted(request, "number", int)
        …
        return {"dropped": number}

    async def watch(request: Request) -> AsyncGenerator[Answer]:   # or `yield` a stream of them
        while …:
            yield {"state": …}

    broker.commands["drop"] = drop

Under `by` each request says who asks, as far as the kernel knows: `uid=1000`. Whatever the client wrote there is gone.

It raises `CommandError` for what its client should be told; any other exception is a fault of ours, logged. Answers are of
whatever msgspec encodes. A stream should do nothing dear without an `await`: it runs on the broker's event loop.

Everything is bounded: connections, the length of a request, what is written and not read. A client that does not keep up
is cut off and never waited for. There is no password: the permissions of the socket's file are the protection.
"""

from __future__ import annotations

import asyncio
import logging
import socket
import struct
from collections.abc import AsyncGenerator, Callable, Coroutine, Mapping
from typing import Any, Final, Protocol, TypeVar

import msgspec

from edge_broker.errors import CommandError

Request = dict[str, Any]
Answer = dict[str, Any]
Handler = Callable[[Request], Coroutine[Any, Any, Answer] | AsyncGenerator[Answer, None]]
_Value = TypeVar("_Value")

log: Final = logging.getLogger("edge_broker.control")

MAX_CONNECTIONS: Final = 16
MAX_REQUEST_BYTES: Final = 64 << 10
MAX_UNREAD_BYTES: Final = 1 << 20
_IDLE_SECONDS: Final = 60.0
_PEER: Final = struct.Struct("iII")
"""Process, user and group, as SO_PEERCRED gives them."""
_READING_SECONDS: Final = 10.0
_INTERNAL: Final = {"error": "internal error", "hint": "the broker's log says more"}


class Bindable(Protocol):
    """The file of the socket."""

    name: str

    def bind(self) -> socket.socket:
        """A bound socket that does not block; `OSError` if it cannot be had."""

    def release(self) -> None:
        """Remove the file."""


class _CutOffError(Exception):
    """The client does not read what it asked for."""


class ControlServer:
    """Serves `commands`, by name, on `endpoint`. `start`, then `stop` once."""

    def __init__(self, endpoint: Bindable, commands: Mapping[str, Handler]) -> None:
        self._endpoint = endpoint
        self._commands = commands
        self._server: asyncio.Server | None = None
        self._connections: set[asyncio.Task[None]] = set()

    async def start(self) -> None:
        """Listen; `OSError` if the socket cannot be had."""
        sock = self._endpoint.bind()
        try:
            self._server = await asyncio.start_unix_server(self._serve, sock=sock, limit=MAX_REQUEST_BYTES)
        except BaseException:
            sock.close()
            self._endpoint.release()
            raise

    async def stop(self) -> None:
        """Close the socket and every connection."""
        server, self._server = self._server, None
        if server is None:
            return
        server.close()
        self._endpoint.release()
        for task in self._connections:
            task.cancel()
        if self._connections:
            await asyncio.wait(self._connections)

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task is not None
        try:
            if len(self._connections) >= MAX_CONNECTIONS:
                _send(writer, {"error": "too many connections to the control socket", "hint": "close some"})
                return
            self._connections.add(task)
            await self._converse(reader, writer)
        except (OSError, EOFError):
            pass  # it went away, which nobody has to know
        except _CutOffError:
            log.warning("a client of the control socket did not read its answers and was cut off")
            writer.transport.abort()
        finally:
            self._connections.discard(task)
            writer.close()

    async def _converse(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        goes_on = True
        while goes_on:
            try:
                async with asyncio.timeout(_IDLE_SECONDS):
                    line = await reader.readline()
            except TimeoutError:
                return
            except ValueError:  # so says `readline` where the limit is passed
                _send(writer, {"error": f"a request of more than {MAX_REQUEST_BYTES} bytes", "hint": ""})
                return
            if not line.strip():
                return
            goes_on = await self._answer(line, reader, writer)
            try:
                async with asyncio.timeout(_READING_SECONDS):
                    await writer.drain()
            except TimeoutError:
                raise _CutOffError from None

    async def _answer(self, line: bytes, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> bool:
        """Answer one request; whether another may follow."""
        try:
            request = _request(line) | {"by": _who(writer)}
            handler = self._commands.get(request["command"])
            if handler is None:
                raise CommandError(
                    f"there is no command {request['command']!r}",
                    f"there are {', '.join(sorted(self._commands))}",
                )
            answers = handler(request)
            if isinstance(answers, AsyncGenerator):
                await _stream(answers, reader, writer)
                return False
            _send(writer, await answers)
        except CommandError as error:
            _send(writer, {"error": error.problem, "hint": error.hint})
        except (OSError, _CutOffError):
            raise
        except Exception:
            log.exception("a command on the control socket failed")
            _send(writer, _INTERNAL)
        return True


def _request(line: bytes) -> Request:
    try:
        request = msgspec.json.decode(line)
    except msgspec.DecodeError as error:
        raise CommandError(f"not JSON: {error}", 'write {"command": "status"}') from None
    if not isinstance(request, dict) or not isinstance(request.get("command"), str):
        raise CommandError("not a request", 'write {"command": "status"}')
    return request


def _who(writer: asyncio.StreamWriter) -> str:
    """The user at the other end."""
    connected = writer.get_extra_info("socket")
    _, uid, _ = _PEER.unpack(connected.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, _PEER.size))
    return f"uid={uid}"


def wanted(request: Request, key: str, kind: type[_Value], default: _Value) -> _Value:
    """What `request` has under `key`, or `default`; `CommandError` if it is of another type."""
    value = request.get(key)
    if value is None:
        return default
    if not isinstance(value, kind) or isinstance(value, bool) != (kind is bool):
        raise CommandError(f"{key} must be of type {kind.__name__}", "")
    return value


async def _stream(
    answers: AsyncGenerator[Answer, None], reader: asyncio.StreamReader, writer: asyncio.StreamWriter
) -> None:
    """Send `answers` as they come, until they end, or the client says anything or goes."""
    said = asyncio.ensure_future(reader.read(1))
    step: asyncio.Future[Answer] | None = None
    try:
        while True:
            step = asyncio.ensure_future(_next(answers))
            await asyncio.wait((step, said), return_when=asyncio.FIRST_COMPLETED)
            if said.done() or not step.done():
                return
            try:
                answer = step.result()
            except StopAsyncIteration:
                _send(writer, {"end": True})
                return
            _send(writer, answer)
    finally:
        for future in (said, step):
            if future is None:
                continue
            future.cancel()
            await asyncio.wait((future,))
            if not future.cancelled():
                future.exception()  # seen: whatever it was, the stream is over
        await answers.aclose()


async def _next(answers: AsyncGenerator[Answer, None]) -> Answer:
    return await anext(answers)


def _send(writer: asyncio.StreamWriter, answer: Answer) -> None:
    """Write `answer` without waiting; `_CutOffError` where too much of earlier ones is unread."""
    if writer.transport.get_write_buffer_size() > MAX_UNREAD_BYTES:
        raise _CutOffError
    writer.write(msgspec.json.encode(answer, enc_hook=str) + b"\n")
