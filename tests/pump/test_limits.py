"""Limits: where each one is, what happens there, and that it is counted and nobody else notices."""

from __future__ import annotations

import pytest

from edge_broker.wire import const
from edge_broker.wire.encoder import PINGREQ, encode_publish
from edge_broker.wire.packets import Connack, Disconnect, Publish, Will
from tests.pump.pump import Pump, TestClient

V3, V5 = const.MQTT_3_1_1, const.MQTT_5


def away(pump: Pump, topic_filter: str = "kept/#") -> None:
    """A durable session whose client is not there."""
    pump.client("away", clean=False, expiry=3600).subscribed(topic_filter, 1).vanish()
    pump.commit()


# ---- what a client may have under way to us


def test_more_unacknowledged_than_allowed_ends_the_connection() -> None:
    pump = Pump(receive_maximum=3)
    away(pump)
    publisher = pump.client("p")
    for number in range(1, 4):
        publisher.publish("kept/1", qos=1, packet_id=number)
    assert not publisher.closed
    publisher.publish("kept/1", qos=1, packet_id=4)
    assert publisher.take(Disconnect).reason_code == const.RECEIVE_MAXIMUM_EXCEEDED
    assert pump.refused == {"receive_maximum_exceeded": 1}


def test_acknowledged_ones_do_not_count() -> None:
    pump = Pump(receive_maximum=3)
    away(pump)
    publisher = pump.client("p")
    for number in range(1, 20):
        publisher.publish("kept/1", qos=1, packet_id=number)
        if not number % 3:
            pump.commit()
    assert not publisher.closed


def test_a_3_1_1_client_knows_no_such_limit_and_is_paused_instead() -> None:
    pump = Pump(receive_maximum=3)
    away(pump)
    publisher = pump.client("p", version=V3)
    for number in range(1, 11):
        publisher.publish("kept/1", b"%d" % number, qos=1, packet_id=number)
    assert pump.session("away").queue.depth == 4
    pump.commit()
    assert [publisher.take_ack(const.PUBACK) for _ in range(10)] == list(range(1, 11))
    assert not publisher.closed


def test_held_only_for_the_order_they_count_too() -> None:
    """One message that waits for the disk, and any number behind it that wait for nothing but their turn."""
    pump = Pump(receive_maximum=3)
    away(pump)
    publisher = pump.client("p", version=V3)
    publisher.publish("kept/1", qos=1, packet_id=1)
    for number in range(2, 11):
        publisher.publish("nobody", qos=1, packet_id=number)
    assert pump.router.counters.received[1] == 4
    pump.commit()
    assert [publisher.take_ack(const.PUBACK) for _ in range(10)] == list(range(1, 11))


def test_more_unreleased_than_allowed_ends_the_connection() -> None:
    pump = Pump(receive_maximum=3)
    publisher = pump.client("p")
    for number in range(1, 5):
        publisher.publish("t", qos=2, packet_id=number)
    assert publisher.types[-1] == "DISCONNECT"


def test_a_3_1_1_client_may_have_any_number_unreleased() -> None:
    pump = Pump(receive_maximum=3)
    subscriber = pump.client("s").subscribed("t", 0)
    publisher = pump.client("p", version=V3)
    for number in range(1, 11):
        publisher.publish("t", qos=2, packet_id=number)
    assert [publisher.take_ack(const.PUBREC) for _ in range(10)] == list(range(1, 11))
    assert len(subscriber.take_payloads()) == 10


# ---- what we may have under way to a client


def test_a_packet_larger_than_the_client_takes_is_not_sent(pump: Pump) -> None:
    client = pump.client("c", properties={const.MAXIMUM_PACKET_SIZE: 100}).subscribed("t", 1)
    publisher = pump.client("p")
    for qos in (0, 1):
        publisher.publish("t", b"x" * 200, qos=qos)
        publisher.publish("t", b"fits", qos=qos, packet_id=9)
    assert client.take_payloads() == [b"fits", b"fits"]
    assert pump.dropped == {"packet_too_large": 2}
    assert pump.session("c").queue.in_flight == 1


@pytest.mark.parametrize("qos", [0, 1, 2])
def test_exactly_as_large_as_the_client_takes(pump: Pump, qos: int) -> None:
    overhead = len(encode_publish(V5, "t", b"", qos, packet_id=1))
    client = pump.client("c", properties={const.MAXIMUM_PACKET_SIZE: 100}).subscribed("t", 2)
    publisher = pump.client("p")
    publisher.publish("t", b"x" * (100 - overhead), qos=qos, packet_id=1)
    assert client.bytes_received > 100
    assert len(client.take(Publish).payload) == 100 - overhead
    publisher.publish("t", b"x" * (101 - overhead), qos=qos, packet_id=2)
    assert client.inbox == []
    assert pump.dropped == {"packet_too_large": 1}


