"""The metrics of a real broker, parsed by Prometheus' own parser: complete, right, bounded, and harmless to ask for."""

from __future__ import annotations

import asyncio
import os
import re
import socket
import time
from pathlib import Path

import pytest

from bridge import Bridge
from bridge.config import BridgeConfig, RuleConfig
from bridge.envelopes_config import EnvelopesConfig
from bridge.policy_config import PacingConfig
from bridge.priorities import NORMAL
from edge_broker import __version__
from edge_broker.broker import Broker
from edge_broker.core.message import build_message
from edge_broker.core.ops import Page
from edge_broker.errors import StoreError
from edge_broker.ops import backlog, disk
from tests.ops.gateway import PUBLISH, Client, Scrape, bridge_to, gateway, until, web_of

ROOT = Path(__file__).resolve().parents[2]
NOBODY_LISTENS = "mqtt://127.0.0.1:1"
NAME = re.compile(r"\bedge_broker_\w+")
OF_HISTOGRAMS = re.compile(r"_(bucket|sum|count)$")


def names_in(path: str) -> set[str]:
    """Every metric that a file speaks of."""
    return {OF_HISTOGRAMS.sub("", name) for name in NAME.findall((ROOT / path).read_text("utf-8"))}


async def leave_behind(broker: Broker, client_id: str, messages: int, topic: str = "up/1") -> None:
    """A durable session that is away, for which `messages` wait that are on disk."""
    keeper = await Client.connect(broker, client_id, session_expiry_seconds=600)
    await keeper.subscribe(topic)
    await keeper.leave()
    session = broker.router.sessions[client_id]
    await until(lambda: not session.online, "the session is still connected")
    publisher = await Client.connect(broker, f"{client_id}-publisher")
    await publisher.publish_all(topic, messages)
    await publisher.leave()
    assert session.queue.depth == messages
    assert not session.queue.messages, "they are in memory"


# ---- everything is there


@pytest.mark.parametrize("path", ["deploy/prometheus/edge-broker.rules.yml", "docs/monitoring.md"])
async def test_what_rules_and_documentation_name_exists(state_dir: Path, path: str) -> None:
    named = names_in(path)
    assert len(named) > 10, "the pattern finds too little"
    async with gateway(state_dir, [bridge_to(NOBODY_LISTENS)]) as broker, web_of(broker) as web:
        scrape = await web.scrape()
    assert named - scrape.names == set()


async def test_version_start_and_process(state_dir: Path) -> None:
    before = time.time()
    async with gateway(state_dir) as broker, web_of(broker) as web:
        scrape = await web.scrape()
        swept_at = broker.swept_at
        await until(lambda: broker.swept_at > swept_at, "the every-second work did not run")
        later = await web.scrape()
    assert scrape.get("info", version=__version__) == 1
    started_at = scrape.get("start_time_seconds")
    assert started_at is not None
    assert before <= started_at <= time.time()
    assert {"process_resident_memory_bytes", "process_cpu_seconds_total"} <= scrape.names
    assert later.get("event_loop_lag_seconds_count") == later.get("event_loop_lag_seconds_bucket", le="+Inf")
    assert (later.get("event_loop_lag_seconds_count") or 0) >= 1


# ---- the numbers are right


async def test_clients_and_messages_are_counted(state_dir: Path) -> None:
    async with gateway(state_dir) as broker, web_of(broker) as web:
        reader = await (await Client.connect(broker, "reader")).subscribe("a/#")
        writer = await Client.connect(broker, "writer")
        writer.publish("a/1", qos=0)
        await writer.publish_all("a/1", 2)
        for _ in range(3):
            await reader.read(PUBLISH)
        scrape = await web.scrape()
        assert scrape.get("connections") == 2
        assert scrape.get("connections_total") == 2
        assert scrape.of("sessions", "state") == {"connected": 2, "disconnected": 0}
        assert scrape.get("subscriptions") == 1
        assert scrape.of("messages_received_total", "qos") == {"0": 1, "1": 2, "2": 0}
        assert scrape.of("messages_sent_total", "qos") == {"0": 1, "1": 2, "2": 0}
        await reader.leave()
        await writer.leave()
        await until(lambda: not broker.connections, "they are still connected")
        scrape = await web.scrape()
        assert (scrape.get("connections"), scrape.get("connections_total")) == (0, 2)
        assert scrape.get("subscriptions") == 0


