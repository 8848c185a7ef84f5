"""`$delayed/SECONDS/topic`: kept until it is due, through commits and crashes, and then published as if it came now."""

from __future__ import annotations

import pytest

from edge_broker.core.delayed import QUEUE_NAME
from edge_broker.core.ports import Principal
from edge_broker.core.session import Session
from edge_broker.wire import const
from edge_broker.wire.packets import Ack, Connack, Publish, Suback, Will
from tests.permitting import SimpleRules
from tests.pump.pump import Pump, TestClient


def stored(pump: Pump) -> list[bytes]:
    """The payloads that wait on disk."""
    queue = pump.store.queues.get(pump.store.outboxes.get(QUEUE_NAME, 0))
    return [] if queue is None else [queue.messages[number].payload for number in sorted(queue.waiting)]


def away(pump: Pump) -> None:
    pump.client("s", clean=False, expiry=600).subscribed("#", 2).vanish()
    pump.commit()


def back(pump: Pump) -> TestClient:
    client = TestClient(pump)
    client.connect("s", clean=False, expiry=600)
    pump.commit()
    client.take(Connack)
    return client


@pytest.mark.parametrize("version", [const.MQTT_3_1_1, const.MQTT_5])
@pytest.mark.parametrize("qos", [0, 1, 2])
def test_it_comes_when_it_is_due(pump: Pump, qos: int, version: int) -> None:
    watcher = pump.client("w").subscribed("t/#", 2)
    pump.client("p", version=version).publish("$delayed/10/t/1", b"late", qos)
    pump.commit()
    pump.wait(9.9)
    assert watcher.inbox == []
    pump.wait(0.2)
    pump.commit()
    message = watcher.take(Publish)
    assert (message.topic, message.payload, message.qos, message.retain) == ("t/1", b"late", qos, False)
    assert (stored(pump), len(pump.router.delayed), pump.router.delayed.size_bytes) == ([], 0, 0)
    assert (pump.router.delayed.taken, pump.router.delayed.delivered) == (1, 1)


@pytest.mark.parametrize("qos", [1, 2])
def test_it_is_acknowledged_when_it_is_on_disk(pump: Pump, qos: int) -> None:
    client = pump.client("p")
    client.publish("$delayed/10/t", b"late", qos)
    pump.seal()
    assert client.inbox == []
    pump.settle()
    client.take_ack(const.PUBACK if qos == 1 else const.PUBREC)
    assert stored(pump) == [b"late"]


def test_without_delay_it_still_is_on_disk_first(pump: Pump) -> None:
    """Delivered before its commit it would be complete, and acknowledged, with its recipients' copy not on disk."""
    away(pump)
    client = pump.client("p")
    client.publish("$delayed/0/t", b"now", 1)
    pump.wait(1)
    assert client.inbox == []
    pump.commit()
    client.take_ack(const.PUBACK)
    pump.wait(1)
    pump.commit()
    assert back(pump).take_payloads() == [b"now"]


def test_what_fell_due_meanwhile_comes_at_once_in_order_of_due_time(pump: Pump) -> None:
    away(pump)
    client = pump.client("p")
    for number, seconds in enumerate((30, 10, 500, 20), 1):
        client.publish(f"$delayed/{seconds}/t", b"%d" % seconds, number % 2 + 1, packet_id=number)
    client.publish("$delayed/5/t", b"qos 0")
    pump.commit()
    pump.now += 60
    pump.crash()
    pump.commit()
    pump.wait(1)
    pump.commit()
    subscriber = back(pump)
    assert [subscriber.take(Publish).payload for _ in range(3)] == [b"10", b"20", b"30"]
    assert subscriber.inbox == []
    assert stored(pump) == [b"500"]
    pump.wait(440)
    pump.commit()
    assert subscriber.take(Publish).payload == b"500"


def test_nothing_is_delivered_before_all_that_waits_is_known() -> None:
    pump = Pump(page_messages=1)
    away(pump)
    client = pump.client("p")
    for number, seconds in enumerate((30, 20, 10), 1):
        client.publish(f"$delayed/{seconds}/t", b"%d" % seconds, 1, packet_id=number)
        pump.commit()
    pump.now += 60
    pump.crash()
    for _ in range(3):
        pump.wait(1)
        assert pump.router.delayed.delivered == 0
        pump.answer_reads()
    pump.wait(1)
    pump.commit()
    assert back(pump).take_payloads() == [b"10", b"20", b"30"]


def test_delivered_and_gone_are_one_commit(pump: Pump) -> None:
    away(pump)
    pump.client("p").publish("$delayed/10/t", b"once", 2)
    pump.commit()
    pump.wait(11)
    pump.crash()
    pump.commit()
    assert stored(pump) == [b"once"], "what was not committed did not happen"
    pump.wait(1)
    pump.seal()
    assert [write.moved for write in pump.sealed[0].batch.queues] == [False, True], (
        "and is not to be torn apart"
    )
    pump.store.apply(pump.sealed[0].batch)
    pump.crash()
    pump.wait(1)
    pump.commit()
    assert stored(pump) == []
    assert back(pump).take_payloads() == [b"once"]


