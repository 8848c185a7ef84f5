"""The link against a broker that answers as told: versions, refusals, limits, and lost acknowledgements."""

import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from devices import Device, Timing
from tests.devices.collector import without_duplicates
from tests.devices.mosquitto import wait_until
from tests.devices.scripted_broker import CLOSE, Published, ScriptedBroker

QUICK = Timing(connect_timeout=0.3, acknowledge_timeout=5.0, reconnect_first=0.05, reconnect_longest=0.1)


@pytest.fixture
def broker() -> Iterator[ScriptedBroker]:
    broker = ScriptedBroker()
    yield broker
    broker.close()


def test_mqtt_5_where_it_is_spoken(broker: ScriptedBroker) -> None:
    with Device("porch", broker.url, timing=QUICK) as device:
        device.publish_reading(1)
        assert device.flush(10)
    broker.wait(lambda: broker.disconnects == 1)
    assert broker.script.versions == [5]
    user = broker.published[0].user
    assert (user["device"], user["sequence"], user["content_type"]) == ("porch", "1", "application/json")
    assert len(user["spool"]) == 8


@pytest.mark.parametrize(
    "refusal", [b"\0\1", b"\0\x84\0"], ids=["as a 3.1.1 broker would", "as the specification of 5.0 says"]
)
def test_a_refused_version_falls_back_at_once(broker: ScriptedBroker, refusal: bytes) -> None:
    broker.script.connack = lambda version: refusal if version == 5 else b"\0\0"
    slow = Timing(reconnect_first=30.0, reconnect_longest=60.0)
    with Device("porch", broker.url, timing=slow) as device:
        device.publish_reading(1)
        assert device.flush(5)
        assert device.stats.version == "3.1.1"
    assert broker.script.versions == [5, 4]
    assert broker.published[0].user == {}


@pytest.mark.parametrize("no_answer", [None, b""], ids=["silence", "a closed connection"])
def test_an_unanswered_version_5_falls_back_and_makes_sure(
    broker: ScriptedBroker, no_answer: bytes | None
) -> None:
    broker.script.connack = lambda version: no_answer if version == 5 else b"\0\0"
    with Device("porch", broker.url, timing=QUICK) as device:
        device.publish_reading(1)
        assert device.flush(5)
        assert device.stats.version == "3.1.1"
    assert broker.script.versions == [5, 4, 5, 4]


def test_a_broker_that_was_only_starting_keeps_version_5(broker: ScriptedBroker) -> None:
    answers = iter([b"", b"", b"", b"\0\0"])  # closed at once while it starts, whatever the version
    broker.script.connack = lambda version: next(answers, b"\0\0\0" if version == 5 else b"\0\0")
    with Device("porch", broker.url, timing=QUICK) as device:
        device.publish_reading(1)
        assert device.flush(5)
        assert device.stats.version == "5"
    assert broker.script.versions == [5, 4, 5, 4, 5]


def test_a_pinned_version_is_never_left(broker: ScriptedBroker) -> None:
    broker.script.connack = lambda version: b"\0\1" if version == 5 else b"\0\0"
    with Device("porch", broker.url, mqtt_version="5", timing=QUICK) as device:
        broker.wait(lambda: len(broker.script.versions) >= 3)
        assert "does not speak MQTT 5" in (device.stats.problem or "")
    assert set(broker.script.versions) == {5}


def test_unacknowledged_readings_come_again_in_order(broker: ScriptedBroker) -> None:
    taken: set[int] = set()

    def close_at_every_seventh(published: Published) -> int:
        sequence = int(published.user["sequence"])
        if sequence % 7 == 0 and sequence not in taken:
            taken.add(sequence)
            return CLOSE
        return 0

    broker.script.puback = close_at_every_seventh
    with Device("porch", broker.url, timing=QUICK) as device:
        device.publish_readings(list(range(70)))
        assert device.flush(20)
        assert device.stats.acknowledged == 70
    assert without_duplicates(broker.sequences()) == list(range(1, 71))
    for connection in range(1, 1 + max(one.connection for one in broker.published)):
        sequences = broker.sequences(connection)
        assert sequences == list(range(sequences[0], sequences[0] + len(sequences)))


