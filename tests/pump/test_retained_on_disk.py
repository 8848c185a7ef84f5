"""Retained messages beyond the memory budget: on disk only, read back for whoever subscribes; else nothing is different."""

from __future__ import annotations

import random

import pytest

from edge_broker.core.message import Message
from edge_broker.core.retained import Retained, Stub
from edge_broker.wire import const
from edge_broker.wire.packets import Connack, Publish, Suback
from tests.pump.pump import Pump, TestClient

MESSAGE_BYTES = 1000
"""The payload of each; with the object it takes some 1,520 bytes of memory."""


def payload_of(number: int) -> bytes:
    return b"%d " % number + bytes(MESSAGE_BYTES)


def filled(messages: int = 20, memory_bytes: int = 8_000, **limits: object) -> Pump:
    """A broker with retained messages `r/0` and so on, committed one by one; five of them fit into the memory."""
    pump = Pump(retained_memory_bytes=memory_bytes, **limits)
    publisher = pump.client("p")
    for number in range(messages):
        publisher.publish(f"r/{number}", payload_of(number), 1, retain=True)
        pump.commit()
        assert publisher.take_ack(const.PUBACK) == 1
    return pump


def publisher_of(pump: Pump) -> TestClient:
    return next(client for client in pump.clients if client.connection.client_id == "p")


def stubs(pump: Pump) -> list[str]:
    """The topics whose messages are on disk only."""
    return sorted(entry.topic for entry in pump.router.retained.match("#") if isinstance(entry, Stub))


def subscribe(pump: Pump, topic_filter: str = "r/#", qos: int = 0, client_id: str = "c") -> TestClient:
    """A new client whose SUBSCRIBE is answered, and whose wish for a page is not."""
    client = pump.client(client_id)
    client.subscribe(topic_filter, qos)
    assert client.take(Suback).reason_codes == [qos]
    return client


def received(client: TestClient) -> dict[str, bytes]:
    """What is in the inbox by topic, each topic once."""
    packets, client.inbox = client.inbox, []
    assert all(isinstance(packet, Publish) for packet in packets), packets
    by_topic = {packet.topic: packet.payload for packet in packets if isinstance(packet, Publish)}
    assert len(by_topic) == len(packets), "one came twice"
    return by_topic


ALL = {f"r/{number}": payload_of(number) for number in range(20)}


# ---- what leaves the memory


def test_the_one_set_longest_ago_leaves_first() -> None:
    pump = filled()
    assert stubs(pump) == sorted(f"r/{number}" for number in range(15))
    router = pump.router
    assert router.retained.on_disk_only == 15
    assert router.retained.memory_bytes <= 8_000
    assert router.retained_messages == 20
    assert router.retained_bytes == sum(len(message.frame) for message in pump.store.retained.values())


def test_set_anew_it_is_the_newest() -> None:
    pump = filled(5)
    assert stubs(pump) == []
    publisher_of(pump).publish("r/0", payload_of(0), 1, retain=True)
    publisher_of(pump).publish("r/5", payload_of(5), 1, retain=True)
    pump.commit()
    assert stubs(pump) == ["r/1"]


def test_set_twice_before_the_commit_it_is_the_newest_too() -> None:
    pump = Pump(retained_memory_bytes=2_500)
    publisher = pump.client("p")
    for topic in ("r/0", "r/1", "r/0"):
        publisher.publish(topic, payload_of(0), retain=True)
    pump.commit()
    assert stubs(pump) == ["r/1"]


@pytest.mark.parametrize("qos", [0, 1])
def test_what_is_not_on_disk_yet_stays(qos: int) -> None:
    pump = Pump(retained_memory_bytes=0)
    publisher = pump.client("p")
    publisher.publish("r/0", b"x", qos, retain=True)
    assert stubs(pump) == []
    pump.seal()
    assert stubs(pump) == []
    publisher.publish("r/1", b"x", qos, retain=True)
    pump.settle()
    assert stubs(pump) == ["r/0"]
    pump.commit()
    assert stubs(pump) == ["r/0", "r/1"]


def test_replaced_while_its_commit_is_under_way_the_new_one_stays_until_its_own() -> None:
    pump = Pump(retained_memory_bytes=0)
    publisher = pump.client("p")
    client = pump.client("c")
    publisher.publish("r/0", b"old", retain=True)
    pump.seal()
    publisher.publish("r/0", b"new", retain=True)
    pump.settle()
    assert stubs(pump) == []
    client.subscribe("r/0")
    client.take(Suback)
    assert received(client) == {"r/0": b"new"}
    pump.commit()
    assert stubs(pump) == ["r/0"]


