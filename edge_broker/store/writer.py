"""One `Batch` into the database: a transaction, whole or not at all.

The same batch may be written twice: after an error it can be unknown whether its commit reached the disk, and it is
tried again. Every statement is therefore one that changes nothing the second time. Rows go in by statements of many
rows each, because each step of SQLite hands the interpreter's lock over and has to win it back from the event loop.

A queue's row is written only when its head or marks changed, and segments are looked for below the head only when it
moved: appending costs the pages of the segment and of its index, and no more.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Mapping, Sequence
from functools import cache
from typing import Final

from edge_broker.core.ops import Batch, QueueWrite
from edge_broker.store import rows
from edge_broker.store.marks import encode_marks
from edge_broker.store.pages import DamagedPlace
from edge_broker.store.segment import SegmentRow, encode_segments, tombstone, with_volatile
from edge_broker.store.times import Times
from edge_broker.store.vault import Vault

_CHUNK_SIZES: Final = (128, 32, 8, 2, 1)
"""Rows per statement. Few sizes, so that SQLite's prepared statements are found again."""

_MAX_DAMAGED_KEPT: Final = 64
"""Damaged segments kept for inspection; of later ones only the place is kept."""

_IDS_AT_ONCE: Final = 1_000

MetaChanges = Mapping[str, int | None]
"""The store's own numbers that change, by name; None for one that goes."""

_SEGMENTS: Final = "REPLACE INTO segment (queue_id, first_number, last_number, count, crc, body) VALUES {}"
_QUEUES: Final = """
INSERT INTO queue (queue_id, head, marks, crc) VALUES {}
ON CONFLICT DO UPDATE SET head = excluded.head, marks = excluded.marks, crc = excluded.crc
"""
_STORED_BELOW: Final = """
SELECT coalesce((SELECT last_number FROM segment WHERE queue_id = ? ORDER BY first_number DESC LIMIT 1), 0) + 1
"""
_ASKED_AT_ONCE: Final = 4
_NO_NUMBER: Final = 1 << 62
_BELOW_HEADS: Final = """
WITH done(queue_id, head) AS (VALUES {})
DELETE FROM segment WHERE id IN (
    SELECT id FROM done CROSS JOIN segment USING (queue_id) WHERE first_number < head AND last_number < head)
"""
_SESSIONS: Final = "REPLACE INTO session VALUES {}"
_SUBSCRIPTIONS: Final = "REPLACE INTO subscription VALUES {}"
_NO_SUBSCRIPTIONS: Final = "DELETE FROM subscription WHERE (session_id, topic_filter) IN (VALUES {})"
_OUTBOXES: Final = "REPLACE INTO outbox VALUES {}"
_RETAINED: Final = "REPLACE INTO retained VALUES {}"
_NOT_RETAINED: Final = "DELETE FROM retained WHERE topic IN (VALUES {})"
_INBOUND: Final = "REPLACE INTO inbound VALUES {}"
_NO_INBOUND: Final = "DELETE FROM inbound WHERE (session_id, packet_id) IN (VALUES {})"
_OF_SESSION: Final = (
    "DELETE FROM session WHERE session_id IN (VALUES {})",
    "DELETE FROM subscription WHERE session_id IN (VALUES {})",
    "DELETE FROM inbound WHERE session_id IN (VALUES {})",
    "DELETE FROM queue WHERE queue_id IN (VALUES {})",
    "DELETE FROM segment WHERE queue_id IN (VALUES {})",
)


