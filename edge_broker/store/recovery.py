"""It always starts: a damaged database is set aside, what is readable moves into a new one, and the loss is told.

The new database is built beside the old one, synced, and only then put in its place, in steps that a crash may
interrupt anywhere: a file named `.salvaged` is whole and waits for its place, one named `.salvaging` is not and is
thrown away. The damaged file stays, named `broker.db.damaged-` and the time, for whoever wants to look further.

A row is taken over only if its checksum holds. The numbers of a queue have no gaps, so what is missing from `head` on
and not acknowledged is lost, exactly; where the end of a queue is unreadable, the report says that more may be lost
behind it. Numbers known to be lost keep their place as tombstones and are not given out again.
"""

from __future__ import annotations

import errno
import logging
import os
import sqlite3
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from heapq import merge
from itertools import islice
from pathlib import Path
from typing import Final

from edge_broker.store import rows
from edge_broker.store.faults import Damaged, is_io_error
from edge_broker.store.salvage import SalvageSource
from edge_broker.store.schema import build_empty, move_into_place, side_files, sync, write_private
from edge_broker.store.segment import SegmentRow, is_intact, tombstone
from edge_broker.store.vault import KEY_NAME, key_ids

_log: Final = logging.getLogger(__name__)

_CHUNK_ROWS: Final = 64
_STRETCHES_TOLD: Final = 50

_SMALL_TABLES: Final = (
    # table, primary key, whether that is a whole number
    ("meta", "name", False),
    ("session", "session_id", True),
    ("subscription", "session_id, topic_filter", False),
    ("inbound", "session_id, packet_id", False),
    ("outbox", "queue_id", True),
    ("queue", "queue_id", True),
    ("retained", "topic", False),
)
_SEGMENT_COLUMNS: Final = "queue_id, first_number, last_number, count, crc, body"


@dataclass(slots=True)
class RecoveryReport:
    """What recovery found, in numbers that an operator can act on.

    `saved` and `damaged`: rows by table. `incomplete`: tables of which an unknown number of rows was unreadable.
    `saved_messages` and `lost`: by queue; the latter as (first, last) of each stretch, both included. `open_ended`:
    queues of which more may be lost behind the last number known. `unmarked`: queues of which it is lost what was
    acknowledged, with the first number that is left. `ownerless`: queues whose session or outbox is lost,
    with the messages that are still in the file set aside.
    """

    reason: str
    set_aside: Path
    saved: dict[str, int] = field(default_factory=dict)
    damaged: dict[str, int] = field(default_factory=dict)
    incomplete: set[str] = field(default_factory=set)
    saved_messages: dict[int, int] = field(default_factory=dict)
    lost: dict[int, list[tuple[int, int]]] = field(default_factory=dict)
    open_ended: set[int] = field(default_factory=set)
    unmarked: dict[int, int] = field(default_factory=dict)
    ownerless: dict[int, int] = field(default_factory=dict)

    @property
    def lost_messages(self) -> int:
        """How many messages are known to be lost."""
        return sum(last - first + 1 for stretches in self.lost.values() for first, last in stretches)

    def lines(self) -> Iterator[str]:
        """The report as text, most important first."""
        yield f"the store was damaged ({self.reason}); what was readable is in a new one"
        yield f"the damaged file is kept as {self.set_aside}; delete it when nothing of it is needed any more"
        yield "saved: " + ", ".join(f"{count} {table}" for table, count in self.saved.items())
        for queue_id, stretches in self.lost.items():
            told = ", ".join(f"{first} to {last}" for first, last in stretches[:_STRETCHES_TOLD])
            more = len(stretches) - _STRETCHES_TOLD
            yield f"queue {queue_id}: lost {told}" + (f" and {more} more stretches" if more > 0 else "")
        for queue_id in sorted(self.open_ended):
            yield f"queue {queue_id}: its end was unreadable, more may be lost behind its last number"
        for queue_id, first in self.unmarked.items():
            yield f"queue {queue_id}: its marks are lost; all from {first} on comes again, what was before may be lost"
        for queue_id, count in self.ownerless.items():
            yield f"queue {queue_id}: whose it was is lost, its {count} messages are in the damaged file only"
        for table, count in self.damaged.items():
            yield f"{table}: {count} rows with a wrong checksum were left out"
        for table in sorted(self.incomplete):
            yield f"{table}: some rows were unreadable"


