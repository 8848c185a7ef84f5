"""The decoder beyond single packets: topic aliases, limits, versions, and how much memory it keeps."""

from __future__ import annotations

import tracemalloc
from collections.abc import Iterator
from contextlib import contextmanager

import pytest

from edge_broker.errors import MqttError, PacketTooLarge
from edge_broker.wire import const
from edge_broker.wire.decoder import Decoder
from edge_broker.wire.encoder import encode_publish
from edge_broker.wire.packets import Ack, Packet, Publish
from edge_broker.wire.properties import encode_properties
from edge_broker.wire.topics import TopicCache
from tests.golden.notation import bytes_of

MEGABYTE = 1_000_000


def decoder(version: int = 5, *, alias_maximum: int = 0, maximum: int = 4 * MEGABYTE) -> Decoder:
    return Decoder(TopicCache(), maximum, version, alias_maximum)


def next_publish(of: Decoder, written: str) -> Publish:
    of.feed(bytes_of(written))
    packet = of.next_packet()
    assert isinstance(packet, Publish)
    assert of.next_packet() is None
    return packet


def code_of(of: Decoder, data: bytes) -> int:
    of.feed(data)
    with pytest.raises(MqttError) as refused:
        of.next_packet()
    return refused.value.reason_code


@contextmanager
def kept_bytes() -> Iterator[list[int]]:
    """Counts what is still allocated of what the block allocated."""
    counted: list[int] = []
    tracemalloc.start()
    try:
        yield counted
        counted.append(tracemalloc.get_traced_memory()[0])
    finally:
        tracemalloc.stop()


# ---- topic aliases


def test_an_alias_stands_for_the_topic_it_was_set_with() -> None:
    stream = decoder(alias_maximum=2)
    assert next_publish(stream, "30 09 00 01 'a' 03 23 00 01 'hi'").topic == "a"
    used = next_publish(stream, "30 08 00 00 03 23 00 01 'ho'")
    assert (used.topic, used.payload, used.properties) == ("a", b"ho", {})
    assert used.frame == bytes_of("30 06 00 01 'a' 00 'ho'")


def test_an_alias_may_be_given_to_another_topic() -> None:
    stream = decoder(alias_maximum=2)
    for topic in "ab":
        next_publish(stream, f"30 07 00 01 '{topic}' 03 23 00 02")
    assert next_publish(stream, "30 06 00 00 03 23 00 02").topic == "b"
    assert code_of(stream, bytes_of("30 06 00 00 03 23 00 01")) == 0x82


def test_aliases_are_the_connections_own() -> None:
    topics = TopicCache()
    one, other = Decoder(topics, 100, 5, 1), Decoder(topics, 100, 5, 1)
    next_publish(one, "30 07 00 01 'a' 03 23 00 01")
    assert code_of(other, bytes_of("30 06 00 00 03 23 00 01")) == 0x82


def test_a_refused_topic_sets_no_alias() -> None:
    stream = decoder(alias_maximum=1)
    assert code_of(stream, bytes_of("30 07 00 01 '#' 03 23 00 01")) == 0x90


def test_no_alias_is_taken_that_was_not_offered() -> None:
    assert code_of(decoder(alias_maximum=0), bytes_of("30 07 00 01 'a' 03 23 00 01")) == 0x94


def test_a_block_seen_before_needs_its_own_topic() -> None:
    """The second packet has the first one's properties and no topic: it may not get one from anywhere."""
    stream = decoder(alias_maximum=1)
    next_publish(stream, "30 06 00 01 'a' 02 01 01")
    assert code_of(stream, bytes_of("30 05 00 00 02 01 01")) == 0x82


def test_a_block_seen_before_is_found_whole_or_not_at_all() -> None:
    stream = decoder()
    next_publish(stream, "30 06 00 01 'a' 02 01 01")
    assert next_publish(stream, "30 06 00 01 'a' 02 01 00").properties == {0x01: 0}
    assert next_publish(stream, "32 08 00 01 'a' 00 07 02 01 01").payload == b""
    assert code_of(stream, bytes_of("30 06 00 01 'a' 02 01 02")) == 0x82


# ---- versions


def test_the_version_is_learnt_from_connect() -> None:
    stream = decoder(0)
    stream.feed(bytes_of("10 0e 00 04 'MQTT' 05 02 00 3c 00 00 01 'c' 30 06 00 01 't' 00 'hi'"))
    assert stream.next_packet() is not None
    publish = stream.next_packet()
    assert isinstance(publish, Publish)
    assert (stream.version, publish.version, publish.payload) == (5, 5, b"hi")


def test_a_subclass_of_publish_is_built_directly() -> None:
    class Letter(Publish):
        stamp = 7

    for written in ("30 06 00 01 't' 00 'hi'", "3a 0d 00 01 't' 00 01 05 02 00 00 00 3c 'hi'"):
        stream = Decoder(TopicCache(), 100, 5, publish_type=Letter)
        stream.feed(bytes_of(written))
        packet = stream.next_packet()
        assert isinstance(packet, Letter)
        assert (packet.stamp, packet.payload) == (7, b"hi")


def test_whole_packets_are_taken_without_the_buffer_again_once_it_is_empty() -> None:
    stream = decoder(4)
    puback = bytes_of("40 02 00 07")
    stream.feed(puback[:2])
    assert stream.take_whole(puback) is None, "a packet has begun"
    stream.feed(puback[2:])
    assert stream.next_packet() is not None
    assert stream.take_whole(puback) == (7, 1)
    stream.feed(b"")
    assert stream.next_packet() is None
    assert stream.take_whole(puback) == (7, 1)


# ---- limits


