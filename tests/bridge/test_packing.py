"""What goes in envelopes, when they leave, what their answers mean: in memory, with the upstream's packets by hand."""

import pytest

from bridge.envelopes import topic_of
from bridge.hops import HopLimit
from bridge.ingest.unpacking import GatewayTopic
from bridge.origin import Origin, OriginWriter
from bridge.policy_config import PacingConfig
from bridge.stamps import Stamp
from edge_broker.core.settings import Settings
from edge_broker.wire import const
from edge_broker.wire.properties import decode_properties
from tests.bridge.memory import rule
from tests.bridge.packed import TOPIC, Packed, contents, enclosed, opened

PROPERTIES = {const.CONTENT_TYPE: "text/plain", const.USER_PROPERTY: [("a", "b")]}


def numbers(bridged: Packed) -> list[list[int]]:
    """Those in each envelope that leaves now; 0 in the place of a plain message."""
    return [
        [one.sequence for one in opened(message).messages] if message.topic == TOPIC else [0]
        for message in bridged.sent_messages()
    ]


# ---- when one leaves


def test_messages_gather_until_the_first_has_waited() -> None:
    bridged = Packed([rule("#", remote="up/")], delay_ms=500)
    bridged.connect_with_lease()
    bridged.publish("t/1", b"x", 0)
    bridged.later(0.4)
    bridged.publish("t/2", b"y", 2, retain=True, properties=PROPERTIES)
    bridged.commit()
    assert bridged.sent() == []
    assert bridged.forwarder.pause_seconds == pytest.approx(0.5)
    bridged.later(0.49)
    assert bridged.sent() == []
    assert bridged.forwarder.pause_seconds == pytest.approx(0.01)
    assert bridged.forwarder.in_flight == 0
    bridged.later(0.01)
    [message] = bridged.sent_messages()
    envelope = opened(message)
    assert (envelope.gateway, envelope.lane, envelope.epoch) == ("gw", "cloud-1", 1)
    first, second = envelope.messages
    assert first == (1, "up/t/1", b"x", 1, False, b"\0")
    assert second[:5] == (2, "up/t/2", b"y", 1, True)
    assert b"text/plain" in second.property_block
    assert bridged.forwarder.pause_seconds == 0
    assert bridged.forwarder.in_flight == 2
    assert bridged.forwarder.sent == [0, 2, 0]


def test_one_leaves_when_it_has_enough_messages() -> None:
    bridged = Packed([rule("#")], max_messages=3)
    bridged.connect_with_lease()
    for _ in range(8):
        bridged.publish("t")
    assert numbers(bridged) == [[1, 2, 3], [4, 5, 6]]
    bridged.later(1.0)
    assert numbers(bridged) == [[7, 8]]


def test_one_leaves_when_it_has_enough_bytes_and_what_is_larger_goes_by_itself() -> None:
    bridged = Packed([rule("#")], max_bytes=1024)
    bridged.connect_with_lease()
    for size in (500, 300, 300, 2000, 10):
        bridged.publish(str(size), b"x" * size)
    assert numbers(bridged) == [[1, 2], [0]]
    bridged.later(1.0)
    assert numbers(bridged) == [[3, 5]]


def test_order_within_a_topic_is_kept_when_one_is_too_large() -> None:
    bridged = Packed([rule("#")], max_bytes=1024)
    bridged.connect_with_lease()
    for size in (10, 2000, 20, 2000):
        bridged.publish("t", b"x" * size)
    assert numbers(bridged) == [[1], [0], [3], [0]]


def test_an_envelope_has_messages_of_one_epoch() -> None:
    bridged = Packed([rule("#")])
    bridged.publish("t")
    bridged.publish("t")
    bridged.commit()
    bridged.pending.epoch = 2
    bridged.publish("t")
    bridged.connect_with_lease()
    bridged.sent()
    bridged.answer_reads()
    first = bridged.sent_messages()
    bridged.later(1.0)
    assert [opened(one).epoch for one in (*first, *bridged.sent_messages())] == [1, 2]


def test_topics_and_properties_are_bounded_as_the_ingester_wants_it() -> None:
    bridged = Packed([rule("#")], max_messages=20_000, window=100)
    bridged.connect_with_lease()
    for number in range(5_000):
        bridged.publish(f"t/{number}")
    first = bridged.sent_messages()
    bridged.later(1.0)
    sizes = [len(one) for one in enclosed([*first, *bridged.sent_messages()])]
    assert sum(sizes) == 5_000
    assert max(sizes) < 4_000


