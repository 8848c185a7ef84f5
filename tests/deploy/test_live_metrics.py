"""A running broker's metrics against the documentation and the alerts: nothing named that is not there, or left out."""

import re
import signal
import subprocess
import sys
import time
import urllib.request
from collections.abc import Iterator
from pathlib import Path

import pytest
import yaml

from tests.deploy.conftest import MONITORING, PROMETHEUS

START_SECONDS = 30.0

CONFIG = """
data_dir = "data"
[[listeners]]
bind = "127.0.0.1:0"
[http]
bind = "127.0.0.1:0"
[store]
card_endurance_terabytes = 30
[[bridges]]
name = "cloud"
urls = ["mqtt://127.0.0.1:9"]
out = [{ filter = "sensors/#" }]
"""


def address_of_http(log: Path, broker: subprocess.Popen[bytes]) -> str:
    """Where the broker says that it shows its metrics, as soon as it has said so."""
    deadline = time.monotonic() + START_SECONDS
    while time.monotonic() < deadline and broker.poll() is None:
        found = re.search(r"health and metrics on (http://\S+)", log.read_text())
        if found is not None:
            return found[1]
        time.sleep(0.05)
    raise AssertionError(f"the broker did not start: {log.read_text()}")


@pytest.fixture(scope="module")
def metrics(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """What /metrics of a broker with a bridge to nowhere says."""
    directory = tmp_path_factory.mktemp("broker")
    config = directory / "edge-broker.toml"
    config.write_text(CONFIG)
    log = directory / "log"
    with log.open("wb") as output:
        broker = subprocess.Popen(
            [sys.executable, "-m", "edge_broker", "run", "--config", config], stdout=output, stderr=output
        )
    try:
        with urllib.request.urlopen(f"{address_of_http(log, broker)}/metrics", timeout=10) as response:
            yield response.read().decode()
    finally:
        broker.send_signal(signal.SIGTERM)
        broker.wait(timeout=20)


def shown_names(metrics: str) -> set[str]:
    return set(re.findall(r"^# TYPE (edge_broker_\w+) ", metrics, re.MULTILINE))


def test_the_documentations_table_is_what_the_broker_shows(metrics: str) -> None:
    documented = set(
        re.findall(r"^\| `(edge_broker_\w+)(?:\{[\w,]+\})?` \|", MONITORING.read_text(), re.MULTILINE)
    )
    assert documented == shown_names(metrics)


def alert_expressions() -> list[str]:
    groups = yaml.safe_load((PROMETHEUS / "edge-broker.rules.yml").read_text())["groups"]
    return [rule["expr"] for group in groups for rule in group["rules"]]


def test_the_alerts_ask_for_nothing_that_the_broker_does_not_show(metrics: str) -> None:
    asked = {
        name.removesuffix("_bucket")
        for expression in alert_expressions()
        for name in re.findall(r"edge_broker_\w+", expression)
    }
    assert asked <= shown_names(metrics)


def test_a_percentile_alert_can_fire_at_all(metrics: str) -> None:
    """No quantile is above the largest finite bucket."""
    percentiles = [
        found
        for expression in alert_expressions()
        if (found := re.search(r"(edge_broker_\w+_bucket).* > ([\d.]+)\s*$", expression, re.DOTALL))
    ]
    assert len(percentiles) == 3
    for found in percentiles:
        bounds = [float(bound) for bound in re.findall(rf'^{found[1]}{{le="([\d.]+)"', metrics, re.MULTILINE)]
        assert float(found[2]) < max(bounds)
