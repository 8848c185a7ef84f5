"""SUBSCRIBE and UNSUBSCRIBE: when they are answered, what they grant, and who gets a message then."""

from __future__ import annotations

import pytest

from edge_broker.core.ports import Principal
from edge_broker.wire import const
from edge_broker.wire.encoder import encode_subscribe, encode_unsubscribe
from edge_broker.wire.packets import Disconnect, Publish, Suback, SubscriptionRequest
from tests.permitting import SimpleRules
from tests.pump.pump import Pump, TestClient

V3, V5 = const.MQTT_3_1_1, const.MQTT_5


def test_a_clean_session_is_answered_at_once(pump: Pump) -> None:
    client = pump.client("c")
    client.subscribe("a", 2, packet_id=7)
    suback = client.take(Suback)
    assert (suback.packet_id, suback.reason_codes) == (7, [2])
    client.unsubscribe("a", packet_id=8)
    assert client.take(Suback).reason_codes == [const.SUCCESS]


def test_a_durable_session_is_answered_when_it_is_on_disk(pump: Pump) -> None:
    client = pump.client("c", clean=False, expiry=60)
    client.subscribe("a", 1, packet_id=7)
    assert pump.pending.urgent
    pump.seal()
    assert client.inbox == []
    pump.settle()
    assert client.take(Suback).packet_id == 7
    assert [key[1] for key in pump.store.subscriptions] == ["a"]
    client.unsubscribe("a", packet_id=8)
    pump.seal()
    assert client.inbox == []
    pump.settle()
    assert client.take(Suback, const.UNSUBACK).packet_id == 8
    assert pump.store.subscriptions == {}


def test_each_filter_has_its_own_answer(pump: Pump) -> None:
    client = pump.client("c")
    filters = ["a", "b/#/c", "+/b", "$share/g/x", "$share/g", "d+"]
    client.send(encode_subscribe(V5, 7, [SubscriptionRequest(f, 1) for f in filters]))
    bad = const.TOPIC_FILTER_INVALID
    assert client.take(Suback).reason_codes == [1, bad, 1, 1, bad, bad]
    client.send(encode_unsubscribe(V5, 8, ["a", "b", "$share/g/x"]))
    gone = const.NO_SUBSCRIPTION_EXISTED
    assert client.take(Suback).reason_codes == [const.SUCCESS, gone, const.SUCCESS]


def test_refused_filters_read_0x80_in_3_1_1(pump: Pump) -> None:
    client = pump.client("c", version=V3)
    client.send(encode_subscribe(V3, 7, [SubscriptionRequest("#/a", 1), SubscriptionRequest("b", 2)]))
    assert client.take(Suback).reason_codes == [0x80, 2]


def test_overlapping_subscriptions_get_one_delivery_at_the_highest_qos(pump: Pump) -> None:
    client = pump.client("c").subscribed("a/#", 0, identifier=1).subscribed("a/+", 2, identifier=2)
    client.subscribed("a/b", 1)
    pump.client("p").publish("a/b", b"x", qos=2)
    publish = client.take(Publish)
    assert (publish.qos, sorted(publish.subscription_ids)) == (2, [1, 2])
    assert client.inbox == []


def test_subscribing_again_replaces_the_options(pump: Pump) -> None:
    client = pump.client("c").subscribed("a", 0, identifier=1).subscribed("a", 1, identifier=9)
    pump.client("p").publish("a", b"x", qos=2)
    publish = client.take(Publish)
    assert (publish.qos, publish.subscription_ids) == (1, (9,))
    assert client.inbox == []
    client.unsubscribe("a")
    client.take(Suback)
    pump.client("p").publish("a", b"y", qos=1)
    assert client.inbox == []


def test_no_local(pump: Pump) -> None:
    client = pump.client("c").subscribed("a", 1, no_local=True)
    other = pump.client("o").subscribed("a", 1)
    client.publish("a", b"own", qos=0)
    assert client.inbox == []
    assert other.take_payloads() == [b"own"]
    client.subscribed("+", 1)
    client.publish("a", b"twice asked for", qos=0)
    assert client.take_payloads() == [b"twice asked for"], "the other subscription does want its own"


def test_no_local_on_a_shared_subscription_is_an_error(pump: Pump) -> None:
    client = pump.client("c")
    client.subscribe("$share/g/a", no_local=True)
    assert client.take(Disconnect).reason_code == const.PROTOCOL_ERROR
    assert len(pump.router.table) == 0