def test_what_the_line_carries_bounds_an_envelope() -> None:
    bridged = Packed([rule("#")])
    bridged.connect_with_lease(properties={const.MAXIMUM_PACKET_SIZE: 3_024})
    for _ in range(8):
        bridged.publish("t", b"x" * 600)
    assert numbers(bridged) == [[1, 2, 3], [4, 5, 6]]


def test_what_a_rule_says_is_urgent_goes_at_once() -> None:
    bridged = Packed([rule("alarm/#", envelope=False), rule("#")])
    bridged.connect_with_lease()
    for topic in ("t", "alarm/1", "t"):
        bridged.publish(topic)
    assert [message.topic for message in bridged.sent_messages()] == ["alarm/1"]
    bridged.later(1.0)
    assert numbers(bridged) == [[1, 3]]


def test_without_a_delay_what_came_together_leaves_together() -> None:
    bridged = Packed([rule("#")], delay_ms=0)
    bridged.connect_with_lease()
    bridged.publish("t")
    bridged.publish("t")
    assert numbers(bridged) == [[1, 2]]


def test_a_stop_sends_what_has_gathered() -> None:
    bridged = Packed([rule("#")])
    bridged.connect_with_lease()
    bridged.publish("t")
    assert bridged.sent() == []
    bridged.forwarder.close_window()
    assert numbers(bridged) == [[1]]
    bridged.publish("t")
    bridged.later(2.0)
    assert bridged.sent() == []


def test_what_expires_bears_what_is_left() -> None:
    bridged = Packed([rule("#")])
    bridged.publish("t", b"long", expiry=100)
    bridged.publish("t", b"short", expiry=3)
    bridged.later(10.0)
    bridged.connect_with_lease()
    bridged.sent()
    bridged.later(1.0)
    [[one]] = enclosed(bridged.sent_messages())
    assert one.property_block == b"\x05\x02\x00\x00\x00\x5a"
    assert bridged.queue.expired == 1


def test_another_gateways_origin_becomes_a_hop_and_the_rest_stays() -> None:
    bridged = Packed([rule("#")], max_messages=1)
    stamp = Stamp(OriginWriter("gw", "cloud-1"), HopLimit("gw/cloud-1", 8), 1)
    bridged.packing.stamp = stamp
    bridged.connect_with_lease()
    origin = str(Origin("far", "up", 3, 9))
    before = [("a", "b"), ("edge-origin", origin), ("edge-hops", "x/y,gw/cloud-1")]
    bridged.publish("t", b"x", properties={const.CONTENT_TYPE: "text/plain", const.USER_PROPERTY: before})
    [[one]] = enclosed(bridged.sent_messages())
    properties, _ = decode_properties(one.property_block, 0, len(one.property_block), const.PUBLISH)
    assert properties == {
        const.CONTENT_TYPE: "text/plain",
        const.USER_PROPERTY: [("a", "b"), ("edge-hops", "far/up,x/y")],
    }


# ---- the lease


def test_a_new_connection_waits_a_moment_for_the_lease_and_no_longer() -> None:
    bridged = Packed([rule("#")])
    bridged.publish("t")
    bridged.connect()
    assert bridged.sent() == []
    assert 0 < bridged.forwarder.pause_seconds <= 1.0
    bridged.later(1.0)
    assert [message.topic for message in bridged.sent_messages()] == ["t"]
    bridged.announce()
    bridged.publish("t")
    bridged.sent()
    bridged.later(1.0)
    assert numbers(bridged) == [[2]]


@pytest.mark.parametrize("how", ["withdrawn", "expired"])
def test_when_the_lease_ends_what_is_left_goes_plain_in_order(how: str) -> None:
    bridged = Packed([rule("#")], delay_ms=60_000, max_messages=4)
    bridged.connect_with_lease()
    bridged.announce(10)
    for number in range(6):
        bridged.publish("t", str(number).encode())
    assert numbers(bridged) == [[1, 2, 3, 4]]
    if how == "withdrawn":
        bridged.withdraw()
    else:
        bridged.later(11.0)
    bridged.publish("t", b"6")
    assert [(message.topic, message.payload) for message in bridged.sent_messages()] == [
        ("t", b"4"),
        ("t", b"5"),
        ("t", b"6"),
    ]
    assert bridged.packing.fallen_apart == 1
    bridged.acknowledge(1, 5, 6, 7)
    assert (bridged.queue.depth, bridged.forwarder.acknowledged) == (0, 7)


