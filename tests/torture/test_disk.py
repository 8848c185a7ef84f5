"""A power cut takes what nobody synced, and nothing else: without that the torture would prove nothing."""

from __future__ import annotations

import os
import subprocess

import pytest

from tests.integration.broker_process import until
from tests.torture.disk import LoopDisk


def write(disk: LoopDisk, name: str, *, synced: bool) -> None:
    descriptor = os.open(disk.data_dir / name, os.O_CREAT | os.O_WRONLY, 0o600)
    os.write(descriptor, bytes(10_000))
    if synced:
        os.fsync(descriptor)
    os.close(descriptor)


def test_only_what_was_synced_is_there_afterwards(power: LoopDisk) -> None:
    power.data_dir.mkdir()
    write(power, "synced", synced=True)
    write(power, "not-synced", synced=False)
    power.cut()
    with pytest.raises(OSError, match="Input/output error"):
        write(power, "too-late", synced=False)
    power.restore()
    assert sorted(file.name for file in power.data_dir.iterdir()) == ["synced"]
    assert (power.data_dir / "synced").stat().st_size == 10_000
    write(power, "again", synced=True)
    power.cut()
    power.restore()
    assert (power.data_dir / "again").exists()


def test_who_else_has_the_disk_mounted_does_not_keep_it_from_coming_back(power: LoopDisk) -> None:
    """Whoever makes a mount namespace, as `ip netns exec` does, has all that is mounted at that moment until it ends."""
    other = subprocess.Popen(["unshare", "--mount", "sleep", "60"])
    try:
        until(lambda: os.readlink(f"/proc/{other.pid}/ns/mnt") != os.readlink("/proc/self/ns/mnt"))
        power.data_dir.mkdir()
        write(power, "synced", synced=True)
        for _ in range(2):
            power.cut()
            power.restore()
            assert (power.data_dir / "synced").stat().st_size == 10_000
            write(power, "again", synced=True)
    finally:
        other.kill()
        other.wait()
