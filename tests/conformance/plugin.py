"""A pytest plugin for `make conformance`: gathers what the tests showed and writes the page.

``pytest -p tests.conformance.plugin --conformance-page FILE tests/conformance tests/foreign``. The run fails, beyond what
pytest itself finds, where a statement that binds a server has no test that passed. A run of chosen tests (``-k``) writes
nothing.
"""

from __future__ import annotations

from collections.abc import Generator
from pathlib import Path
from typing import Any

import pytest

from tests.conformance.page import FAILED, PASSED, SKIPPED, Cell, Results, missing, render, worst


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption("--conformance-page", type=Path, required=True, help="where the page is written")


def pytest_configure(config: pytest.Config) -> None:
    config.pluginmanager.register(Gatherer(config.getoption("--conformance-page")), "conformance-page")


class Gatherer:
    """Takes each test's outcome while they run; at the end writes the page to `path`."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._tests: dict[str, list[str]] = {}
        self._foreign: dict[Cell, list[str]] = {}
        self._missing: list[str] = []
        self._written = False
        self._is_whole = True

    def pytest_collection_modifyitems(self, items: list[pytest.Item]) -> None:
        """Without the tests of the committed page: it is about to be written anew."""
        items[:] = [item for item in items if not item.name.startswith("test_the_committed_page_")]

    def pytest_deselected(self, items: list[pytest.Item]) -> None:
        self._is_whole = False

    @pytest.hookimpl(wrapper=True)
    def pytest_runtest_makereport(self, item: pytest.Item) -> Generator[None, Any, Any]:
        report = yield
        if report.when == "call" or report.outcome != "passed":  # of set-up and clean-up only what went wrong
            outcome = {"passed": PASSED, "skipped": SKIPPED}.get(report.outcome, FAILED)
            name = f"{item.path.name}::{getattr(item, 'originalname', item.name)}"
            self._tests.setdefault(name, []).append(outcome)
            for marker in item.iter_markers("foreign"):
                self._foreign.setdefault(Cell(**marker.kwargs), []).append(outcome)
        return report

    def pytest_sessionfinish(self, session: pytest.Session) -> None:
        if not self._tests or not self._is_whole:
            return
        results = Results(
            {name: worst(outcomes) for name, outcomes in self._tests.items()},
            {cell: worst(outcomes) for cell, outcomes in self._foreign.items()},
        )
        self._missing = missing(results)
        self._path.write_text(render(results), encoding="utf-8")
        self._written = True
        if self._missing and session.exitstatus == pytest.ExitCode.OK:
            session.exitstatus = pytest.ExitCode.TESTS_FAILED

    def pytest_terminal_summary(self, terminalreporter: Any) -> None:
        if self._missing:
            terminalreporter.section("statements that bind a server without a test that passes")
            for line in self._missing:
                terminalreporter.line(line)
        terminalreporter.line(f"{'written' if self._written else 'not written'}: {self._path}")
