"""Fleets: rows dealt in turn, each device in order, at a speed; and a large one."""

import itertools
import json
import threading
from collections.abc import Callable
from pathlib import Path

import pytest

from devices import Timing
from devices.errors import BrokerUrlError, RecordedDataError, SpoolInUseError
from devices.fleet import MAX_SPEED, Fleet
from devices.recorded import RecordedReading, packaged_recording, read_recorded, read_repeatedly
from tests.devices.collector import Collector, without_duplicates
from tests.devices.cutting_proxy import CuttingProxy
from tests.devices.mosquitto import Mosquitto, free_port, wait_until

Collect = Callable[..., Collector]
QUICK = Timing(reconnect_first=0.05, reconnect_longest=0.2)


def recorded(count: int) -> list[RecordedReading]:
    return list(itertools.islice(read_repeatedly(packaged_recording()), count))


def test_rows_are_dealt_in_turn_and_arrive_in_order(mosquitto: Mosquitto, collect: Collect) -> None:
    collector = collect(mosquitto.port)
    readings = recorded(1003)
    with Fleet(readings, 7, mosquitto.url, speed=MAX_SPEED, topic_prefix="house") as fleet:
        assert fleet.wait(30)
        stats = fleet.stats
    assert (stats.dealt, stats.acknowledged, stats.spooled, stats.devices) == (1003, 1003, 0, 7)
    collector.wait(lambda received: len(received) == 1003)
    for number in range(7):
        name = f"sensor-{number + 1}"
        mine = [one for one in collector.received if one.device == name]
        assert {one.topic for one in mine} == {f"house/{name}/readings"}
        assert [one.sequence for one in mine] == list(range(1, len(mine) + 1))
        expected = [reading.as_dict() for reading in readings[number::7]]
        assert [json.loads(one.payload) for one in mine] == expected


def test_at_a_speed_readings_come_when_they_are_due(mosquitto: Mosquitto) -> None:
    readings = recorded(6)  # five minutes
    with Fleet(readings, 2, mosquitto.url, speed=300.0) as fleet:
        wait_until(lambda: fleet.dealt == 1, "nothing was dealt")
        assert not fleet.wait(0.4)
        assert 1 <= fleet.dealt <= 4
        assert fleet.wait(10)
        assert fleet.stats.acknowledged == 6


def test_two_hundred_devices_with_two_threads(mosquitto: Mosquitto, collect: Collect) -> None:
    collector = collect(mosquitto.port)
    threads_before = threading.active_count()
    with Fleet(recorded(4000), 200, mosquitto.url, speed=MAX_SPEED) as fleet:
        assert fleet.wait(60)
        wait_until(lambda: fleet.stats.connected == 200, "not all are connected")
        wait_until(lambda: threading.active_count() <= threads_before + 2, "threads are left over")
        assert fleet.stats.acknowledged == 4000
        assert {stats.acknowledged for stats in fleet.stats_by_device.values()} == {20}
    collector.wait(lambda received: len(received) == 4000)
    by_device = collector.sequences_by_device()
    assert len(by_device) == 200
    assert all(sequences == list(range(1, 21)) for sequences in by_device.values())


def test_an_outage_in_the_middle(mosquitto: Mosquitto, proxy: CuttingProxy, collect: Collect) -> None:
    collector = collect(mosquitto.port)
    with Fleet(recorded(6000), 20, proxy.url, speed=MAX_SPEED, timing=QUICK) as fleet:
        for cuts in range(1, 4):
            wait_until(lambda: fleet.stats.acknowledged > cuts * 1000, "nothing was acknowledged")  # noqa: B023
            proxy.cut()
        assert fleet.wait(60)
        assert fleet.stats.reconnects >= 20
        assert fleet.stats.dropped == 0
    for device, sequences in collector.sequences_by_device().items():
        collector.wait_for_sequences(device, 300)
        assert without_duplicates(sequences) == list(range(1, len(set(sequences)) + 1))


def test_at_full_speed_the_dealer_waits_for_a_broker_that_is_away() -> None:
    endless = read_repeatedly(packaged_recording())
    fleet = Fleet(endless, 3, f"mqtt://127.0.0.1:{free_port()}", speed=MAX_SPEED, timing=QUICK).start()
    wait_until(lambda: fleet.stats.spooled >= 120, "nothing was dealt")
    assert not fleet.wait(0.2)
    assert fleet.stats.spooled <= 3 * 60
    assert fleet.stats.problem is not None
    fleet.stop(0)


def test_spool_files_survive_the_fleet(mosquitto: Mosquitto, collect: Collect, tmp_path: Path) -> None:
    away = f"mqtt://127.0.0.1:{free_port()}"
    fleet = Fleet(recorded(40), 4, away, speed=MAX_SPEED, spool_dir=tmp_path, timing=QUICK).start()
    wait_until(lambda: fleet.finished, "not all was dealt")
    with pytest.raises(SpoolInUseError):
        Fleet([], 4, away, spool_dir=tmp_path)
    fleet.stop(0)
    assert sorted(path.name for path in tmp_path.glob("*.spool")) == [
        f"sensor-{n}.spool" for n in range(1, 5)
    ]
    collector = collect(mosquitto.port)
    with Fleet([], 4, mosquitto.url, spool_dir=tmp_path) as fleet:
        assert fleet.wait(30)
        assert (fleet.stats.dealt, fleet.stats.acknowledged) == (0, 40)
    collector.wait(lambda received: len(received) == 40)


def test_a_bad_line_ends_the_dealing_and_what_came_before_is_sent(
    mosquitto: Mosquitto, tmp_path: Path
) -> None:
    path = tmp_path / "torn.csv"
    path.write_text("\n".join([*packaged_recording().read_text().splitlines()[:50], "1,2"]))
    with Fleet(read_recorded(path), 1, mosquitto.url, speed=100_000) as fleet:
        assert fleet.wait(30)
        assert isinstance(fleet.error, RecordedDataError)
        assert fleet.stats.acknowledged == 49


def test_what_makes_no_fleet(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="at least one"):
        Fleet([], 0)
    with pytest.raises(BrokerUrlError):
        Fleet([], 1, "nowhere")
    with pytest.raises(ValueError, match="name"):
        Fleet([], 1, name_prefix="a/b", spool_dir=tmp_path)