def test_what_was_not_acknowledged_goes_again_plain_where_nobody_listens() -> None:
    bridged = Packed([rule("#")], max_messages=3)
    bridged.connect_with_lease()
    for _ in range(3):
        bridged.publish("t")
    bridged.commit()
    assert numbers(bridged) == [[1, 2, 3]]
    bridged.disconnect()
    assert bridged.lease is not None
    bridged.lease.forget()
    bridged.connect()
    bridged.later(1.0)
    bridged.sent()
    bridged.answer_reads()
    again = bridged.sent_messages()
    assert [(message.topic, message.packet_id, message.dup) for message in again] == [
        ("t", 1, True),
        ("t", 2, True),
        ("t", 3, True),
    ]
    assert bridged.forwarder.resent == 3


# ---- acknowledgements


def test_an_acknowledgement_completes_all_that_is_in_it_and_nothing_else() -> None:
    bridged = Packed([rule("#")], max_messages=3)
    bridged.connect_with_lease()
    messages = [bridged.publish("t") for _ in range(7)]
    assert numbers(bridged) == [[1, 2, 3], [4, 5, 6]]
    bridged.acknowledge(2, 3, 5, 7)  # nothing was sent under these
    bridged.acknowledge(2, 7, kind=const.PUBCOMP)
    assert bridged.queue.depth == 7
    bridged.acknowledge(4)
    assert [message.unsafe for message in messages] == [1, 1, 1, 0, 0, 0, 1]
    assert (bridged.queue.depth, bridged.forwarder.acknowledged) == (4, 3)
    bridged.acknowledge(4, 1)
    assert (bridged.queue.depth, bridged.forwarder.acknowledged) == (1, 6)
    assert bridged.forwarder.last_acknowledged_at == bridged.router.now


def test_the_window_counts_packets() -> None:
    bridged = Packed([rule("a", envelope=False), rule("#")], max_messages=10, window=3)
    bridged.connect_with_lease()
    for _ in range(45):
        bridged.publish("t")
    assert [len(one) for one in numbers(bridged)] == [10, 10, 10]
    bridged.acknowledge(1)
    assert numbers(bridged) == [list(range(31, 41))]
    bridged.acknowledge(11, 21)
    assert numbers(bridged) == []
    bridged.publish("t", b"x")
    bridged.sent()
    bridged.later(1.0)
    assert numbers(bridged) == [[41, 42, 43, 44, 45, 46]]


def test_a_window_of_one_packet_is_enough() -> None:
    bridged = Packed([rule("a", envelope=False), rule("#")], max_messages=4)
    bridged.connect_with_lease(properties={const.RECEIVE_MAXIMUM: 1})
    for _ in range(6):
        bridged.publish("t")
    assert numbers(bridged) == [[1, 2, 3, 4]]
    bridged.acknowledge(1)
    bridged.publish("a")
    assert numbers(bridged) == [[0]]
    bridged.later(2.0)
    assert numbers(bridged) == []
    bridged.acknowledge(7)
    assert numbers(bridged) == [[5, 6]]


def test_bytes_on_their_way_are_bounded() -> None:
    bridged = Packed([rule("#")], max_messages=10, window=100, settings=Settings(send_window_bytes=20_000))
    bridged.connect_with_lease()
    for _ in range(100):
        bridged.publish("t", b"x" * 500)
    assert len(bridged.sent_messages()) == 4
    bridged.acknowledge(1)
    assert len(bridged.sent_messages()) == 1


def test_what_gathers_is_not_overdue() -> None:
    bridged = Packed([rule("#")], delay_ms=60_000, timeout=30.0)
    bridged.connect_with_lease()
    bridged.publish("t")
    bridged.sent()
    for _ in range(60):
        assert not bridged.forwarder.is_overdue(bridged.router.now, False)
        bridged.later(1.0)
    assert len(bridged.sent()) == 1
    for _ in range(30):
        assert not bridged.forwarder.is_overdue(bridged.router.now, False)
        bridged.later(1.0)
    assert bridged.forwarder.is_overdue(bridged.router.now, False)


