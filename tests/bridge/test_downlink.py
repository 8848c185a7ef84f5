"""The downlink in memory: what comes from the upstream, and when it is acknowledged there."""

import pytest

from edge_broker.wire import const
from edge_broker.wire.encoder import encode_ack, encode_publish, encode_suback
from edge_broker.wire.packets import Subscribe
from edge_broker.wire.properties import encode_properties
from tests.bridge.memory import UPSTREAM, Bridged, Local, rule


def publish(
    topic: str, payload: bytes = b"", qos: int = 1, packet_id: int = 1, **more: bool | bytes
) -> bytes:
    return encode_publish(5, topic, payload, qos, packet_id=packet_id, **more)  # type: ignore[arg-type]


def pubrel(packet_id: int) -> bytes:
    return encode_ack(5, const.PUBREL, packet_id)


def subscribes(bridged: Bridged) -> list[Subscribe]:
    """What it asks for now."""
    return [packet for packet in bridged.sent() if isinstance(packet, Subscribe)]


# ---- subscribing


def test_the_rules_filters_are_subscribed_to_upstream() -> None:
    bridged = Bridged(in_=[rule("cmd/#", 2, remote="site/"), rule("time", 0)])
    bridged.connect(present=False)
    [subscribe] = subscribes(bridged)
    assert isinstance(subscribe, Subscribe)
    assert [(r.topic_filter, r.qos) for r in subscribe.requests] == [("site/cmd/#", 2), ("time", 0)]
    assert all(r.no_local and r.retain_as_published and r.retain_handling == 1 for r in subscribe.requests)


def test_many_filters_go_in_small_packets_one_after_another() -> None:
    bridged = Bridged(in_=[rule(f"cmd/{number}") for number in range(20)])
    bridged.connect(present=False)
    sizes = []
    while packets := subscribes(bridged):
        [subscribe] = packets
        assert isinstance(subscribe, Subscribe)
        sizes.append(len(subscribe.requests))
        bridged.receive(encode_suback(5, subscribe.packet_id, [1] * len(subscribe.requests)))
    assert sizes == [8, 8, 4]


def test_a_session_that_is_still_there_is_subscribed_to_once_per_run() -> None:
    bridged = Bridged(in_=[rule("cmd")])
    bridged.connect(present=True)
    [subscribe] = subscribes(bridged)
    assert isinstance(subscribe, Subscribe)
    bridged.receive(encode_suback(5, subscribe.packet_id, [1]))
    bridged.disconnect()
    bridged.connect(present=True)
    assert subscribes(bridged) == []
    bridged.disconnect()
    bridged.connect(present=False)
    assert len(subscribes(bridged)) == 1


def test_a_refused_subscription_is_told_and_asked_for_again() -> None:
    bridged = Bridged(in_=[rule("a"), rule("b")])
    bridged.connect(present=True)
    [subscribe] = subscribes(bridged)
    assert isinstance(subscribe, Subscribe)
    bridged.receive(encode_suback(5, subscribe.packet_id, [1, const.NOT_AUTHORIZED]))
    assert bridged.refused_filters == [("b", const.NOT_AUTHORIZED)]
    assert bridged.downlink.subscriptions_refused == 1
    bridged.disconnect()
    bridged.connect(present=True)
    assert len(subscribes(bridged)) == 1


def test_the_identifier_of_subscribe_is_no_messages() -> None:
    bridged = Bridged(out=[rule("#")], in_=[rule("cmd")])
    for _ in range(3):
        bridged.publish("t")
    bridged.connect(present=False)
    subscribe, *messages = bridged.sent()
    assert isinstance(subscribe, Subscribe)
    assert subscribe.packet_id not in {message.packet_id for message in messages}  # type: ignore[union-attr]


# ---- messages


def test_qos_2_is_neither_seen_nor_answered_before_its_identifier_is_kept() -> None:
    bridged = Bridged(in_=[rule("#", 2, local="here/")])
    local = Local(bridged, "#", durable=False)
    bridged.connect()
    bridged.sent()
    bridged.receive(publish("a", b"x", 2, 9))
    assert (local.messages, bridged.sent_acks()) == ([], [])
    bridged.commit()
    assert [message.topic for message in local.messages] == ["here/a"]
    assert bridged.sent_acks() == [(const.PUBREC, 9, 0)]


