"""Where the torture runs: a file system whose power can be cut, or a plain directory."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.conftest import do_without
from tests.torture.disk import LoopDisk, PlainDirectory, why_not


@pytest.fixture
def power(tmp_path: Path) -> Iterator[LoopDisk]:
    """A disk of its own; skipped where none can be mounted, failed there in CI."""
    disk: LoopDisk | None = None
    reason = why_not()
    if not reason:
        try:
            disk = LoopDisk(tmp_path)
        except OSError as error:  # a container without loop devices
            reason = f"no file system can be mounted: {error}"
    if disk is None:
        do_without(reason)
    yield disk
    disk.close()


@pytest.fixture
def directory(tmp_path: Path) -> Iterator[PlainDirectory]:
    """Data that only a killed broker can leave in disorder."""
    place = PlainDirectory(tmp_path)
    yield place
    place.close()
