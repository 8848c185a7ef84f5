"""Origin and hops: what a message bears when it has crossed a bridge, and where its way ends."""

from __future__ import annotations

import pytest

from bridge.hops import NAME as HOPS
from bridge.hops import HopLimit, bridge_name
from bridge.origin import NAME as ORIGIN
from bridge.origin import Origin, OriginWriter, find_origin
from bridge.rules import RuleConfig
from bridge.stamps import Stamp
from edge_broker.core.message import Message
from edge_broker.wire import const
from edge_broker.wire.encoder import encode_publish
from edge_broker.wire.properties import encode_properties
from tests.bridge.memory import Bridged, Local

ME = bridge_name("pi 1", "cloud-1a")
OTHER = bridge_name("other", "up")
EPOCH = 1


def bridged_with(
    origin: bool = True, max_hops: int = 3, qos: int = 1, version: int = const.MQTT_5
) -> Bridged:
    bridged = Bridged(out=[RuleConfig(filter="#", qos=qos)], in_=[RuleConfig(filter="#")])
    limit = HopLimit(ME, max_hops) if max_hops else None
    stamp = Stamp(OriginWriter("pi 1", "cloud-1a") if origin else None, limit, EPOCH)
    bridged.forwarder.stamp = bridged.downlink.stamp = stamp
    bridged.outbox.limit = bridged.downlink.limit = limit
    if max_hops == 0:
        bridged.downlink.stamp = None
    bridged.connect(version, present=False)
    return bridged


def users(message: Message) -> list[tuple[str, str]]:
    properties: list[tuple[str, str]] = message.properties.get(const.USER_PROPERTY, [])
    return properties


def origin(number: int, epoch: int = EPOCH) -> tuple[str, str]:
    return ORIGIN, str(Origin("pi 1", "cloud-1a", epoch, number))


# ---- up


@pytest.mark.parametrize("version", [const.MQTT_5, const.MQTT_3_1_1])
@pytest.mark.parametrize("sender_qos", [0, 1, 2])
@pytest.mark.parametrize("qos", [1, 2])
def test_what_goes_up_bears_its_number_and_the_run(version: int, sender_qos: int, qos: int) -> None:
    bridged = bridged_with(qos=qos)
    for payload in (b"a", b"b" * 200):
        bridged.publish("t", payload, qos=sender_qos, version=version)
    bridged.commit()
    sent = bridged.sent_messages()
    assert [message.payload for message in sent] == [b"a", b"b" * 200]
    assert [users(message) for message in sent] == [[origin(1)], [origin(2)]]


def test_properties_and_expiry_go_along() -> None:
    bridged = bridged_with()
    properties = {const.CONTENT_TYPE: "text/plain", const.USER_PROPERTY: [("unit", "C"), ("unit", "K")]}
    bridged.publish("t", b"x", properties=properties, expiry=60)
    bridged.publish("t", b"x", properties=properties)
    bridged.publish("t", b"x", expiry=60)
    bridged.publish("t", b"x" * 70_000, properties={const.CONTENT_TYPE: "x" * 200})
    bridged.router.now += 20
    first, second, third, last = bridged.sent_messages()
    wanted = properties | {const.USER_PROPERTY: [("unit", "C"), ("unit", "K"), origin(1)]}
    assert (first.properties, first.expiry_interval) == (wanted, 40)
    assert (users(second)[2], second.expiry_interval) == (origin(2), None)
    assert (users(third), third.expiry_interval) == ([origin(3)], 40)
    assert (users(last), last.payload, last.properties[const.CONTENT_TYPE]) == (
        [origin(4)],
        b"x" * 70_000,
        "x" * 200,
    )


def test_a_message_sent_again_bears_the_same_origin() -> None:
    bridged = bridged_with()
    bridged.publish("t", b"x")
    (first,) = bridged.sent_messages()
    bridged.commit()
    bridged.disconnect()
    for stored in bridged.stored.values():
        stored.epoch = stored.origin.epoch = 7  # as the store has it of an earlier run
    bridged.connect()
    bridged.sent()
    bridged.answer_reads()
    (again,) = bridged.sent_messages()
    assert again.dup
    assert (users(first), users(again)) == ([origin(1)], [origin(1, epoch=7)])


def test_what_is_in_memory_only_has_a_number_of_this_run() -> None:
    bridged = bridged_with()
    message = bridged.publish("t", b"x", qos=0)
    message.volatile = True
    bridged.outbox.deliver(message)
    assert [users(sent) for sent in bridged.sent_messages()] == [[origin(1)], [origin(2)]]


def test_an_origin_that_a_message_came_with_is_replaced_and_its_bridge_stays() -> None:
    bridged = bridged_with()
    forged = [(ORIGIN, str(Origin("other", "up", 5, 6))), ("unit", "C")]
    bridged.publish("t", b"x", properties={const.USER_PROPERTY: forged, const.CONTENT_TYPE: "a"})
    (sent,) = bridged.sent_messages()
    assert users(sent) == [("unit", "C"), (HOPS, OTHER), origin(1)]
    assert find_origin(users(sent)) == Origin("pi 1", "cloud-1a", EPOCH, 1)
    assert sent.properties[const.CONTENT_TYPE] == "a"


@pytest.mark.parametrize("max_hops", [3, 0])
def test_nobody_forges_an_origin_where_there_is_no_number_either(max_hops: int) -> None:
    bridged = bridged_with(qos=0, max_hops=max_hops)
    forged = [(ORIGIN, str(Origin("other", "up", 5, 6))), ("unit", "C")]
    bridged.publish("t", b"x", properties={const.USER_PROPERTY: forged})
    (sent,) = bridged.sent_messages()
    assert users(sent) == [("unit", "C"), *([(HOPS, f"{OTHER},{ME}")] if max_hops else [])]


