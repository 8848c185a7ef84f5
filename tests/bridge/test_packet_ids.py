"""Which packet identifier goes with which number, and a forwarder that is given another rule."""

from hypothesis import given
from hypothesis import strategies as st

from bridge.packet_ids import SHARE, SHARERS, OwnPacketIds, SharedPacketIds, place_of
from edge_broker.core.message import build_message
from edge_broker.core.queue import Queue
from edge_broker.wire import const
from tests.bridge.memory import Bridged, rule


class EveryFourth:
    """The rule for the first of four queues that share a connection."""

    free = 65_533

    def __init__(self, own: OwnPacketIds) -> None:
        self._own = own

    def of(self, number: int) -> int:
        return self._own.of(number) * 4 - 3

    def number_of(self, packet_id: int) -> int:
        return self._own.number_of((packet_id + 3) // 4)


def test_a_forwarder_goes_by_the_rule_that_it_is_given() -> None:
    bridged = Bridged([rule("q1"), rule("q2", 2)])
    bridged.forwarder.packet_ids = EveryFourth(OwnPacketIds(bridged.queue))
    bridged.connect()
    for topic in ("q1", "q2", "q1"):
        bridged.publish(topic)
    bridged.commit()
    assert [message.packet_id for message in bridged.sent_messages()] == [1, 5, 9]
    assert bridged.forwarder.free_packet_id == 65_533
    bridged.acknowledge(9)
    bridged.acknowledge(5, kind=const.PUBREC)
    bridged.commit()
    assert bridged.sent_acks() == [(const.PUBREL, 5, 0)]
    bridged.acknowledge(5, kind=const.PUBCOMP)
    assert bridged.queue.depth == 1
    bridged.disconnect()
    bridged.connect()
    assert bridged.sent() == []  # it is on disk only
    bridged.answer_reads()
    assert [message.packet_id for message in bridged.sent_messages()] == [1]


def test_identifiers_of_a_connection_of_its_own_go_round() -> None:
    ids = OwnPacketIds(Bridged([rule("#")]).queue)
    assert [ids.of(number) for number in (1, 65_535, 65_536)] == [1, 65_535, 1]


# ---- three queues on one connection

NUMBERS = st.integers(1, 10**12)
PLACES = st.integers(0, SHARERS - 1)


@given(NUMBERS, PLACES, NUMBERS, PLACES)
def test_no_two_of_three_queues_have_an_identifier_in_common(
    one: int, place: int, other: int, other_place: int
) -> None:
    mine = SharedPacketIds(Queue(1, None), place).of(one)
    theirs = SharedPacketIds(Queue(2, None), other_place).of(other)
    assert 1 <= mine <= const.MAX_PACKET_ID
    assert (mine == theirs) == (place == other_place and (one - other) % SHARE == 0)
    assert (place_of(mine), place_of(theirs)) == (place, other_place)


@given(NUMBERS, st.integers(1, SHARE), PLACES, st.data())
def test_an_identifier_says_which_number_in_flight_it_is(
    head: int, span: int, place: int, data: st.DataObject
) -> None:
    queue = Queue(1, None)
    queue.head, queue.cursor = head, head + span
    ids = SharedPacketIds(queue, place)
    number = data.draw(st.integers(head, head + span - 1))
    assert ids.number_of(ids.of(number)) == number
    for other in set(range(SHARERS)) - {place}:
        assert ids.number_of(SharedPacketIds(queue, other).of(number)) == 0
    queue.cursor = number
    assert ids.number_of(ids.of(number)) == 0  # not sent yet
    if span < SHARE:
        assert ids.number_of(ids.free) == 0


def test_numbers_in_flight_never_span_more_than_a_queue_has_identifiers() -> None:
    queue = Queue(1, None)
    queue.span = 3
    for _ in range(5):
        queue.append(build_message("t", b"", qos=1))
    sent = [queue.next_to_send(0.0) for _ in range(5)]
    assert [due and due[0] for due in sent] == [1, 2, 3, None, None]
    queue.complete(2)
    assert queue.next_to_send(0.0) is None
    queue.complete(1)
    assert [due and due[0] for due in (queue.next_to_send(0.0) for _ in range(3))] == [4, 5, None]
