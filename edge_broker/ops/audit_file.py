"""The audit log's file: lines are appended, and when it is full it is moved aside; a few old ones are kept.

    audit.log      what is written now
    audit.log.1    what was written before it, and so on up to `files` in all

- Only its owner may read it (0600), also where the file was there before with other permissions.
- It is never a symbolic link or anything but a plain file: who may write into the folder shall not redirect us.
- A write is whole or not there: what a full disk cut off is taken back, so that every line stays a line.
- A file that somebody moved or removed (logrotate) is made anew at the next write.

Nothing is synced: the kernel writes it to the disk within its usual half minute, which spares an SD card; a power cut takes
what was written last. Everything here blocks, and is called in the writer's thread.
"""

from __future__ import annotations

import os
import stat
from collections.abc import Sequence
from pathlib import Path
from typing import Final

_FLAGS: Final = os.O_WRONLY | os.O_APPEND | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW | os.O_NONBLOCK
_MODE: Final = 0o600


class AuditFile:
    """`path` and up to `files` - 1 older ones beside it, each of `max_bytes` at most, unless one line alone is longer."""

    def __init__(self, path: Path, max_bytes: int, files: int) -> None:
        self._path = path
        self._max_bytes = max_bytes
        self._files = files
        self._descriptor = -1
        self._size = 0

    def open(self) -> None:
        """Open it, so that what is wrong with it shows at the start; `OSError`."""
        descriptor = os.open(self._path, _FLAGS, _MODE)
        try:
            status = os.fstat(descriptor)
            if not stat.S_ISREG(status.st_mode):
                raise OSError(0, "it is no plain file", str(self._path))
            if stat.S_IMODE(status.st_mode) != _MODE:
                os.fchmod(descriptor, _MODE)
        except BaseException:
            os.close(descriptor)
            raise
        self._descriptor, self._size = descriptor, status.st_size

    def close(self) -> None:
        """Write nothing more."""
        if self._descriptor >= 0:
            os.close(self._descriptor)
            self._descriptor = -1

    def append(self, lines: Sequence[bytes]) -> int:
        """Write `lines`, in few system calls; how many of them are in the file, fewer than all with the next call's error.

        `OSError` where the first of them could not be written. What is not in the file may be given again.
        """
        written = 0
        while written < len(lines):
            try:
                self._make_ready(len(lines[written]))
                count = self._fitting(lines, written)
                self._write(b"".join(lines[written : written + count]))
            except OSError:
                self.close()
                if written:
                    return written
                raise
            written += count
        return written

    def _make_ready(self, size_bytes: int) -> None:
        """An open file with room for `size_bytes`, under its own name."""
        if self._descriptor >= 0 and not self._is_in_place():
            self.close()
        if self._descriptor < 0:
            self.open()
        if self._size and self._size + size_bytes > self._max_bytes:
            self.close()
            self._move_aside()
            self.open()

    def _fitting(self, lines: Sequence[bytes], start: int) -> int:
        """How many of the lines from `start` on go into this file: at least one."""
        size = self._size + len(lines[start])
        end = start + 1
        while end < len(lines) and size + len(lines[end]) <= self._max_bytes:
            size += len(lines[end])
            end += 1
        return end - start

    def _write(self, data: bytes) -> None:
        written = 0
        try:
            while written < len(data):
                written += os.write(self._descriptor, data[written:])
        except OSError:
            os.ftruncate(self._descriptor, self._size)
            raise
        self._size += len(data)

    def _is_in_place(self) -> bool:
        try:
            status = os.lstat(self._path)
        except FileNotFoundError:
            return False
        ours = os.fstat(self._descriptor)
        return (status.st_dev, status.st_ino) == (ours.st_dev, ours.st_ino)

    def _move_aside(self) -> None:
        """Each file one number up; the last one goes."""
        for number in range(self._files - 1, 0, -1):
            older = self._numbered(number)
            newer = self._numbered(number - 1)
            try:
                os.replace(newer, older)
            except FileNotFoundError:
                continue  # there were not so many yet
        if self._files == 1:
            os.unlink(self._path)

    def _numbered(self, number: int) -> Path:
        return self._path.with_name(f"{self._path.name}.{number}") if number else self._path
