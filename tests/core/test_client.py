"""The client's machine against packets made by the project's own encoder, whole and byte by byte."""

from collections.abc import Callable
from typing import Any

import pytest

from edge_broker.core.client import Client
from edge_broker.core.message import Message
from edge_broker.wire import const
from edge_broker.wire.decoder import Decoder
from edge_broker.wire.encoder import (
    PINGREQ,
    PINGRESP,
    encode_ack,
    encode_connack,
    encode_disconnect,
    encode_publish,
    encode_suback,
    encode_unsuback,
)
from edge_broker.wire.packets import Connect, Disconnect, Packet, Subscribe, SubscriptionRequest, Unsubscribe
from edge_broker.wire.properties import encode_properties
from edge_broker.wire.topics import TopicCache

VERSIONS = pytest.mark.parametrize("version", [const.MQTT_5, const.MQTT_3_1_1])


class Recorder:
    """Every event as a tuple, in order."""

    def __init__(self) -> None:
        self.events: list[tuple[Any, ...]] = []

    def __getattr__(self, name: str) -> Callable[..., None]:
        if not name.startswith("on_"):
            raise AttributeError(name)
        return lambda *values: self.events.append((name[3:], *values))

    def on_message(self, message: Message) -> None:
        self.events.append(("message", message.topic, message.payload, message.qos, message.packet_id))


class Bench:
    """A client, what it reported, and how often it asked to be flushed."""

    def __init__(self, version: int = const.MQTT_5, keep_alive: int = 60) -> None:
        self.recorder = Recorder()
        self.wakes = 0
        request = Connect(version, "bench", False, keep_alive, "user", b"secret", None, {})
        if version >= const.MQTT_5:
            request.properties = {const.MAXIMUM_PACKET_SIZE: 1000, const.TOPIC_ALIAS_MAXIMUM: 4}
        self.client = Client(
            self.recorder,
            request,
            TopicCache(),
            self.count_wake,
            connack_timeout_seconds=10,
            answer_timeout_seconds=30,
        )
        self.version = version

    def count_wake(self) -> None:
        self.wakes += 1

    @property
    def events(self) -> list[tuple[Any, ...]]:
        return self.recorder.events

    def start(self, now: float = 0.0) -> "Bench":
        self.client.start(now)
        return self

    def connect(self, present: bool = False, properties: dict[int, Any] | None = None) -> "Bench":
        self.start()
        self.client.take_output(0.0)
        self.client.receive(encode_connack(self.version, present, 0, properties or {}), 0.0)
        assert self.events.pop(0) == ("connected", present)
        return self

    def sent(self, now: float = 0.0) -> list[Packet]:
        """What the client wants to send, decoded by the decoder that a server would use."""
        decoder = Decoder(TopicCache(), 1 << 20, version=self.version, publish_type=Message)
        decoder.feed(self.client.take_output(now))
        packets: list[Packet] = []
        while (packet := decoder.next_packet()) is not None:
            packets.append(packet)
        return packets


# ---- CONNECT and CONNACK


@VERSIONS
def test_connect_is_the_first_packet(version: int) -> None:
    bench = Bench(version).start()
    [connect] = bench.sent()
    assert isinstance(connect, Connect)
    assert (connect.version, connect.client_id, connect.keep_alive) == (version, "bench", 60)
    assert (connect.username, connect.password, connect.clean_start) == ("user", b"secret", False)
    assert bench.wakes == 1


def test_what_the_server_allows_is_remembered() -> None:
    bench = Bench().connect(
        True,
        {
            const.RECEIVE_MAXIMUM: 7,
            const.MAXIMUM_PACKET_SIZE: 100,
            const.MAXIMUM_QOS: 1,
            const.RETAIN_AVAILABLE: 0,
            const.TOPIC_ALIAS_MAXIMUM: 3,
            const.SERVER_KEEP_ALIVE: 20,
            const.ASSIGNED_CLIENT_IDENTIFIER: "you",
        },
    )
    client = bench.client
    assert (client.receive_maximum, client.max_packet_bytes, client.maximum_qos) == (7, 100, 1)
    assert (client.retain_available, client.topic_alias_maximum, client.keep_alive) == (False, 3, 20)
    assert (client.assigned_client_id, client.session_present) == ("you", True)


@VERSIONS
def test_without_properties_the_specifications_defaults_hold(version: int) -> None:
    client = Bench(version).connect().client
    assert (client.receive_maximum, client.max_packet_bytes, client.maximum_qos) == (65535, 0, 2)
    assert (client.retain_available, client.topic_alias_maximum, client.keep_alive) == (True, 0, 60)


