"""The ingester's lease: what it announces in all the ways it can reach us, and for how long that counts."""

import logging

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from bridge.envelope import VERSION
from bridge.ingest.lease import Lease as Announcement
from bridge.ingest.lease import LeaseWriter
from bridge.lease import Lease
from bridge.lease_watch import LeaseWatch
from edge_broker.core.message import build_message
from edge_broker.wire import const
from tests.bridge.memory import Bridged, rule

NOW, WALL = 5000.0, 1.76e9


def said(
    valid: int = 180,
    expires: float = WALL + 180,
    versions: tuple[int, ...] = (VERSION,),
    dictionaries: tuple[int, ...] = (),
) -> bytes:
    return msgspec.json.encode(Announcement("in-1", int(expires), valid, versions, dictionaries))


def heard(payload: bytes, retained: bool = False, expiry: int | None = None, dictionary: int = 0) -> Lease:
    lease = Lease(dictionary)
    lease.on_announcement(payload, retained, expiry, NOW, WALL)
    return lease


def test_before_anything_is_heard_there_is_none() -> None:
    lease = Lease()
    assert (lease.holds(NOW), lease.is_decided, lease.state(NOW)) == (False, False, "none")


@pytest.mark.parametrize(
    ("retained", "expiry", "expires", "seconds"),
    [
        (False, None, WALL - 10_000, 180),  # live: whatever the clocks say
        (False, 180, WALL + 180, 180),
        (False, 60, WALL + 180, 60),  # it waited at the upstream
        (True, 70, WALL - 10_000, 70),  # MQTT 5: what is left of its expiry
        (True, 100_000, WALL + 180, 180),  # never longer than it was valid
        (True, None, WALL + 50, 50),  # 3.1.1: by our clock
        (True, None, WALL + 100_000, 180),  # which may be slow
    ],
)
def test_how_long_it_counts(retained: bool, expiry: int | None, expires: float, seconds: float) -> None:
    lease = heard(said(expires=expires), retained, expiry)
    assert lease.holds(NOW)
    assert lease.seconds_left(NOW) == seconds
    assert lease.holds(NOW + seconds - 0.01)
    assert not lease.holds(NOW + seconds)
    assert lease.state(NOW + seconds) == "expired"
    assert not lease.holds(NOW), "what is over stays over"


def test_a_retained_one_that_is_over_by_our_clock_is_none() -> None:
    lease = heard(said(expires=WALL - 1), retained=True)
    assert (lease.holds(NOW), lease.state(NOW), lease.is_decided) == (False, "expired", True)


def test_each_one_counts_anew() -> None:
    lease = heard(said())
    lease.on_announcement(said(), False, None, NOW + 170, WALL + 170)
    assert lease.holds(NOW + 349)


def test_an_empty_one_takes_it_back() -> None:
    lease = heard(said())
    assert lease.on_announcement(b"", False, None, NOW, WALL)
    assert (lease.holds(NOW), lease.state(NOW)) == (False, "withdrawn")


def test_a_new_connection_begins_without_one() -> None:
    lease = heard(said())
    lease.forget()
    assert (lease.holds(NOW), lease.is_decided) == (False, False)


@pytest.mark.parametrize(
    ("versions", "dictionaries", "ours", "fits"),
    [
        ((VERSION,), (), 0, True),
        ((VERSION + 1, VERSION), (7,), 0, True),
        ((VERSION + 1,), (), 0, False),
        ((), (), 0, False),
        ((VERSION,), (7, 9), 9, True),
        ((VERSION,), (7,), 9, False),
    ],
)
def test_only_one_that_understands_ours_counts(
    versions: tuple[int, ...], dictionaries: tuple[int, ...], ours: int, fits: bool
) -> None:
    lease = heard(said(versions=versions, dictionaries=dictionaries), dictionary=ours)
    assert lease.holds(NOW) == fits
    assert lease.state(NOW) == ("held" if fits else "unfit")


@pytest.mark.parametrize(
    "payload", [b"{", b"[]", b"\xff\xfe", b"{}", b"null", said(valid=0), said(valid=-5), b" " * 70_000]
)
def test_what_cannot_be_read_changes_nothing_and_is_counted(payload: bytes) -> None:
    lease = heard(said())
    assert not lease.on_announcement(payload, False, None, NOW + 1, WALL + 1)
    assert (lease.malformed, lease.holds(NOW + 1), lease.ingester) == (1, True, "in-1")