def finish_interrupted(path: Path, stamp: str) -> None:
    """Complete or undo a recovery of the database at `path` that a crash interrupted."""
    _stage(path, "salvaging").unlink(missing_ok=True)
    if _stage(path, "salvaged").exists():
        _swap(path, _set_aside_name(path, stamp))


def recover(path: Path, reason: str, stamp: str, *, or_empty: bool) -> RecoveryReport:
    """Put a database with all that is readable in the place of the one at `path`; nobody may have it open.

    `stamp` names the file set aside. If there is no room for what was saved: with `or_empty` an empty database takes the
    place, else, and where the disk itself fails, `sqlite3.Error` or `OSError` is raised and the old one is still there.
    """
    path.touch(0o600)
    aside = _set_aside_name(path, stamp)
    try:
        report = _salvage(path, RecoveryReport(reason, aside))
    except (sqlite3.Error, OSError) as error:
        if not or_empty or is_io_error(error) or getattr(error, "errno", None) == errno.EIO:
            raise  # a disk that does not take it now may take it later: nothing is given up for that
        report = RecoveryReport(f"{reason}, and what was readable could not be written anew: {error}", aside)
        build_empty(_stage(path, "salvaging")).close()
    move_into_place(_stage(path, "salvaging"), _stage(path, "salvaged"))
    _swap(path, aside)
    return report


def tell(report: RecoveryReport, more: Iterable[str]) -> None:
    """Say what recovery did, and the lines of `more`: in the log, and beside the damaged file for whoever asks later."""
    lines = [*report.lines(), *more]
    for line in lines:
        _log.error("%s", line)
    aside = report.set_aside
    try:
        text = "\n".join([*lines, ""]).encode("utf-8", "replace")
        write_private(aside.with_name(f"{aside.name}.report"), text)
    except OSError as error:  # the log has it
        _log.warning("the report could not be written beside %s: %s", aside, error)


def _salvage(path: Path, report: RecoveryReport) -> RecoveryReport:
    """Fill a new database with what the one at `path` still shows."""
    source = SalvageSource(path)
    target = build_empty(_stage(path, "salvaging"))
    try:
        source.open()
        target.execute("BEGIN")
        for table, key, numeric in _SMALL_TABLES:
            _copy(table, source.numbered(table, key) if numeric else source.keyed(table, key), target, report)
        owned = {
            row[0]
            for row in target.execute("SELECT session_id FROM session UNION SELECT queue_id FROM outbox")
        }
        _copy_segments(source, target, owned, report)
        _account(source, target, owned, report)
        _remember_keys(target)
        target.execute("COMMIT")
    finally:
        source.close()
        target.close()
    report.incomplete = source.incomplete
    return report


def _stage(path: Path, stage: str) -> Path:
    return path.with_name(f"{path.name}.{stage}")


def _set_aside_name(path: Path, stamp: str) -> Path:
    """A name that is not taken yet."""
    name = path.with_name(f"{path.name}.damaged-{stamp}")
    number = 1
    while name.exists():
        number += 1
        name = path.with_name(f"{path.name}.damaged-{stamp}-{number}")
    return name


def _swap(path: Path, aside: Path) -> None:
    """The salvaged database takes its place; the damaged one and what belongs to it step aside."""
    for old, new in zip((*side_files(path), path), (*side_files(aside), aside), strict=True):
        if old.exists():
            os.replace(old, new)
    first_page = path.with_name(path.name + ".first-page")
    if first_page.exists():
        os.replace(first_page, aside.with_name(aside.name + ".first-page"))
    sync(path.parent)
    move_into_place(_stage(path, "salvaged"), path)


def _copy(table: str, found: Iterator[rows.Row], target: sqlite3.Connection, report: RecoveryReport) -> None:
    """Take over the rows of one of the small tables whose checksum holds."""
    for row in found:
        checked = (row[0], row[2], row[1]) if table == "retained" else row
        try:
            rows.opened(checked)
        except Damaged:
            report.damaged[table] = report.damaged.get(table, 0) + 1
            continue
        target.execute(f"INSERT OR IGNORE INTO {table} VALUES ({','.join('?' * len(row))})", row)
    report.saved[table] = target.execute(f"SELECT count(*) FROM {table}").fetchone()[0]


