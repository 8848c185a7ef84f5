"""The reader of recordings: the packaged file, the originals' quirks, and what is no recording."""

import itertools
from datetime import datetime
from pathlib import Path

import pytest

from devices.errors import RecordedDataError
from devices.recorded import RecordedReading, packaged_recording, read_recorded, read_repeatedly

FIXTURES = Path(__file__).parent / "fixtures"
HEADER = "recorded_at,temperature_celsius,humidity_percent,light_lux,co2_ppm,humidity_ratio,occupancy\n"
ROW = "2015-02-02T14:19:00,23.7,26.272,585.2,749.2,0.00476416302416414,1\n"


def test_the_packaged_recording() -> None:
    readings = list(read_recorded(packaged_recording()))
    assert len(readings) == 2000
    assert readings[0] == RecordedReading(
        recorded_at=datetime(2015, 2, 2, 14, 19),
        temperature_celsius=23.7,
        humidity_percent=26.272,
        light_lux=585.2,
        co2_ppm=749.2,
        humidity_ratio=0.00476416302416414,
        occupancy=True,
    )
    assert readings[-1].recorded_at == datetime(2015, 2, 3, 23, 38)
    assert sum(reading.occupancy for reading in readings) == 802
    assert all(15 < reading.temperature_celsius < 30 for reading in readings)
    assert [reading.recorded_at for reading in readings] == sorted(
        reading.recorded_at for reading in readings
    )


def test_the_packaged_data_name_their_source_and_stay_small() -> None:
    text = packaged_recording().with_name("README.md").read_text()
    for needed in ("10.24432/C5X01N", "CC BY", "Candanedo", "Feldheim", "What was changed"):
        assert needed in text
    assert packaged_recording().stat().st_size < 150_000


@pytest.mark.parametrize(
    ("name", "first", "temperatures"),
    [
        ("datatest.txt", datetime(2015, 2, 2, 14, 19), [23.7, 23.718, 23.73]),
        ("datatest2.txt", datetime(2015, 2, 11, 14, 48), [21.76, 21.79, 21.7675]),
        ("datatraining.txt", datetime(2015, 2, 4, 17, 51), [23.18, 23.15, 23.15]),
    ],
)
@pytest.mark.parametrize("line_end", ["\n", "\r\n"])
@pytest.mark.parametrize("mark", ["", "\ufeff"], ids=["no mark", "byte order mark"])
def test_the_originals_as_they_come(
    tmp_path: Path, name: str, first: datetime, temperatures: list[float], line_end: str, mark: str
) -> None:
    path = tmp_path / name
    path.write_bytes((mark + (FIXTURES / name).read_text()).replace("\n", line_end).encode())
    readings = list(read_recorded(path))
    assert [reading.temperature_celsius for reading in readings] == temperatures
    assert readings[0].recorded_at == first
    assert all(reading.occupancy is True for reading in readings)
    assert all(500 < reading.co2_ppm < 1100 for reading in readings)  # the columns are not shifted


def test_a_reading_as_a_dict(tmp_path: Path) -> None:
    path = tmp_path / "one.csv"
    path.write_text(HEADER + ROW)
    (reading,) = read_recorded(path)
    assert reading.as_dict() == {
        "recorded_at": "2015-02-02T14:19:00",
        "temperature_celsius": 23.7,
        "humidity_percent": 26.272,
        "light_lux": 585.2,
        "co2_ppm": 749.2,
        "humidity_ratio": 0.00476416302416414,
        "occupancy": True,
    }


def test_columns_in_another_order_and_more_of_them(tmp_path: Path) -> None:
    path = tmp_path / "other.csv"
    path.write_text(
        "Room,Occupancy,CO2,Light,HumidityRatio,Humidity,Temperature,Date\n"
        '"B 12, north",0,500,1,0.004,30,20.5,2015-02-02 14:19:00\n\n'
    )
    (reading,) = read_recorded(path)
    assert (reading.temperature_celsius, reading.co2_ppm, reading.occupancy) == (20.5, 500, False)


@pytest.mark.parametrize(
    ("content", "line", "problem"),
    [
        ("", None, "is empty"),
        ("a,b,c\n1,2,3\n", 1, "lacks recorded_at"),
        (HEADER + ROW + "2015-02-02T14:19:59,23.7\n", 3, "2 values where 7"),
        (HEADER + ROW.replace("23.7", "warm"), 2, "could not convert"),
        (HEADER + ROW.replace("23.7", "nan"), 2, "finite"),
        (HEADER + ROW.replace("2015-02-02T14:19:00", "yesterday"), 2, "yesterday"),
        (HEADER + ROW.replace(",1\n", ",2\n"), 2, "0 or 1"),
        (HEADER + ROW + ROW.replace("14:19:00", "14:20:00Z"), 3, "without a zone"),
        (HEADER + '"' + "x" * 200_000, None, "is not CSV"),
    ],
)
def test_what_is_no_recording(tmp_path: Path, content: str, line: int | None, problem: str) -> None:
    path = tmp_path / "bad.csv"
    path.write_text(content)
    with pytest.raises(RecordedDataError, match=problem) as error:
        list(read_recorded(path))
    assert str(path) in str(error.value)
    if line is not None:
        assert error.value.line == line
        assert f"line {line}" in str(error.value)


def test_rows_before_the_bad_one_are_read(tmp_path: Path) -> None:
    path = tmp_path / "torn.csv"
    path.write_text(HEADER + ROW * 3 + ROW[:20])
    read = []
    with pytest.raises(RecordedDataError, match="line 5"):
        read.extend(reading for reading in read_recorded(path))
    assert len(list(itertools.islice(read_recorded(path), 3))) == 3


def test_files_that_cannot_be_read(tmp_path: Path) -> None:
    with pytest.raises(RecordedDataError, match="No such file"):
        list(read_recorded(tmp_path / "missing.csv"))
    binary = tmp_path / "binary.csv"
    binary.write_bytes(bytes(range(128, 256)))
    with pytest.raises(RecordedDataError, match="UTF-8"):
        list(read_recorded(binary))


def test_reading_without_end(tmp_path: Path) -> None:
    path = tmp_path / "two.csv"
    path.write_text(HEADER + ROW + ROW.replace("23.7", "24.7"))
    temperatures = [reading.temperature_celsius for reading in itertools.islice(read_repeatedly(path), 5)]
    assert temperatures == [23.7, 24.7, 23.7, 24.7, 23.7]
    path.write_text(HEADER)
    with pytest.raises(RecordedDataError, match="no readings"):
        next(read_repeatedly(path))
