"""What waited upstream while the bridge was away is told from what comes now, however much an upstream sends at once."""

from collections import deque

import pytest
from hypothesis import given
from hypothesis import strategies as st

from bridge.config import RuleConfig
from bridge.lateness import NAME, UNKNOWN, with_mark
from edge_broker.wire import const
from edge_broker.wire.encoder import encode_ack, encode_publish, encode_suback
from edge_broker.wire.packets import Ack, Ping, Subscribe
from edge_broker.wire.properties import decode_properties, encode_properties
from tests.bridge.memory import Bridged, Local, rule

PINGRESP = bytes((const.PINGRESP << 4, 0))


class Upstream:
    """Sends what waits in the session as a broker does: so many at once, and more as they are acknowledged.

    `waiting`: (payload, QoS). What comes in is dealt with in order, one packet a `step`.
    """

    def __init__(
        self, bridged: Bridged, window: int, waiting: list[tuple[bytes, int]], version: int = 5
    ) -> None:
        self.bridged = bridged
        self._window = window
        self._waiting = deque(waiting)
        self._version = version
        self._next_id = 0
        self._unacknowledged = 0
        self._input: deque[Ack | Ping] = deque()

    def publish(self, payload: bytes, qos: int = 1) -> None:
        """Somebody publishes now."""
        self._waiting.append((payload, qos))

    def send(self) -> None:
        while self._waiting and self._unacknowledged < self._window:
            payload, qos = self._waiting.popleft()
            self._next_id += 1
            self._unacknowledged += 1
            self.bridged.receive(encode_publish(self._version, "cmd", payload, qos, packet_id=self._next_id))

    def step(self) -> bool:
        """Deal with one packet; False where there is none."""
        self._input += [packet for packet in self.bridged.sent() if isinstance(packet, (Ack, Ping))]
        if not self._input:
            return False
        packet = self._input.popleft()
        if isinstance(packet, Ping):
            self.bridged.receive(PINGRESP)
        elif packet.packet_type == const.PUBREC:
            self.bridged.receive(encode_ack(self._version, const.PUBREL, packet.packet_id, 0))
        else:
            self._unacknowledged -= 1
            self.send()
        return True

    def run(self) -> None:
        while self.step() or self._commits():
            pass

    def _commits(self) -> bool:
        pending = self.bridged.pending
        if pending.empty:
            return False
        self.bridged.commit()
        return True


def away(bridged: Bridged, seconds: float = 3600.0) -> None:
    """The bridge was connected, and has been away for so long."""
    bridged.connect(present=False)
    for packet in bridged.sent():
        if isinstance(packet, Subscribe):
            bridged.receive(encode_suback(5, packet.packet_id, [1] * len(packet.requests)))
    bridged.disconnect()
    bridged.router.now += seconds


def back(bridged: Bridged, window: int, waiting: list[bytes], qos: int = 1) -> Upstream:
    """The bridge is there again, where `waiting` waited."""
    upstream = Upstream(bridged, window, [(payload, qos) for payload in waiting])
    bridged.connect(present=True)
    upstream.send()
    return upstream


def marks(local: Local) -> dict[bytes, str | None]:
    """By payload, what is written on it."""
    return {
        message.payload: dict(message.properties.get(const.USER_PROPERTY, [])).get(NAME)
        for message in local.messages
    }


@pytest.mark.parametrize("durable", [False, True])
@pytest.mark.parametrize("qos", [1, 2])
@pytest.mark.parametrize(("window", "waiting"), [(20, 3), (20, 20), (20, 65), (1, 4), (500, 300)])
def test_all_that_waited_is_marked_and_nothing_after_it(
    window: int, waiting: int, qos: int, durable: bool
) -> None:
    bridged = Bridged(in_=[rule("#", 2)])
    local = Local(bridged, "#", durable)
    away(bridged)
    old = [b"old %d" % number for number in range(waiting)]
    upstream = back(bridged, window, old, qos)
    upstream.run()
    for number in range(30):
        upstream.publish(b"new %d" % number, qos)
    upstream.send()
    upstream.run()
    found = marks(local)
    assert [found.get(payload) for payload in old] == ["3600"] * waiting
    assert {found[payload] for payload in found if payload.startswith(b"new")} == {None}
    assert (len(found), bridged.downlink.late) == (waiting + 30, waiting)


