"""What a store holds, in numbers: `read_status`.

Counts and sizes come from the tables without checking a single checksum; whether they can be believed is for
`verification`. Sizes of queues are read in short stretches of the table.
"""

from __future__ import annotations

import re
import sqlite3
from collections import defaultdict
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Final

from edge_broker.core.message import Message
from edge_broker.store.faults import READ_ERRORS, Damaged
from edge_broker.store.inspection import Inspection, Marks
from edge_broker.store.reserve import RESERVE_NAME
from edge_broker.store.schema import DATABASE_NAME, side_files
from edge_broker.store.times import Times
from edge_broker.store.vault import MissingKey

_ROWS_AT_ONCE: Final = 5_000
_SIZES: Final = """
SELECT id, queue_id, count, length(body), last_number - first_number + 1, last_number FROM segment NOT INDEXED
WHERE id > ? ORDER BY id LIMIT ?
"""
_SESSIONS: Final = """
SELECT client_id, identity, expiry_interval, disconnected_ms, will IS NOT NULL,
    (SELECT count(*) FROM subscription WHERE subscription.session_id = session.session_id),
    (SELECT count(*) FROM inbound WHERE inbound.session_id = session.session_id)
FROM session ORDER BY client_id
"""
_SET_ASIDE: Final = re.compile(re.escape(DATABASE_NAME) + r"(?:-wal)?\.damaged-(\d{8}-\d{6})(?:-\d+)?")


@dataclass(frozen=True, slots=True)
class QueueStatus:
    """What waits for one recipient.

    `depth`: messages not acknowledged, those known to be lost left out. `first` and `last`: the numbers between which
    they are, None where there are none. `oldest_at`, `newest_at`: when those came, wall seconds, None where it is not
    known. `bytes`: of the segments on disk, with what is acknowledged in them. `lost`: numbers given up in earlier
    damage and not passed yet.
    """

    name: str
    depth: int
    first: int | None
    last: int | None
    oldest_at: float | None
    newest_at: float | None
    segments: int
    bytes: int
    lost: int


@dataclass(frozen=True, slots=True)
class SessionStatus:
    """A durable session. `disconnected_at`: wall seconds, None while connected and after a crash. `expiry_interval` in
    seconds. `inbound`: packet identifiers of QoS 2 whose PUBREL has not come."""

    client_id: str
    identity: str
    expiry_interval: int
    disconnected_at: float | None
    has_will: bool
    subscriptions: int
    inbound: int


@dataclass(frozen=True, slots=True)
class SetAside:
    """A database, or a write-ahead log alone, that was damaged and set aside, with the files that belong to it. `at`: wall
    seconds.

    `report`: what was saved of it and what was lost, line by line.
    """

    file: str
    at: float
    bytes: int
    report: list[str] = field(default_factory=list)


@dataclass(frozen=True, slots=True)
class DamagedSegment:
    """A segment that could not be read and was taken out of its queue; it is kept in the table `damaged`."""

    queue: str
    first: int | None
    last: int | None


@dataclass(frozen=True, slots=True)
class StoreStatus:
    """Everything that `edge-broker store status` says. `holder`: the process id of whoever has it, a broker mostly;
    `holder_is` says what it is.

    Sizes in bytes; `free_bytes` are inside the database and used before it grows, `reserve_bytes` are kept for a full
    disk. `epoch`: the number of the last run. `log_problems`: what the next start will drop of a damaged write-ahead log.
    `keys`: ids of those that messages are encrypted with; without them the times of messages are not known.
    """

    directory: str
    holder: str | None
    schema_version: int
    epoch: int | None
    database_bytes: int
    free_bytes: int
    wal_bytes: int
    reserve_bytes: int
    queues: list[QueueStatus]
    sessions: list[SessionStatus]
    retained: int
    retained_bytes: int
    damaged: list[DamagedSegment]
    set_aside: list[SetAside]
    log_problems: list[str] = field(default_factory=list)
    holder_is: str | None = None
    keys: list[str] = field(default_factory=list)


@dataclass(slots=True)
class _Size:
    segments: int = 0
    bytes: int = 0


