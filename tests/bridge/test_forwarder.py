"""The uplink in memory: outbox, forwarder and client, with the upstream's packets and the store's commits by hand."""

import pytest

from bridge.answers import REFUSED_FOR_GOOD
from edge_broker.core.message import Message, build_message
from edge_broker.wire import const
from edge_broker.wire.packets import Ack
from tests.bridge.memory import Bridged, rule


def payloads(messages: list[Message]) -> list[bytes]:
    return [message.payload for message in messages]


# ---- the QoS of a rule


@pytest.mark.parametrize("published", [0, 1, 2])
@pytest.mark.parametrize("wanted", [1, 2])
def test_a_message_goes_up_at_the_qos_of_its_rule(published: int, wanted: int) -> None:
    bridged = Bridged([rule("s/#", wanted, remote="up/")])
    bridged.connect()
    bridged.publish("s/1", b"x", published)
    bridged.commit()
    [message] = bridged.sent_messages()
    assert (message.topic, message.qos, message.payload, message.packet_id) == ("up/s/1", wanted, b"x", 1)


def test_a_message_of_qos_0_is_kept_while_the_upstream_is_away() -> None:
    bridged = Bridged([rule("#", 1)])
    bridged.publish("t", b"x", 0)
    assert bridged.queue.depth == 1
    bridged.commit()
    assert bridged.stored[1].qos == 1


def test_at_a_rules_qos_0_a_message_goes_at_once_or_not_at_all() -> None:
    bridged = Bridged([rule("#", 0)])
    bridged.publish("t", b"early", 1)
    assert (bridged.outbox.dropped, bridged.queue.depth) == ({"offline": 1}, 0)
    bridged.connect()
    bridged.publish("t", b"now", 1)
    [message] = bridged.sent_messages()
    assert (message.qos, message.payload) == (0, b"now")
    bridged.client.writable = False
    bridged.publish("t", b"late", 0)
    assert bridged.outbox.dropped == {"offline": 1, "slow_upstream": 1}
    assert bridged.forwarder.sent == [1, 0, 0]


def test_a_message_received_at_qos_2_does_not_go_up_before_its_identifier_is_kept() -> None:
    for qos in (0, 1):
        bridged = Bridged([rule("#", qos)])
        bridged.connect()
        message = build_message("t", b"", qos=2)
        bridged.pending.hold(message)  # as a durable publisher's connection does
        bridged.router.publish(message, None)
        assert bridged.sent() == []
        bridged.commit()
        [sent] = bridged.sent_messages()
        assert (sent.topic, sent.qos) == ("t", qos)


def test_a_message_that_goes_up_at_qos_2_does_not_before_its_identifier_is_kept() -> None:
    bridged = Bridged([rule("#", 2)])
    bridged.connect()
    bridged.publish("t", b"x", 1)
    assert bridged.sent() == []
    bridged.commit()
    [sent] = bridged.sent_messages()
    assert sent.qos == 2


def test_an_upstream_with_qos_1_at_most_gets_qos_1() -> None:
    bridged = Bridged([rule("#", 2)])
    bridged.connect(properties={const.MAXIMUM_QOS: 1})
    bridged.publish("t", b"x", 2)
    bridged.commit()
    assert [message.qos for message in bridged.sent_messages()] == [1]
    bridged.acknowledge(1)
    assert bridged.queue.depth == 0


def test_publishers_of_qos_0_cannot_fill_the_memory_when_the_disk_hangs() -> None:
    bridged = Bridged([rule("#", 1)])
    bridged.router.max_uncommitted_bytes = 1000
    for _ in range(50):
        bridged.publish("t", b"x" * 100, 0)
    assert bridged.outbox.dropped["store_behind"] == 50 - bridged.queue.depth
    assert 8 <= bridged.queue.depth <= 12


# ---- acknowledgements


