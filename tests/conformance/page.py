"""`docs/conformance.md` from a run of the tests: every statement with its tests and their result, and the foreign clients.

The text depends on the tables, the tests and their results alone: no times, no order of running.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Final, NamedTuple

from tests.conformance.coverage import VERSIONS, Version, coverage_of, unnumbered_tests

PASSED: Final = "passed"
FAILED: Final = "failed"
SKIPPED: Final = "skipped"
NOT_RUN: Final = "not run"
_WORST_FIRST: Final = (FAILED, NOT_RUN, SKIPPED, PASSED)
_WORDS: Final = {PASSED: "passes", FAILED: "**fails**", SKIPPED: "not run here", NOT_RUN: "**no test**"}

_HEAD: Final = """# Conformance

What the specifications demand and what was seen to work. `make conformance` runs the tests over real sockets against a
real broker, judged by a codec of their own, and writes this page; it fails where a statement that binds a server has no
test that passes. The statements are named by the specifications' identifiers and told in our own short words.
"""


class Cell(NamedTuple):
    """One combination of the matrix of foreign clients."""

    client: str
    version: str
    transport: str


class Results(NamedTuple):
    """What a run showed. `tests`: by ``file.py::function``, the worst of its cases; `foreign`: by cell, the same."""

    tests: Mapping[str, str]
    foreign: Mapping[Cell, str]


def worst(outcomes: Iterable[str]) -> str:
    """The outcome that counts for all of them; `NOT_RUN` of none."""
    return min(outcomes, key=_WORST_FIRST.index, default=NOT_RUN)


def result_of(tests: Iterable[str], results: Results) -> str:
    """The result of a statement with these tests."""
    return worst(results.tests.get(test, NOT_RUN) for test in tests)


def missing(results: Results) -> list[str]:
    """The statements that bind a server and have no test, or one that did not pass."""
    lacking = []
    for version in VERSIONS:
        tests = coverage_of(version)
        for statement_id, statement in version.statements.items():
            result = result_of(tests.get(statement_id, ()), results)
            if statement.binds_server and result != PASSED:
                lacking.append(f"MQTT {version.name} {statement_id} {result}: {statement.text}")
    return lacking


def render(results: Results) -> str:
    """The whole page."""
    versions = [_version_part(version, results) for version in VERSIONS]
    return "\n".join([_HEAD, *versions, _old_part(results), _foreign_part(results.foreign)])


def statement_row(statement_id: str, words: str, tests: Iterable[str]) -> str:
    """The beginning of a statement's line: all of it but the result."""
    return f"| {statement_id} | {words} | {', '.join(f'`{test}`' for test in tests)} |"


def client_row(statement_id: str, words: str) -> str:
    """The line of a statement that binds clients only."""
    return f"| {statement_id} | {words} |"


def _version_part(version: Version, results: Results) -> str:
    tests = coverage_of(version)
    ours = {key: value for key, value in version.statements.items() if value.binds_server}
    theirs = {key: value for key, value in version.statements.items() if not value.binds_server}
    passed = sum(result_of(tests.get(key, ()), results) == PASSED for key in ours)
    lines = [
        f"## MQTT {version.name}\n",
        f"{len(version.statements)} statements, of which {len(ours)} bind a server; {passed} of these pass.\n",
        "| statement | in our words | tests | result |",
        "|---|---|---|---|",
    ]
    for key, statement in ours.items():
        names = tests.get(key, [])
        lines.append(f"{statement_row(key, statement.text, names)} {_WORDS[result_of(names, results)]} |")
    lines += ["\nOnly clients can keep these:\n", "| statement | in our words |", "|---|---|"]
    lines += [client_row(key, statement.text) for key, statement in theirs.items()]
    return "\n".join([*lines, ""])


def _old_part(results: Results) -> str:
    lines = [
        "## MQTT 3.1\n",
        "The protocol of before the standard, where it is not 3.1.1. It numbers no statements; mosquitto is the model.\n",
        "| test | result |",
        "|---|---|",
    ]
    lines += [f"| `{test}` | {_WORDS[result_of([test], results)]} |" for test in unnumbered_tests()]
    return "\n".join([*lines, ""])


def _foreign_part(cells: Mapping[Cell, str]) -> str:
    transports = sorted({cell.transport for cell in cells})
    lines = ["## Foreign clients\n", "Clients that nobody here wrote, against this broker.\n"]
    if not cells:
        return "\n".join([*lines, "None were run.", ""])
    lines += [
        f"| client | MQTT | {' | '.join(transports)} |",
        "|---" * (2 + len(transports)) + "|",
    ]
    for client, version in sorted({(cell.client, cell.version) for cell in cells}):
        row = (cells.get(Cell(client, version, transport)) for transport in transports)
        lines.append(f"| {client} | {version} | {' | '.join(_WORDS[r] if r else '' for r in row)} |")
    return "\n".join([*lines, ""])
