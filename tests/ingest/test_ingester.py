"""The ingester in this process: disks that fail, targets that refuse and forget, clusters that deny; what it says then."""

from __future__ import annotations

import asyncio
import errno
import json
import socket
import sqlite3
import urllib.error
import urllib.request
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest
import zstandard

from bridge.envelope import Enclosed, Envelope, EnvelopeWriter, train_dictionary
from bridge.ingest.counters import Counters
from bridge.ingest.file_sink import FileSink
from bridge.ingest.ingester import Ingester
from bridge.ingest.loading import load_ingest_config
from bridge.ingest.worker import Worker
from edge_broker.errors import StoreError
from edge_broker.wire import const
from edge_broker.wire.encoder import encode_connect, encode_publish
from edge_broker.wire.packets import Connect
from tests.bridge.certificates import Authority
from tests.bridge.real import Log, Mosquitto, Person, free_port, until
from tests.ingest.running import Gateway, payload_of

pytestmark = pytest.mark.needs("mosquitto")


@pytest.fixture
async def cluster(tmp_path: Path) -> AsyncIterator[Mosquitto]:
    broker = await Mosquitto(tmp_path / "cluster").start()
    yield broker
    broker.stop()


@pytest.fixture
async def gateway(cluster: Mosquitto) -> AsyncIterator[Gateway]:
    one = await Gateway("gw", 1).connect(cluster.url)
    yield one
    one.leave()


def configured(folder: Path, url: str, more: str = "", top: str = "") -> Ingester:
    path = folder / "ingest.toml"
    path.write_text(
        f'data_dir = "{folder}/data"\n{top}\n[cluster]\nurls = ["{url}"]\nclient_id = "ingest"\n'
        f"backoff_initial_seconds = 0.05\nbackoff_max_seconds = 0.2\n"
        f'[topics]\nmessages = ["s/#"]\n[http]\nbind = "127.0.0.1:0"\n{more}\n'
    )
    return Ingester(load_ingest_config(path))


def lines(folder: Path) -> list[dict[str, Any]]:
    return [
        json.loads(line)
        for path in sorted((folder / "data/output").iterdir())
        for line in path.read_bytes().splitlines()
    ]


async def get(ingester: Ingester, path: str) -> tuple[int, str]:
    """Status and body of an answer over HTTP."""
    assert ingester._http is not None
    url = ingester._http.url + path

    def ask() -> tuple[int, str]:
        try:
            with urllib.request.urlopen(url, timeout=10) as answer:
                return answer.status, answer.read().decode()
        except urllib.error.HTTPError as error:
            return error.code, error.read().decode()

    return await asyncio.to_thread(ask)


async def test_health_and_metrics(tmp_path: Path, cluster: Mosquitto, gateway: Gateway) -> None:
    ingester = configured(tmp_path, cluster.url)
    await ingester.start()
    try:
        await until(lambda: ingester.intake.subscribed, "not subscribed")
        gateway.enveloped("up", 1, [1, 2, 5])
        gateway.plain("up", 1, [5])
        await until(lambda: ingester.counters.taken == 2, "not taken")
        status, body = await get(ingester, "/healthz")
        assert (status, json.loads(body)["problems"], json.loads(body)["missing"]) == (200, [], 2)
        _, metrics = await get(ingester, "/metrics")
        for line in (
            "edge_ingest_written_total 3.0",
            "edge_ingest_envelopes_total 1.0",
            'edge_ingest_duplicates_total{by="origin"} 1.0',
            "edge_ingest_missing_messages 2.0",
            "edge_ingest_lanes_with_gaps 1.0",
            "edge_ingest_connected 1.0",
        ):
            assert f"\n{line}\n" in metrics
        cluster.stop()
        await until(lambda: not ingester.line.online, "still online")
        await until(lambda: ingester.line.last_error is not None, "no error")
        status, body = await get(ingester, "/readyz")
        assert (status, "no connection to the cluster" in body) == (503, True)
        assert (await get(ingester, "/livez"))[0] == 200
    finally:
        await ingester.stop()


