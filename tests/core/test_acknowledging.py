"""Acknowledgements that wait for their message to be safe, and for their turn."""

from __future__ import annotations

from edge_broker.core.acknowledging import HeldAcknowledgements
from edge_broker.core.message import Message, build_message


def message(packet_id: int, unsafe: int = 1, qos: int = 1) -> Message:
    made = build_message("t", b"x", qos=qos)
    made.packet_id, made.unsafe = packet_id, unsafe
    return made


def test_each_leaves_when_it_and_all_before_it_are_safe() -> None:
    left: list[int] = []
    held = HeldAcknowledgements(lambda message: left.append(message.packet_id))
    messages = [message(1), message(2), message(3, unsafe=0), message(4)]
    for each in messages:
        held.hold(each)
    for position, expected in ((1, []), (0, [1, 2, 3]), (3, [1, 2, 3, 4])):
        messages[position].unsafe = 0
        publisher = messages[position].publisher
        assert publisher is not None
        publisher.on_safe(messages[position])
        assert left == expected
    assert len(held) == 0
    assert all(each.publisher is None for each in messages)


def test_a_packet_identifier_is_in_it_at_qos_2_only() -> None:
    held = HeldAcknowledgements(lambda message: None)
    held.hold(message(1, qos=1))
    held.hold(message(2, qos=2))
    assert 2 in held
    assert 1 not in held