def test_how_long_an_answer_takes_is_told() -> None:
    bridged = Packed([rule("#")], max_messages=2)
    answers: list[float] = []
    bridged.forwarder.on_answer = answers.append
    bridged.connect_with_lease()
    bridged.publish("t")
    bridged.publish("t")
    bridged.sent()
    bridged.later(0.25)
    bridged.acknowledge(1)
    assert answers == [pytest.approx(0.25)]


# ---- refusals


@pytest.mark.parametrize("reason_code", [const.PAYLOAD_FORMAT_INVALID, const.PACKET_TOO_LARGE])
def test_a_refused_envelope_falls_apart_and_one_bad_message_harms_only_itself(reason_code: int) -> None:
    bridged = Packed([rule("#")], max_messages=3, window=2)
    bridged.connect_with_lease()
    for payload in (b"0", b"bad", b"2", b"3", b"4", b"5"):
        bridged.publish("t", payload)
    assert numbers(bridged) == [[1, 2, 3], [4, 5, 6]]
    bridged.acknowledge(1, reason_code=reason_code)
    [first] = bridged.sent_messages()
    assert (first.topic, first.payload) == ("t", b"0")
    bridged.acknowledge(1, 4)
    assert [message.payload for message in bridged.sent_messages()] == [b"bad", b"2"]
    bridged.acknowledge(2, reason_code=const.PAYLOAD_FORMAT_INVALID)
    bridged.acknowledge(3)
    assert bridged.queue.depth == 0
    assert bridged.given_up == [("payload_format_invalid", "t")]
    assert (bridged.forwarder.acknowledged, bridged.packing.fallen_apart, bridged.refusals) == (5, 1, [])
    for _ in range(3):
        bridged.publish("t")
    assert numbers(bridged) == [[7, 8, 9]], "others go in envelopes"


def test_where_envelopes_are_not_allowed_all_goes_plain_on_this_connection() -> None:
    bridged = Packed([rule("#")], max_messages=2)
    bridged.connect_with_lease()
    for _ in range(4):
        bridged.publish("t")
    assert numbers(bridged) == [[1, 2], [3, 4]]
    bridged.acknowledge(1, reason_code=const.NOT_AUTHORIZED)
    bridged.publish("t")
    assert numbers(bridged) == [[0], [0], [0]]
    assert bridged.refusals == ["not authorized"]
    bridged.commit()
    bridged.disconnect()
    bridged.connect_with_lease()
    bridged.sent()
    bridged.answer_reads()
    assert numbers(bridged) == [[1, 2], [3, 4]], "who may do what may have changed since"


def test_an_envelope_refused_for_now_stays_whole() -> None:
    bridged = Packed([rule("#")], max_messages=2)
    bridged.connect_with_lease()
    bridged.publish("t")
    bridged.publish("t")
    bridged.sent()
    bridged.acknowledge(1, reason_code=0x97)
    assert (bridged.retreats, bridged.queue.depth) == ([0x97], 2)


def test_what_the_line_does_not_carry_packed_goes_plain() -> None:
    bridged = Packed([rule("#")], max_messages=2)
    bridged.connect_with_lease()
    bridged.packing.is_small_enough = lambda payload: False  # type: ignore[method-assign]
    bridged.publish("t")
    bridged.publish("t")
    assert numbers(bridged) == [[0], [0]]


# ---- QoS 2


def test_qos_2_travels_in_an_envelope_and_one_acknowledgement_is_enough() -> None:
    bridged = Packed([rule("#", 2)], max_messages=2)
    bridged.connect_with_lease()
    bridged.publish("t", b"", 2)
    bridged.publish("t", b"", 2)
    assert bridged.sent() == []
    bridged.commit()
    [envelope] = enclosed(bridged.sent_messages())
    assert [message.qos for message in envelope] == [2, 2]
    bridged.acknowledge(1, kind=const.PUBREC)
    bridged.acknowledge(2, kind=const.PUBREC)
    assert bridged.sent_acks() == [
        (const.PUBREL, 1, const.PACKET_IDENTIFIER_NOT_FOUND),
        (const.PUBREL, 2, const.PACKET_IDENTIFIER_NOT_FOUND),
    ]
    assert bridged.queue.depth == 2
    bridged.acknowledge(1)
    assert (bridged.queue.depth, bridged.forwarder.sent) == (0, [0, 0, 2])


