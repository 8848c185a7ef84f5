"""The ingester as it is run: a process of its own, killed at any moment, between a real cluster broker and its outputs."""

from __future__ import annotations

import asyncio
import contextlib
import json
import sqlite3
from collections import Counter
from pathlib import Path

import pytest

from bridge.envelope import Enclosed, Envelope, EnvelopeWriter
from bridge.origin import NAME, parse_origin
from tests.bridge.real import Mosquitto, Person, until
from tests.ingest.running import Gateway, Ingester, Key, kill_now_and_then, payload_of

pytestmark = pytest.mark.needs("mosquitto")

_GATEWAYS = 4
_BURSTS = 20


async def _send_while_it_is_killed(cluster: Mosquitto, ingester: Ingester, seed: int) -> set[Key]:
    """Gateways send, the ingester dies again and again, the cluster restarts once; what has to arrive."""
    gateways = [await Gateway(f"gw-{number}", number).connect(cluster.url) for number in range(_GATEWAYS)]
    killing = asyncio.ensure_future(kill_now_and_then(ingester, 6, seed))
    for burst in range(_BURSTS):
        for gateway in gateways:
            gateway.burst(1 + burst // 8)
        await asyncio.sleep(0.1)
        if burst == _BURSTS // 2:
            cluster.stop()
            await cluster.start()
    for gateway in gateways:
        await gateway.settled()
        gateway.leave()
    await killing
    return set().union(*(gateway.keys for gateway in gateways))


async def test_files_have_each_message_exactly_once(tmp_path: Path) -> None:
    cluster = await Mosquitto(tmp_path / "cluster", persistent=True).start()
    ingester = await Ingester(tmp_path / "ingest", cluster.url, "[file]\nrotate_bytes = 20000").start()
    try:
        wanted = await _send_while_it_is_killed(cluster, ingester, 1)
        await until(lambda: len(ingester.keys()) >= len(wanted), "something is missing", 30)
        assert ingester.stop() == 0
        counts = Counter(ingester.keys())
        assert set(counts) == wanted
        assert max(counts.values()) == 1
        assert all(
            one["payload"].encode() == payload_of(one["gateway"], one["lane"], one["sequence"])
            for one in ingester.lines()
        )
        assert len(list((tmp_path / "ingest/data/output").iterdir())) > 1
        status = ingester.status()
        assert status["counters"]["written"] == len(wanted)
        assert status["counters"]["duplicates"] > 0
        assert [lane["missing"] for lane in status["lanes"]] == [0] * (2 * _GATEWAYS)
        assert "Traceback" not in ingester.log
        assert "is gone" not in ingester.log
    finally:
        ingester.stop()
        cluster.stop()


async def test_the_table_has_each_message_exactly_once_also_when_what_was_seen_is_lost(
    tmp_path: Path,
) -> None:
    cluster = await Mosquitto(tmp_path / "cluster", persistent=True).start()
    ingester = await Ingester(tmp_path / "ingest", cluster.url, top='output = "table"').start()
    table = tmp_path / "ingest/data/readings.db"

    def keys() -> list[Key]:
        with contextlib.closing(sqlite3.connect(table)) as database:
            return database.execute("SELECT gateway, lane, epoch, sequence FROM messages").fetchall()

    try:
        wanted = await _send_while_it_is_killed(cluster, ingester, 2)
        await until(lambda: len(keys()) >= len(wanted), "something is missing", 30)
        again = await Gateway("gw-0", 0).connect(cluster.url)
        assert ingester.stop() == 0
        for path in (tmp_path / "ingest/data").glob("ingest.db*"):
            path.unlink()
        await ingester.start()
        again.burst(1)
        await again.settled()
        again.leave()
        await until(lambda: ingester.status()["counters"]["already_there"] == 150, "not told apart")
        assert ingester.stop() == 0
        counts = Counter(keys())
        assert set(counts) == wanted
        assert max(counts.values()) == 1
        assert "Traceback" not in ingester.log
    finally:
        ingester.stop()
        cluster.stop()


@pytest.mark.parametrize("target_version", ["5", "3.1.1"])
async def test_another_broker_gets_each_message_exactly_once(tmp_path: Path, target_version: str) -> None:
    cluster = await Mosquitto(tmp_path / "cluster", persistent=True).start()
    target = await Mosquitto(tmp_path / "target", persistent=True).start()
    keeper = await Person("keeper", keeps_session=True).connect(target.url)
    await keeper.subscribe("in/#", qos=2)
    ingester = Ingester(
        tmp_path / "ingest",
        cluster.url,
        f'[target]\nurls = ["{target.url}"]\nversion = "{target_version}"\nbackoff_initial_seconds = 0.05\n'
        'backoff_max_seconds = 0.2\n[mqtt]\ntopic_prefix = "in/"\nwindow = 50',
        top='output = "mqtt"',
    )
    await ingester.start()
    try:
        wanted = await _send_while_it_is_killed(cluster, ingester, 3)
        await until(lambda: len(keeper.messages) >= len(wanted), "something is missing", 60)
        await until(lambda: ingester.status()["waiting"] == 0, "the outbox is not empty")
        assert ingester.stop() == 0
        payloads = Counter(keeper.payloads)
        assert set(payloads) == {
            payload_of(gateway, lane, number).decode() for gateway, lane, _, number in wanted
        }
        assert max(payloads.values()) == 1
        if target_version == "5":
            pairs = [dict(message.properties.UserProperty) for message in keeper.messages]
            assert {parse_origin(one[NAME]) for one in pairs} == wanted
        assert "Traceback" not in ingester.log
        keeper.leave()
    finally:
        ingester.stop()
        target.stop()
        cluster.stop()


async def test_gaps_skipped_ranges_and_what_cannot_be_read(tmp_path: Path) -> None:
    cluster = await Mosquitto(tmp_path / "cluster").start()
    ingester = await Ingester(
        tmp_path / "ingest", cluster.url, "[gaps]\nreport_after_seconds = 0\n[devices]\ndeduplicate = true"
    ).start()
    gateway = await Gateway("gw", 1).connect(cluster.url)
    try:
        gateway.plain("up", 1, [1, 2, 5, 6, 20])
        await until(lambda: "3-4, 7-19: 15 messages are missing" in ingester.log, "the gap was not reported")
        gateway.skip("up", (7, 12), (13, 19))
        gateway.enveloped("up", 1, [3, 4, 5])
        await until(lambda: "nothing is missing any more" in ingester.log, "the filled gap was not reported")
        gateway.plain("up", 1, [30])
        gateway.say("edge/gw/envelopes", b"\x21 not an envelope")
        gateway.say("edge/gw/skipped", b'{"lane": "up", "ranges": [[9, 1]]}')
        gateway.say("s/none", b"\xff\xfe no origin")
        feigned = Envelope("other", "up", 1, [Enclosed(1, "s/1", b"feigned")])
        gateway.say("edge/gw/envelopes", EnvelopeWriter().pack(feigned))
        await gateway.settled()
        await until(lambda: ingester.status()["counters"]["without_origin"] == 1, "not taken")
        await until(lambda: sum(ingester.status()["counters"]["rejected"].values()) == 3, "not rejected")
        status = ingester.status()
        assert status["lanes"] == [
            {"gateway": "gw", "lane": "up", "epochs": 1, "highest": 30, "missing": 9, "gaps": [[21, 29]]}
            | {"heard_at": status["lanes"][0]["heard_at"]}
        ]
        assert status["counters"]["rejected"] == {"unreadable": 2, "wrong_gateway": 1}
        shown = ingester.command("status", "-c", str(ingester.config)).stdout
        assert "gw up  21-29: 9 messages are missing" in shown
        assert "2 unreadable, 1 wrong_gateway; 3 are kept" in shown
        taken = ingester.command("rejected", "1", "-c", str(ingester.config), "-o", str(tmp_path / "one"))
        assert taken.stdout.startswith("edge/gw/envelopes: unreadable: ")
        assert (tmp_path / "one").read_bytes() == b"\x21 not an envelope"
        assert ingester.command("rejected", "9", "-c", str(ingester.config), "-o", "x").returncode == 1
        assert ingester.lines()[-1]["payload_base64"] == "//4gbm8gb3JpZ2lu"
        gateway.leave()
    finally:
        assert ingester.stop() == 0
        cluster.stop()


@pytest.mark.parametrize("version", ["5", "3.1.1"])
async def test_the_lease_stands_while_it_runs_and_is_withdrawn(tmp_path: Path, version: str) -> None:
    cluster = await Mosquitto(tmp_path / "cluster").start()
    ingester = Ingester(
        tmp_path / "ingest",
        cluster.url,
        "[lease]\nvalid_seconds = 3\nrenew_seconds = 1",
        cluster_keys=f'version = "{version}"',
    )
    watcher = await (await Person().connect(cluster.url)).subscribe("edge/ingest/lease")
    gateway = await Gateway("gw", 1).connect(cluster.url)
    try:
        await ingester.start()
        await until(lambda: len(watcher.messages) >= 3, "not renewed")
        said = [json.loads(payload) for payload in watcher.payloads]
        assert said[0]["ingester"] == "ingest"
        assert said[0]["valid_seconds"] == 3
        assert said[0]["envelope_versions"] == [1]
        assert said[0]["expires"] < said[2]["expires"]
        if version == "5":
            assert 0 < watcher.messages[0].properties.MessageExpiryInterval <= 3
        gateway.enveloped("up", 1, [1, 2, 3])
        await until(lambda: len(ingester.keys()) == 3, "the envelope did not come")
        assert ingester.stop() == 0
        await until(lambda: watcher.payloads[-1] == "", "not withdrawn")
        late = await (await Person().connect(cluster.url)).subscribe("edge/ingest/lease")
        await late.subscribe("nothing")
        assert late.messages == []
        for person in (watcher, late, gateway):
            person.leave()
    finally:
        ingester.stop()
        cluster.stop()


async def test_a_second_one_with_the_same_data_does_not_start(tmp_path: Path) -> None:
    cluster = await Mosquitto(tmp_path / "cluster").start()
    ingester = await Ingester(tmp_path / "ingest", cluster.url).start()
    try:
        second = ingester.command("run", "-c", str(ingester.config))
        assert second.returncode == 1
        assert "process" in second.stderr
    finally:
        assert ingester.stop() == 0
        cluster.stop()