def test_the_number_of_subscriptions_is_limited(pump: Pump) -> None:
    pump = Pump(max_subscriptions_per_client=2)
    client = pump.client("c").subscribed("a").subscribed("b")
    client.subscribe("c")
    assert client.take(Suback).reason_codes == [const.QUOTA_EXCEEDED]
    client.subscribed("b", 1)


def test_the_levels_of_a_filter_are_limited(pump: Pump) -> None:
    pump = Pump(max_topic_levels=3)
    client = pump.client("c").subscribed("a/b/c").subscribed("+/+/#")
    client.subscribe("a/b/c/d")
    assert client.take(Suback).reason_codes == [const.TOPIC_FILTER_INVALID]


def test_a_new_subscription_changes_the_way_of_a_topic_already_known(pump: Pump) -> None:
    publisher = pump.client("p")
    first = pump.client("a").subscribed("t/1")
    publisher.publish("t/1", b"one")
    second = pump.client("b").subscribed("t/+")
    publisher.publish("t/1", b"two")
    second.unsubscribe("t/+")
    publisher.publish("t/1", b"three")
    first.vanish()
    publisher.publish("t/1", b"four")
    assert first.take_payloads() == [b"one", b"two", b"three"]
    assert [p.payload for p in second.inbox if isinstance(p, Publish)] == [b"two"]