def test_nothing_waited() -> None:
    bridged = Bridged(in_=[rule("#")])
    local = Local(bridged, "#", durable=False)
    away(bridged)
    upstream = back(bridged, 20, [])
    upstream.run()
    upstream.publish(b"new")
    upstream.send()
    upstream.run()
    assert (marks(local), bridged.downlink.late) == ({b"new": None}, 0)


@pytest.mark.parametrize("every", [1, 3])
def test_a_steady_stream_is_not_late_for_long(every: int) -> None:
    """Messages come all the time: fewer in a round trip than there were at the beginning, or not always as many."""
    bridged = Bridged(in_=[rule("#")])
    local = Local(bridged, "#", durable=False)
    away(bridged)
    old = [b"old %d" % number for number in range(10)]
    upstream = back(bridged, 20, old)
    for number in range(200):
        if number % every == 0:
            upstream.publish(b"new %d" % number)
        upstream.send()
        upstream.step()
        upstream.step()
    late = [payload for payload, mark in marks(local).items() if mark]
    assert late[:10] == old
    assert len(late) < 30


def test_after_a_minute_nothing_is_late_any_more() -> None:
    """An upstream that does not answer, or a stream that looks like a backlog of any length."""
    bridged = Bridged(in_=[rule("#")])
    local = Local(bridged, "#", durable=False)
    away(bridged)
    bridged.connect(present=True)
    bridged.receive(encode_publish(5, "cmd", b"1", 1, packet_id=1))
    bridged.router.now += 61.0
    bridged.receive(encode_publish(5, "cmd", b"2", 1, packet_id=2))
    assert marks(local) == {b"1": "3600", b"2": None}


# ---- what is done with them


def test_what_a_rule_does_not_want_late_is_dropped_and_acknowledged() -> None:
    bridged = Bridged(in_=[rule("#", 2, when_late="drop")])
    local = Local(bridged, "#", durable=False)
    away(bridged)
    upstream = back(bridged, 2, [b"1", b"2", b"3"], qos=2)
    upstream.run()
    upstream.publish(b"new", 2)
    upstream.send()
    upstream.run()
    assert marks(local) == {b"new": None}
    assert (bridged.downlink.dropped, bridged.downlink.late) == ({"late": 3}, 3)
    assert upstream._unacknowledged == 0


def test_what_a_rule_lets_pass_is_as_it_was_and_nobody_asks() -> None:
    bridged = Bridged(in_=[rule("#", when_late="pass")])
    local = Local(bridged, "#", durable=False)
    away(bridged)
    upstream = back(bridged, 20, [b"1"])
    assert not [packet for packet in bridged.sent() if isinstance(packet, Ping)]
    upstream.run()
    assert (marks(local), bridged.downlink.late) == ({b"1": None}, 0)


@pytest.mark.parametrize(("seconds", "mark"), [(59.0, None), (60.0, "60"), (90.5, "91")])
def test_a_short_absence_makes_nothing_late(seconds: float, mark: str | None) -> None:
    bridged = Bridged(in_=[rule("#")])
    local = Local(bridged, "#", durable=False)
    away(bridged, seconds)
    back(bridged, 20, [b"1"])
    assert marks(local) == {b"1": mark}
    assert any(isinstance(packet, Ping) for packet in bridged.sent()) == (mark is not None)


def test_each_rule_says_by_itself_how_long_is_long() -> None:
    rules = [
        RuleConfig(filter="cmd", when_late="drop", late_after_seconds=10.0),
        RuleConfig(filter="state", late_after_seconds=1e6),
    ]
    bridged = Bridged(in_=rules)
    local = Local(bridged, "#", durable=False)
    away(bridged, 100.0)
    bridged.connect(present=True)
    bridged.receive(
        encode_publish(5, "cmd", b"1", 1, packet_id=1), encode_publish(5, "state", b"2", 1, packet_id=2)
    )
    assert marks(local) == {b"2": None}


