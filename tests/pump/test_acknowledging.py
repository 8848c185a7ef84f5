"""QoS 1: a PUBACK leaves when every durable recipient has the message safe, and not one step before."""

from __future__ import annotations

import pytest

from edge_broker.wire import const
from edge_broker.wire.packets import Publish
from tests.pump.pump import Pump, TestClient


def durable(pump: Pump, client_id: str, topic_filter: str = "#", qos: int = 1) -> TestClient:
    return pump.client(client_id, clean=False, expiry=3600).subscribed(topic_filter, qos)


def publishes(client: TestClient) -> list[tuple[bytes, int, bool]]:
    """(payload, packet identifier, DUP) of what is in the inbox."""
    packets, client.inbox = client.inbox, []
    assert all(isinstance(packet, Publish) for packet in packets)
    return [(p.payload, p.packet_id, p.dup) for p in packets if isinstance(p, Publish)]


def test_without_a_durable_recipient_the_puback_leaves_at_once(pump: Pump) -> None:
    publisher = pump.client("p")
    subscriber = pump.client("s").subscribed("t", 1)
    publisher.publish("t", b"one", qos=1, packet_id=7)
    assert publisher.take_ack(const.PUBACK) == 7
    assert publishes(subscriber) == [(b"one", 1, False)]
    assert pump.pending.empty


def test_without_any_recipient_too(pump: Pump) -> None:
    publisher = pump.client("p")
    publisher.publish("t", qos=1, packet_id=3)
    assert publisher.take_ack(const.PUBACK) == 3


def test_an_offline_durable_session_holds_the_puback_until_the_commit(pump: Pump) -> None:
    publisher = pump.client("p")
    durable(pump, "d").vanish()
    pump.commit()
    publisher.publish("t", b"one", qos=1, packet_id=7)
    assert publisher.inbox == []
    pump.seal()
    assert publisher.inbox == []
    pump.settle()
    assert publisher.take_ack(const.PUBACK) == 7
    assert pump.store.messages_written == 1


def test_a_live_durable_session_gets_the_message_before_the_commit_and_the_puback_waits(pump: Pump) -> None:
    publisher = pump.client("p")
    subscriber = durable(pump, "d")
    publisher.publish("t", b"one", qos=1, packet_id=7)
    assert publishes(subscriber) == [(b"one", 1, False)]
    assert publisher.inbox == []
    pump.seal()
    pump.settle()
    assert publisher.take_ack(const.PUBACK) == 7


def test_acknowledged_before_the_seal_it_is_never_written(pump: Pump) -> None:
    publisher = pump.client("p")
    subscriber = durable(pump, "d")
    publisher.publish("t", b"one", qos=1, packet_id=7)
    subscriber.take(Publish)
    subscriber.ack(const.PUBACK, 1)
    assert publisher.take_ack(const.PUBACK) == 7
    assert pump.pending.elided == 1
    pump.commit()
    assert pump.store.messages_written == 0
    assert pump.pending.uncommitted_bytes == 0
    assert pump.session("d").queue.depth == 0


def test_acknowledged_between_seal_and_commit_the_puback_waits_for_the_commit(pump: Pump) -> None:
    publisher = pump.client("p")
    subscriber = durable(pump, "d")
    publisher.publish("t", b"one", qos=1, packet_id=7)
    pump.seal()
    subscriber.ack(const.PUBACK, 1)
    assert publisher.inbox == []
    pump.settle()
    assert publisher.take_ack(const.PUBACK) == 7
    pump.commit()
    assert pump.store.queues[pump.session("d").session_id].messages == {}


def test_the_slowest_of_several_durable_recipients_decides(pump: Pump) -> None:
    publisher = pump.client("p")
    first, second = durable(pump, "a"), durable(pump, "b")
    publisher.publish("t", b"one", qos=1, packet_id=7)
    first.ack(const.PUBACK, 1)
    assert publisher.inbox == []
    second.ack(const.PUBACK, 1)
    assert publisher.take_ack(const.PUBACK) == 7
    publisher.publish("t", b"two", qos=1, packet_id=8)
    first.ack(const.PUBACK, 2)
    assert publisher.inbox == []
    pump.commit()
    assert publisher.take_ack(const.PUBACK) == 8
    assert pump.store.messages_written == 1