def test_many_topics_are_no_more_than_the_routes_remembered(
    pump: Pump, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("edge_broker.core.routing._MAX_ROUTES", 10)
    client = pump.client("c").subscribed("#")
    publisher = pump.client("p")
    for number in range(25):
        publisher.publish(f"t/{number}", b"%d" % number)
    publisher.publish("t/" + "x" * 1000, b"long")
    assert client.take_payloads() == [*(b"%d" % number for number in range(25)), b"long"]
    assert len(pump.router.table.routes) <= 10
    assert max(map(len, pump.router.table.routes)) < 300, "long names would fill the memory"


# ---- shared subscriptions


def shared(pump: Pump, client_id: str, qos: int = 1, **options: object) -> TestClient:
    return pump.client(client_id, **options).subscribed("$share/g/t", qos)


def test_each_message_goes_to_one_member_in_turn(pump: Pump) -> None:
    members = [shared(pump, name) for name in "abc"]
    alone = pump.client("d").subscribed("t", 1)
    publisher = pump.client("p")
    for number in range(9):
        publisher.publish("t", b"%d" % number)
    received = [client.take_payloads() for client in members]
    assert [len(payloads) for payloads in received] == [3, 3, 3]
    assert sorted(payload for payloads in received for payload in payloads) == [
        b"%d" % number for number in range(9)
    ]
    assert len(alone.take_payloads()) == 9


def test_two_groups_have_a_copy_each(pump: Pump) -> None:
    one, other = shared(pump, "a"), pump.client("b").subscribed("$share/h/t", 1)
    pump.client("p").publish("t", b"x")
    assert one.take_payloads() == other.take_payloads() == [b"x"]


def test_a_member_that_cannot_take_more_is_passed_over(pump: Pump) -> None:
    slow = shared(pump, "slow", properties={const.RECEIVE_MAXIMUM: 1})
    quick = shared(pump, "quick")
    publisher = pump.client("p")
    for number in range(1, 7):
        publisher.publish("t", b"%d" % number, qos=1, packet_id=number)
    assert len(slow.take_payloads()) == 1
    assert len(quick.take_payloads()) == 5


def test_an_offline_member_gets_something_only_if_nobody_is_there(pump: Pump) -> None:
    away = shared(pump, "away", clean=False, expiry=60)
    there = shared(pump, "there")
    away.vanish()
    publisher = pump.client("p")
    for number in range(1, 5):
        publisher.publish("t", b"%d" % number, qos=1, packet_id=number)
    assert len(there.take_payloads()) == 4
    for packet_id in range(1, 5):
        there.ack(const.PUBACK, packet_id)
    there.vanish()
    publisher.publish("t", b"kept", qos=1, packet_id=9)
    pump.commit()
    back = TestClient(pump)
    back.connect("away", clean=False, expiry=60)
    pump.commit()
    back.inbox.pop(0)
    assert back.take_payloads() == [b"kept"]


def test_a_member_that_left_gets_nothing(pump: Pump) -> None:
    stays, leaves, breaks = shared(pump, "a"), shared(pump, "b"), shared(pump, "c")
    leaves.unsubscribe("$share/g/t")
    leaves.take(Suback)
    breaks.vanish()
    publisher = pump.client("p")
    for _ in range(4):
        publisher.publish("t")
    assert len(stays.take_payloads()) == 4
    assert leaves.inbox == breaks.inbox == []
    stays.unsubscribe("$share/g/t")
    assert len(pump.router.table) == 0
    publisher.publish("t", qos=1)
    assert publisher.take_ack(const.PUBACK) == 1


def test_the_members_own_qos_counts(pump: Pump) -> None:
    client = shared(pump, "a", qos=0)
    pump.client("p").publish("t", b"x", qos=2)
    assert client.take(Publish).qos == 0


# ---- permissions


class Rules(SimpleRules):
    """`private/` is closed to everybody but alice; asked for what it was asked."""

    def __init__(self) -> None:
        super().__init__()
        self.asked: list[str] = []

    def may_publish(self, principal: Principal, topic: str) -> bool:
        self.asked.append(topic)
        return principal.identity == "alice" or not topic.startswith("private")

    def may_subscribe(self, principal: Principal, topic_filter: str) -> bool:
        self.asked.append(topic_filter)
        return principal.identity == "alice" or not topic_filter.startswith("private")


def test_only_what_is_allowed_can_be_subscribed_to() -> None:
    rules = Rules()
    pump = Pump(authorizer=rules)
    client = pump.client("c", username="bob")
    client.subscribe("private/#")
    assert client.take(Suback).reason_codes == [const.NOT_AUTHORIZED]
    client.subscribe("$share/g/private/x")
    assert client.take(Suback).reason_codes == [const.NOT_AUTHORIZED]
    assert rules.asked == ["private/#", "private/x"]
    pump.client("d", username="alice").subscribed("private/#")
    assert pump.router.counters.denied == {"subscribe": 1, "share": 1}


@pytest.mark.parametrize(("version", "code"), [(V3, const.SUCCESS), (V5, const.NOT_AUTHORIZED)])
def test_only_what_is_allowed_can_be_published(version: int, code: int) -> None:
    pump = Pump(authorizer=Rules())
    watcher = pump.client("w", username="alice").subscribed("#", 2)
    client = pump.client("c", username="bob", version=version)
    client.publish("private/x", qos=0)
    client.publish("private/x", qos=1, packet_id=1)
    client.publish("private/x", qos=2, packet_id=2)
    acks = [(ack.packet_id, ack.packet_type, ack.reason_code) for ack in client.inbox]  # type: ignore[union-attr]
    assert acks == [(1, const.PUBACK, code), (2, const.PUBREC, code)]
    assert watcher.inbox == []
    assert pump.router.counters.denied == {"publish": 3}
    client.inbox.clear()
    client.publish("public/x", qos=1, packet_id=3)
    assert client.take_ack(const.PUBACK) == 3


def test_a_denial_does_not_overtake_an_acknowledgement() -> None:
    pump = Pump(authorizer=Rules())
    pump.client("d", clean=False, expiry=60).subscribed("public/#", 1).vanish()
    pump.commit()
    client = pump.client("c", username="bob")
    client.publish("public/1", qos=1, packet_id=1)
    client.publish("private/1", qos=1, packet_id=2)
    client.publish("private/1", qos=2, packet_id=3)
    client.publish("public/1", qos=1, packet_id=4)
    assert client.inbox == []
    pump.commit()
    denied = const.NOT_AUTHORIZED
    answers = [(a.packet_id, a.packet_type, a.reason_code) for a in client.inbox]  # type: ignore[union-attr]
    assert answers == [
        (1, const.PUBACK, 0),
        (2, const.PUBACK, denied),
        (3, const.PUBREC, denied),
        (4, const.PUBACK, 0),
    ]


def test_permission_is_asked_once_per_topic() -> None:
    rules = Rules()
    pump = Pump(authorizer=rules)
    client = pump.client("c", username="bob")
    for _ in range(5):
        client.publish("public/x")
    for _ in range(2):
        client.publish("public/" + "x" * 1000)
    assert rules.asked == ["public/x", "public/" + "x" * 1000, "public/" + "x" * 1000]