@given(st.binary(max_size=300), st.booleans(), st.none() | st.integers(0, 1 << 32))
def test_whatever_comes_is_judged_without_a_fault(payload: bytes, retained: bool, expiry: int | None) -> None:
    lease = heard(said())
    lease.on_announcement(payload, retained, expiry, NOW, WALL)
    assert 0.0 <= lease.seconds_left(NOW) <= 86_400


@pytest.mark.parametrize("version", [const.MQTT_5, const.MQTT_3_1_1])
def test_what_the_ingester_announces_is_understood(version: int) -> None:
    payload = LeaseWriter("edge/ingest/lease", "in-2", 90, (5,)).announcement(version, WALL)
    if version >= const.MQTT_5:
        payload = payload[payload.index(b"{") :]
    lease = heard(payload, dictionary=5)
    assert (lease.ingester, lease.seconds_left(NOW)) == ("in-2", 90)


# ---- who listens for it


def watching(bridged: Bridged, is_shared: bool = False) -> LeaseWatch:
    watch = LeaseWatch("cloud", "edge/ingest/lease", Lease(), is_shared, lambda: WALL)
    bridged.connect()
    watch.attach(bridged.client, 9, NOW)
    return watch


def test_it_asks_on_each_connection_and_takes_its_answer() -> None:
    bridged = Bridged([rule("#")])
    watch = watching(bridged)
    [request] = bridged.sent()
    assert request.requests[0].topic_filter == "edge/ingest/lease"  # type: ignore[union-attr]
    assert request.requests[0].qos == 0  # type: ignore[union-attr]
    assert not watch.on_suback(8, [0])
    assert watch.on_suback(9, [0])
    assert not watch.on_suback(9, [0]), "a later one of that identifier is for somebody else"
    watch.on_message(build_message("edge/ingest/lease", said()), NOW)
    assert watch.lease.holds(NOW)
    watch.attach(bridged.client, 9, NOW)
    assert not watch.lease.holds(NOW)


def test_a_refused_subscription_is_told_once_and_settles_it(caplog: pytest.LogCaptureFixture) -> None:
    watch = watching(Bridged([rule("#")]))
    for _ in range(2):
        watch.on_suback(9, [const.NOT_AUTHORIZED])
        watch._packet_id = 9
    assert watch.lease.is_decided
    assert watch.lease.state(NOW) == "refused"
    assert len(caplog.records) == 1
    assert "messages go plain; look at its access rules" in caplog.text


def test_what_is_none_is_told_once(caplog: pytest.LogCaptureFixture) -> None:
    watch = watching(Bridged([rule("#")]))
    for _ in range(3):
        assert watch.on_message(build_message("edge/ingest/lease", b"?"), NOW)
    assert watch.lease.malformed == 3
    assert len(caplog.records) == 1


def test_changes_are_told_once_each(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO, "bridge")
    watch = watching(Bridged([rule("#")]))
    for now in (NOW, NOW + 10):
        watch.on_message(build_message("edge/ingest/lease", said()), now)
        watch.check(now)
    watch.check(NOW + 191)
    watch.on_message(build_message("edge/ingest/lease", said()), NOW + 200)
    watch.on_message(build_message("edge/ingest/lease", b""), NOW + 201)
    assert [record.getMessage().removeprefix("bridge cloud: ") for record in caplog.records] == [
        "the ingester in-1 takes envelopes",
        "the ingester in-1 has not announced itself in time: messages go plain",
        "the ingester in-1 takes envelopes",
        "the ingester in-1 takes no envelopes any more: messages go plain",
    ]


@pytest.mark.parametrize(
    ("topic", "qos", "is_shared", "taken"),
    [
        ("edge/ingest/lease", 0, False, True),
        ("edge/ingest/lease", 1, False, False),  # somebody has to acknowledge it
        ("edge/ingest/lease", 0, True, False),
        ("commands/x", 0, False, False),
    ],
)
def test_only_what_is_for_it_alone_goes_no_further(
    topic: str, qos: int, is_shared: bool, taken: bool
) -> None:
    watch = watching(Bridged([rule("#")]), is_shared)
    assert watch.on_message(build_message(topic, said(), qos=qos), NOW) == taken
    assert watch.lease.holds(NOW) == (topic == "edge/ingest/lease")