def test_a_refusal_of_version_5_with_its_words() -> None:
    bench = Bench().start()
    said = {const.REASON_STRING: "not you", const.SERVER_REFERENCE: "other:1883"}
    bench.client.receive(encode_connack(const.MQTT_5, False, const.NOT_AUTHORIZED, said), 0.0)
    assert bench.events == [("refused", const.NOT_AUTHORIZED, "not you, it names other:1883")]
    assert bench.client.closed


@pytest.mark.parametrize(
    ("return_code", "reason_code"), [(1, 0x84), (2, 0x85), (3, 0x88), (4, 0x86), (5, 0x87), (6, 0x80)]
)
def test_a_refusal_of_version_3_reads_like_one_of_5(return_code: int, reason_code: int) -> None:
    bench = Bench(const.MQTT_3_1_1).start()
    bench.client.receive(bytes((0x20, 2, 0, return_code)), 0.0)
    assert bench.events == [("refused", reason_code, "")]


def test_an_older_servers_refusal_of_version_5_is_understood() -> None:
    bench = Bench().start()
    bench.client.receive(b"\x20\x02\x00\x01", 0.0)
    assert bench.events == [("refused", const.UNSUPPORTED_PROTOCOL_VERSION, "")]


def test_no_connack_in_time() -> None:
    bench = Bench().start(100.0)
    bench.client.check(110.0)
    assert bench.events == []
    bench.client.check(110.1)
    assert bench.events == [("closed", const.KEEP_ALIVE_TIMEOUT, "no CONNACK within 10 s")]


@pytest.mark.parametrize("first", [PINGRESP, encode_ack(5, const.PUBACK, 1), encode_publish(5, "a", b"")])
def test_whatever_comes_before_connack_ends_the_connection(first: bytes) -> None:
    bench = Bench().start()
    bench.client.receive(first, 0.0)
    assert bench.events == [("closed", const.PROTOCOL_ERROR, "the first packet is not a CONNACK")]


def test_a_second_connack_ends_the_connection_and_tells_the_server() -> None:
    bench = Bench().connect()
    bench.client.receive(encode_connack(const.MQTT_5, False, 0), 0.0)
    assert bench.events == [("closed", const.PROTOCOL_ERROR, "a second CONNACK")]
    [disconnect] = bench.sent()
    assert isinstance(disconnect, Disconnect)
    assert disconnect.reason_code == const.PROTOCOL_ERROR


# ---- messages


@VERSIONS
@pytest.mark.parametrize("qos", [0, 1, 2])
@pytest.mark.parametrize("size", [0, 100, 200, 20_000])
def test_a_publish_reads_as_it_was_meant(version: int, qos: int, size: int) -> None:
    bench = Bench(version).connect()
    topic = b"\x00\x03a/b"
    block = encode_properties({const.CONTENT_TYPE: "x"}) if version >= const.MQTT_5 else b""
    assert bench.client.send_publish(topic, block + b"p" * size, qos, True, qos > 0, 0x1234 if qos else 0)
    [message] = bench.sent()
    assert isinstance(message, Message)
    assert (message.topic, message.payload, message.qos, message.retain) == ("a/b", b"p" * size, qos, True)
    assert (message.dup, message.packet_id) == (qos > 0, 0x1234 if qos else 0)
    if version >= const.MQTT_5:
        assert message.properties == {const.CONTENT_TYPE: "x"}


@pytest.mark.parametrize("limit", [20, 129, 130, 131, 132, 133, 200])
def test_no_packet_is_longer_than_the_server_takes(limit: int) -> None:
    bench = Bench().connect(properties={const.MAXIMUM_PACKET_SIZE: limit})
    sizes = [
        len(bench.client.take_output(0.0))
        for size in range(limit)
        if bench.client.send_publish(b"\x00\x01t", b"\x00" + b"p" * size, 1, False, False, 1)
    ]
    assert max(sizes) <= limit
    assert max(sizes) >= limit - 1  # one length in 130 cannot be had: the length field itself grows
    assert not bench.client.output


