"""The alert rules: they parse, fire when they should and only then, and the documentation knows them all."""

import re
import shutil
import subprocess
from pathlib import Path
from typing import Any

import pytest
import yaml

from tests.deploy.conftest import MONITORING, PROMETHEUS

RULES = PROMETHEUS / "edge-broker.rules.yml"
RULE_TESTS = PROMETHEUS / "edge-broker.rules.test.yml"


def alerts() -> dict[str, dict[str, Any]]:
    groups = yaml.safe_load(RULES.read_text())["groups"]
    return {rule["alert"]: rule for group in groups for rule in group["rules"]}


def expected_samples(alert: str) -> list[list[str]]:
    """For each test of the alert, the labels of the alerts that it expects to fire."""
    tests = yaml.safe_load(RULE_TESTS.read_text())["tests"]
    return [
        [sample["labels"] for sample in query["exp_samples"]]
        for test in tests
        for query in test["promql_expr_test"]
        if f'alertname="{alert}"' in query["expr"]
    ]


@pytest.mark.needs("promtool")
def test_the_rules_are_well_formed() -> None:
    process = subprocess.run(["promtool", "check", "rules", RULES], capture_output=True, text=True)
    assert process.returncode == 0, process.stdout + process.stderr


@pytest.mark.needs("promtool")
def test_the_alerts_fire_when_they_should_and_only_then() -> None:
    process = subprocess.run(["promtool", "test", "rules", RULE_TESTS], capture_output=True, text=True)
    assert process.returncode == 0, process.stdout + process.stderr


@pytest.mark.needs("promtool")
def test_a_wrong_threshold_would_be_seen(tmp_path: Path) -> None:
    text = RULES.read_text()
    assert "> 3600" in text
    (tmp_path / RULES.name).write_text(text.replace("> 3600", "> 36000"))
    shutil.copy(RULE_TESTS, tmp_path)
    process = subprocess.run(["promtool", "test", "rules", tmp_path / RULE_TESTS.name], capture_output=True)
    assert process.returncode != 0


@pytest.mark.parametrize("alert", sorted(alerts()))
def test_each_alert_is_shown_firing_and_quiet(alert: str) -> None:
    expected = expected_samples(alert)
    assert any(expected), "no test in which it fires"
    assert not all(expected), "no test in which it stays quiet"


@pytest.mark.parametrize("alert", sorted(alerts()))
def test_each_alert_says_how_bad_it_is_and_what_to_do(alert: str) -> None:
    rule = alerts()[alert]
    assert rule["labels"]["severity"] in {"warning", "critical"}
    assert rule["annotations"].keys() == {"summary", "description"}
    assert len(rule["annotations"]["description"]) > 80


@pytest.mark.parametrize("alert", sorted(alerts()))
def test_a_summary_names_only_labels_that_the_alert_has(alert: str) -> None:
    named = set(re.findall(r"\$labels\.(\w+)", str(alerts()[alert]["annotations"])))
    for samples in expected_samples(alert):
        for labels in samples:
            assert named <= set(re.findall(r'(\w+)="', labels))


def test_the_documentation_explains_every_alert_and_every_metric_that_they_use() -> None:
    text = MONITORING.read_text()
    metrics = set(re.findall(r"edge_broker_\w+", " ".join(rule["expr"] for rule in alerts().values())))
    names = set(alerts()) | {metric.removesuffix("_bucket") for metric in metrics}
    assert sorted(name for name in names if f"`{name}" not in text) == []
    assert sorted(set(re.findall(r"\bEdgeBroker\w+", text)) - set(alerts())) == [], "alerts that do not exist"
