"""What every test may use: the `needs` marker, free ports. No log of any test may have a secret: `tests.log_secrets`."""

from __future__ import annotations

import os
import shutil
import signal
import socket
from pathlib import Path
from typing import NoReturn

import pytest

pytest_plugins = ["tests.log_secrets"]

_SEARCH_PATH = os.pathsep.join([os.environ.get("PATH", os.defpath), "/usr/sbin", "/sbin", "/usr/local/sbin"])


def find_program(name: str) -> str | None:
    """The path of a real program, also where only root's PATH has it."""
    return shutil.which(name, path=_SEARCH_PATH)


def do_without(reason: str) -> NoReturn:
    """The real part of a test is missing, for `reason`: skipped here, failed in CI, which installs what it needs."""
    if os.environ.get("CI"):
        pytest.fail(reason, pytrace=False)
    pytest.skip(reason)


def pytest_configure() -> None:
    """Ctrl-C works in what the tests start, also where a shell started them in its background, which ignores it there."""
    if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
        signal.signal(signal.SIGINT, signal.default_int_handler)


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """Where several files run at a time the long ones begin, or all others would be done and one still under way."""
    if hasattr(config, "workerinput"):
        slow = {item.path for item in items if item.get_closest_marker("slow")}
        items.sort(key=lambda item: item.path not in slow)


def pytest_runtest_setup(item: pytest.Item) -> None:
    for marker in item.iter_markers("needs"):
        missing = [name for name in marker.args if find_program(name) is None]
        if not missing:
            continue
        do_without(f"needs {', '.join(missing)}, which is not installed")


@pytest.fixture
def free_port() -> int:
    """A TCP port on loopback that nobody listens on now."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


@pytest.fixture
def state_dir(tmp_path: Path) -> Path:
    """An empty directory for a broker's data."""
    path = tmp_path / "state"
    path.mkdir()
    return path
