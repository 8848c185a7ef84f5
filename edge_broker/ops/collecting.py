"""What is logged about one piece of work, beside where the log goes anyway: for whoever asked for that work.

Only what is logged from within the block is taken, also from threads that it waits for; what other tasks log meanwhile
is not.
"""

from __future__ import annotations

import logging
from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from typing import Final

from edge_broker.ops.logging import OUR_PACKAGES

_Lines = list[dict[str, str]]
_collecting: Final[ContextVar[_Lines | None]] = ContextVar("where lines of the log go", default=None)


@contextmanager
def collected() -> Iterator[_Lines]:
    """The lines logged in the block, as `{"level": …, "message": …}`; they come into the list as they are logged."""
    lines: _Lines = []
    token = _collecting.set(lines)
    collector = _Collector(lines)
    loggers = [
        logging.getLogger(package) for package in OUR_PACKAGES
    ]  # the root's handlers may be exchanged meanwhile
    for logger in loggers:
        logger.addHandler(collector)
    try:
        yield lines
    finally:
        for logger in loggers:
            logger.removeHandler(collector)
        _collecting.reset(token)


class _Collector(logging.Handler):
    def __init__(self, lines: _Lines) -> None:
        super().__init__()
        self._lines = lines

    def emit(self, record: logging.LogRecord) -> None:
        if _collecting.get() is self._lines:
            self._lines.append({"level": record.levelname.lower(), "message": record.getMessage()})