def test_a_volatile_one_stays_and_takes_the_place_of_one_on_disk() -> None:
    pump = Pump(retained_memory_bytes=0, durabilities=(("v/#", True),))
    publisher = pump.client("p")
    publisher.publish("v/0", b"x", retain=True)
    pump.commit()
    assert stubs(pump) == []
    assert pump.store.retained == {}
    assert received(subscribe(pump, "v/#")) == {"v/0": b"x"}


def test_the_brokers_own_stay_and_count_for_nothing() -> None:
    pump = filled(3, memory_bytes=0)
    pump.router.publish_system("$SYS/broker/uptime", b"3 seconds")
    pump.commit()
    assert isinstance(pump.router.retained.get("$SYS/broker/uptime"), Message)
    assert (pump.router.retained.memory_bytes, pump.router.retained_messages) == (0, 3)


def test_after_a_start_likewise() -> None:
    pump = Pump(retained_memory_bytes=8_000)
    publisher = pump.client("p")
    for number in (*range(20), 3):  # the store gives number 3 as one of the first
        publisher.publish(f"r/{number}", payload_of(number), 1, retain=True)
        pump.commit()
        pump.wait(1)
    pump.crash()
    assert stubs(pump) == sorted(f"r/{number}" for number in range(16) if number != 3)
    client = subscribe(pump)
    pump.commit()
    assert received(client) == ALL


def test_the_limits_count_those_on_disk_only() -> None:
    pump = filled(20, max_retained_messages=20)
    publisher = publisher_of(pump)
    publisher.publish("r/20", b"x", 1, retain=True)
    assert publisher.inbox.pop().reason_code == const.QUOTA_EXCEEDED  # type: ignore[union-attr]
    publisher.publish("r/0", b"", 1, retain=True)
    publisher.publish("r/20", b"x", 1, retain=True)
    pump.commit()
    assert pump.router.retained_messages == 20
    assert "r/0" not in pump.store.retained


# ---- what is delivered


@pytest.mark.parametrize("qos", [0, 1, 2])
def test_a_wildcard_over_a_mix_gets_them_all(qos: int) -> None:
    pump = filled()
    client = pump.client("c")
    client.subscribe("#", qos)
    pump.commit()
    client.take(Suback)
    packets = [packet for packet in client.inbox if isinstance(packet, Publish)]
    assert all(packet.retain and packet.qos == min(qos, 1) for packet in packets)
    assert received(client) == ALL
    assert stubs(pump) == sorted(f"r/{number}" for number in range(15)), "they stay on disk only"
    assert pump.dropped == {}


def test_as_it_was_published_with_a_subscription_identifier() -> None:
    pump = Pump(retained_memory_bytes=0)
    properties = {const.CONTENT_TYPE: "text", const.MESSAGE_EXPIRY_INTERVAL: 10}
    pump.client("p").publish("r", b"x", 1, retain=True, properties=properties)
    pump.commit()
    pump.wait(4)
    publish = pump.client("c").subscribed("r", identifier=5).take(Publish)
    assert (publish.payload, publish.retain, publish.subscription_ids) == (b"x", True, (5,))
    assert (publish.properties[const.CONTENT_TYPE], publish.expiry_interval) == ("text", 6)


def test_into_a_durable_queue() -> None:
    pump = filled(10, memory_bytes=0)
    client = pump.client("d", clean=False, expiry=60)
    client.subscribe("r/#", 1)
    pump.commit()
    pump.crash()
    client = TestClient(pump)
    client.connect("d", clean=False, expiry=60)
    pump.commit()
    client.take(Connack)
    assert sorted(client.take_and_ack()) == sorted(payload_of(number) for number in range(10))


def test_one_filter_after_the_other_and_questions_in_between() -> None:
    pump = filled(6, memory_bytes=0)
    other = pump.client("other").subscribed("live")
    client = subscribe(pump, "r/0")
    client.subscribe("r/1", packet_id=2)
    client.ping()
    publisher_of(pump).publish("live", b"1")
    assert client.types == ["SUBACK", "PING"], "it is answered while its page is under way"
    assert other.take_payloads() == [b"1"]
    pump.commit()
    topics = [packet.topic for packet in client.inbox if isinstance(packet, Publish)]
    assert topics == ["r/0", "r/1"]


