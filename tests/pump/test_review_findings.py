"""Where a careful reading found the broker at odds with the specification or with its own promises."""

from __future__ import annotations

import pytest

from edge_broker.core.message import Message
from edge_broker.wire import const
from edge_broker.wire.packets import Connack, Publish, Suback, Will
from tests.pump.pump import Pump, TestClient


@pytest.mark.parametrize(
    "reason_code", [const.UNSPECIFIED_ERROR, const.MALFORMED_PACKET, const.QUOTA_EXCEEDED]
)
def test_only_a_normal_disconnection_deletes_the_will(pump: Pump, reason_code: int) -> None:
    """[MQTT-3.1.2-8, MQTT-3.14.4-3]: a client that leaves because of an error leaves its will."""
    watcher = pump.client("watcher").subscribed("will/t", 1)
    client = pump.client("c", will=Will("will/t", b"gone", 1, False, 0, {}))
    client.disconnect(reason_code)
    assert watcher.take_payloads() == [b"gone"]


def test_a_session_was_never_left_in_the_future(pump: Pump) -> None:
    """A board without a clock of its own boots in the past: a session left "an hour from now" was left just now."""
    client = pump.client("c", expiry=60, will=Will("will/t", b"gone", 1, False, 5, {}))
    client.vanish()
    pump.commit()
    (record,) = pump.store.sessions.values()
    record.disconnected_at = pump.now + 3600
    pump.crash()
    watcher = pump.client("watcher").subscribed("will/t", 1)
    pump.wait(6)
    assert watcher.take_payloads() == [b"gone"]
    pump.wait(60)
    assert "c" not in pump.router.sessions


def test_retained_messages_do_not_keep_the_forms_that_others_got(pump: Pump) -> None:
    """They live long: a second copy of each would double their memory."""
    for client_id in ("a", "b"):
        pump.client(client_id).subscribed("r/#", 0)
    pump.client("p").publish("r/1", b"x", 1, retain=True)
    message = pump.router.retained.get("r/1")
    assert isinstance(message, Message)
    assert message._variants is None


@pytest.mark.parametrize("expiry", [0, 600])
def test_a_subscriber_that_acknowledges_gets_every_retained_message(expiry: int) -> None:
    """However many there are: its queue's limit is for those that do not keep up."""
    pump = Pump(max_queue_bytes_in_memory=20_000, send_window=8)
    publisher = pump.client("p")
    for number in range(200):
        publisher.publish(f"r/{number}", b"x" * 100, 1, retain=True)
        pump.commit()
    client = pump.client("c", expiry=expiry)
    client.subscribe("r/#", 1)
    pump.commit()
    client.take(Suback)
    got: set[str] = set()
    while client.inbox:
        publish = client.take(Publish)
        got.add(publish.topic)
        client.ack(const.PUBACK, publish.packet_id)
        pump.commit()
    assert len(got) == 200
    assert pump.dropped == {}


def test_clients_that_gave_up_on_a_stuck_store_leave_nothing_behind(pump: Pump) -> None:
    """The disk is full for a day, and a sensor tries again every ten seconds."""
    pump.seal()  # and not settled: nothing reaches the disk
    refused = 0
    for _ in range(20_000):
        client = TestClient(pump)
        client.connect("sensor", clean=False, expiry=600)
        if client.inbox:
            assert client.take(Connack).reason_code == const.SERVER_BUSY
            refused += 1
        client.vanish()
        pump.clients.clear()
    assert len(pump.pending.callbacks) <= 10_000
    assert refused
    pump.commit()
    pump.client("sensor", clean=False, expiry=600)


def test_publishers_that_come_again_and_again_do_not_fill_the_memory() -> None:
    """Each one may leave a message before it is paused; the next may not when too many wait for the disk."""
    pump = Pump(max_uncommitted_bytes=50_000)
    pump.client("keeps", expiry=600).subscribed("t", 1)
    pump.seal()
    codes = []
    for _ in range(30):
        publisher = TestClient(pump)
        publisher.connect("p", version=const.MQTT_3_1_1)
        codes.append(publisher.take(Connack).reason_code)
        if not codes[-1]:
            publisher.publish("t", b"x" * 10_000, 1)
            assert publisher.inbox == []
        publisher.vanish()
    assert codes == [0] * 10 + [3] * 20, "return code 3 of 3.1.1: server unavailable"
    assert pump.pending.uncommitted_bytes < 120_000
    assert pump.refused["server_busy"] == 20
    pump.commit()
    pump.client("p", version=const.MQTT_3_1_1)


def test_subscribing_again_and_again_without_acknowledging_leaves_one_debt() -> None:
    """Retained messages are owed for what is subscribed to, not for every time that it was asked for."""
    pump = Pump(send_window=2, max_subscriptions_per_client=5)
    publisher = pump.client("p")
    for number in range(5):
        publisher.publish(f"r/{number}", b"x", 1, retain=True)
    client = pump.client("c")
    for number in range(200):
        client.subscribe(("r/#", "r/+", "+/+")[number % 3], 1)
    assert client.connection._retained is not None
    assert len(client.connection._retained._subscriptions) <= 11
    got: list[str] = []
    while client.inbox:
        packet = client.inbox.pop(0)
        if isinstance(packet, Publish):
            got.append(packet.topic)
            client.ack(const.PUBACK, packet.packet_id)
    assert {got.count(f"r/{number}") for number in range(5)} <= {3, 4}, "for each filter, and what was begun"
    assert client.connection._retained is None