def _copy_segments(
    source: SalvageSource, target: sqlite3.Connection, owned: set[int], report: RecoveryReport
) -> None:
    """Take over the segments that are intact, still needed, and somebody's."""
    heads = dict(target.execute("SELECT queue_id, head FROM queue").fetchall())

    def needed() -> Iterator[SegmentRow]:
        row: SegmentRow
        for row in source.numbered("segment", "id", _SEGMENT_COLUMNS):
            queue_id, _, last, count, _, _ = row
            if not is_intact(row):
                report.damaged["segment"] = report.damaged.get("segment", 0) + 1
            elif queue_id not in owned:
                report.ownerless[queue_id] = report.ownerless.get(queue_id, 0) + count
            elif last >= heads.get(queue_id, 0):
                yield row

    segments = needed()
    while chunk := list(islice(segments, _CHUNK_ROWS)):
        target.executemany(f"INSERT OR IGNORE INTO segment ({_SEGMENT_COLUMNS}) VALUES (?,?,?,?,?,?)", chunk)
    report.saved["segment"] = target.execute("SELECT count(*) FROM segment").fetchone()[0]
    report.saved_messages = dict(
        target.execute("SELECT queue_id, sum(count) FROM segment GROUP BY 1").fetchall()
    )


def _account(
    source: SalvageSource, target: sqlite3.Connection, owned: set[int], report: RecoveryReport
) -> None:
    """Say for every queue which numbers are lost, and keep the place of those at its end."""
    states = {row[0]: row for row in target.execute("SELECT queue_id, head, marks, crc FROM queue")}
    target.executemany(
        "DELETE FROM queue WHERE queue_id = ?", [(number,) for number in states.keys() - owned]
    )
    for queue_id in sorted(owned):
        spans = (
            "SELECT first_number, last_number FROM segment INDEXED BY segment_place"
            " WHERE queue_id = ? ORDER BY first_number"
        )
        oldest = target.execute(f"{spans} LIMIT 1", (queue_id,)).fetchone()
        newest = target.execute(f"{spans} DESC LIMIT 1", (queue_id,)).fetchone()
        head = oldest[0] if oldest else 1
        acknowledged: list[int] = []
        if queue_id in states:
            _, head, acknowledged, _, _ = rows.queue_marks(states[queue_id])
        elif oldest:
            report.unmarked[queue_id] = head
        last = max([head - 1, *acknowledged[-1:], newest[1] if newest else 0])
        indexed = source.last_number(queue_id)
        if indexed is None or indexed > last + source.most_messages:
            report.open_ended.add(queue_id)
        else:
            last = max(last, indexed)
        lost = _missing(head, last, target.execute(spans, (queue_id,)), acknowledged)
        if lost:
            report.lost[queue_id] = lost
            if lost[-1][1] == last:
                row = tombstone(queue_id, *lost[-1])
                target.execute(f"INSERT INTO segment ({_SEGMENT_COLUMNS}) VALUES (?,?,?,?,?,?)", row)


def _remember_keys(target: sqlite3.Connection) -> None:
    """Note which keys the saved rows are sealed with, should the rows that said so be lost: a start asks for them."""
    beginnings = target.execute(
        "SELECT DISTINCT substr(body, 1, 16) FROM segment UNION SELECT DISTINCT substr(body, 1, 16) FROM retained"
        " UNION SELECT DISTINCT substr(will, 1, 16) FROM session"
    )
    for key_id in key_ids([beginning for (beginning,) in beginnings]):
        row = rows.sealed(f"{KEY_NAME}{key_id}", 1)
        target.execute("INSERT OR IGNORE INTO meta VALUES (?, ?, ?)", row)


def _missing(
    head: int, last: int, spans: Iterable[tuple[int, int]], acknowledged: list[int]
) -> list[tuple[int, int]]:
    """The numbers from `head` to `last` that are neither in `spans` nor acknowledged, as (first, last) of each stretch.

    Both come in order.
    """
    stretches: list[tuple[int, int]] = []
    number = head
    for first, end in merge(spans, ((done, done) for done in acknowledged), ((last + 1, last + 1),)):
        if first > number:
            stretches.append((number, first - 1))
        number = max(number, end + 1)
    return stretches