def test_pages_are_short() -> None:
    pump = filled(60, memory_bytes=0)
    publisher = publisher_of(pump)
    for number in range(6):
        publisher.publish(f"large/{number}", bytes(60_000), retain=True)
    publisher.publish("huge", bytes(500_000), retain=True)
    pump.commit()
    client = subscribe(pump, "#")
    pages = []
    while pump.pending.retained_reads:
        (reader,) = pump.pending.retained_reads
        pages.append([len(pump.store.retained[topic].frame) for topic in reader.wanted])
        pump.answer_reads()
    assert all(sum(page) <= 128 << 10 or len(page) == 1 for page in pages)
    assert sum(map(len, pages)) == 67
    assert len(pages) < 12, "but not one by one"
    assert len(received(client)) == 67


def test_those_in_memory_are_passed_over_in_a_page() -> None:
    pump = Pump(retained_memory_bytes=1_000_000)
    publisher = pump.client("p")
    for number in range(1000):
        publisher.publish(f"r/{number}", b"%d" % number, retain=True)
    pump.commit()
    pump.settings.retained_memory_bytes = 250_000
    publisher.publish("r/0", b"0", retain=True)
    pump.commit()
    assert 0 < pump.router.retained.on_disk_only < 1000
    client = subscribe(pump)
    pump.commit()
    assert received(client) == {f"r/{number}": b"%d" % number for number in range(1000)}


def test_a_slow_client_gets_them_as_it_takes_them() -> None:
    pump = filled(40, memory_bytes=0, max_output_bytes=5_000)
    client = pump.client("c")
    client.block()
    client.subscribe("r/#")
    pump.commit()
    assert pump.pending.retained_reads == [], "nothing is read for whom nothing can be sent to"
    client.unblock()
    pump.commit()
    client.take(Suback)
    assert len(received(client)) == 40
    assert pump.dropped == {}


def test_what_was_removed_before_is_not_asked_for() -> None:
    pump = filled(4, memory_bytes=0)
    client = pump.client("c")
    client.block()
    client.subscribe("r/#")
    publisher_of(pump).publish("r/2", b"", 1, retain=True)
    pump.commit()
    client.unblock()
    (pages,) = pump.pending.retained_reads
    assert sorted(pages.wanted) == ["r/0", "r/1", "r/3"]


# ---- what happens while a page is under way


def test_replaced_meanwhile_it_comes_as_the_live_message_alone() -> None:
    pump = filled(2, memory_bytes=0)
    client = subscribe(pump)
    assert client.inbox == []
    publisher_of(pump).publish("r/1", b"new", retain=True)
    assert received(client) == {"r/1": b"new"}
    pump.answer_reads()
    assert received(client) == {"r/0": payload_of(0)}


def test_replaced_and_on_disk_again_meanwhile() -> None:
    pump = filled(2, memory_bytes=0)
    client = subscribe(pump)
    publisher_of(pump).publish("r/1", b"new", retain=True)
    pump.seal()
    pump.settle()
    assert stubs(pump) == ["r/0", "r/1"]
    assert received(client) == {"r/1": b"new"}
    pump.answer_reads()
    assert received(client) == {"r/0": payload_of(0)}
    assert pump.dropped == {}


@pytest.mark.parametrize("committed", [False, True])
def test_removed_meanwhile_it_does_not_come(committed: bool) -> None:
    pump = filled(2, memory_bytes=0)
    client = subscribe(pump)
    publisher_of(pump).publish("r/1", b"", retain=True)
    assert received(client) == {"r/1": b""}
    if committed:
        pump.seal()
        pump.settle()
    pump.answer_reads()
    assert received(client) == {"r/0": payload_of(0)}
    assert pump.dropped == {}, "removed is not lost"


def test_expired_meanwhile_it_does_not_come_and_is_removed() -> None:
    pump = Pump(retained_memory_bytes=0)
    properties = {const.MESSAGE_EXPIRY_INTERVAL: 10}
    pump.client("p").publish("r", b"x", retain=True, properties=properties)
    pump.commit()
    client = subscribe(pump, "r")
    pump.wait(11)
    pump.commit()
    assert client.inbox == []
    assert (len(pump.router.retained), pump.store.retained) == (0, {})


