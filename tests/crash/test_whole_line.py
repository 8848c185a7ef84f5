"""The whole line on every recorded reading: sensors → broker → disk → bridge → mTLS → mosquitto → a subscriber.

On the way the upstream is stopped for a while and the broker is killed twice. Each reading is known by its device and the
sequence number that the device gave it, so that the subscriber can say what is missing, what came twice, and in which
order each device's readings came.
"""

from __future__ import annotations

import lzma
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from devices.fleet import MAX_SPEED, Fleet
from devices.recorded import RecordedReading, read_recorded
from edge_broker.cli.demo.cluster import ClusterReader
from edge_broker.cli.demo.stage import REMOTE_PREFIX, free_ports
from edge_broker.security.authority import Authority
from tests.devices.mosquitto import Mosquitto

RECORDED = Path(__file__).parent.parent / "data" / "occupancy"
READINGS = 20_560
DEVICES = 20
DEVICE_WINDOW = 20
BRIDGE_WINDOW = 500
INCIDENTS = 3  # an upstream stopped, a broker killed twice
PATIENCE_SECONDS = 60.0


def all_readings(directory: Path) -> Iterator[RecordedReading]:
    """The whole recorded log; its files are unpacked into `directory`."""
    for name in ("datatest", "datatest2", "datatraining"):
        path = directory / f"{name}.txt"
        path.write_bytes(lzma.decompress((RECORDED / f"{name}.txt.xz").read_bytes()))
        yield from read_recorded(path)


def _wait_for(condition: Callable[[], bool], what: str) -> None:
    deadline = time.monotonic() + PATIENCE_SECONDS
    while not condition():
        assert time.monotonic() < deadline, what
        time.sleep(0.02)


class Gateway:
    """The broker with its bridge, as a process that can be killed."""

    def __init__(self, directory: Path, upstream_port: int) -> None:
        (self.port,) = free_ports(1)
        self._config = directory / "gateway.toml"
        self._log = directory / "gateway.log"
        self._config.write_text(f"""\
data_dir = "{directory}/data"
[[listeners]]
bind = "127.0.0.1:{self.port}"
[[bridges]]
name = "cluster"
urls = ["mqtts://127.0.0.1:{upstream_port}"]
ca = "{directory}/ca.crt"
certificate = "{directory}/gateway.crt"
key = "{directory}/gateway.key"
backoff_initial_seconds = 0.2
backoff_max_seconds = 0.5
window = {BRIDGE_WINDOW}
out = [{{ filter = "devices/#", remote_prefix = "{REMOTE_PREFIX}" }}]
""")
        self.start()

    def start(self) -> None:
        with self._log.open("ab") as log:
            self._process = subprocess.Popen(
                [sys.executable, "-m", "edge_broker", "run", "--config", str(self._config)],
                stdout=log,
                stderr=log,
            )

    def kill(self) -> None:
        self._process.send_signal(signal.SIGKILL)
        self._process.wait()

    def stop(self) -> int:
        self._process.send_signal(signal.SIGTERM)
        return self._process.wait(20)

    @property
    def log(self) -> str:
        return self._log.read_text()


@pytest.mark.needs("mosquitto")
@pytest.mark.slow
def test_every_reading_arrives_through_an_outage_and_two_kills(tmp_path: Path) -> None:
    now, lifetime = datetime.now(UTC), timedelta(days=1)
    authority = Authority("test CA", now, lifetime)
    (tmp_path / "ca.crt").write_bytes(authority.certificate)
    authority.issue("cluster", now, lifetime, hosts=("127.0.0.1",)).write(tmp_path, "cluster")
    authority.issue("gateway-1", now, lifetime).write(tmp_path, "gateway")
    reader_certificate, reader_key = authority.issue("reader", now, lifetime).write(tmp_path, "reader")
    upstream = Mosquitto(
        tmp_path / "upstream",
        persistent=True,
        listener=f"cafile {tmp_path}/ca.crt\ncertfile {tmp_path}/cluster.crt\nkeyfile {tmp_path}/cluster.key\n"
        "require_certificate true\nuse_identity_as_username true",
    ).start()
    reader = ClusterReader(upstream.port, tmp_path / "ca.crt", reader_certificate, reader_key)
    assert reader.start(PATIENCE_SECONDS)
    account = reader.account
    gateway = Gateway(tmp_path, upstream.port)
    fleet = Fleet(
        all_readings(tmp_path),
        DEVICES,
        f"mqtt://127.0.0.1:{gateway.port}",
        speed=MAX_SPEED,
        window=DEVICE_WINDOW,
        spool_dir=tmp_path,
    )
    try:
        fleet.start()
        _wait_for(lambda: account.arrived >= 3_000, f"3,000 readings upstream: {gateway.log}")
        assert account.duplicates == 0, "nothing has happened that could have made a duplicate"
        upstream.stop()
        acknowledged = fleet.stats.acknowledged
        _wait_for(
            lambda: fleet.stats.acknowledged > acknowledged + 2_000,
            "the broker takes on while the upstream is away",
        )
        gateway.kill()
        gateway.start()
        _wait_for(
            lambda: fleet.stats.acknowledged > acknowledged + 4_000, "the devices go on after the first kill"
        )
        upstream.start()
        arrived = account.arrived
        _wait_for(lambda: account.arrived > arrived + 3_000, "the backlog drains")
        gateway.kill()
        gateway.start()
        assert fleet.wait(PATIENCE_SECONDS), f"the last readings are acknowledged: {fleet.stats}"
        published = {name: stats.published for name, stats in fleet.stats_by_device.items()}
        assert sum(published.values()) == fleet.dealt == READINGS
        _wait_for(
            lambda: reader.missing(published) == 0,
            f"missing upstream: {reader.missing(published)}\n{gateway.log}",
        )
    finally:
        fleet.stop(flush_seconds=0)
        reader.stop()
        exit_code = gateway.stop()
        upstream.stop()
    print(f"{account.arrived} readings, {account.duplicates} duplicates, {account.out_of_order} out of order")
    assert exit_code == 0
    assert account.arrived == READINGS
    assert account.out_of_order == 0
    assert account.duplicates <= INCIDENTS * (DEVICES * DEVICE_WINDOW + BRIDGE_WINDOW), (
        "only around the incidents"
    )
