"""Looking into a store from outside, beside a running broker or without one.

Everything goes over a read-only connection in short transactions: a reader that stays long would keep SQLite from
emptying the write-ahead log, and a gateway's disk would fill for somebody's curiosity. So what is said of different
tables may be of different moments while a broker runs; what is said of one queue is of one moment.

Nothing is created, repaired or moved. SQLite may leave its two side files next to the database of a stopped broker;
the next start takes them over. Where it may not, as on a card that is mounted read-only, it does without them.
"""

from __future__ import annotations

import os
import sqlite3
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Final, NamedTuple

from edge_broker.core.message import Message
from edge_broker.errors import StoreError
from edge_broker.store import rows
from edge_broker.store.clock import kept_deltas
from edge_broker.store.faults import READ_ERRORS, Damaged, explain, is_damage, primary_code
from edge_broker.store.lock import Holder, holder_of
from edge_broker.store.schema import DATABASE_NAME, DamagedStore, check, connect
from edge_broker.store.segment import SegmentRow, decode_segment, decode_volatile
from edge_broker.store.times import Times, wall_times
from edge_broker.store.vault import KEY_NAME, Vault
from edge_broker.store.write_ahead_log import LogState, examine
from edge_broker.wire.topics import TopicCache

QUEUE_IDS: Final = """
WITH RECURSIVE owner(queue_id) AS (
    SELECT min(queue_id) FROM segment
    UNION ALL
    SELECT (SELECT min(queue_id) FROM segment WHERE queue_id > owner.queue_id) FROM owner WHERE queue_id IS NOT NULL
)
SELECT queue_id FROM owner WHERE queue_id IS NOT NULL
"""
_PLACES: Final = """
SELECT id, first_number, last_number FROM segment INDEXED BY segment_place
WHERE queue_id = :queue AND first_number >= coalesce(
    (SELECT max(first_number) FROM segment WHERE queue_id = :queue AND first_number <= :number), :number)
ORDER BY first_number LIMIT :limit
"""
_LAST: Final = "SELECT last_number FROM segment WHERE queue_id = ? ORDER BY first_number DESC LIMIT 1"
_TIMELINES: Final = "SELECT name, value, crc FROM meta WHERE name LIKE 'timeline_delta:%'"
_ROW: Final = "SELECT queue_id, first_number, last_number, count, crc, body FROM segment WHERE id = ?"


class Marks(NamedTuple):
    """What of a queue is acknowledged: all below `head`, and `acknowledged` above it. `released` at QoS 2: PUBREL is next.

    `sound` is False where the queue's row cannot be believed; `head` is then its oldest segment's first number.
    """

    head: int
    acknowledged: frozenset[int]
    released: frozenset[int]
    sound: bool = True


class Place(NamedTuple):
    """A segment as the index knows it: its row, and the numbers that it covers."""

    segment_id: int
    first: int
    last: int


