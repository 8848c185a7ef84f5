"""The command against a real broker: small loads, whole path, exit status and files."""

import json
import subprocess
import sys
from pathlib import Path

import pytest
from click.testing import CliRunner

from benchmarks import wire
from benchmarks.__main__ import main, order_of_round, parse_brokers
from benchmarks.brokers import KINDS, running
from benchmarks.links import Link

ROOT = Path(__file__).parents[2]


def run(*arguments: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "benchmarks", *arguments]
    return subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=100)


def test_brokers_may_come_twice() -> None:
    assert list(parse_brokers("mosquitto,edge-broker,mosquitto")) == [
        "mosquitto",
        "edge-broker",
        "mosquitto (2)",
    ]


def test_an_unknown_broker_is_refused() -> None:
    result = CliRunner().invoke(main, ["--brokers", "nobody"])
    assert result.exit_code == 2
    assert "'nobody' is not one of edge-broker" in result.output


def test_each_round_begins_with_another_broker() -> None:
    assert ["".join(order_of_round(list("abc"), number)) for number in range(4)] == [
        "abc",
        "bca",
        "cab",
        "abc",
    ]


@pytest.mark.needs("mosquitto")
@pytest.mark.parametrize("version", ["3.1.1", "5"])
def test_the_whole_path_with_mosquitto(tmp_path: Path, version: str) -> None:
    page, raw = tmp_path / "new" / "page.md", tmp_path / "raw.json"
    load = "--quick --seconds 0.2 --backlog 2000 --qos 1 --scenario 1to1 --scenario 200to1 --scenario offline"
    output = ["--write", str(page), "--json", str(raw)]
    result = run("--brokers", "mosquitto,mosquitto", "--version", version, *load.split(), *output)
    assert result.returncode == 0, result.stderr
    runs = json.loads(raw.read_text())["runs"]
    assert len(runs) == 6
    assert {one["failure"] for one in runs} == {None}
    assert all(one["figures"]["cpu_us_per_message"] > 0.5 for one in runs if one["scenario"] == "1to1-qos1")
    assert all(
        one["figures"]["drain_messages_per_second"] > 1_000 for one in runs if one["scenario"] == "offline"
    )
    text = page.read_text()
    assert "| 1 publisher → 1 subscriber, W 200 | mosquitto (2) |" in text
    assert "persistence false" in text
    assert "- mosquitto 2." in text
    assert result.stderr.count("\n") == 6


@pytest.mark.needs("mosquitto")
def test_the_flood_loses_nothing(tmp_path: Path) -> None:
    raw = tmp_path / "raw.json"
    result = run("--brokers", "mosquitto", "--quick", "--scenario", "flood", "--json", str(raw))
    assert result.returncode == 0, result.stderr
    (one,) = json.loads(raw.read_text())["runs"]
    assert one["figures"]["flood_messages_per_second"] > 10_000
    assert one["figures"]["samples"] > 10


@pytest.mark.needs("mosquitto")
def test_an_ordinary_day_is_measured_for_edge_broker_alone(tmp_path: Path) -> None:
    page, raw = tmp_path / "page.md", tmp_path / "raw.json"
    load = "--scenario steady --steady-seconds 2 --rounds 1 --patience 0"
    result = run(*load.split(), "--write", str(page), "--json", str(raw))
    assert result.returncode == 0, result.stderr
    [one] = json.loads(raw.read_text())["runs"]
    assert (one["broker"], one["failure"]) == ("edge-broker", None)
    assert one["figures"]["alive_messages"] >= 390
    assert one["figures"]["alive_written_bytes_per_message"] < 20
    assert 100 < one["figures"]["dead_written_bytes_per_message"] < 2_000
    assert "| nobody there |" in page.read_text()


@pytest.mark.needs("mosquitto")
def test_the_bridges_line_is_measured_and_each_message_arrives_once(tmp_path: Path) -> None:
    page, raw = tmp_path / "page.md", tmp_path / "raw.json"
    load = "--scenario wire --scenario drain --quick --steady-seconds 3 --drain 5000"
    result = run(*load.split(), "--write", str(page), "--json", str(raw))
    assert result.returncode == 0, result.stderr
    line, drain = json.loads(raw.read_text())["runs"]
    assert (line["failure"], drain["failure"]) == (None, None)
    assert line["figures"]["readings"] == 300
    assert 5 < line["figures"]["packed_percent"] < 25
    assert 100 < line["figures"]["plain_percent"] < 150
    assert drain["figures"]["messages_in_envelopes"] == 5000
    assert drain["figures"]["packed_messages_per_second"] > 1_000
    text = page.read_text()
    assert "| envelopes, a delay of 1 s |" in text
    assert "| plain, until the last PUBACK |" in text


@pytest.mark.needs("mosquitto")
def test_over_tls_all_brokers_are_measured_in_one_cipher(tmp_path: Path) -> None:
    raw = tmp_path / "raw.json"
    load = "--brokers edge-broker,mosquitto --scenario tls --quick --seconds 0.2"
    result = run(*load.split(), "--json", str(raw))
    assert result.returncode == 0, result.stderr
    runs = json.loads(raw.read_text())["runs"]
    assert {one["scenario"] for one in runs} == {"tls-1to1", "tls-200pairs", "tls-1to100"}
    assert {one["failure"] for one in runs} == {None}
    assert all(one["figures"]["cpu_us_per_message"] > 0.5 for one in runs)
    assert "Live messages over TLS" in result.stdout


def test_with_an_acl_what_it_does_not_allow_is_denied(tmp_path: Path) -> None:
    with running(KINDS["edge-broker-acl"], tmp_path / "broker", None) as broker:
        link = Link(broker.address, "anybody", wire.MQTT_5)
        answers = [
            link.exchange(wire.publish(topic, b"x", 1, wire.MQTT_5, 1))
            for topic in ("bench/000", "other", "bench/000/private")
        ]
        link.close()
    assert [answer[4] if len(answer) > 4 else 0 for answer in answers] == [0, 0x87, 0x87]


def test_a_backlog_is_found_again_after_a_restart(tmp_path: Path) -> None:
    raw = tmp_path / "raw.json"
    load = "--scenario backlog --large-backlog 3000 --patience 0"
    result = run(*load.split(), "--json", str(raw))
    assert result.returncode == 0, result.stderr
    [one] = json.loads(raw.read_text())["runs"]
    assert one["failure"] is None
    assert one["figures"]["messages"] == 3000
    assert 0 < one["figures"]["first_message_seconds"] < 10
    assert "A backlog of millions" in result.stdout
