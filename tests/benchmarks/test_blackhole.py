"""The upstream that vanishes: its packets are dropped, not refused, it comes back, and the comparison sees both."""

import socket
from collections.abc import Iterator
from pathlib import Path

import pytest

from benchmarks import blackhole
from benchmarks.brokers import KINDS, BrokerUnavailable, Upstream, running
from benchmarks.links import Link
from benchmarks.wire import MQTT_3_1_1
from tests.conftest import do_without

pytestmark = pytest.mark.needs("mosquitto", "ip")


@pytest.fixture
def upstream(tmp_path: Path) -> Iterator[blackhole.Upstream]:
    try:
        with blackhole.upstream(tmp_path) as found:
            yield found
    except BrokerUnavailable as error:
        do_without(str(error))


def test_it_answers_nothing_until_it_is_back(upstream: blackhole.Upstream) -> None:
    Link(upstream.address, "before", MQTT_3_1_1).close()
    upstream.vanish()
    with pytest.raises(TimeoutError):
        socket.create_connection(upstream.address, 0.3)
    upstream.return_()
    Link(upstream.address, "after", MQTT_3_1_1).close()


def test_a_pair(tmp_path: Path, upstream: blackhole.Upstream) -> None:
    leads_to = Upstream(upstream.address, patience_seconds=blackhole.PATIENCE_SECONDS)
    to_nobody = Upstream(blackhole.NOBODY, patience_seconds=blackhole.PATIENCE_SECONDS)
    runs = {}
    for name in blackhole.STATES:
        where = to_nobody if name == "refused" else leads_to
        vanish = upstream.vanish if name == "gone" else None
        with running(KINDS["edge-broker"], tmp_path / name, None, upstream=where) as broker:
            runs[name] = blackhole.measure(broker, 4, 0.5, vanish)
    gone = (tmp_path / "gone" / "log").read_text()
    assert "did not acknowledge" in gone, gone
    assert all(run["messages"] >= 1_000 and 0 < run["p50_ms"] < run["p99_ms"] for run in runs.values())
    figures = blackhole.compare([runs])
    assert figures["p99_ratio"] == runs["gone"]["p99_ms"] / runs["there"]["p99_ms"]
    assert figures["p99_ratio_to_refused"] == runs["gone"]["p99_ms"] / runs["refused"]["p99_ms"]
