"""Sessions: what outlives a connection, what outlives a crash, and when it is over."""

from __future__ import annotations

import pytest

from edge_broker.wire import const
from edge_broker.wire.packets import Connack, Disconnect, Publish
from tests.pump.pump import Pump, TestClient

V3, V5 = const.MQTT_3_1_1, const.MQTT_5


def come_back(pump: Pump, client_id: str = "d", expiry: int = 3600) -> TestClient:
    client = TestClient(pump)
    client.connect(client_id, clean=False, expiry=expiry)
    pump.commit()
    assert client.take(Connack).session_present
    return client


def is_known(pump: Pump, client_id: str = "d") -> bool:
    """Whether a session is there when its client comes back."""
    client = TestClient(pump)
    client.connect(client_id, clean=False, expiry=3600)
    pump.commit()
    return bool(client.take(Connack).session_present)


def test_what_came_meanwhile_is_delivered_in_order(pump: Pump) -> None:
    pump.client("d", clean=False, expiry=3600).subscribed("t", 1).disconnect()
    publisher = pump.client("p")
    for number in range(1, 6):
        publisher.publish("t", b"%d" % number, qos=1, packet_id=number)
    pump.commit()
    client = come_back(pump)
    assert [(p.payload, p.packet_id, p.dup) for p in client.inbox if isinstance(p, Publish)] == [
        (b"%d" % number, number, False) for number in range(1, 6)
    ]


@pytest.mark.parametrize("committed", [False, True])
def test_unacknowledged_deliveries_come_again_under_the_same_identifiers(pump: Pump, committed: bool) -> None:
    client = pump.client("d", clean=False, expiry=3600).subscribed("t", 1)
    publisher = pump.client("p")
    for number in range(1, 6):
        publisher.publish("t", b"%d" % number, qos=1, packet_id=number)
    if committed:
        pump.commit()
    client.ack(const.PUBACK, 2)
    client.ack(const.PUBACK, 4)
    client.vanish()
    publisher.publish("t", b"6", qos=1, packet_id=6)
    client = come_back(pump)
    got = [(p.payload, p.packet_id, p.dup) for p in client.inbox if isinstance(p, Publish)]
    assert got == [(b"1", 1, True), (b"3", 3, True), (b"5", 5, True), (b"6", 6, False)]


def test_after_a_crash_they_come_again_under_the_same_identifiers(pump: Pump) -> None:
    client = pump.client("d", clean=False, expiry=3600).subscribed("t", 1)
    publisher = pump.client("p")
    for number in range(1, 6):
        publisher.publish("t", b"%d" % number, qos=1, packet_id=number)
    pump.commit()
    client.ack(const.PUBACK, 2)
    pump.commit()
    pump.crash()
    client = come_back(pump)
    got = [(p.payload, p.packet_id, p.dup) for p in client.inbox if isinstance(p, Publish)]
    assert got == [(b"1", 1, True), (b"3", 3, True), (b"4", 4, True), (b"5", 5, True)]


def test_subscriptions_outlive_a_crash_with_their_options(pump: Pump) -> None:
    client = pump.client("d", clean=False, expiry=3600)
    client.subscribed("t", 1, identifier=77, retain_as_published=True, no_local=True)
    client.subscribed("gone", 1)
    client.unsubscribe("gone")
    pump.commit()
    pump.crash()
    client = come_back(pump)
    client.publish("t", b"own", qos=0)
    publisher = pump.client("p")
    publisher.publish("t", b"one", qos=1, retain=True)
    publisher.publish("gone", b"two", qos=1)
    publish = client.take(Publish)
    assert (publish.payload, publish.subscription_ids, publish.retain) == (b"one", (77,), True)
    assert client.inbox == []


def test_a_clean_start_begins_anew(pump: Pump) -> None:
    pump.client("d", clean=False, expiry=3600).subscribed("t", 1).vanish()
    pump.client("p").publish("t", b"old", qos=1)
    pump.commit()
    client = pump.client("d", clean=True, expiry=3600)
    assert client.inbox == []
    assert pump.session("d").subscriptions == {}
    assert list(pump.store.queues) == []
    pump.crash()
    assert pump.session("d").subscriptions == {}


