"""A message followed from its publisher to mosquitto: its spans arrive at a collector that decodes OTLP."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest
from paho.mqtt.packettypes import PacketTypes
from paho.mqtt.properties import Properties

from bridge import Bridge
from bridge.tracing import find_context
from edge_broker.broker import Broker
from edge_broker.config.tracing import TracingConfig
from tests.bridge.real import Gateway, Log, Mosquitto, Person, bridge_config, free_port, rule, running, until

pytestmark = pytest.mark.needs("mosquitto")

TRACE, PARENT = "4bf92f3577b34da6a3ce929d0e0e4736", "00f067aa0ba902b7"


class Collector:
    """Takes OTLP over HTTP. `spans`: what came, `services`: who sent it."""

    def __init__(self) -> None:
        self.spans: list[Any] = []
        self.services: set[str] = set()
        collector = self

        class Handler(BaseHTTPRequestHandler):
            def do_POST(self) -> None:
                request = ExportTraceServiceRequest()
                request.ParseFromString(self.rfile.read(int(self.headers["Content-Length"])))
                for resource in request.resource_spans:
                    named = {pair.key: pair.value.string_value for pair in resource.resource.attributes}
                    collector.services.add(named["service.name"])
                    for scope in resource.scope_spans:
                        collector.spans += scope.spans
                self.send_response(200)
                self.end_headers()

            def log_message(self, *_: object) -> None: ...

        self._server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.endpoint = f"http://127.0.0.1:{self._server.server_port}/v1/traces"
        self._thread = threading.Thread(target=self._server.serve_forever)

    async def start(self) -> None:
        self._thread.start()

    async def stop(self) -> None:
        await asyncio.to_thread(self._server.shutdown)
        self._server.server_close()
        self._thread.join()


@asynccontextmanager
async def traced(tmp_path: Path, upstream: Mosquitto, tracing: TracingConfig) -> AsyncIterator[Gateway]:
    gateway = Gateway(tmp_path / "data", bridge_config(upstream.url, out=(rule("#", remote="up/"),)))
    gateway.bridges = [Bridge(config, tracing) for config in gateway._config.bridges]
    gateway.broker = Broker(gateway._config, bridges=gateway.bridges)
    await gateway.broker.start()
    try:
        yield await gateway.online()
    finally:
        await gateway.stop()


async def test_a_reading_is_followed_to_the_upstream(tmp_path: Path) -> None:
    upstream, collector = Mosquitto(tmp_path / "upstream"), Collector()
    tracing = TracingConfig(endpoint=collector.endpoint, service_name="pi 7")
    async with running(upstream, collector), traced(tmp_path, upstream, tracing) as gateway:
        cloud = await (await Person().connect(upstream.url)).subscribe("#")
        sensor = await Person().connect(gateway.url)
        properties = Properties(PacketTypes.PUBLISH)  # type: ignore[no-untyped-call]
        properties.UserProperty = [("traceparent", f"00-{TRACE}-{PARENT}-01")]
        await sensor.publish("t", "plain")
        await sensor.publish("t", "followed", properties=properties)
        await until(lambda: len(collector.spans) == 3, "the spans did not arrive")
        assert cloud.payloads == ["plain", "followed"]
        context = find_context(cloud.messages[1].properties.UserProperty)
        spans = {span.name: span for span in collector.spans}
        assert set(spans) == {"publish", "queued", "acknowledged"}
        assert {span.trace_id.hex() for span in collector.spans} == {TRACE}
        whole = spans["publish"]
        assert context is not None
        assert (whole.span_id.hex(), whole.parent_span_id.hex()) == (context.span_id, PARENT)
        assert spans["queued"].parent_span_id == spans["acknowledged"].parent_span_id == whole.span_id
        assert whole.start_time_unix_nano == spans["queued"].start_time_unix_nano
        assert spans["queued"].end_time_unix_nano == spans["acknowledged"].start_time_unix_nano
        assert whole.end_time_unix_nano == spans["acknowledged"].end_time_unix_nano
        assert 0 <= whole.end_time_unix_nano - whole.start_time_unix_nano < 10e9
        said = {pair.key: pair.value.string_value or pair.value.int_value for pair in whole.attributes}
        assert said["messaging.destination.name"] == "up/t"
        assert said["edge.sequence"] == 2
        assert collector.services == {"pi 7"}
        assert gateway.bridge.status().spans_lost == 0
        cloud.leave()
        sensor.leave()


async def test_what_is_not_sent_yet_is_sent_at_the_end(tmp_path: Path) -> None:
    upstream, collector = Mosquitto(tmp_path / "upstream"), Collector()
    async with running(upstream, collector):
        tracing = TracingConfig(endpoint=collector.endpoint, sample_rate=1)
        async with traced(tmp_path, upstream, tracing) as gateway:
            sensor = await Person().connect(gateway.url)
            await sensor.publish("t", *map(str, range(300)))
            await gateway.drained()
            sensor.leave()
        assert len(collector.spans) == 900
        assert len({span.trace_id for span in collector.spans}) == 300


async def test_a_collector_that_is_away_holds_up_no_message(tmp_path: Path) -> None:
    upstream = Mosquitto(tmp_path / "upstream")
    tracing = TracingConfig(endpoint=f"http://127.0.0.1:{free_port()}/v1/traces", sample_rate=1)
    with Log() as log:
        async with running(upstream), traced(tmp_path, upstream, tracing) as gateway:
            sensor = await Person().connect(gateway.url)
            await sensor.publish("t", *map(str, range(20)))
            await gateway.drained()
            await until(lambda: gateway.bridge.status().spans_lost == 60, "the loss is not counted")
            sensor.leave()
    (line,) = [line for line in log.of("WARNING") if line.startswith("tracing:")]
    assert "no spans arrive at http://127.0.0.1" in line