@pytest.mark.parametrize("size", [2, 5, 129, 131, 1000])
def test_the_longest_packet_allowed(size: int) -> None:
    """The whole packet counts, its fixed header included [3.1.2.11.4]."""
    length_bytes = 1 if size <= 129 else 2
    body = size - 1 - length_bytes  # 127 is the most in one byte; no packet has 130 bytes
    head = b"\x30" + (bytes((body,)) if length_bytes == 1 else bytes((body & 0x7F | 0x80, body >> 7)))
    packet = head + (b"\0\1t" + b"x" * body)[:body]
    too_small = decoder(4, maximum=size - 1)
    too_small.feed(head)
    with pytest.raises(PacketTooLarge):
        too_small.next_packet()
    exact = decoder(4, maximum=size)
    exact.feed(packet[:-1])
    assert exact.next_packet() is None
    exact.feed(packet[-1:])
    if body >= 3:
        assert isinstance(exact.next_packet(), Publish)
    else:  # too short for a topic, but not too large
        with pytest.raises(MqttError, match="cut off"):
            exact.next_packet()


def test_a_remaining_length_of_four_bytes() -> None:
    payload = bytes(2_097_149)
    whole = b"\x30\x80\x80\x80\x01\x00\x01t" + payload
    stream = decoder(4)
    for at in range(0, len(whole), 65536):
        assert stream.next_packet() is None
        stream.feed(whole[at : at + 65536])
    packet = stream.next_packet()
    assert isinstance(packet, Publish)
    assert packet.payload == payload
    assert encode_publish(4, "t", payload) == whole


def test_one_packet_in_pieces_after_the_other() -> None:
    """What was put aside for the first is gone when the second begins, however their ends fall into the chunks."""
    packets = [encode_publish(4, "t", bytes((number,)) * 300) for number in range(5)]
    whole = b"".join(packets)
    for size in (1, 7, 100, 299, 303, 304, 305, 307, 400, 700):
        stream = decoder(4)
        seen = []
        for at in range(0, len(whole), size):
            stream.feed(whole[at : at + size])
            while (packet := stream.next_packet()) is not None:
                assert isinstance(packet, Publish)
                seen.append(packet.frame)
        assert seen == packets
        assert stream.buffered_bytes == 0


def test_a_short_packet_after_a_long_one_in_pieces() -> None:
    """It comes with its own last byte: how long the other was is forgotten."""
    stream = decoder(4)
    long_one = encode_publish(4, "t", bytes(300))
    stream.feed(long_one[:100])
    assert stream.next_packet() is None
    stream.feed(long_one[100:] + b"\x40")
    assert isinstance(stream.next_packet(), Publish)
    assert stream.next_packet() is None
    stream.feed(b"\x02\x00\x01")
    assert isinstance(stream.next_packet(), Ack)


def test_a_plain_puback_is_one_object() -> None:
    """The fast path that the docstring promises: read it before asking again."""
    stream = decoder(4)
    stream.feed(b"\x40\x02\x00\x01\x40\x02\x00\x02")
    first, second = stream.next_packet(), stream.next_packet()
    assert first is second
    assert isinstance(second, Ack)
    assert second.packet_id == 2


# ---- memory


def test_a_packet_in_crumbs_takes_no_more_than_its_bytes() -> None:
    """A hostile peer sends two bytes at a time: what they cost to keep is bounded by what they are."""
    whole = encode_publish(4, "t", bytes(60_000))
    stream = decoder(4)
    with kept_bytes() as kept:
        for at in range(0, len(whole) - 2, 2):
            stream.feed(whole[at : at + 2])
            assert stream.next_packet() is None
        assert stream.buffered_bytes >= len(whole) - 3
    assert kept[0] < 100_000


def test_an_idle_connection_keeps_nothing_of_what_it_was_sent() -> None:
    """Neither after its last packet, nor while it waits for the rest of the next one."""
    packets = encode_publish(4, "t", bytes(1000)) * 200
    for rest in (b"", b"\x30", b"\x30\x10\x00\x01t"):
        stream = decoder(4)
        with kept_bytes() as kept:
            stream.feed(bytes(packets + rest))
            while stream.next_packet() is not None:
                pass
            assert stream.buffered_bytes == len(rest)
        assert kept[0] < 10_000


def test_no_long_property_block_is_kept() -> None:
    block = encode_properties({const.USER_PROPERTY: [("k", "v" * 30_000)]})
    whole = encode_publish(5, "t", b"hi", property_block=block)
    stream = decoder(5)
    with kept_bytes() as kept:
        for _ in range(2):
            stream.feed(bytes(bytearray(whole)))
            packet: Packet | None = stream.next_packet()
            assert isinstance(packet, Publish)
            assert len(packet.properties[const.USER_PROPERTY][0][1]) == 30_000
            assert stream.next_packet() is None
        del packet
    assert kept[0] < 10_000


def test_the_topic_cache_is_bounded() -> None:
    """In names and in bytes: a client that never repeats a topic, and one whose topics are as long as can be."""
    topics = TopicCache(capacity=100)
    for number in range(1000):
        assert topics.name(b"t/%d" % number) == f"t/{number}"
        assert len(topics.names) <= 100
    before = dict(topics.names)
    long_name = b"l" * 65_535
    assert topics.name(long_name) == long_name.decode()
    assert topics.names == before


def test_a_full_topic_cache_is_still_the_decoders() -> None:
    topics = TopicCache(capacity=1)
    stream = Decoder(topics, 100, 4)
    for topic in ("a", "b", "b", "a"):
        assert next_publish(stream, f"30 03 00 01 '{topic}'").topic == topic
    assert topics.names == {b"a": "a"}
