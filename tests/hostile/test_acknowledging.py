"""Subscribers that acknowledge as they please: never, in any order, twice, what was never sent; one at a time."""

from __future__ import annotations

import pytest

from edge_broker.wire import const
from edge_broker.wire.packets import Ack, Publish
from tests.hostile.conftest import Start, Watched
from tests.hostile.peer import Pair, Peer

WINDOW = 10
MESSAGES = 100


def publish_all(publisher: Peer, qos: int, messages: int = MESSAGES) -> None:
    """Each acknowledged before the next, so that none of ours waits for a subscriber that does not answer."""
    for number in range(messages):
        publisher.publish("t", b"%d" % number, qos, number + 1)
        if qos == 1:
            assert publisher.expect_ack(const.PUBACK).packet_id == number + 1
        elif qos == 2:
            assert publisher.expect_ack(const.PUBREC).packet_id == number + 1
            publisher.ack(const.PUBREL, number + 1)
            assert publisher.expect_ack(const.PUBCOMP).packet_id == number + 1


def take(peer: Peer, count: int) -> list[Publish]:
    return [peer.expect(Publish) for _ in range(count)]


@pytest.mark.parametrize("expiry", [0, 3600], ids=["in memory", "durable"])
@pytest.mark.parametrize("qos", [1, 2])
def test_never(start: Start, expiry: int, qos: int) -> None:
    """It gets a window full and no more; nobody waits for it; what it left comes again if it comes again."""
    watched = start(sessions={"send_window": WINDOW})
    with Pair(watched.port) as pair, Peer(watched.port) as mute:
        mute.connect("mute", clean=not expiry, expiry=expiry)
        mute.subscribe("t", qos)
        publish_all(pair.publisher, qos)
        first = take(mute, WINDOW)
        mute.ping()
        assert not mute.has_something, "more than the window"
        assert [publish.payload for publish in first] == [b"%d" % number for number in range(WINDOW)]
        assert watched.sent(qos) == WINDOW + (qos == 1) * 1  # and the pair's own
        assert watched.get("queue_messages", queue="session:mute") == MESSAGES
        assert watched.dropped() == {}
    if expiry:
        with Peer(watched.port) as mute:
            mute.connect("mute", clean=False, expiry=expiry)
            again = take(mute, WINDOW)
            assert [(p.payload, p.packet_id) for p in again] == [(p.payload, p.packet_id) for p in first]
            assert all(publish.dup for publish in again)
    else:
        watched.until(lambda: watched.get("queue_messages", queue="session:mute") == 0, "a queue of nobody")
    assert watched.refused() == {}


@pytest.mark.parametrize("expiry", [0, 3600], ids=["in memory", "durable"])
def test_out_of_order_twice_and_what_was_never_sent(start: Start, expiry: int) -> None:
    watched = start(sessions={"send_window": WINDOW})
    with Pair(watched.port) as pair, Peer(watched.port) as odd:
        odd.connect("odd", clean=not expiry, expiry=expiry)
        odd.subscribe("t", 1)
        publish_all(pair.publisher, 1, 30)
        seen = take(odd, WINDOW)
        ids = [publish.packet_id for publish in seen]
        for index in (9, 3, 3, 7):
            odd.ack(const.PUBACK, ids[index])
        for stranger in (60_000, max(ids) + 15, 65_535):  # in nobody's flight
            odd.ack(const.PUBACK, stranger)
        more = take(odd, 3)  # three were acknowledged, so three more and not seven
        odd.ping()
        assert not odd.has_something
        for publish in reversed(seen + more):
            odd.ack(const.PUBACK, publish.packet_id)
            odd.ack(const.PUBACK, publish.packet_id)
        rest: list[Publish] = []
        while len(seen) + len(more) + len(rest) < 30:
            rest.append(odd.expect(Publish))
            odd.ack(const.PUBACK, rest[-1].packet_id)
        odd.ping()
        assert [p.payload for p in seen + more + rest] == [b"%d" % number for number in range(30)]
        watched.until(lambda: watched.get("queue_messages", queue="session:odd") == 0, "messages are left")
        publish_all(pair.publisher, 1, 1)
        assert odd.expect(Publish).payload == b"0"
    assert watched.refused() == {}
    assert watched.dropped() == {}


