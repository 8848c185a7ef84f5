"""Bad input ends the connection that it came over, with the reason that fits, and touches nobody else."""

from __future__ import annotations

import random

import pytest

from edge_broker.wire import const
from edge_broker.wire.encoder import encode_connect, encode_publish, encode_subscribe
from edge_broker.wire.packets import Connect, Disconnect, SubscriptionRequest, Will
from tests.pump.pump import Pump, TestClient

V3, V5 = const.MQTT_3_1_1, const.MQTT_5
MALFORMED, ERROR = const.MALFORMED_PACKET, const.PROTOCOL_ERROR


@pytest.mark.parametrize(
    ("data", "reason_code"),
    [
        pytest.param(b"\x00\x00", MALFORMED, id="packet type 0"),
        pytest.param(b"\x30\xff\xff\xff\xff\x01", MALFORMED, id="a length of five bytes"),
        pytest.param(b"\x36\x05\x00\x01t\x00\x01", MALFORMED, id="QoS 3"),
        pytest.param(b"\x32\x06\x00\x01t\x00\x00\x00", MALFORMED, id="packet identifier 0"),
        pytest.param(b"\x30\x04\x00\x01+\x00", const.TOPIC_NAME_INVALID, id="a wildcard in a topic"),
        pytest.param(b"\x30\x03\x00\x00\x00", ERROR, id="no topic"),
        pytest.param(b"\x30\x04\x00\x01\xff\x00", MALFORMED, id="no UTF-8"),
        pytest.param(b"\x80\x06\x00\x01\x00\x00\x01t\x00", MALFORMED, id="wrong flags"),
        pytest.param(b"\x82\x03\x00\x01\x00", ERROR, id="SUBSCRIBE without a filter"),
        pytest.param(b"\x82\x07\x00\x01\x00\x00\x01t\x03", ERROR, id="QoS 3 asked for"),
        pytest.param(b"\xa2\x03\x00\x01\x00", ERROR, id="UNSUBSCRIBE without a filter"),
        pytest.param(b"\x20\x03\x00\x00\x00", ERROR, id="CONNACK"),
        pytest.param(b"\x90\x04\x00\x01\x00\x00", ERROR, id="SUBACK"),
        pytest.param(b"\xb0\x04\x00\x01\x00\x00", ERROR, id="UNSUBACK"),
        pytest.param(b"\xd0\x00", ERROR, id="PINGRESP"),
        pytest.param(b"\xf0\x00", ERROR, id="AUTH"),
        pytest.param(b"\x30\x07\x00\x01t\x02\x0b\x05x", ERROR, id="a subscription identifier"),
        pytest.param(b"\xc0\x01x", MALFORMED, id="PINGREQ with a body"),
        pytest.param(b"\x40\x01\x00", MALFORMED, id="half an identifier"),
    ],
)
def test_bad_input_ends_its_connection_only(pump: Pump, data: bytes, reason_code: int) -> None:
    client, other = pump.client("c").subscribed("t"), pump.client("o")
    client.send(data)
    assert client.take(Disconnect).reason_code == reason_code
    assert client.closed
    assert client.connection.end is not None
    assert sum(pump.refused.values()) == 1
    assert "c" not in pump.router.sessions
    other.publish("t", qos=1)
    assert other.take_ack(const.PUBACK) == 1


def test_a_3_1_1_client_is_cut_off_without_a_word(pump: Pump) -> None:
    client = pump.client("c", version=V3)
    client.send(b"\x00\x00")
    assert client.inbox == []
    assert client.closed


def test_what_came_before_bad_input_counts(pump: Pump) -> None:
    watcher = pump.client("w").subscribed("t")
    client = pump.client("c")
    client.send(
        encode_publish(V5, "t", b"good", 1, packet_id=3) + b"\x00\x00" + encode_publish(V5, "t", b"late")
    )
    assert watcher.take_payloads() == [b"good"]
    assert client.types == ["PUBACK 3", "DISCONNECT"]


def test_nothing_is_read_behind_disconnect(pump: Pump) -> None:
    watcher = pump.client("w").subscribed("t")
    client = pump.client("c")
    client.send(b"\xe0\x00" + encode_publish(V5, "t", b"late"))
    client.send(encode_publish(V5, "t", b"later"))
    assert watcher.inbox == []
    assert client.closed


@pytest.mark.parametrize("keep_alive", [10, 60])
def test_silence_for_one_and_a_half_keep_alives(pump: Pump, keep_alive: int) -> None:
    client = pump.client("c", keep_alive=keep_alive)
    for _ in range(3):
        pump.wait(keep_alive * 1.4)
        client.ping()
    pump.wait(keep_alive * 1.5 + 1)
    assert client.closed
    assert client.types == ["PING", "PING", "PING", "DISCONNECT"]
    assert pump.refused == {"keep_alive_timeout": 1}


def test_without_keep_alive_silence_is_allowed(pump: Pump) -> None:
    client = pump.client("c")
    pump.wait(100_000)
    assert not client.closed


def test_random_bytes_never_reach_anybody_else(pump: Pump) -> None:
    """Neither an exception out of the core nor a word to another client, whatever comes."""
    dice = random.Random(5)
    good = [
        encode_connect(Connect(V5, "x", True, 0, will=Will("w", b"w", 1, True, 0, {}))),
        encode_connect(Connect(V3, "y", False, 5)),
        encode_subscribe(V5, 3, [SubscriptionRequest("#", 2), SubscriptionRequest("$share/g/+", 1)]),
        encode_publish(V5, "a/b", b"payload", 1, packet_id=1),
        encode_publish(V5, "a/b", b"payload", 2, packet_id=2),
        b"\x62\x02\x00\x02",
        b"\x50\x02\x00\x01",
        b"\x70\x02\x00\x01",
        b"\x40\x02\x00\x01",
        b"\xc0\x00",
        b"\xe0\x00",
    ]
    witness = pump.client("witness").subscribed("safe", 1)
    publisher = pump.client("p")
    for round_number in range(400):
        stream = bytearray(good[dice.randrange(2)] if dice.random() < 0.9 else b"")
        for _ in range(dice.randrange(6)):
            stream += dice.choice(good)
        for _ in range(dice.randrange(4)):
            if stream:
                stream[dice.randrange(len(stream))] = dice.randrange(256)
        client = Stranger(pump)
        cut = dice.randrange(len(stream) + 1)
        client.send(bytes(stream[:cut]))
        client.send(bytes(stream[cut:]))
        if dice.random() < 0.3:
            pump.commit()
        if dice.random() < 0.5:
            client.vanish()
        if not round_number % 50:
            publisher.publish("safe", b"%d" % round_number, qos=1, packet_id=round_number + 1)
            pump.commit()
            assert publisher.take_ack(const.PUBACK) == round_number + 1
            assert witness.take_and_ack() == [b"%d" % round_number]
    pump.commit()
    assert pump.pending.uncommitted_bytes == 0


class Stranger(TestClient):
    """A client of which nothing is expected, so that nothing it gets is looked at."""

    def _receive(self, data: bytes) -> None:
        self.bytes_received += len(data)
