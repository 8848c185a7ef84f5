"""The log: one line per event on standard error, for people, for collectors, or for systemd's journal.

    text               2025-05-01T12:00:00.123Z info    store: committed
    text, journal      <6>store: committed
    json               {"time":"2025-05-01T12:00:00.123Z","level":"info","logger":"edge_broker.store","message":"committed"}
    json, journal      <6>{"time":…}

The journal stamps the time itself, and takes the priority from the `<N>`. Whatever a message contains, a client id sent by
a stranger say, it stays on its line: control characters are written as escapes. Our own packages log from the configured
level on, everybody else's only warnings and worse. Payloads and secrets are kept out by whoever logs: this module could not
tell them from other text.
"""

from __future__ import annotations

import logging
import os
import sys
import time
from collections.abc import Mapping
from typing import Final, TextIO

import msgspec

OUR_PACKAGES: Final = ("edge_broker", "bridge")
_PRIORITIES: Final = ((logging.CRITICAL, 2), (logging.ERROR, 3), (logging.WARNING, 4), (logging.INFO, 6))
_DEBUG_PRIORITY: Final = 7
_LEVEL_WIDTH: Final = len("critical")
_CONTROL: Final = {code: f"\\x{code:02x}" for code in (*range(0x20), *range(0x7F, 0xA0))} | {
    ord("\n"): "\\n",
    ord("\r"): "\\r",
    ord("\t"): "\\t",
    0x2028: "\\u2028",
    0x2029: "\\u2029",
}


def configure_logging(
    level: str,
    line_format: str,
    *,
    stream: TextIO | None = None,
    environ: Mapping[str, str] = os.environ,
) -> None:
    """Send the log to `stream` (standard error) from `level` on, as `text` or `json`; the last call counts."""
    stream = stream or sys.stderr
    journal = is_journal(stream, environ)
    handler = logging.StreamHandler(stream)
    handler.setFormatter(
        JsonFormatter(journal=journal) if line_format == "json" else TextFormatter(journal=journal)
    )
    number = logging.getLevelNamesMapping()[level.upper()]
    root = logging.getLogger()
    root.handlers[:] = [handler]
    root.setLevel(max(number, logging.WARNING))
    for package in OUR_PACKAGES:
        logging.getLogger(package).setLevel(number)


def is_journal(stream: TextIO, environ: Mapping[str, str]) -> bool:
    """Whether `stream` is the one that systemd connected to the journal, and not one redirected since."""
    device, _, inode = environ.get("JOURNAL_STREAM", "").partition(":")
    try:
        status = os.fstat(stream.fileno())
    except (OSError, ValueError):  # closed, or not a file at all
        return False
    return (device, inode) == (str(status.st_dev), str(status.st_ino))


class TextFormatter(logging.Formatter):
    """A line for people; a traceback, if any, on the lines below it."""

    def __init__(self, *, journal: bool) -> None:
        super().__init__()
        self._journal = journal

    def format(self, record: logging.LogRecord) -> str:
        """The record's line, without its line feed."""
        name = _short_name(record.name)
        lines = [f"{name}: {record.getMessage().translate(_CONTROL)}"]
        if not self._journal:
            lines[0] = f"{_timestamp(record.created)} {record.levelname.lower():{_LEVEL_WIDTH}} {lines[0]}"
        lines.extend(line.translate(_CONTROL) for line in _traceback(self, record).split("\n") if line)
        if self._journal:  # which takes every line for a message of its own
            lines = [_priority(record.levelno) + line for line in lines]
        return "\n".join(lines)


class JsonFormatter(logging.Formatter):
    """An object on one line; what a logging call gave as `extra` stands in it too."""

    def __init__(self, *, journal: bool) -> None:
        super().__init__()
        self._journal = journal

    def format(self, record: logging.LogRecord) -> str:
        """The record's object, without its line feed."""
        fields: dict[str, object] = {
            "time": _timestamp(record.created),
            "level": record.levelname.lower(),
            "logger": record.name,
            "message": _encodable(record.getMessage()),
        }
        for name, value in record.__dict__.items():
            if name not in _STANDARD_ATTRIBUTES:
                fields.setdefault(name, value)
        traceback = _traceback(self, record)
        if traceback:
            fields["traceback"] = _encodable(traceback)
        line = msgspec.json.encode(fields, enc_hook=str).decode("utf-8")
        return _priority(record.levelno) + line if self._journal else line


_STANDARD_ATTRIBUTES: Final = frozenset(logging.makeLogRecord({}).__dict__) | {
    "message",
    "asctime",
    "taskName",
}


def _timestamp(created: float) -> str:
    """UTC, to the millisecond, so that logs of several gateways can be laid side by side."""
    return time.strftime("%Y-%m-%dT%H:%M:%S", time.gmtime(created)) + f".{int(created % 1 * 1000):03}Z"


def _encodable(text: str) -> str:
    """`text` without what UTF-8 cannot say: the odd bytes of a file's name."""
    return text.encode("utf-8", "backslashreplace").decode("utf-8")


def _short_name(name: str) -> str:
    return name.removeprefix("edge_broker.") if name != "edge_broker" else "broker"


def _priority(level: int) -> str:
    return next((f"<{number}>" for least, number in _PRIORITIES if level >= least), f"<{_DEBUG_PRIORITY}>")


def _traceback(formatter: logging.Formatter, record: logging.LogRecord) -> str:
    """The record's traceback and stack, empty without."""
    parts = []
    if record.exc_info:
        parts.append(formatter.formatException(record.exc_info))
    if record.stack_info:
        parts.append(formatter.formatStack(record.stack_info))
    return "\n".join(parts)
