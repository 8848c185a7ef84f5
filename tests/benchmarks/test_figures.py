"""Percentiles, medians, the ledger of the drain, targets: what turns raw runs into a verdict."""

import math
from pathlib import Path

import pytest

from benchmarks.figures import Outcome, counted, latencies_ms, medians, percentile, spread
from benchmarks.machine import filesystem_of
from benchmarks.offline import Ledger
from benchmarks.targets import evaluate
from benchmarks.wire import BrokerMisbehaved


def test_percentiles_are_values_that_occurred() -> None:
    values = list(range(100, 0, -1))
    assert [percentile(values, percent) for percent in (0, 1, 50, 99, 100)] == [1, 1, 50, 99, 100]
    assert percentile([7], 99) == 7
    assert math.isnan(percentile([], 50))


def test_latencies_are_in_milliseconds() -> None:
    assert latencies_ms([3_000_000, 1_000_000, 2_000_000], "puback_") == {
        "puback_p50_ms": 2.0,
        "puback_p99_ms": 3.0,
        "puback_max_ms": 3.0,
    }


def test_medians_are_taken_figure_by_figure() -> None:
    runs = [{"a": 3.0, "b": 1.0}, {"a": 1.0, "b": 9.0}, {"a": 2.0}]
    assert medians(runs) == {"a": 2.0, "b": 1.0}
    assert spread(runs, "a") == (1.0, 3.0)
    assert medians([]) == {}


def entered(total: int, *batches: list[int]) -> Ledger:
    ledger = Ledger(total)
    for batch in batches:
        ledger.enter(batch)
    return ledger


def test_a_ledger_in_order_is_exact() -> None:
    ledger = entered(5, [0, 1], [2], [3, 4])
    ledger.require_exact()
    assert (ledger.received, ledger.missing) == (5, 0)


@pytest.mark.parametrize(
    ("batches", "missing", "duplicated", "out_of_order", "unknown"),
    [
        ([[0, 1, 3, 4]], 1, 0, 0, 0),
        ([[0, 1], [2, 3]], 1, 0, 0, 0),
        ([[0, 1, 2, 3, 4], [4]], 0, 1, 0, 0),
        ([[0, 1, 2, 3, 4], [0, 1, 2, 3, 4]], 0, 5, 0, 0),
        ([[0, 2, 1, 3, 4]], 0, 0, 1, 0),
        ([[0, 1, 2, 3, 4], [5]], 0, 0, 0, 1),
        ([[3, 4], [0, 1, 2]], 0, 0, 3, 0),
        ([], 5, 0, 0, 0),
    ],
)
def test_a_ledger_finds_every_kind_of_fault(
    batches: list[list[int]], missing: int, duplicated: int, out_of_order: int, unknown: int
) -> None:
    ledger = entered(5, *batches)
    found = (ledger.missing, ledger.duplicated, ledger.out_of_order, ledger.unknown)
    assert found == (missing, duplicated, out_of_order, unknown)
    with pytest.raises(BrokerMisbehaved):
        ledger.require_exact()


def test_targets_compare_the_medians() -> None:
    found = {
        ("1to1-qos1", "edge-broker"): {"cpu_us_per_message": 2.0},
        ("1to1-qos1", "mosquitto"): {"cpu_us_per_message": 8.0},
        ("200to1-qos0", "edge-broker"): {"cpu_us_per_message": 5.0},
        ("200to1-qos0", "mosquitto"): {"cpu_us_per_message": 9.0},
        ("flood", "edge-broker"): {"puback_p99_ms": 100.0},
    }
    targets = evaluate(found, ["1to1-qos1", "200to1-qos0", "flood", "idle"], ["edge-broker", "mosquitto"])
    verdicts = {target.what.partition(":")[0]: target.met for target in targets[:3]}
    assert verdicts == {"1to1-qos1": True, "200to1-qos0": False, "flood": False}
    assert [target.measured for target in targets[:3]] == [4.0, 1.8, 100.0]


def test_a_figure_that_is_missing_is_a_target_missed() -> None:
    targets = evaluate({}, ["1to1-qos0", "offline"], ["edge-broker", "mosquitto"])
    assert [target.met for target in targets] == [False] * 5


def test_there_are_no_targets_without_the_subject() -> None:
    assert evaluate({}, ["1to1-qos0", "offline"], ["mosquitto"]) == []


def test_the_filesystem_is_that_of_the_longest_mount_point() -> None:
    mounts = "rootfs / ext4 rw 0 0\ntmp /tmp tmpfs rw 0 0\nx /tmp/a\\040b xfs rw 0 0\n"
    assert filesystem_of(Path("/var/lib"), mounts) == "ext4"
    assert filesystem_of(Path("/tmp/other"), mounts) == "tmpfs"
    assert filesystem_of(Path("/tmp/a b/c"), mounts) == "xfs"


def run(broker: str, cpu: float, others: float, failure: str | None = None) -> Outcome:
    return Outcome(
        "1to1-qos0", broker, 1, {"cpu_us_per_message": cpu, "others_busy_percent": others}, failure
    )


def test_disturbed_and_failed_runs_do_not_count() -> None:
    runs = [run("a", 1, 9.0), run("a", 2, 11.0), run("a", 3, 0.0), run("a", 4, 0.0, "it lost a message")]
    assert [outcome.figures["cpu_us_per_message"] for outcome in counted(runs)] == [1, 3]


def test_disturbed_runs_count_where_no_calm_one_is_left() -> None:
    runs = [run("a", 1, 50.0), run("a", 2, 60.0), run("a", 3, 0.0, "it lost a message")]
    assert [outcome.figures["cpu_us_per_message"] for outcome in counted(runs)] == [1, 2]
