"""What SQLite is going to drop of a write-ahead log, counted before it does.

When a log is read after a crash, SQLite takes its frames up to the first one whose checksum is wrong, and of those up to
the last that ends a commit; the rest it drops without a word. Mostly that is right: a commit that was cut off in the
middle was acknowledged to nobody. But a bad byte further to the front takes commits with it that were. `examine` walks
over the log as SQLite does (https://www.sqlite.org/fileformat2.html#walformat) and tells the one from the other: a commit
begins only when the one before it is on the disk, so of all the commits that are dropped only the last can have been cut
off.

Behind the end of a log there are often frames of an earlier one: their salts differ, they are in the database, and nobody
misses them. It reads the log and never raises; what makes no sense to it is no log.
"""

from __future__ import annotations

import logging
import sqlite3
import struct
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from edge_broker.store.faults import primary_code
from edge_broker.store.schema import PAGE_BYTES, side_files, write_private

_log: Final = logging.getLogger(__name__)

MOST_BYTES: Final = 64 << 20
"""A larger log is not looked at: a second's work is not to become a minute's. Ours are emptied at 4 MB."""

_MAGIC: Final = (0x377F0682, 0x377F0683)
"""The checksums' words are little-endian, big-endian."""
_VERSION: Final = 3007000
_HEADER: Final = struct.Struct(">8I")  # magic, version, page size, checkpoint, two salts, checksum
_FRAME: Final = struct.Struct(">6I")  # page, pages of the database if this ends a commit, two salts, checksum
_SUMMED_BYTES: Final = 8  # of a frame's header, before its page
_MASK: Final = 0xFFFFFFFF

Sum = tuple[int, int]


@dataclass(frozen=True, slots=True)
class LogState:
    """What is in a log. `committed_frames`: SQLite takes them. `tail_frames`: behind those, and of this log all the same.

    `dropped_frames` and `dropped_commits`: where the tail is not just the beginning of a commit, what is dropped with
    it; both 0 in a log that is as it was written. `bad_frame`: the first one that is wrong, counted from 1, or 0 for the
    log's header. `checked` is False where the log is too large to look at.
    """

    committed_frames: int = 0
    tail_frames: int = 0
    dropped_frames: int = 0
    dropped_commits: int = 0
    bad_frame: int = 0
    checked: bool = True

    @property
    def lost_commits(self) -> int:
        """Commits that were acknowledged, at least: the last one may have been cut off."""
        return max(0, self.dropped_commits - 1)

    def lines(self) -> Iterator[str]:
        """What is lost, as text; nothing where nothing is."""
        if not self.dropped_frames:
            return
        where = f"frame {self.bad_frame}" if self.bad_frame else "its header"
        what = f"{self.dropped_frames} frames with {self.dropped_commits} commits from there on are dropped"
        yield f"the write-ahead log is damaged in {where}: {what}"
        if self.lost_commits:
            yield f"at least {self.lost_commits} of these commits had been acknowledged"
        else:
            yield "if the power went in the middle of it, that commit had been acknowledged to nobody"


def examine(path: Path) -> LogState:
    """The state of the write-ahead log of the database at `path`, which nobody may write meanwhile."""
    try:
        log = side_files(path)[0]
        if log.stat().st_size > MOST_BYTES:
            return LogState(checked=False)
        raw = log.read_bytes()
        if len(raw) < _HEADER.size + _FRAME.size:
            return LogState()
        state = _walk(memoryview(raw))
        return state if not state.dropped_frames or not _is_in_database(path, raw, state) else LogState()
    except OSError:  # there is none, or whoever opens it says what is wrong with it
        return LogState()


def keep_log(path: Path, state: LogState, stamp: str) -> None:
    """Copy the damaged log of the database at `path` aside, with what is lost in it, as far as the disk takes that."""
    log = side_files(path)[0]
    copy = log.with_name(f"{log.name}.damaged-{stamp}")
    try:
        write_private(copy, log.read_bytes())
        write_private(copy.with_name(f"{copy.name}.report"), "\n".join([*state.lines(), ""]).encode())
    except OSError as error:  # what is lost is told in the broker's log
        _log.warning("the damaged write-ahead log could not be copied to %s: %s", copy, error)


