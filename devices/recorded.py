"""Recorded room-sensor readings, read from CSV.

Reads this package's own `data/occupancy.csv` and the three original files of the UCI "Occupancy Detection" data set as
they come: quoted or unquoted values, LF or CRLF, a byte order mark, and the originals' headers, two of which name one
column fewer than the rows hold (the first value of a row is then a row number).

Invariants: rows are yielded in the file's order, one at a time (a file of any size needs the memory of one row); a
row that is not what the header promises ends the reading with its line number. Nothing is skipped but blank lines, and
nothing is guessed: a timestamp without a zone stays without one.
"""

import csv
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import datetime
from importlib.resources import files
from math import isfinite
from pathlib import Path

from devices.errors import RecordedDataError

# The original files' column names beside the ones used here.
_COLUMN_NAMES = {
    "no": "row_number",
    "date": "recorded_at",
    "temperature": "temperature_celsius",
    "humidity": "humidity_percent",
    "light": "light_lux",
    "co2": "co2_ppm",
    "humidityratio": "humidity_ratio",
}
_REQUIRED_COLUMNS = (
    "recorded_at",
    "temperature_celsius",
    "humidity_percent",
    "light_lux",
    "co2_ppm",
    "humidity_ratio",
    "occupancy",
)


@dataclass(frozen=True, slots=True)
class RecordedReading:
    """One row: temperature in °C, relative humidity in %, light in lux, CO2 in ppm, humidity ratio in kg/kg."""

    recorded_at: datetime
    temperature_celsius: float
    humidity_percent: float
    light_lux: float
    co2_ppm: float
    humidity_ratio: float
    occupancy: bool

    def as_dict(self) -> dict[str, object]:
        """The reading as `Device.publish_reading` takes it; the time in ISO 8601."""
        return {
            "recorded_at": self.recorded_at.isoformat(),
            "temperature_celsius": self.temperature_celsius,
            "humidity_percent": self.humidity_percent,
            "light_lux": self.light_lux,
            "co2_ppm": self.co2_ppm,
            "humidity_ratio": self.humidity_ratio,
            "occupancy": self.occupancy,
        }


def packaged_recording() -> Path:
    """The recording that comes with this package: 2,000 real readings, about one a minute."""
    return Path(str(files("devices").joinpath("data/occupancy.csv")))


def read_recorded(path: Path | str) -> Iterator[RecordedReading]:
    """Yield the readings of a CSV file in its order; RecordedDataError names the line that is wrong."""
    try:
        # utf-8-sig: spreadsheets put a byte order mark in front; newline="": the csv module knows line ends.
        with open(path, encoding="utf-8-sig", newline="") as file:
            yield from _read_rows(file, str(path))
    except OSError as error:
        raise RecordedDataError(str(path), None, f"cannot be read: {error.strerror}") from error
    except UnicodeDecodeError as error:
        raise RecordedDataError(str(path), None, "is not UTF-8 text; is it a CSV file?") from error


def read_repeatedly(path: Path | str) -> Iterator[RecordedReading]:
    """Yield the readings of a CSV file again and again, without end."""
    while True:
        empty = True
        for reading in read_recorded(path):
            empty = False
            yield reading
        if empty:
            raise RecordedDataError(str(path), None, "holds a header but no readings")


def _read_rows(file: Iterator[str], path: str) -> Iterator[RecordedReading]:
    rows = csv.reader(file)
    columns: list[str] | None = None
    has_zone: bool | None = None
    try:
        for row in rows:
            if not row:
                continue
            if columns is None:
                columns = _columns_of_header(row, path, rows.line_num)
                continue
            values = _values_by_column(row, columns, path, rows.line_num)
            reading = _reading_of_row(values, path, rows.line_num)
            if has_zone is None:
                has_zone = reading.recorded_at.tzinfo is not None
            elif has_zone != (reading.recorded_at.tzinfo is not None):
                raise RecordedDataError(
                    path, rows.line_num, "times with and without a zone cannot be compared"
                )
            yield reading
    except csv.Error as error:
        raise RecordedDataError(path, rows.line_num, f"is not CSV: {error}") from error
    if columns is None:
        raise RecordedDataError(path, None, "is empty; a header line is expected")


def _columns_of_header(header: list[str], path: str, line: int) -> list[str]:
    names = [name.strip().lower() for name in header]
    columns = [_COLUMN_NAMES.get(name, name) for name in names]
    missing = [name for name in _REQUIRED_COLUMNS if name not in columns]
    if missing:
        raise RecordedDataError(
            path, line, f"the header lacks {', '.join(missing)}; it has {', '.join(names)}"
        )
    return columns


def _values_by_column(row: list[str], columns: list[str], path: str, line: int) -> dict[str, str]:
    if len(row) == len(columns) + 1:
        row = row[1:]  # the row number that the header does not name
    if len(row) != len(columns):
        raise RecordedDataError(path, line, f"holds {len(row)} values where {len(columns)} are expected")
    return dict(zip(columns, row, strict=True))


def _reading_of_row(values: dict[str, str], path: str, line: int) -> RecordedReading:
    try:
        return RecordedReading(
            recorded_at=datetime.fromisoformat(values["recorded_at"]),
            temperature_celsius=_number(values, "temperature_celsius"),
            humidity_percent=_number(values, "humidity_percent"),
            light_lux=_number(values, "light_lux"),
            co2_ppm=_number(values, "co2_ppm"),
            humidity_ratio=_number(values, "humidity_ratio"),
            occupancy=_boolean(values["occupancy"]),
        )
    except ValueError as error:
        raise RecordedDataError(path, line, str(error)) from error


def _number(values: dict[str, str], column: str) -> float:
    number = float(values[column])
    if not isfinite(number):
        raise ValueError(f"{column} is {values[column]!r} where a finite number is expected")
    return number


def _boolean(text: str) -> bool:
    if text not in ("0", "1"):
        raise ValueError(f"occupancy is {text!r} where 0 or 1 is expected")
    return text == "1"
