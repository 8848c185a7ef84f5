"""Retained messages: kept, replaced, cleared, and given to new subscriptions as they asked for it."""

from __future__ import annotations

import pytest

from edge_broker.wire import const
from edge_broker.wire.decoder import Decoder
from edge_broker.wire.encoder import PINGREQ, encode_subscribe
from edge_broker.wire.packets import Connack, Publish, Suback, SubscriptionRequest
from edge_broker.wire.topics import TopicCache
from tests.pump.pump import Pump, TestClient


@pytest.fixture
def publisher(pump: Pump) -> TestClient:
    return pump.client("p")


def retained(client: TestClient) -> list[tuple[str, bytes, bool]]:
    """(topic, payload, retain flag) of what is in the inbox, by topic."""
    packets, client.inbox = client.inbox, []
    assert all(isinstance(packet, Publish) for packet in packets)
    return sorted((p.topic, p.payload, p.retain) for p in packets if isinstance(p, Publish))


def test_a_new_subscription_gets_the_last_one_of_each_topic_behind_suback(
    pump: Pump, publisher: TestClient
) -> None:
    for topic, payload in (("a", b"old"), ("a", b"new"), ("a/b", b"x"), ("$a", b"hidden"), ("b", b"y")):
        publisher.publish(topic, payload, retain=True)
    client = pump.client("c")
    client.subscribe("#")
    client.take(Suback)
    assert retained(client) == [("a", b"new", True), ("a/b", b"x", True), ("b", b"y", True)]
    client.subscribed("a")
    assert retained(client) == [("a", b"new", True)]
    client.subscribed("+/b")
    assert retained(client) == [("a/b", b"x", True)]
    client.subscribed("$a")
    assert retained(client) == [("$a", b"hidden", True)]


def test_an_empty_payload_clears(pump: Pump, publisher: TestClient) -> None:
    live = pump.client("live").subscribed("a")
    publisher.publish("a", b"x", retain=True)
    publisher.publish("a", b"", retain=True)
    assert retained(live) == [("a", b"", False), ("a", b"x", False)]
    assert retained(pump.client("c").subscribed("a")) == []
    pump.commit()
    assert pump.store.retained == {}


def test_clearing_what_is_not_there(pump: Pump, publisher: TestClient) -> None:
    publisher.publish("a", b"", qos=1, retain=True)
    assert publisher.take_ack(const.PUBACK) == 1
    assert pump.pending.empty


def test_a_message_without_the_flag_changes_nothing(pump: Pump, publisher: TestClient) -> None:
    publisher.publish("a", b"kept", retain=True)
    publisher.publish("a", b"passing")
    assert retained(pump.client("c").subscribed("a")) == [("a", b"kept", True)]


@pytest.mark.parametrize(("handling", "first", "again"), [(0, 1, 1), (1, 1, 0), (2, 0, 0)])
def test_retain_handling(pump: Pump, publisher: TestClient, handling: int, first: int, again: int) -> None:
    publisher.publish("a", b"x", retain=True)
    client = pump.client("c").subscribed("a", retain_handling=handling)
    assert len(client.take_payloads()) == first
    client.subscribed("a", retain_handling=handling)
    assert len(client.take_payloads()) == again


def test_the_flag_as_published_or_not(pump: Pump, publisher: TestClient) -> None:
    plain = pump.client("plain").subscribed("a")
    as_published = pump.client("asp").subscribed("a", retain_as_published=True)
    publisher.publish("a", b"x", retain=True)
    publisher.publish("a", b"y")
    assert retained(plain) == [("a", b"x", False), ("a", b"y", False)]
    assert retained(as_published) == [("a", b"x", True), ("a", b"y", False)]


@pytest.mark.parametrize("published", [0, 1, 2])
@pytest.mark.parametrize("granted", [0, 1, 2])
def test_the_lower_qos_counts(pump: Pump, publisher: TestClient, published: int, granted: int) -> None:
    publisher.publish("a", b"x", qos=published, retain=True)
    pump.commit()
    client = pump.client("c")
    client.subscribe("a", granted)
    pump.commit()
    client.take(Suback)
    assert client.take(Publish).qos == min(published, granted)


def test_with_a_subscription_identifier(pump: Pump, publisher: TestClient) -> None:
    publisher.publish("a", b"x", retain=True)
    publish = pump.client("c").subscribed("a", identifier=5).take(Publish)
    assert (publish.subscription_ids, publish.retain) == ((5,), True)


