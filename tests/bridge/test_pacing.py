"""Rates: the buckets themselves, and messages through a forwarder that has them."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from bridge.pacing import Bucket, Pace, drain_pace, live_pace
from bridge.policy_config import PacingConfig
from tests.bridge.memory import Bridged, rule

# ---- buckets


def test_a_bucket_begins_full_and_fills_at_its_rate() -> None:
    bucket = Bucket(2.0, 4.0)
    assert bucket.wait_seconds(4, 0.0) == 0.0
    bucket.take(4, 0.0)
    assert bucket.wait_seconds(1, 0.0) == 0.5
    assert bucket.wait_seconds(1, 0.5) == 0.0
    assert bucket.wait_seconds(4, 100.0) == 0.0
    bucket.take(4, 100.0)
    assert bucket.wait_seconds(1, 100.0) == 0.5, "no more than its burst"


def test_no_rate_is_no_limit() -> None:
    bucket = Bucket(0.0, 0.0)
    bucket.take(1e12, 0.0)
    assert bucket.wait_seconds(1e12, 0.0) == 0.0


def test_what_is_larger_than_the_burst_goes_when_it_is_full_and_is_paid_for_after() -> None:
    bucket = Bucket(10.0, 10.0)
    bucket.take(1, 0.0)
    assert bucket.wait_seconds(1000, 0.0) == pytest.approx(0.1)
    bucket.take(1000, 0.1)
    assert bucket.wait_seconds(1, 0.1) == pytest.approx(99.1)


def test_a_pace_keeps_both_rates() -> None:
    pace = Pace(10.0, 100.0, 1.0)
    pace.take(100, 0.0)
    assert pace.wait_seconds(50, 0.0) == 0.5
    for _ in range(9):
        pace.take(0, 1.0)
    assert pace.wait_seconds(1, 1.0) == 0.0
    pace.take(0, 1.0)
    assert pace.wait_seconds(0, 1.0) == pytest.approx(0.1)
    assert pace.seconds_for(100, 500.0) == 10.0
    assert pace.seconds_for(10, 500.0) == 5.0


def test_each_pace_has_its_own_keys() -> None:
    config = PacingConfig(drain_messages_per_second=5.0)
    assert (live_pace(config).is_limited, drain_pace(config).is_limited) == (False, True)
    config = PacingConfig(bytes_per_second=5.0)
    assert (live_pace(config).is_limited, drain_pace(config).is_limited) == (True, False)


@given(
    st.floats(0.1, 1e4),
    st.floats(1, 1e5),
    st.lists(st.tuples(st.floats(0, 10), st.floats(0.01, 2e5)), max_size=80),
)
def test_no_more_than_rate_times_time_and_a_burst(
    rate: float, burst: float, wishes: list[tuple[float, float]]
) -> None:
    """Whoever takes only when there is no wait has never got more than the rate, one burst, and one last piece."""
    bucket = Bucket(rate, burst)
    now = taken = last = 0.0
    for pause, cost in wishes:
        now += pause
        wait = bucket.wait_seconds(cost, now)
        assert wait >= 0.0
        if wait:
            assert bucket.wait_seconds(cost, now + wait + 1e-6) <= 1e-3 / rate + 1e-9, "its word holds"
            now += wait + 1e-6
        taken += cost
        last = max(0.0, cost - burst)
        bucket.take(cost, now)
        assert taken <= rate * now + burst + last + 1e-3 + taken * 1e-9


# ---- through the forwarder


def payloads(bridged: Bridged) -> list[bytes]:
    sent = bridged.sent_messages()
    bridged.acknowledge(*(message.packet_id for message in sent))
    return [message.payload for message in sent]


def test_what_waited_drains_at_its_own_rate() -> None:
    bridged = Bridged([rule("#")], window=100, pacing=PacingConfig(drain_messages_per_second=5.0))
    for n in range(12):
        bridged.publish("a", b"%d" % n)
    bridged.connect()
    assert len(payloads(bridged)) == 5
    assert bridged.forwarder.wait_seconds == pytest.approx(0.2)
    assert (bridged.forwarder.draining, bridged.forwarder.drain_seconds) == (7, pytest.approx(1.4))
    assert not bridged.outbox.ready
    assert payloads(bridged) == []
    bridged.router.now += 0.41
    assert payloads(bridged) == [b"5", b"6"]
    bridged.router.now += 0.99
    assert len(payloads(bridged)) == 5
    assert (bridged.forwarder.wait_seconds, bridged.forwarder.draining) == (0.0, 0)
    assert bridged.outbox.ready


def test_what_comes_while_connected_has_the_live_rate() -> None:
    bridged = Bridged([rule("#")], window=100, pacing=PacingConfig(messages_per_second=2.0))
    for n in range(50):
        bridged.publish("a", b"old %d" % n)
    bridged.connect()
    assert len(payloads(bridged)) == 50, "the drain has no limit"
    assert bridged.forwarder.drain_seconds is None
    for n in range(4):
        bridged.publish("a", b"%d" % n)
    assert payloads(bridged) == [b"0", b"1"]
    bridged.router.now += 0.5
    assert payloads(bridged) == [b"2"]


def test_bytes_count_as_their_packets_have_them() -> None:
    bridged = Bridged([rule("#")], window=100, pacing=PacingConfig(bytes_per_second=1000.0))
    bridged.connect()
    for _ in range(5):
        bridged.publish("a", bytes(400))
    assert len(payloads(bridged)) == 2
    bridged.router.now += 0.25
    assert len(payloads(bridged)) == 1


def test_a_message_at_qos_0_does_not_wait_for_its_pace() -> None:
    bridged = Bridged([rule("#", 0)], pacing=PacingConfig(messages_per_second=1.0))
    bridged.connect()
    for n in range(3):
        bridged.publish("a", b"%d" % n)
    assert payloads(bridged) == [b"0"]
    assert bridged.outbox.dropped == {"paced": 2}


def test_a_new_connection_drains_what_was_not_acknowledged() -> None:
    bridged = Bridged([rule("#")], pacing=PacingConfig(drain_messages_per_second=1.0))
    bridged.connect()
    bridged.publish("a", b"1")
    bridged.publish("a", b"2")
    assert len(bridged.sent_messages()) == 2
    bridged.disconnect()
    bridged.connect()
    assert payloads(bridged) == [b"1"]
    bridged.router.now += 1.0
    assert payloads(bridged) == [b"2"]


def test_without_rates_nothing_waits() -> None:
    bridged = Bridged([rule("#")], window=1000)
    for _ in range(700):
        bridged.publish("a")
    bridged.connect()
    assert len(payloads(bridged)) == 700
    assert bridged.forwarder.wait_seconds == 0.0