def test_pubacks_leave_in_the_order_of_the_messages(pump: Pump) -> None:
    publisher = pump.client("p")
    durable(pump, "d", "kept").vanish()
    pump.commit()
    publisher.publish("kept", qos=1, packet_id=1)
    publisher.publish("nobody", qos=1, packet_id=2)  # safe at once, but not first
    publisher.publish("kept", qos=1, packet_id=3)
    publisher.publish("nobody", qos=2, packet_id=4)
    assert publisher.inbox == []
    pump.commit()
    assert publisher.types == ["PUBACK 1", "PUBACK 2", "PUBACK 3", "PUBREC 4"]


def test_pubacks_of_two_batches_do_not_overtake_each_other(pump: Pump) -> None:
    publisher = pump.client("p")
    subscriber = durable(pump, "d")
    publisher.publish("t", qos=1, packet_id=1)
    pump.seal()
    publisher.publish("t", qos=1, packet_id=2)
    subscriber.ack(const.PUBACK, 2)  # elided, while the first is on its way to the disk
    assert publisher.inbox == []
    pump.settle()
    assert publisher.types == ["PUBACK 1", "PUBACK 2"]


def test_another_publisher_does_not_wait_for_it(pump: Pump) -> None:
    slow, quick = pump.client("p"), pump.client("q")
    durable(pump, "d", "kept").vanish()
    slow.publish("kept", qos=1, packet_id=1)
    quick.publish("other", qos=1, packet_id=1)
    assert slow.inbox == []
    assert quick.take_ack(const.PUBACK) == 1


def test_a_subscription_at_qos_0_makes_nobody_wait(pump: Pump) -> None:
    publisher = pump.client("p")
    subscriber = durable(pump, "d", qos=0)
    publisher.publish("t", b"one", qos=1, packet_id=7)
    assert publisher.take_ack(const.PUBACK) == 7
    assert publishes(subscriber) == [(b"one", 0, False)]


def test_the_end_of_the_publisher_does_not_keep_its_message_from_the_disk(pump: Pump) -> None:
    publisher = pump.client("p")
    durable(pump, "d").vanish()
    publisher.publish("t", b"one", qos=1, packet_id=7)
    publisher.vanish()
    pump.commit()
    returned = TestClient(pump.crash())
    returned.connect("d", clean=False, expiry=3600)
    pump.commit()
    returned.inbox.pop(0)
    assert returned.take_payloads() == [b"one"]


def test_a_retained_message_is_acknowledged_when_it_is_on_disk(pump: Pump) -> None:
    publisher = pump.client("p")
    publisher.publish("t", b"state", qos=1, packet_id=7, retain=True)
    assert publisher.inbox == []
    pump.commit()
    assert publisher.take_ack(const.PUBACK) == 7
    assert pump.store.retained["t"].payload == b"state"


def test_clearing_a_retained_message_too(pump: Pump) -> None:
    publisher = pump.client("p")
    publisher.publish("t", b"state", retain=True)
    pump.commit()
    publisher.publish("t", b"", qos=1, packet_id=8, retain=True)
    assert publisher.inbox == []
    pump.commit()
    assert publisher.take_ack(const.PUBACK) == 8
    assert pump.store.retained == {}


@pytest.mark.parametrize("ending", ["clean start", "expiry 0"])
def test_a_session_that_ends_makes_its_messages_safe_when_its_end_is_on_disk(pump: Pump, ending: str) -> None:
    publisher = pump.client("p")
    subscriber = durable(pump, "d")
    publisher.publish("t", qos=1, packet_id=7)
    if ending == "clean start":
        TestClient(pump).connect("d")
    else:
        subscriber.disconnect(expiry=0)
    assert publisher.inbox == [], "a crash now would bring the session back without the message"
    pump.commit()
    assert publisher.take_ack(const.PUBACK) == 7
    assert pump.pending.uncommitted_bytes == 0
    assert pump.store.messages_written == 0
    assert pump.store.queues == {}


def test_how_long_publishers_waited_is_counted(pump: Pump) -> None:
    publisher = pump.client("p")
    durable(pump, "d").vanish()
    pump.commit()
    publisher.publish("t", qos=1, packet_id=7)
    pump.now += 0.3
    pump.commit()
    histogram = pump.router.counters.acknowledge_seconds
    assert sum(histogram.counts) == 1
    assert histogram.total == pytest.approx(0.3)