def test_only_what_the_upstream_acknowledged_leaves_the_outbox() -> None:
    bridged = Bridged([rule("#")])
    bridged.connect()
    messages = [bridged.publish("t", str(number).encode()) for number in range(3)]
    bridged.sent()
    bridged.acknowledge(2)
    assert (bridged.queue.depth, bridged.forwarder.acknowledged) == (2, 1)
    assert [message.unsafe for message in messages] == [1, 0, 1]  # it was never written, and is safe already
    bridged.commit()
    assert sorted(bridged.stored) == [1, 3]
    bridged.acknowledge(1, 3)
    assert (bridged.queue.depth, bridged.forwarder.acknowledged) == (0, 3)
    assert bridged.forwarder.last_acknowledged_at == 1000.0


def test_an_acknowledgement_of_nothing_changes_nothing() -> None:
    bridged = Bridged([rule("#")])
    bridged.connect()
    bridged.publish("t")
    bridged.sent()
    bridged.acknowledge(7)
    bridged.acknowledge(7, kind=const.PUBCOMP)
    assert (bridged.queue.depth, bridged.forwarder.acknowledged) == (1, 0)


@pytest.mark.parametrize("receive_maximum", [3, 65_535])
def test_no_more_than_the_window_is_under_way(receive_maximum: int) -> None:
    bridged = Bridged([rule("#")], window=10)
    bridged.connect(properties={const.RECEIVE_MAXIMUM: receive_maximum})
    for number in range(25):
        bridged.publish("t", str(number).encode())
    window = min(10, receive_maximum)
    assert len(bridged.sent_messages()) == window
    bridged.acknowledge(1, 2)
    assert payloads(bridged.sent_messages()) == [str(window).encode(), str(window + 1).encode()]


def test_a_turn_has_a_budget() -> None:
    bridged = Bridged([rule("#")], window=2000)
    bridged.connect()
    for _ in range(1100):
        bridged.publish("t")
    assert bridged.forwarder.send_due()
    assert bridged.queue.in_flight == 500
    for _ in range(5):
        bridged.publish("t", b"x" * 200_000)
    assert bridged.forwarder.send_due()
    assert bridged.forwarder.send_due()
    assert bridged.queue.in_flight == 1102  # two large messages fill the third turn
    assert bridged.forwarder.send_due()
    assert not bridged.forwarder.send_due()


def test_large_messages_unacknowledged_are_bounded_in_bytes() -> None:
    bridged = Bridged([rule("#")], window=1000)
    bridged.connect()
    for _ in range(50):
        bridged.publish("t", b"x" * 500_000)
    assert len(bridged.sent_messages()) == 9  # 4 MiB and what makes it full


def test_a_full_socket_stops_the_sending() -> None:
    bridged = Bridged([rule("#")])
    bridged.connect()
    bridged.client.writable = False
    bridged.publish("t")
    assert bridged.sent() == []
    assert not bridged.forwarder.has_room
    bridged.client.writable = True
    assert len(bridged.sent_messages()) == 1


# ---- a new connection


def test_after_a_reconnect_all_that_is_unacknowledged_goes_again_in_order_under_its_identifier() -> None:
    bridged = Bridged([rule("#")])
    bridged.connect()
    for number in range(6):
        bridged.publish("t", str(number).encode())
    assert [message.dup for message in bridged.sent_messages()] == [False] * 6
    bridged.acknowledge(2, 5)
    bridged.commit()
    bridged.disconnect()
    bridged.publish("t", b"6")
    bridged.commit()
    bridged.connect()
    assert bridged.sent() == []
    bridged.answer_reads()
    again = bridged.sent_messages()
    assert payloads(again) == [b"0", b"2", b"3", b"5", b"6"]
    assert [message.packet_id for message in again] == [1, 3, 4, 6, 7]
    assert [message.dup for message in again] == [True, True, True, True, False]
    assert bridged.forwarder.resent == 4