def test_properties_come_along_and_the_expiry_counts_from_the_publish(pump: Pump) -> None:
    watcher = pump.client("w").subscribed("t", 1)
    properties = {const.CONTENT_TYPE: "text", const.USER_PROPERTY: [("a", "b")]}
    client = pump.client("p")
    client.publish("$delayed/10/t", b"1", 1, properties=properties | {const.MESSAGE_EXPIRY_INTERVAL: 25})
    client.publish("$delayed/10/t", b"2", 1, 2, properties={const.MESSAGE_EXPIRY_INTERVAL: 10})
    pump.commit()
    pump.wait(10)
    pump.commit()
    message = watcher.take(Publish)
    assert message.payload == b"1"
    assert message.properties == properties
    assert message.expiry_interval == 15
    assert watcher.inbox == []
    assert (pump.router.delayed.expired, pump.dropped) == (1, {"expired": 1})


def test_the_retain_flag_counts_when_it_is_due(pump: Pump) -> None:
    pump.client("p").publish("$delayed/10/t", b"kept", 1, retain=True)
    pump.commit()
    assert pump.router.retained_messages == 0
    pump.wait(10)
    pump.commit()
    assert pump.client("w").subscribed("t").take(Publish).retain


def test_no_local_is_kept(pump: Pump) -> None:
    client = pump.client("p").subscribed("t", 1, no_local=True)
    client.publish("$delayed/5/t", b"mine")
    pump.wait(5)
    assert client.inbox == []


@pytest.mark.parametrize(
    "rest",
    ["", "5", "5/", "x/t", "-1/t", "1.5/t", "٣/t", "/t", "2592001/t", "99999999999/t", "5/$delayed/5/t"],
)
def test_what_is_malformed_is_refused(pump: Pump, rest: str) -> None:
    client = pump.client("p")
    client.publish(f"$delayed/{rest}", b"x", 1)
    assert client.take(Ack).reason_code == const.TOPIC_NAME_INVALID
    old = pump.client("q", version=const.MQTT_3_1_1)
    old.publish(f"$delayed/{rest}", b"x", 1)
    old.take_ack(const.PUBACK)
    assert pump.dropped == {"topic_name_invalid": 2}
    assert pump.router.delayed.refused == {"topic_name_invalid": 2}
    assert len(pump.router.delayed) == 0


def test_the_brokers_own_topics_are_no_target(pump: Pump) -> None:
    client = pump.client("p")
    for topic in ("$delayed/5/$SYS/x", "$delayed/5/$dead-letters/x"):
        client.publish(topic, b"x", 1)
        assert client.take(Ack).reason_code == const.NOT_AUTHORIZED


def test_where_it_is_not_offered() -> None:
    pump = Pump(delayed_available=False)
    client = pump.client("p")
    client.publish("$delayed/5/t", b"x", 1)
    assert client.take(Ack).reason_code == const.TOPIC_NAME_INVALID


@pytest.mark.parametrize("topic_filter", ["$delayed/#", "$delayed/5/t", "$share/g/$delayed/#"])
def test_nobody_subscribes_to_it(pump: Pump, topic_filter: str) -> None:
    client = pump.client("c")
    client.subscribe(topic_filter, 1)
    assert client.take(Suback).reason_codes == [const.TOPIC_FILTER_INVALID]


@pytest.mark.parametrize("limits", [{"max_delayed_messages": 2}, {"max_delayed_bytes": 2_500}])
def test_no_more_than_there_may_be(limits: dict[str, int]) -> None:
    pump = Pump(**limits)
    client = pump.client("p")
    for number in range(1, 4):
        client.publish("$delayed/5/t", bytes(1_000), 1, packet_id=number)
    pump.commit()
    assert [client.take(Ack).reason_code for _ in range(3)] == [0, 0, const.QUOTA_EXCEEDED]
    pump.wait(5)
    pump.commit()
    client.publish("$delayed/5/t", bytes(1_000), 1, packet_id=4)
    pump.commit()
    assert client.take(Ack).reason_code == 0
    assert pump.router.delayed.refused == {"quota_exceeded": 1}


class OnlyT(SimpleRules):
    def may_publish(self, principal: Principal, topic: str) -> bool:
        return topic == "t"


def test_permission_is_that_of_the_target() -> None:
    pump = Pump(authorizer=OnlyT())
    client = pump.client("p")
    client.publish("$delayed/5/t", b"x", 1)
    client.publish("$delayed/5/u", b"x", 1, packet_id=2)
    pump.commit()
    assert [client.take(Ack).reason_code for _ in range(2)] == [0, const.NOT_AUTHORIZED]
    for topic, answer in (("$delayed/5/t", const.SUCCESS), ("$delayed/5/u", const.NOT_AUTHORIZED)):
        testator = TestClient(pump)
        testator.connect("w", will=Will(topic, b"x", 1, False, 0, {}))
        assert testator.take(Connack).reason_code == answer