def test_the_window_is_kept_and_withheld_acknowledgements_end_the_connection(broker: ScriptedBroker) -> None:
    broker.script.puback = lambda published: None if published.connection == 1 else 0
    timing = Timing(acknowledge_timeout=0.2, reconnect_first=0.05, reconnect_longest=0.1)
    with Device("porch", broker.url, window=7, timing=timing) as device:
        device.publish_readings(list(range(100)))
        broker.wait(lambda: len(broker.published) == 7)
        assert device.stats.in_flight == 7
        assert device.flush(20)
    assert broker.sequences(1) == list(range(1, 8))
    assert broker.sequences(2) == list(range(1, 101))
    assert broker.most_unanswered == 7


def test_the_brokers_receive_maximum_counts_when_it_is_smaller(broker: ScriptedBroker) -> None:
    broker.script.connack = lambda version: b"\0\0\3\x21\0\3"  # receive maximum 3
    broker.script.puback = lambda published: None
    with Device("porch", broker.url, window=20, timing=QUICK) as device:
        device.publish_readings(list(range(100)))
        broker.wait(lambda: len(broker.published) == 3)
        device.close(timeout_seconds=0)
    assert broker.sequences() == [1, 2, 3]


def test_a_reading_larger_than_the_broker_takes_is_set_aside(broker: ScriptedBroker) -> None:
    broker.script.connack = lambda version: b"\0\0\5\x27\0\0\1\0"  # maximum packet size 256
    with Device("porch", broker.url, timing=QUICK) as device:
        device.publish_readings([{"text": "x" * size} for size in (10, 500, 20)])
        assert device.flush(10)
        assert (device.stats.acknowledged, device.stats.rejected) == (2, 1)
        ((spooled, reason),) = device._spool.rejected_readings()
    assert broker.sequences() == [1, 3]
    assert spooled.sequence == 2
    assert "larger than the 256 bytes" in reason


@pytest.mark.parametrize("code", [0x87, 0x90, 0x99], ids=["not authorized", "topic name", "payload format"])
def test_a_rejected_reading_is_set_aside_and_the_others_go_on(broker: ScriptedBroker, code: int) -> None:
    broker.script.puback = lambda published: code if published.user["sequence"] == "3" else 0
    with Device("porch", broker.url, timing=QUICK) as device:
        device.publish_readings(list(range(6)))
        assert device.flush(10)
        stats = device.stats
        assert (stats.acknowledged, stats.rejected, stats.spooled, stats.reconnects) == (5, 1, 0, 0)
        ((spooled, reason),) = device._spool.rejected_readings()
    assert (spooled.sequence, spooled.reading.payload) == (3, b"2")
    assert f"0x{code:02x}" in reason


@pytest.mark.parametrize("code", [0x80, 0x83, 0x97], ids=["unspecified", "implementation", "quota"])
def test_a_reading_refused_for_now_is_kept_and_tried_again(broker: ScriptedBroker, code: int) -> None:
    refusals = iter([code] * 3)
    broker.script.puback = lambda published: next(refusals, 0) if published.user["sequence"] == "3" else 0
    with Device("porch", broker.url, window=1, timing=QUICK) as device:
        device.publish_readings(list(range(6)))
        assert device.flush(10)
        stats = device.stats
        assert (stats.acknowledged, stats.rejected, stats.reconnects) == (6, 0, 3)
    assert without_duplicates(broker.sequences()) == [1, 2, 3, 4, 5, 6]
    assert broker.sequences().count(3) == 4


def test_16_is_success_without_subscribers(broker: ScriptedBroker) -> None:
    broker.script.puback = lambda published: 0x10
    with Device("porch", broker.url, timing=QUICK) as device:
        device.publish_reading(1)
        assert device.flush(10)
        assert (device.stats.acknowledged, device.stats.rejected) == (1, 0)


def test_a_broker_that_accepts_and_closes_is_not_hammered(broker: ScriptedBroker) -> None:
    broker.script.puback = lambda published: CLOSE
    timing = Timing(reconnect_first=0.02, reconnect_longest=60.0)
    with Device("porch", broker.url, timing=timing) as device:
        device.publish_reading(1)
        broker.wait(lambda: len(broker.script.versions) == 5)
        started = time.monotonic()
        broker.wait(lambda: len(broker.script.versions) == 6)
        assert time.monotonic() - started > 0.1  # 0.02 doubled four times, at least half of it
        device.close(timeout_seconds=0)


