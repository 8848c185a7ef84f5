"""The log's lines: for people, for collectors, for the journal; and what may not get into them."""

from __future__ import annotations

import json
import logging
import os
import re
from collections.abc import Iterator
from pathlib import Path

import pytest

from edge_broker.ops.logging import configure_logging

STORE = logging.getLogger("edge_broker.store.journal")


@pytest.fixture(autouse=True)
def _restored_logging() -> Iterator[None]:
    root = logging.getLogger()
    handlers, level = root.handlers[:], root.level
    ours = [logging.getLogger(name) for name in ("edge_broker", "bridge")]
    levels = [logger.level for logger in ours]
    yield
    root.handlers[:] = handlers
    root.setLevel(level)
    for logger, before in zip(ours, levels, strict=True):
        logger.setLevel(before)


class LogFile:
    """A real file that is logged to, as a shell or systemd would connect it."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self.stream = path.open("w", encoding="utf-8")

    @property
    def journal(self) -> dict[str, str]:
        """The environment that systemd gives when this file is the journal."""
        status = os.fstat(self.stream.fileno())
        return {"JOURNAL_STREAM": f"{status.st_dev}:{status.st_ino}"}

    def lines(self) -> list[str]:
        """What has been logged."""
        return self._path.read_text("utf-8").splitlines()


@pytest.fixture
def log_file(tmp_path: Path) -> Iterator[LogFile]:
    file = LogFile(tmp_path / "log")
    yield file
    file.stream.close()


def test_a_line_for_people(log_file: LogFile) -> None:
    configure_logging("info", "text", stream=log_file.stream, environ={})
    STORE.info("committed %d messages", 5)
    logging.getLogger("edge_broker").warning("careful")
    logging.getLogger("bridge.link").error("refused")
    stamp = r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{3}Z"
    first, second, third = log_file.lines()
    assert re.fullmatch(rf"{stamp} info     store\.journal: committed 5 messages", first)
    assert re.fullmatch(rf"{stamp} warning  broker: careful", second)
    assert re.fullmatch(rf"{stamp} error    bridge\.link: refused", third)


def test_the_time_is_the_records_own(log_file: LogFile) -> None:
    configure_logging("info", "text", stream=log_file.stream, environ={})
    record = STORE.makeRecord(STORE.name, logging.INFO, "", 0, "then", (), None)
    record.created = 1_714_564_800.0625
    STORE.handle(record)
    assert log_file.lines() == ["2024-05-01T12:00:00.062Z info     store.journal: then"]


@pytest.mark.parametrize(
    ("level", "ours", "theirs"),
    [
        ("debug", ["debug", "info", "warning", "error"], ["warning", "error"]),
        ("info", ["info", "warning", "error"], ["warning", "error"]),
        ("warning", ["warning", "error"], ["warning", "error"]),
        ("error", ["error"], ["error"]),
    ],
)
def test_our_packages_log_from_the_level_on_and_others_only_warnings(
    log_file: LogFile, level: str, ours: list[str], theirs: list[str]
) -> None:
    configure_logging(level, "text", stream=log_file.stream, environ={})
    for name in ("edge_broker.net", "bridge", "asyncio"):
        for severity in ("debug", "info", "warning", "error"):
            logging.getLogger(name).log(logging.getLevelNamesMapping()[severity.upper()], "%s", severity)
    seen = [tuple(line.split()[2:]) for line in log_file.lines()]
    expected = [("net:", one) for one in ours] + [("bridge:", one) for one in ours]
    assert seen == expected + [("asyncio:", one) for one in theirs]


def test_json_lines_parse_and_keep_extras_and_tracebacks(log_file: LogFile) -> None:
    configure_logging("debug", "json", stream=log_file.stream, environ={})
    STORE.info('said "%s"\nand more', "höre", extra={"client_id": "pi", "path": Path("/x")})
    try:
        raise OSError("the disk")
    except OSError:
        STORE.exception("failed")
    STORE.warning("a file named %s", os.fsdecode(b"\xff"))
    first, second, third = (json.loads(line) for line in log_file.lines())
    assert re.fullmatch(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{3}Z", first.pop("time"))
    assert first == {
        "level": "info",
        "logger": "edge_broker.store.journal",
        "message": 'said "höre"\nand more',
        "client_id": "pi",
        "path": "/x",
    }
    assert second["level"] == "error"
    assert second["traceback"].startswith("Traceback")
    assert "OSError: the disk" in second["traceback"]
    assert third["message"] == "a file named \\udcff"


def test_the_journal_gets_priorities_and_no_times(log_file: LogFile) -> None:
    configure_logging("debug", "text", stream=log_file.stream, environ=log_file.journal)
    for level in (logging.DEBUG, logging.INFO, logging.WARNING, logging.ERROR, logging.CRITICAL):
        STORE.log(level, "x")
    assert log_file.lines() == [f"<{number}>store.journal: x" for number in (7, 6, 4, 3, 2)]


def test_in_the_journal_a_tracebacks_lines_have_the_priority_too(log_file: LogFile) -> None:
    configure_logging("debug", "text", stream=log_file.stream, environ=log_file.journal)
    try:
        raise OSError("two\nlines")
    except OSError:
        STORE.exception("failed")
    lines = log_file.lines()
    assert lines[0] == "<3>store.journal: failed"
    assert lines[1] == "<3>Traceback (most recent call last):"
    assert all(line.startswith("<3>") for line in lines)


def test_json_in_the_journal(log_file: LogFile) -> None:
    configure_logging("info", "json", stream=log_file.stream, environ=log_file.journal)
    STORE.warning("x")
    (line,) = log_file.lines()
    assert line.startswith("<4>")
    assert json.loads(line[3:])["message"] == "x"


def test_a_log_redirected_away_from_the_journal_is_not_the_journal(log_file: LogFile) -> None:
    configure_logging("info", "text", stream=log_file.stream, environ={"JOURNAL_STREAM": "8:12345"})
    STORE.info("x")
    assert log_file.lines()[0].endswith(" info     store.journal: x")


@pytest.mark.parametrize("journal", [False, True])
def test_a_hostile_text_stays_on_its_line(log_file: LogFile, journal: bool) -> None:
    environ = log_file.journal if journal else {}
    configure_logging("info", "text", stream=log_file.stream, environ=environ)
    STORE.info("client %s", "a\n<0>kernel: panic\r\x1b[31m\x7f\x85\u2028b")
    (line,) = log_file.lines()
    assert line.endswith(r"client a\n<0>kernel: panic\r\x1b[31m\x7f\x85\u2028b")


def test_configured_again_the_last_counts(log_file: LogFile) -> None:
    configure_logging("debug", "json", stream=log_file.stream, environ={})
    configure_logging("error", "text", stream=log_file.stream, environ={})
    STORE.warning("not seen")
    STORE.error("seen")
    (line,) = log_file.lines()
    assert line.endswith("error    store.journal: seen")
