"""Reading what can still be read of a damaged database file, whatever is wrong with it.

The file is opened read-only and never repaired, with one exception: if its first page is not one that SQLite takes, a
copy of that page is put beside the file and the first page of an empty store is written over it. All our stores have
the same tables in the same places, so this brings back everything that stands in the other pages.

SQLite gives up at the first page that makes no sense. Here the rows behind such a page are asked for one by one, where
they have numeric ids, or come from the other end. Nothing that is read is believed: whoever takes the rows checks them.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Final

from edge_broker.store.faults import READ_ERRORS
from edge_broker.store.schema import PAGE_BYTES, build_empty, lenient_text, side_files, write_private

_NEAR: Final = 64
_FAR: Final = 10_000
"""How many ids behind an unreadable one are asked for by themselves: at once, and where that was not enough."""
_NO_ID: Final = 1 << 62

_PAGE_COUNT_AT: Final = 28
_LEAST_MESSAGE_BYTES: Final = 40


class SalvageSource:
    """A damaged database, opened as far as it can be.

    `incomplete`: tables of which something was unreadable. `problem`: the first thing that SQLite said.
    """

    def __init__(self, path: Path) -> None:
        self._path = path
        self._connection: sqlite3.Connection | None = None
        self.incomplete: set[str] = set()
        self.problem = ""

    def open(self) -> bool:
        """Whether anything can be read at all."""
        if self._path.stat().st_size >= PAGE_BYTES and self._try_to_open():
            return True
        self._replace_first_page()  # of an empty file at once: SQLite would throw its write-ahead log away
        return self._try_to_open()

    def close(self) -> None:
        """Let go of the file."""
        if self._connection is not None:
            self._connection.close()
            self._connection = None

    def _try_to_open(self) -> bool:
        connection = sqlite3.connect(
            f"{self._path.absolute().as_uri()}?mode=ro",
            uri=True,
            isolation_level=None,
            check_same_thread=False,
        )
        connection.text_factory = lenient_text
        try:
            connection.execute("PRAGMA writable_schema=ON")  # takes a file that is shorter than it says
            found = connection.execute(
                "SELECT count(*) FROM sqlite_schema WHERE name IN ('session', 'queue', 'segment')"
            ).fetchone()[0]
        except READ_ERRORS as error:
            self.problem = self.problem or str(error)
            found = 0
        if found == 3:
            self._connection = connection
            return True
        connection.close()
        return False

    def _replace_first_page(self) -> None:
        """Give the file the first page of an empty store, keeping the one that it had."""
        template = self._path.with_name(self._path.name + ".template")
        build_empty(template).close()
        page = bytearray(template.read_bytes()[:PAGE_BYTES])
        template.unlink()
        pages = max(1, self._path.stat().st_size // PAGE_BYTES)
        page[_PAGE_COUNT_AT : _PAGE_COUNT_AT + 12] = pages.to_bytes(4, "big") + bytes(8)  # and no free pages
        with self._path.open("r+b") as file:
            write_private(self._path.with_name(self._path.name + ".first-page"), file.read(PAGE_BYTES))
            file.seek(0)
            file.write(page)

    # ---- rows

    def numbered(self, table: str, key: str, columns: str = "*") -> Iterator[tuple[Any, ...]]:
        """The readable rows of a table whose primary key is one whole number `key`, in its order."""
        if self._connection is None:
            self.incomplete.add(table)
            return
        forward = f"SELECT {key}, {columns} FROM {table} NOT INDEXED WHERE {key} > ? ORDER BY {key}"
        highest = self._highest(table, key)
        position, resume_at = -1, -1
        while True:
            try:
                for row in self._connection.execute(forward, (position,)):
                    if position < row[0] <= highest:  # an id beyond is not one that was read right
                        position = row[0]
                    yield row[1:]
                return
            except READ_ERRORS as error:
                self._note(table, error)
            found = self._probe(table, key, columns, position, position + _NEAR)
            if found is None:
                if resume_at <= position:
                    resume_at = self._lowest_from_end(table, key, position)
                end = min(resume_at, position + _FAR) if resume_at > position else position + _FAR
                found = self._probe(table, key, columns, position + _NEAR, min(end, highest + 1))
            if found is not None:
                position = found[0]
                yield found[1:]
            elif resume_at > position:
                position = max(position + 1, resume_at - 1)
            else:
                return

    def _probe(self, table: str, key: str, columns: str, after: int, end: int) -> tuple[Any, ...] | None:
        """(id, columns) of the first row with an id behind `after` and below `end` that can be read by itself."""
        assert self._connection is not None
        select = f"SELECT {key}, {columns} FROM {table} NOT INDEXED WHERE {key} = ?"
        for number in range(after + 1, end):
            try:
                row: tuple[Any, ...] | None = self._connection.execute(select, (number,)).fetchone()
            except READ_ERRORS:
                continue
            if row is not None:
                return row
        return None

    def _highest(self, table: str, key: str) -> int:
        """The highest id of a table as far as anything tells; an id that no table of ours reaches where nothing does."""
        assert self._connection is not None
        candidates = [f"SELECT max({key}) FROM {table} NOT INDEXED"]
        if table == "segment":  # its index is another witness
            candidates.insert(0, "SELECT max(id) FROM segment INDEXED BY segment_place")
        for select in candidates:
            try:
                found = self._connection.execute(select).fetchone()[0]
            except READ_ERRORS:
                continue
            if found is None or type(found) is int:
                return found or 0
        return _NO_ID

    def _lowest_from_end(self, table: str, key: str, above: int) -> int:
        """The lowest id above `above` that is reached from the end of the table; -1 if none is."""
        assert self._connection is not None
        lowest = -1
        try:
            for (number,) in self._connection.execute(
                f"SELECT {key} FROM {table} NOT INDEXED ORDER BY {key} DESC"
            ):
                if number <= above:
                    break
                lowest = number if lowest < 0 else min(lowest, number)
        except READ_ERRORS as error:
            self._note(table, error)
        return lowest

    def keyed(self, table: str, key: str) -> Iterator[tuple[Any, ...]]:
        """The readable rows of a small table with any other primary key; `key` names its columns."""
        if self._connection is None:
            self.incomplete.add(table)
            return
        keys = key.count(",") + 1
        last: tuple[Any, ...] = ()
        try:
            for row in self._connection.execute(f"SELECT {key}, * FROM {table} ORDER BY {key}"):
                last = row[:keys]
                yield row[keys:]
            return
        except READ_ERRORS as error:
            self._note(table, error)
        backwards = ", ".join(f"{column} DESC" for column in key.split(", "))
        from_end = []
        try:
            for row in self._connection.execute(f"SELECT {key}, * FROM {table} ORDER BY {backwards}"):
                if row[:keys] == last:
                    break
                from_end.append(row[keys:])
        except READ_ERRORS as error:
            self._note(table, error)
        yield from reversed(from_end)

    @property
    def most_messages(self) -> int:
        """More messages than this cannot have been in the file: what counts beyond it was not read right."""
        files = (self._path, *side_files(self._path))
        return sum(file.stat().st_size for file in files if file.exists()) // _LEAST_MESSAGE_BYTES

    def last_number(self, queue_id: int) -> int | None:
        """The highest number of the queue that the index of the segments knows of; None if that is unreadable."""
        if self._connection is None:
            return None
        try:
            row = self._connection.execute(
                "SELECT last_number FROM segment INDEXED BY segment_place WHERE queue_id = ?"
                " ORDER BY first_number DESC LIMIT 1",
                (queue_id,),
            ).fetchone()
        except READ_ERRORS:
            return None
        if row is None:
            return 0
        return row[0] if type(row[0]) is int else None

    def _note(self, table: str, error: Exception) -> None:
        self.incomplete.add(table)
        self.problem = self.problem or str(error)
