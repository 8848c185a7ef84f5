"""Is everything in a store as it was written? `verify` reads every row and says exactly what is not.

Three things are looked at. The *rows*: each has a checksum, and must decode to what it claims to be. The *queues*: from
the head on, each number is in a segment, or acknowledged, or known to be lost, or was kept in memory only, which the next
segment says; anything else is missing. The *structure* of the database, by SQLite's own `integrity_check`: that takes one
transaction for the whole file, so beside a running broker it is left out where the file is large, unless it is asked for.

It changes nothing. What is damaged is mended by the broker itself: single segments when it comes to them, the rest by
`recovery`.
"""

from __future__ import annotations

import contextlib
import sqlite3
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

from edge_broker.core.message import Message
from edge_broker.store import rows
from edge_broker.store.faults import READ_ERRORS, Damaged, is_damage, is_io_error
from edge_broker.store.inspection import Inspection, Marks, Place
from edge_broker.store.readback import read_back
from edge_broker.store.schema import DATABASE_NAME
from edge_broker.store.times import Times
from edge_broker.store.vault import Vault

WHOLE_CHECK_BYTES: Final = 64 << 20
"""Up to this size the structure is checked beside a running broker too: a second at most on an SD card."""

_ROWS_AT_ONCE: Final = 500
_PLACES_AT_ONCE: Final = 64
_BODY_BYTES_AT_ONCE: Final = 2 << 20
_PROBLEMS_TOLD: Final = 100
_TABLES: Final = (
    # table, primary key
    ("meta", "name"),
    ("session", "session_id"),
    ("subscription", "session_id, topic_filter"),
    ("inbound", "session_id, packet_id"),
    ("outbox", "queue_id"),
    ("queue", "queue_id"),
    ("retained", "topic"),
)
_OWNERLESS: Final = (
    ("subscription", "session_id NOT IN (SELECT session_id FROM session)"),
    ("inbound", "session_id NOT IN (SELECT session_id FROM session UNION SELECT queue_id FROM outbox)"),
    ("queue", "queue_id NOT IN (SELECT session_id FROM session UNION SELECT queue_id FROM outbox)"),
)

Stretch = tuple[int, int]
"""The first and the last of numbers that follow each other."""


@dataclass(slots=True)
class QueueFindings:
    """What is wrong with one queue. `damaged`: numbers of segments that cannot be read, and why. `missing`: numbers that
    are nowhere. `not_on_disk`: likewise, since they were kept in memory only, by choice. `lost_before`: given up in damage
    that was dealt with already, which is no fault of the file. `unreadable`: why nothing is known from `unreadable_from`
    on."""

    messages: int = 0
    damaged: list[tuple[int, int, str]] = field(default_factory=list)
    missing: list[Stretch] = field(default_factory=list)
    not_on_disk: list[Stretch] = field(default_factory=list)
    lost_before: list[Stretch] = field(default_factory=list)
    unreadable: str = ""
    unreadable_from: int = 0

    @property
    def sound(self) -> bool:
        """Whether every number is accounted for."""
        return not (self.damaged or self.missing or self.unreadable)


@dataclass(slots=True)
class Verification:
    """What was found. `rows`: read, by table. `problems`: what is wrong beside the queues. `structure_checked`: whether
    SQLite's own check was made."""

    rows: dict[str, int] = field(default_factory=dict)
    queues: dict[str, QueueFindings] = field(default_factory=dict)
    problems: list[str] = field(default_factory=list)
    structure_checked: bool = False

    @property
    def sound(self) -> bool:
        """Whether everything is as it was written."""
        return not self.problems and all(found.sound for found in self.queues.values())

    @property
    def messages(self) -> int:
        """Messages read in queues."""
        return sum(found.messages for found in self.queues.values())

    def lines(self) -> Iterator[str]:
        """What is wrong, and what was lost before, a line each."""
        yield from self.problems[:_PROBLEMS_TOLD]
        if len(self.problems) > _PROBLEMS_TOLD:
            yield f"and {len(self.problems) - _PROBLEMS_TOLD} more problems"
        for name, found in self.queues.items():
            for first, last, why in found.damaged:
                yield f"{name}: messages {first} to {last} cannot be read: {why}"
            for first, last in found.missing:
                yield f"{name}: messages {first} to {last} are missing"
            for first, last in found.not_on_disk:
                yield f"{name}: messages {first} to {last} are on no disk: they were kept in memory only"
            if found.unreadable:
                yield f"{name}: nothing is known from {found.unreadable_from} on: {found.unreadable}"
            for first, last in found.lost_before:
                yield f"{name}: messages {first} to {last} were lost before, and reported then"