def test_not_for_a_shared_subscription(pump: Pump, publisher: TestClient) -> None:
    publisher.publish("a", b"x", retain=True)
    assert pump.client("c").subscribed("$share/g/a").inbox == []


def test_not_for_a_subscription_that_was_taken_back_before_its_suback(
    pump: Pump, publisher: TestClient
) -> None:
    publisher.publish("a", b"x", retain=True)
    client = pump.client("c", clean=False, expiry=60)
    client.subscribe("a", packet_id=1)
    client.unsubscribe("a", packet_id=2)
    pump.commit()
    assert client.types == ["SUBACK", "SUBACK"]


def test_expired_it_is_gone(pump: Pump, publisher: TestClient) -> None:
    publisher.publish("a", b"x", retain=True, properties={const.MESSAGE_EXPIRY_INTERVAL: 10})
    pump.wait(9)
    publish = pump.client("c").subscribed("a").take(Publish)
    assert publish.expiry_interval == 1
    pump.wait(2)
    assert pump.client("d").subscribed("a").inbox == []
    pump.commit()
    assert pump.store.retained == {}
    assert len(pump.router.retained) == 0


def test_it_outlives_a_crash_at_any_qos(pump: Pump, publisher: TestClient) -> None:
    for qos in (0, 1, 2):
        publisher.publish(f"q{qos}", b"x", qos=qos, packet_id=qos, retain=True)
    pump.commit()
    client = pump.crash().client("c").subscribed("#")
    assert retained(client) == [("q0", b"x", True), ("q1", b"x", True), ("q2", b"x", True)]


def test_into_a_durable_queue_it_is_kept(pump: Pump, publisher: TestClient) -> None:
    publisher.publish("a", b"x", qos=1, retain=True)
    pump.commit()
    client = pump.client("d", clean=False, expiry=60)
    client.subscribe("a", 1)
    pump.commit()
    pump.crash()
    client = TestClient(pump)
    client.connect("d", clean=False, expiry=60)
    pump.commit()
    client.take(Connack)
    assert retained(client) == [("a", b"x", True)]


@pytest.mark.parametrize(("one", "other"), [(4, 5), (5, 4)])
def test_between_versions(pump: Pump, one: int, other: int) -> None:
    pump.client("p", version=one).publish("a", b"x", retain=True)
    assert retained(pump.client("c", version=other).subscribed("a")) == [("a", b"x", True)]


# ---- very many of them


@pytest.fixture
def full(pump: Pump, publisher: TestClient) -> Pump:
    """A broker with 5,000 retained messages."""
    for number in range(5000):
        publisher.publish(f"a/{number}", b"%d" % number, retain=True)
    pump.commit()
    return pump


def subscribe_to(client: TestClient, *filters: str, qos: int = 0) -> None:
    """SUBSCRIBE, without the turns of the event loop that follow."""
    requests = [SubscriptionRequest(topic_filter, qos) for topic_filter in filters]
    client.send(encode_subscribe(const.MQTT_5, 1, requests), run=False)


def publishes(client: TestClient) -> list[bytes]:
    """The payloads of what is PUBLISH in the inbox."""
    return [packet.payload for packet in client.inbox if isinstance(packet, Publish)]


def test_many_are_given_a_stretch_per_turn_and_everybody_goes_on(full: Pump) -> None:
    greedy = full.client("greedy")
    subscribe_to(greedy, "#", "+/#", "a/#", "a/+")
    greedy.send(PINGREQ, run=False)
    before = len(greedy.connection.output)
    assert 0 < before < 1100, "a turn's work"
    turns = 0
    while greedy.awake:
        greedy.awake = greedy.connection.take_turn()
        assert len(greedy.connection.output) - before < 1100
        before = len(greedy.connection.output)
        turns += 1
    assert turns >= 16
    full.run()
    greedy.take(Suback)
    assert greedy.types.index("PING") < 1100, "its own questions are answered in between"
    payloads = publishes(greedy)
    assert len(payloads) == 20_000
    assert set(payloads) == {b"%d" % number for number in range(5000)}


def test_looking_for_them_is_work_too(full: Pump) -> None:
    """A hundred filters that match nothing: each one has all topics looked through."""
    greedy = full.client("greedy")
    subscribe_to(greedy, *(f"+/nothing-{number}/#" for number in range(100)))
    turns = 0
    while greedy.awake:
        greedy.awake = greedy.connection.take_turn()
        turns += 1
    assert turns >= 99
    full.run()
    assert greedy.types == ["SUBACK"]
    exact = full.client("exact")
    subscribe_to(exact, *(f"a/{number}" for number in range(100)))
    assert not exact.awake, "one look each"


