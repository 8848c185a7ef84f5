"""The tables, the tests and the committed page say the same."""

from __future__ import annotations

import re
import subprocess
import sys
from collections import Counter
from pathlib import Path

import pytest

from tests.conformance.coverage import VERSIONS, Version, coverage_of, unnumbered_tests
from tests.conformance.page import (
    FAILED,
    NOT_RUN,
    PASSED,
    SKIPPED,
    Cell,
    Results,
    client_row,
    missing,
    render,
    statement_row,
    worst,
)

PAGE = Path(__file__).resolve().parents[2] / "docs" / "conformance.md"

of_every_version = pytest.mark.parametrize("version", VERSIONS, ids=lambda version: version.name)


@of_every_version
def test_every_statement_that_binds_a_server_has_a_test(version: Version) -> None:
    tests = coverage_of(version)
    assert [
        key for key, statement in version.statements.items() if statement.binds_server and key not in tests
    ] == []


@of_every_version
def test_every_statement_that_a_test_names_exists(version: Version) -> None:
    assert {key: tests for key, tests in coverage_of(version).items() if key not in version.statements} == {}


@of_every_version
def test_identifiers_are_of_the_specifications_form_and_order(version: Version) -> None:
    places = []
    for key in version.statements:
        form = re.fullmatch(r"MQTT-(\d+)\.(\d+)\.(\d+)-(\d+)", key)
        assert form is not None, key
        places.append(tuple(int(part) for part in form.groups()))
    assert places == sorted(places)


def test_the_table_of_3_1_1_is_whole() -> None:
    """How many statements each section of the specification's appendix B has."""
    sizes = Counter(key.removeprefix("MQTT-").partition("-")[0] for key in VERSIONS[0].statements)
    assert sizes == {
        "1.5.3": 3, "2.2.2": 2, "2.3.1": 7,
        "3.1.0": 2, "3.1.2": 24, "3.1.3": 11, "3.1.4": 5, "3.2.0": 1, "3.2.2": 6,
        "3.3.1": 12, "3.3.2": 3, "3.3.4": 1, "3.3.5": 2, "3.6.1": 1,
        "3.8.1": 1, "3.8.3": 4, "3.8.4": 6, "3.9.3": 2, "3.10.1": 1, "3.10.3": 2, "3.10.4": 6,
        "3.12.4": 1, "3.14.1": 1, "3.14.4": 3,
        "4.1.0": 2, "4.3.1": 1, "4.3.2": 2, "4.3.3": 2, "4.4.0": 1, "4.5.0": 2, "4.6.0": 6,
        "4.7.1": 3, "4.7.2": 1, "4.7.3": 4, "4.8.0": 2,
        "6.0.0": 4, "7.0.0": 2, "7.1.1": 1, "7.1.2": 1,
    }  # fmt: skip


@of_every_version
def test_the_committed_page_is_of_these_statements_and_tests(version: Version) -> None:
    """Else: `make conformance`."""
    text = PAGE.read_text(encoding="utf-8")
    part = text.partition(f"## MQTT {version.name}\n")[2].partition("\n## ")[0]
    rows = [line for line in part.splitlines() if line.startswith("| MQTT-")]
    tests = coverage_of(version)
    wanted = [
        statement_row(key, statement.text, tests.get(key, ()))
        for key, statement in version.statements.items()
        if statement.binds_server
    ]
    wanted += [client_row(key, one.text) for key, one in version.statements.items() if not one.binds_server]
    assert [row[: len(want)] for row, want in zip(rows, wanted, strict=True)] == wanted


def test_the_committed_page_has_every_test_of_the_old_protocol() -> None:
    """Else: `make conformance`."""
    part = PAGE.read_text(encoding="utf-8").partition("## MQTT 3.1\n")[2].partition("\n## ")[0]
    listed = [line.split("`")[1] for line in part.splitlines() if line.startswith("| `")]
    assert listed == unnumbered_tests()
    assert listed


def test_the_page_tells_results_and_what_is_missing() -> None:
    version = VERSIONS[0]
    tests = coverage_of(version)
    everything = {test: PASSED for one in VERSIONS for names in coverage_of(one).values() for test in names}
    assert missing(Results(everything, {})) == []
    name = tests["MQTT-3.1.0-2"][0]
    for result in (FAILED, SKIPPED, NOT_RUN):
        lacking = missing(Results(everything | {name: result}, {}))
        assert any(line.startswith(f"MQTT 3.1.1 MQTT-3.1.0-2 {result}") for line in lacking)
    page = render(Results(everything | {name: FAILED}, {}))
    assert any(
        line.startswith("| MQTT-3.1.0-2 ") and line.endswith("| **fails** |") for line in page.splitlines()
    )


def test_the_page_has_a_matrix_of_foreign_clients() -> None:
    cells = {
        Cell("paho", "5.0", "tcp"): PASSED,
        Cell("paho", "5.0", "ws"): FAILED,
        Cell("gmqtt", "3.1.1", "tcp"): SKIPPED,
    }
    page = render(Results({}, cells))
    assert page == render(Results({}, dict(reversed(cells.items()))))
    assert "| client | MQTT | tcp | ws |" in page
    assert "| gmqtt | 3.1.1 | not run here |  |" in page
    assert "| paho | 5.0 | passes | **fails** |" in page


def test_the_worst_outcome_counts() -> None:
    assert worst([PASSED, FAILED, SKIPPED]) == FAILED
    assert worst([PASSED, SKIPPED]) == SKIPPED
    assert worst([PASSED, PASSED]) == PASSED
    assert worst([]) == NOT_RUN


def run_with_the_plugin(page: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    """One test of this file, as `make conformance` runs all."""
    return subprocess.run(
        [
            *(sys.executable, "-m", "pytest", "-p", "no:cacheprovider", "-p", "tests.conformance.plugin"),
            *("--conformance-page", str(page), f"{__file__}::test_the_worst_outcome_counts", *arguments),
        ],
        cwd=PAGE.parents[1],
        capture_output=True,
        text=True,
        timeout=60,
    )


def test_a_run_that_leaves_statements_out_fails_and_says_which(tmp_path: Path) -> None:
    page = tmp_path / "page.md"
    run = run_with_the_plugin(page)
    assert "1 passed" in run.stdout
    assert run.returncode == pytest.ExitCode.TESTS_FAILED
    assert "MQTT 3.1.1 MQTT-3.12.4-1 not run" in run.stdout
    assert "0 of these pass" in page.read_text(encoding="utf-8")


def test_a_run_of_chosen_tests_writes_no_page(tmp_path: Path) -> None:
    run = run_with_the_plugin(tmp_path / "page.md", "-k", "nothing")
    assert "not written" in run.stdout
    assert not (tmp_path / "page.md").exists()
