"""Health and metrics over HTTP: for people with curl, for Prometheus, for whatever watches over the broker.

It shows and changes nothing. It has no password and no encryption, so it belongs on loopback. Whatever goes wrong while
answering is answered with 500 and logged, and is nobody else's trouble. A connection lasts ten seconds at most and
answers one request, and there are never more than a few: a slow client of HTTP takes nothing from the clients of MQTT.
"""

from __future__ import annotations

import asyncio
import logging
import time
from typing import Final

import msgspec
from aiohttp import web
from aiohttp.typedefs import Handler

from edge_broker import __version__
from edge_broker.ops.health import BridgeFacts, Facts, Health, assess
from edge_broker.ops.metrics import CONTENT_TYPE, Metrics
from edge_broker.ops.observed import Observed

log: Final = logging.getLogger("edge_broker.ops")

_MAX_CONNECTIONS: Final = 64
_MAX_CONNECTION_SECONDS: Final = 10.0
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
}

_ROUTES: Final = (
    ("/healthz", "whether the broker lives and can do its work, and if not, why (200 or 503)"),
    ("/livez", "whether it lives: if not, restart it"),
    ("/readyz", "whether clients can connect and what they send can be kept"),
    ("/metrics", "everything that is counted, for Prometheus"),
)


class HttpServer:
    """The HTTP port of one running broker. `start`, then `stop` once."""

    def __init__(self, observed: Observed) -> None:
        self._observed = observed
        self._metrics = Metrics(observed)
        self._runner = web.AppRunner(self._application(), access_log=None, shutdown_timeout=_STOPPING_SECONDS)
        self._server: asyncio.Server | None = None
        self._opened: dict[web.RequestHandler, float] = {}
        self._sweeper: asyncio.TimerHandle | None = None
        self.url = ""

    def _application(self) -> web.Application:
        application = web.Application(middlewares=[_guard], client_max_size=1024)
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

        `OSError` if that cannot be had; `stop` is due then too.
        """
        await self._runner.setup()
        loop = asyncio.get_running_loop()
        self._server = await loop.create_server(self._accept, host or None, port, backlog=_BACKLOG)
        host, port = self._server.sockets[0].getsockname()[:2]
        self.url = f"http://[{host}]:{port}" if ":" in host else f"http://{host}:{port}"

    async def stop(self) -> None:
        """Stop serving."""
        if self._server is not None:
            self._server.close()
            self._server = None
        if self._sweeper is not None:
            self._sweeper.cancel()
        await self._runner.cleanup()
        await self._metrics.close()

    # ---- connections

    def _accept(self) -> asyncio.Protocol:
        server = self._runner.server
        assert server is not None
        if len(server.connections) >= _MAX_CONNECTIONS:
            return _Refusal()
        protocol = server()
        loop = asyncio.get_running_loop()
        self._opened[protocol] = loop.time()
        if self._sweeper is None:
            self._sweeper = loop.call_later(_SWEEP_SECONDS, self._sweep)
        return protocol

    def _sweep(self) -> None:
        """About once a second while there are connections: end those whose time is over."""
        loop = asyncio.get_running_loop()
        for protocol, opened_at in list(self._opened.items()):
            age_seconds = loop.time() - opened_at
            if protocol.transport is None:
                if age_seconds >= _SWEEP_SECONDS:  # before that it may not have begun
                    del self._opened[protocol]
            elif age_seconds > _MAX_CONNECTION_SECONDS:
                protocol.transport.abort()
        self._sweeper = loop.call_later(_SWEEP_SECONDS, self._sweep) if self._opened else None

    # ---- answers

    async def _index(self, _: web.Request) -> web.Response:
        items = "".join(f'<li><a href="{path}">{path}</a>: {text}</li>' for path, text in _ROUTES)
        return web.Response(
            text=f"<!doctype html><title>edge-broker</title><h1>edge-broker {__version__}</h1><ul>{items}</ul>",
            content_type="text/html",
        )

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


def gather(observed: Observed, now: float) -> Facts:
    """The facts of this moment; `now` is the monotonic clock."""
    statuses = [bridge.status() for bridge in observed.bridges]
    return Facts(
        store_healthy=observed.journal.healthy and not observed.store.read_problem,
        store_problem=observed.journal.problem or observed.store.read_problem,
        store_full=observed.store.full,
        listening=observed.listening,
        not_listening=observed.not_listening,
        bridges=[
            BridgeFacts(
                name=status.name,
                state=status.state,
                upstream=status.upstream,
                connected=status.connected,
                waiting=status.depth,
                in_flight=status.in_flight,
                last_error=status.last_error,
                last_hint=status.last_hint,
            )
            for status in statuses
        ],
        since_sweep_seconds=now - observed.swept_at,
        loop_lag_seconds=observed.last_lag_seconds,
    )


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
