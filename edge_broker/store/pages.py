"""Reading a queue back in pages of whole segments, from committed rows only.

A page holds one segment, and then as many more as stay within its limits: a backlog of single messages comes in few
pages, one of full segments does not fill the memory.

A segment whose checksum is wrong is passed over: its numbers are left out of the page, which by the contract of `Page`
makes them lost, and it is named in `damaged` for the writer to take out of the way. Damage in the structure of the
database is raised instead: recovery saves more than a reader can.
"""

from __future__ import annotations

import sqlite3
from dataclasses import dataclass
from typing import Any, Final

from edge_broker.core.ops import Page
from edge_broker.store.faults import Damaged
from edge_broker.store.schema import DamagedStore
from edge_broker.store.segment import TopicNames, decode_segment
from edge_broker.store.times import Times
from edge_broker.store.vault import Vault

_PLACES: Final = """
SELECT id, first_number, last_number FROM segment
WHERE queue_id = :queue AND first_number >= coalesce(
    (SELECT max(first_number) FROM segment WHERE queue_id = :queue AND first_number <= :number), :number)
ORDER BY first_number
"""
# The body only if there is room for it; its length costs no reading.
_ROW: Final = """
SELECT queue_id, first_number, last_number, count, crc, CASE WHEN length(body) <= ? THEN body END
FROM segment WHERE id = ?
"""
_NO_LIMIT: Final = 1 << 62


@dataclass(slots=True)
class DamagedPlace:
    """A segment whose checksum is wrong: its row and the numbers that it held."""

    segment_id: int
    queue_id: int
    first_number: int
    last_number: int


class PageReader:
    """Reads pages over a connection that the caller gives, in that connection's thread.

    `pages_read` and `corrupt_segments` count; `damaged` lists what `corrupt_segments` counted and the writer has not
    heard of yet.
    """

    def __init__(self, topics: TopicNames, vault: Vault | None = None) -> None:
        self._topics = topics
        self._vault = vault or Vault()
        self._known_damaged: set[tuple[int, int]] = set()
        self.damaged: list[DamagedPlace] = []
        self.pages_read = 0
        self.corrupt_segments = 0

    def read(
        self,
        connection: sqlite3.Connection,
        queue_id: int,
        from_number: int,
        max_messages: int,
        max_bytes: int,
        times: Times,
    ) -> Page:
        """The page that begins at `from_number`; empty, with `end` there, if nothing is stored from there on."""
        page = Page(queue_id, [], from_number)
        self.pages_read += 1
        size_bytes = 0
        connection.execute("BEGIN")  # the index and the rows as of one moment
        places = connection.execute(_PLACES, {"queue": queue_id, "number": from_number})
        try:
            for segment_id, first, last in places:
                if type(first) is not int or type(last) is not int:
                    raise DamagedStore("the index of the segments holds something else than numbers")
                if last < from_number:
                    continue
                room = _NO_LIMIT if page.end == from_number else max_bytes - size_bytes
                if room <= 0 or len(page.messages) >= max_messages:
                    break
                row: tuple[Any, ...] | None = connection.execute(_ROW, (room, segment_id)).fetchone()
                if row is None or row[:3] != (queue_id, first, last):
                    raise DamagedStore("the index of the segments does not fit their rows")
                if row[5] is None and room < _NO_LIMIT:
                    break
                try:
                    opened = self._vault.open_segment(row)
                    page.messages += decode_segment(opened, self._topics, times, from_number)
                    size_bytes += len(row[5])
                except Damaged:
                    self._report(DamagedPlace(segment_id, queue_id, first, last))
                page.end = last + 1
        finally:
            places.close()
            if connection.in_transaction:
                connection.execute("COMMIT")
        return page

    def _report(self, place: DamagedPlace) -> None:
        key = (place.queue_id, place.first_number)
        if key not in self._known_damaged:
            self._known_damaged.add(key)
            self.corrupt_segments += 1
            self.damaged.append(place)