def test_acknowledgements_of_the_old_connection_do_not_count_on_the_new_one() -> None:
    bridged = Bridged([rule("#")])
    bridged.connect()
    bridged.publish("t")
    bridged.sent()
    old = bridged.client
    bridged.disconnect()
    old.receive(b"\x40\x02\x00\x01", bridged.router.now)
    assert bridged.queue.depth == 1


def test_identifiers_go_round_and_never_collide() -> None:
    bridged = Bridged([rule("#")], window=500)
    bridged.connect()
    seen = 0
    while seen < 66_000:
        for _ in range(500):
            bridged.publish("t")
        messages = bridged.sent_messages()
        assert len({message.packet_id for message in messages}) == 500
        bridged.acknowledge(*(message.packet_id for message in messages))
        seen += 500
        bridged.commit()
    assert bridged.queue.depth == 0
    assert bridged.forwarder.acknowledged == 66_000


def test_what_expired_meanwhile_does_not_go_up() -> None:
    bridged = Bridged([rule("#")])
    bridged.publish("t", b"short", expiry=10)
    bridged.publish("t", b"long", expiry=100)
    bridged.router.now += 11
    bridged.connect()
    [message] = bridged.sent_messages()
    assert (message.payload, message.expiry_interval) == (b"long", 89)
    assert bridged.queue.expired == 1


# ---- QoS 2


def test_pubrel_leaves_when_it_is_on_disk_that_pubrec_came() -> None:
    bridged = Bridged([rule("#", 2)])
    bridged.connect()
    bridged.publish("t", b"x", 2)
    bridged.commit()
    bridged.sent()
    bridged.acknowledge(1, kind=const.PUBREC)
    assert bridged.sent() == []
    assert bridged.queue.depth == 1
    bridged.commit()
    assert bridged.sent_acks() == [(const.PUBREL, 1, 0)]
    bridged.acknowledge(1, kind=const.PUBCOMP)
    assert (bridged.queue.depth, bridged.forwarder.acknowledged) == (0, 1)


def test_after_a_reconnect_a_released_message_is_not_sent_again_but_its_pubrel() -> None:
    bridged = Bridged([rule("#", 2)])
    bridged.connect()
    bridged.publish("t", b"x", 2)
    bridged.commit()
    bridged.sent()
    bridged.acknowledge(1, kind=const.PUBREC)
    bridged.disconnect()
    bridged.connect()
    assert bridged.sent() == []  # it is not on disk yet that PUBREC came
    bridged.commit()
    assert bridged.sent_acks() == [(const.PUBREL, 1, 0)]
    bridged.acknowledge(1, kind=const.PUBCOMP, reason_code=const.PACKET_IDENTIFIER_NOT_FOUND)
    assert bridged.queue.depth == 0


def test_a_commit_that_an_old_connection_waited_for_opens_nothing_on_the_new_one() -> None:
    bridged = Bridged([rule("#", 2)])
    bridged.connect()
    bridged.publish("t", b"x", 2)
    bridged.commit()
    bridged.sent()
    bridged.acknowledge(1, kind=const.PUBREC)
    bridged.disconnect()
    bridged.connect()
    bridged.disconnect()
    bridged.commit()
    assert not bridged.forwarder.online
    assert not bridged.forwarder.has_room
    assert bridged.forwarder._window == 0


def test_an_upstream_without_our_session_has_nothing_to_release() -> None:
    bridged = Bridged([rule("#", 2)])
    bridged.connect()
    bridged.publish("t", b"x", 2)
    bridged.commit()
    bridged.sent()
    bridged.acknowledge(1, kind=const.PUBREC)
    bridged.commit()
    bridged.disconnect()
    bridged.connect(present=False)
    assert bridged.sent() == []
    assert (bridged.queue.depth, bridged.forwarder.acknowledged) == (0, 1)


