"""Sensors, against files as the kernel writes them."""

from pathlib import Path

import pytest

from devices.errors import RecordedDataError, SensorError
from devices.sensors import CpuTemperature, RecordedSensor, SystemLoad, machine_sensors, read_all


def add_zone(thermal: Path, number: int, kind: str, temperature: str) -> None:
    zone = thermal / f"thermal_zone{number}"
    zone.mkdir(parents=True)
    (zone / "type").write_text(kind + "\n")
    (zone / "temp").write_text(temperature + "\n")


@pytest.fixture
def proc(tmp_path: Path) -> Path:
    proc = tmp_path / "proc"
    proc.mkdir()
    (proc / "loadavg").write_text("0.52 0.58 0.59 1/389 12345\n")
    (proc / "meminfo").write_text(
        "MemTotal:         931496 kB\nMemFree:  100 kB\nMemAvailable:     612344 kB\nX: y\n"
    )
    return proc


def test_a_raspberry_pi(tmp_path: Path) -> None:
    add_zone(tmp_path, 0, "cpu-thermal", "48312")
    assert CpuTemperature(tmp_path).read() == {"cpu_temperature_celsius": 48.312}


def test_the_processors_zone_is_found_among_others(tmp_path: Path) -> None:
    add_zone(tmp_path, 0, "acpitz", "27800")
    add_zone(tmp_path, 1, "iwlwifi_1", "51000")
    add_zone(tmp_path, 2, "x86_pkg_temp", "-4000")
    assert CpuTemperature(tmp_path).read() == {"cpu_temperature_celsius": -4.0}


def test_no_thermometer(tmp_path: Path) -> None:
    with pytest.raises(SensorError, match="nothing"):
        CpuTemperature(tmp_path)
    add_zone(tmp_path, 0, "iwlwifi_1", "51000")
    with pytest.raises(SensorError, match="only iwlwifi_1"):
        CpuTemperature(tmp_path)


def test_a_thermometer_that_fails_later(tmp_path: Path) -> None:
    add_zone(tmp_path, 0, "cpu-thermal", "warm")
    sensor = CpuTemperature(tmp_path)
    with pytest.raises(SensorError, match="'warm'"):
        sensor.read()
    (tmp_path / "thermal_zone0" / "temp").unlink()
    with pytest.raises(SensorError, match="No such file"):
        sensor.read()


def test_load_and_memory(proc: Path) -> None:
    assert SystemLoad(proc).read() == {
        "load_1_minute": 0.52,
        "load_5_minutes": 0.58,
        "load_15_minutes": 0.59,
        "memory_total_bytes": 931496 * 1024,
        "memory_available_bytes": 612344 * 1024,
    }


@pytest.mark.parametrize(
    ("file", "content"), [("loadavg", ""), ("loadavg", "a b c"), ("meminfo", "MemFree: 1 kB\n")]
)
def test_a_proc_that_is_not_linux(proc: Path, file: str, content: str) -> None:
    (proc / file).write_text(content)
    with pytest.raises(SensorError, match="not what Linux shows"):
        SystemLoad(proc).read()


def test_this_very_machine() -> None:
    reading = read_all(machine_sensors())
    assert 0 < reading["memory_available_bytes"] <= reading["memory_total_bytes"]  # type: ignore[operator]
    assert reading["load_1_minute"] >= 0  # type: ignore[operator]


def test_the_machines_sensors(tmp_path: Path, proc: Path) -> None:
    assert len(machine_sensors(tmp_path, proc)) == 1
    add_zone(tmp_path, 0, "cpu_thermal", "50000")
    reading = read_all(machine_sensors(tmp_path, proc))
    assert list(reading)[:2] == ["cpu_temperature_celsius", "load_1_minute"]


def test_a_recording_as_a_sensor(tmp_path: Path) -> None:
    sensor = RecordedSensor()
    assert sensor.read()["temperature_celsius"] == 23.7
    assert sensor.read()["temperature_celsius"] == 23.718
    path = tmp_path / "short.csv"
    path.write_text(
        "date,Temperature,Humidity,Light,CO2,HumidityRatio,Occupancy\n2015-02-02 14:19:00,20,30,1,500,0.004,0\n"
    )
    once, again = RecordedSensor(path), RecordedSensor(path, repeat=True)
    assert once.read() == again.read() == again.read()
    with pytest.raises(SensorError, match="at its end"):
        once.read()
    with pytest.raises(RecordedDataError):
        RecordedSensor(tmp_path / "missing.csv").read()
