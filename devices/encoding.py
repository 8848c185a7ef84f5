"""A reading as bytes: JSON or CBOR.

A reading is a dict of named values or a single number. Dates and times are written in ISO 8601. What JSON cannot hold
truthfully (NaN, infinity, bytes) is refused rather than written as something else.
"""

import json
from collections.abc import Mapping
from datetime import date
from typing import Final, Literal, NamedTuple

from devices.errors import ReadingError

Reading = Mapping[str, object] | int | float
Encoding = Literal["json", "cbor"]

JSON_CONTENT_TYPE: Final = "application/json"
CBOR_CONTENT_TYPE: Final = "application/cbor"


class EncodedReading(NamedTuple):
    """A reading as it will leave: `content_type` says how `payload` is to be read."""

    topic: str
    payload: bytes
    content_type: str
    qos: int


def encode_reading(reading: Reading, encoding: Encoding) -> tuple[bytes, str]:
    """Return the payload and its content type; ReadingError says which value has no place in it."""
    if not isinstance(reading, (Mapping, int, float)):
        raise ReadingError(f"a reading is a dict or a number, not {type(reading).__name__}")
    if encoding == "json":
        return _encode_json(reading), JSON_CONTENT_TYPE
    if encoding == "cbor":
        return _encode_cbor(reading), CBOR_CONTENT_TYPE
    raise ReadingError(f"the encoding is 'json' or 'cbor', not {encoding!r}")


def _encode_json(reading: Reading) -> bytes:
    plain = dict(reading) if isinstance(reading, Mapping) else reading
    try:
        text = json.dumps(
            plain, separators=(",", ":"), ensure_ascii=False, allow_nan=False, default=_iso_8601
        )
        return text.encode("utf-8")
    except (TypeError, ValueError, RecursionError) as error:
        raise ReadingError(f"the reading cannot be written as JSON: {error}") from error


def _encode_cbor(reading: Reading) -> bytes:
    import cbor2  # only where it is asked for: a device's memory is mostly imports

    plain = dict(reading) if isinstance(reading, Mapping) else reading
    try:
        return cbor2.dumps(_with_iso_8601(plain))
    except (cbor2.CBOREncodeError, RecursionError) as error:
        raise ReadingError(f"the reading cannot be written as CBOR: {error}") from error


def _iso_8601(value: object) -> str:
    if isinstance(value, date):  # a datetime is a date, too
        return value.isoformat()
    raise TypeError(f"a value of type {type(value).__name__} has no place in JSON")


def _with_iso_8601(value: object) -> object:
    """The value with every date in it as text: CBOR has no time without a zone, and both encodings should agree."""
    if isinstance(value, Mapping):
        return {name: _with_iso_8601(inner) for name, inner in value.items()}
    if isinstance(value, (list, tuple)):
        return [_with_iso_8601(inner) for inner in value]
    return value.isoformat() if isinstance(value, date) else value
