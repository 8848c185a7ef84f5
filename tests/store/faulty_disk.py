"""A disk that refuses to read, fails to sync or is slow, on demand: a library preloaded into a process of its own.

`FaultyDisk` is the switch, in the test and in the process that it looks at: both have the same page of memory. `run_with`
runs a coroutine of a test module in such a process, with the directory of the store and the switch as its arguments.
"""

from __future__ import annotations

import errno
import mmap
import os
import struct
import subprocess
import sys
from pathlib import Path
from typing import Final

from tests.conftest import do_without, find_program

_FIELDS: Final = (
    "read_errno", "read_from", "read_to", "read_inode", "sync_errno", "sync_delay_ms", "faults_left", "reads_failed",
    "syncs_failed", "syncs",
)  # fmt: skip
_WHOLE_FILE: Final = 1 << 62
_SOURCE: Final = Path(__file__).with_suffix(".c")


class FaultyDisk:
    """The switch, in `directory`; `file`: a part of the path of the files that it is for."""

    def __init__(self, directory: Path, file: str = "broker.db") -> None:
        self._control = directory / "faulty-disk.control"
        self._file = file
        self._library = directory / "faulty-disk.so"
        if not self._control.exists():
            self._control.write_bytes(bytes(4096))
        with self._control.open("r+b") as control:
            self._page = mmap.mmap(control.fileno(), 4096)

    def environ(self) -> dict[str, str]:
        """What a process needs in its environment to have this disk. Compiles the library."""
        if find_program("gcc") is None:
            do_without("needs gcc, which is not installed")
        if not self._library.exists():
            command = ["gcc", "-shared", "-fPIC", "-Wall", "-Werror", "-o", self._library, _SOURCE, "-ldl"]
            subprocess.run(command, check=True, capture_output=True)
        return {
            "LD_PRELOAD": str(self._library),
            "FAULTY_DISK_CONTROL": str(self._control),
            "FAULTY_DISK_FILE": self._file,
        }

    def refuse_reads(
        self, first: int = 0, last: int = _WHOLE_FILE, times: int = -1, why: int = errno.EIO
    ) -> None:
        """Fail reads that touch the bytes from `first` to before `last`, the next `times` times or from now on."""
        self._set("faults_left", times)
        self._set("read_from", first)
        self._set("read_to", last)
        self._set("read_errno", why)

    def break_sectors(self, file: Path, first: int, last: int) -> None:
        """Fail all reads of `file` from byte `first` to before `last`, also when it has another name; of no other."""
        self._set("read_inode", file.stat().st_ino)
        self.refuse_reads(first, last)

    def refuse_syncs(self, times: int = -1, why: int = errno.EIO) -> None:
        """Fail the next syncs."""
        self._set("faults_left", times)
        self._set("sync_errno", why)

    def slow_syncs(self, milliseconds: int) -> None:
        """Have each sync take that much longer."""
        self._set("sync_delay_ms", milliseconds)

    def heal(self) -> None:
        """Have everything work again."""
        for name in _FIELDS[:7]:
            self._set(name, 0)

    def count(self, name: str) -> int:
        """`reads_failed`, `syncs_failed` or `syncs` so far."""
        (value,) = struct.unpack_from("q", self._page, _FIELDS.index(name) * 8)
        return int(value)

    def _set(self, name: str, value: int) -> None:
        struct.pack_into("q", self._page, _FIELDS.index(name) * 8, value)


def run_with(
    disk: FaultyDisk, module: str, coroutine: str, directory: Path
) -> subprocess.CompletedProcess[str]:
    """Run `coroutine(directory, disk)` of `module` on `disk`; what it printed. It must end well."""
    script = (
        "import asyncio, importlib, logging, sys\nfrom pathlib import Path\n"
        "from tests.store.faulty_disk import FaultyDisk\n"
        "logging.basicConfig(format='%(message)s')\n"
        "module, coroutine, directory, control = sys.argv[1:]\n"
        "main = getattr(importlib.import_module(module), coroutine)\n"
        "asyncio.run(main(Path(directory), FaultyDisk(Path(control))))\n"
    )
    command = [sys.executable, "-c", script, module, coroutine, str(directory), str(disk._control.parent)]
    done = subprocess.run(
        command, env=os.environ | disk.environ(), capture_output=True, text=True, timeout=60
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return done
