"""The small tables: each kind of row to and from its record, with the checksum that every row carries as its last column.

SQLite finds damage in the structure of its pages, not in what stands in a row; a session that came back with another
expiry, or a queue with another head, would break promises quietly. A row whose checksum is wrong is `Damaged`.
"""

from __future__ import annotations

from typing import Any, TypeVar
from zlib import crc32

from edge_broker.core.message import Message
from edge_broker.core.ops import SessionRecord, SubscriptionRecord
from edge_broker.store.faults import Damaged
from edge_broker.store.marks import decode_marks
from edge_broker.store.segment import TopicNames, decode_record, encode_record
from edge_broker.store.times import Times

Row = tuple[Any, ...]
RowT = TypeVar("RowT", bound=Row)


def checksum(*values: int | str | bytes | None) -> int:
    """CRC-32 of the values of a row, in the order of its columns, each told apart from its neighbours."""
    crc = 0
    for value in values:
        if isinstance(value, str):
            raw, kind = value.encode("utf-8", "surrogatepass"), b"s"
        elif isinstance(value, int):
            raw, kind = b"%d" % value, b"i"
        else:
            raw, kind = value or b"", b"n" if value is None else b"b"
        crc = crc32(raw, crc32(b"%s%d:" % (kind, len(raw)), crc))
    return crc


def sealed(*values: int | str | bytes | None) -> Row:
    """The row of `values`, its checksum behind them."""
    return (*values, checksum(*values))


def opened(row: RowT) -> RowT:
    """`row`, if its last column is the checksum of the others; else `Damaged`."""
    try:
        intact = checksum(*row[:-1]) == row[-1]
    except TypeError:  # a column of another type than it was written with
        intact = False
    if not intact:
        raise Damaged("the checksum of a row is wrong")
    return row


def session_row(record: SessionRecord, times: Times) -> Row:
    """For `session`: session_id, client_id, identity, expiry_interval, disconnected_ms, will_delay, will, crc.

    Behind the identity, where there are any, user name and groups, each behind a NUL, which none of them can have.
    """
    proved = (record.username, *record.groups) if record.username or record.groups else ()
    return sealed(
        record.session_id,
        record.client_id,
        "\0".join((record.identity, *proved)),
        record.expiry_interval,
        None if record.disconnected_at is None else times.stamp(record.disconnected_at),
        record.will_delay,
        None if record.will is None else encode_record(record.will, times),
    )


def session_record(row: Row, topics: TopicNames, times: Times) -> SessionRecord:
    """What `session_row` was made of."""
    session_id, client_id, proved, expiry_interval, disconnected_ms, will_delay, raw_will, _ = opened(row)
    identity, *rest = proved.split("\0")
    username, groups = (rest[0], rest[1:]) if rest else ("", [])
    will = None if raw_will is None else decode_record(raw_will, topics, times)
    if will is not None and will.expires_at is not None:
        will.expiry_interval = round(will.expires_at - will.received_at)  # counts from when it is published
    return SessionRecord(
        session_id,
        client_id,
        identity,
        expiry_interval,
        None if disconnected_ms is None else times.read(disconnected_ms),
        will,
        will_delay,
        username,
        tuple(groups),
    )


def subscription_row(record: SubscriptionRecord) -> Row:
    """For `subscription`: session_id, topic_filter, qos, no_local, retain_as_published, subscription_id, crc."""
    return sealed(
        record.session_id,
        record.topic_filter,
        record.qos,
        int(record.no_local),
        int(record.retain_as_published),
        record.subscription_id,
    )


def subscription_record(row: Row) -> SubscriptionRecord:
    """What `subscription_row` was made of."""
    session_id, topic_filter, qos, no_local, retain_as_published, subscription_id, _ = opened(row)
    return SubscriptionRecord(
        session_id, topic_filter, qos, bool(no_local), bool(retain_as_published), subscription_id
    )


def retained_row(topic: str, message: Message, times: Times) -> Row:
    """For `retained`: topic, crc, body."""
    body = encode_record(message, times)
    return topic, checksum(topic, body), body


def retained_message(row: Row, topics: TopicNames, times: Times) -> Message:
    """The message of a `retained_row`."""
    topic, crc, body = row
    opened((topic, body, crc))
    return decode_record(body, topics, times)


def queue_marks(row: Row) -> tuple[int, int, list[int], list[int], int]:
    """(queue_id, head, acknowledged, released, sent) of a row of `queue`: queue_id, head, marks, crc."""
    queue_id, head, marks, _ = opened(row)
    return (queue_id, head, *decode_marks(head, marks))