def test_pubrec_for_an_unknown_identifier_is_answered() -> None:
    bridged = Bridged([rule("#", 2)])
    bridged.connect()
    bridged.acknowledge(9, kind=const.PUBREC)
    assert bridged.sent_acks() == [(const.PUBREL, 9, const.PACKET_IDENTIFIER_NOT_FOUND)]


# ---- refusals


@pytest.mark.parametrize("reason_code", sorted(REFUSED_FOR_GOOD))
@pytest.mark.parametrize("qos", [1, 2])
def test_what_the_upstream_will_never_take_is_counted_and_let_go(reason_code: int, qos: int) -> None:
    bridged = Bridged([rule("#", qos)])
    bridged.connect()
    bridged.publish("t/1", b"bad")
    bridged.publish("t/2", b"good")
    bridged.commit()
    bridged.sent()
    bridged.acknowledge(1, reason_code=reason_code, kind=const.PUBACK if qos == 1 else const.PUBREC)
    name = const.REASON_NAMES[reason_code].replace(" ", "_")
    assert bridged.forwarder.refused == {name: 1}
    assert bridged.given_up == [(name, "t/1")]
    assert (bridged.queue.depth, bridged.forwarder.acknowledged, bridged.retreats) == (1, 0, [])


@pytest.mark.parametrize("reason_code", [0x80, 0x83, 0x89, 0x97])
@pytest.mark.parametrize("kind", [const.PUBACK, const.PUBREC])
def test_what_it_cannot_take_now_stays(reason_code: int, kind: int) -> None:
    bridged = Bridged([rule("#")])
    bridged.connect()
    bridged.publish("t")
    bridged.sent()
    bridged.acknowledge(1, reason_code=reason_code, kind=kind)
    assert bridged.retreats == [reason_code]
    assert (bridged.queue.depth, bridged.forwarder.refused) == (1, {})


def test_a_success_with_a_code_is_a_success() -> None:
    bridged = Bridged([rule("#")])
    bridged.connect()
    bridged.publish("t")
    bridged.sent()
    bridged.acknowledge(1, reason_code=const.NO_MATCHING_SUBSCRIBERS)
    assert bridged.queue.depth == 0


def test_a_message_larger_than_the_upstream_takes_is_given_up_and_the_next_goes() -> None:
    bridged = Bridged([rule("#")])
    bridged.connect(properties={const.MAXIMUM_PACKET_SIZE: 100})
    bridged.publish("t", b"x" * 200)
    bridged.publish("t", b"y")
    assert payloads(bridged.sent_messages()) == [b"y"]
    assert bridged.forwarder.refused == {"packet_too_large": 1}


def test_a_message_whose_rule_is_gone_is_given_up() -> None:
    bridged = Bridged([rule("#")])
    bridged.publish("t")
    bridged.commit()
    other = Bridged([rule("other/#")])
    other.stored_of = bridged.stored_of
    other.forwarder.queue = other.queue = bridged.queue
    bridged.queue.owner = other.forwarder
    other.pending = other.router.pending = bridged.pending
    other.connect()
    other.sent()
    other.answer_reads()
    other.sent()
    assert other.forwarder.refused == {"no_rule": 1}
    assert other.queue.depth == 0


# ---- forms


def test_properties_and_retain_go_along_in_version_5_and_stay_behind_in_3() -> None:
    properties = {const.CONTENT_TYPE: "text/plain", const.USER_PROPERTY: [("a", "b")]}
    for version in (const.MQTT_5, const.MQTT_3_1_1):
        bridged = Bridged([rule("#", remote="up/")])
        bridged.connect(version)
        bridged.publish("t", b"x", retain=True, expiry=50, properties=properties)
        [message] = bridged.sent_messages()
        assert (message.payload, message.retain, message.version) == (b"x", True, version)
        assert message.properties == (properties if version == const.MQTT_5 else {})
        assert message.expiry_interval == (50 if version == const.MQTT_5 else None)