def test_acknowledgements_arrive_as_events_with_their_reasons() -> None:
    bench = Bench().connect()
    data = (
        encode_ack(5, const.PUBACK, 1)
        + encode_ack(5, const.PUBACK, 2, const.QUOTA_EXCEEDED)
        + encode_ack(5, const.PUBREC, 3)
        + encode_ack(5, const.PUBREC, 4, const.NOT_AUTHORIZED)
        + encode_ack(5, const.PUBREL, 5)
        + encode_ack(5, const.PUBCOMP, 6, const.PACKET_IDENTIFIER_NOT_FOUND)
        + encode_suback(5, 7, [0, const.NOT_AUTHORIZED])
        + encode_unsuback(5, 8, [0])
    )
    expected = [
        ("puback", 1, 0),
        ("puback", 2, const.QUOTA_EXCEEDED),
        ("pubrec", 3, 0),
        ("pubrec", 4, const.NOT_AUTHORIZED),
        ("pubrel", 5),
        ("pubcomp", 6, const.PACKET_IDENTIFIER_NOT_FOUND),
        ("suback", 7, [0, const.NOT_AUTHORIZED]),
        ("suback", 8, [0]),
    ]
    bench.client.receive(data, 0.0)
    assert bench.events == expected
    bench.events.clear()
    for at in range(len(data)):
        bench.client.receive(data[at : at + 1], 0.0)
    assert bench.events == expected


@VERSIONS
def test_messages_come_up_at_every_qos(version: int) -> None:
    bench = Bench(version).connect()
    bench.client.receive(
        encode_publish(version, "a", b"0")
        + encode_publish(version, "b", b"1", 1, packet_id=10)
        + encode_publish(version, "c", b"2", 2, packet_id=11),
        0.0,
    )
    assert bench.events == [
        ("message", "a", b"0", 0, 0),
        ("message", "b", b"1", 1, 10),
        ("message", "c", b"2", 2, 11),
    ]


def test_the_servers_topic_aliases_are_resolved_within_what_we_allowed() -> None:
    bench = Bench().connect()
    alias = encode_properties({const.TOPIC_ALIAS: 2})
    bench.client.receive(
        encode_publish(5, "long/name", b"1", property_block=alias)
        + encode_publish(5, "", b"2", property_block=alias),
        0.0,
    )
    assert [event[1] for event in bench.events] == ["long/name", "long/name"]
    bench.client.receive(
        encode_publish(5, "x", b"", property_block=encode_properties({const.TOPIC_ALIAS: 5})), 0
    )
    assert bench.events[-1][:2] == ("closed", const.TOPIC_ALIAS_INVALID)


def test_a_flood_waits_for_its_next_turn() -> None:
    bench = Bench().connect()
    flood = encode_publish(5, "a", b"x" * 100) * 1000
    turns = 1
    more = bench.client.receive(flood, 0.0)
    while more:
        assert bench.client.buffered_bytes > 0
        turns += 1
        more = bench.client.work()
    assert len(bench.events) == 1000
    assert turns == pytest.approx(len(flood) / (16 << 10), abs=2)


def test_a_packet_larger_than_we_said_ends_the_connection() -> None:
    bench = Bench().connect()
    bench.client.receive(encode_publish(5, "a", b"x" * 2000), 0.0)
    assert bench.events[0][:2] == ("closed", const.PACKET_TOO_LARGE)


def test_malformed_bytes_end_the_connection_with_their_code() -> None:
    bench = Bench().connect()
    bench.client.receive(b"\x00\x00", 0.0)
    assert bench.events[0][:2] == ("closed", const.MALFORMED_PACKET)
    [disconnect] = bench.sent()
    assert isinstance(disconnect, Disconnect)
    assert disconnect.reason_code == const.MALFORMED_PACKET


# ---- SUBSCRIBE


@VERSIONS
def test_subscribe_and_unsubscribe(version: int) -> None:
    bench = Bench(version).connect()
    bench.client.subscribe(9, [SubscriptionRequest("a/#", 1, no_local=True, retain_handling=1)], 0.0)
    bench.client.unsubscribe(10, ["b"], 0.0)
    subscribe, unsubscribe = bench.sent()
    assert isinstance(subscribe, Subscribe)
    assert isinstance(unsubscribe, Unsubscribe)
    [request] = subscribe.requests
    is_5 = version >= const.MQTT_5
    assert (request.topic_filter, request.qos) == ("a/#", 1)
    assert (request.no_local, request.retain_handling) == (is_5, 1 if is_5 else 0)
    assert (unsubscribe.packet_id, unsubscribe.topic_filters) == (10, ["b"])


def test_no_suback_in_time() -> None:
    bench = Bench().connect()
    bench.client.subscribe(9, [SubscriptionRequest("a", 0)], 5.0)
    bench.client.check(35.0)
    assert bench.events == []
    bench.client.check(35.1)
    assert bench.events == [("closed", const.KEEP_ALIVE_TIMEOUT, "no SUBACK within 30 s")]