def test_an_acknowledgement_makes_the_next_attempt_quick_again(broker: ScriptedBroker) -> None:
    broker.script.puback = lambda published: CLOSE if published.user["sequence"] == "2" else 0
    answers = iter([b""] * 12)  # six rounds of both versions: the delays grow
    broker.script.connack = lambda version: next(answers, b"\0\0\0" if version == 5 else b"\0\0")
    timing = Timing(reconnect_first=0.01, reconnect_longest=60.0)
    with Device("porch", broker.url, timing=timing) as device:
        device.publish_reading(1)
        assert device.flush(10)
        connections = len(broker.script.versions)
        started = time.monotonic()
        device.publish_reading(2)
        broker.wait(lambda: len(broker.script.versions) == connections + 1)
        assert time.monotonic() - started < 0.25  # not 0.01 doubled six times, at least half of it
        device.close(timeout_seconds=0)


def test_a_written_qos_0_reading_settles_no_other(broker: ScriptedBroker) -> None:
    broker.script.puback = lambda published: None
    with Device("porch", broker.url, timing=QUICK) as device:
        device.publish_reading(1)
        broker.wait(lambda: len(broker.published) == 1)
        session = device._link._session
        assert session is not None
        session._client._last_mid = broker.published[0].packet_id - 1  # as after 65,535 more
        device.publish_reading(2, qos=0)
        wait_until(lambda: device.stats.acknowledged > 0, "QoS 0 is done once it is written")
        assert list(device._spool._in_flight) == [1]
        assert (device.stats.acknowledged, device.stats.spooled) == (1, 1)
        device.close(timeout_seconds=0)


def test_the_settled_leave_the_file_when_no_reading_follows(
    broker: ScriptedBroker, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("devices.link._SETTLE_AFTER_SECONDS", 0.1)
    with Device("porch", broker.url, spool=tmp_path / "porch.spool", timing=QUICK) as device:
        device.publish_reading(1)
        assert device.flush(10)
        assert device._spool.settled_in_file == 1
        wait_until(lambda: device._spool.settled_in_file == 0, "still in the file", timeout_seconds=5)


def test_the_settled_leave_with_the_next_reading_and_cost_no_commit_of_their_own(
    broker: ScriptedBroker, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("devices.link._SETTLE_AFTER_SECONDS", 0.2)
    with Device("porch", broker.url, spool=tmp_path / "porch.spool", timing=QUICK) as device:
        statements: list[str] = []
        device._spool._db.set_trace_callback(statements.append)
        started = time.monotonic()
        while time.monotonic() - started < 0.7:
            device.publish_reading(1)
            assert device.flush(10)
        assert statements.count("COMMIT") == device.stats.published
        device._spool._db.set_trace_callback(None)


def test_a_drained_backlog_leaves_the_file_piece_by_piece(broker: ScriptedBroker, tmp_path: Path) -> None:
    with Device("porch", broker.url, spool=tmp_path / "porch.spool", timing=QUICK) as device:
        device.publish_readings(list(range(1200)))
        assert device.flush(20)
        wait_until(
            lambda: device._spool.settled_in_file < 500, "all are still in the file", timeout_seconds=5
        )


def test_a_broker_with_qos_0_only_is_not_used(broker: ScriptedBroker) -> None:
    broker.script.connack = lambda version: b"\0\0\2\x24\0"
    with Device("porch", broker.url, timing=QUICK) as device:
        device.publish_reading(1)
        wait_until(lambda: "QoS 0 only" in (device.stats.problem or ""), "the limit was not noticed")
        device.close(timeout_seconds=0)
    assert broker.published == []


def test_nonsense_from_the_broker_ends_the_connection_only(broker: ScriptedBroker) -> None:
    nonsense = iter([b"\0\0\5\x7f\0\0\0\0"])  # a property that does not exist
    broker.script.connack = lambda version: next(nonsense, b"\0\0\0" if version == 5 else b"\0\0")
    with Device("porch", broker.url, timing=QUICK) as device:
        device.publish_reading(1)
        assert device.flush(10)
        assert device.stats.version == "5"


def test_closing_while_connecting(broker: ScriptedBroker) -> None:
    broker.script.connack = lambda version: None
    device = Device("porch", broker.url, timing=Timing(connect_timeout=30)).start()
    broker.wait(lambda: len(broker.script.versions) == 1)
    started = time.monotonic()
    device.close(timeout_seconds=0)
    assert time.monotonic() - started < 5
