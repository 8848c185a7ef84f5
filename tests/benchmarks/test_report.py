"""The page: what was measured stands in it, a failure is not hidden, and ratios are mosquitto's by the broker's."""

import json
from dataclasses import replace

import pytest

from benchmarks import report, scenarios
from benchmarks.brokers import KINDS
from benchmarks.figures import Figures, Outcome
from benchmarks.machine import Cores, Machine
from benchmarks.results import Results
from benchmarks.scenarios import Options
from benchmarks.tables import tables

LIVE = (
    "messages_per_second",
    "p50_ms",
    "p99_ms",
    "broker_busy_percent",
    "generator_us_per_message",
    "peak_mb",
)


def live(cpu: float) -> Figures:
    return {**dict.fromkeys(LIVE, 50_000.0), "cpu_us_per_message": cpu, "others_busy_percent": 0.0}


@pytest.fixture
def results() -> Results:
    return Results(
        machine=Machine("a CPU", 2, 8.0, "Linux", "CPython", "ext4"),
        cores=Cores(0, 1),
        date="today",
        command="python -m benchmarks",
        options=Options(),
        rounds=3,
        kinds={name: KINDS[name] for name in ("edge-broker", "mosquitto")},
        versions={"edge-broker": "0.9", "mosquitto": "2.0"},
        scenarios=scenarios.chosen(("1to1", "flood"), 0),
        outcomes=[
            *(
                Outcome("1to1-qos0", "edge-broker", index, live(cpu))
                for index, cpu in enumerate((9.0, 2.0, 2.5))
            ),
            *(
                Outcome("1to1-qos0", "mosquitto", index, live(cpu))
                for index, cpu in enumerate((12.0, 12.5, 13.0))
            ),
            Outcome("flood", "edge-broker", 1, failure="7 messages are missing"),
        ],
    )


def test_a_row_has_medians_spread_and_ratio(results: Results) -> None:
    (row,) = [line for line in report.as_markdown(results).splitlines() if "W 200 | edge-broker |" in line]
    cells = [cell.strip() for cell in row.strip("|").split("|")]
    assert cells[2:] == [
        *("50,000", "50,000.00", "50,000.00"),
        *("2.50", "2.00 to 9.00", "5.00", "50,000", "50,000.00", "50,000.0", "3 of 3"),
    ]


def test_every_row_is_as_wide_as_its_header(results: Results) -> None:
    for table in tables(results):
        assert {len(row) for row in table.rows} == {len(table.header)}


def test_a_failure_is_in_every_form_and_misses_its_target(results: Results) -> None:
    assert "7 messages are missing" in report.as_text(results)
    assert "7 messages are missing" in report.as_markdown(results)
    document = json.loads(report.as_json(results))
    assert document["runs"][-1]["failure"] == "7 messages are missing"
    assert [(target["measured"], target["met"]) for target in document["targets"]] == [
        (5.0, True),
        (None, False),
    ]


def test_a_slower_broker_misses_the_ratio(results: Results) -> None:
    slower = [
        replace(outcome, figures=live(3.2))
        if outcome.broker == "edge-broker" and outcome.figures
        else outcome
        for outcome in results.outcomes
    ]
    target = replace(results, outcomes=slower).targets()[0]
    assert (round(target.measured, 3), target.met) == (3.906, False)
