"""The golden vectors through decoder and encoder: whole, byte by byte, cut, with company, and back to bytes."""

from __future__ import annotations

from typing import Any, Final

import pytest

from edge_broker.errors import MqttError
from edge_broker.wire.decoder import Decoder
from edge_broker.wire.packets import Connect, Packet, Publish
from edge_broker.wire.topics import TopicCache
from tests.golden import MALFORMED, VALID, Malformed, Valid
from tests.golden.notation import MAX_PACKET_BYTES, TOPIC_ALIAS_MAXIMUM
from tests.golden.packets import describe, encode
from tests.golden.properties import PACKETS, PROPERTIES

GOOD: Final = pytest.mark.parametrize("vector", [pytest.param(vector, id=vector.name) for vector in VALID])
BAD: Final = pytest.mark.parametrize("vector", [pytest.param(vector, id=vector.name) for vector in MALFORMED])
NEIGHBOUR: Final = b"\x40\x02\x00\x63"
"""A PUBACK, the same at every version: what stands before or after the vector in the stream."""


def decoder_for(vector: Valid | Malformed, version: int) -> Decoder:
    """A fresh decoder, as it stands when the vector's bytes come."""
    before = 0 if isinstance(vector, Valid) and vector.packet == "CONNECT" else version
    return Decoder(TopicCache(), MAX_PACKET_BYTES, before, TOPIC_ALIAS_MAXIMUM, from_server=True)


def assert_is(packet: Packet | None, vector: Valid, version: int) -> None:
    """`packet` is what the vector says."""
    assert packet is not None
    assert describe(packet) == (vector.packet, vector.fields)
    if isinstance(packet, Connect):
        assert packet.version == version
    if isinstance(packet, Publish):
        assert_frame(packet, vector, version)


def assert_frame(packet: Publish, vector: Valid, version: int) -> None:
    """What the PUBLISH keeps of its bytes, and where it says that things are in them."""
    frame = packet.frame
    assert frame == vector.frame
    assert packet.version == version
    after_topic = packet.packet_id_at
    assert frame[:after_topic].endswith(packet.topic.encode())
    if packet.qos:
        assert frame[after_topic : after_topic + 2] == packet.packet_id.to_bytes(2, "big")
        after_topic += 2
    assert frame[after_topic : packet.payload_at] == (packet.property_block if version >= 5 else b"")
    assert frame[packet.payload_at :] == vector.fields["payload"]


def refusal(decoder: Decoder, data: bytes) -> int | None:
    """The reason code with which `data` is refused, None where the decoder waits for more."""
    decoder.feed(data)
    try:
        assert decoder.next_packet() is None
    except MqttError as error:
        return error.reason_code
    return None


def drain(decoder: Decoder) -> list[tuple[str, dict[str, Any]]]:
    """Every packet that is whole, described at once: a plain PUBACK is one object used again."""
    packets = []
    while (packet := decoder.next_packet()) is not None:
        packets.append(describe(packet))
    return packets


@GOOD
def test_whole(vector: Valid) -> None:
    for version in vector.versions:
        decoder = decoder_for(vector, version)
        decoder.feed(vector.data)
        assert_is(decoder.next_packet(), vector, version)
        assert decoder.version == version
        assert decoder.next_packet() is None
        assert decoder.buffered_bytes == 0


@GOOD
def test_byte_by_byte(vector: Valid) -> None:
    for version in vector.versions:
        decoder = decoder_for(vector, version)
        for position in range(len(vector.data) - 1):
            decoder.feed(vector.data[position : position + 1])
            assert decoder.next_packet() is None
        decoder.feed(vector.data[-1:])
        assert_is(decoder.next_packet(), vector, version)
        assert decoder.next_packet() is None


