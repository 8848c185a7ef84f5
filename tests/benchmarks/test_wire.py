"""The judge's own codec: packets as the specification writes them, and bulk parsing against one packet at a time."""

import random

import pytest

from benchmarks import wire
from benchmarks.wire import BrokerMisbehaved, ExpectedPubacks


def one_at_a_time(data: bytes) -> list[bytes]:
    """The complete packets in `data`, the slow and obvious way."""
    packets = []
    while (size := wire.first_packet_size(data)) is not None:
        packets.append(data[:size])
        data = data[size:]
    return packets


def expanded(data: bytes) -> list[bytes]:
    """The packets that `runs` finds."""
    found, used = wire.runs(data)
    packets = [
        data[start + index * size : start + (index + 1) * size]
        for start, size, count in found
        for index in range(count)
    ]
    assert b"".join(packets) == data[:used]
    return packets


@pytest.mark.parametrize(
    ("length", "encoded"),
    [
        (0, "00"),
        (127, "7f"),
        (128, "80 01"),
        (16_383, "ff 7f"),
        (16_384, "80 80 01"),
        (268_435_455, "ff ff ff 7f"),
    ],
)
def test_lengths_are_those_of_the_specification(length: int, encoded: str) -> None:
    raw = bytes.fromhex(encoded)
    assert wire.encode_length(length) == raw
    assert wire.decode_length(raw, 0) == (length, len(raw))
    assert wire.decode_length(raw[:-1], 0) is None


def test_a_length_of_five_bytes_is_refused() -> None:
    with pytest.raises(BrokerMisbehaved):
        wire.decode_length(b"\x80\x80\x80\x80\x01", 0)


def test_packets_of_version_3_1_1() -> None:
    assert wire.connect("ab", 4, True, 60) == bytes.fromhex("10 0e 0004 4d515454 04 02 003c 0002 6162")
    assert wire.connect("ab", 4, False, 60)[9] == 0
    assert wire.subscribe(1, ["a/b"], 1, 4) == bytes.fromhex("82 08 0001 0003 612f62 01")
    assert wire.publish("a/b", b"xy", 0, 4, 7) == bytes.fromhex("30 07 0003 612f62 7879")
    assert wire.publish("a/b", b"xy", 1, 4, 7) == bytes.fromhex("32 09 0003 612f62 0007 7879")


def test_packets_of_version_5_have_properties() -> None:
    assert wire.connect("a", 5, True, 0) == bytes.fromhex("10 0e 0004 4d515454 05 02 0000 00 0001 61")
    assert wire.connect("a", 5, False, 0) == bytes.fromhex(
        "10 13 0004 4d515454 05 00 0000 05 11ffffffff 0001 61"
    )
    assert wire.subscribe(1, ["a"], 1, 5) == bytes.fromhex("82 07 0001 00 0001 61 01")
    assert wire.publish("a", b"x", 1, 5, 7) == bytes.fromhex("32 07 0001 61 0007 00 78")


def test_connack_tells_session_code_and_receive_maximum() -> None:
    assert wire.decode_connack(bytes.fromhex("20 02 01 00"), 4) == wire.Connack(True, 0, 65_535)
    assert wire.decode_connack(bytes.fromhex("20 03 00 87 00"), 5) == wire.Connack(False, 0x87, 65_535)
    # A user property, an assigned client identifier and the maximum QoS stand before the receive maximum.
    properties = "26 0001 61 0001 62 12 0002 7879 24 01 21 0014"
    length = len(bytes.fromhex(properties))
    packet = bytes([0x20, length + 3, 0, 0, length]) + bytes.fromhex(properties)
    assert wire.decode_connack(packet, 5).receive_maximum == 20


def test_suback_tells_what_was_granted() -> None:
    assert wire.decode_suback(bytes.fromhex("90 04 0001 01 80"), 4) == b"\x01\x80"
    assert wire.decode_suback(bytes.fromhex("90 05 0001 00 01 87"), 5) == b"\x01\x87"
    with pytest.raises(BrokerMisbehaved, match="expected SUBACK"):
        wire.decode_suback(bytes.fromhex("20 02 00 00"), 4)


