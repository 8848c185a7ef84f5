"""The audit log's file: whole lines, bounded, its owner's alone, and nobody's way to somewhere else."""

from __future__ import annotations

import os
import resource
import signal
import stat
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from edge_broker.ops.audit_file import AuditFile


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "audit.log"


def lines(*texts: str) -> list[bytes]:
    return [f"{text}\n".encode() for text in texts]


def modes(folder: Path) -> dict[str, int]:
    return {file.name: stat.S_IMODE(file.stat().st_mode) for file in folder.iterdir()}


def test_lines_are_appended_and_go_on_after_a_restart(path: Path) -> None:
    for texts in (("a", "b"), ("c",)):
        file = AuditFile(path, 1000, 2)
        assert file.append(lines(*texts)) == len(texts)
        file.close()
    assert path.read_text() == "a\nb\nc\n"


def test_only_its_owner_reads_it(path: Path) -> None:
    path.touch(0o644)
    path.chmod(0o644)
    file = AuditFile(path, 4, 3)
    file.append(lines("aaa", "bbb", "ccc"))
    assert modes(path.parent) == {"audit.log": 0o600, "audit.log.1": 0o600, "audit.log.2": 0o600}
    assert path.with_name("audit.log.2").read_text() == "aaa\n", "the one that everybody could read"


def test_a_full_file_is_moved_aside_and_the_oldest_goes(path: Path) -> None:
    file = AuditFile(path, 8, 3)
    assert file.append(lines(*"abcdefghijklmnopqrs")) == 19
    texts = {name: (path.parent / name).read_text().replace("\n", "") for name in modes(path.parent)}
    assert texts == {"audit.log": "qrs", "audit.log.1": "mnop", "audit.log.2": "ijkl"}


def test_one_file_alone_begins_anew(path: Path) -> None:
    file = AuditFile(path, 4, 1)
    file.append(lines(*"abcde"))
    assert (path.read_text(), len(modes(path.parent))) == ("e\n", 1)


def test_a_line_longer_than_a_file_is_whole_all_the_same(path: Path) -> None:
    file = AuditFile(path, 8, 3)
    file.append(lines("a", "x" * 100, "b"))
    assert [(path.parent / name).read_text() for name in ("audit.log", "audit.log.1", "audit.log.2")] == [
        "b\n",
        "x" * 100 + "\n",
        "a\n",
    ]


def test_a_file_that_was_moved_away_is_made_anew(path: Path) -> None:
    file = AuditFile(path, 1000, 2)
    file.append(lines("a"))
    path.rename(path.with_name("logrotate-took-it"))
    file.append(lines("b"))
    assert path.read_text() == "b\n"
    path.unlink()
    file.append(lines("c"))
    assert (path.read_text(), modes(path.parent)["audit.log"]) == ("c\n", 0o600)


def test_a_link_is_not_followed(path: Path) -> None:
    target = path.with_name("somebody's")
    target.write_text("kept")
    path.symlink_to(target)
    with pytest.raises(OSError, match="symbolic"):
        AuditFile(path, 1000, 2).open()
    assert target.read_text() == "kept"


def test_what_is_no_plain_file_is_refused_at_once(path: Path) -> None:
    os.mkfifo(path)
    with pytest.raises(OSError):  # noqa: PT011 - ENXIO without a reader
        AuditFile(path, 1000, 2).open()
    reader = os.open(path, os.O_RDONLY | os.O_NONBLOCK)
    with pytest.raises(OSError, match="no plain file"):
        AuditFile(path, 1000, 2).open()
    os.close(reader)


@contextmanager
def little_room() -> Iterator[None]:
    """No file of this process grows beyond 10 bytes: what a full disk does, with a write cut in the middle.

    Around what is tested and nothing more: the test run's own output may go to a file.
    """
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    handler = signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    resource.setrlimit(resource.RLIMIT_FSIZE, (10, before[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)
        signal.signal(signal.SIGXFSZ, handler)


def test_a_full_disk_leaves_whole_lines_and_no_hole(path: Path) -> None:
    file = AuditFile(path, 1000, 2)
    with little_room():
        assert file.append(lines("aaaa")) == 1
        with pytest.raises(OSError, match="too large"):
            file.append(lines("bbbb", "cccc"))  # the first would fit: the write is one
        assert path.read_text() == "aaaa\n"
        assert file.append(lines("dddd")) == 1, "and there it goes on"
    assert path.read_text() == "aaaa\ndddd\n"


def test_what_was_written_before_the_disk_was_full_is_told(path: Path) -> None:
    file = AuditFile(path, 8, 2)
    with little_room():
        assert file.append(lines("aaaa", "bbbb", "cc" * 10)) == 2
    assert (path.with_name("audit.log.1").read_text(), path.read_text()) == ("aaaa\nbbbb\n"[5:], "")
