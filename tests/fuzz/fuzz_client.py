"""What an upstream sends to a bridge, which may be anything: the client's end of a connection under hostile bytes.

`fuzz_client` makes a `core.client.Client` with an owner that does what a bridge does (subscribes, publishes,
acknowledges), and feeds it a stream. Its first byte chooses version and limits, the second how the rest is cut.

What must hold: no exception; the same events and the same output however the stream was cut; exactly one end, and
nothing after it; CONNECT first; and every byte of the output well-formed and within what the server said it takes.
"""

from __future__ import annotations

from typing import Any, Final

from edge_broker.core.client import Client
from edge_broker.core.message import Message
from edge_broker.errors import MqttError
from edge_broker.wire import const
from edge_broker.wire.decoder import Decoder
from edge_broker.wire.packets import Connect, Packet, Publish, SubscriptionRequest
from edge_broker.wire.properties import encode_string
from edge_broker.wire.topics import TopicCache
from tests.fuzz.cuts import chunks_of, cut_at_packets
from tests.golden.packets import describe

START_SECONDS: Final = 100.0
KEEP_ALIVE: Final = 10
TOPIC_ALIAS_MAXIMUM: Final = 3
MAX_PACKET_BYTES: Final = 400
LONGEST_STREAM_BYTES: Final = 4096
GOOD_CONNACKS: Final = {
    const.MQTT_3_1: b"\x20\x02\x00\x00",
    const.MQTT_3_1_1: b"\x20\x02\x00\x00",
    const.MQTT_5: b"\x20\x03\x00\x00\x00",
}
ENDS: Final = ("refused", "closed")

Event = tuple[Any, ...]


class Owner:
    """Writes down what it is told, and answers as a bridge does."""

    def __init__(self) -> None:
        self.events: list[Event] = []
        self.client: Client

    def on_connected(self, session_present: bool) -> None:
        self.events.append(("connected", session_present))
        client = self.client
        client.subscribe(7, [SubscriptionRequest("down/#", 1)], START_SECONDS)
        rest = b"reading" if client.version < const.MQTT_5 else b"\0reading"
        sent = client.send_publish(encode_string("up"), rest, min(1, client.maximum_qos), False, False, 1)
        self.events.append(("sent", sent))

    def on_refused(self, reason_code: int, detail: str) -> None:
        self.events.append(("refused", reason_code, detail))

    def on_message(self, message: Message) -> None:
        try:
            self.events.append(("message", describe(message)))
        except MqttError as error:
            raise AssertionError(f"accepted, and then it cannot be read: {error}") from error
        if message.qos:
            self.client.send_ack(const.PUBACK if message.qos == 1 else const.PUBREC, message.packet_id)

    def on_puback(self, packet_id: int, reason_code: int) -> None:
        self.events.append(("puback", packet_id, reason_code))

    def on_pubrec(self, packet_id: int, reason_code: int) -> None:
        self.events.append(("pubrec", packet_id, reason_code))
        self.client.send_ack(const.PUBREL, packet_id)

    def on_pubrel(self, packet_id: int) -> None:
        self.events.append(("pubrel", packet_id))
        self.client.send_ack(const.PUBCOMP, packet_id)

    def on_pubcomp(self, packet_id: int, reason_code: int) -> None:
        self.events.append(("pubcomp", packet_id, reason_code))

    def on_suback(self, packet_id: int, reason_codes: list[int]) -> None:
        self.events.append(("suback", packet_id, reason_codes))

    def on_closed(self, reason_code: int, detail: str) -> None:
        self.events.append(("closed", reason_code, detail))


def fuzz_client(data: bytes) -> None:
    """One stream from a server; AssertionError where a promise is broken, any other exception as it is."""
    if len(data) < 2:
        return
    version = (const.MQTT_3_1_1, const.MQTT_5, const.MQTT_5, const.MQTT_3_1)[data[0] & 3]
    stream = data[2 : 2 + LONGEST_STREAM_BYTES]
    if data[0] & 4:
        stream = GOOD_CONNACKS[version] + stream
    limited = bool(data[0] & 8)
    whole = converse(version, limited, [stream])
    for chunks in (chunks_of(stream, data[1]), cut_at_packets(stream, data[1])):
        found = converse(version, limited, chunks)
        assert found == whole, f"at version {version}, {chunks} are {found}, together they are {whole}"


def converse(version: int, limited: bool, chunks: list[bytes]) -> tuple[list[Event], bytes]:
    """What the owner was told and what went to the server, from the first byte until the transport is gone."""
    owner = Owner()
    client = owner.client = Client(
        owner, _request(version, limited), TopicCache(4), wake=lambda: None, answer_timeout_seconds=5.0
    )
    client.start(START_SECONDS)
    for chunk in chunks:
        more = client.receive(chunk, START_SECONDS)
        while more:
            left = client.buffered_bytes
            more = client.work()
            assert client.buffered_bytes < left, "it says that there is more to do and does nothing"
    was_open = not client.closed
    output = client.take_output(START_SECONDS)
    assert not client.closed or any(event[0] in ENDS for event in owner.events)
    for step in (KEEP_ALIVE * 0.9, KEEP_ALIVE * 2.0, KEEP_ALIVE * 4.0):
        client.check(START_SECONDS + step)
        output += client.take_output(START_SECONDS + step)
    client.on_lost("the connection was lost")
    client.receive(b"\x30\x03\x00\x01t", START_SECONDS + 100)
    output += client.take_output(START_SECONDS + 100)
    ends = [event for event in owner.events if event[0] in ENDS]
    assert len(ends) == 1, f"{len(ends)} ends: {owner.events}"
    assert owner.events[-1] is ends[0], f"events after the end: {owner.events}"
    _look_at_output(output, client.max_packet_bytes if was_open else 0)
    return owner.events, output


def _request(version: int, limited: bool) -> Connect:
    properties = {}
    if version >= const.MQTT_5:
        properties[const.TOPIC_ALIAS_MAXIMUM] = TOPIC_ALIAS_MAXIMUM
        if limited:
            properties[const.MAXIMUM_PACKET_SIZE] = MAX_PACKET_BYTES
    return Connect(version, "bridge", False, KEEP_ALIVE, properties=properties)


def _look_at_output(output: bytes, limit: int) -> None:
    """A server takes all of it; `limit`: the longest PUBLISH that it takes, 0 for any."""
    decoder = Decoder(TopicCache(4), const.MAX_REMAINING_LENGTH)
    decoder.feed(output)
    packets: list[Packet] = []
    try:
        while (packet := decoder.next_packet()) is not None:
            packets.append(packet)
            if isinstance(packet, Publish) and limit:
                assert len(packet.frame) <= limit, "a PUBLISH that the server does not take [MQTT-3.2.2-15]"
    except MqttError as error:
        raise AssertionError(f"it sends {output!r}, which is not MQTT: {error}") from error
    assert decoder.buffered_bytes == 0
    assert [isinstance(packet, Connect) for packet in packets] == [True] + [False] * (len(packets) - 1)
