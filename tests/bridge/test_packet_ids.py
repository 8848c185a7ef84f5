"""Which packet identifier goes with which number, and a forwarder that is given another rule."""

from bridge.packet_ids import OwnPacketIds
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