@pytest.mark.parametrize("durable", [False, True])
@pytest.mark.parametrize("qos", [0, 1, 2])
def test_a_message_is_published_here_under_its_local_name(qos: int, durable: bool) -> None:
    bridged = Bridged(in_=[rule("#", 2, local="here/", remote="there/")])
    local = Local(bridged, "here/#", durable)
    bridged.connect()
    block = encode_properties({const.CONTENT_TYPE: "x", const.MESSAGE_EXPIRY_INTERVAL: 60})
    bridged.receive(publish("there/a", b"p", qos, 7 if qos else 0, retain=True, property_block=block))
    if qos == 2 and not durable:
        assert local.messages == []  # not before its identifier is kept
        bridged.commit()
    [message] = local.messages
    assert (message.topic, message.payload, message.qos) == ("here/a", b"p", qos)
    assert message.properties == {const.CONTENT_TYPE: "x"}
    assert message.expires_at == bridged.router.now + 60
    retained = bridged.router.retained.get("here/a")
    assert retained is not None
    assert bridged.downlink.received[qos] == 1


def test_qos_1_is_acknowledged_at_once_where_nobody_has_to_keep_it() -> None:
    bridged = Bridged(in_=[rule("#")])
    Local(bridged, "#", durable=False)
    bridged.connect(present=True)
    bridged.sent()
    bridged.receive(publish("a", packet_id=3))
    assert bridged.sent_acks() == [(const.PUBACK, 3, 0)]


def test_qos_1_is_acknowledged_when_it_is_safe_and_in_order() -> None:
    bridged = Bridged(in_=[rule("#")])
    Local(bridged, "kept", durable=True)
    bridged.connect()
    bridged.sent()
    bridged.receive(publish("live", packet_id=1), publish("kept", packet_id=2), publish("live", packet_id=3))
    assert bridged.sent_acks() == [(const.PUBACK, 1, 0)]
    bridged.commit()
    assert bridged.sent_acks() == [(const.PUBACK, 2, 0), (const.PUBACK, 3, 0)]


def test_a_message_that_no_rule_names_is_counted_and_acknowledged() -> None:
    bridged = Bridged(in_=[rule("#", remote="there/")])
    local = Local(bridged, "#", durable=False)
    bridged.connect()
    bridged.sent()
    bridged.receive(publish("elsewhere", packet_id=1))
    assert bridged.downlink.dropped == {"no_rule": 1}
    assert bridged.sent_acks() == [(const.PUBACK, 1, 0)]
    assert local.messages == []


def test_what_came_down_does_not_go_up_again() -> None:
    bridged = Bridged(out=[rule("#")], in_=[rule("#")])
    bridged.connect()
    bridged.sent()
    bridged.receive(publish("a", qos=0, packet_id=0), publish("a", packet_id=1))
    assert bridged.sent_messages() == []
    assert bridged.queue.depth == 0
    bridged.publish("a", b"ours")
    assert [message.payload for message in bridged.sent_messages()] == [b"ours"]


def test_more_unacknowledged_than_we_allowed_ends_the_connection() -> None:
    bridged = Bridged(in_=[rule("#")])
    bridged.router.settings.receive_maximum = 5
    Local(bridged, "#", durable=True)
    bridged.connect()
    bridged.sent()
    for packet_id in range(1, 6):
        bridged.receive(publish("a", packet_id=packet_id))
    assert not bridged.client.closed
    bridged.receive(publish("a", packet_id=6))
    assert bridged.client.closed


# ---- a new connection


def test_what_was_not_acknowledged_on_one_connection_is_not_on_the_next() -> None:
    bridged = Bridged(in_=[rule("#")])
    Local(bridged, "#", durable=True)
    bridged.connect()
    bridged.sent()
    bridged.receive(publish("a", packet_id=1))
    bridged.disconnect()
    bridged.connect()
    bridged.sent()
    bridged.commit()
    assert bridged.sent_acks() == []
    bridged.receive(publish("a", packet_id=1, dup=True))
    bridged.commit()
    assert bridged.sent_acks() == [(const.PUBACK, 1, 0)]


# ---- QoS 2


def test_qos_2_takes_all_four_steps_each_after_its_commit() -> None:
    bridged = Bridged(in_=[rule("#", 2)])
    local = Local(bridged, "#", durable=True)
    bridged.connect()
    bridged.sent()
    bridged.receive(publish("a", b"x", 2, 9))
    assert bridged.sent_acks() == []
    bridged.commit()
    assert bridged.last_batch.inbound == {(bridged.queue.queue_id, 9): True}
    assert bridged.sent_acks() == [(const.PUBREC, 9, 0)]
    bridged.receive(pubrel(9))
    assert bridged.sent_acks() == []
    bridged.commit()
    assert bridged.last_batch.inbound == {(bridged.queue.queue_id, 9): False}
    assert bridged.sent_acks() == [(const.PUBCOMP, 9, 0)]
    assert len(local.messages) == 1


