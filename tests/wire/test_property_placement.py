"""Each property in each packet, once and twice, and at the edges of its range: MQTT 5's table 2-4, cell by cell."""

from __future__ import annotations

from typing import Any, Final

import pytest

from edge_broker.errors import MqttError
from edge_broker.wire.properties import WILL, decode_properties, encode_properties
from tests.golden.packets import by_name
from tests.golden.properties import PACKETS, PROPERTIES

TYPES: Final = {name: number for number, name in enumerate(PACKETS, 1)} | {"WILL": WILL}
WIDTHS: Final = {"byte": 1, "two": 2, "four": 4}


def decode(body: bytes, place: str) -> dict[str, Any]:
    """The properties in `body`, as a block of the packet `place`."""
    block = bytes((len(body),)) + body
    properties, end = decode_properties(b"\xff" + block + b"\xff", 1, 1 + len(block), TYPES[place])
    assert end == 1 + len(block)
    assert encode_properties(properties) == block
    return by_name(properties)


def code_of(body: bytes, place: str) -> int:
    """The reason code that `body` is refused with."""
    with pytest.raises(MqttError) as refused:
        decode(body, place)
    return refused.value.reason_code


@pytest.mark.parametrize("name", PROPERTIES)
def test_places(name: str) -> None:
    encoded, value = PROPERTIES[name].sample
    as_list = name in ("user_property", "subscription_identifier")
    for place in TYPES:
        if place not in PROPERTIES[name].places:
            assert code_of(encoded, place) == 0x81, place
            continue
        assert decode(encoded, place) == {name: [value] if as_list else value}
        if name == "user_property" or (name, place) == ("subscription_identifier", "PUBLISH"):
            assert decode(encoded * 2, place) == {name: [value, value]}
        else:
            assert code_of(encoded * 2, place) == 0x82, place


@pytest.mark.parametrize("name", PROPERTIES)
def test_cut_at_every_point(name: str) -> None:
    """The block's end inside the property, with bytes of the packet's rest behind it."""
    encoded, _ = PROPERTIES[name].sample
    for cut in range(1, len(encoded)):
        assert code_of(encoded[:cut], PROPERTIES[name].places[0]) == 0x81


@pytest.mark.parametrize("name", [name for name, entry in PROPERTIES.items() if entry.kind in WIDTHS])
def test_range(name: str) -> None:
    """The lowest and highest values are taken, those just outside are a protocol error; an alias is judged elsewhere."""
    entry = PROPERTIES[name]
    place, width = entry.places[0], WIDTHS[entry.kind]
    for value in (entry.lowest, entry.highest):
        assert decode(bytes((entry.identifier,)) + value.to_bytes(width, "big"), place) == {name: value}
    outside = [value for value in (entry.lowest - 1, entry.highest + 1) if 0 <= value < 256**width]
    for value in outside:
        if name != "topic_alias":
            assert code_of(bytes((entry.identifier,)) + value.to_bytes(width, "big"), place) == 0x82


def test_every_other_identifier_is_unknown() -> None:
    for identifier in set(range(128)) - {entry.identifier for entry in PROPERTIES.values()}:
        for place in TYPES:
            assert code_of(bytes((identifier, 0, 0, 0, 0)), place) == 0x81


def test_where_a_misplaced_property_stood_is_said() -> None:
    for place, said in (("WILL", "a will"), ("SUBACK", "SUBACK")):
        with pytest.raises(MqttError, match=f"0x21 has no place in {said}"):
            decode(b"\x21\x00\x01", place)


def test_order_of_user_properties_is_kept() -> None:
    """[MQTT-3.3.2-18]: also where other properties stand between them."""
    pairs = [("b", "1"), ("a", "2"), ("b", "1")]
    body = b"".join(b"\x26\x00\x01%s\x00\x01%s" % (key.encode(), text.encode()) for key, text in pairs)
    assert decode(body, "CONNECT") == {"user_property": pairs}
    block = bytes((len(body) + 2,)) + body[:14] + b"\x01\x00" + body[14:]
    properties, _ = decode_properties(block, 0, len(block), TYPES["PUBLISH"])
    assert by_name(properties) == {"user_property": pairs, "payload_format_indicator": 0}
