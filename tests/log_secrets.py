"""No log may have a secret: a plugin of the suite that looks through all of them, and fails the test that left it there.

What it looks at, after each phase of each test:

- what pytest captured: standard output and error, and the log (caplog's handler at the root, at its level);
- every record that reached a logger at all, formatted, with its traceback, whatever handlers there were;
- what the broker's own processes wrote: into the files that tests gave them, or to whoever read their pipes.
"""

from __future__ import annotations

import logging
import subprocess
from collections.abc import Generator
from pathlib import Path
from typing import Any

import pytest

from tests.secrets import found_in

_OUR_PROGRAMS = ("edge_broker", "edge-broker", "edge-devices", "devices")
_MOST_BYTES = 64 << 20
"""Of one process' log between two looks: a test that makes more than that is not about logs."""

_texts: list[str] = []
_files: dict[Path, tuple[int, subprocess.Popen[Any]]] = {}
"""The logs of processes: how much of each was read, and who writes it; until that has ended."""
_formatter = logging.Formatter()


def _is_ours(arguments: Any) -> bool:
    words = [str(arguments)] if isinstance(arguments, str | bytes | Path) else map(str, arguments)
    return any(program in word for word in words for program in _OUR_PROGRAMS)


class _WatchedPopen(subprocess.Popen[Any]):
    """`subprocess.Popen` that remembers where the broker's processes write to."""

    def __init__(self, args: Any, *rest: Any, **options: Any) -> None:
        super().__init__(args, *rest, **options)
        self._is_ours = _is_ours(args)
        if self._is_ours:
            for stream in (options.get("stdout"), options.get("stderr")):
                name = getattr(stream, "name", None)
                if isinstance(name, str):
                    start = _files[Path(name)][0] if Path(name) in _files else 0
                    _files[Path(name)] = (start, self)

    def communicate(self, *arguments: Any, **options: Any) -> tuple[Any, Any]:
        result = super().communicate(*arguments, **options)
        if self._is_ours:
            _texts.extend(_as_text(part) for part in result if part)
        return result


def _as_text(data: str | bytes) -> str:
    return data.decode(errors="replace") if isinstance(data, bytes) else data


def _watch_loggers() -> None:
    call_handlers = logging.Logger.callHandlers

    def watch(logger: logging.Logger, record: logging.LogRecord) -> None:
        call_handlers(logger, record)
        try:
            _texts.append(_formatter.format(record))
        except (TypeError, ValueError):  # its own handlers have complained already
            pass

    logging.Logger.callHandlers = watch  # type: ignore[method-assign]


def _read_files() -> Generator[str]:
    """What is new in the logs of processes."""
    for path, (start, process) in list(_files.items()):
        has_ended = process.returncode is not None  # asked of the object: to wait for it is the test's
        try:
            with path.open("rb") as file:
                size = file.seek(0, 2)
                file.seek(max(0, (start if size >= start else 0) - 256))  # a secret may be cut in two
                yield file.read(_MOST_BYTES).decode(errors="replace")
            if has_ended:
                del _files[path]
            else:
                _files[path] = (size, process)
        except OSError:
            del _files[path]


def pytest_configure() -> None:
    subprocess.Popen = _WatchedPopen  # type: ignore[misc]
    _watch_loggers()


@pytest.hookimpl(hookwrapper=True)
def pytest_runtest_makereport(item: pytest.Item) -> Generator[None, Any, None]:
    """Fail the phase whose logs have a secret. What they say is not shown again: only which secret it was, shortened."""
    outcome = yield
    report: pytest.TestReport = outcome.get_result()
    texts = [*_texts, *(text for _, text in report.sections), *_read_files()]
    _texts.clear()
    found = {one for text in texts for one in found_in(text)}
    if found:
        named = ", ".join(f"{one[:3]}…{one[-2:]}" for one in sorted(found))
        report.outcome = "failed"
        report.longrepr = f"{report.when} of {item.nodeid}: a log has a secret: {named}"