async def test_what_the_store_does_is_counted(state_dir: Path) -> None:
    async with gateway(state_dir) as broker, web_of(broker) as web:
        before = await web.scrape()
        await leave_behind(broker, "keeper", 5)
        scrape = await web.scrape()
        assert (scrape.get("store_commits_total") or 0) > (before.get("store_commits_total") or 0)
        assert scrape.get("store_commits_total") == broker.store.commits
        assert scrape.get("store_bytes") == broker.store.file_bytes
        assert (scrape.get("store_healthy"), scrape.get("store_errors_total")) == (1, 0)
        assert scrape.get("uncommitted_bytes") == 0
        assert scrape.get("publish_acknowledge_seconds_count") == 5
        assert scrape.of("sessions", "state")["disconnected"] == 1
        for name, observations in (
            ("commit_seconds", broker.journal.batches),
            ("publish_acknowledge_seconds", 5),
        ):
            buckets = list(scrape.of(f"{name}_bucket", "le").values())
            assert buckets == sorted(buckets)
            assert buckets[-1] == scrape.get(f"{name}_count") == observations
            assert (scrape.get(f"{name}_sum") or 0) > 0


async def test_retained_and_refused_and_dropped(state_dir: Path) -> None:
    async with gateway(state_dir) as broker, web_of(broker) as web:
        broker.router.publish(build_message("a/1", b"1", retain=True), None)
        host, port = "127.0.0.1", int(broker.listening[0].rsplit(":", 1)[1])
        reader, writer = await asyncio.open_connection(host, port)
        writer.write(b"\xc0\0")  # PINGREQ, where only CONNECT may come
        await reader.read()
        writer.close()
        await leave_behind(broker, "keeper", 1, "b/1")
        broker.router.publish(build_message("b/1", b"1", qos=0), None)
        scrape = await web.scrape()
        assert scrape.get("retained_messages") == 1
        assert scrape.of("connections_refused_total", "reason") == broker.router.counters.refused
        assert sum(scrape.of("connections_refused_total", "reason").values()) == 1
        assert scrape.of("messages_dropped_total", "reason") == {"offline": 1, "expired": 0, "lost": 0}


async def test_dropped_never_falls_when_a_session_ends(state_dir: Path) -> None:
    async with gateway(state_dir) as broker, web_of(broker) as web:
        keeper = await (await Client.connect(broker, "keeper", session_expiry_seconds=60)).subscribe("a/#")
        await keeper.leave()
        await until(lambda: not broker.router.sessions["keeper"].online, "it is still connected")
        publisher = await Client.connect(broker, "publisher")
        publisher.publish("a/1", expiry_seconds=1)
        await publisher.read(0x40)
        queue = broker.router.sessions["keeper"].queue
        await until(
            lambda: queue.expired == 0 and queue.depth == 1 and not queue.messages, "it is not on disk"
        )
        back = asyncio.create_task(_come_back_when_expired(broker))
        keeper = await back
        await until(lambda: queue.expired == 1, "it did not expire")
        assert (await web.scrape()).get("messages_dropped_total", reason="expired") == 1
        await keeper.leave()
        clean = await Client.connect(broker, "keeper")
        assert broker.router.sessions["keeper"].queue is not queue
        assert (await web.scrape()).get("messages_dropped_total", reason="expired") == 1
        await clean.leave()
        await publisher.leave()


async def _come_back_when_expired(broker: Broker) -> Client:
    await asyncio.sleep(1.05)  # the shortest expiry that MQTT knows is a second
    return await Client.connect(broker, "keeper", session_expiry_seconds=60)