def verify(
    directory: Path,
    *,
    whole: bool | None = None,
    vault: Vault | None = None,
    progress: Callable[[int], None] = lambda _: None,
) -> Verification:
    """Read the whole store in `directory`. `whole`: whether to have SQLite check its structure; None decides by itself.

    `progress` is called with the messages read so far. Raises `StoreError` where there is nothing that could be
    verified, or a key is missing.
    """
    found = Verification()
    try:
        with Inspection(directory, vault) as inspection:
            with contextlib.suppress(*READ_ERRORS):  # `meta` is complained of further down
                inspection.check_keys()
            _Verifier(inspection, found, progress).run(whole)
    except READ_ERRORS as error:
        if not is_damage(error) and not is_io_error(error):
            raise
        found.problems.append(f"the database cannot be opened: {error}")
    if not found.sound:
        _blame_the_disk(directory / DATABASE_NAME, found)
    return found


def _blame_the_disk(path: Path, found: Verification) -> None:
    """SQLite calls damaged what the disk does not give; say so where that is what it was."""
    refused = read_back(path)
    if refused.refused:
        file, place = refused.refused[0]
        found.problems.append(
            f"the disk refuses to give {file.name} at byte {place}: {refused.why} ({len(refused.refused)} pages in all);"
            " what seems damaged may be whole, look at the kernel's log (dmesg)"
        )


