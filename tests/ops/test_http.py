"""Health and metrics over HTTP, asked of a real broker: what is answered, what is refused, and who is not disturbed."""

from __future__ import annotations

import asyncio
import logging
import re
import time
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest

from edge_broker.broker import Broker
from edge_broker.config.http import HttpConfig
from edge_broker.config.listeners import ListenerConfig
from edge_broker.config.model import Config
from edge_broker.core.ops import Batch
from edge_broker.errors import StoreError
from edge_broker.ops import http
from tests.ops.gateway import PUBACK, Client, bridge_to, gateway, until, web_of

NOBODY_LISTENS = "mqtt://127.0.0.1:1"


async def answer_of(reader: asyncio.StreamReader) -> bytes:
    """Everything that comes before the connection ends, however it ends."""
    async with asyncio.timeout(5):
        try:
            return await reader.read()
        except ConnectionResetError:
            return b""


async def test_a_healthy_broker_says_so(state_dir: Path) -> None:
    async with gateway(state_dir) as broker, web_of(broker) as web:
        status, health = await web.get("/healthz")
        assert status == 200
        assert (health["live"], health["ready"], health["problems"]) == (True, True, [])
        assert health["store"] == {"healthy": True, "problem": ""}
        assert health["listeners"] == {"up": broker.listening, "down": []}
        assert health["bridges"] == []
        assert 0 <= health["event_loop_lag_seconds"] < 5
        assert await web.get("/livez") == (200, {"live": True})
        assert await web.get("/readyz") == (200, {"ready": True, "problems": []})