@pytest.mark.parametrize("present", [True, False])
def test_what_was_sent_plain_at_qos_2_finishes_so_while_the_upstream_knows_it(present: bool) -> None:
    bridged = Packed([rule("#", 2)], max_messages=2)
    bridged.connect()
    bridged.publish("t", b"1", 2)
    bridged.commit()
    bridged.later(1.0)
    assert [message.qos for message in bridged.sent_messages()] == [2]
    bridged.disconnect()
    bridged.publish("t", b"2", 2)
    bridged.publish("t", b"3", 2)
    bridged.commit()
    bridged.connect_with_lease(present=present)
    bridged.sent()
    bridged.answer_reads()
    again = bridged.sent_messages()
    if present:
        assert [(message.qos, message.dup) for message in again] == [(2, True), (1, False)]
        assert [one.sequence for one in opened(again[1]).messages] == [2, 3]
        bridged.acknowledge(1, kind=const.PUBREC)
        bridged.commit()
        assert bridged.sent_acks() == [(const.PUBREL, 1, 0)]
        bridged.acknowledge(1, kind=const.PUBCOMP)
        bridged.acknowledge(2)
    else:
        assert [one.sequence for one in opened(again[0]).messages] == [1, 2]
        bridged.later(1.0)
        bridged.sent()
        bridged.acknowledge(1, 3)
    assert (bridged.queue.depth, bridged.forwarder.acknowledged) == (0, 3)


# ---- what the policy says


def test_what_is_too_old_superseded_or_withheld_is_in_no_envelope() -> None:
    bridged = Packed(
        [
            rule("old", max_age_seconds=5),
            rule("state", keep_latest=True),
            rule("alarm", priority="high"),
            rule("#"),
        ]
    )
    for topic in ("old", "state", "state", "alarm", "t"):
        bridged.publish(topic, topic.encode())
    bridged.later(6.0)
    for forwarder in bridged.forwarders.values():
        forwarder.withholds = "not urgent"
    bridged.connect_with_lease()
    [envelope] = bridged.sent_messages()
    bridged.later(1.0)
    assert bridged.sent_messages() == []
    [alarm] = opened(envelope).messages
    assert alarm.payload == b"alarm"
    assert bridged.outbox.dropped == {"superseded": 1, "too_old": 1, "allowance": 2}
    bridged.acknowledge(envelope.packet_id)
    assert bridged.forwarder.depth == 0


def test_a_message_whose_rule_is_gone_is_in_no_envelope() -> None:
    bridged = Packed([rule("#")], max_messages=2)
    bridged.publish("gone")
    bridged.publish("t")
    bridged.publish("t")
    bridged.forwarder._mapping.known["gone"] = None
    bridged.forwarder._mapping._routes.clear()
    bridged.connect_with_lease()
    assert numbers(bridged) == [[2, 3]]
    assert bridged.forwarder.refused == {"no_rule": 1}


def test_rates_count_messages_as_they_gather_and_bytes_as_they_are_packed() -> None:
    pacing = PacingConfig(messages_per_second=10.0, bytes_per_second=20.0, burst_seconds=1.0)
    bridged = Packed([rule("#")], max_messages=5, pacing=pacing)
    bridged.connect_with_lease()
    for _ in range(20):
        bridged.publish("t", b"x" * 1000)
    [message] = bridged.sent_messages()
    size = len(message.payload)
    assert size > 20, "more than a burst: the rest is owed"
    assert bridged.forwarder.wait_seconds == pytest.approx((size - 20) / 20)
    bridged.later(bridged.forwarder.wait_seconds)
    assert len(bridged.sent_messages()) == 1, "the messages' own 5,000 bytes would take a minute"


def test_a_trace_follows_a_message_into_its_envelope() -> None:
    bridged = Packed([rule("#")], max_messages=2)
    seen: list[tuple[str, int]] = []

    class Tracer:
        def on_sent(self, message: object, number: int, topic: str, now: float) -> None:
            seen.append(("sent", number))

        def on_done(self, number: int, now: float, error: str = "") -> None:
            seen.append(("done", number))

    bridged.forwarder.tracer = Tracer()  # type: ignore[assignment]
    bridged.connect_with_lease()
    bridged.publish("t")
    assert seen == []
    bridged.publish("t")
    bridged.sent()
    bridged.acknowledge(1)
    assert seen == [("sent", 1), ("sent", 2), ("done", 1), ("done", 2)]


