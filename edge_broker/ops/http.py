"""Health and metrics over HTTP: for people with curl, for Prometheus, for whatever watches over the broker.

It shows and changes nothing. Who may look, `http_access` says; with a certificate it is TLS. Whatever goes wrong while
answering is answered with 500 and logged, and is nobody else's trouble. A connection lasts ten seconds at most, may say
little (`http_visitor`) and gets one answer, and there are never more than a few: a slow client of HTTP takes nothing from
the clients of MQTT.
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Callable
from typing import Final

import msgspec
from aiohttp import web
from aiohttp.typedefs import Handler

from edge_broker import __version__
from edge_broker.ops.facts import gather
from edge_broker.ops.health import Facts, Health, assess
from edge_broker.ops.http_access import Denial, HttpAccess
from edge_broker.ops.http_tls import Pipe, TlsSocket
from edge_broker.ops.http_visitor import Visitor
from edge_broker.ops.metrics import CONTENT_TYPE, Metrics
from edge_broker.ops.observed import Observed

log: Final = logging.getLogger("edge_broker.ops")

_MAX_CONNECTIONS: Final = 64
_MAX_CONNECTION_SECONDS: Final = 10.0
_HANDSHAKE_SECONDS: Final = 5.0
_LINGERING_SECONDS: Final = 1.0
"""How long the answer waits for a client that still sends a body which nobody takes."""
_BACKLOG: Final = 32
_SWEEP_SECONDS: Final = 1.0
_STOPPING_SECONDS: Final = 1.0

_HEADERS: Final = {
    "Cache-Control": "no-store",
    "Connection": "close",
    "Content-Security-Policy": "default-src 'none'; frame-ancestors 'none'",
    "Referrer-Policy": "no-referrer",
    "Server": "edge-broker",
    "X-Content-Type-Options": "nosniff",
    "X-Frame-Options": "DENY",
}

_ROUTES: Final = (
    ("/healthz", "whether the broker lives and can do its work, and if not, why (200 or 503)"),
    ("/livez", "whether it lives: if not, restart it"),
    ("/readyz", "whether clients can connect and what they send can be kept"),
    ("/metrics", "everything that is counted, for Prometheus"),
)
_PATHS: Final = frozenset(("/", *(path for path, _ in _ROUTES)))


class HttpServer:
    """The HTTP port of one running broker. `start`, then `stop` once.

    `access`: who may look. `load_tls` reads the TLS files and gives what makes the pipe of each connection from then on;
    None: it is not encrypted.
    """

    def __init__(
        self,
        observed: Observed,
        access: HttpAccess | None = None,
        load_tls: Callable[[], Callable[[], Pipe]] | None = None,
    ) -> None:
        self._observed = observed
        self.access = HttpAccess() if access is None else access
        self._load_tls = load_tls
        self._new_pipe: Callable[[], Pipe] | None = None
        self._metrics = Metrics(observed, self.access.refused)
        self._runner = web.AppRunner(
            self._application(),
            access_log=None,
            shutdown_timeout=_STOPPING_SECONDS,
            lingering_time=_LINGERING_SECONDS,
            auto_decompress=False,
        )
        self._server: asyncio.Server | None = None
        self._opened: dict[Visitor, float] = {}
        self._sweeper: asyncio.TimerHandle | None = None
        self.url = ""

    def _application(self) -> web.Application:
        application = web.Application(middlewares=[_guard, self._admit], client_max_size=1024)
        application.on_response_prepare.append(_add_headers)
        for path, handler in (
            ("/", self._index),
            ("/healthz", self._healthz),
            ("/livez", self._livez),
            ("/readyz", self._readyz),
            ("/metrics", self._render_metrics),
        ):
            application.router.add_get(path, handler)
        return application

    async def start(self, host: str, port: int) -> None:
        """Serve on `host` (empty for every interface) and `port` (0 for a free one).

        `OSError` if that cannot be had, `ConfigError` for the certificate; `stop` is due then too.
        """
        await self._runner.setup()
        await self.load_certificate()
        loop = asyncio.get_running_loop()
        self._server = await loop.create_server(self._accept, host or None, port, backlog=_BACKLOG)
        host, port = self._server.sockets[0].getsockname()[:2]
        scheme = "http" if self._new_pipe is None else "https"
        self.url = f"{scheme}://[{host}]:{port}" if ":" in host else f"{scheme}://{host}:{port}"

    async def load_certificate(self) -> None:
        """Read the TLS files; what was read last stays in force if they cannot be (`ConfigError`)."""
        if self._load_tls is not None:
            self._new_pipe = await asyncio.to_thread(self._load_tls)

    async def stop(self) -> None:
        """Stop serving."""
        if self._server is not None:
            self._server.close()
            self._server = None
        if self._sweeper is not None:
            self._sweeper.cancel()
        for visitor in list(self._opened):
            if visitor.transport is None and visitor.give_up is not None:
                visitor.give_up()
        await self._runner.cleanup()
        await self._metrics.close()

    # ---- connections

    def _accept(self) -> asyncio.Protocol:
        server = self._runner.server
        assert server is not None
        if len(self._opened) >= _MAX_CONNECTIONS:
            self.access.count("too_many_connections")
            return _Refusal()
        visitor = Visitor(server(), self._forget, self._count_too_large)
        loop = asyncio.get_running_loop()
        self._opened[visitor] = loop.time()
        if self._sweeper is None:
            self._sweeper = loop.call_later(_SWEEP_SECONDS, self._sweep)
        if self._new_pipe is None:
            return visitor
        return TlsSocket(visitor, self._new_pipe(), _HANDSHAKE_SECONDS)

    def _forget(self, visitor: Visitor) -> None:
        self._opened.pop(visitor, None)
        if not self._opened and self._sweeper is not None:
            self._sweeper.cancel()
            self._sweeper = None

    def _count_too_large(self) -> None:
        self.access.count("too_large")

    def _sweep(self) -> None:
        """About once a second while there are connections: end those whose time is over."""
        loop = asyncio.get_running_loop()
        for visitor, opened_at in list(self._opened.items()):
            age_seconds = loop.time() - opened_at
            if visitor.transport is not None and age_seconds > _MAX_CONNECTION_SECONDS:
                self.access.count("too_slow")
                visitor.transport.abort()
        self._sweeper = loop.call_later(_SWEEP_SECONDS, self._sweep) if self._opened else None

    # ---- who may look

    @web.middleware
    async def _admit(self, request: web.Request, handler: Handler) -> web.StreamResponse:
        """Nothing is answered, not even that there is no such path, to whoever may not look."""
        path = request.raw_path.partition("?")[0]
        verdict = self.access.look(request.method, path, request.headers.getall("Authorization", ()))
        if isinstance(verdict, Denial):
            self.access.deny(verdict, request.remote or "?", time.monotonic())
            self._tell_observer(request, verdict)
            headers = {"WWW-Authenticate": verdict.challenge} if verdict.challenge else {}
            return web.Response(status=verdict.status, text=f"{verdict.text}\n", headers=headers)
        if path not in _PATHS:
            raise web.HTTPNotFound
        if request.method in ("GET", "HEAD") and request.body_exists:
            raise web.HTTPRequestEntityTooLarge(max_size=0, actual_size=request.content_length or 1)
        if not verdict.is_known:
            return self._brief(path)
        return await handler(request)

    def _tell_observer(self, request: web.Request, denial: Denial) -> None:
        """For the audit log: who it was and why not, nothing of what was sent."""
        observer = self._observed.router.observer
        if observer is not None:
            transport = request.transport
            peer = None if transport is None else transport.get_extra_info("peername")
            port = peer[1] if isinstance(peer, tuple) else 0
            reason = f"HTTP: {denial.reason.replace('_', ' ')}"
            observer.on_refused(f"{request.remote}:{port}", self.url, reason)

    # ---- answers

    async def _index(self, _: web.Request) -> web.Response:
        items = "".join(f'<li><a href="{path}">{path}</a>: {text}</li>' for path, text in _ROUTES)
        return web.Response(
            text=f"<!doctype html><title>edge-broker</title><h1>edge-broker {__version__}</h1><ul>{items}</ul>",
            content_type="text/html",
        )

    def _brief(self, path: str) -> web.Response:
        """Health for whoever has no token: no names, no addresses, no reasons."""
        health = assess(gather(self._observed, time.monotonic()))
        told = {"live": health.live, "ready": health.ready}
        if path != "/healthz":
            told = {path[1:-1]: told[path[1:-1]]}
        return _answer(told, all(told.values()))

    async def _healthz(self, _: web.Request) -> web.Response:
        facts = gather(self._observed, time.monotonic())
        health = assess(facts)
        return _answer(_report(facts, health), health.live and health.ready)

    async def _livez(self, _: web.Request) -> web.Response:
        health = assess(gather(self._observed, time.monotonic()))
        return _answer({"live": health.live}, health.live)

    async def _readyz(self, _: web.Request) -> web.Response:
        health = assess(gather(self._observed, time.monotonic()))
        return _answer({"ready": health.ready, "problems": _problems(health)}, health.ready)

    async def _render_metrics(self, _: web.Request) -> web.Response:
        return web.Response(body=await self._metrics.render(), headers={"Content-Type": CONTENT_TYPE})


class _Refusal(asyncio.Protocol):
    """A connection that is one too many."""

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        assert isinstance(transport, asyncio.Transport)
        transport.abort()


def _report(facts: Facts, health: Health) -> dict[str, object]:
    return {
        "live": health.live,
        "ready": health.ready,
        "version": __version__,
        "problems": _problems(health),
        "store": {"healthy": facts.store_healthy, "problem": facts.store_problem},
        "listeners": {"up": facts.listening, "down": facts.not_listening},
        "bridges": facts.bridges,
        "event_loop_lag_seconds": round(facts.loop_lag_seconds, 6),
    }


def _problems(health: Health) -> list[dict[str, str]]:
    return [problem._asdict() for problem in health.problems]


def _answer(body: object, is_well: bool) -> web.Response:
    text = msgspec.json.format(msgspec.json.encode(body), indent=2)
    return web.Response(body=text + b"\n", status=200 if is_well else 503, content_type="application/json")


@web.middleware
async def _guard(request: web.Request, handler: Handler) -> web.StreamResponse:
    """A fault of ours is logged and answered, whatever it is."""
    try:
        return await handler(request)
    except web.HTTPException:
        raise
    except Exception:
        log.exception("%s could not be answered", request.path)
        return web.Response(status=500, text="internal error: the broker's log says more\n")


async def _add_headers(_: web.Request, response: web.StreamResponse) -> None:
    response.headers.update(_HEADERS)
    response.force_close()
