"""A real broker on a disk that fails: health says so, nothing is set aside, nothing is promised, and it goes on after."""

from __future__ import annotations

import json
import threading
import urllib.error
import urllib.request
from pathlib import Path

import pytest

from tests.integration.broker_process import BrokerProcess, until
from tests.integration.foreign import Paho
from tests.store.faulty_disk import FaultyDisk

MESSAGES = 200


def health(port: int) -> dict[str, object]:
    try:
        with urllib.request.urlopen(f"http://127.0.0.1:{port}/healthz", timeout=10) as answer:
            found = json.load(answer)
    except urllib.error.HTTPError as refused:
        found = json.load(refused)
    assert isinstance(found, dict)
    return found


def store_problem(port: int) -> str:
    store = health(port)["store"]
    assert isinstance(store, dict)
    return str(store["problem"])


@pytest.fixture
def disk(tmp_path: Path) -> FaultyDisk:
    return FaultyDisk(tmp_path)


@pytest.fixture
def broker(tmp_path: Path, disk: FaultyDisk, free_port: int) -> BrokerProcess:
    """With 200 messages on disk for a session that is away."""
    settings = f'[http]\nbind = "127.0.0.1:{free_port}"\n'
    broker = BrokerProcess(tmp_path / "broker", settings, environ=disk.environ()).start()
    Paho(broker.port, "away", expiry=3600, clean=False).connected().subscribe("t", 1).leave()
    publisher = Paho(broker.port, "sensor").connected()
    for number in range(MESSAGES):
        publisher.publish("t", b"%d " % number + bytes(500), 1)
    publisher.leave()
    return broker


def test_reads_that_fail_are_waited_for(broker: BrokerProcess, disk: FaultyDisk, free_port: int) -> None:
    assert broker.stop() == 0
    broker.start()
    try:
        assert store_problem(free_port) == ""
        disk.refuse_reads()
        away = Paho(broker.port, "away", expiry=3600, clean=False).connected()
        until(lambda: "the disk reported an error" in store_problem(free_port), "health does not say it")
        assert health(free_port)["ready"] is False
        assert health(free_port)["live"] is True
        disk.heal()
        assert len(away.wait_for(MESSAGES)) == MESSAGES
        until(lambda: health(free_port)["ready"], "it does not notice that it is over")
        assert "can be read again" in broker.log
        assert "Traceback" not in broker.log
        assert not [file for file in broker.data_dir.iterdir() if ".damaged-" in file.name]
        away.leave()
    finally:
        broker.stop()


def test_syncs_that_fail_are_acknowledged_to_nobody(
    broker: BrokerProcess, disk: FaultyDisk, free_port: int
) -> None:
    try:
        publisher = Paho(broker.port, "sensor").connected()
        disk.refuse_syncs()
        acknowledged = threading.Event()

        def publish() -> None:
            publisher.publish("t", b"in doubt", 1)
            acknowledged.set()

        sender = threading.Thread(target=publish)
        sender.start()
        until(lambda: disk.count("syncs_failed") >= 3, "it is not tried again")
        assert "the disk reported an error" in store_problem(free_port)
        assert not acknowledged.is_set()
        disk.heal()
        sender.join(30)
        assert acknowledged.is_set()
        assert health(free_port)["ready"] is True
        broker.kill()
        broker.start()
        away = Paho(broker.port, "away", expiry=3600, clean=False).connected()
        assert away.wait_for(MESSAGES + 1)[-1].payload == b"in doubt"
        away.leave()
    finally:
        broker.stop()


def test_slow_syncs_only_make_batches_larger(broker: BrokerProcess, disk: FaultyDisk) -> None:
    """30 ms a sync, as on a poor card: acknowledgements wait for it, other traffic does not."""
    try:
        disk.slow_syncs(30)
        before = disk.count("syncs")
        publishers = [Paho(broker.port, f"sensor-{n}").connected() for n in range(20)]
        threads = [threading.Thread(target=one.publish, args=("t", b"slow", 1)) for one in publishers]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join(30)
            assert not thread.is_alive()
        assert disk.count("syncs") - before < len(publishers), "they shared syncs"
        away = Paho(broker.port, "away", expiry=3600, clean=False).connected()
        assert len(away.wait_for(MESSAGES + len(publishers))) == MESSAGES + len(publishers)
        for client in (away, *publishers):
            client.leave()
    finally:
        broker.stop()
