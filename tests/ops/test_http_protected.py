"""The HTTP port with TLS and tokens, and against those who try what should not work."""

from __future__ import annotations

import asyncio
import contextlib
import gzip
import logging
import ssl
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import aiohttp
import pytest

from edge_broker.broker import Broker
from edge_broker.config.http import HttpConfig
from edge_broker.config.listeners import ListenerConfig
from edge_broker.config.model import Config
from edge_broker.errors import ConfigError
from edge_broker.ops import http
from edge_broker.ops.http_visitor import MAX_INPUT_BYTES
from edge_broker.security.authority import Authority
from edge_broker.security.http_tokens import new_token
from tests.ops.gateway import until

READ, READ_LINE = new_token("prometheus", ["read"])
WRITE, WRITE_LINE = new_token("admin", ["write"])
BEARER = {"Authorization": f"Bearer {READ}"}
NOW, DAY = datetime.now(UTC), timedelta(days=1)
OURS = Authority("ours", NOW, DAY)


def write_certificate(folder: Path, name: str) -> None:
    OURS.issue(name, NOW, DAY, hosts=("localhost",)).write(folder, "http")


@asynccontextmanager
async def protected(
    folder: Path, tls: bool = False, tokens: str = f"{READ_LINE}\n{WRITE_LINE}\n", **options: Any
) -> AsyncIterator[Broker]:
    """A broker whose HTTP port wants a token."""
    (folder / "http-tokens").write_text(tokens)
    if tls:
        write_certificate(folder, "first")
        options |= {"certificate": folder / "http.crt", "key": folder / "http.key"}
    broker = Broker(
        Config(
            data_dir=folder / "data",
            listeners=(ListenerConfig(bind="127.0.0.1:0"),),
            http=HttpConfig(bind="127.0.0.1:0", token_file=folder / "http-tokens", **options),
        )
    )
    await broker.start()
    try:
        yield broker
    finally:
        await broker.stop()


def url_of(broker: Broker) -> str:
    assert broker._http is not None
    return broker._http.url.replace("127.0.0.1", "localhost")


def trusting() -> ssl.SSLContext:
    context = ssl.create_default_context()
    context.load_verify_locations(cadata=OURS.certificate.decode())
    return context


async def raw(broker: Broker, request: bytes) -> bytes:
    """The whole answer to what is sent as it stands."""
    reader, writer = await asyncio.open_connection("127.0.0.1", int(url_of(broker).rsplit(":", 1)[1]))
    try:
        writer.write(request)
        async with asyncio.timeout(10):
            return await reader.read()
    except ConnectionError:
        return b""
    finally:
        writer.close()


def status(answer: bytes) -> int:
    return int(answer.split(b" ", 2)[1])


# ---- tokens


@pytest.mark.parametrize("path", ["/", "/healthz", "/livez", "/readyz", "/metrics", "/nowhere"])
async def test_without_a_token_nothing_is_told(tmp_path: Path, path: str) -> None:
    async with protected(tmp_path) as broker, aiohttp.ClientSession() as web:
        for headers in ({}, {"Authorization": "Bearer wrong"}, {"Cookie": f"token={READ}"}):
            async with web.get(
                f"{url_of(broker)}{path}?token={READ}&access_token={READ}", headers=headers
            ) as answer:
                assert answer.status == 401
                assert answer.headers["WWW-Authenticate"].startswith('Bearer realm="edge-broker"')
                assert answer.headers["X-Frame-Options"] == "DENY"
                assert answer.headers["Content-Security-Policy"].startswith("default-src 'none'")
        async with web.get(f"{url_of(broker)}{path}", headers=BEARER) as answer:
            assert answer.status == (404 if path == "/nowhere" else 200)


async def test_scopes(tmp_path: Path) -> None:
    async with protected(tmp_path) as broker, aiohttp.ClientSession() as web:
        async with web.get(
            f"{url_of(broker)}/metrics", headers={"Authorization": f"Bearer {WRITE}"}
        ) as answer:
            assert answer.status == 403
            assert 'scope="read"' in answer.headers["WWW-Authenticate"]
        async with web.post(f"{url_of(broker)}/metrics", headers=BEARER) as answer:
            assert answer.status == 403
        async with web.post(
            f"{url_of(broker)}/metrics", headers={"Authorization": f"Bearer {WRITE}"}
        ) as answer:
            assert answer.status == 405
        async with web.get(f"{url_of(broker)}/metrics", headers=BEARER) as answer:
            text = await answer.text()
    assert 'edge_broker_http_refused_total{reason="scope"} 2.0' in text


