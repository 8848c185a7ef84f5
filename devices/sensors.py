"""Sensors: anything with a `read` that returns a dict of named values.

The names carry the unit. A sensor that cannot give a value raises SensorError; it never returns a made-up one.

    class Door:
        def read(self) -> dict[str, object]:
            return {"door_open": gpio.input(17) == 1}
"""

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Final, Protocol

from devices.errors import SensorError
from devices.recorded import RecordedReading, packaged_recording, read_recorded, read_repeatedly

_THERMAL: Final = Path("/sys/class/thermal")
_PROC: Final = Path("/proc")
# The kernel's names for the processor's own thermometer: Raspberry Pi and other arm boards, Intel, AMD, ACPI.
_CPU_ZONE_TYPES: Final = ("cpu-thermal", "cpu_thermal", "x86_pkg_temp", "k10temp", "acpitz")


class Sensor(Protocol):
    """What `edge-devices sense` and a script need of a sensor."""

    def read(self) -> dict[str, object]:
        """Measure now; SensorError where that is not possible."""
        ...


class CpuTemperature:
    """The processor's temperature, as the kernel knows it: `cpu_temperature_celsius`."""

    def __init__(self, thermal: Path = _THERMAL) -> None:
        """SensorError: this machine has no such thermometer (most virtual machines have none)."""
        self._file = _cpu_zone(thermal) / "temp"

    def read(self) -> dict[str, object]:
        text = _text_of(self._file).strip()
        try:
            return {"cpu_temperature_celsius": int(text) / 1000}
        except ValueError:
            raise SensorError(
                f"{self._file} holds {text!r} where thousandths of a degree are expected"
            ) from None


class SystemLoad:
    """How busy this machine is: load averages, and memory in bytes."""

    def __init__(self, proc: Path = _PROC) -> None:
        self._proc = proc

    def read(self) -> dict[str, object]:
        load = _text_of(self._proc / "loadavg").split()
        memory = self._memory_kibibytes()
        try:
            return {
                "load_1_minute": float(load[0]),
                "load_5_minutes": float(load[1]),
                "load_15_minutes": float(load[2]),
                "memory_total_bytes": memory["MemTotal"] * 1024,
                "memory_available_bytes": memory["MemAvailable"] * 1024,
            }
        except (IndexError, KeyError, ValueError) as error:
            raise SensorError(f"{self._proc} is not what Linux shows there ({error!r})") from error

    def _memory_kibibytes(self) -> dict[str, int]:
        values = {}
        for line in _text_of(self._proc / "meminfo").splitlines():
            name, _, rest = line.partition(":")
            number = rest.split()
            if number and number[0].isdigit():
                values[name] = int(number[0])
        return values


class RecordedSensor:
    """A sensor that gives recorded readings one after the other: for a desk without a sensor."""

    def __init__(self, path: Path | str | None = None, *, repeat: bool = False) -> None:
        """`path`: a CSV that `devices.recorded` reads, or None for the one that comes with this package."""
        path = path or packaged_recording()
        self._readings: Iterator[RecordedReading] = read_repeatedly(path) if repeat else read_recorded(path)

    def read(self) -> dict[str, object]:
        """The next reading; SensorError after the last, RecordedDataError for a line that is none."""
        for reading in self._readings:
            return reading.as_dict()
        raise SensorError("the recording is at its end")


def machine_sensors(thermal: Path = _THERMAL, proc: Path = _PROC) -> list[Sensor]:
    """The sensors that this machine has."""
    sensors: list[Sensor] = [SystemLoad(proc)]
    try:
        sensors.insert(0, CpuTemperature(thermal))
    except SensorError:
        pass  # nothing is wrong with a machine that has no thermometer
    return sensors


def read_all(sensors: Sequence[Sensor]) -> dict[str, object]:
    """One reading made of those of all the sensors; SensorError when any of them fails."""
    values: dict[str, object] = {}
    for sensor in sensors:
        values |= sensor.read()
    return values


def _cpu_zone(thermal: Path) -> Path:
    zones = sorted(thermal.glob("thermal_zone*"))
    types: dict[str, Path] = {}
    for zone in zones:
        try:
            types.setdefault(_text_of(zone / "type").strip(), zone)
        except SensorError:
            continue  # a zone may vanish with its driver
    for name in _CPU_ZONE_TYPES:
        if name in types:
            return types[name]
    found = f"only {', '.join(types)}" if types else "nothing"
    raise SensorError(f"no thermometer of the processor in {thermal}: there is {found}")


def _text_of(path: Path) -> str:
    try:
        return path.read_text()
    except OSError as error:
        raise SensorError(f"{path} cannot be read: {error.strerror}") from error
