"""The one thing that must hold for any bytes at all: packets or `MqttError`, nothing else.

`fuzz_decoder` takes bytes and either returns or raises what a fuzzer should report; it keeps no state between calls, so
any driver can call it: ``tests.fuzz.drive`` does with libFuzzer, the tests beside it with mutated vectors.

Its first byte chooses the form (version, direction, limit), the second how the rest, a stream, is cut. What it says of
every stream: the same comes out however it was cut, whether whole packets are taken at once or fed, and whether the
shared table of topics has seen the like before; and what came out, encoded, is decoded as the same again.
"""

from __future__ import annotations

from itertools import product
from typing import Any, Final, NamedTuple

from edge_broker.errors import MqttError
from edge_broker.wire import const
from edge_broker.wire.const import REASON_NAMES
from edge_broker.wire.decoder import Decoder
from edge_broker.wire.packets import Ack, Connack, Connect, Packet, Publish, Suback
from edge_broker.wire.topics import TopicCache
from tests.fuzz.cuts import chunks_of, cut_at_packets
from tests.golden.packets import describe, encode

TOPIC_ALIAS_MAXIMUM: Final = 10
REMEMBERED_TOPICS: Final = 4
"""So few that the table starts over within a stream."""
LONGEST_STREAM_BYTES: Final = 4096
"""Of what a fuzzer gives, no more than this is looked at: more bytes make it slower, not better."""


class Form(NamedTuple):
    """What a decoder is made for. `version` 0: no CONNECT has come yet. With a limit this low it remembers by itself."""

    version: int
    from_server: bool
    max_packet_bytes: int

    def decoder(self, topics: TopicCache) -> Decoder:
        return Decoder(
            topics,
            self.max_packet_bytes,
            self.version,
            TOPIC_ALIAS_MAXIMUM,
            from_server=self.from_server,
        )


FORMS: Final = tuple(
    Form(version, from_server, limit)
    for limit, from_server, version in product((100_000, 300), (False, True), (0, 3, 4, 5))
)

Outcome = tuple[list[tuple[str, dict[str, Any]]], int | None]
"""The packets that came out, described, and the reason code that ended them."""


def fuzz_decoder(data: bytes) -> None:
    """One stream through one form; AssertionError where a promise is broken, any other exception as it is."""
    if len(data) >= 2:
        check_stream(FORMS[data[0] % len(FORMS)], data[1], data[2 : 2 + LONGEST_STREAM_BYTES])


def check_every_form(stream: bytes) -> None:
    """The same stream through all of them."""
    for form in FORMS:
        check_stream(form, len(stream), stream)


def check_stream(form: Form, pattern: int, stream: bytes) -> None:
    """What `form` makes of `stream`, whole and cut after `pattern`, with a cold table of topics and a warm one."""
    topics = TopicCache(REMEMBERED_TOPICS)
    whole = decode(form, [stream], topics, encode_again=True)
    for chunks in (chunks_of(stream, pattern), cut_at_packets(stream, pattern)):
        for take_whole in (True, False):
            found = decode(form, chunks, topics, take_whole=take_whole)
            assert found == whole, f"{form}: {chunks} are {found}, together they are {whole}"


def decode(
    form: Form,
    chunks: list[bytes],
    topics: TopicCache | None = None,
    *,
    take_whole: bool = False,
    encode_again: bool = False,
) -> Outcome:
    """Everything that comes out of `chunks`, in the way in which a connection asks for it.

    Any exception but `MqttError` is a bug and passes through; an `MqttError` counts only where the decoder raises it.
    """
    decoder = form.decoder(TopicCache(REMEMBERED_TOPICS) if topics is None else topics)
    found: list[tuple[str, dict[str, Any]]] = []
    fed = 0
    for chunk in chunks:
        fed += len(chunk)
        packet: Packet | tuple[int, int] | None = decoder.take_whole(chunk) if take_whole else None
        if isinstance(packet, tuple):
            first, count = packet
            found += [describe(Ack(const.PUBACK, first + offset)) for offset in range(count)]
            continue
        if packet is None:
            decoder.feed(chunk)
        while True:
            if packet is None:
                try:
                    packet = decoder.next_packet()
                except MqttError as error:
                    return found, known(error.reason_code)
            if packet is None:
                break
            found.append(looked_at(packet))
            if encode_again:
                assert_same_when_encoded(packet, decoder.version, form.from_server)
            packet = None
        assert 0 <= decoder.buffered_bytes <= min(fed, form.max_packet_bytes)
    return found, None


def known(reason_code: int) -> int:
    """`reason_code`, which is one that the specification has."""
    assert reason_code in REASON_NAMES
    return reason_code


def looked_at(packet: Packet) -> tuple[str, dict[str, Any]]:
    """The packet with all that a receiver can read of it, which fails for none that was accepted."""
    try:
        name, fields = describe(packet)
        if isinstance(packet, Publish):
            assert_frame_is_whole(packet)
            fields |= {"frame": packet.frame, "packet_id_at": packet.packet_id_at}
    except MqttError as error:
        raise AssertionError(f"accepted, and then it cannot be read: {error}") from error
    return name, fields


def assert_frame_is_whole(publish: Publish) -> None:
    """What leaves for others is one PUBLISH without DUP, with its parts where it says they are."""
    decoder = Decoder(TopicCache(REMEMBERED_TOPICS), len(publish.frame), publish.version)
    decoder.feed(publish.frame)
    again = decoder.next_packet()
    assert isinstance(again, Publish)
    assert decoder.buffered_bytes == 0
    assert not again.dup
    kept = ("frame", "topic", "payload", "qos", "retain", "packet_id", "packet_id_at", "payload_at")
    assert [getattr(again, name) for name in kept] == [getattr(publish, name) for name in kept]
    assert again.property_block == publish.property_block


def assert_same_when_encoded(packet: Packet, version: int, from_server: bool) -> None:
    """Encoded and decoded once more it is the same packet, but for what a PUBLISH had of its last hop only."""
    if not _can_be_encoded(packet, version):
        return
    form = Form(0 if isinstance(packet, Connect) else version, from_server, const.MAX_REMAINING_LENGTH)
    decoder = form.decoder(TopicCache(REMEMBERED_TOPICS))
    data = encode(packet, version)
    decoder.feed(data)
    try:
        again = decoder.next_packet()
    except MqttError as error:
        raise AssertionError(f"{data!r}, which is what we make of {packet!r}: {error}") from error
    assert again is not None
    assert decoder.buffered_bytes == 0
    expected = describe(packet)
    if isinstance(packet, Publish):
        expected[1].update(expiry_interval=None, subscription_ids=())
    assert describe(again) == expected


def _can_be_encoded(packet: Packet, version: int) -> bool:
    """The encoder is for what we send: below MQTT 5 it knows the codes that exist, while the decoder takes any."""
    if version >= const.MQTT_5:
        return True
    if isinstance(packet, Connack):
        return packet.reason_code <= 5 and not (version <= const.MQTT_3_1 and packet.session_present)
    if isinstance(packet, Suback):
        return all(code <= const.V3_SUBSCRIBE_FAILURE for code in packet.reason_codes)
    return True
