"""The spool's rows: every SQL statement on readings, in one place.

The functions work inside the caller's transaction (`read_page` needs none) and let sqlite3.Error pass: what it means is
for spool.py to say. They know nothing of threads.
"""

import sqlite3
from collections.abc import Collection, Mapping, Sequence
from typing import Final, NamedTuple

from devices.encoding import EncodedReading

_REJECTED_KEPT: Final = 1000
_NO_LIMIT: Final = (1 << 63) - 1  # SQLite's largest integer


class SpooledReading(NamedTuple):
    """A reading and the number it has for good."""

    sequence: int
    reading: EncodedReading

    @property
    def size_bytes(self) -> int:
        return len(self.reading.payload)


def read_page(
    db: sqlite3.Connection, after: int, passed_over: Collection[int], max_readings: int, max_bytes: int
) -> tuple[list[SpooledReading], bool]:
    """The readings that follow `after`, at least one if there is one, and whether more follow behind them."""
    rows = db.execute(
        "SELECT sequence, topic, payload, content_type, qos FROM readings WHERE sequence > ? ORDER BY sequence",
        (after,),
    )
    page: list[SpooledReading] = []
    size = 0
    try:
        for sequence, *columns in rows:
            if sequence in passed_over:
                continue
            spooled = SpooledReading(sequence, EncodedReading(*columns))
            size += spooled.size_bytes
            if page and (len(page) >= max_readings or size > max_bytes):
                return page, True
            page.append(spooled)
        return page, False
    finally:
        rows.close()  # an open cursor would keep the WAL from being checkpointed


def insert_readings(db: sqlite3.Connection, arrived: Sequence[SpooledReading]) -> None:
    db.executemany(
        "INSERT INTO readings (sequence, topic, payload, content_type, qos) VALUES (?, ?, ?, ?, ?)",
        [(spooled.sequence, *spooled.reading) for spooled in arrived],
    )


def remove_settled(db: sqlite3.Connection, settled: Collection[int], rejections: Mapping[int, str]) -> None:
    """Delete what is settled; the rejected move to a table that keeps the newest thousand of them."""
    if rejections:
        db.executemany(
            "INSERT OR IGNORE INTO rejected (sequence, topic, payload, content_type, qos, reason)"
            " SELECT sequence, topic, payload, content_type, qos, ? FROM readings WHERE sequence = ?",
            [(reason, sequence) for sequence, reason in rejections.items()],
        )
        db.execute(
            "DELETE FROM rejected WHERE sequence NOT IN (SELECT sequence FROM rejected ORDER BY sequence DESC LIMIT ?)",
            (_REJECTED_KEPT,),
        )
    db.executemany("DELETE FROM readings WHERE sequence = ?", [(sequence,) for sequence in settled])


def drop_oldest(
    db: sqlite3.Connection, excess_readings: int, excess_bytes: int, in_flight_up_to: int, newest_from: int
) -> dict[int, int]:
    """Drop as many readings as needed, the oldest first, and return the size of each by its number.

    Those on their way (up to `in_flight_up_to`) come after all others that were there, for they may have arrived; those
    that just came in (from `newest_from` on) go only where they alone are too many.
    """
    doomed: dict[int, int] = {}
    for first, last in (
        (in_flight_up_to + 1, newest_from - 1),
        (0, in_flight_up_to),
        (newest_from, _NO_LIMIT),
    ):
        if excess_readings <= 0 and excess_bytes <= 0:
            break
        rows = db.execute(
            "SELECT sequence, length(payload) FROM readings WHERE sequence BETWEEN ? AND ? ORDER BY sequence",
            (first, last),
        )
        for sequence, size in rows:
            doomed[sequence] = size
            excess_readings -= 1
            excess_bytes -= size
            if excess_readings <= 0 and excess_bytes <= 0:
                break
        rows.close()
    db.executemany("DELETE FROM readings WHERE sequence = ?", [(sequence,) for sequence in doomed])
    return doomed


def write_meta(db: sqlite3.Connection, name: str, value: int) -> None:
    db.execute("UPDATE meta SET value = ? WHERE name = ?", (value, name))


def read_rejected(db: sqlite3.Connection) -> list[tuple[SpooledReading, str]]:
    rows = db.execute(
        "SELECT sequence, topic, payload, content_type, qos, reason FROM rejected ORDER BY sequence"
    )
    return [(SpooledReading(row[0], EncodedReading(*row[1:5])), row[5]) for row in rows]


def count_readings(db: sqlite3.Connection) -> tuple[int, int, int]:
    """How many readings wait, the bytes of their payloads, and the newest one's number (0 if there is none)."""
    count, size, newest = db.execute(
        "SELECT count(*), coalesce(sum(length(payload)), 0), coalesce(max(sequence), 0) FROM readings"
    ).fetchone()
    return count, size, newest
