"""Where the broker's data lies: an ext4 of its own whose power can be cut, or a plain directory whose broker is killed.

The cut is ext4's own (FS_IOC_SHUTDOWN without flushing its journal): from that moment nothing reaches the image any
more, and after mounting it again only what had been synced is there. The journal is told not to commit by itself, so
what nobody synced does not survive by luck.

The broker must be frozen before. An `fdatasync` that runs while ext4 is shut down may return success for what is lost
(seen in 18 of 200 tries with a program of ten lines, in none of 200 with the program stopped first): a process that lives
on then acknowledges what no power cut would have let it acknowledge. So the cut falls between two system calls, a write
and its sync for example, and never into the middle of a sync. What this does not model either: torn sectors, and a drive
that claims to have written what it has not.
"""

from __future__ import annotations

import contextlib
import errno
import fcntl
import os
import struct
import subprocess
import time
from pathlib import Path
from typing import Final, Protocol

from tests.conftest import find_program

PROGRAMS: Final = ("mkfs.ext4", "mount", "umount")
_SHUTDOWN: Final = 0x8004587D  # _IOR('X', 125, __u32)
_WITHOUT_FLUSH: Final = 2
_IMAGE_BYTES: Final = 512 << 20
_OPTIONS: Final = "loop,noatime,commit=300"
_BUSY_SECONDS: Final = 10.0


class Place(Protocol):
    """Where a broker keeps its data, through faults."""

    data_dir: Path

    def cut(self) -> None:
        """The fault strikes; the broker's process is frozen, and is to be killed next."""

    def restore(self) -> None:
        """After the broker's process has ended: the place as the next start finds it."""

    def close(self) -> None:
        """Leave nothing behind."""


class LoopDisk:
    """An ext4 image in `directory`, mounted there. Needs root; `OSError` says what the mounting said."""

    def __init__(self, directory: Path) -> None:
        self._image, self._mount = directory / "disk.img", directory / "disk"
        self._mount.mkdir()
        with self._image.open("wb") as image:
            image.truncate(_IMAGE_BYTES)
        _run("mkfs.ext4", "-q", "-F", str(self._image))
        self._mounted = False
        self._attach()
        self.data_dir = self._mount / "data"

    def cut(self) -> None:
        descriptor = os.open(self._mount, os.O_RDONLY)
        try:
            fcntl.ioctl(descriptor, _SHUTDOWN, struct.pack("I", _WITHOUT_FLUSH))
        finally:
            os.close(descriptor)

    def restore(self) -> None:
        self._detach()
        if _is_attached(self._image):
            self._go_on_with_a_copy()
        self._attach()

    def _go_on_with_a_copy(self) -> None:
        """Whoever made a mount namespace meanwhile still has the disk, and the kernel would give us that one, shut down."""
        copy = self._image.with_name(f"{self._image.name}+")
        _run("cp", "--sparse=always", str(self._image), str(copy))
        self._image.unlink()
        self._image = copy

    def close(self) -> None:
        if self._mounted:
            self._detach()
        self._image.unlink(missing_ok=True)

    def _attach(self) -> None:
        _run("mount", "-o", _OPTIONS, str(self._image), str(self._mount))
        self._mounted = True

    def _detach(self) -> None:
        deadline = time.monotonic() + _BUSY_SECONDS
        while True:
            try:
                _run("umount", str(self._mount))
            except OSError:
                if time.monotonic() > deadline:
                    raise
                time.sleep(0.05)  # the kernel is still letting go of what the killed process had open
            else:
                self._mounted = False
                return


class PlainDirectory:
    """A directory of the running system: the fault is `kill -9` alone."""

    def __init__(self, directory: Path) -> None:
        self.data_dir = directory / "data"

    def cut(self) -> None:
        pass

    def restore(self) -> None:
        pass

    def close(self) -> None:
        pass


def why_not() -> str:
    """Why no power can be cut here; empty if it can."""
    if os.geteuid() != 0:
        return "needs root, to mount a file system of its own"
    missing = [name for name in PROGRAMS if find_program(name) is None]
    return f"needs {', '.join(missing)}" if missing else ""


def _is_attached(image: Path) -> bool:
    """Whether a loop device still has `image`."""
    attached = set()
    for file in Path("/sys/block").glob("loop*/loop/backing_file"):
        with contextlib.suppress(OSError):  # another one's, given back just now
            attached.add(file.read_text().strip())
    return str(image.resolve()) in attached


def _run(program: str, *arguments: str) -> None:
    """A program of the system; `OSError` with what it said if it fails."""
    done = subprocess.run([find_program(program) or program, *arguments], capture_output=True, text=True)
    if done.returncode:
        raise OSError(errno.EIO, f"{program}: {done.stderr.strip()}")