def test_a_will_may_be_delayed_that_way_too(pump: Pump) -> None:
    watcher = pump.client("w").subscribed("t", 1)
    pump.client("p", will=Will("$delayed/5/t", b"gone", 1, False, 0, {})).vanish()
    pump.commit()
    assert watcher.inbox == []
    pump.wait(5)
    pump.commit()
    assert watcher.take(Publish).payload == b"gone"


def test_a_queue_that_rejects_gets_it_when_there_is_room() -> None:
    pump = Pump(max_queue_messages=1, when_queue_full="reject")
    away(pump)
    client = pump.client("p")
    client.publish("t", b"first", 1)
    client.publish("$delayed/5/t", b"second", 1, packet_id=2)
    pump.commit()
    pump.wait(10)
    pump.commit()
    subscriber = back(pump)
    first = subscriber.take(Publish)
    subscriber.ack(const.PUBACK, first.packet_id)
    pump.wait(2)
    pump.commit()
    assert subscriber.take(Publish).payload == b"second"


def test_what_expires_while_it_waits_is_a_dead_letter() -> None:
    pump = Pump(dead_letters=True)
    pump.client("p").publish("$delayed/10/t", b"1", 1, properties={const.MESSAGE_EXPIRY_INTERVAL: 5})
    pump.commit()
    pump.wait(10)
    pump.commit()
    dead = pump.router.dead_letters
    assert dead is not None
    assert (dead.depth, dead.buried) == (1, {"expired": 1})
    watcher = pump.client("w").subscribed("t", 1)
    (letter,) = pump.store.queues[pump.store.outboxes["$dead-letters"]].messages.values()
    assert dead.deliver_again(1, letter) == ""
    pump.run()
    again = watcher.take(Publish)
    assert (again.topic, again.payload, again.properties) == ("t", b"1", {})
    assert dead.depth == 0


def test_a_long_delay_does_not_keep_the_rows_of_short_ones() -> None:
    pump = Pump()
    client = pump.client("p")
    client.publish("$delayed/1000000/t", b"patient", 1)
    for _ in range(60):
        for number in range(2, 52):
            client.publish("$delayed/0/t", b"hasty", 1, packet_id=number)
        pump.commit()
        pump.wait(1)
    pump.commit()
    assert stored(pump) == [b"patient"]
    queue = pump.router.delayed.queue
    assert queue is not None
    assert queue.next_number - queue.head < 1_200
    assert len(pump.router.delayed) == 1
    pump.crash()
    pump.commit()
    watcher = pump.client("w").subscribed("t", 1)
    pump.wait(1_000_000)
    pump.commit()
    assert watcher.take(Publish).payload == b"patient"


def test_many_that_are_due_come_in_turns(pump: Pump) -> None:
    watcher = pump.client("w").subscribed("t")
    client = pump.client("p")
    for number in range(1, 2_501):
        client.publish("$delayed/5/t", b"%d" % number, 1, packet_id=number)
        if not number % 500:
            pump.commit()
    pump.wait(5)
    assert len(watcher.inbox) == 1_000
    pump.commit()
    assert [int(payload) for payload in watcher.take_payloads()] == list(range(1, 2_501))


def test_a_store_that_lost_one_does_not_stop_the_others(pump: Pump) -> None:
    away(pump)
    client = pump.client("p")
    for number in range(1, 4):
        client.publish("$delayed/5/t", b"%d" % number, 1, packet_id=number)
    pump.commit()
    del pump.store.queues[pump.store.outboxes[QUEUE_NAME]].messages[2]
    pump.crash()
    pump.commit()
    pump.wait(6)
    pump.commit()
    assert back(pump).take_payloads() == [b"1", b"3"]
    queue = pump.router.delayed.queue
    assert queue is not None
    assert queue.lost == 1


def test_a_large_one_is_let_go_of_whole(pump: Pump) -> None:
    pump.client("p").publish("$delayed/5/t", bytes(20_000), 1)
    pump.commit()
    queue = pump.router.delayed.queue
    assert queue is not None
    assert queue.large_in_flight_bytes > 20_000
    pump.wait(5)
    pump.commit()
    assert (queue.large_in_flight_bytes, queue.in_flight, queue.bytes_in_memory) == (0, 0, 0)


def test_a_session_that_ended_is_not_kept_for_it(pump: Pump) -> None:
    pump.client("p").publish("$delayed/5/t", b"x")
    (publisher,) = pump.router.delayed._publishers.values()
    assert isinstance(publisher, Session)
    pump.wait(5)
    assert pump.router.delayed._publishers == {}