def test_something_that_only_looks_like_a_mark_stays() -> None:
    bridged = bridged_with()
    mine = [("edge-of", "town"), (ORIGIN, "no origin")]
    bridged.publish("t", b"x", properties={const.USER_PROPERTY: mine})
    (sent,) = bridged.sent_messages()
    assert users(sent) == [("edge-of", "town"), origin(1)]


def test_without_origins_the_hops_say_it() -> None:
    bridged = bridged_with(origin=False)
    bridged.publish("t", b"x")
    bridged.publish("t", b"x", properties={const.USER_PROPERTY: [(HOPS, OTHER)]})
    passing = (ORIGIN, str(Origin("other", "up", 5, 6)))
    bridged.publish("t", b"x", properties={const.USER_PROPERTY: [passing]})
    assert [users(sent) for sent in bridged.sent_messages()] == [
        [(HOPS, ME)],
        [(HOPS, f"{OTHER},{ME}")],
        [passing, (HOPS, f"{OTHER},{ME}")],
    ]


def test_what_is_only_live_has_no_number() -> None:
    bridged = bridged_with(qos=0)
    bridged.publish("t", b"x")
    (sent,) = bridged.sent_messages()
    assert users(sent) == [(HOPS, ME)]
    silent = bridged_with(qos=0, max_hops=0)
    silent.publish("t", b"x")
    (sent,) = silent.sent_messages()
    assert users(sent) == []


def test_mqtt_3_has_no_place_for_either() -> None:
    bridged = bridged_with(version=const.MQTT_3_1_1)
    bridged.publish("t", b"x", properties={const.CONTENT_TYPE: "a"})
    (sent,) = bridged.sent_messages()
    assert (sent.payload, sent.version) == (b"x", const.MQTT_3_1_1)


# ---- where the way ends


@pytest.mark.parametrize(
    "before",
    [
        [(HOPS, ME)],
        [(HOPS, f"{OTHER},{ME}")],
        [(ORIGIN, str(Origin("pi 1", "cloud-1a", 1, 1)))],
        [(HOPS, "a/b,c/d,e/f")],
        [(HOPS, "a/b,c/d"), (ORIGIN, str(Origin("other", "up", 1, 1)))],
        [(HOPS, "a/b"), (HOPS, "c/d"), (HOPS, "e/f")],
    ],
)
def test_what_was_here_or_came_too_far_goes_no_further(before: list[tuple[str, str]]) -> None:
    properties = {const.USER_PROPERTY: before}
    bridged = bridged_with()
    here = Local(bridged, "t", durable=False)
    message = bridged.publish("t", b"x", properties=properties)
    assert bridged.sent_messages() == []
    assert bridged.outbox.dropped == {"loop": 1}
    assert (message.unsafe, bridged.queue.depth, len(here.messages)) == (0, 0, 1)
    bridged.receive(
        encode_publish(const.MQTT_5, "t", b"y", 1, False, False, 7, encode_properties(properties))
    )
    assert bridged.downlink.dropped == {"loop": 1}
    assert len(here.messages) == 1
    assert bridged.sent_acks() == [(const.PUBACK, 7, 0)]


@pytest.mark.parametrize(
    "before",
    [
        [],
        [(HOPS, "a/b,c/d")],
        [(HOPS, "a/b"), (ORIGIN, str(Origin("other", "up", 1, 1)))],
        [(HOPS, ",,,,,,,")],
        [(HOPS, "a/b,a/b,a/b,a/b")],
        [(ORIGIN, "no origin"), ("x", ME)],
    ],
)
def test_anything_else_goes_on(before: list[tuple[str, str]]) -> None:
    bridged = bridged_with()
    bridged.publish("t", b"x", properties={const.USER_PROPERTY: before} if before else {})
    assert len(bridged.sent_messages()) == 1


def test_without_a_limit_nobody_looks() -> None:
    bridged = bridged_with(max_hops=0)
    bridged.publish("t", b"x", properties={const.USER_PROPERTY: [(HOPS, f"{ME},{ME}")]})
    (sent,) = bridged.sent_messages()
    assert users(sent) == [(HOPS, f"{ME},{ME}"), origin(1)]


# ---- down


def test_what_comes_down_bears_the_bridge() -> None:
    bridged = bridged_with()
    here = Local(bridged, "t", durable=False)
    came = [[], [("unit", "C")], [(HOPS, OTHER)], [(ORIGIN, str(Origin("other", "up", 5, 6)))]]
    for packet_id, before in enumerate(came, 1):
        properties = {const.USER_PROPERTY: before} if before else {}
        block = encode_properties(properties)
        bridged.receive(encode_publish(const.MQTT_5, "t", b"x", 1, False, False, packet_id, block))
    assert [users(message) for message in here.messages] == [
        [(HOPS, ME)],
        [("unit", "C"), (HOPS, ME)],
        [(HOPS, f"{OTHER},{ME}")],
        [came[3][0], (HOPS, f"{OTHER},{ME}")],
    ]
    assert [kind for kind, _, _ in bridged.sent_acks()] == [const.PUBACK] * 4


def test_from_mqtt_3_it_comes_as_it_is() -> None:
    bridged = bridged_with(version=const.MQTT_3_1_1)
    here = Local(bridged, "t", durable=False)
    bridged.receive(encode_publish(const.MQTT_3_1_1, "t", b"x", 1, False, False, 1))
    assert (here.messages[0].payload, here.messages[0].version) == (b"x", const.MQTT_3_1_1)
