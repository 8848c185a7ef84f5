"""A packet that begins like one before takes a shortcut through the decoder; nobody can tell by what comes out.

Every stream here goes to two decoders: a *warm* one, whose topic cache has seen packets that resemble those to come,
and a *cold* one that has seen nothing. Both must give the same packets, or refuse at the same place for the same reason.
"""

from __future__ import annotations

from typing import Any, Final

import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.strategies import DrawFn

from edge_broker.errors import MqttError, PacketTooLarge
from edge_broker.wire import const
from edge_broker.wire.decoder import Decoder
from edge_broker.wire.encoder import encode_publish
from edge_broker.wire.packets import Ack, Publish
from edge_broker.wire.topics import TopicCache
from tests.golden.packets import describe
from tests.properties.strategies import VERSIONS, packet_bytes, packet_ids, payloads, quick, topic_names

LIMITS: Final = (1 << 20, 16_386, 40)
"""Of packets, in bytes: beyond all, where own likenesses begin, and below many of the packets."""


@st.composite
def plain_publishes(draw: DrawFn, version: int) -> bytes:
    """What is remembered: a PUBLISH without properties. Few topics, so that packets resemble each other often."""
    qos = draw(st.integers(0, 2))
    topic = draw(st.sampled_from(("a", "a/b", "a/b/c", "é", "x" * 126)) | topic_names)
    dup = qos > 0 and draw(st.sampled_from((False, False, False, True)))
    payload = draw(st.sampled_from((b"", b"\0", b"1", b"12", b"\0\0\0")) | payloads)
    return encode_publish(version, topic, payload, qos, draw(st.booleans()), dup, draw(packet_ids))


@st.composite
def mutations(draw: DrawFn, packet: bytes) -> bytes:
    """`packet`, or one that begins like it: bytes changed, most often in the header, cut off, put in or put behind."""
    changed = bytearray(packet)
    for _ in range(draw(st.integers(0, 3))):
        if not changed:
            break
        near = draw(st.booleans())
        at = draw(st.integers(0, min(len(changed), 12 if near else len(changed)) - 1))
        match draw(st.sampled_from(("set", "set", "flip", "cut", "insert", "append"))):
            case "set":
                changed[at] = draw(
                    st.sampled_from((0x00, 0x01, 0x02, 0x7F, 0x80, 0xFF)) | st.integers(0, 255)
                )
            case "flip":
                changed[at] ^= 1 << draw(st.integers(0, 7))
            case "cut":
                del changed[at : at + draw(st.integers(1, 3))]
            case "insert":
                changed[at:at] = draw(st.binary(min_size=1, max_size=3))
            case _:
                changed += draw(st.binary(min_size=1, max_size=6))
    return bytes(changed)


def decoder(topics: TopicCache, version: int, limit: int) -> Decoder:
    return Decoder(topics, limit, version=version, topic_alias_maximum=4)


def everything(packet: Any) -> Any:
    """All that a receiver can read of a packet; reading it fails for none that was accepted."""
    if isinstance(packet, Publish):
        try:
            described = describe(packet)
        except MqttError as error:
            raise AssertionError(f"accepted, although its properties are none: {packet.frame!r}") from error
        return described, packet.frame, packet.version, packet.packet_id_at, packet.payload_at
    return describe(packet)


def outcome(decoder: Decoder, chunks: list[bytes], take_whole: bool) -> list[Any]:
    """What comes out for `chunks`, as a connection asks for it; the refusal last, if there was one."""
    found: list[Any] = []
    try:
        for chunk in chunks:
            whole = decoder.take_whole(chunk) if take_whole else None
            if isinstance(whole, tuple):
                packet_id, count = whole
                found += [everything(Ack(const.PUBACK, packet_id + offset)) for offset in range(count)]
            elif whole is not None:
                found.append(everything(whole))
            else:
                decoder.feed(chunk)
                while (packet := decoder.next_packet()) is not None:
                    found.append(everything(packet))
    except MqttError as error:
        found.append((type(error), error.reason_code))
    found.append(decoder.buffered_bytes if not found or not isinstance(found[-1][0], type) else None)
    return found


def warm_cache(version: int, limit: int, seen: list[bytes]) -> TopicCache:
    """A cache that has seen each of `seen`, over connections of its own."""
    topics = TopicCache()
    for data in seen:
        outcome(decoder(topics, version, limit), [data], take_whole=False)
    return topics