async def test_open_health_says_yes_or_no(tmp_path: Path) -> None:
    async with protected(tmp_path, open_health=True) as broker, aiohttp.ClientSession() as web:
        for path, told in (
            ("/livez", {"live": True}),
            ("/readyz", {"ready": True}),
            ("/healthz", {"live": True, "ready": True}),
        ):
            async with web.get(url_of(broker) + path) as answer:
                assert (answer.status, await answer.json()) == (200, told)
        async with web.get(f"{url_of(broker)}/healthz", headers=BEARER) as answer:
            assert "listeners" in await answer.json()
        async with web.get(f"{url_of(broker)}/metrics") as answer:
            assert answer.status == 401
        broker._listeners[0].stop_accepting()
        async with web.get(f"{url_of(broker)}/readyz") as answer:
            assert (answer.status, await answer.json()) == (503, {"ready": False})


async def test_denials_are_logged_without_what_was_sent(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    async with protected(tmp_path) as broker, aiohttp.ClientSession() as web:
        with caplog.at_level(logging.INFO, "edge_broker.ops"):
            for _ in range(5):
                headers = {"Authorization": f"Bearer {WRITE}"}
                async with web.get(f"{url_of(broker)}/SECRET", headers=headers) as answer:
                    assert answer.status == 403
        assert broker._http is not None
        assert broker._http.access.refused == {"scope": 5}
    assert 1 <= len(caplog.messages) < 5
    assert caplog.messages[0] == "HTTP from 127.0.0.1 was denied: scope"
    assert WRITE not in caplog.text
    assert "SECRET" not in caplog.text


async def test_tokens_are_read_again(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    new, line = new_token("grafana", ["read"])
    async with protected(tmp_path) as broker, aiohttp.ClientSession() as web:

        async def look(token: str) -> int:
            headers = {"Authorization": f"Bearer {token}"}
            async with web.get(f"{url_of(broker)}/livez", headers=headers) as answer:
                return answer.status

        (tmp_path / "http-tokens").write_text(f"{line}\n")
        assert (await look(READ), await look(new)) == (200, 401)
        await broker.reload(broker.config)
        assert (await look(READ), await look(new)) == (401, 200)
        (tmp_path / "http-tokens").write_text("nonsense\n")
        await broker.reload(broker.config)
        assert "tokens of http: the new file is refused, the old one stays in force: " in caplog.text
        assert list(broker.watching.refused) == ["tokens of http"]
        assert (await look(READ), await look(new)) == (401, 200)


# ---- TLS


async def test_over_tls_with_the_newest_certificate(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    """With a name in the handshake and without one."""

    async def shown(broker: Broker, server_hostname: str | None) -> str:
        context = trusting()
        context.check_hostname = server_hostname is not None
        port = int(url_of(broker).rsplit(":", 1)[1])
        reader, writer = await asyncio.open_connection(
            "127.0.0.1", port, ssl=context, server_hostname=server_hostname or ""
        )
        writer.write(f"GET /livez HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer {READ}\r\n\r\n".encode())
        assert (await reader.readline()).startswith(b"HTTP/1.1 200 ")
        certificate = writer.get_extra_info("peercert")
        writer.close()
        return str(dict(pair for names in certificate["subject"] for pair in names)["commonName"])

    async with protected(tmp_path, tls=True) as broker:
        assert url_of(broker).startswith("https://")
        assert [await shown(broker, name) for name in ("localhost", None)] == ["first", "first"]
        write_certificate(tmp_path, "second")
        await broker.reload(broker.config)
        assert [await shown(broker, name) for name in ("localhost", None)] == ["second", "second"]
        (tmp_path / "http.key").write_text("nonsense")
        await broker.reload(broker.config)
        assert "certificate of http: the new file is refused, the old one stays in force: " in caplog.text
        assert list(broker.watching.refused) == ["certificate of http"]
        assert await shown(broker, "localhost") == "second"


async def test_plain_http_to_a_tls_port_gets_nothing(tmp_path: Path) -> None:
    async with protected(tmp_path, tls=True) as broker:
        answer = await raw(broker, b"GET /metrics HTTP/1.1\r\nHost: x\r\n\r\n")
        assert b"HTTP" not in answer
        assert broker._http is not None


async def test_half_handshakes_are_bounded(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Who connects and says nothing takes a place for some seconds, and there is an end to them."""
    monkeypatch.setattr(http, "_MAX_CONNECTIONS", 3)
    monkeypatch.setattr(http, "_HANDSHAKE_SECONDS", 0.3)
    monkeypatch.setattr(http, "_SWEEP_SECONDS", 0.05)
    async with protected(tmp_path, tls=True) as broker, aiohttp.ClientSession() as web:
        assert broker._http is not None
        port = int(url_of(broker).rsplit(":", 1)[1])
        held = [await asyncio.open_connection("127.0.0.1", port) for _ in range(6)]
        await until(lambda: broker._http.access.refused.get("too_many_connections") == 3, "they are let in")
        for reader, _ in held:
            async with asyncio.timeout(5):
                with contextlib.suppress(ConnectionError):
                    assert await reader.read() == b""
        await until(lambda: not broker._http._opened, "they are held for ever")
        for _, writer in held:
            writer.close()
        async with web.get(f"{url_of(broker)}/livez", headers=BEARER, ssl=trusting()) as answer:
            assert answer.status == 200


@pytest.mark.filterwarnings("ignore:ssl.TLSVersion:DeprecationWarning")
@pytest.mark.parametrize("old", [ssl.TLSVersion.TLSv1, ssl.TLSVersion.TLSv1_1])
async def test_old_tls_is_refused(tmp_path: Path, old: ssl.TLSVersion) -> None:
    context = trusting()
    context.set_ciphers("DEFAULT:@SECLEVEL=0")
    context.minimum_version = ssl.TLSVersion.TLSv1
    context.maximum_version = old
    async with protected(tmp_path, tls=True) as broker:
        with pytest.raises((ssl.SSLError, ConnectionError)):
            await asyncio.open_connection("localhost", int(url_of(broker).rsplit(":", 1)[1]), ssl=context)


# ---- what should not work


@pytest.mark.parametrize(
    "path",
    [
        "//metrics",
        "/metrics/",
        "/../metrics",
        "/./metrics",
        "/x/../metrics",
        "/healthz/../metrics",
        "/%6detrics",
        "/%2e%2e/metrics",
        "/..%2fmetrics",
        "/%2e%2e%2f%2e%2e%2fetc/passwd",
        "/../../../../etc/passwd",
        "/metrics%00",
        "/metrics;x=y",
        "/METRICS",
        "http://127.0.0.1/metrics",
        "metrics",
        "*",
        "/" + "x" * 8_000,
    ],
)
async def test_only_a_path_as_it_is_written(tmp_path: Path, path: str) -> None:
    request = f"GET {path} HTTP/1.1\r\nHost: x\r\n{{}}\r\n"
    async with protected(tmp_path) as broker:
        with_token = await raw(broker, request.format(f"Authorization: Bearer {READ}\r\n").encode())
        assert status(with_token) in (400, 404)
        assert b"edge_broker_" not in with_token
        assert status(await raw(broker, request.format("").encode())) in (400, 401)


@pytest.mark.parametrize(
    "request_of",
    [
        lambda: b"GET /" + b"x" * 40_000 + b" HTTP/1.1\r\nHost: x\r\n\r\n",
        lambda: b"GET /livez HTTP/1.1\r\nHost: x\r\nA: " + b"x" * 40_000 + b"\r\n\r\n",
        lambda: b"GET /livez HTTP/1.1\r\nHost: x\r\n" + b"A: b\r\n" * 5_000 + b"\r\n",
        lambda: b"GET /livez HTTP/1.1\r\nHost: x\r\n" + b"".join(b"A%d: b\r\n" % n for n in range(200)) + b"\r\n",
        lambda: b"\r\n" * 20_000,
        lambda: b"\0" * 100_000,
        lambda: b"GET /livez HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\nContent-Length: 5\r\n\r\n0\r\n\r\n",
        lambda: b"GET /livez HTTP/1.1\r\nHost: x\r\nContent-Length: -5\r\n\r\n",
        lambda: b"GET /livez HTTP/9.9\r\nHost: x\r\n\r\n",
        lambda: b"GET /livez HTTP/1.1\r\nHost : x\r\nAuthorization: Bearer " + READ.encode() + b"\r\n\r\n",
    ],
    ids=["line", "header", "headers", "many headers", "empty lines", "zeros", "smuggling", "length", "version", "space"],
)  # fmt: skip
async def test_floods_and_nonsense_are_answered_within_bounds(tmp_path: Path, request_of: Any) -> None:
    async with protected(tmp_path, open_health=True) as broker, aiohttp.ClientSession() as web:
        answer = await raw(broker, request_of())
        assert answer == b"" or status(answer) in (200, 400, 413, 431)
        assert len(answer) < 2_000
        if answer and status(answer) == 200:
            assert b"live" in answer  # a hundred small headers are no flood
        async with web.get(f"{url_of(broker)}/livez") as well:
            assert well.status == 200


async def test_headers_that_do_not_end_are_answered_once(tmp_path: Path) -> None:
    """Bit by bit, each within what is taken at once."""
    async with protected(tmp_path) as broker:
        reader, writer = await asyncio.open_connection("127.0.0.1", int(url_of(broker).rsplit(":", 1)[1]))
        writer.write(b"GET /livez HTTP/1.1\r\nHost: x\r\n")
        for number in range(5):
            writer.write(f"A{number}: ".encode() + b"x" * 4_000 + b"\r\n")
            await writer.drain()
        async with asyncio.timeout(10):
            answer = await reader.read()
        assert status(answer) == 431
        writer.close()
        assert broker._http is not None
        assert broker._http.access.refused == {"too_large": 1}
        await until(lambda: not broker._http._opened, "it is still there")


@pytest.mark.parametrize("method", ["GET", "POST"])
@pytest.mark.parametrize("encoding", ["identity", "gzip"])
async def test_a_body_is_not_taken(tmp_path: Path, method: str, encoding: str) -> None:
    """Neither a long one nor one that would be long: the answer does not wait for it, and nothing is unpacked."""
    body = gzip.compress(bytes(64 << 20)) if encoding == "gzip" else b"x" * (4 << 20)
    head = (
        f"{method} /metrics HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer {READ if method == 'GET' else WRITE}\r\n"
        f"Content-Encoding: {encoding}\r\nContent-Length: {len(body)}\r\n\r\n"
    )
    async with protected(tmp_path) as broker:
        reader, writer = await asyncio.open_connection("127.0.0.1", int(url_of(broker).rsplit(":", 1)[1]))
        writer.write(head.encode() + body[: 2 * MAX_INPUT_BYTES])
        async with asyncio.timeout(10):
            line = await reader.readline()
        assert status(line) == (413 if method == "GET" else 405)
        writer.close()
        assert broker._http is not None
        await until(lambda: not broker._http._opened, "it is still there")


@pytest.mark.parametrize("method", ["PUT", "PATCH", "DELETE", "OPTIONS", "TRACE", "CONNECT", "BREW"])
async def test_methods_that_are_not_offered(tmp_path: Path, method: str) -> None:
    target = "x:80" if method == "CONNECT" else "/metrics"
    request = (
        f"{method} {target} HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer {WRITE}\r\nX-Secret: abc\r\n\r\n"
    )
    async with protected(tmp_path) as broker:
        answer = await raw(broker, request.encode())
        assert status(answer) in (400, 404, 405)
        assert b"abc" not in answer


async def test_pages_of_other_sites_get_no_permission(tmp_path: Path) -> None:
    async with protected(tmp_path) as broker, aiohttp.ClientSession() as web:
        asked = {"Origin": "https://elsewhere.example", "Access-Control-Request-Method": "GET"}
        async with web.options(f"{url_of(broker)}/metrics", headers=asked) as answer:
            assert answer.status == 401
            assert not [name for name in answer.headers if name.startswith("Access-Control")]


# ---- what does not start


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({}, "certificate and key and token_file"),
        ({"token_file": Path("t")}, "certificate and key"),
        ({"certificate": Path("c"), "key": Path("k")}, "token_file"),
        ({"open_health": True}, "certificate and key"),
    ],
)
async def test_off_loopback_it_needs_both(tmp_path: Path, options: dict[str, Any], said: str) -> None:
    """Also for whoever makes the configuration without the checks of the file."""
    config = Config(
        data_dir=tmp_path / "data",
        listeners=(ListenerConfig(bind="127.0.0.1:0"),),
        http=HttpConfig(bind="0.0.0.0:0", **options),
    )
    with pytest.raises(ConfigError, match=f"it needs {said}"):
        await Broker(config).start()


async def test_a_broken_token_file_at_the_start(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="line 1: is not such a line"):
        async with protected(tmp_path, tokens="nonsense"):
            pytest.fail("it started")