def test_steps_of_qos_2_that_belong_to_nothing(watched: Watched, pair: Pair) -> None:
    """Each gets the answer that the protocol has for it, and the flow beside them goes on."""
    with Peer(watched.port) as odd:
        odd.connect("odd")
        odd.subscribe("t", 2)
        for sent, answered in ((const.PUBREC, const.PUBREL), (const.PUBREL, const.PUBCOMP)):
            odd.ack(sent, 77)
            ack = odd.expect_ack(answered)
            assert (ack.packet_id, ack.reason_code) == (77, const.PACKET_IDENTIFIER_NOT_FOUND)
        odd.ack(const.PUBCOMP, 77)
        publish_all(pair.publisher, 2, 1)
        publish = odd.expect(Publish)
        for _ in range(2):  # the second one is a PUBREC sent again
            odd.ack(const.PUBREC, publish.packet_id)
            ack = odd.expect_ack(const.PUBREL)
            assert (ack.packet_id, ack.reason_code) == (publish.packet_id, const.SUCCESS)
        odd.ack(const.PUBCOMP, publish.packet_id)
        odd.ack(const.PUBCOMP, publish.packet_id)
        odd.ping()
        assert watched.get("queue_messages", queue="session:odd") == 0
    assert watched.refused() == {}


def test_a_publisher_that_never_releases(start: Start) -> None:
    """QoS 2 without PUBREL: up to our receive maximum, then its connection ends, and only that."""
    watched = start(sessions={"receive_maximum": 5})
    with Pair(watched.port) as pair, Peer(watched.port) as hoarder:
        hoarder.connect("hoarder")
        for packet_id in range(1, 7):
            hoarder.publish("t", b"x", 2, packet_id)
        packets = hoarder.read_to_the_end()
        assert [p.packet_id for p in packets if isinstance(p, Ack)] == [1, 2, 3, 4, 5]
        assert packets[-1].reason_code == const.RECEIVE_MAXIMUM_EXCEEDED
        pair.round_trip()
    assert watched.refused() == {"receive_maximum_exceeded": 1}


@pytest.mark.parametrize("qos", [1, 2])
def test_a_receive_maximum_of_one(watched: Watched, pair: Pair, qos: int) -> None:
    """One at a time, in order; at QoS 2 the next one comes behind the PUBCOMP [MQTT-3.3.4-9]."""
    with Peer(watched.port) as narrow, Peer(watched.port) as wide:
        narrow.connect("narrow", receive_maximum=1)
        narrow.subscribe("t", qos)
        wide.connect("wide")
        wide.subscribe("t", 0)
        publish_all(pair.publisher, qos, 20)
        assert [p.payload for p in take(wide, 20)] == [b"%d" % number for number in range(20)]
        for number in range(20):
            publish = narrow.expect(Publish)
            assert publish.payload == b"%d" % number
            narrow.ping()
            assert not narrow.has_something, "a second one in flight"
            if qos == 2:
                narrow.ack(const.PUBREC, publish.packet_id)
                narrow.expect_ack(const.PUBREL)
                narrow.ping()
                assert not narrow.has_something, "the next one before PUBCOMP"
            narrow.ack(const.PUBACK if qos == 1 else const.PUBCOMP, publish.packet_id)
        narrow.ping()
        assert watched.get("queue_messages", queue="session:narrow") == 0
    assert watched.sent(qos) == 20 + (qos == 1) * 1  # and the pair's own
    assert (watched.refused(), watched.dropped()) == ({}, {})