def test_after_a_start_nobody_knows_for_how_long() -> None:
    bridged = Bridged(in_=[rule("#")])
    local = Local(bridged, "#", durable=False)
    back(bridged, 20, [b"1"]).run()
    assert marks(local) == {b"1": UNKNOWN}


def test_a_new_session_has_nothing_that_waited() -> None:
    bridged = Bridged(in_=[rule("#")])
    local = Local(bridged, "#", durable=False)
    away(bridged)
    bridged.connect(present=False)
    bridged.receive(encode_publish(5, "cmd", b"1", 1, packet_id=1))
    assert marks(local) == {b"1": None}


def test_what_is_retained_or_came_at_qos_0_is_not_late() -> None:
    bridged = Bridged(in_=[rule("#")])
    local = Local(bridged, "#", durable=False)
    away(bridged)
    bridged.connect(present=True)
    bridged.receive(
        encode_publish(5, "cmd", b"state", 1, True, packet_id=1), encode_publish(5, "cmd", b"live", 0)
    )
    assert marks(local) == {b"state": None, b"live": None}


def test_from_a_3_1_1_upstream_too() -> None:
    """The mark is for subscribers here, whatever the upstream speaks."""
    bridged = Bridged(in_=[rule("#")])
    local = Local(bridged, "#", durable=False)
    away(bridged)
    bridged.connect(const.MQTT_3_1_1, present=True)
    bridged.receive(encode_publish(4, "cmd", b"1", 1, packet_id=1))
    assert marks(local) == {b"1": "3600"}


def test_the_absence_counts_for_each_upstream_by_itself() -> None:
    bridged = Bridged(in_=[rule("#")])
    local = Local(bridged, "#", durable=False)
    away(bridged, 500.0)
    bridged.connect(present=False, upstream="mqtt://other:1883")
    bridged.router.now += 500.0
    bridged.disconnect()
    bridged.connect(present=True)
    bridged.receive(encode_publish(5, "cmd", b"1", 1, packet_id=1))
    bridged.disconnect()
    bridged.router.now += 70.0
    bridged.connect(present=True, upstream="mqtt://other:1883")
    bridged.receive(encode_publish(5, "cmd", b"2", 1, packet_id=1))
    assert marks(local) == {b"1": "1000", b"2": "70"}


def test_a_test_of_the_line_is_not_timed() -> None:
    """What waits comes before the answer: that says nothing of how quick the upstream is."""
    bridged = Bridged(in_=[rule("#")])
    away(bridged)
    bridged.connect(present=True)
    bridged.receive(PINGRESP)
    assert (bridged.client.pongs, bridged.client.ping_seconds) == (1, None)
    bridged.sent()
    bridged.router.now += 55.0
    bridged.client.check(bridged.router.now)
    bridged.receive(PINGRESP)
    assert bridged.client.ping_seconds is not None


# ---- the property


@given(st.lists(st.tuples(st.text("a€", max_size=5), st.text("b€", max_size=5)), max_size=3))
def test_the_mark_is_added_to_what_is_there(before: list[tuple[str, str]]) -> None:
    properties = {const.CONTENT_TYPE: "x", **({const.USER_PROPERTY: before} if before else {})}
    block = with_mark(encode_properties(properties), "60")
    decoded, end = decode_properties(block, 0, len(block), const.PUBLISH)
    assert decoded == {const.CONTENT_TYPE: "x", const.USER_PROPERTY: [*before, (NAME, "60")]}
    assert end == len(block)


def test_what_an_earlier_bridge_wrote_stays() -> None:
    block = encode_properties({const.USER_PROPERTY: [(NAME, "7")]})
    assert with_mark(block, "60") == block


def test_a_long_block_stays_whole() -> None:
    block = with_mark(encode_properties({const.USER_PROPERTY: [("a", "b" * 115)]}), "60")
    decoded, _ = decode_properties(block, 0, len(block), const.PUBLISH)
    assert decoded[const.USER_PROPERTY] == [("a", "b" * 115), (NAME, "60")]
