"""The HTTP port as it is asked by somebody who means ill: paths, methods, heads that two readers would read differently.

`ops/test_http` has slow clients, too many of them, and what is not HTTP.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import pytest

from edge_broker.broker import Broker
from tests.ops.gateway import gateway

SECONDS = 10


async def ask(broker: Broker, data: bytes) -> bytes:
    """Everything that comes back until the broker closes."""
    assert broker._http is not None
    reader, writer = await asyncio.open_connection("127.0.0.1", int(broker._http.url.rsplit(":", 1)[1]))
    writer.write(data)
    try:
        return await asyncio.wait_for(reader.read(), SECONDS)
    except ConnectionResetError:
        return b""
    finally:
        writer.close()


def status(answer: bytes) -> int:
    return int(answer.split(b" ", 2)[1]) if answer else 0


@asynccontextmanager
async def running(folder: Path) -> AsyncIterator[Broker]:
    async with gateway(folder) as broker:
        yield broker
        assert status(await ask(broker, b"GET /livez HTTP/1.1\r\nHost: x\r\n\r\n")) == 200, "it lives"


@pytest.mark.parametrize(
    "path",
    [
        "/../../../../etc/passwd",
        "/%2e%2e/%2e%2e/etc/passwd",
        "/..%2f..%2fetc/passwd",
        "/..%5c..%5cetc/passwd",
        "/healthz/../../etc/passwd",
        "/healthz%00.html",
        "/healthz/",
        "/HEALTHZ",
        "//healthz",
        "//evil.example/healthz",
        "/./healthz/.",
        "/healthz;admin=1",
        "/%68ealthz%2f",
        "/\u202ehealthz".encode().decode("latin-1"),
        "/" + "a" * 8_000,
        "/static/../edge-broker.toml",
        "/metrics/passwords",
    ],
)
async def test_there_is_nothing_beside_what_there_is(state_dir: Path, path: str) -> None:
    (state_dir / "edge-broker.toml").write_text("hidden")
    async with running(state_dir) as broker:
        answer = await ask(broker, f"GET {path} HTTP/1.1\r\nHost: x\r\n\r\n".encode("latin-1"))
        assert status(answer) in (400, 404), answer[:200]
        assert b"root:" not in answer
        assert b"hidden" not in answer
        assert str(state_dir).encode() not in answer
        assert b"Traceback" not in answer


@pytest.mark.parametrize(
    "path", ["/%2e%2e", "/healthz?x=<script>alert(1)</script>", "/<script>alert(1)</script>"]
)
async def test_what_was_asked_is_not_repeated(state_dir: Path, path: str) -> None:
    async with running(state_dir) as broker:
        answer = await ask(broker, f"GET {path} HTTP/1.1\r\nHost: <script>x\r\n\r\n".encode())
        assert b"<script>" not in answer


@pytest.mark.parametrize(
    "line",
    [
        "GET http://127.0.0.1:22/ HTTP/1.1",
        "GET http://evil.example/healthz HTTP/1.1",
        "CONNECT evil.example:443 HTTP/1.1",
        "OPTIONS * HTTP/1.1",
        "TRACE /healthz HTTP/1.1",
        "PROPFIND / HTTP/1.1",
        "DEBUG /healthz HTTP/1.1",
    ],
)
async def test_it_is_no_proxy_and_no_mirror(state_dir: Path, line: str) -> None:
    """An absolute URL is this port's own or nothing; nobody is connected to, and no header comes back."""
    async with running(state_dir) as broker:
        answer = await ask(broker, f"{line}\r\nHost: x\r\nCookie: session=stolen\r\n\r\n".encode())
        assert b"stolen" not in answer
        assert b"SSH-" not in answer
        assert status(answer) in (200, 400, 404, 405, 501)
        if status(answer) == 200:
            assert b"edge-broker" in answer, "its own pages, whatever the host"
            assert "http://" in line
        assert answer.count(b"HTTP/1.1 ") <= 1


SMUGGLED = b"GET /metrics HTTP/1.1\r\nHost: x\r\n\r\n"


@pytest.mark.parametrize(
    "head",
    [
        b"Content-Length: 5\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
        b"Content-Length: 0\r\nContent-Length: 35\r\n\r\n",
        b"Transfer-Encoding: chunked, identity\r\n\r\n0\r\n\r\n",
        b"Transfer-Encoding : chunked\r\n\r\n0\r\n\r\n",
        b"Content-Length: +0\r\n\r\n",
        b"Content-Length: 0x0\r\n\r\n",
        b" folded\r\n\r\n",
        b"X: a\rb\r\n\r\n",
        b"X: a\0b\r\n\r\n",
        b"\r\n",
    ],
)
async def test_one_connection_is_one_request_however_it_is_read(state_dir: Path, head: bytes) -> None:
    """What another reader would take for a second request gets no answer."""
    async with running(state_dir) as broker:
        answer = await ask(broker, b"GET /livez HTTP/1.1\r\nHost: x\r\n" + head + SMUGGLED)
        assert answer.count(b"HTTP/1.") <= 1
        assert b"edge_broker_connections" not in answer
        assert status(answer) in (0, 200, 400)


@pytest.mark.parametrize(
    ("head", "statuses"),
    [
        (b"X: " + b"a" * 100_000 + b"\r\n\r\n", (400, 431)),
        (b"".join(b"X-%d: a\r\n" % number for number in range(50_000)) + b"\r\n", (0, 400, 431)),
        (b"Cookie: " + b"a=b; " * 10_000 + b"\r\n\r\n", (400, 431)),
    ],
    ids=["one long header", "many headers", "cookies"],
)
async def test_a_head_is_bounded(state_dir: Path, head: bytes, statuses: tuple[int, ...]) -> None:
    async with running(state_dir) as broker:
        answer = await ask(broker, b"GET /livez HTTP/1.1\r\nHost: x\r\n" + head)
        assert status(answer) in statuses, answer[:200]


@pytest.mark.parametrize("version", ["HTTP/0.9", "HTTP/2.0", "HTTP/1.9", "HTTP/x", "ICAP/1.0", "RTSP/1.0"])
async def test_other_versions_and_protocols(state_dir: Path, version: str) -> None:
    async with running(state_dir) as broker:
        answer = await ask(broker, f"GET /livez {version}\r\nHost: x\r\n\r\n".encode())
        assert status(answer) in (0, 200, 400, 505)


async def test_an_upgrade_goes_nowhere(state_dir: Path) -> None:
    async with running(state_dir) as broker:
        for protocol in ("websocket", "h2c", "mqtt"):
            answer = await ask(
                broker,
                f"GET /livez HTTP/1.1\r\nHost: x\r\nConnection: Upgrade\r\nUpgrade: {protocol}\r\n\r\n".encode(),
            )
            assert status(answer) == 200
