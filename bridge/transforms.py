"""Payloads written anew on their way: JSON [RFC 8259] to CBOR [RFC 8949] and back.

What cannot be written in the other way without guessing is left alone: `convert` gives None for it, as for a payload that
is none of its kind, longer than `MAX_BYTES` or nested deeper than `MAX_DEPTH`. Of CBOR, tags are dropped and their
content stays, byte strings become base64, undefined and other simple values null, as section 6.1 of RFC 8949 advises;
NaN and the infinities, which JSON does not have, become null too. Nothing that is sent can take more memory or time than a
few times its length: CBOR's shared references, which could, are counted out before anything is written.

The libraries are loaded by the first payload. The last answer is remembered: a retained message, or one for several
bridges, is written once.
"""

from __future__ import annotations

import io
import re
from collections.abc import Callable
from typing import Any, Final, Literal

MAX_BYTES: Final = 256 << 10
MAX_DEPTH: Final = 32

_KNOWN_TAGS: Final = (0, 1, 4, 5, 30, 35, 36, 37, 52, 54, 100, 258, 260, 261, 1004, 43_000, 55_799)
"""Those that cbor2 would make objects of; of the bignums (2, 3) it makes numbers, which JSON has."""
_SHARING: Final = re.compile(
    rb"\xd8[\x19\x1c\x1d]|\xd9(?:\x01\x00|\x00[\x19\x1c\x1d])"
    rb"|(?:\xda|\xdb\x00{4})\x00\x00(?:\x01\x00|\x00[\x19\x1c\x1d])"
)
"""Looks like one of the tags 25, 28, 29 and 256, in whatever length: values that stand in more than one place."""


class Transform:
    """One direction. `content_type`: of what comes out; `is_text`: whether that is UTF-8."""

    def __init__(self, content_type: str, is_text: bool, convert: Callable[[bytes], bytes | None]) -> None:
        self.content_type = content_type
        self.is_text = is_text
        self._convert = convert
        self._last: tuple[bytes, bytes | None] = (b"", None)

    def convert(self, payload: bytes) -> bytes | None:
        """`payload` written anew, None where that cannot be."""
        if not payload or len(payload) > MAX_BYTES:
            return None
        before, result = self._last
        if before != payload:
            result = self._convert(payload)
            self._last = (payload, result)
        return result


def _json_to_cbor(payload: bytes) -> bytes | None:
    import cbor2
    import msgspec

    try:
        value = msgspec.json.decode(payload)
        if payload.count(b"[") + payload.count(b"{") > MAX_DEPTH and _is_deeper(value, MAX_DEPTH):
            return None
        return cbor2.dumps(value)
    except (msgspec.DecodeError, cbor2.CBOREncodeError, RecursionError, ValueError, OverflowError):
        return None


def _cbor_to_json(payload: bytes) -> bytes | None:
    import cbor2
    import msgspec

    source = io.BytesIO(payload)
    try:
        value = cbor2.CBORDecoder(
            source,
            max_depth=MAX_DEPTH,
            semantic_decoders=dict.fromkeys(_KNOWN_TAGS, _content),
            tag_hook=_untagged,
            allow_duplicate_keys=False,
        ).decode()
        if source.tell() != len(payload):
            return None
        if _SHARING.search(payload) and _weight(value, len(payload)) > len(payload):
            return None
        return msgspec.json.encode(value, enc_hook=_as_null)
    except (cbor2.CBORDecodeError, RecursionError, TypeError, ValueError, OverflowError, MemoryError):
        return None


def _content(value: Any, *_: Any) -> Any:
    return value


def _untagged(tag: Any, *_: Any) -> Any:
    return tag.value


def _as_null(_value: Any) -> None:
    """msgspec's hook for what JSON does not have: undefined and simple values."""


def _is_deeper(value: Any, most: int) -> bool:
    """Whether lists and maps stand in each other more than `most` deep."""
    level = [value]
    for _ in range(most):
        level = [
            inner
            for item in level
            if isinstance(item, list | dict)
            for inner in (item.values() if isinstance(item, dict) else item)
        ]
    return any(isinstance(item, list | dict) for item in level)


def _weight(value: Any, most: int) -> int:
    """Items and the bytes of texts that writing `value` would meet, each time it meets them; counts no further than a
    little over `most`. Where nothing is shared, no more than the bytes that it was read from."""
    weight = 0
    waiting = [value]
    while waiting and weight <= most:
        item = waiting.pop()
        weight += 1 + (len(item) if isinstance(item, str | bytes) else 0)
        if isinstance(item, dict):
            weight += sum(1 + (len(key) if isinstance(key, str | bytes) else 0) for key in item)
            waiting += item.values()
        elif isinstance(item, list | tuple | set | frozenset):
            waiting += item
    return weight


TRANSFORMS: Final[dict[Literal["json_to_cbor", "cbor_to_json"], Transform]] = {
    "json_to_cbor": Transform("application/cbor", False, _json_to_cbor),
    "cbor_to_json": Transform("application/json", True, _cbor_to_json),
}