@GOOD
def test_cut_at_every_point(vector: Valid) -> None:
    """However long the beginning, it is no packet and no error; the rest then completes it."""
    for version in vector.versions:
        step = max(1, len(vector.data) // 500)
        for cut in {*range(0, len(vector.data), step), len(vector.data) - 1}:
            decoder = decoder_for(vector, version)
            decoder.feed(vector.data[:cut])
            assert decoder.next_packet() is None
            assert decoder.buffered_bytes == cut
            decoder.feed(vector.data[cut:])
            assert_is(decoder.next_packet(), vector, version)


@GOOD
def test_with_trailing_data(vector: Valid) -> None:
    """What follows is the next packet's: it stays whole, and is not looked at."""
    for version in vector.versions:
        decoder = decoder_for(vector, version)
        decoder.feed(vector.data + NEIGHBOUR + b"\x00")
        assert_is(decoder.next_packet(), vector, version)
        after = decoder.next_packet()
        assert after is not None
        assert describe(after) == ("PUBACK", {"packet_id": 99, "reason_code": 0, "properties": {}})
        assert decoder.next_packet() is None
        assert decoder.buffered_bytes == 1


@GOOD
def test_twice_in_a_row(vector: Valid) -> None:
    for version in vector.versions:
        decoder = decoder_for(vector, version)
        decoder.feed(vector.data * 2)
        assert_is(decoder.next_packet(), vector, version)
        assert_is(decoder.next_packet(), vector, version)
        assert decoder.next_packet() is None


@GOOD
def test_back_to_bytes(vector: Valid) -> None:
    """The encoder writes the same bytes where they are the canonical ones, otherwise bytes that say the same."""
    for version in vector.versions:
        decoder = decoder_for(vector, version)
        decoder.feed(vector.data)
        packet = decoder.next_packet()
        assert packet is not None
        encoded = encode(packet, version)
        if vector.canonical:
            assert encoded.hex(" ") == vector.data.hex(" ")
            continue
        assert encoded != vector.data
        again = decoder_for(vector, version)
        again.feed(encoded)
        of_the_hop = {"expiry_interval": None, "subscription_ids": ()} if vector.packet == "PUBLISH" else {}
        assert drain(again) == [(vector.packet, vector.fields | of_the_hop)]


@BAD
def test_refused_whole(vector: Malformed) -> None:
    for version in vector.versions:
        assert refusal(decoder_for(vector, version), vector.data) == vector.reason_code


@BAD
def test_refused_byte_by_byte(vector: Malformed) -> None:
    """Nothing comes out before the refusal, and it comes with the last byte at the latest."""
    for version in vector.versions:
        decoder = decoder_for(vector, version)
        codes = []
        for position in range(len(vector.data)):
            codes.append(refusal(decoder, vector.data[position : position + 1]))
            if codes[-1] is not None:
                break
        assert codes[-1] == vector.reason_code


@BAD
def test_refused_cut_at_every_point(vector: Malformed) -> None:
    """A beginning is no packet; it is refused, with the same code, only where no more can make it good."""
    for version in vector.versions:
        for cut in range(len(vector.data)):
            assert refusal(decoder_for(vector, version), vector.data[:cut]) in (None, vector.reason_code)


@BAD
def test_refused_among_others(vector: Malformed) -> None:
    """The packet before it comes out whole, and what stands after it changes nothing."""
    for version in vector.versions:
        decoder = decoder_for(vector, version)
        decoder.feed(NEIGHBOUR + vector.data + NEIGHBOUR)
        first = decoder.next_packet()
        assert first is not None
        assert describe(first)[0] == "PUBACK"
        with pytest.raises(MqttError) as refused:
            decoder.next_packet()
        assert refused.value.reason_code == vector.reason_code


def test_names_are_unique() -> None:
    names = [vector.name for vector in VALID] + [vector.name for vector in MALFORMED]
    assert len(names) == len(set(names))


def test_every_packet_type_of_every_version_has_a_vector() -> None:
    seen = {(vector.packet, version) for vector in VALID for version in vector.versions}
    expected = {(packet, version) for packet in PACKETS for version in (3, 4, 5)}
    assert seen == expected - {("AUTH", 3), ("AUTH", 4)}


def test_every_property_has_a_vector_in_every_place() -> None:
    seen: set[tuple[str, str]] = set()
    for vector in VALID:
        seen.update((name, vector.packet) for name in vector.fields.get("properties", ()))
        if vector.packet == "PUBLISH" and vector.fields["expiry_interval"] is not None:
            seen.add(("message_expiry_interval", "PUBLISH"))
        if vector.packet == "PUBLISH" and vector.fields["subscription_ids"]:
            seen.add(("subscription_identifier", "PUBLISH"))
        if "alias-is-set" in vector.name:
            seen.add(("topic_alias", "PUBLISH"))
        if vector.fields.get("will"):
            seen.update((name, "WILL") for name in vector.fields["will"]["properties"])
            if vector.fields["will"]["delay_interval"]:
                seen.add(("will_delay_interval", "WILL"))
    assert seen == {(name, place) for name, entry in PROPERTIES.items() for place in entry.places}