async def test_a_full_disk_acknowledges_nothing_and_loses_nothing(
    tmp_path: Path, cluster: Mosquitto, gateway: Gateway, monkeypatch: pytest.MonkeyPatch
) -> None:
    sound, is_full = FileSink.sync, True

    def sync(self: FileSink) -> None:
        if is_full:
            raise OSError(errno.ENOSPC, "No space left on device")
        sound(self)

    monkeypatch.setattr(FileSink, "sync", sync)
    watcher = await (await Person().connect(cluster.url)).subscribe("edge/ingest/lease")
    ingester = configured(tmp_path, cluster.url, "[lease]\nvalid_seconds = 3\nrenew_seconds = 1")
    with Log() as log:
        await ingester.start()
        try:
            await until(lambda: watcher.messages, "no lease")
            gateway.plain("up", 1, [1, 2, 3])
            await until(lambda: ingester.intake.problem, "not noticed")
            status, body = await get(ingester, "/healthz")
            assert (status, "No space left" in body) == (503, True)
            leases = len(watcher.messages)
            await until(lambda: ingester.gaps.missing == 0 and not lines(tmp_path), "something was written")
            is_full = False
            await until(lambda: not ingester.intake.problem, "not recovered")
            assert [one["sequence"] for one in lines(tmp_path)] == [1, 2, 3]
            await until(lambda: len(watcher.messages) > leases, "no lease any more")
            assert ingester.counters.written == 3
        finally:
            await ingester.stop()
    assert len(log.of("ERROR")) == 1
    assert "it is tried again" in log.of("ERROR")[0]
    watcher.leave()


async def test_a_cluster_that_lost_our_session_is_told(
    tmp_path: Path, cluster: Mosquitto, gateway: Gateway
) -> None:
    ingester = configured(tmp_path, cluster.url)
    with Log() as log:
        await ingester.start()
        try:
            await until(lambda: ingester.intake.subscribed, "not subscribed")
            assert log.of("WARNING") == []
            cluster.stop()  # it keeps nothing
            await until(lambda: not ingester.line.online, "still online")
            await cluster.start()
            await until(lambda: ingester.intake.subscribed, "not subscribed again")
            assert any("no session of ours any more" in line for line in log.of("WARNING"))
            gateway.plain("up", 1, [1])
            await until(lambda: ingester.counters.written == 1, "not taken")
        finally:
            await ingester.stop()


async def test_a_fault_of_ours_in_a_batch_is_told_and_the_batch_tried_again(
    tmp_path: Path, cluster: Mosquitto, gateway: Gateway, monkeypatch: pytest.MonkeyPatch
) -> None:
    sound, faults = Worker._settled_counters, [1]

    def broken(self: Worker, taken: int) -> Counters:
        if faults:
            faults.pop()
            raise KeyError("a fault")
        return sound(self, taken)

    monkeypatch.setattr(Worker, "_settled_counters", broken)
    ingester = configured(tmp_path, cluster.url)
    with Log() as log:
        await ingester.start()
        try:
            await until(lambda: ingester.intake.subscribed, "not subscribed")
            gateway.plain("up", 1, [1, 2, 3])
            await until(lambda: ingester.counters.written == 3, "not tried again")
        finally:
            await ingester.stop()
    assert "internal error: KeyError('a fault')" in log.of("ERROR")[0]
    assert [one["sequence"] for one in lines(tmp_path)] == [1, 2, 3]