def read_status(inspection: Inspection) -> StoreStatus:
    """The status of an open store. Raises `sqlite3.Error` where its structure is damaged."""
    connection = inspection.connection
    names = inspection.owners()
    sizes, lost = _sizes(connection)
    queues = [
        _queue(inspection, queue_id, name, sizes[queue_id], lost[queue_id])
        for queue_id, name in names.items()
    ]
    with inspection.moment():
        free = _pragma(connection, "freelist_count") * _pragma(connection, "page_size")
        epoch = connection.execute("SELECT value FROM meta WHERE name = 'epoch'").fetchone()
        retained = connection.execute(
            "SELECT count(*), ifnull(sum(length(body)), 0) FROM retained"
        ).fetchone()
        times = inspection.times()
        sessions = [_session(row, times) for row in connection.execute(_SESSIONS)]
        damaged = connection.execute(
            "SELECT queue_id, first_number, last_number FROM damaged ORDER BY id"
        ).fetchall()
        version = _pragma(connection, "user_version")
    return StoreStatus(
        directory=str(inspection.directory),
        holder=inspection.holder.process if inspection.holder else None,
        keys=inspection.key_ids(),
        holder_is=inspection.holder.what if inspection.holder else None,
        schema_version=version,
        epoch=epoch[0] if epoch else None,
        database_bytes=_file_bytes(inspection.path),
        free_bytes=free,
        wal_bytes=_file_bytes(side_files(inspection.path)[0]),
        reserve_bytes=_file_bytes(inspection.directory / RESERVE_NAME),
        queues=sorted(queues, key=lambda queue: (-queue.depth, queue.name)),
        sessions=sessions,
        retained=retained[0],
        retained_bytes=retained[1],
        damaged=[DamagedSegment(names.get(row[0], f"lost:{row[0]}"), row[1], row[2]) for row in damaged],
        set_aside=sorted(_set_aside(inspection.directory), key=lambda aside: aside.file),
        log_problems=list(inspection.log_state.lines()),
    )


def _pragma(connection: sqlite3.Connection, name: str) -> int:
    return int(connection.execute(f"PRAGMA {name}").fetchone()[0])


def _sizes(connection: sqlite3.Connection) -> tuple[dict[int, _Size], dict[int, list[tuple[int, int]]]]:
    """By queue: what its segments take, and (count, last) of the stretches of numbers known to be lost."""
    sizes: dict[int, _Size] = defaultdict(_Size)
    lost: dict[int, list[tuple[int, int]]] = defaultdict(list)
    position = -1
    while page := connection.execute(_SIZES, (position, _ROWS_AT_ONCE)).fetchall():
        for _, queue_id, count, length, numbers, last in page:
            sizes[queue_id].segments += 1
            sizes[queue_id].bytes += length or 0
            if count == 0:
                lost[queue_id].append((numbers, last))
        position = page[-1][0]
    return sizes, lost


def _queue(
    inspection: Inspection, queue_id: int, name: str, size: _Size, lost: list[tuple[int, int]]
) -> QueueStatus:
    with inspection.moment():
        marks = inspection.marks(queue_id)
        last = max(inspection.last_number(queue_id), marks.head - 1, *marks.acknowledged, *marks.released)
        given_up = sum(min(count, end - marks.head + 1) for count, end in lost if end >= marks.head)
        depth = max(0, last - marks.head + 1 - len(marks.acknowledged) - given_up)
        waiting = depth + given_up > 0
        return QueueStatus(
            name=name,
            depth=depth,
            first=_first_waiting(marks) if waiting else None,
            last=last if waiting else None,
            oldest_at=_received_at(inspection, queue_id, _first_waiting(marks)) if depth else None,
            newest_at=_received_at(inspection, queue_id, last) if depth else None,
            segments=size.segments,
            bytes=size.bytes,
            lost=given_up,
        )


def _first_waiting(marks: Marks) -> int:
    number = marks.head
    while number in marks.acknowledged:
        number += 1
    return number


def _received_at(inspection: Inspection, queue_id: int, number: int) -> float | None:
    """When the message `number`, or the next one behind it in its segment, came; None where that cannot be read."""
    try:
        for place in inspection.places(queue_id, number, 1):
            found: list[tuple[int, Message]] = inspection.messages(queue_id, place)
            return next((message.received_at for at, message in found if at >= number), None)
    except (Damaged, MissingKey, *READ_ERRORS):
        return None
    return None


def _session(row: tuple[str, str, int, int | None, int, int, int], times: Times) -> SessionStatus:
    client_id, proved, expiry_interval, disconnected_ms, has_will, subscriptions, inbound = row
    return SessionStatus(
        client_id,
        proved.partition("\0")[0],  # user name and groups stand behind it
        expiry_interval,
        None if disconnected_ms is None else times.read(disconnected_ms),
        bool(has_will),
        subscriptions,
        inbound,
    )


def _file_bytes(path: Path) -> int:
    try:
        return path.stat().st_size
    except FileNotFoundError:
        return 0


def _set_aside(directory: Path) -> list[SetAside]:
    """The damaged databases that are kept, each with its side files."""
    files = {file.name: _file_bytes(file) for file in directory.iterdir() if ".damaged-" in file.name}
    found = []
    for name in files:
        matched = _SET_ASIDE.fullmatch(name)
        if matched:
            at = datetime.strptime(matched[1], "%Y%m%d-%H%M%S").replace(tzinfo=UTC).timestamp()
            beside = (f"{name}-wal", f"{name}-shm", f"{name}.first-page")
            size = files[name] + sum(files.get(one, 0) for one in beside)
            found.append(SetAside(name, at, size, _report_lines(directory / f"{name}.report")))
    return found


def _report_lines(path: Path) -> list[str]:
    try:
        return path.read_text("utf-8", "replace").splitlines()
    except OSError:
        return []  # of a version that wrote none