def test_large_ones_are_given_as_the_client_takes_them() -> None:
    pump = Pump(max_output_bytes=50_000)
    publisher = pump.client("p")
    for number in range(80):
        publisher.publish(f"a/{number}", b"x" * 10_000, retain=True)
    client = pump.client("c")
    subscribe_to(client, "#")
    assert sum(map(len, client.connection.output)) < 70_000
    client.block()
    pump.run()
    assert len(client.unread) < 70_000
    assert not client.awake, "it waits for the client"
    client.unblock()
    assert len(publishes(client)) == 80
    assert pump.dropped == {}


@pytest.mark.parametrize("durable", [False, True])
def test_no_more_of_them_than_the_window_are_in_the_queue(full: Pump, durable: bool) -> None:
    options = {"clean": not durable, "expiry": 60 if durable else 0}
    client = full.client("c", properties={const.RECEIVE_MAXIMUM: 10}, **options)
    publisher = full.client("p2")
    publisher.publish("b", b"kept", qos=1, retain=True)
    for number in range(300):
        publisher.publish(f"b/{number}", b"%d" % number, qos=1, retain=True)
    full.commit()
    subscribe_to(client, "b/+", qos=1)
    full.run()
    full.commit()
    assert full.session("c").queue.depth == 10
    client.inbox.pop(0)
    received: list[bytes] = []
    while client.inbox:
        received += client.take_and_ack()
        full.commit()
    assert sorted(received) == sorted(b"%d" % number for number in range(300))
    assert full.dropped == {}
    assert client.connection._retained is None


def test_into_a_durable_queue_they_wait_for_the_store() -> None:
    pump = Pump(max_uncommitted_bytes=20_000)
    publisher = pump.client("p")
    for number in range(100):
        publisher.publish(f"a/{number}", b"x" * 1000, qos=1, packet_id=1, retain=True)
        pump.commit()
    client = pump.client("d", clean=False, expiry=60)
    subscribe_to(client, "#", qos=1)
    pump.run()
    pump.seal()
    pump.settle()
    assert client.types[0] == "SUBACK"
    assert pump.pending.uncommitted_bytes < 25_000
    assert not client.awake
    client.ping()
    assert client.types.pop() == "PING"
    pump.commit()
    assert len(publishes(client)) == 100


def test_a_client_that_leaves_in_the_middle(full: Pump) -> None:
    client = full.client("c")
    subscribe_to(client, "#")
    client.vanish()
    full.run()
    assert not client.awake
    assert full.router.sessions.keys() == {"p"}


def test_what_changes_in_the_middle(full: Pump, publisher: TestClient) -> None:
    """Replaced, it comes as the live message that it is; removed, it does not come at all."""
    client = full.client("c")
    subscribe_to(client, "a/#")
    given = {p.topic for p in _read(client)}
    later = [f"a/{number}" for number in range(5000) if f"a/{number}" not in given]
    publisher.publish(later[0], b"new", retain=True, run=False)
    publisher.publish(later[1], b"", retain=True, run=False)
    full.run()
    by_topic: dict[str, list[bytes]] = {}
    for packet in client.inbox:
        if isinstance(packet, Publish):
            by_topic.setdefault(packet.topic, []).append(packet.payload)
    assert by_topic[later[0]] == [b"new"]
    assert by_topic[later[1]] == [b""]
    assert len(by_topic) == 5000


def _read(client: TestClient) -> list[Publish]:
    """What is in the connection's output, which stays there."""
    decoder = Decoder(TopicCache(), const.MAX_REMAINING_LENGTH, version=const.MQTT_5, from_server=True)
    decoder.feed(b"".join(client.connection.output))
    packets = []
    while (packet := decoder.next_packet()) is not None:
        packets.append(packet)
    return [packet for packet in packets if isinstance(packet, Publish)]


def test_a_second_subscribe_in_the_middle(full: Pump) -> None:
    client = full.client("c", clean=False, expiry=60)
    subscribe_to(client, "#")
    subscribe_to(client, "a/#")
    full.run()
    full.commit()
    assert client.types.count("SUBACK") == 2
    assert len(publishes(client)) == 10_000