async def test_health_says_why_the_store_refuses_and_when_it_works_again(
    state_dir: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with gateway(state_dir) as broker, web_of(broker) as web:
        subscriber = await Client.connect(broker, "keeper", session_expiry_seconds=60)
        await subscriber.subscribe("up/#")
        await subscriber.leave()
        works = broker.store.commit

        async def refuse(batch: Batch) -> None:
            raise StoreError("commit", "the card is gone", "put it back")

        monkeypatch.setattr(broker.store, "commit", refuse)
        publisher = await Client.connect(broker, "publisher")
        publisher.publish("up/1")
        await until(lambda: not broker.journal.healthy, "the commit did not fail")

        status, health = await web.get("/healthz")
        assert status == 503
        assert (health["live"], health["ready"]) == (True, False)
        (problem,) = health["problems"]
        assert problem["component"] == "store"
        assert "the card is gone" in problem["problem"]
        assert problem["hint"]
        assert (await web.get("/readyz"))[0] == 503
        assert (await web.get("/livez"))[0] == 200
        assert (await web.scrape()).get("store_healthy") == 0

        monkeypatch.setattr(broker.store, "commit", works)
        await publisher.read(PUBACK)
        assert (await web.get("/healthz"))[0] == 200
        assert (await web.scrape()).get("store_healthy") == 1
        await publisher.leave()


async def test_a_bridge_that_is_away_is_shown_and_the_gateway_is_ready(state_dir: Path) -> None:
    bridge = bridge_to(NOBODY_LISTENS)
    async with gateway(state_dir, [bridge]) as broker, web_of(broker) as web:
        await until(lambda: bridge.status().last_error, "the bridge did not fail")
        status, health = await web.get("/healthz")
        assert status == 200
        assert health["ready"] is True
        (shown,) = health["bridges"]
        assert (shown["name"], shown["connected"], shown["upstream"]) == ("cluster", False, NOBODY_LISTENS)
        (problem,) = health["problems"]
        assert problem["component"] == "bridge cluster"
        assert "refused" in problem["problem"]
        assert problem["hint"]


async def test_a_closed_listener_makes_unready(state_dir: Path) -> None:
    async with gateway(state_dir) as broker, web_of(broker) as web:
        (url,) = broker.listening
        broker._listeners[0].stop_accepting()
        status, health = await web.get("/readyz")
        assert status == 503
        assert url in health["problems"][0]["problem"]


async def test_work_that_stopped_is_no_life(state_dir: Path) -> None:
    async with gateway(state_dir) as broker, web_of(broker) as web:
        assert broker._sweeper is not None
        broker._sweeper.cancel()
        broker.swept_at = time.monotonic() - 60
        assert await web.get("/livez") == (503, {"live": False})
        assert (await web.get("/healthz"))[0] == 503


@pytest.mark.parametrize("path", ["/", "/healthz", "/metrics", "/nowhere"])
async def test_headers(state_dir: Path, path: str) -> None:
    """Every answer, also one that is no: never guessed at, never kept, nothing told to other sites."""
    async with gateway(state_dir) as broker, web_of(broker) as web:
        answer = await web.session.get(web.url + path, headers={"Origin": "https://elsewhere.example"})
        assert answer.status == (404 if path == "/nowhere" else 200)
        assert answer.headers["X-Content-Type-Options"] == "nosniff"
        assert answer.headers["Cache-Control"] == "no-store"
        assert answer.headers["Connection"] == "close"
        assert answer.headers["Server"] == "edge-broker"
        assert not [name for name in answer.headers if name.startswith("Access-Control")]


@pytest.mark.parametrize("method", ["POST", "PUT", "PATCH", "DELETE", "OPTIONS"])
async def test_nothing_can_be_changed(state_dir: Path, method: str) -> None:
    async with gateway(state_dir) as broker, web_of(broker) as web:
        answer = await web.session.request(method, web.url + "/metrics", data=b"x")
        assert answer.status == 405
        assert answer.headers["X-Content-Type-Options"] == "nosniff"


async def test_head_has_no_body(state_dir: Path) -> None:
    async with gateway(state_dir) as broker, web_of(broker) as web:
        answer = await web.session.head(web.url + "/metrics")
        assert answer.status == 200
        assert answer.headers["Content-Type"] == "text/plain; version=0.0.4; charset=utf-8"
        assert await answer.read() == b""


async def test_the_index_lists_what_there_is(state_dir: Path) -> None:
    async with gateway(state_dir) as broker, web_of(broker) as web:
        async with web.session.get(web.url + "/") as answer:
            links = re.findall(r'href="([^"]+)"', await answer.text())
        assert links == ["/healthz", "/livez", "/readyz", "/metrics"]
        for link in links:
            async with web.session.get(web.url + link) as answer:
                assert answer.status == 200, link


async def test_a_fault_of_ours_is_answered_logged_and_survived(
    state_dir: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    async with gateway(state_dir) as broker, web_of(broker) as web:
        client = await Client.connect(broker, "sensor")

        def break_down(*_: Any) -> None:
            raise ZeroDivisionError("secret detail")

        with monkeypatch.context() as broken, caplog.at_level(logging.ERROR, "edge_broker.ops"):
            broken.setattr(broker._http._metrics._collector, "collect", break_down)
            async with web.session.get(web.url + "/metrics") as answer:
                assert answer.status == 500
                assert answer.headers["X-Content-Type-Options"] == "nosniff"
                assert "secret detail" not in await answer.text()
        assert [record.getMessage() for record in caplog.records] == ["/metrics could not be answered"]
        assert caplog.records[0].exc_info is not None
        await client.publish_all("up/1", 3)
        assert (await web.scrape()).get("messages_received_total", qos="1") == 3
        await client.leave()


async def test_a_client_that_never_finishes_its_request_is_cut(
    state_dir: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(http, "_SWEEP_SECONDS", 0.05)
    monkeypatch.setattr(http, "_MAX_CONNECTION_SECONDS", 0.2)
    async with gateway(state_dir) as broker, web_of(broker) as web:
        port = int(web.url.rsplit(":", 1)[1])
        reader, writer = await asyncio.open_connection("127.0.0.1", port)
        with closing(writer):
            writer.write(b"GET /metrics HTTP/1.1\r\nHost: ")
            assert await answer_of(reader) == b""
        await until(lambda: not broker._http._opened, "closed connections are not forgotten")
        assert broker._http._sweeper is None


async def test_too_many_http_clients_are_refused_and_mqtt_goes_on(
    state_dir: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(http, "_MAX_CONNECTIONS", 3)
    async with gateway(state_dir) as broker, web_of(broker) as web:
        port = int(web.url.rsplit(":", 1)[1])
        held = [await asyncio.open_connection("127.0.0.1", port) for _ in range(3)]
        await until(lambda: len(broker._http._runner.server.connections) == 3, "they are not connected")
        reader, writer = await asyncio.open_connection("127.0.0.1", port)
        with closing(writer):
            writer.write(b"GET /livez HTTP/1.1\r\nHost: x\r\n\r\n")
            assert await answer_of(reader) == b""
        client = await Client.connect(broker, "sensor")
        await client.publish_all("up/1", 3)
        await client.leave()
        for _, writer in held:
            writer.close()
        await until(lambda: not broker._http._runner.server.connections, "they are still counted")
        assert (await web.get("/livez"))[0] == 200


async def test_a_client_that_does_not_read_its_answer_delays_nobody(state_dir: Path) -> None:
    """Twenty ask for the metrics again and again and read nothing, while a publisher wants its acknowledgements."""
    async with gateway(state_dir) as broker, web_of(broker) as web:
        port = int(web.url.rsplit(":", 1)[1])
        lazy = [await asyncio.open_connection("127.0.0.1", port) for _ in range(20)]
        for _, writer in lazy:
            writer.write(b"GET /metrics HTTP/1.1\r\nHost: x\r\n\r\n" * 50)
        client = await Client.connect(broker, "sensor")
        async with asyncio.timeout(5):
            await client.publish_all("up/1", 200)
        await client.leave()
        for _, writer in lazy:
            writer.close()


async def test_what_is_not_http_is_answered_and_not_logged(
    state_dir: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """An MQTT client with the wrong port: it is told no, and a log line per attempt would fill the card."""
    async with gateway(state_dir) as broker, web_of(broker) as web:
        reader, writer = await asyncio.open_connection("127.0.0.1", int(web.url.rsplit(":", 1)[1]))
        with closing(writer), caplog.at_level(logging.INFO):
            writer.write(b"\x10\x10\0\4MQTT\4\2\0\0\0\4abcd\r\n\r\n")
            answer = await answer_of(reader)
        assert answer.startswith(b"HTTP/1.0 400 ")
        assert caplog.records == []


async def test_a_port_that_is_taken_is_said_and_nothing_is_left_open(state_dir: Path, tmp_path: Path) -> None:
    async with gateway(tmp_path / "first") as first, web_of(first) as web:
        config = Config(
            data_dir=state_dir,
            listeners=(ListenerConfig(bind="127.0.0.1:0"),),
            http=HttpConfig(bind=web.url.removeprefix("http://")),
        )
        with pytest.raises(OSError, match="address"):
            await Broker(config).start()
        async with gateway(state_dir):  # the directory is free, so its store was closed
            pass


async def test_nobody_is_served_after_the_stop(state_dir: Path) -> None:
    async with gateway(state_dir) as broker, web_of(broker) as web:
        assert (await web.get("/livez"))[0] == 200
        port = int(web.url.rsplit(":", 1)[1])
    with pytest.raises(ConnectionRefusedError):
        await asyncio.open_connection("127.0.0.1", port)