def test_too_large_for_a_durable_client_it_is_done_with(pump: Pump) -> None:
    client = pump.client("c", clean=False, expiry=60, properties={const.MAXIMUM_PACKET_SIZE: 100})
    client.subscribed("t", 1)
    publisher = pump.client("p")
    publisher.publish("t", b"x" * 200, qos=1, packet_id=1)
    assert publisher.take_ack(const.PUBACK) == 1
    publisher.publish("t", b"fits", qos=1, packet_id=2)
    assert client.take_payloads() == [b"fits"]


@pytest.mark.parametrize("durable", [False, True])
def test_a_slow_subscriber(pump: Pump, durable: bool) -> None:
    slow = pump.client("slow", clean=not durable, expiry=60 if durable else 0).subscribed("t", 1)
    quick = pump.client("quick").subscribed("t", 1)
    publisher = pump.client("p")
    slow.block()
    for number in range(1, 6):
        publisher.publish("t", b"gone", qos=0)
        publisher.publish("t", b"%d" % number, qos=1, packet_id=number)
    assert len(quick.take_payloads()) == 10
    assert slow.unread == b""
    assert pump.dropped == {"slow_subscriber": 5}
    pump.commit()
    slow.unblock()
    assert slow.take_payloads() == [b"1", b"2", b"3", b"4", b"5"]


def test_a_queue_in_memory_is_bounded() -> None:
    pump = Pump(max_queue_bytes_in_memory=10_000)
    slow = pump.client("slow").subscribed("t", 1)
    publisher = pump.client("p")
    slow.block()
    for number in range(1, 101):
        publisher.publish("t", b"%03d" % number + b"x" * 1000, qos=1, packet_id=number)
        assert publisher.take_ack(const.PUBACK) == number
    assert pump.session("slow").queue.bytes_in_memory <= 12_000
    kept = pump.session("slow").queue.depth
    assert pump.dropped == {"queue_full": 100 - kept}
    slow.unblock()
    assert [payload[:3] for payload in slow.take_and_ack()] == [b"%03d" % n for n in range(1, kept + 1)]
    publisher.publish("t", b"again", qos=1, packet_id=200)
    assert slow.take_payloads() == [b"again"]


def test_large_messages_in_flight_are_bounded_by_their_bytes() -> None:
    pump = Pump(send_window_bytes=50_000)
    client = pump.client("c").subscribed("t", 1)
    publisher = pump.client("p")
    for number in range(1, 21):
        publisher.publish("t", b"x" * 10_000, qos=1, packet_id=number)
    assert len(client.inbox) == 5
    assert len(client.take_and_ack()) == 20
    assert pump.session("c").queue.large_in_flight_bytes == 0


# ---- what all clients may have under way to the disk


def test_publishers_are_paused_while_too_much_is_uncommitted() -> None:
    pump = Pump(max_uncommitted_bytes=10_000)
    away(pump)
    publisher, other, reader = pump.client("p"), pump.client("o"), pump.client("r").subscribed("live")
    for number in range(1, 41):
        publisher.publish("kept/1", b"%d" % number + b"x" * 1000, qos=1, packet_id=number)
    taken = pump.session("away").queue.depth
    assert 9 <= taken <= 11
    other.publish("live", b"QoS 0 goes on")
    other.ping()
    assert reader.take_payloads() == [b"QoS 0 goes on"]
    assert other.types == ["PING"]
    pump.commit()
    assert [publisher.take_ack(const.PUBACK) for _ in range(40)] == list(range(1, 41))
    assert pump.session("away").queue.depth == 40


@pytest.mark.parametrize("kind", ["retained", "QoS 2"])
def test_whatever_waits_for_the_disk_counts(kind: str) -> None:
    pump = Pump(max_uncommitted_bytes=10_000)
    publisher = pump.client("p", clean=False, expiry=60)
    for number in range(1, 41):
        publisher.publish(
            f"t/{number}",
            b"x" * 1000,
            qos=1 if kind == "retained" else 2,
            packet_id=number,
            retain=kind == "retained",
        )
    assert sum(pump.router.counters.received) <= 11
    pump.commit()
    assert sum(pump.router.counters.received) == 40
    assert len(publisher.inbox) == 40
    assert pump.pending.uncommitted_bytes == 0


def test_a_paused_client_is_not_taken_for_a_silent_one() -> None:
    pump = Pump(max_uncommitted_bytes=1000)
    away(pump)
    publisher = pump.client("p", keep_alive=10)
    for number in range(1, 4):
        publisher.publish("kept/1", b"x" * 1000, qos=1, packet_id=number)
    pump.wait(60)  # the disk hangs; whatever the client says is not read
    assert not publisher.closed
    pump.commit()
    assert publisher.types == ["PUBACK 1", "PUBACK 2", "PUBACK 3"]
    pump.wait(14)
    assert not publisher.closed
    pump.wait(2)
    assert publisher.closed