@quick
@given(st.data())
def test_what_resembles_a_packet_is_decoded_as_if_nothing_had_been_seen(data: st.DataObject) -> None:
    version = data.draw(st.sampled_from(VERSIONS))
    limit = data.draw(st.sampled_from(LIMITS))
    seen = data.draw(st.lists(plain_publishes(version), min_size=1, max_size=4))
    of_both = st.sampled_from(seen) | plain_publishes(version) | packet_bytes(version)
    stream = data.draw(st.lists(of_both.flatmap(mutations) | st.sampled_from(seen), min_size=1, max_size=5))
    warm = warm_cache(version, 1 << 20, seen)
    expected = outcome(decoder(TopicCache(), version, limit), stream, take_whole=False)
    for chunks, take_whole in ((stream, True), (stream, False), ([b"".join(stream)], False)):
        if len(chunks) != len(stream) and expected[-1] is None:
            continue  # joined, a refused packet's rest may be read as more of it
        assert outcome(decoder(warm, version, limit), chunks, take_whole) == expected


@quick
@given(st.data())
def test_it_is_the_same_on_one_connection(data: st.DataObject) -> None:
    """Where the limit is low, a connection compares with its own packets only."""
    version = data.draw(st.sampled_from(VERSIONS))
    limit = data.draw(st.sampled_from(LIMITS))
    base = data.draw(plain_publishes(version).filter(lambda packet: len(packet) <= limit))
    again = data.draw(st.lists(mutations(base) | st.just(base), min_size=1, max_size=4))
    warm = decoder(TopicCache(), version, limit)
    assert outcome(warm, [base], take_whole=True) == outcome(
        decoder(TopicCache(), version, limit), [base], take_whole=False
    )
    cold = decoder(TopicCache(), version, limit)
    assert outcome(warm, again, take_whole=True) == outcome(cold, again, take_whole=False)


@quick
@given(st.data())
def test_the_other_version_has_seen_it(data: st.DataObject) -> None:
    """The same bytes mean another thing in MQTT 5 than in 3.1.1."""
    seen_at, version = data.draw(st.sampled_from(((4, 5), (5, 4), (3, 5), (3, 4), (0, 5), (5, 0))))
    base = data.draw(plain_publishes(seen_at or 4))
    stream = data.draw(st.lists(mutations(base) | st.just(base), min_size=1, max_size=4))
    warm = warm_cache(seen_at, 1 << 20, [base])
    expected = outcome(decoder(TopicCache(), version, 1 << 20), stream, take_whole=False)
    assert outcome(decoder(warm, version, 1 << 20), stream, take_whole=True) == expected


@pytest.mark.parametrize("version", VERSIONS)
@pytest.mark.parametrize("qos", [0, 1, 2])
def test_every_packet_that_differs_in_one_byte(version: int, qos: int) -> None:
    """The byte behind what is compared matters most: packet identifier 0, a property length where there was none."""
    base = encode_publish(version, "a/b", b"\0\1\0", qos, False, False, 0x0100 if qos else 0)
    warm = warm_cache(version, 1 << 20, [base])
    for at in range(len(base)):
        for value in range(256):
            packet = base[:at] + bytes((value,)) + base[at + 1 :]
            expected = outcome(decoder(TopicCache(), version, 1 << 20), [packet], take_whole=False)
            for take_whole in (True, False):
                assert outcome(decoder(warm, version, 1 << 20), [packet], take_whole) == expected, packet


@pytest.mark.parametrize("version", VERSIONS)
@pytest.mark.parametrize("size", [100, 128, 16_386])
def test_a_lower_limit_than_that_of_who_saw_it(version: int, size: int) -> None:
    """Likenesses are shared by connections with the same limit, but a bridge may have a lower one."""
    empty = len(encode_publish(version, "a/b", b"", 1, False, False, 7))
    base = encode_publish(version, "a/b", b"x" * (size - empty - (size > 129)), 1, False, False, 7)
    warm = warm_cache(version, 1 << 20, [base])
    for limit in (len(base) - 1, len(base), len(base) + 1):
        expected = outcome(decoder(TopicCache(), version, limit), [base], take_whole=False)
        assert (expected[0][0] is PacketTooLarge) == (limit < len(base))
        for take_whole in (True, False):
            assert outcome(decoder(warm, version, limit), [base], take_whole) == expected


def test_the_shortcut_is_taken() -> None:
    """Else the tests above would compare the long way with itself."""
    for version in VERSIONS:
        packet = encode_publish(version, "a/b", b"12", 1, False, False, 7)
        assert decoder(TopicCache(), version, 1 << 20).take_whole(packet) is None
        taken = decoder(warm_cache(version, 1 << 20, [packet]), version, 1 << 20).take_whole(packet)
        assert isinstance(taken, Publish)
        assert (taken.topic, taken.packet_id, taken.payload) == ("a/b", 7, b"12")
    assert decoder(TopicCache(), const.MQTT_5, 1 << 20).take_whole(b"\x40\x02\x00\x07") == (7, 1)
