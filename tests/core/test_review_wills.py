"""What a stored will must still say after a restart."""

from __future__ import annotations

from edge_broker.core.handshake import will_message
from edge_broker.core.ops import SessionRecord
from edge_broker.store.rows import session_record, session_row
from edge_broker.store.times import Times
from edge_broker.wire import const
from edge_broker.wire.packets import Will
from edge_broker.wire.topics import TopicCache


def stored(expiry: int | None, offset_then: float, offset_now: float) -> int | None:
    """A will's message expiry interval, after its session was written and read back."""
    properties = {} if expiry is None else {const.MESSAGE_EXPIRY_INTERVAL: expiry}
    will = will_message(Will("t", b"gone", 1, False, 0, properties))
    row = session_row(SessionRecord(1, "c", "me", 60, None, will, 5), Times(offset_then))
    again = session_record(row, TopicCache(), Times(offset_now)).will
    assert again is not None
    assert again.payload == b"gone"
    return again.expiry_interval


def test_a_will_keeps_its_message_expiry_interval() -> None:
    """It counts from the moment the will is published [3.1.3.2.4], however long the broker was down."""
    for interval in (None, 0, 1, 60, 0xFFFFFFFF):
        assert stored(interval, 1_700_000_000.123, 1_700_009_999.987) == interval
