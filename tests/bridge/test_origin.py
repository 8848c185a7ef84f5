"""An origin is read as it was written; anything else is none."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from bridge.origin import NAME, Origin, OriginWriter, find_origin, parse_origin
from edge_broker.wire import const
from edge_broker.wire.decoder import Decoder
from edge_broker.wire.encoder import encode_publish
from edge_broker.wire.packets import Publish
from edge_broker.wire.topics import TopicCache

_names = st.text(st.characters(exclude_categories=["Cs"]), min_size=1, max_size=30)
_numbers = st.integers(0, (1 << 63) - 1)


@given(_names, _names, _numbers, _numbers)
def test_what_is_written_is_read(gateway: str, lane: str, epoch: int, sequence: int) -> None:
    origin = Origin(gateway, lane, epoch, sequence)
    assert parse_origin(str(origin)) == origin


def test_it_stands_in_a_publish_as_a_user_property() -> None:
    written = OriginWriter("site 7/gateway", "up").encode(3, 4711)
    packet = encode_publish(5, "t", b"x", 1, False, False, 1, bytes((len(written),)) + written)
    decoder = Decoder(TopicCache(), 1000)
    decoder.version = const.MQTT_5
    decoder.feed(packet)
    publish = decoder.next_packet()
    assert isinstance(publish, Publish)
    assert find_origin(publish.properties[const.USER_PROPERTY]) == Origin("site 7/gateway", "up", 3, 4711)


@pytest.mark.parametrize(
    "text",
    [
        "",
        "a/b/1",
        "a/b/1/2/3",
        "/b/1/2",
        "a/b/-1/2",
        "a/b/1/x",
        "a/b/²/2",
        "a/b/1/" + "9" * 40,
        "a" * 3000 + "/b/1/2",
    ],
)
def test_anything_else_is_none(text: str) -> None:
    assert find_origin([("other", "a/b/1/2"), (NAME, text)]) is None
