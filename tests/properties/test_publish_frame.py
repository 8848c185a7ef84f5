"""What a PUBLISH keeps of its bytes: a frame that is whole, says where its parts are, and has nothing of the last hop."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from edge_broker.errors import MqttError
from edge_broker.wire.decoder import Decoder
from edge_broker.wire.encoder import encode_publish
from edge_broker.wire.packets import Publish
from edge_broker.wire.properties import Properties, encode_properties
from edge_broker.wire.topics import TopicCache
from tests.golden.packets import describe
from tests.golden.properties import PROPERTIES
from tests.properties.strategies import (
    HOP_PROPERTIES,
    VERSIONS,
    packet_ids,
    payloads,
    properties_of,
    quick,
    topic_names,
)

ALIAS, EXPIRY, SUBSCRIPTION = (PROPERTIES[name].identifier for name in HOP_PROPERTIES)
TRAVELLING = properties_of("PUBLISH", HOP_PROPERTIES)


def decode_one(decoder: Decoder, data: bytes) -> Publish:
    decoder.feed(data)
    packet = decoder.next_packet()
    assert isinstance(packet, Publish)
    assert decoder.next_packet() is None
    return packet


def assert_frame_is_consistent(publish: Publish) -> None:
    """The frame says the same as the attributes, and is what anyone else decodes to the same message."""
    frame, after_topic = publish.frame, publish.packet_id_at
    assert frame[:after_topic].endswith(publish.topic.encode())
    if publish.qos:
        assert int.from_bytes(frame[after_topic : after_topic + 2], "big") == publish.packet_id
    assert frame[publish.payload_at :] == publish.payload
    assert frame[0] == 0x30 | publish.qos << 1 | publish.retain  # and no DUP
    properties_at = after_topic + (2 if publish.qos else 0)
    own_block = frame[properties_at : publish.payload_at]
    assert own_block == (publish.property_block if publish.version >= 5 else b"")
    again = decode_one(Decoder(TopicCache(), len(frame), publish.version, from_server=True), frame)
    assert again.frame == frame
    assert (again.packet_id_at, again.payload_at) == (after_topic, publish.payload_at)
    of_the_hop: dict[str, Any] = {"dup": False, "expiry_interval": None, "subscription_ids": ()}
    assert describe(again)[1] == describe(publish)[1] | of_the_hop


@st.composite
def hop_properties(draw: st.DrawFn) -> Properties:
    """Any of what ends at this hop: an alias (1 or 2), an expiry, subscription identifiers."""
    return draw(
        st.fixed_dictionaries(
            {},
            optional={
                ALIAS: st.integers(1, 2),
                EXPIRY: st.integers(0, 0xFFFFFFFF),
                SUBSCRIPTION: st.lists(st.integers(1, 268_435_455), min_size=1, max_size=3),
            },
        )
    )


@quick
@given(
    version=st.sampled_from(VERSIONS),
    topic=topic_names,
    payload=payloads,
    qos=st.integers(0, 2),
    retain=st.booleans(),
    again=st.booleans(),
    packet_id=packet_ids,
    travelling=TRAVELLING,
    of_the_hop=hop_properties(),
    data=st.data(),
)
def test_what_ends_at_this_hop_is_taken_out(
    version: int,
    topic: str,
    payload: bytes,
    qos: int,
    retain: bool,
    again: bool,
    packet_id: int,
    travelling: Properties,
    of_the_hop: Properties,
    data: st.DataObject,
) -> None:
    """In whatever order the properties came, those that travel on keep theirs."""
    drawn = dict(data.draw(st.permutations([*(travelling | of_the_hop).items()])))
    dup = again and qos > 0
    block = encode_properties(drawn)
    whole = encode_publish(version, topic, payload, qos, retain, dup, packet_id, block)
    publish = decode_one(Decoder(TopicCache(), len(whole), version, 2, from_server=True), whole)
    assert (publish.topic, publish.payload, publish.qos, publish.retain) == (topic, payload, qos, retain)
    assert (publish.dup, publish.packet_id) == (dup, packet_id if qos else 0)
    if version >= 5:
        left = [item for item in drawn.items() if item[0] not in of_the_hop]
        assert list(publish.properties.items()) == left
        assert publish.expiry_interval == of_the_hop.get(EXPIRY)
        assert publish.subscription_ids == tuple(of_the_hop.get(SUBSCRIPTION, ()))
    else:
        assert publish.properties == {}
    if not of_the_hop or version < 5:
        assert publish.frame == bytes((whole[0] & ~0x08,)) + whole[1:]
    assert_frame_is_consistent(publish)


@quick
@given(
    packets=st.lists(
        st.tuples(st.sampled_from(("a", "b")), st.integers(0, 2), st.integers(0, 4)), min_size=1, max_size=10
    ),
    blocks=st.lists(TRAVELLING, min_size=5, max_size=5),
)
def test_a_decoder_remembers_nothing_that_shows(
    packets: list[tuple[str, int, int]], blocks: list[Properties]
) -> None:
    """Property blocks that come again and again decode as they do in a connection of their own."""
    one = Decoder(TopicCache(), 1_000_000, 5, from_server=True)
    for topic, qos, which in packets:
        whole = encode_publish(
            5, topic, b"payload", qos, packet_id=7, property_block=encode_properties(blocks[which])
        )
        shared = decode_one(one, whole)
        alone = decode_one(Decoder(TopicCache(), 1_000_000, 5, from_server=True), whole)
        assert describe(shared) == describe(alone)
        assert shared.frame == alone.frame
        assert_frame_is_consistent(shared)


ALIASES = st.none() | st.integers(0, 4)
ALIASED = st.tuples(st.none() | st.sampled_from(("a", "b/c", "é")), ALIASES, st.integers(0, 2))


@quick
@given(maximum=st.integers(0, 3), packets=st.lists(ALIASED, max_size=12), travelling=TRAVELLING)
def test_topic_aliases(
    maximum: int, packets: list[tuple[str | None, int | None, int]], travelling: Properties
) -> None:
    """A sequence of them against a plain dict; the first that breaks a rule is refused with that rule's code."""
    decoder = Decoder(TopicCache(), 1_000_000, 5, maximum, from_server=True)
    known: dict[int, str] = {}
    for topic, alias, qos in packets:
        block = encode_properties(travelling | ({} if alias is None else {ALIAS: alias}))
        whole = encode_publish(5, topic or "", b"hi", qos, packet_id=3, property_block=block)
        refused = _refusal(maximum, topic, alias, known)
        if refused is not None:
            _assert_refused(decoder, whole, refused)
            return
        if alias is not None and topic is not None:
            known[alias] = topic
        publish = decode_one(decoder, whole)
        assert publish.topic == (topic if topic is not None else known[alias or 0])
        assert publish.properties == travelling
        assert_frame_is_consistent(publish)


def _refusal(maximum: int, topic: str | None, alias: int | None, known: dict[int, str]) -> int | None:
    """The reason code that the packet has to be refused with, None where it is good."""
    if alias is None:
        return 0x82 if topic is None else None
    if alias == 0 or alias > maximum:
        return 0x94
    return 0x82 if topic is None and alias not in known else None


def _assert_refused(decoder: Decoder, whole: bytes, reason_code: int) -> None:
    decoder.feed(whole)
    with pytest.raises(MqttError) as refused:
        decoder.next_packet()
    assert refused.value.reason_code == reason_code
