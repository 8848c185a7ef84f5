"""Which tests are about which statements, read from the test modules themselves."""

from __future__ import annotations

import importlib
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Final, NamedTuple

from tests.conformance import statements_3, statements_5
from tests.conformance.normative import Statement

OLD_PROTOCOL: Final = "test_v3_old_protocol"
"""The module of what MQTT 3.1 does otherwise."""
_FOLDER: Final = Path(__file__).parent


class Version(NamedTuple):
    """A version of MQTT: its table of statements, and how the files of its tests begin."""

    name: str
    prefix: str
    statements: Mapping[str, Statement]


VERSIONS: Final = (
    Version("3.1.1", "test_v3_", statements_3.STATEMENTS),
    Version("5.0", "test_v5_", statements_5.STATEMENTS),
)


def coverage_of(version: Version) -> dict[str, list[str]]:
    """By statement: its tests, as ``file.py::function``. Also of identifiers that no table has."""
    found: dict[str, list[str]] = {}
    for file in sorted(_FOLDER.glob(f"{version.prefix}*.py")):
        for name, ids in _marked_in(file.stem):
            for statement_id in ids:
                found.setdefault(statement_id, []).append(f"{file.name}::{name}")
    return found


def unnumbered_tests() -> list[str]:
    """The tests of MQTT 3.1, which numbers none."""
    return [f"{OLD_PROTOCOL}.py::{name}" for name, _ in _marked_in(OLD_PROTOCOL)]


def _marked_in(module_name: str) -> Iterator[tuple[str, list[str]]]:
    """The tests of a module in their order, each with the statements that it is about."""
    module = importlib.import_module(f"{__package__}.{module_name}")
    for name, test in vars(module).items():
        if name.startswith("test_") and callable(test):
            marks = getattr(test, "pytestmark", [])
            yield name, [one for mark in marks if mark.name == "normative" for one in mark.args]
