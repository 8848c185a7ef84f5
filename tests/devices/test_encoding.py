import json
from datetime import UTC, date, datetime
from types import MappingProxyType

import cbor2
import pytest

from devices.encoding import encode_reading
from devices.errors import ReadingError


def test_json_is_compact_and_keeps_what_is_not_ascii() -> None:
    payload, content_type = encode_reading(
        {"temperature_celsius": 21.5, "room": "Küche", "on": True, "n": None}, "json"
    )
    assert payload == '{"temperature_celsius":21.5,"room":"Küche","on":true,"n":null}'.encode()
    assert content_type == "application/json"


@pytest.mark.parametrize("number", [0, -3, 21.5, 10**30, True])
def test_a_number_alone(number: float) -> None:
    assert json.loads(encode_reading(number, "json")[0]) == number
    assert cbor2.loads(encode_reading(number, "cbor")[0]) == number


def test_times_read_the_same_in_both() -> None:
    reading = {
        "at": datetime(2015, 2, 2, 14, 19, tzinfo=UTC),
        "naive": datetime(2015, 2, 2, 14, 19),
        "list": [date(2015, 2, 2), {"deep": date(2015, 2, 3)}],
    }
    expected = {
        "at": "2015-02-02T14:19:00+00:00",
        "naive": "2015-02-02T14:19:00",
        "list": ["2015-02-02", {"deep": "2015-02-03"}],
    }
    assert json.loads(encode_reading(reading, "json")[0]) == expected
    payload, content_type = encode_reading(reading, "cbor")
    assert cbor2.loads(payload) == expected
    assert content_type == "application/cbor"


def test_any_mapping_will_do() -> None:
    reading = MappingProxyType({"a": 1})
    assert encode_reading(reading, "json")[0] == b'{"a":1}'
    assert cbor2.loads(encode_reading(reading, "cbor")[0]) == {"a": 1}


@pytest.mark.parametrize(
    "reading", [{"v": float("nan")}, float("inf"), {"v": b"raw"}, {"v": ...}, {(1, 2): 3}], ids=repr
)
def test_json_refuses_what_it_cannot_hold(reading: object) -> None:
    with pytest.raises(ReadingError, match="JSON"):
        encode_reading(reading, "json")  # type: ignore[arg-type]


def test_cbor_refuses_what_it_cannot_hold() -> None:
    with pytest.raises(ReadingError, match="CBOR"):
        encode_reading({"v": object()}, "cbor")
    loop: dict[str, object] = {}
    loop["self"] = loop
    for encoding in ("json", "cbor"):
        with pytest.raises(ReadingError, match="cannot be written"):
            encode_reading(loop, encoding)  # type: ignore[arg-type]


@pytest.mark.parametrize("reading", ["text", b"bytes", None, [1, 2]])
def test_only_dicts_and_numbers_are_readings(reading: object) -> None:
    with pytest.raises(ReadingError, match="a dict or a number"):
        encode_reading(reading, "json")  # type: ignore[arg-type]


def test_an_unknown_encoding() -> None:
    with pytest.raises(ReadingError, match="xml"):
        encode_reading(1, "xml")  # type: ignore[arg-type]