class _Verifier:
    """One verification under way."""

    def __init__(self, inspection: Inspection, found: Verification, progress: Callable[[int], None]) -> None:
        self._inspection, self._found, self._progress = inspection, found, progress
        self._read = 0

    def run(self, whole: bool | None) -> None:
        inspection, found = self._inspection, self._found
        if (
            inspection.log_state.lost_commits
        ):  # one that the power cut off is no fault: nobody was told that it is there
            found.problems.extend(inspection.log_state.lines())
        for table, key in _TABLES:
            self._check_table(table, key)
        self._check_owners()
        try:
            names = inspection.owners()
        except READ_ERRORS as error:
            found.problems.append(f"the queues cannot be listed: {error}")
            names = {}
        for queue_id, name in names.items():
            found.queues[name] = QueueFindings()
            self._check_queue(queue_id, found.queues[name])
            if name.startswith("lost:"):
                messages = found.queues[name].messages
                found.problems.append(
                    f"queue {queue_id} holds {messages} messages, but whose it was is not there"
                )
        if whole is None:
            whole = inspection.holder is None or inspection.path.stat().st_size <= WHOLE_CHECK_BYTES
        if whole:
            self._check_structure()

    # ---- small tables

    def _check_table(self, table: str, key: str) -> None:
        """Every row of a small table; each page is a transaction of its own."""
        keys = key.count(",") + 1
        select = f"SELECT {key}, * FROM {table} {{}} ORDER BY {key} LIMIT {_ROWS_AT_ONCE}"
        behind = f"WHERE ({key}) > ({', '.join('?' * keys)})"
        last: tuple[Any, ...] = ()
        count = 0
        try:
            while page := self._page(select.format(behind if last else ""), last):
                for row in page:
                    self._check_row(table, row[:keys], row[keys:])
                count += len(page)
                last = page[-1][:keys]
        except (
            *READ_ERRORS,
            UnicodeEncodeError,
        ) as error:  # the latter where a damaged key is to be asked for
            after = f" behind {_shown(last)}" if last else ""
            self._found.problems.append(f"table {table}: its rows{after} cannot be read: {error}")
        self._found.rows[table] = count

    def _page(self, select: str, values: tuple[Any, ...]) -> list[tuple[Any, ...]]:
        return self._inspection.connection.execute(select, values).fetchall()

    def _check_row(self, table: str, key: tuple[Any, ...], row: tuple[Any, ...]) -> None:
        topics, vault = self._inspection.topics, self._inspection.vault
        try:
            if table == "session":
                rows.session_record(vault.open_session(row), topics, Times(0.0))
            elif table == "subscription":
                rows.subscription_record(row)
            elif table == "queue":
                rows.queue_marks(row)
            elif table == "retained":
                rows.retained_message(vault.open_retained(row), topics, Times(0.0))
            else:
                rows.opened(row)
        except (Damaged, TypeError, ValueError) as error:
            self._found.problems.append(f"table {table}: the row {_shown(key)} is damaged: {error}")

    def _check_owners(self) -> None:
        """Rows that belong to nobody: their owner's row is lost."""
        for table, condition in _OWNERLESS:
            try:
                count = self._page(f"SELECT count(*) FROM {table} WHERE {condition}", ())[0][0]
            except READ_ERRORS:
                continue  # the table itself was complained of
            if count:
                self._found.problems.append(f"table {table}: {count} rows belong to no session and no bridge")

    # ---- queues

    def _check_queue(self, queue_id: int, found: QueueFindings) -> None:
        """Every segment, some at a time; the marks are read in the same moment, because a running broker moves both."""
        number, begun = 0, False
        while True:
            try:
                with self._inspection.moment():
                    marks = self._inspection.marks(queue_id)
                    number = max(number, marks.head) if begun else marks.head
                    begun = True
                    behind = self._check_stretch(queue_id, number, marks, found)
            except READ_ERRORS as error:
                found.unreadable, found.unreadable_from = str(error), number
                return
            self._progress(self._read)
            if behind == number:
                return
            number = behind

    def _check_stretch(self, queue_id: int, number: int, marks: Marks, found: QueueFindings) -> int:
        """Some segments from `number` on; the number behind them, `number` where there are none."""
        size_bytes = 0
        for place in self._inspection.places(queue_id, number, _PLACES_AT_ONCE):
            if size_bytes > _BODY_BYTES_AT_ONCE:
                break
            messages: list[tuple[int, Message]] | None = None
            volatile: list[Stretch] = []
            try:
                messages = self._inspection.messages(queue_id, place)
                volatile = self._inspection.volatile(queue_id, place)
            except (Damaged, *READ_ERRORS) as error:
                found.damaged.append((max(number, place.first), place.last, str(error)))
            if place.first > number and marks.sound:
                self._miss(found, number, place.first - 1, marks, volatile)
            if messages is not None:
                size_bytes += sum(len(message.frame) for _, message in messages)
                self._account(place, number, messages, marks, volatile, found)
            number = place.last + 1
        return number

    def _account(
        self,
        place: Place,
        number: int,
        messages: list[tuple[int, Message]],
        marks: Marks,
        volatile: list[Stretch],
        found: QueueFindings,
    ) -> None:
        """What the segment at `place` has of the numbers from `number` on."""
        expected = max(number, place.first)
        if not messages:
            found.lost_before.append((expected, place.last))
            return
        self._read += len(messages)
        for present, _ in messages:
            if present < expected:
                continue
            found.messages += present not in marks.acknowledged
            if present > expected and marks.sound:
                self._miss(found, expected, present - 1, marks, volatile)
            expected = present + 1

    def _miss(
        self, found: QueueFindings, first: int, last: int, marks: Marks, volatile: list[Stretch]
    ) -> None:
        """The numbers from `first` to `last` are in no segment; the one behind them says which were `volatile`."""
        done = sorted(number for number in marks.acknowledged if first <= number <= last)
        stretches = _without(first, last, [(number, number) for number in done])
        for start, end in stretches:
            left = _without(start, end, volatile)
            found.not_on_disk += _without(start, end, left)
            found.missing += left

    # ---- structure

    def _check_structure(self) -> None:
        try:
            for (line,) in self._inspection.connection.execute(f"PRAGMA integrity_check({_PROBLEMS_TOLD})"):
                if line != "ok":
                    self._found.problems.append(f"structure: {line}")
        except sqlite3.Error as error:
            self._found.problems.append(f"structure: {error}")
        self._found.structure_checked = True


def _without(first: int, last: int, stretches: list[Stretch]) -> list[Stretch]:
    """The numbers from `first` to `last` that are in none of `stretches`, which are in order, as stretches."""
    left = []
    for start, end in (*stretches, (last + 1, last + 1)):
        if start > last + 1 or end < first:
            continue
        if start > first:
            left.append((first, start - 1))
        first = max(first, end + 1)
    if first <= last:
        left.append((first, last))
    return left


def _shown(key: tuple[Any, ...]) -> str:
    """A primary key for a person; damaged text as far as it goes."""
    return ", ".join(
        ascii(value) if isinstance(value, str) and not value.isprintable() else str(value) for value in key
    )