def test_a_message_from_a_client_of_version_3_gets_an_empty_property_block() -> None:
    bridged = Bridged([rule("#")])
    bridged.connect()
    bridged.publish("t", b"x", version=const.MQTT_3_1_1)
    [message] = bridged.sent_messages()
    assert (message.payload, message.properties) == (b"x", {})


def test_an_upstream_without_retained_messages_gets_none() -> None:
    bridged = Bridged([rule("#")])
    bridged.connect(properties={const.RETAIN_AVAILABLE: 0})
    bridged.publish("t", b"x", retain=True)
    assert [message.retain for message in bridged.sent_messages()] == [False]


def test_a_new_outbox_takes_what_is_retained_once_per_topic() -> None:
    bridged = Bridged([rule("a/#"), rule("+/1", 0), rule("a/b/#")])
    for topic in ("a/1", "a/b/c", "other/x", "live/1"):
        bridged.publish(topic, b"x", retain=True)
    before = bridged.queue.depth
    bridged.outbox.dropped.clear()
    bridged.outbox.take_retained([])
    bridged.connect()
    new = bridged.sent_messages()[before:]
    assert sorted((message.topic, message.retain) for message in new) == [("a/1", True), ("a/b/c", True)]
    assert bridged.outbox.dropped == {}


def test_a_new_outbox_takes_what_is_retained_on_disk_only() -> None:
    bridged = Bridged([rule("a/#")])
    bridged.router.settings.retained_memory_bytes = 1_200
    stored = [bridged.publish(topic, b"x" * 100, retain=True) for topic in ("a/1", "a/2", "b/1", "a/3")]
    bridged.commit()
    assert bridged.router.retained.on_disk_only == 3
    bridged.outbox.take_retained(stored)
    new = bridged.queue.unwritten.values()
    assert sorted((message.topic, message.payload) for message in new) == [
        (topic, b"x" * 100) for topic in ("a/1", "a/2", "a/3")
    ]


# ---- time


def test_an_acknowledgement_that_does_not_come_is_noticed() -> None:
    bridged = Bridged([rule("#")], timeout=30.0)
    bridged.connect()
    start = bridged.router.now
    bridged.publish("t")
    bridged.publish("t")
    bridged.sent()
    assert not bridged.forwarder.is_overdue(start + 1, False)
    assert not bridged.forwarder.is_overdue(start + 31, False)
    bridged.acknowledge(2)  # the oldest still waits
    assert bridged.forwarder.is_overdue(start + 32, False)


def test_progress_and_output_on_its_way_are_patience() -> None:
    bridged = Bridged([rule("#")], timeout=30.0)
    bridged.connect()
    start = bridged.router.now
    bridged.publish("t")
    bridged.publish("t")
    bridged.sent()
    assert not bridged.forwarder.is_overdue(start, False)
    assert not bridged.forwarder.is_overdue(start + 25, True)
    assert not bridged.forwarder.is_overdue(start + 50, False)
    bridged.acknowledge(1)
    assert not bridged.forwarder.is_overdue(start + 60, False)
    assert not bridged.forwarder.is_overdue(start + 89, False)
    assert bridged.forwarder.is_overdue(start + 91, False)


def test_a_slow_disk_is_not_the_upstreams_fault() -> None:
    bridged = Bridged([rule("#", 2)], timeout=30.0)
    bridged.connect()
    bridged.publish("t", b"", 2)
    bridged.commit()
    bridged.sent()
    start = bridged.router.now
    bridged.forwarder.is_overdue(start, False)
    bridged.acknowledge(1, kind=const.PUBREC)
    assert not bridged.forwarder.is_overdue(start + 100, False)
    bridged.commit()
    assert [packet.packet_type for packet in bridged.sent() if isinstance(packet, Ack)] == [const.PUBREL]
    assert not bridged.forwarder.is_overdue(start + 129, False)
    assert bridged.forwarder.is_overdue(start + 131, False)