@pytest.mark.parametrize("version", [V3, V5])
def test_a_session_that_was_not_to_be_kept_ends_with_its_connection(pump: Pump, version: int) -> None:
    pump.client("d", version=version).subscribed("t", 1).vanish()
    assert pump.router.sessions == {}
    assert len(pump.router.table) == 0
    assert not is_known(pump)


def test_a_3_1_1_session_is_kept_as_long_as_the_broker_allows(pump: Pump) -> None:
    pump = Pump(max_session_expiry_seconds=100)
    pump.client("d", clean=False, version=V3).disconnect()
    pump.wait(99)
    assert is_known(pump)
    pump.session("d").claimed_by.on_lost("")  # type: ignore[union-attr]


def test_a_session_ends_when_its_time_is_over(pump: Pump) -> None:
    client = pump.client("d", clean=False, expiry=100).subscribed("t", 1)
    pump.wait(1000)  # connected: no time passes for it
    client.disconnect()
    pump.wait(99)
    assert "d" in pump.router.sessions
    pump.wait(2)
    assert pump.router.sessions == {}
    pump.commit()
    assert pump.store.sessions == {}
    assert pump.store.subscriptions == {}
    assert not is_known(pump)


def test_a_session_for_ever_never_ends(pump: Pump) -> None:
    pump.client("d", clean=False, expiry=const.NEVER_EXPIRES).disconnect()
    pump.wait(10.0 * const.NEVER_EXPIRES)
    assert is_known(pump)


def test_the_time_counts_on_through_a_crash(pump: Pump) -> None:
    pump.client("d", clean=False, expiry=100).disconnect()
    pump.commit()
    pump.now += 60
    pump.crash().wait(39)
    assert "d" in pump.router.sessions
    pump.wait(2)
    assert pump.router.sessions == {}


def test_a_client_connected_at_a_crash_has_its_whole_time_from_the_restart_on(pump: Pump) -> None:
    """Also one that was away before: what it left behind then was long ago."""
    pump.client("d", clean=False, expiry=100).subscribed("t", 1).disconnect()
    pump.commit()
    pump.wait(50)
    come_back(pump, expiry=100)
    pump.wait(1000)
    pump.client("p").publish("t", b"kept", qos=1)
    pump.commit()
    pump.crash().wait(90)
    assert come_back(pump, expiry=100).take_payloads() == [b"kept"]


def test_a_session_does_not_end_while_its_client_is_coming_back(pump: Pump) -> None:
    pump.client("d", clean=False, expiry=100).subscribed("t", 1).disconnect()
    pump.commit()
    pump.wait(95)
    client = TestClient(pump)
    client.connect("d", clean=False, expiry=0)
    pump.wait(10)  # the disk is slow
    pump.commit()
    assert client.take(Connack).session_present
    pump.client("p").publish("t", b"one", qos=1)
    assert client.take_payloads() == [b"one"]


def test_disconnect_may_change_the_time(pump: Pump) -> None:
    client = pump.client("d", clean=False, expiry=100)
    client.disconnect(expiry=10)
    pump.commit()
    pump.crash().wait(11)
    assert pump.router.sessions == {}


def test_disconnect_with_zero_ends_the_session_at_once(pump: Pump) -> None:
    pump.client("d", clean=False, expiry=100).disconnect(expiry=0)
    assert pump.router.sessions == {}
    pump.commit()
    assert pump.store.sessions == {}


def test_of_a_session_that_ends_within_a_batch_nothing_is_left(pump: Pump) -> None:
    client = pump.client("d", clean=False, expiry=100)
    client.subscribe("t", 1)
    client.publish("t", qos=2, packet_id=1)
    client.disconnect(expiry=0)
    pump.commit()
    store = pump.store
    assert (store.sessions, store.subscriptions, store.inbound, store.queues) == ({}, {}, set(), {})


