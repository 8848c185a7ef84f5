"""The command line as a whole: help, version, what is imported for what."""

from __future__ import annotations

import subprocess
import sys

import click
import pytest
from click.testing import CliRunner

import edge_broker.cli
from edge_broker import __version__
from edge_broker.cli import main


def test_version() -> None:
    result = CliRunner().invoke(main, ["--version"])
    assert (result.exit_code, result.output) == (0, f"edge-broker {__version__}\n")


@pytest.mark.parametrize("flag", ["--help", "-h"])
def test_help_shows_commands_and_examples(flag: str) -> None:
    result = CliRunner().invoke(main, [flag])
    assert result.exit_code == 0
    for text in ("run", "check", "reference", "edge-broker check broker.toml", "--version"):
        assert text in result.output


@pytest.mark.parametrize("command", ["run", "check", "reference"])
def test_each_command_has_help(command: str) -> None:
    result = CliRunner().invoke(main, [command, "--help"])
    assert result.exit_code == 0
    assert "Usage:" in result.output


@pytest.mark.parametrize("arguments", [["serve"], ["run", "--confg", "x"], ["check"]])
def test_what_makes_no_sense_is_refused_with_2(arguments: list[str]) -> None:
    result = CliRunner().invoke(main, arguments)
    assert result.exit_code == 2
    assert "Usage:" in result.output


def test_a_command_whose_module_is_not_there_is_no_command(monkeypatch: pytest.MonkeyPatch) -> None:
    missing = edge_broker.cli._Command("edge_broker.cli.never_written", "never", "Never.")
    monkeypatch.setitem(edge_broker.cli._COMMANDS, "never", missing)
    context = click.Context(main)
    assert "never" not in main.list_commands(context)
    assert main.get_command(context, "never") is None
    assert CliRunner().invoke(main, ["--help"]).exit_code == 0
    assert CliRunner().invoke(main, ["never"]).exit_code == 2


def test_the_reference_is_printed() -> None:
    result = CliRunner().invoke(main, ["reference"])
    assert result.exit_code == 0
    for text in ("### `[[listeners]]`", "`commit_delay_ms`", "`puback_timeout_seconds`", "EDGE_BROKER_LOOP"):
        assert text in result.output


def test_python_dash_m_is_the_same() -> None:
    command = [sys.executable, "-m", "edge_broker", "--version"]
    assert (
        subprocess.run(command, capture_output=True, text=True, timeout=60).stdout
        == f"edge-broker {__version__}\n"
    )


def test_running_imports_nothing_that_it_does_not_need() -> None:
    """An idle broker's memory is mostly imports."""
    program = (
        "import sys; import edge_broker.cli.run, edge_broker.broker; from edge_broker.cli.configuration import load_config;"
        "load_config(None); print(*sorted({name.partition('.')[0] for name in sys.modules}))"
    )
    result = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, timeout=60, check=True
    )
    heavy = {
        "rich",
        "cryptography",
        "aiohttp",
        "jwt",
        "prometheus_client",
        "tomllib",
        "difflib",
        "bridge",
        "paho",
        "cbor2",
    }
    assert heavy & set(result.stdout.split()) == set()