# ---- MQTT 3.1.1


@pytest.mark.parametrize("has_lease", [True, False])
def test_towards_an_old_upstream_each_message_goes_in_an_envelope_where_its_rule_says_so(
    has_lease: bool,
) -> None:
    bridged = Packed([rule("s/#", 2, remote="up/", ingested=True), rule("#")], has_lease=has_lease)
    bridged.connect(const.MQTT_3_1_1)
    bridged.later(1.0)
    bridged.publish("s/1", b"x", 2, properties=PROPERTIES)
    bridged.publish("other", b"y")
    bridged.commit()
    first, plain = bridged.sent_messages()
    [one] = opened(first).messages
    assert (one.topic, one.payload, one.qos) == ("up/s/1", b"x", 2)
    assert b"text/plain" in one.property_block
    assert (first.qos, first.packet_id, first.version) == (1, 1, const.MQTT_3_1_1)
    assert plain.topic == "other"
    bridged.acknowledge(1, 2)
    assert bridged.queue.depth == 0


@pytest.mark.parametrize("count", [1, 3])
def test_when_the_lease_ends_what_gathered_goes_so_too(count: int) -> None:
    bridged = Packed([rule("#", ingested=True)])
    bridged.connect_with_lease(const.MQTT_3_1_1)
    for _ in range(count):
        bridged.publish("t")
    assert bridged.sent() == []
    bridged.withdraw()
    assert numbers(bridged) == [[number] for number in range(1, count + 1)]


def test_after_a_restart_they_go_so_again_even_at_qos_2() -> None:
    bridged = Packed([rule("#", 2, ingested=True)], has_lease=False)
    bridged.publish("t", b"x", 2)
    bridged.commit()
    bridged.packing.plain_below = bridged.queue.next_number
    bridged.connect(const.MQTT_3_1_1)
    bridged.sent()
    bridged.answer_reads()
    assert [message.topic for message in bridged.sent_messages()] == [TOPIC]


def test_towards_a_new_upstream_a_message_needs_no_envelope_for_its_origin() -> None:
    bridged = Packed([rule("#", ingested=True)], has_lease=False)
    bridged.connect()
    bridged.publish("t", b"x")
    [message] = bridged.sent_messages()
    assert message.topic == "t"
    assert contents(message) == [((1, 1), b"x")]


def test_one_that_is_too_large_for_any_envelope_goes_plain() -> None:
    bridged = Packed([rule("#", ingested=True)], has_lease=False)
    bridged.connect(const.MQTT_3_1_1)
    bridged.publish("t", b"x" * ((1 << 20) - 2000))
    assert [message.topic for message in bridged.sent_messages()] == ["t"]


@pytest.mark.parametrize("name", ["gw-7", "gw.7", "Halle 3/Süd", "+", "a#b", "100%", "."])
def test_a_gateways_name_is_one_level_without_what_upstreams_do_not_take(name: str) -> None:
    topic = topic_of("edge", name)
    assert GatewayTopic("edge/+/envelopes").gateway_of(topic) == name
    level = topic.split("/")[1]
    assert not set(level) & set(". +#*>")
    assert topic.isascii()


# ---- large messages


def test_no_limit_in_bytes_holds_up_what_is_in_memory_already() -> None:
    """Less is allowed in flight than one envelope has, and what falls apart is more than that too."""
    bridged = Packed([rule("#")], window=3, settings=Settings(send_window_bytes=20_000))
    bridged.connect_with_lease()
    for number in range(6):
        bridged.publish(f"t/{number}", b"x" * 6_000)
    assert numbers(bridged) == []
    bridged.later(1.0)
    assert numbers(bridged) == [[1, 2, 3, 4, 5, 6]]
    bridged.publish("t", b"x" * 6_000)
    assert bridged.queue.in_flight == 6, "that one waits until there is room"
    bridged.acknowledge(1, reason_code=const.PAYLOAD_FORMAT_INVALID)
    assert numbers(bridged) == [[0], [0], [0]]
    bridged.acknowledge(1, 2, 3)
    assert numbers(bridged) == [[0], [0], [0]]
    bridged.acknowledge(4, 5, 6)
    assert numbers(bridged) == []
    bridged.later(1.0)
    assert numbers(bridged) == [[7]]
    bridged.acknowledge(7)
    assert (bridged.queue.depth, bridged.queue.large_in_flight_bytes) == (0, 0)