def test_an_answer_cannot_be_overdue_while_the_question_is_on_its_way() -> None:
    bench = Bench().connect()
    bench.client.subscribe(9, [SubscriptionRequest("a", 0)], 5.0)
    bench.client.check(40.0, sending=True)
    bench.client.check(69.0)
    assert bench.events == []
    bench.client.check(70.1)
    assert bench.events[0][0] == "closed"


# ---- keep alive


def test_ping_leaves_before_the_keep_alive_is_over_and_is_answered() -> None:
    bench = Bench(keep_alive=10).connect()
    bench.client.check(7.9)
    assert bench.client.take_output(7.9) == b""
    bench.client.check(8.0)
    assert bench.client.take_output(8.0) == PINGREQ
    bench.client.check(20.0)
    assert bench.client.take_output(20.0) == b""  # one is enough until it is answered
    bench.client.receive(PINGRESP, 20.0)
    bench.client.check(28.0)
    assert bench.client.take_output(28.0) == PINGREQ
    assert bench.events == []


def test_no_answer_to_ping() -> None:
    bench = Bench(keep_alive=10).connect()
    bench.client.check(8.0)
    bench.client.check(38.0)
    assert bench.events == []
    bench.client.check(38.1)
    assert bench.events == [("closed", const.KEEP_ALIVE_TIMEOUT, "no PINGRESP within 30 s")]


def test_silence_is_noticed_while_we_keep_sending() -> None:
    bench = Bench(keep_alive=10).connect()
    for second in range(8):
        bench.client.send_publish(b"\x00\x01t", b"\x00", 0, False, False, 0)
        bench.client.take_output(float(second))
    bench.client.send_publish(b"\x00\x01t", b"\x00", 0, False, False, 0)
    bench.client.take_output(8.0)
    bench.client.check(8.0)
    assert bench.client.take_output(8.0) == PINGREQ


def test_the_servers_keep_alive_counts() -> None:
    bench = Bench(keep_alive=60).connect(properties={const.SERVER_KEEP_ALIVE: 5})
    bench.client.check(4.0)
    assert bench.client.take_output(4.0) == PINGREQ


def test_keep_alive_0_never_pings() -> None:
    bench = Bench(keep_alive=0).connect()
    bench.client.check(1e6)
    assert bench.client.take_output(1e6) == b""


# ---- the end


@pytest.mark.parametrize(("version", "expected"), [(5, b"\xe0\x00"), (4, b"\xe0\x00")])
def test_goodbye_is_the_last_packet_and_no_event(version: int, expected: bytes) -> None:
    bench = Bench(version).connect()
    bench.client.disconnect()
    bench.client.send_ack(const.PUBACK, 1)
    assert bench.client.take_output(0.0) == expected
    bench.client.on_lost("gone")
    assert bench.events == []


def test_the_server_says_goodbye() -> None:
    bench = Bench().connect()
    said = {const.REASON_STRING: "for maintenance"}
    bench.client.receive(encode_disconnect(5, const.SERVER_SHUTTING_DOWN, said), 0.0)
    assert bench.events == [("closed", const.SERVER_SHUTTING_DOWN, "for maintenance")]
    assert bench.client.sent_away
    assert bench.client.take_output(0.0) == b""


def test_version_3_has_no_goodbye_from_the_server() -> None:
    bench = Bench(const.MQTT_3_1_1).connect()
    bench.client.receive(b"\xe0\x00", 0.0)
    assert bench.events == [("closed", const.PROTOCOL_ERROR, "DISCONNECT is not for a client")]
    assert not bench.client.sent_away


def test_after_the_end_there_are_no_more_events() -> None:
    bench = Bench().connect()
    bench.client.receive(
        encode_ack(5, const.PUBACK, 1) + encode_disconnect(5, 0) + encode_ack(5, const.PUBACK, 2), 0.0
    )
    bench.client.on_lost("cut")
    bench.client.check(1e6)
    assert [event[0] for event in bench.events] == ["puback", "closed"]


def test_a_lost_transport_is_the_end() -> None:
    bench = Bench().start()
    bench.client.on_lost("reset by peer")
    assert bench.events == [("closed", const.UNSPECIFIED_ERROR, "reset by peer")]


def test_packets_that_only_a_client_sends() -> None:
    bench = Bench().connect()
    bench.client.receive(PINGREQ, 0.0)
    assert bench.events == [("closed", const.PROTOCOL_ERROR, "PING is not for a client")]
