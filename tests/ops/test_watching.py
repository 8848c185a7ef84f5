"""Files that change: taken when they are whole, refused when they will not do, and never taken twice."""

from __future__ import annotations

import asyncio
import logging
import os
from pathlib import Path

import pytest

from edge_broker.errors import ConfigError
from edge_broker.ops.watching import Watching

Taken = list[str]


class Reader:
    """Takes what is in a file, unless it begins with `bad`."""

    def __init__(self, *paths: Path) -> None:
        self.paths = paths
        self.taken: Taken = []

    async def take(self) -> None:
        text = " ".join(path.read_text() for path in self.paths)
        await asyncio.sleep(0)
        if text.startswith("bad"):
            raise ConfigError("line 1", "is bad", "write something good")
        self.taken.append(text)


@pytest.fixture
def file(tmp_path: Path) -> Path:
    path = tmp_path / "file"
    path.write_text("old")
    return path


def watch(*paths: Path) -> tuple[Watching, Reader]:
    watching, reader = Watching(), Reader(*paths)
    watching.add("the file", paths, reader.take)
    return watching, reader


async def settle(watching: Watching) -> None:
    """Two looks: the second one sees that nothing has changed since."""
    await watching.look()
    await watching.look()


async def test_nothing_changes_and_nothing_is_taken(file: Path) -> None:
    watching, reader = watch(file)
    for _ in range(5):
        await watching.look()
    assert reader.taken == []


@pytest.mark.parametrize("by_rename", [True, False])
async def test_a_change_is_taken_once(file: Path, by_rename: bool) -> None:
    watching, reader = watch(file)
    if by_rename:
        (file.parent / "new").write_text("new")
        os.replace(file.parent / "new", file)
    else:
        file.write_text("new")
    await watching.look()
    assert reader.taken == [], "it may still be written to"
    for _ in range(4):
        await watching.look()
    assert reader.taken == ["new"]
    assert watching.watches["the file"].taken == 1


async def test_the_same_size_and_the_old_time(file: Path) -> None:
    """As `cp -p` and `rsync -t` leave it."""
    watching, reader = watch(file)
    status = file.stat()
    (file.parent / "new").write_text("new")
    os.utime(file.parent / "new", ns=(status.st_atime_ns, status.st_mtime_ns))
    os.replace(file.parent / "new", file)
    await settle(watching)
    assert reader.taken == ["new"]


async def test_what_is_still_being_written_is_not_taken(file: Path) -> None:
    watching, reader = watch(file)
    for part in ("n", "ne", "new"):
        file.write_text(part)
        await watching.look()
    assert reader.taken == []
    await watching.look()
    assert reader.taken == ["new"]


async def test_what_was_only_touched_is_not_taken_again(file: Path) -> None:
    watching, reader = watch(file)
    file.write_text("old")
    os.utime(file, (1, 1))
    await settle(watching)
    assert reader.taken == []


async def test_the_broken_is_refused_once_and_shown_until_it_is_mended(
    file: Path, caplog: pytest.LogCaptureFixture
) -> None:
    watching, reader = watch(file)
    file.write_text("bad 1")
    with caplog.at_level(logging.ERROR):
        for _ in range(5):
            await watching.look()
    assert len(caplog.records) == 1
    assert watching.refused == {"the file": "line 1: is bad (write something good)"}
    assert watching.watches["the file"].refused == 1
    os.utime(file, (1, 1))
    await settle(watching)
    assert watching.watches["the file"].refused == 1, "it is the same as before"
    file.write_text("good")
    await settle(watching)
    assert watching.refused == {}
    assert reader.taken == ["good"]


async def test_putting_the_old_one_back_mends_it_too(file: Path) -> None:
    watching, reader = watch(file)
    file.write_text("bad")
    await settle(watching)
    assert watching.refused
    file.write_text("old")
    await settle(watching)
    assert watching.refused == {}
    assert reader.taken == [], "it never stopped to count"
    file.write_text("bad")
    await settle(watching)
    assert watching.refused, "and broken again it is refused again"


async def test_a_file_that_is_gone_is_refused_and_not_before_it_stays_away(file: Path) -> None:
    watching, reader = watch(file)
    file.unlink()
    await watching.look()
    file.write_text("new")
    await settle(watching)
    assert (watching.refused, reader.taken) == ({}, ["new"])
    file.unlink()
    await settle(watching)
    assert watching.refused == {"the file": f"{file}: No such file or directory"}


async def test_files_that_belong_together_are_taken_together(tmp_path: Path) -> None:
    first, second = tmp_path / "a", tmp_path / "b"
    first.write_text("1")
    second.write_text("1")
    watching, reader = watch(first, second)
    first.write_text("2")
    await watching.look()
    second.write_text("2")
    await settle(watching)
    assert reader.taken == ["2 2"]


async def test_all_of_them_at_once_whatever_they_are(file: Path) -> None:
    watching, reader = watch(file)
    await watching.reload_all()
    assert reader.taken == ["old"]
    file.write_text("new")
    await watching.reload_all()
    assert reader.taken == ["old", "new"], "somebody says that they are whole"
    await settle(watching)
    assert reader.taken == ["old", "new"]


async def test_a_fault_of_ours_is_refused_too(file: Path, caplog: pytest.LogCaptureFixture) -> None:
    watching = Watching()
    watching.add("it", [file], lambda: 1 / 0)
    await watching.reload_all()
    assert watching.refused == {"it": "internal error: ZeroDivisionError"}
    assert "Traceback" in caplog.text


async def test_names_are_not_mixed_up_and_no_file_is_no_watch(file: Path) -> None:
    watching = Watching()
    taken: Taken = []
    watching.add("it", [None, file], lambda: taken.append("first"))
    watching.add("it", [file], lambda: taken.append("second"))
    watching.add("nothing", [None], lambda: taken.append("never"))
    assert list(watching.watches) == ["it", "it (2)"]
    await watching.reload_all()
    assert taken == ["first", "second"]


async def test_it_looks_by_itself_until_it_is_stopped(file: Path) -> None:
    reader = Reader(file)
    watching = Watching(interval_seconds=0.001)
    watching.start()
    watching.add("the file", [file], reader.take)
    file.write_text("new")
    async with asyncio.timeout(10):
        while not reader.taken:
            await asyncio.sleep(0.001)
    await watching.stop()
    file.write_text("newer")
    await asyncio.sleep(0.02)
    assert reader.taken == ["new"]
    await watching.stop()