async def test_a_bridge_that_is_away_and_one_that_delivers(state_dir: Path, tmp_path: Path) -> None:
    async with gateway(tmp_path / "cluster") as cluster:
        there, away = bridge_to(cluster.listening[0], "there"), bridge_to(NOBODY_LISTENS, "away")
        async with gateway(state_dir, [there, away]) as broker, web_of(broker) as web:
            await until(lambda: there.status().connected, "the bridge is not connected")
            first = await web.scrape()
            assert first.get("bridge_last_acknowledged_timestamp_seconds", bridge="there") is None
            publisher = await Client.connect(broker, "publisher")
            await publisher.publish_all("up/1", 4)
            publisher.publish("live/1", qos=0)
            await until(lambda: there.status().acknowledged == 4, "nothing was acknowledged upstream")
            await until(lambda: away.status().dropped, "the message at QoS 0 was not dropped")
            scrape = await web.scrape()
            await publisher.leave()
    assert scrape.of("bridge_connected", "bridge") == {"there": 1, "away": 0}
    assert scrape.get("bridge_breaker", bridge="there", state="closed") == 1
    assert scrape.get("bridge_breaker", bridge="there", state="open") == 0
    assert scrape.get("bridge_upstream_chosen", bridge="away", upstream=NOBODY_LISTENS) == 1
    assert scrape.get("bridge_upstream_ejected", bridge="away", upstream=NOBODY_LISTENS) == 0
    url = there.config.urls[0]
    connack = scrape.get("bridge_upstream_answer_seconds", bridge="there", upstream=url, kind="connack")
    assert connack is not None
    assert 0 < connack < 5
    for counter in ("breaker_opened", "failovers", "ejections"):
        assert scrape.of(f"bridge_{counter}_total", "bridge")["there"] == 0
    assert scrape.of("bridge_draining", "bridge") == {"there": 0, "away": 0}
    assert scrape.of("bridge_drain_seconds", "bridge") == {}
    assert scrape.of("bridge_month_bytes", "bridge") == {}
    assert scrape.of("bridge_acknowledged_total", "bridge") == {"there": 4, "away": 0}
    assert scrape.of("bridge_connects_total", "bridge") == {"there": 1, "away": 0}
    assert scrape.of("bridge_resent_total", "bridge") == {"there": 0, "away": 0}
    assert scrape.of("bridge_in_flight", "bridge") == {"there": 0, "away": 0}
    assert scrape.get("bridge_failures_total", bridge="there", kind="connect") == 0
    assert (scrape.get("bridge_failures_total", bridge="away", kind="connect") or 0) >= 1
    assert scrape.of("queue_messages", "queue") == {"bridge:there": 0, "bridge:away": 4, "other": 0}
    assert scrape.get("messages_dropped_total", reason="offline") == 1
    last = scrape.get("bridge_last_acknowledged_timestamp_seconds", bridge="there")
    assert last is not None
    assert abs(last - time.time()) < 30
    assert scrape.get("bridge_last_acknowledged_timestamp_seconds", bridge="away") is None
    ages = scrape.of("queue_oldest_age_seconds", "queue")
    assert ages["bridge:there"] == 0
    assert 0 < ages["bridge:away"] < 30


async def test_a_bridge_with_limits_tells_of_them(state_dir: Path) -> None:
    pacing = PacingConfig(drain_messages_per_second=2.0, monthly_bytes=1000)
    with socket.create_server(("127.0.0.1", 0)) as silent:
        config = BridgeConfig(
            name="slow",
            urls=(f"mqtt://127.0.0.1:{silent.getsockname()[1]}",),
            out=(RuleConfig(filter="#"),),
            pacing=pacing,
        )
        async with gateway(state_dir, [Bridge(config)]) as broker, web_of(broker) as web:
            scrape = await web.scrape()
    assert scrape.get("bridge_month_bytes", bridge="slow") == 1000
    assert scrape.get("bridge_month_used_bytes", bridge="slow") is not None


async def test_a_bridge_with_envelopes_tells_what_they_save(state_dir: Path) -> None:
    there = Bridge(
        BridgeConfig(
            name="packs",
            urls=(NOBODY_LISTENS,),
            out=(RuleConfig(filter="#"),),
            envelopes=EnvelopesConfig(enabled=True),
        )
    )
    async with (
        gateway(state_dir, [there, bridge_to(NOBODY_LISTENS, "plain")]) as broker,
        web_of(broker) as web,
    ):
        envelopes = there._way_up.forwarders[NORMAL].envelopes
        assert envelopes is not None
        envelopes.sent, envelopes.messages, envelopes.fallen_apart = 2, 30, 1
        envelopes.bytes_before, envelopes.bytes_after = 3_000, 500
        scrape = await web.scrape()
    assert scrape.of("bridge_envelopes_sent_total", "bridge") == {"packs": 2}
    assert scrape.get("bridge_enveloped_messages_total", bridge="packs") == 30
    assert scrape.get("bridge_enveloped_bytes_total", bridge="packs") == 3_000
    assert scrape.get("bridge_envelopes_bytes_total", bridge="packs") == 500
    assert scrape.get("bridge_envelopes_fallen_apart_total", bridge="packs") == 1
    assert scrape.get("bridge_leases_malformed_total", bridge="packs") == 0
    assert scrape.get("bridge_lease_held", bridge="packs") == 0


async def test_store_errors_count_commits_and_reads(state_dir: Path) -> None:
    async with gateway(state_dir) as broker, web_of(broker) as web:
        broker.store.commit_errors, broker.reading.errors = 2, 3
        assert (await web.scrape()).get("store_errors_total") == 5