def test_disconnect_may_not_keep_a_session_that_was_to_end(pump: Pump) -> None:
    client = pump.client("d", expiry=0)
    client.disconnect(expiry=100)
    assert client.take(Disconnect).reason_code == const.PROTOCOL_ERROR
    assert pump.router.sessions == {}


def test_a_kept_session_may_be_resumed_for_the_last_time(pump: Pump) -> None:
    pump.client("d", clean=False, expiry=100).subscribed("t", 1).disconnect()
    client = come_back(pump, expiry=0)
    client.vanish()
    pump.commit()
    assert pump.store.sessions == {}


def test_the_identity_outlives_a_crash(pump: Pump) -> None:
    pump.client("d", clean=False, expiry=100, username="alice")
    pump.crash()
    thief = TestClient(pump)
    thief.connect("d", clean=False, expiry=100, username="mallory")
    assert thief.take(Connack).reason_code == const.CLIENT_IDENTIFIER_NOT_VALID


def test_identifiers_of_sessions_are_not_used_twice(pump: Pump) -> None:
    """What a removed session left on disk must never be found by a new one."""
    pump.client("a", clean=False, expiry=100)
    first = pump.session("a").session_id
    pump.client("a", clean=True, expiry=100)
    second = pump.session("a").session_id
    pump.crash()
    pump.client("b", clean=False, expiry=100)
    assert len({first, second, pump.session("b").session_id}) == 3


def test_the_window_holds_deliveries_back(pump: Pump) -> None:
    client = pump.client("s", properties={const.RECEIVE_MAXIMUM: 3}).subscribed("t", 1)
    publisher = pump.client("p")
    for number in range(1, 11):
        publisher.publish("t", b"%d" % number, qos=1, packet_id=number)
    assert len(client.inbox) == 3
    client.ack(const.PUBACK, 2)
    assert [p.packet_id for p in client.inbox if isinstance(p, Publish)] == [1, 2, 3, 4]
    client.ack(const.PUBACK, 3)
    client.ack(const.PUBACK, 1)
    assert [p.packet_id for p in client.inbox if isinstance(p, Publish)] == [1, 2, 3, 4, 5, 6]


def test_released_deliveries_count_in_the_window(pump: Pump) -> None:
    client = pump.client("s", properties={const.RECEIVE_MAXIMUM: 1}).subscribed("t", 2)
    publisher = pump.client("p")
    publisher.publish("t", b"one", qos=2, packet_id=1)
    publisher.publish("t", b"two", qos=2, packet_id=2)
    client.take(Publish)
    client.ack(const.PUBREC, 1)
    assert client.types == ["PUBREL 1"]
    client.ack(const.PUBCOMP, 1)
    assert client.types == ["PUBREL 1", "PUBLISH 2 QoS 2 b'two'"]


def test_an_acknowledgement_of_nothing_does_no_harm(pump: Pump) -> None:
    client = pump.client("s").subscribed("t", 1)
    client.ack(const.PUBACK, 65535)
    client.ack(const.PUBCOMP, 9)
    pump.client("p").publish("t", b"one", qos=1)
    assert client.take(Publish).packet_id == 1
    client.ack(const.PUBACK, 2)
    assert pump.session("s").queue.in_flight == 1
    client.ack(const.PUBACK, 1)
    client.ack(const.PUBACK, 1)
    assert pump.session("s").queue.in_flight == 0
    assert not client.closed


def test_packet_identifiers_begin_again_after_65535(pump: Pump) -> None:
    client = pump.client("d", clean=False, expiry=100).subscribed("t", 1)
    queue = pump.session("d").queue
    queue.head = queue.cursor = queue.next_number = queue.committed = 65534
    publisher = pump.client("p")
    for number in range(1, 5):
        publisher.publish("t", b"%d" % number, qos=1, packet_id=number)
    assert [p.packet_id for p in client.inbox if isinstance(p, Publish)] == [65534, 65535, 1, 2]
    for packet_id in (1, 65534, 2, 65535):
        client.ack(const.PUBACK, packet_id)
    assert queue.depth == queue.in_flight == 0
    assert queue.head == 65538