async def test_filters_that_the_cluster_refuses_are_told_and_no_lease_is_given(tmp_path: Path) -> None:
    rules = tmp_path / "acl"
    rules.write_text("topic readwrite s/#\ntopic readwrite edge/ingest/lease\n")
    cluster = await Mosquitto(tmp_path / "cluster", f"allow_anonymous true\nacl_file {rules}").start()
    watcher = await (await Person().connect(cluster.url)).subscribe("edge/ingest/lease")
    # This mosquitto grants any subscription and delivers what is allowed; a stricter one answers 0x87.
    ingester = configured(tmp_path, cluster.url)
    await ingester.start()
    try:
        await until(lambda: ingester.intake.subscribed, "not subscribed")
        await until(lambda: watcher.messages, "no lease")
        intake = ingester.intake
        with Log() as log:
            intake.subscribed, intake._asked, intake._to_ask = False, ["s/#"], []
            intake.on_suback(1, [0x87])
        assert (intake.subscribed, intake.refused) == (False, ["s/#"])
        assert "refused the subscription to s/#: not authorized" in log.of("ERROR")[0]
        status, body = await get(ingester, "/healthz")
        assert (status, "refused the subscription" in body) == (503, True)
    finally:
        await ingester.stop()
        watcher.leave()
        cluster.stop()


def target_lines(url: str, **keys: object) -> str:
    more = "".join(f"{name} = {value}\n" for name, value in keys.items())
    return (
        f'[target]\nurls = ["{url}"]\nclient_id = "emitter"\nbackoff_initial_seconds = 0.05\nbackoff_max_seconds = 0.2\n'
        f'[mqtt]\ntopic_prefix = "in/"\n{more}'
    )


async def test_what_the_target_refuses_is_set_aside_and_the_rest_goes_on(
    tmp_path: Path, cluster: Mosquitto, gateway: Gateway
) -> None:
    rules = tmp_path / "acl"
    rules.write_text("topic readwrite in/s/gw\ntopic read #\n")
    target = await Mosquitto(
        tmp_path / "target", f"allow_anonymous true\nacl_file {rules}\nmax_packet_size 2000"
    ).start()
    reader = await (await Person().connect(target.url)).subscribe("in/#")
    ingester = configured(tmp_path, cluster.url, target_lines(target.url), 'output = "mqtt"')
    await ingester.start()
    emitter = ingester.emitter
    assert emitter is not None
    try:
        await until(lambda: ingester.intake.subscribed, "not subscribed")
        gateway.plain("up", 1, [1])
        gateway.say("s/forbidden", b"no")
        gateway.say("s/gw", b"x" * 3_000)
        gateway.plain("up", 1, [2])
        await until(lambda: len(reader.messages) == 2, "not emitted")
        await until(lambda: emitter.waiting == 0, "the outbox is not empty")
        assert emitter.refused == 2
        with sqlite3.connect(tmp_path / "data/ingest.db") as database:
            kept = database.execute("SELECT topic, reason FROM rejected ORDER BY number").fetchall()
        assert sorted(kept) == [
            ("in/s/forbidden", "target: not authorized"),
            ("in/s/gw", "target: packet too large"),
        ]
        _, metrics = await get(ingester, "/metrics")
        assert "edge_ingest_refused_total 2.0" in metrics
        assert "edge_ingest_waiting 0.0" in metrics
    finally:
        await ingester.stop()
        reader.leave()
        target.stop()


async def test_while_the_target_is_away_the_outbox_waits_and_then_the_cluster(
    tmp_path: Path, cluster: Mosquitto, gateway: Gateway
) -> None:
    target = Mosquitto(tmp_path / "target")
    ingester = configured(
        tmp_path,
        cluster.url,
        target_lines(target.url, max_waiting=1_000) + "[batch]\nmessages = 500",
        'output = "mqtt"',
    )
    await ingester.start()
    emitter = ingester.emitter
    assert emitter is not None
    try:
        await until(lambda: ingester.intake.subscribed, "not subscribed")
        gateway.plain("up", 1, range(1, 3_001))
        await gateway.settled()
        await until(lambda: emitter.is_full, "not full")
        status, body = await get(ingester, "/healthz")
        assert (status, "too much waits" in body, "no connection to the target" in body) == (503, True, True)
        assert 1_000 < emitter.waiting <= 2_000
        await until(lambda: ingester.counters.written == emitter.waiting, "the batch did not end")
        await target.start()
        reader = await (await Person().connect(target.url)).subscribe("in/#")
        await until(lambda: emitter.emitted == 3_000, "not emitted")
        assert emitter.waiting == 0
        assert ingester.counters.written == 3_000
        reader.leave()
    finally:
        await ingester.stop()
        target.stop()


