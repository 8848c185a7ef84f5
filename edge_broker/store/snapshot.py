"""What the store holds, loaded at start: everything but the messages in queues, which are read later, in pages.

It reads the small tables whole, and of the segments only the last entry of each queue in their index, so a backlog of
millions does not delay the start. Rows whose checksum is wrong are left out and named; what belongs to a session that
is not there is left out too. A queue whose own row is unreadable starts at its oldest segment: its
recipient may see messages again, and misses none.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Final

from edge_broker.core.message import Message
from edge_broker.core.ops import QueueState, SessionRecord, Snapshot
from edge_broker.store import rows
from edge_broker.store.faults import Damaged
from edge_broker.store.schema import DamagedStore
from edge_broker.store.segment import TopicNames, decode_segment
from edge_broker.store.times import Times
from edge_broker.store.vault import Vault

_QUEUE_IDS: Final = """
WITH RECURSIVE owner(queue_id) AS (
    SELECT min(queue_id) FROM segment
    UNION ALL
    SELECT (SELECT min(queue_id) FROM segment WHERE queue_id > owner.queue_id) FROM owner WHERE queue_id IS NOT NULL
)
SELECT queue_id FROM owner WHERE queue_id IS NOT NULL
"""
_MAX_ID: Final = 1 << 48
"""Above any identifier that was ever given out; what claims to be one was not read right."""

_NEWEST: Final = (
    "SELECT queue_id, first_number, last_number, count, crc, body FROM segment ORDER BY id DESC LIMIT 1"
)
_FIRST: Final = "SELECT first_number FROM segment WHERE queue_id = ? ORDER BY first_number LIMIT 1"
_LAST: Final = "SELECT last_number FROM segment WHERE queue_id = ? ORDER BY first_number DESC LIMIT 1"


class SnapshotLoader:
    """Reads a `Snapshot` out of one connection.

    `damaged`: (table, first column) of each row left out. `ownerless`: queues with messages, but without a recipient.
    """

    def __init__(
        self, connection: sqlite3.Connection, topics: TopicNames, vault: Vault | None = None
    ) -> None:
        self._vault = vault or Vault()
        self._connection = connection
        self._topics = topics
        self._times = Times(0.0)
        self.damaged: list[tuple[str, object]] = []
        self.ownerless: list[int] = []

    def load(self, epoch: int, next_queue_id: int, times: Times) -> Snapshot:
        """The snapshot; `next_queue_id` is raised above every identifier that the tables show."""
        self._times = times
        sessions = self._sessions()
        known = {record.session_id for record in sessions}
        outboxes = self._outboxes()
        queues = self._queues(known | set(outboxes.values()))
        snapshot = Snapshot(
            epoch=epoch,
            sessions=sessions,
            subscriptions=[],
            queues=queues,
            outboxes=outboxes,
            retained=self._retained(),
            inbound=[],
            next_queue_id=max([next_queue_id - 1, *known, *outboxes.values(), *self._ids_in_use()]) + 1,
        )
        self._add_subscriptions(snapshot, known)
        self._add_inbound(snapshot, known | set(outboxes.values()))
        return snapshot

    def meta(self) -> dict[str, int]:
        """The store's own numbers, by name."""
        numbers = {}
        for row in self._connection.execute("SELECT name, value, crc FROM meta"):
            with self._checking("meta", row):
                name, value, _ = rows.opened(row)
                numbers[name] = value
        return numbers

    def newest(self, times: Times) -> float | None:
        """When the last message in a segment came, by `times`; None where there is none, or it cannot be read."""
        row = self._connection.execute(_NEWEST).fetchone()
        try:
            messages = (
                [] if row is None else decode_segment(self._vault.open_segment(row), self._topics, times)
            )
        except Damaged:
            return None  # whoever reads the queue hears of it
        return messages[-1][1].received_at if messages else None

    @contextmanager
    def _checking(self, table: str, row: rows.Row) -> Iterator[None]:
        """Leaves out `row`, which is worked on in the block, if it is damaged."""
        try:
            yield
        except Damaged:
            self.damaged.append((table, row[0]))

    def _sessions(self) -> list[SessionRecord]:
        records = []
        for row in self._connection.execute("SELECT * FROM session"):
            with self._checking("session", row):
                records.append(rows.session_record(self._vault.open_session(row), self._topics, self._times))
        return records

    def _outboxes(self) -> dict[str, int]:
        outboxes = {}
        for row in self._connection.execute("SELECT queue_id, name, crc FROM outbox"):
            with self._checking("outbox", row):
                queue_id, name, _ = rows.opened(row)
                outboxes[name] = queue_id
        return outboxes

    def _queues(self, known: set[int]) -> dict[int, QueueState]:
        states = {}
        for row in self._connection.execute("SELECT queue_id, head, marks, crc FROM queue"):
            with self._checking("queue", row):
                queue_id, head, acknowledged, released, sent = rows.queue_marks(row)
                states[queue_id] = self._state(queue_id, head, acknowledged, released, sent)
        for (queue_id,) in self._connection.execute(_QUEUE_IDS).fetchall():
            if queue_id not in states:
                first = self._number(_FIRST, queue_id)
                states[queue_id] = self._state(queue_id, 1 if first is None else first, [], [])
            if queue_id not in known:
                self.ownerless.append(queue_id)
        return {queue_id: state for queue_id, state in states.items() if queue_id in known}

    def _state(
        self, queue_id: int, head: int, acknowledged: list[int], released: list[int], sent: int = 0
    ) -> QueueState:
        last = self._number(_LAST, queue_id)
        marked = [numbers[-1] for numbers in (acknowledged, released) if numbers]
        next_number = max([head, *(number + 1 for number in marked), 1 if last is None else last + 1])
        return QueueState(
            queue_id, head, next_number, acknowledged, released, next_number - head - len(acknowledged), sent
        )

    def _number(self, select: str, queue_id: int) -> int | None:
        """The number that `select` finds of a queue in the index of its segments, None where it has none."""
        row = self._connection.execute(select, (queue_id,)).fetchone()
        if row is None:
            return None
        if type(row[0]) is not int:
            raise DamagedStore("the index of the segments holds something else than numbers")
        return row[0]

    def _retained(self) -> list[Message]:
        messages = []
        for row in self._connection.execute("SELECT topic, crc, body FROM retained"):
            with self._checking("retained", row):
                opened = self._vault.open_retained(row)
                messages.append(rows.retained_message(opened, self._topics, self._times))
        return messages

    def _add_subscriptions(self, snapshot: Snapshot, known: set[int]) -> None:
        for row in self._connection.execute("SELECT * FROM subscription"):
            with self._checking("subscription", row):
                record = rows.subscription_record(row)
                if record.session_id in known:
                    snapshot.subscriptions.append(record)

    def _add_inbound(self, snapshot: Snapshot, known: set[int]) -> None:
        for row in self._connection.execute("SELECT session_id, packet_id, crc FROM inbound"):
            with self._checking("inbound", row):
                session_id, packet_id, _ = rows.opened(row)
                if session_id in known:
                    snapshot.inbound.append((session_id, packet_id))

    def _ids_in_use(self) -> list[int]:
        """Every identifier that occurs anywhere, also where its owner is gone."""
        last = self._connection.execute(
            "SELECT max(queue_id) FROM segment UNION ALL SELECT max(queue_id) FROM queue"
            " UNION ALL SELECT max(session_id) FROM session UNION ALL SELECT max(queue_id) FROM outbox"
            " UNION ALL SELECT max(session_id) FROM subscription UNION ALL SELECT max(session_id) FROM inbound"
        )
        return [value for (value,) in last if type(value) is int and value < _MAX_ID]