def test_a_paused_client_that_leaves(pump: Pump) -> None:
    pump = Pump(max_uncommitted_bytes=1000)
    away(pump)
    publisher = pump.client("p")
    for number in range(1, 4):
        publisher.publish("kept/1", b"x" * 1000, qos=1, packet_id=number)
    publisher.vanish()
    pump.commit()
    assert pump.session("away").queue.depth == 1, "what was not read was not acknowledged either"


# ---- what one turn may do


def test_a_flood_is_worked_on_in_turns(pump: Pump) -> None:
    client = pump.client("c").subscribed("t")
    flood, other = pump.client("f"), pump.client("o")
    packet = encode_publish(V5, "t", b"x" * 1000)
    flood.send(packet * 100, run=False)
    other.publish("t", b"in between", run=False)
    pump.run()
    payloads = client.take_payloads()
    assert len(payloads) == 101
    assert payloads.index(b"in between") <= 20, "one budget of 16 KB at most, then the next connection"


def test_deliveries_count_in_the_budget() -> None:
    pump = Pump(work_budget_deliveries=50)
    subscribers = [pump.client(f"s{number}").subscribed("t") for number in range(10)]
    flood, other = pump.client("f"), pump.client("o")
    flood.send(encode_publish(V5, "t", b"x") * 100, run=False)
    other.publish("t", b"in between", run=False)
    pump.run()
    for subscriber in subscribers:
        assert subscriber.take_payloads().index(b"in between") <= 6


def test_a_flood_that_ends_in_half_a_packet_needs_no_further_turn(pump: Pump) -> None:
    flood = pump.client("f")
    packet = encode_publish(V5, "t", b"x" * 20_000)
    flood.send(packet + packet[:10], run=False)
    pump.run()
    assert not flood.awake
    flood.send(packet[10:])
    assert pump.router.counters.received[0] == 2


# ---- topic aliases


def test_a_topic_alias_stands_for_its_topic(pump: Pump) -> None:
    client = pump.client("c").subscribed("#")
    publisher, other = pump.client("p"), pump.client("o")
    publisher.publish("a/b", b"1", properties={const.TOPIC_ALIAS: 3})
    publisher.publish("", b"2", properties={const.TOPIC_ALIAS: 3})
    publisher.publish("c", b"3", properties={const.TOPIC_ALIAS: 3})
    publisher.publish("", b"4", properties={const.TOPIC_ALIAS: 3})
    got = [(p.topic, p.payload, p.properties) for p in client.inbox if isinstance(p, Publish)]
    assert got == [("a/b", b"1", {}), ("a/b", b"2", {}), ("c", b"3", {}), ("c", b"4", {})]
    other.publish("", b"5", properties={const.TOPIC_ALIAS: 3})
    assert other.closed, "an alias is one connection's"


@pytest.mark.parametrize("alias", [0, 33, 65535])
def test_an_alias_beyond_the_maximum(pump: Pump, alias: int) -> None:
    publisher = pump.client("p")
    publisher.publish("a", properties={const.TOPIC_ALIAS: alias})
    assert publisher.take(Disconnect).reason_code == const.TOPIC_ALIAS_INVALID


def test_a_packet_larger_than_we_take() -> None:
    pump = Pump(max_packet_bytes=1000)
    publisher, other = pump.client("p"), pump.client("o")
    publisher.send(encode_publish(V5, "t", b"x" * 2000)[:5])
    assert publisher.take(Disconnect).reason_code == const.PACKET_TOO_LARGE
    other.send(PINGREQ)
    assert other.types == ["PING"]


# ---- topics


@pytest.mark.parametrize("qos", [0, 1, 2])
def test_a_topic_deeper_than_allowed(qos: int) -> None:
    """One of 64 KB would take tens of megabytes in the retained messages' tree."""
    pump = Pump(max_topic_levels=3)
    publisher = pump.client("p", clean=False, expiry=60)
    publisher.publish("a/b/c", b"x", qos=qos, packet_id=1, retain=True)
    pump.commit()
    publisher.publish("a/b/c/d", b"x", qos=qos, packet_id=2, retain=True)
    assert publisher.inbox.pop().reason_code == const.TOPIC_NAME_INVALID  # type: ignore[union-attr]
    assert publisher.closed
    assert len(pump.router.retained) == 1
    pump.commit()
    assert 2 not in (pump.session("p").inbound or set()), "sent again it would be taken for a duplicate"
    assert pump.store.inbound == ({(pump.session("p").session_id, 1)} if qos == 2 else set())


def test_a_will_for_a_topic_deeper_than_allowed() -> None:
    pump = Pump(max_topic_levels=3)
    client = TestClient(pump)
    client.connect("c", will=Will("a/b/c/d", b"x", 0, True, 0, {}))
    assert client.take(Connack).reason_code == const.TOPIC_NAME_INVALID
    assert client.closed