def empty_log(connection: sqlite3.Connection) -> None:
    """Have nothing behind the end of the log that could be taken for a part of what is written next, if there is room."""
    try:
        connection.execute("PRAGMA wal_checkpoint(TRUNCATE)").fetchone()
    except sqlite3.Error as error:
        if primary_code(error) != sqlite3.SQLITE_FULL:
            raise


def _walk(raw: memoryview) -> LogState:
    """As SQLite reads it, and then on to the end."""
    magic, version, page_bytes, _, salt_1, salt_2, *stored = _HEADER.unpack_from(raw)
    is_big = magic == _MAGIC[1]
    seed = _add((0, 0), raw[: _HEADER.size - 8], is_big)
    if magic not in _MAGIC or version != _VERSION or page_bytes != PAGE_BYTES or seed != tuple(stored):
        return _without_header(raw)
    salts = salt_1, salt_2
    committed = good = 0
    for number, at in _frames(raw):
        page, size, *found = _FRAME.unpack_from(raw, at)
        seed = _add(_add(seed, raw[at : at + _SUMMED_BYTES], is_big), _page(raw, at), is_big)
        if (found[0], found[1]) != salts or (found[2], found[3]) != seed or not page:
            break
        if len(raw) - at < _FRAME.size + PAGE_BYTES:
            break
        good = number
        if size:
            committed = number
    marks = _marks_behind(raw, good, salts)
    if not marks:
        return LogState(committed, good - committed)
    tail = good - committed + len(marks)
    commits = sum(marks)
    if not commits:  # the beginning of a commit that never ended
        return LogState(committed, tail)
    return LogState(committed, tail, tail, commits, good + 1)


def _without_header(raw: memoryview) -> LogState:
    """The header is not one: SQLite takes nothing. All that has the salts of the first frame is dropped."""
    _, _, salt_1, salt_2, *_ = _FRAME.unpack_from(raw, _HEADER.size)
    marks = _marks_behind(raw, 0, (salt_1, salt_2))
    if not sum(marks) or not (salt_1 or salt_2):
        return LogState()
    return LogState(0, len(marks), len(marks), sum(marks), 0)


def _marks_behind(raw: memoryview, good: int, salts: tuple[int, int]) -> list[bool]:
    """Of each frame behind the `good`th that belongs to this log, whether it ends a commit.

    Those up to the last one with this log's salts belong to it; salts are random, so no earlier log has them. The first
    one alone belongs to it if one of its two salts is right.
    """
    marks: list[bool] = []
    last = 0
    for number, at in _frames(raw):
        if number <= good:
            continue
        _, size, salt_1, salt_2, *_ = _FRAME.unpack_from(raw, at)
        marks.append(bool(size))
        first = number == good + 1
        if (salt_1, salt_2) == salts or (first and (salt_1 == salts[0] or salt_2 == salts[1])):
            last = len(marks)
    return marks[:last]


def _frames(raw: memoryview) -> Iterator[tuple[int, int]]:
    """(number from 1 on, place) of each frame; the last one may be cut off within its page."""
    places = range(_HEADER.size, len(raw) - _FRAME.size + 1, _FRAME.size + PAGE_BYTES)
    return enumerate(places, 1)


def _page(raw: memoryview, at: int) -> memoryview:
    page = raw[at + _FRAME.size : at + _FRAME.size + PAGE_BYTES]
    return page[: len(page) // 8 * 8]


def _add(total: Sum, raw: memoryview, is_big: bool) -> Sum:
    """The checksum `total` carried on over `raw`, of a multiple of eight bytes."""
    first, second = total
    words = iter(struct.unpack(f"{'>' if is_big else '<'}{len(raw) // 4}I", raw))
    for one, other in zip(words, words, strict=True):
        first = (first + second + one) & _MASK
        second = (second + first + other) & _MASK
    return first, second


def _is_in_database(path: Path, raw: bytes, state: LogState) -> bool:
    """Whether all that is dropped behind the bad frame is in the database already, as after a checkpoint."""
    view = memoryview(raw)
    latest = {}
    for number, at in _frames(view):
        if 0 < number - state.committed_frames <= state.tail_frames and number != state.bad_frame:
            latest[_FRAME.unpack_from(view, at)[0]] = _page(view, at)
    if not latest:
        return False
    with path.open("rb") as database:
        for page, content in latest.items():
            database.seek(max(0, page - 1) * PAGE_BYTES)
            if database.read(PAGE_BYTES) != content:
                return False
    return True
