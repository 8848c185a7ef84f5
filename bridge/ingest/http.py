"""The ingester's health and metrics over HTTP, with the paths of the broker's: for people, Prometheus, supervisors.

It shows and changes nothing, and has no password: it belongs on loopback, and listens nowhere else. Nothing is counted
here; label values are bounded, so gateways are not among them: which of them miss something says `ingest status`.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import TYPE_CHECKING, Final

import msgspec
from aiohttp import web
from prometheus_client import CollectorRegistry, ProcessCollector, generate_latest
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, InfoMetricFamily, Metric
from prometheus_client.registry import Collector

from bridge.ingest.line import Line
from edge_broker import __version__
from edge_broker.config.bind import Bind

if TYPE_CHECKING:
    from bridge.ingest.ingester import Ingester

_CONTENT_TYPE: Final = "text/plain; version=0.0.4; charset=utf-8"
_BACKLOG: Final = 16
_STOPPING_SECONDS: Final = 1.0
_ANSWER_SECONDS: Final = 10.0


class HttpServer:
    """The HTTP port of one ingester. `start`, then `stop` once."""

    def __init__(self, ingester: Ingester) -> None:
        self._ingester = ingester
        self._registry = CollectorRegistry()
        self._registry.register(_Metrics(ingester))
        ProcessCollector(registry=self._registry)
        application = web.Application(client_max_size=1024)
        application.router.add_get("/healthz", self._healthz)
        application.router.add_get("/readyz", self._healthz)
        application.router.add_get("/livez", self._livez)
        application.router.add_get("/metrics", self._render)
        self._runner = web.AppRunner(
            application,
            access_log=None,
            shutdown_timeout=_STOPPING_SECONDS,
            keepalive_timeout=_ANSWER_SECONDS,
        )
        self.url = ""

    async def start(self, bind: Bind) -> None:
        """Serve on `bind`; `OSError` if that cannot be had."""
        await self._runner.setup()
        site = web.TCPSite(self._runner, bind.host, bind.port, backlog=_BACKLOG)
        await site.start()
        host, port = self._runner.addresses[0][:2]
        self.url = f"http://{Bind(host, port)}"

    async def stop(self) -> None:
        """Stop serving."""
        await self._runner.cleanup()

    async def _livez(self, _: web.Request) -> web.Response:
        return _answer({"live": True}, True)  # a loop that hangs does not answer

    async def _healthz(self, _: web.Request) -> web.Response:
        ingester = self._ingester
        found = problems(ingester)
        body = {
            "ready": not found,
            "version": __version__,
            "problems": found,
            "cluster": _line(ingester.line),
            "target": None if ingester.emitter is None else _line(ingester.emitter.line),
            "missing": ingester.gaps.missing,
            "lanes_with_gaps": len(ingester.gaps),
        }
        return _answer(body, not found)

    async def _render(self, _: web.Request) -> web.Response:
        headers = {"Content-Type": _CONTENT_TYPE, "Cache-Control": "no-store"}
        return web.Response(body=generate_latest(self._registry), headers=headers)


def problems(ingester: Ingester) -> list[dict[str, str]]:
    """Why it cannot do its work now, with what to do; empty while it can."""
    found = []
    intake, line, emitter = ingester.intake, ingester.line, ingester.emitter
    if intake.problem:
        found.append(
            {"problem": f"nothing can be kept: {intake.problem}", "hint": "the cluster keeps it meanwhile"}
        )
    for name, one in (("cluster", line), ("target", None if emitter is None else emitter.line)):
        if one is not None and not one.online:
            error = one.last_error
            found.append(
                {
                    "problem": f"no connection to the {name}: {'' if error is None else error.problem}",
                    "hint": "" if error is None else error.hint,
                }
            )
    if intake.refused:
        found.append(
            {
                "problem": f"the cluster refused the subscription to {', '.join(intake.refused)}",
                "hint": "look at its access rules for this client",
            }
        )
    elif line.online and not intake.subscribed:
        found.append(
            {
                "problem": "the cluster has not granted the subscriptions yet",
                "hint": "before it did so for the first time it keeps nothing for us",
            }
        )
    if emitter is not None and emitter.is_full:
        found.append(
            {"problem": "too much waits for the target", "hint": "look at it, or raise mqtt.max_waiting"}
        )
    return found


def _line(line: Line) -> dict[str, str]:
    return {"state": line.state, "url": str(line.upstream)}


def _answer(body: object, is_well: bool) -> web.Response:
    text = msgspec.json.format(msgspec.json.encode(body), indent=2)
    return web.Response(
        body=text + b"\n",
        status=200 if is_well else 503,
        content_type="application/json",
        headers={"Cache-Control": "no-store"},
    )


class _Metrics(Collector):
    """Reads the counters when somebody asks."""

    def __init__(self, ingester: Ingester) -> None:
        self._ingester = ingester

    def describe(self) -> Iterable[Metric]:
        """Nothing: names are not looked for before it runs."""
        return ()

    def collect(self) -> Iterator[Metric]:
        """Everything."""
        ingester = self._ingester
        counters = ingester.counters
        yield InfoMetricFamily("edge_ingest", "Which version runs.", {"version": __version__})
        yield _gauge("start_time_seconds", "When it started, Unix time.", ingester.started_at)
        yield _gauge("connected", "Whether the cluster is connected.", ingester.line.online)
        yield _gauge("keeping", "0: the output or the database does not work.", not ingester.intake.problem)
        yield _counter("connects", "Connections that the cluster accepted.", ingester.line.connects)
        yield _counter("taken", "Messages that the cluster sent, envelopes as one.", counters.taken)
        yield _counter("envelopes", "Envelopes among them.", counters.envelopes)
        yield _counter("written", "Messages written to the output.", counters.written)
        yield _labelled("duplicates", "Messages dropped because they were there before.", "by", {
            "origin": counters.duplicates, "device": counters.device_duplicates, "output": counters.already_there,
        })  # fmt: skip
        yield _labelled("unchecked", "Messages that passed with whatever duplicates they had.", "reason", {
            "no_origin": counters.without_origin, "too_many_gateways": counters.untracked,
        })  # fmt: skip
        yield _labelled(
            "rejected", "Messages set aside because they could not be unpacked.", "reason", counters.rejected
        )
        yield _counter(
            "skipped_announcements", "Announcements of numbers that will not come.", counters.skipped
        )
        yield _counter("forgotten_lanes", "Lanes and spools given up at a limit.", counters.forgotten_lanes)
        yield _counter("commits", "Batches committed.", counters.commits)
        yield _gauge("gateways", "Gateways followed.", ingester.gateways)
        yield _gauge("lanes", "Their lanes.", ingester.lanes)
        yield _gauge("lanes_with_gaps", "Lanes of which messages are missing.", len(ingester.gaps))
        yield _gauge("missing_messages", "Messages that are missing.", ingester.gaps.missing)
        if ingester.emitter is not None:
            emitter = ingester.emitter
            yield _gauge("target_connected", "Whether the target is connected.", emitter.line.online)
            yield _gauge("waiting", "Messages that wait for the target.", emitter.waiting)
            yield _counter("emitted", "Messages that the target has for good.", emitter.emitted)
            yield _counter("refused", "Messages that the target will never take.", emitter.refused)


def _gauge(name: str, text: str, value: float) -> Metric:
    return GaugeMetricFamily(f"edge_ingest_{name}", text, value=value)


def _counter(name: str, text: str, value: float) -> Metric:
    return CounterMetricFamily(f"edge_ingest_{name}", text, value=value)


def _labelled(name: str, text: str, label: str, values: dict[str, int]) -> Metric:
    family = CounterMetricFamily(f"edge_ingest_{name}", text, labels=[label])
    for label_value, value in values.items():
        family.add_metric([label_value], value)
    return family