async def test_a_page_that_cannot_be_read_is_counted(
    state_dir: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with gateway(state_dir) as broker:
        await leave_behind(broker, "keeper", 1)

        async def refuse(*_: int) -> Page:
            raise StoreError("read", "the card is gone")

        with monkeypatch.context() as broken:
            broken.setattr(broker.store, "read_page", refuse)
            keeper = await Client.connect(broker, "keeper", session_expiry_seconds=60)
            await until(lambda: broker.read_errors == 1, "the failed read was not counted")
        await keeper.leave()


def test_written_bytes_are_the_kernels(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    count = tmp_path / "io"
    count.write_text("wchar: 1\ncancelled_write_bytes: 7\nwrite_bytes: 4096\n")
    monkeypatch.setattr(disk, "_PROCESS_IO", count)
    assert disk.written_bytes() == 4096
    monkeypatch.setattr(disk, "_PROCESS_IO", tmp_path / "none")
    assert disk.written_bytes() is None


@pytest.mark.skipif(
    not os.access("/proc/self/io", os.R_OK), reason="this kernel does not count written bytes"
)
async def test_written_bytes_are_shown(state_dir: Path) -> None:
    async with gateway(state_dir) as broker, web_of(broker) as web:
        before = disk.written_bytes()
        shown = (await web.scrape()).get("written_bytes_total")
        after = disk.written_bytes()
    assert before is not None
    assert after is not None
    assert shown is not None
    assert before <= shown <= after


# ---- queues


async def test_the_age_of_what_is_on_disk_only(state_dir: Path) -> None:
    """It is read once and remembered until it is not the oldest any more."""
    async with gateway(state_dir) as broker, web_of(broker) as web:
        started = time.monotonic()
        await leave_behind(broker, "keeper", 3)
        read = broker.store.pages_read
        first = (await web.scrape()).get("queue_oldest_age_seconds", queue="session:keeper")
        assert broker.store.pages_read == read + 1
        second = (await web.scrape()).get("queue_oldest_age_seconds", queue="session:keeper")
        assert broker.store.pages_read == read + 1
        assert first is not None
        assert second is not None
        assert 0 < first < second < time.monotonic() - started
        keeper = await Client.connect(broker, "keeper", session_expiry_seconds=600)
        await keeper.read(PUBLISH)
        await until(lambda: broker.router.sessions["keeper"].queue.messages, "nothing was read back")
        third = (await web.scrape()).get("queue_oldest_age_seconds", queue="session:keeper")
        assert third is not None
        assert third > second
        await keeper.leave()


async def test_the_oldest_of_all_others(state_dir: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(backlog, "NAMED_SESSIONS", 1)
    monkeypatch.setattr(backlog, "READS_PER_LOOK", 2)
    async with gateway(state_dir) as broker, web_of(broker) as web:
        await leave_behind(broker, "oldest", 1, "a/1")
        oldest_came_before = time.monotonic()
        await leave_behind(broker, "older", 1, "a/2")
        await leave_behind(broker, "deepest", 2, "a/3")
        read = broker.store.pages_read
        await web.scrape()
        assert broker.store.pages_read == read + 2, "more was read than a look may"
        asked_at = time.monotonic()
        scrape = await web.scrape()
        assert broker.store.pages_read == read + 3
        ages = scrape.of("queue_oldest_age_seconds", "queue")
        assert set(ages) == {"session:deepest", "other"}
        assert ages["other"] > asked_at - oldest_came_before > ages["session:deepest"]
        assert scrape.of("queue_messages", "queue") == {"session:deepest": 2, "other": 2}


async def test_a_store_that_hangs_delays_a_scrape_by_its_patience_only(
    state_dir: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(backlog, "_PATIENCE_SECONDS", 0.05)
    async with gateway(state_dir) as broker, web_of(broker) as web:
        await leave_behind(broker, "keeper", 1)
        works, released = broker.store.read_page, asyncio.Event()
        asked = 0

        async def hang(*arguments: int) -> Page:
            nonlocal asked
            asked += 1
            await released.wait()
            return await works(*arguments)

        monkeypatch.setattr(broker.store, "read_page", hang)
        for _ in range(3):
            async with asyncio.timeout(5):
                scrape = await web.scrape()
            assert scrape.get("queue_messages", queue="session:keeper") == 1
            assert scrape.get("queue_oldest_age_seconds", queue="session:keeper") is None
        assert asked == 1, "it is asked again and again"
        released.set()
        await until(broker._http._metrics._backlogs._reading.done, "the read did not end")
        assert (await web.scrape()).get("queue_oldest_age_seconds", queue="session:keeper") is not None


async def test_a_read_that_hangs_does_not_hold_up_the_stop(
    state_dir: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(backlog, "_PATIENCE_SECONDS", 0.01)
    async with gateway(state_dir) as broker, web_of(broker) as web:
        await leave_behind(broker, "keeper", 1)

        async def hang(*_: int) -> Page:
            await asyncio.Event().wait()
            raise AssertionError

        monkeypatch.setattr(broker.store, "read_page", hang)
        await web.scrape()
        reading = broker._http._metrics._backlogs._reading
        assert not reading.done()
    assert reading.cancelled()


async def test_a_store_that_cannot_be_read_leaves_the_age_out(
    state_dir: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    async with gateway(state_dir) as broker, web_of(broker) as web:
        await leave_behind(broker, "keeper", 1)

        async def refuse(*_: int) -> Page:
            raise StoreError("read", "the card is gone")

        monkeypatch.setattr(broker.store, "read_page", refuse)
        for _ in range(3):
            scrape = await web.scrape()
            assert scrape.get("queue_messages", queue="session:keeper") == 1
            assert scrape.get("queue_oldest_age_seconds", queue="session:keeper") is None
    said = [record.getMessage() for record in caplog.records if record.name == "edge_broker.ops"]
    assert said == ["metrics lack the age of a queue's oldest message: read: the card is gone"]


async def test_a_thousand_sessions_have_eleven_names(state_dir: Path) -> None:
    async with gateway(state_dir, [bridge_to(NOBODY_LISTENS)]) as broker, web_of(broker) as web:
        router = broker.router
        for index in range(1000):
            session = router._new_session(f"client-{index:04}", "", 3600)
            for _ in range(1 + index % 50 if index >= 20 else 100 + index):
                session.queue.append(build_message("a/1", b"1", qos=1))
        broker.request_tick()
        scrape = await web.scrape()
        depths = scrape.of("queue_messages", "queue")
        deepest = {f"session:client-{index:04}": 100 + index for index in range(10, 20)}
        assert {name: depth for name, depth in depths.items() if name.startswith("session:")} == deepest
        assert set(depths) == {*deepest, "bridge:cluster", "other"}
        assert sum(depths.values()) == sum(session.queue.depth for session in router.sessions.values())
        assert set(scrape.of("queue_oldest_age_seconds", "queue")) <= set(depths)
        assert scrape.of("sessions", "state") == {"connected": 0, "disconnected": 1000}
        for session in list(router.sessions.values()):
            router.end_session(session)


async def test_any_client_identifier_makes_a_label(state_dir: Path) -> None:
    """Quotes, line ends and long ones that begin alike: the parser reads them all, and no two are the same."""
    odd = ['say "hi"', "two\nlines", "back\\slash", "x" * 300, "x" * 299 + "y", "Größe °C"]
    async with gateway(state_dir) as broker, web_of(broker) as web:
        for depth, client_id in enumerate(odd, 1):
            session = broker.router._new_session(client_id, "", 0)
            for _ in range(depth):
                session.queue.append(build_message("a/1", b"1", qos=1))
        depths = (await web.scrape()).of("queue_messages", "queue")
    assert sorted(depths.values()) == [0, 1, 2, 3, 4, 5, 6]
    assert {
        f"session:{name}": depth for depth, name in enumerate(odd, 1) if len(name) < 100
    }.items() <= depths.items()
    assert max(map(len, depths)) < 120


async def test_what_was_received_by_its_subscriber_is_not_the_oldest(state_dir: Path) -> None:
    """Of QoS 2, what has had its PUBREC waits for PUBREL only: the next message is the oldest that somebody lacks."""
    async with gateway(state_dir) as broker, web_of(broker) as web:
        queue = broker.router._new_session("reader", "", 0).queue
        for received_at in (time.monotonic() - 500, time.monotonic() - 100):
            message = build_message("a/1", b"1", qos=2)
            message.received_at = received_at
            queue.append(message)
        queue.rewind()
        queue.next_to_send(time.monotonic())
        assert (await age_of(web.scrape())) > 499
        queue.release(1)
        assert 99 < (await age_of(web.scrape())) < 499
        queue.complete(1)
        assert 99 < (await age_of(web.scrape())) < 499


async def age_of(scraping: object) -> float:
    scrape = await scraping  # type: ignore[misc]
    assert isinstance(scrape, Scrape)
    age = scrape.get("queue_oldest_age_seconds", queue="session:reader")
    assert age is not None
    return age