@pytest.mark.parametrize("seed", range(20))
def test_runs_are_what_a_packet_at_a_time_gives(seed: int) -> None:
    source = random.Random(seed)
    kinds = [
        lambda: wire.publish("t/1", source.randbytes(64), 0, 4, 0),
        lambda: wire.publish("t/1", source.randbytes(64), 1, 4, source.randrange(1, 65_536)),
        lambda: wire.publish("t/1", source.randbytes(200), 1, 5, source.randrange(1, 65_536)),
        lambda: wire.publish("t/1", source.randbytes(source.randrange(300)), 1, 4, 1),
        lambda: b"\x40\x02" + source.randbytes(2),
        lambda: b"\xd0\x00",
    ]
    data = b"".join(
        kind() for _ in range(12) for kind in [source.choice(kinds)] for _ in range(source.choice((1, 2, 50)))
    )
    for end in [len(data), *(source.randrange(len(data)) for _ in range(40))]:
        assert expanded(data[:end]) == one_at_a_time(data[:end])


def test_a_long_run_is_one_run() -> None:
    packet = wire.publish("t/1", bytes(64), 1, 4, 1)
    assert wire.runs(packet * 500 + packet[:10]) == ([(0, len(packet), 500)], 500 * len(packet))


@pytest.mark.parametrize("version", [4, 5])
@pytest.mark.parametrize("payload_bytes", [64, 200, 20_000])
def test_pubacks_repeat_the_packet_identifiers(version: int, payload_bytes: int) -> None:
    identifiers = [1, 300, 65_535]
    data = b"".join(wire.publish("t/1", bytes(payload_bytes), 1, version, value) for value in identifiers)
    for count in (1, 3):
        answer = wire.pubacks_for(data, (0, len(data) // 3, count), 3)
        assert answer == b"".join(b"\x40\x02" + value.to_bytes(2, "big") for value in identifiers[:count])


def test_pubacks_for_an_unexpected_topic_are_refused() -> None:
    data = wire.publish("t/12", bytes(64), 1, 4, 1)
    with pytest.raises(BrokerMisbehaved, match="topic"):
        wire.pubacks_for(data, (0, len(data), 1), 3)


def puback_run(*identifiers: int, tail: bytes = b"") -> tuple[bytes, wire.Run]:
    packets = [
        bytes([0x40, 2 + len(tail)]) + identifier.to_bytes(2, "big") + tail for identifier in identifiers
    ]
    return b"".join(packets), (0, 4 + len(tail), len(packets))


@pytest.mark.parametrize("tail", [b"", b"\x00", b"\x10\x00"])
def test_expected_pubacks_count_and_go_round(tail: bytes) -> None:
    expected = ExpectedPubacks(4, first_slot=2)
    assert expected.take(*puback_run(3, 4, 1, tail=tail)) == 3
    assert expected.take(*puback_run(2, tail=tail)) == 1
    assert expected.take(*puback_run(3, tail=tail)) == 1


@pytest.mark.parametrize("identifiers", [(2, 1), (1, 1), (2,), (1, 2, 3, 4, 1, 2, 3, 4, 1)])
@pytest.mark.parametrize("tail", [b"", b"\x00"])
def test_pubacks_out_of_order_are_refused(identifiers: tuple[int, ...], tail: bytes) -> None:
    with pytest.raises(BrokerMisbehaved, match="out of order"):
        ExpectedPubacks(4).take(*puback_run(*identifiers, tail=tail))


def test_a_refusal_is_not_an_acknowledgement() -> None:
    with pytest.raises(BrokerMisbehaved, match="0x97"):
        ExpectedPubacks(4).take(*puback_run(1, tail=b"\x97"))


def test_another_packet_is_not_an_acknowledgement() -> None:
    with pytest.raises(BrokerMisbehaved, match="d0 00"):
        ExpectedPubacks(4).take(b"\xd0\x00", (0, 2, 1))