class Writer:
    """Applies batches over a connection that the caller gives, in that connection's thread. Counts what it wrote."""

    def __init__(self, vault: Vault | None = None) -> None:
        self._vault = vault or Vault()
        self._known: dict[int, tuple[int, bytes]] = {}  # head and marks as we wrote them, by queue
        self._stored_below: dict[int, int] = {}  # no message of a queue has this number or a higher one
        self.ids_below = 0  # identifiers below it count as given out, whatever becomes of their queues
        self.damaged: list[DamagedPlace] = []  # to be taken out of the way by the next transaction
        self.messages_written = 0
        self.segments_written = 0
        self.segment_bytes_written = 0

    def forget(self) -> None:
        """The tables may not be as they were written: write every queue's row anew when it next comes."""
        self._known.clear()
        self._stored_below.clear()

    def apply(self, connection: sqlite3.Connection, batch: Batch, times: Times, meta: MetaChanges) -> bool:
        """Have `batch` on the disk, or nothing of it and an `sqlite3.Error`.

        `meta` goes with it; returns False where there was nothing to write, and it waits for another batch.
        """
        segments = [row for write in batch.queues if write.messages for row in _segments(write, times)]
        segments = self._vault.seal_segments(segments)
        changed = self._changed_queues(batch.queues)
        damaged = len(self.damaged)
        if not (segments or changed or damaged or _changes_more_than_queues(batch)):
            return False
        connection.execute("BEGIN IMMEDIATE")
        try:
            _remove_sessions(connection, batch.removed_sessions)
            if damaged:
                _bury(connection, self.damaged[:damaged])
            self._write_queues(connection, changed)
            _write(connection, _SEGMENTS, segments)
            _write_sessions(connection, batch, times, self._vault)
            ids_below = self._give_out_ids(connection, batch)
            _write_retained(connection, batch, times, self._vault)
            write_meta(connection, meta)
            stored_below = self._ask_what_is_stored(connection, changed)
            connection.execute("COMMIT")
        except BaseException:
            if connection.in_transaction:
                connection.rollback()
            raise
        self.ids_below = ids_below
        del self.damaged[:damaged]
        self._note(batch, segments, changed, stored_below)
        return True

    def _changed_queues(self, writes: list[QueueWrite]) -> list[tuple[int, int, bytes]]:
        """(queue_id, head, marks) of those queues whose row is not in the table as it should be."""
        changed = []
        for write in writes:
            marks = encode_marks(write.head, write.acknowledged, write.released, write.sent)
            known = self._known.get(write.queue_id)
            if known != (write.head, marks) and not (known and self._says_nothing(write, marks, known)):
                changed.append((write.queue_id, write.head, marks))
        return changed

    def _says_nothing(self, write: QueueWrite, marks: bytes, known: tuple[int, bytes]) -> bool:
        """Whether only messages that were never written were acknowledged: the head would move over nothing.

        So it is with a subscriber that is there and quick, at each commit for somebody else. After a crash the queue goes
        on from the old head, and gives out numbers again that nobody waits for.
        """
        return (
            not (write.messages or marks or known[1])
            and self._stored_below.get(write.queue_id, _NO_NUMBER) <= known[0]
        )

    def _write_queues(self, connection: sqlite3.Connection, changed: list[tuple[int, int, bytes]]) -> None:
        """Heads and marks; what lies below a head that moved goes first, so that its pages are used again."""
        moved = []
        for queue_id, head, _ in changed:
            before = self._known.get(queue_id)
            if before is None or before[0] != head:
                moved.append((queue_id, head))
        _write(connection, _BELOW_HEADS, moved)
        _write(connection, _QUEUES, [rows.sealed(*queue) for queue in changed])

    def _give_out_ids(self, connection: sqlite3.Connection, batch: Batch) -> int:
        """Note that new identifiers are in use, for many at once; returns the new `ids_below`."""
        highest = max(
            [record.session_id for record in batch.sessions] + [queue_id for queue_id, _ in batch.outboxes],
            default=-1,
        )
        if highest < self.ids_below:
            return self.ids_below
        ids_below = highest + _IDS_AT_ONCE
        connection.execute("REPLACE INTO meta VALUES (?, ?, ?)", rows.sealed("next_queue_id", ids_below))
        return ids_below

    def _ask_what_is_stored(
        self, connection: sqlite3.Connection, changed: list[tuple[int, int, bytes]]
    ) -> dict[int, int]:
        """Below what the numbers of queues lie that are new to us: once for each, and of a few in each commit."""
        new = [queue_id for queue_id, _, _ in changed if queue_id not in self._stored_below]
        return {
            queue_id: connection.execute(_STORED_BELOW, (queue_id,)).fetchone()[0]
            for queue_id in new[:_ASKED_AT_ONCE]
        }

    def _note(
        self,
        batch: Batch,
        segments: list[SegmentRow],
        changed: list[tuple[int, int, bytes]],
        stored_below: dict[int, int],
    ) -> None:
        """The transaction is on the disk."""
        for session_id in batch.removed_sessions:
            self._known.pop(session_id, None)
            self._stored_below.pop(session_id, None)
        for queue_id, head, marks in changed:
            self._known[queue_id] = (head, marks)
        self._stored_below |= stored_below
        for write in batch.queues:
            if write.messages:
                self._stored_below[write.queue_id] = write.messages[-1][0] + 1
        self.segments_written += len(segments)
        for segment in segments:
            self.messages_written += segment[3]
            self.segment_bytes_written += len(segment[5])