async def test_a_target_that_lost_our_session_gets_the_rest(
    tmp_path: Path, cluster: Mosquitto, gateway: Gateway
) -> None:
    target = await Mosquitto(tmp_path / "target").start()
    ingester = configured(tmp_path, cluster.url, target_lines(target.url), 'output = "mqtt"')
    await ingester.start()
    emitter = ingester.emitter
    assert emitter is not None
    try:
        await until(lambda: ingester.intake.subscribed, "not subscribed")
        gateway.plain("up", 1, range(1, 11))
        await until(lambda: emitter.emitted == 10, "not emitted")
        target.stop()  # it keeps nothing
        await until(lambda: not emitter.line.online, "still online")
        gateway.plain("up", 1, range(11, 21))
        await target.start()
        await until(lambda: emitter.emitted == 20, "not emitted")
        assert emitter.waiting == 0
    finally:
        await ingester.stop()
        target.stop()


async def test_a_new_outbox_wipes_the_session_of_an_old_one(
    tmp_path: Path, cluster: Mosquitto, gateway: Gateway
) -> None:
    """The old one's identifier 1 is half-way at the target: a new message under it would look like that one, and vanish."""
    target = await Mosquitto(tmp_path / "target").start()
    reader = await (await Person().connect(target.url)).subscribe("in/#")
    await asyncio.to_thread(publish_half_way, target.port, "in/s/gw", payload_of("gw", "up", 1))
    ingester = configured(tmp_path, cluster.url, target_lines(target.url), 'output = "mqtt"')
    await ingester.start()
    try:
        await until(lambda: ingester.intake.subscribed, "not subscribed")
        gateway.plain("up", 1, [1])
        await until(lambda: reader.messages, "not emitted")
    finally:
        await ingester.stop()
        reader.leave()
        target.stop()


def publish_half_way(port: int, topic: str, payload: bytes) -> None:
    """As the emitter of another outbox: a PUBLISH at QoS 2 whose PUBREL never comes."""
    request = Connect(const.MQTT_5, "emitter", False, 60, properties={const.SESSION_EXPIRY_INTERVAL: 3_600})
    with socket.create_connection(("127.0.0.1", port), timeout=10) as client:
        client.sendall(encode_connect(request) + encode_publish(const.MQTT_5, topic, payload, 2, packet_id=1))
        answers = b""
        while b"\x50\x02\x00\x01" not in answers:  # PUBREC
            more = client.recv(1_000)
            assert more, "closed"
            answers += more