def test_qos_2_comes_once_however_often_it_is_sent() -> None:
    bridged = Bridged(in_=[rule("#", 2)])
    local = Local(bridged, "#", durable=True)
    bridged.connect()
    bridged.sent()
    bridged.receive(publish("a", b"x", 2, 9), publish("a", b"x", 2, 9, dup=True))
    bridged.disconnect()
    bridged.connect()
    bridged.sent()
    bridged.receive(publish("a", b"x", 2, 9, dup=True))
    assert bridged.sent_acks() == []  # it is not on disk yet, on whatever connection it came
    bridged.commit()
    assert bridged.sent_acks() == [(const.PUBREC, 9, 0)]
    bridged.receive(publish("a", b"x", 2, 9, dup=True))
    bridged.commit()
    assert bridged.sent_acks() == [(const.PUBREC, 9, 0)]
    assert len(local.messages) == 1


def test_identifiers_restored_from_the_store_are_known() -> None:
    bridged = Bridged(in_=[rule("#", 2)])
    bridged.sessions.at(UPSTREAM).inbound.add(9)
    local = Local(bridged, "#", durable=True)
    bridged.connect(present=True)
    bridged.sent()
    bridged.receive(publish("a", b"x", 2, 9, dup=True), publish("a", b"y", 2, 10))
    bridged.commit()
    assert [message.payload for message in local.messages] == [b"y"]
    assert bridged.sent_acks() == [(const.PUBREC, 9, 0), (const.PUBREC, 10, 0)]


def test_an_upstream_without_our_session_uses_identifiers_anew() -> None:
    bridged = Bridged(in_=[rule("#", 2)])
    bridged.sessions.at(UPSTREAM).inbound.add(9)
    local = Local(bridged, "#", durable=True)
    bridged.connect(present=False)
    bridged.commit()
    assert bridged.last_batch.inbound == {(bridged.queue.queue_id, 9): False}
    bridged.receive(publish("a", b"new", 2, 9))
    bridged.commit()
    assert [message.payload for message in local.messages] == [b"new"]


def test_pubrel_of_an_unknown_identifier_is_answered_with_that() -> None:
    bridged = Bridged(in_=[rule("#", 2)])
    bridged.connect()
    bridged.sent()
    bridged.receive(pubrel(4))
    assert bridged.sent_acks() == [(const.PUBCOMP, 4, const.PACKET_IDENTIFIER_NOT_FOUND)]


# ---- what only the broker says


@pytest.mark.parametrize(
    "topic", ["$SYS/broker/uptime", "$dead-letters/x", "$delayed/0/x", "$delayed/0/$SYS/x", "$SYS"]
)
def test_a_prefix_taken_off_uncovers_no_topic_of_the_brokers(topic: str) -> None:
    """`#` does not match it here, and whoever may publish under the prefix upstream may not speak for this broker."""
    bridged = Bridged(in_=[rule("#", 1, remote="site/")])
    local = Local(bridged, "$SYS/#", durable=False)
    bridged.connect()
    bridged.sent()
    bridged.receive(publish(f"site/{topic}", b"forged", retain=True))
    bridged.commit()
    bridged.router.sweep(bridged.router.now + 5)
    assert local.messages == []
    assert bridged.router.retained_messages == 0
    assert len(bridged.router.delayed) == 0
    assert bridged.downlink.dropped == {"no_rule": 1}


@pytest.mark.parametrize("topic", ["$SYS/broker/uptime", "$delayed/0/$SYS/broker/uptime"])
def test_nor_does_a_rule_that_names_it(topic: str) -> None:
    head = topic.partition("/")[0]
    bridged = Bridged(in_=[rule(f"{head}/#", 1)])
    local = Local(bridged, "$SYS/#", durable=False)
    bridged.connect()
    bridged.sent()
    bridged.receive(publish(topic, b"forged"))
    bridged.commit()
    bridged.router.sweep(bridged.router.now + 5)
    assert local.messages == []
    assert bridged.downlink.dropped == {"refused": 1}
    assert bridged.sent_acks() == [(const.PUBACK, 1, 0)]
