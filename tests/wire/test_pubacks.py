"""A run of PUBACKs is known by sight: exactly the plain ones, in order, none cut, none of identifier 0."""

import pytest

from edge_broker.wire import const
from edge_broker.wire.encoder import encode_ack
from edge_broker.wire.pubacks import PUBACKS, take_pubacks


def pubacks(*packet_ids: int) -> bytes:
    return b"".join(encode_ack(const.MQTT_3_1_1, const.PUBACK, packet_id) for packet_id in packet_ids)


def test_each_is_what_the_encoder_makes() -> None:
    assert [pubacks(packet_id) for packet_id in range(1, 65536)] == PUBACKS[1:]


@pytest.mark.parametrize("packet_ids", [[1], [65535], [1, 2, 3], [255, 256, 257], [65534, 65535]])
def test_a_run(packet_ids: list[int]) -> None:
    assert take_pubacks(pubacks(*packet_ids)) == (packet_ids[0], len(packet_ids))


@pytest.mark.parametrize(
    "data",
    [
        pubacks(1, 3),
        pubacks(2, 1),
        pubacks(7, 7),
        pubacks(1, 2)[:-1],
        pubacks(1, 2) + b"\x40",
        pubacks(65535, 1),
        b"\x40\x02\0\0",
        b"\x40\x02\0\0" + pubacks(1),
        pubacks(1) + b"\x50\x02\0\x02",
        b"\x40\x03\0\x01\0",
        b"\x41\x02\0\x01",
    ],
)
def test_no_run(data: bytes) -> None:
    assert take_pubacks(data) is None