def test_expired_before_nothing_is_read() -> None:
    pump = Pump(retained_memory_bytes=0)
    properties = {const.MESSAGE_EXPIRY_INTERVAL: 10}
    pump.client("p").publish("r", b"x", retain=True, properties=properties)
    pump.commit()
    pump.wait(11)
    client = subscribe(pump, "r")
    assert pump.pending.retained_reads == []
    pump.commit()
    assert client.inbox == []
    assert pump.store.retained == {}


def test_the_client_is_gone_meanwhile() -> None:
    pump = filled(2, memory_bytes=0)
    client = subscribe(pump)
    (pages,) = pump.pending.retained_reads
    messages = pump.store.read_retained(pages.wanted)
    client.vanish()
    assert pages.wanted == [], "not worth a read any more"
    pages.take(messages)
    assert not client.awake
    pump.commit()
    assert client.inbox == []


def test_the_subscription_is_gone_meanwhile() -> None:
    pump = filled(3, memory_bytes=0)
    client = subscribe(pump, "r/0")
    client.unsubscribe("r/0", packet_id=2)
    client.subscribe("r/2", packet_id=3)
    assert client.types == ["SUBACK", "SUBACK"]
    client.inbox = []
    pump.commit()
    assert received(client) == {"r/2": payload_of(2)}


def test_a_page_that_cannot_be_read_is_asked_for_again() -> None:
    pump = filled(2, memory_bytes=0)
    client = subscribe(pump)
    (pages,) = pump.pending.retained_reads
    pump.pending.retained_reads = []
    pump.wait(1)
    assert pump.pending.retained_reads == [], "not while it is under way"
    pages.take(None)
    pump.run()
    assert pump.pending.retained_reads == [pages]
    pump.commit()
    assert len(received(client)) == 2
    assert pump.dropped == {}


def test_what_the_store_has_lost_is_counted_and_forgotten() -> None:
    pump = filled(3, memory_bytes=0)
    del pump.store.retained["r/1"]
    client = subscribe(pump)
    pump.answer_reads()
    assert sorted(received(client)) == ["r/0", "r/2"]
    assert pump.dropped == {"lost": 1}
    assert pump.pending.retained == {"r/1": None}, "a damaged row goes"
    assert pump.router.retained_messages == 2


# ---- the numbers


def recounted(retained: Retained) -> tuple[int, int, int]:
    """(size_bytes, memory_bytes, on_disk_only) as they should be."""
    entries = retained.match("#")
    sizes = [len(entry.frame) for entry in entries if isinstance(entry, Message)]
    on_disk = [entry.size_bytes for entry in entries if isinstance(entry, Stub)]
    return sum(sizes) + sum(on_disk), sum(sizes) + 500 * len(sizes), len(on_disk)


@pytest.mark.parametrize("seed", range(20))
def test_the_numbers_are_right_and_every_subscriber_gets_what_is_retained(seed: int) -> None:
    chance = random.Random(seed)
    pump = Pump(retained_memory_bytes=3_000, max_retained_bytes=9_000, durabilities=(("v/#", True),))
    publisher = pump.client("p")
    expected: dict[str, bytes] = {}
    for step in range(150):
        topic = f"{chance.choice('rv')}/{chance.randrange(8)}"
        payload = chance.choice((b"", b"%d " % step + bytes(chance.randrange(900))))
        refused = pump.dropped.get("retained_full", 0)
        publisher.publish(topic, payload, retain=True)
        if pump.dropped.get("retained_full", 0) == refused:
            expected[topic] = payload
        if chance.random() < 0.3:
            pump.commit()
            assert pump.router.retained.memory_bytes <= 3_000 or all(
                entry.volatile for entry in pump.router.retained.match("#") if isinstance(entry, Message)
            )
        retained = pump.router.retained
        assert (retained.size_bytes, retained.memory_bytes, retained.on_disk_only) == recounted(retained)
        if chance.random() < 0.1:
            client = subscribe(pump, "#", client_id=f"c{step}")
            pump.commit()
            assert received(client) == {topic: payload for topic, payload in expected.items() if payload}
            client.vanish()
    pump.commit()
    pump.crash()
    client = subscribe(pump, "#")
    pump.commit()
    kept = {topic: payload for topic, payload in expected.items() if payload and topic[0] == "r"}
    assert received(client) == kept
    assert pump.router.retained.memory_bytes <= 3_000