async def test_it_is_not_ready_before_the_cluster_granted_the_subscriptions(tmp_path: Path) -> None:
    """A cluster takes its time for that, and keeps nothing for us before."""
    granting = asyncio.Event()

    async def accept(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.read(1_000)
        writer.write(b"\x20\x03\x00\x00\x00")  # CONNACK
        await reader.read(1_000)
        await granting.wait()
        writer.write(b"\x90\x06\x00\x01\x00\x01\x01\x01")  # SUBACK, of three filters
        await reader.read()
        writer.close()

    server = await asyncio.start_server(accept, "127.0.0.1", 0)
    port = server.sockets[0].getsockname()[1]
    ingester = configured(tmp_path, f"mqtt://127.0.0.1:{port}", "[lease]\ntopic = ''")
    await ingester.start()
    try:
        await until(lambda: ingester.line.online, "not connected")
        status, body = await get(ingester, "/readyz")
        assert (status, "has not granted the subscriptions yet" in body) == (503, True)
        granting.set()
        await until(lambda: ingester.intake.subscribed, "not subscribed")
        assert (await get(ingester, "/readyz"))[0] == 200
    finally:
        await ingester.stop()
        server.close()


async def test_a_database_of_a_newer_version_is_left_alone(tmp_path: Path) -> None:
    ingester = configured(tmp_path, "mqtt://127.0.0.1:1")
    await ingester.start()
    await ingester.stop()
    with sqlite3.connect(tmp_path / "data/ingest.db") as database:
        database.execute("UPDATE facts SET value = x'02' WHERE name = 'format'")
    with pytest.raises(StoreError, match="format 2"):
        await configured(tmp_path, "mqtt://127.0.0.1:1").start()
    (tmp_path / "data/ingest.db").write_bytes(b"no database at all" * 300)
    for path in (tmp_path / "data").glob("ingest.db-*"):
        path.unlink()
    with pytest.raises(StoreError, match="move it away"):
        await configured(tmp_path, "mqtt://127.0.0.1:1").start()


async def test_the_cluster_may_want_a_certificate_and_says_no_to_others(tmp_path: Path) -> None:
    authority = Authority(tmp_path / "authority")
    certificate, key = authority.issue("cluster", hosts=("127.0.0.1",))
    port = free_port()
    cluster = await Mosquitto(
        tmp_path / "cluster",
        f"allow_anonymous true\nlistener {port} 127.0.0.1\ncafile {authority.ca}\ncertfile {certificate}\n"
        f"keyfile {key}\nrequire_certificate true",
    ).start()
    certificate, key = authority.issue("ingest")
    path = tmp_path / "ingest.toml"
    path.write_text(
        f'data_dir = "{tmp_path}/data"\n[cluster]\nurls = ["mqtts://127.0.0.1:{port}"]\nca = "{authority.ca}"\n'
        f'certificate = "{certificate}"\nkey = "{key}"\n'
    )
    gateway = await Gateway("gw", 1).connect(cluster.url)
    ingester = Ingester(load_ingest_config(path))
    await ingester.start()
    try:
        await until(lambda: ingester.intake.subscribed, "not subscribed")
        gateway.enveloped("up", 1, range(1, 2_001))
        await until(lambda: ingester.counters.written == 2_000, "not taken")
    finally:
        await ingester.stop()
        gateway.leave()
    path.write_text(
        f'data_dir = "{tmp_path}/data"\n[cluster]\nurls = ["mqtts://127.0.0.1:{port}"]\nca = "{authority.ca}"\n'
    )
    stranger = Ingester(load_ingest_config(path))
    with Log() as log:
        await stranger.start()
        try:
            await until(lambda: log.of("WARNING"), "nothing is said")
            assert "identity" in log.of("WARNING")[0]
        finally:
            await stranger.stop()
            cluster.stop()


async def test_envelopes_with_a_dictionary_are_opened_and_the_lease_names_it(
    tmp_path: Path, cluster: Mosquitto, gateway: Gateway
) -> None:
    samples = [b'{"room": %d, "temperature": %d.5}' % (number, number % 40) for number in range(2_000)]
    dictionary, unknown = train_dictionary(samples, 1_024), train_dictionary(samples, 512)
    (tmp_path / "room.dict").write_bytes(dictionary)
    watcher = await (await Person().connect(cluster.url)).subscribe("edge/ingest/lease")
    ingester = configured(tmp_path, cluster.url, '[lease]\ndictionaries = ["room.dict"]')
    await ingester.start()
    try:
        await until(lambda: watcher.messages, "no lease")
        identifier = zstandard.ZstdCompressionDict(dictionary).dict_id()
        assert json.loads(watcher.payloads[0])["dictionaries"] == [identifier]
        messages = [Enclosed(number, "s/1", sample) for number, sample in enumerate(samples[:100], 1)]
        for one in (dictionary, unknown):
            packed = EnvelopeWriter(dictionary=one).pack(Envelope("gw", "up", 1, messages))
            gateway.say("edge/gw/envelopes", packed)
        await until(lambda: ingester.counters.envelopes == 2, "not taken")
        assert (ingester.counters.written, ingester.counters.rejected) == (100, {"unreadable": 1})
    finally:
        await ingester.stop()
        watcher.leave()