def write_meta(connection: sqlite3.Connection, meta: MetaChanges) -> None:
    """Change the store's own numbers; None deletes one. In the caller's transaction."""
    removed = [(name,) for name, value in meta.items() if value is None]
    _write(connection, "DELETE FROM meta WHERE name IN (VALUES {})", removed)
    kept = [rows.sealed(name, value) for name, value in meta.items() if value is not None]
    _write(connection, "REPLACE INTO meta VALUES {}", kept)


def needs_room(batch: Batch) -> bool:
    """Whether `batch` adds anything; acknowledgements of queues alone do not."""
    return _changes_more_than_queues(batch) or any(write.messages for write in batch.queues)


def _changes_more_than_queues(batch: Batch) -> bool:
    return bool(
        batch.removed_sessions
        or batch.sessions
        or batch.removed_subscriptions
        or batch.subscriptions
        or batch.outboxes
        or batch.retained
        or batch.inbound
    )


def _segments(write: QueueWrite, times: Times) -> list[SegmentRow]:
    rows = encode_segments(write.queue_id, write.messages, times)
    return with_volatile(rows, write.volatile) if write.volatile else rows


def _remove_sessions(connection: sqlite3.Connection, session_ids: list[int]) -> None:
    removed = [(session_id,) for session_id in session_ids]
    for statement in _OF_SESSION:
        _write(connection, statement, removed)


def _write_sessions(connection: sqlite3.Connection, batch: Batch, times: Times, vault: Vault) -> None:
    _write(connection, _OUTBOXES, [rows.sealed(queue_id, name) for queue_id, name in batch.outboxes])
    sessions = [vault.seal_session(rows.session_row(record, times)) for record in batch.sessions]
    _write(connection, _SESSIONS, sessions)
    _write(connection, _NO_SUBSCRIPTIONS, batch.removed_subscriptions)
    _write(connection, _SUBSCRIPTIONS, [rows.subscription_row(record) for record in batch.subscriptions])
    _write(connection, _NO_INBOUND, [key for key, held in batch.inbound.items() if not held])
    _write(connection, _INBOUND, [rows.sealed(*key) for key, held in batch.inbound.items() if held])


def _write_retained(connection: sqlite3.Connection, batch: Batch, times: Times, vault: Vault) -> None:
    """Where there are keys, a topic's row may be there under each of them."""
    gone = [topic for topic, message in batch.retained.items() if message is None or vault.has_keys]
    _write(connection, _NOT_RETAINED, [(key,) for topic in gone for key in vault.retained_keys(topic)])
    _write(
        connection,
        _RETAINED,
        [
            vault.seal_retained(rows.retained_row(topic, message, times))
            for topic, message in batch.retained.items()
            if message is not None
        ],
    )


def _bury(connection: sqlite3.Connection, places: list[DamagedPlace]) -> None:
    """Put aside segments that cannot be read, and leave in their place that their numbers are lost."""
    kept = connection.execute("SELECT count(*) FROM damaged").fetchone()[0]
    for place in places[: max(0, _MAX_DAMAGED_KEPT - kept)]:
        connection.execute(
            "INSERT INTO damaged (queue_id, first_number, last_number, count, crc, body)"
            " SELECT queue_id, first_number, last_number, count, crc, body FROM segment"
            " WHERE id = ? AND queue_id = ? AND first_number = ?",
            (place.segment_id, place.queue_id, place.first_number),
        )
    stones = [tombstone(place.queue_id, place.first_number, place.last_number) for place in places]
    connection.executemany(
        "UPDATE segment SET last_number = ?, count = ?, crc = ?, body = ? WHERE queue_id = ? AND first_number = ?",
        [(last, count, crc, body, queue_id, first) for queue_id, first, last, count, crc, body in stones],
    )


def _write(connection: sqlite3.Connection, statement: str, values: Sequence[Sequence[object]]) -> None:
    """Execute `statement` with `{}` replaced by the rows of `values`, in as few steps as the chunk sizes allow."""
    at = 0
    for size in _CHUNK_SIZES:
        while len(values) - at >= size:
            chunk = values[at : at + size]
            connection.execute(
                _sql(statement, len(chunk[0]), size), [value for row in chunk for value in row]
            )
            at += size


@cache
def _sql(statement: str, columns: int, size: int) -> str:
    return statement.format(",".join([f"({','.join('?' * columns)})"] * size))
