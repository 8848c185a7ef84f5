"""What came is taken apart rightly, whatever it is; what is no sound announcement or number is none."""

from __future__ import annotations

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from bridge.envelope import Enclosed, Envelope
from bridge.ingest.unpacking import (
    DeviceNames,
    DeviceReader,
    GatewayTopic,
    new_messages,
    read_plain,
    read_skipped,
)
from bridge.origin import NAME, Origin
from bridge.windows import LaneKey, Windows
from edge_broker.core.message import build_message
from edge_broker.wire import const
from edge_broker.wire.properties import decode_properties, encode_properties


@pytest.mark.parametrize(
    ("topic", "gateway"),
    [
        ("edge/gw-1/envelopes", "gw-1"),
        ("edge/site%207%2Fgw/envelopes", "site 7/gw"),
        ("edge//envelopes", ""),
        ("edge/a/b/envelopes", None),
        ("edge/envelopes", None),
        ("edge/gw-1/envelopes/", None),
        ("other/gw-1/envelopes", None),
    ],
)
def test_a_gateway_is_told_by_its_topic(topic: str, gateway: str | None) -> None:
    assert GatewayTopic("edge/+/envelopes").gateway_of(topic) == gateway


def test_where_there_is_no_filter_no_topic_is_one() -> None:
    assert GatewayTopic("").gateway_of("edge/gw/envelopes") is None
    assert GatewayTopic("").gateway_of("") is None


@given(st.lists(st.lists(st.integers(1, 80), min_size=1, max_size=30), max_size=8))
def test_of_an_envelope_what_is_new_comes_out_once(envelopes: list[list[int]]) -> None:
    windows, seen = Windows(), set()
    for numbers in envelopes:
        messages = [Enclosed(number, "t", b"%d" % number) for number in sorted(set(numbers))]
        new = new_messages(windows, Envelope("g", "l", 1, messages))
        assert list(new) == [message for message in messages if message.sequence not in seen]
        seen |= set(numbers)
    assert windows.duplicates == sum(len(set(one)) for one in envelopes) - len(seen)


def test_a_plain_message_loses_its_origin_and_nothing_else() -> None:
    origin = Origin("site 7/gw", "up", 3, 99)
    properties = {
        const.CONTENT_TYPE: "text/plain",
        const.USER_PROPERTY: [("a", "b"), (NAME, str(origin)), ("c", "d")],
    }
    message = build_message("t/1", b"21.5", qos=1, retain=True, property_block=encode_properties(properties))
    kept = encode_properties(
        {const.CONTENT_TYPE: "text/plain", const.USER_PROPERTY: [("a", "b"), ("c", "d")]}
    )
    assert read_plain(message) == (origin, Enclosed(99, "t/1", b"21.5", 1, True, kept))
    alone = encode_properties({const.USER_PROPERTY: [(NAME, str(origin))]})
    assert read_plain(build_message("t", b"", property_block=alone)).message.property_block == b"\0"


@pytest.mark.parametrize("value", ["", "a/b", "a/b/1/x", f"{'g' * 251}/l/1/2"])
def test_an_origin_that_makes_no_sense_is_none_and_stays(value: str) -> None:
    block = encode_properties({const.USER_PROPERTY: [(NAME, value)]})
    assert read_plain(build_message("t", b"", property_block=block)) == (
        None,
        Enclosed(-1, "t", b"", 0, False, block),
    )


def test_the_expiry_stays_with_a_message() -> None:
    message = build_message("t", b"x", qos=1, property_block=encode_properties({const.CONTENT_TYPE: "x"}))
    message.expiry_interval = 60
    block = read_plain(message).message.property_block
    assert decode_properties(block, 0, len(block), const.PUBLISH)[0] == {
        const.CONTENT_TYPE: "x",
        const.MESSAGE_EXPIRY_INTERVAL: 60,
    }


def test_a_message_of_an_old_cluster_has_no_origin() -> None:
    message = build_message("t", b"x", qos=1, version=const.MQTT_3_1_1)
    assert read_plain(message) == (None, Enclosed(-1, "t", b"x", 1, False, b"\0"))


def test_skipped_ranges_are_read() -> None:
    skipped = read_skipped(b'{"lane": "up", "epoch": 3, "ranges": [[4, 9], [12, 12]], "later": "more"}')
    assert skipped is not None
    assert (skipped.lane, skipped.ranges) == ("up", [(4, 9), (12, 12)])


@pytest.mark.parametrize(
    "payload",
    [
        b"",
        b"[]",
        b"\xa0",
        b'{"lane": "up"}',
        b'{"lane": 1, "ranges": []}',
        b'{"lane": "up", "ranges": [[5, 4]]}',
        b'{"lane": "up", "ranges": [[-1, 4]]}',
        b'{"lane": "up", "ranges": [[1, 9223372036854775807]]}',
        b'{"lane": "up", "ranges": [[1, 2, 3]]}',
        json.dumps({"lane": "x" * 251, "ranges": []}).encode(),
        json.dumps({"lane": "up", "ranges": [[1, 1]] * 10_001}).encode(),
        b'{"lane": "\xff", "ranges": []}',
        b"[" * 100_000,
        b'{"lane": "up", "ranges": ' + b"[" * 100_000,
    ],
)
def test_what_is_no_announcement_is_none(payload: bytes) -> None:
    assert read_skipped(payload) is None


@given(st.binary(max_size=200))
def test_no_bytes_break_the_announcement(payload: bytes) -> None:
    read_skipped(payload)
    read_skipped(b'{"lane": "up", "ranges": ' + payload)


def test_a_devices_own_number_is_found() -> None:
    reader = DeviceReader(DeviceNames("device", "spool", "sequence"))

    def read(*pairs: tuple[str, str]) -> tuple[LaneKey, int] | None:
        return reader.read(encode_properties({const.USER_PROPERTY: list(pairs)}))

    assert read(("device", "porch"), ("spool", "a"), ("sequence", "7")) == (LaneKey("porch", "a"), 7)
    assert read(("device", "porch"), ("sequence", "7")) == (LaneKey("porch", ""), 7)
    assert read(("device", "porch"), ("sequence", "seven")) is None
    assert read(("device", "porch"), ("sequence", "9" * 30)) is None
    assert read(("device", "p" * 251), ("sequence", "7")) is None
    assert read(("spool", "a"), ("sequence", "7")) is None
    assert reader.read(b"\0") is None