class Inspection:
    """The store in `directory`, open for reading. A context manager.

    `StoreError` where there is no store, it cannot be read or is not ours; `DamagedStore` or another `sqlite3.Error` where
    it is ours and broken. `holder`: the broker that runs on it, or whoever else has it, or None. `topics`: names seen so
    far. `log_state`: of the write-ahead log, where no broker writes to it.
    """

    def __init__(self, directory: Path, vault: Vault | None = None) -> None:
        self.directory = directory
        self.vault = vault or Vault()
        self.path = directory / DATABASE_NAME
        self.topics = TopicCache()
        self._times: tuple[int, Times] | None = None
        self.holder = self._look_for_holder()
        self.log_state = LogState() if self.holder else examine(self.path)
        self.connection = self._open()

    def __enter__(self) -> Inspection:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """Let go of the database."""
        self.connection.close()

    def _look_for_holder(self) -> Holder | None:
        try:
            if not self.path.exists():
                hint = "name the broker's data_dir, or its configuration file"
                if self.path.with_name(f"{DATABASE_NAME}.salvaged").exists():
                    hint = "a recovery was interrupted; starting the broker completes it"
                raise StoreError("open", f"there is no store in {self.directory}", hint)
            return holder_of(self.directory)
        except OSError as error:
            raise StoreError(
                "open", f"cannot read {self.directory}: {error.strerror}", "run this as the broker's user"
            ) from error

    def _open(self) -> sqlite3.Connection:
        if self.path.stat().st_size == 0:
            raise DamagedStore("the database file is empty")
        try:
            return self._checked(connect(self.path, read_only=True))
        except READ_ERRORS as error:
            if is_damage(error):
                raise
            if self._is_unwritable(error):
                return self._checked(connect(self.path, read_only=True, unwritable=True))
            if getattr(error, "sqlite_errorname", "") == "SQLITE_READONLY_ROLLBACK":
                raise StoreError(
                    "open",
                    "a write that was interrupted has to be undone first",
                    "starting the broker does that",
                ) from error
            raise explain("open", error) from error

    def _is_unwritable(self, error: BaseException) -> bool:
        """Whether SQLite failed because it may not make its side files, and nobody else has them."""
        codes = (sqlite3.SQLITE_CANTOPEN, sqlite3.SQLITE_READONLY)
        return primary_code(error) in codes and self.holder is None and not os.access(self.directory, os.W_OK)

    def _checked(self, connection: sqlite3.Connection) -> sqlite3.Connection:
        try:
            check(connection, self.path)
        except BaseException:
            connection.close()
            raise
        return connection

    @contextmanager
    def moment(self) -> Iterator[sqlite3.Connection]:
        """The database as of one moment. Keep it short."""
        self.connection.execute("BEGIN")
        try:
            yield self.connection
        finally:
            if self.connection.in_transaction:
                self.connection.execute("ROLLBACK")

    def key_ids(self) -> list[str]:
        """The ids of the keys that the store was written with; none where nothing is encrypted."""
        select = f"SELECT name FROM meta WHERE name LIKE '{KEY_NAME}%' ORDER BY name"
        return [str(name).removeprefix(KEY_NAME) for (name,) in self.connection.execute(select)]

    def check_keys(self) -> None:
        """`MissingKey` if one of them was not given."""
        self.vault.check({f"{KEY_NAME}{key_id}": 1 for key_id in self.key_ids()})

    # ---- queues

    def owners(self) -> dict[int, str]:
        """The name of every queue that has an owner, and of those with messages that have none, by its id.

        `bridge:` and the bridge's name, `session:` and the client identifier, `lost:` and the id where it has no owner;
        the broker's own (`$dead-letters`, `$delayed`) as they are.
        """
        with self.moment() as connection:
            names = {
                queue_id: name if name.startswith("$") else f"bridge:{name}"
                for queue_id, name in connection.execute("SELECT queue_id, name FROM outbox")
            }
            names |= {
                queue_id: f"session:{client_id}"
                for queue_id, client_id in connection.execute("SELECT session_id, client_id FROM session")
            }
            for (queue_id,) in connection.execute(QUEUE_IDS):
                names.setdefault(queue_id, f"lost:{queue_id}")
        return names

    def find_queue(self, name: str) -> int:
        """The id of the queue called `name`, with or without its kind in front; `StoreError` with those that there are."""
        owners = self.owners()
        exact = [queue_id for queue_id, known in owners.items() if known == name]
        found = exact or [queue_id for queue_id, known in owners.items() if known.partition(":")[2] == name]
        if len(found) == 1:
            return found[0]
        if found:
            named = " or ".join(owners[queue_id] for queue_id in found)
            raise StoreError("open", f"{name} is the name of more than one queue", f"say {named}")
        known = ", ".join(sorted(owners.values())[:20]) or "no queue at all"
        raise StoreError("open", f"there is no queue {name}", f"there is {known}")

    def marks(self, queue_id: int) -> Marks:
        """What of a queue is acknowledged, now; in a `moment` as of then."""
        select = "SELECT queue_id, head, marks, crc FROM queue WHERE queue_id = ?"
        row = self.connection.execute(select, (queue_id,)).fetchone()
        if row is not None:
            try:
                _, head, acknowledged, released = rows.queue_marks(row)[:4]
            except Damaged:
                return Marks(self._first_number(queue_id), frozenset(), frozenset(), sound=False)
            return Marks(head, frozenset(acknowledged), frozenset(released))
        return Marks(self._first_number(queue_id), frozenset(), frozenset())

    def last_number(self, queue_id: int) -> int:
        """The highest number stored; 0 where nothing is."""
        row = self.connection.execute(_LAST, (queue_id,)).fetchone()
        return row[0] if row is not None and type(row[0]) is int else 0

    def places(self, queue_id: int, number: int, limit: int) -> list[Place]:
        """At most `limit` segments in order, from the one that covers `number` on."""
        found = self.connection.execute(_PLACES, {"queue": queue_id, "number": number, "limit": limit})
        places = [Place(*row) for row in found]
        if not all(type(value) is int for place in places for value in place):
            raise DamagedStore("the index of the segments holds something else than numbers")
        return [place for place in places if place.last >= number]

    def segment(self, queue_id: int, place: Place) -> SegmentRow:
        """The row at `place`; `Damaged` where it is not there or another, `sqlite3.Error` where it cannot be read."""
        row: SegmentRow | None = self.connection.execute(_ROW, (place.segment_id,)).fetchone()
        if row is None:
            raise Damaged("the index has a row that the table has not")
        if row[:3] != (queue_id, place.first, place.last):
            raise Damaged("the index does not fit the row")
        return row

    def messages(self, queue_id: int, place: Place) -> list[tuple[int, Message]]:
        """(number, message) of the segment at `place`, with wall time in seconds; `Damaged`, `sqlite3.Error`."""
        return decode_segment(
            self.vault.open_segment(self.segment(queue_id, place)), self.topics, self.times()
        )

    def times(self) -> Times:
        """What stored times mean in wall seconds, as far as the broker that stored them has found out by now."""
        version = self.connection.execute("PRAGMA data_version").fetchone()[
            0
        ]  # another one after each commit
        if self._times is None or self._times[0] != version:
            self._times = version, self._read_times()
        return self._times[1]

    def _read_times(self) -> Times:
        kept = {}
        for row in self.connection.execute(_TIMELINES):
            try:
                name, value, _ = rows.opened(row)
            except Damaged:
                continue  # `verification` tells of it
            kept[name] = value
        return wall_times(kept_deltas(kept))

    def volatile(self, queue_id: int, place: Place) -> list[tuple[int, int]]:
        """(first, last) of numbers that the segment at `place` says are in no segment: they were kept in memory only."""
        return decode_volatile(self.vault.open_segment(self.segment(queue_id, place)))

    def _first_number(self, queue_id: int) -> int:
        select = "SELECT first_number FROM segment WHERE queue_id = ? ORDER BY first_number LIMIT 1"
        row = self.connection.execute(select, (queue_id,)).fetchone()
        return row[0] if row is not None and type(row[0]) is int else 1
